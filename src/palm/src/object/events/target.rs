//! Who can be told: the targets that settings name.

use std::fmt;
use std::str::FromStr;

use super::webhook::Webhook;

/// Longest name of a target.
const NAME_MAX: usize = 64;

/// A target of notifications: `NAME=URL` in the settings, where the URL is `http://` or `https://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyTarget {
    name: String,
    hook: Webhook,
}

impl NotifyTarget {
    /// What ARNs call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn hook(&self) -> &Webhook {
        &self.hook
    }
}

impl FromStr for NotifyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = text.split_once('=').ok_or_else(|| format!("not NAME=URL: {text:?}"))?;
        let valid = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !valid {
            return Err(format!("not a name of letters, digits, - and _: {name:?}"));
        }
        Ok(Self { name: name.to_owned(), hook: url.parse()? })
    }
}

impl fmt::Display for NotifyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The name in an ARN of a queue, topic or function: `arn:palm:sqs::NAME:webhook`, or the last part of AWS's
/// (`arn:aws:sqs:REGION:ACCOUNT:NAME`).
pub(super) fn name_in(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        ["arn", "palm" | "minio", "sqs" | "sns" | "lambda", _, name, _]
        | ["arn", _, "sqs" | "sns", _, _, name]
        | ["arn", _, "lambda", _, _, "function", name] => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_name_targets() {
        assert_eq!(name_in("arn:palm:sqs::audit:webhook"), Some("audit"));
        assert_eq!(name_in("arn:aws:sqs:us-east-1:123456789012:audit"), Some("audit"));
        assert_eq!(name_in("arn:aws:sns:us-east-1:123456789012:audit"), Some("audit"));
        assert_eq!(name_in("arn:aws:lambda:us-east-1:123456789012:function:audit"), Some("audit"));
        for other in ["", "audit", "arn:aws:s3:::audit", "arn:aws:sqs:audit", "arn:aws:lambda:r:1:layer:audit"] {
            assert_eq!(name_in(other), None, "{other}");
        }
    }

    #[test]
    fn targets_are_names_and_urls() {
        let target: NotifyTarget = "audit=https://user:secret@hooks.example/palm?x=1".parse().unwrap();
        assert_eq!((target.name(), target.to_string().as_str()), ("audit", "audit"));
        for wrong in ["audit", "=http://a", "a b=http://a", "a=ftp://a", "a=http://", "a=/path"] {
            assert!(wrong.parse::<NotifyTarget>().is_err(), "{wrong}");
        }
    }
}
