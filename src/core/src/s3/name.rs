//! Names of buckets (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>) and keys
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).

use std::net::Ipv4Addr;

use super::Refusal;

/// Longest key, in bytes of UTF-8.
pub const KEY_MAX_BYTES: usize = 1024;

/// What names cannot begin with.
const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
/// What names cannot end with.
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// Whether a bucket may be made under this name.
pub fn check_bucket(name: &str) -> Result<(), Refusal> {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let valid = (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && !name.contains("..")
        && name.parse::<Ipv4Addr>().is_err()
        && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    if valid { Ok(()) } else { Err(Refusal::bad("InvalidBucketName", "The specified bucket is not valid.")) }
}

/// Whether an object may have this key: any UTF-8 but NUL, which parts register keys.
pub fn check_key(key: &str) -> Result<(), Refusal> {
    if key.len() > KEY_MAX_BYTES {
        return Err(Refusal::bad("KeyTooLongError", "Your key is too long"));
    }
    if key.is_empty() || key.contains('\0') {
        return Err(Refusal::invalid_argument("The specified key is not valid."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for name in ["abc", "a-b", "1.2", "my.bucket-1", &"a".repeat(63), "192.168.5"] {
            assert_eq!(check_bucket(name), Ok(()), "{name}");
        }
        let wrong = [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.5.4",
            "xn--a",
            "a-s3alias",
            "a b",
            "äbc",
        ];
        for name in wrong {
            assert_eq!(check_bucket(name).expect_err(name).code, "InvalidBucketName");
        }
        assert!(check_bucket(&"a".repeat(64)).is_err());
    }

    #[test]
    fn keys_are_any_text_of_their_length() {
        assert_eq!(check_key(&"ä".repeat(512)), Ok(()));
        assert_eq!(check_key(&"ä".repeat(513)).expect_err("too long").code, "KeyTooLongError");
        assert_eq!(check_key("a\0b").expect_err("NUL").code, "InvalidArgument");
        assert!(check_key("../a//b\n").is_ok());
    }
}
