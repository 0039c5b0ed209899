//! Names of things. Each is a newtype: a raw byte array stops at [`crate::wire`].

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {expected} characters of {alphabet}, got {text:?}")]
pub struct ParseIdError {
    kind: &'static str,
    expected: usize,
    alphabet: &'static str,
    text: String,
}

/// How an id is written for people and in file names.
#[derive(Clone, Copy)]
enum Text {
    /// Lower-case hexadecimal, as `b3sum` prints.
    Hex,
    /// Lower-case base32 without padding: shorter where people type it.
    Base32,
}

fn encode(text: Text, bytes: &[u8]) -> String {
    match text {
        Text::Hex => HEXLOWER.encode(bytes),
        Text::Base32 => BASE32_NOPAD.encode(bytes).to_ascii_lowercase(),
    }
}

fn decode(text: Text, kind: &'static str, input: &str, out: &mut [u8]) -> Result<(), ParseIdError> {
    let (expected, alphabet) = match text {
        Text::Hex => (out.len() * 2, "hexadecimal"),
        Text::Base32 => ((out.len() * 8).div_ceil(5), "base32"),
    };
    let decoded = match text {
        Text::Hex => HEXLOWER_PERMISSIVE.decode(input.as_bytes()).ok(),
        Text::Base32 => BASE32_NOPAD.decode(input.to_ascii_uppercase().as_bytes()).ok(),
    };
    match decoded {
        Some(bytes) if bytes.len() == out.len() => {
            out.copy_from_slice(&bytes);
            Ok(())
        }
        _ => Err(ParseIdError { kind, expected, alphabet, text: input.chars().take(80).collect() }),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $text:expr, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes, as stored and sent.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight characters: enough to recognise it in a log or a table.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode($text, &self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                decode($text, $kind, text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

id! {
    /// A peer: BLAKE3 of its raw Ed25519 public key. Base32, 52 characters.
    PeerId, 32, Text::Base32, "peer id"
}
id! {
    /// A pool: the first 16 bytes of BLAKE3 of the pool's Ed25519 public key, so that a joiner who was
    /// told the pool id can check that a peer really speaks for the pool. Base32, 26 characters.
    PoolId, 16, Text::Base32, "pool id"
}
id! {
    /// A segment: random, and the derivation context of its sealing secret.
    SegmentId, 16, Text::Hex, "segment id"
}
id! {
    /// A fragment: BLAKE3 of its bytes. Hexadecimal, so that `b3sum` checks a file against its name.
    FragmentId, 32, Text::Hex, "fragment id"
}
id! {
    /// One uploaded body: what collection counts references to. A multipart upload id is the body id of
    /// all its parts.
    BodyId, 16, Text::Hex, "body id"
}
id! {
    /// Names a sealed data key (one per bucket).
    KeyId, 16, Text::Hex, "key id"
}

impl PeerId {
    /// The id of the peer that holds this raw Ed25519 public key.
    pub fn from_public_key(key: &[u8; 32]) -> Self {
        Self(*blake3::hash(key).as_bytes())
    }

    /// The first eight bytes as a number: what ballots carry to keep peers apart.
    pub fn tag(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl PoolId {
    /// The id of the pool that holds this raw Ed25519 public key.
    pub fn from_public_key(key: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
        Self(id)
    }
}

impl FragmentId {
    /// The id of a fragment with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// One mutation of one client request; a retry carries the same one (R5). Drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rejects_the_wrong_length() {
        let peer = PeerId::from_public_key(&[7; 32]);
        assert_eq!(peer.to_string().parse::<PeerId>(), Ok(peer));
        assert_eq!(peer.to_string().len(), 52);
        assert_eq!(PoolId::from_public_key(&[7; 32]).to_string().len(), 26);
        assert!("abc".parse::<PoolId>().is_err());
        let upper = FragmentId::of(b"x").to_string().to_uppercase();
        assert_eq!(upper.parse(), Ok(FragmentId::of(b"x")));
    }
}
