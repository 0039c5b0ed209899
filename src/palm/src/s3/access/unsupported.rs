//! Nothing a client asks for that PALM would have to ignore.

use http::HeaderMap;
use s3s::S3Result;

use super::error;

/// Headers that ask for something, and the values PALM can honour: everything else under these names is 501
/// rather than silently dropped. A name that ends in `-` stands for all that start with it.
const HONOURED: [(&str, &[&str]); 2] = [("x-amz-write-offset-bytes", &[]), ("x-amz-mfa", &[])];

/// 501 for what cannot be honoured.
pub fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") {
            continue;
        }
        let rule = HONOURED.iter().find(|(rule, _)| match rule.strip_suffix('-') {
            Some(_) => name.starts_with(rule),
            None => name == *rule,
        });
        let honoured =
            rule.is_none_or(|(_, values)| values.iter().any(|honoured| honoured.as_bytes() == value.as_bytes()));
        if !honoured {
            return Err(error::not_implemented(format!(
                "A header you provided implies functionality that is not implemented: {name}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn refused(name: &'static str, value: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        match refuse_unsupported(&headers) {
            Ok(()) => false,
            Err(told) => {
                assert_eq!(told.code().as_str(), "NotImplemented");
                true
            }
        }
    }

    /// Scenario: clients ask for what PALM lacks. Danger: a request succeeds without what it asked for. Expectation: 501 for what PALM cannot honour, silence for the rest.
    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let honoured = [
            ("x-amz-acl", "private"),
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-bucket-object-lock-enabled", "false"),
            ("x-amz-tagging-directive", "COPY"),
            ("x-amz-meta-acl", "public-read"),
            ("x-amz-date", "20261122T000000Z"),
            ("content-type", "text/plain"),
        ];
        for (name, value) in honoured {
            assert!(!refused(name, value), "{name}: {value}");
        }
        let unsupported = [("x-amz-write-offset-bytes", "1"), ("x-amz-mfa", "device 123456")];
        for (name, value) in unsupported {
            assert!(refused(name, value), "{name}: {value}");
        }
    }
}
