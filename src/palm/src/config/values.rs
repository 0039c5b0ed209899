//! Values with a form of their own.

use std::fmt;

use palm_core::place::Policy;
use palm_core::s3::storage_class::ClassPolicy;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes; written as a number or with a unit, `500GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let factor: Option<u64> = match unit.trim_start() {
            "" | "B" => Some(1),
            "kB" | "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "TB" => Some(1_000_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            "TiB" => Some(1 << 40),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| format!("not a size such as 500GiB: {text:?}"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Hours of every day by this machine's clock, `23:00-07:00`: first minute after midnight, and first one after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hours(pub u16, pub u16);

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hours = palm_backends::decorate::parse_hours(text.trim());
        hours.map(|(from, until)| Self(from, until)).ok_or_else(|| format!("not hours such as 23:00-07:00: {text:?}"))
    }
}

impl From<Hours> for String {
    fn from(Hours(from, until): Hours) -> Self {
        format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

/// `auto`, or any k of n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicySetting(pub Option<Policy>);

impl std::str::FromStr for PolicySetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(None)),
            _ => text.parse().map(|policy| Self(Some(policy))).map_err(|error| format!("{error} (or auto)")),
        }
    }
}

impl fmt::Display for PolicySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("auto"),
            Some(policy) => policy.fmt(f),
        }
    }
}

impl Serialize for PolicySetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PolicySetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A storage class and its policy, `STANDARD_IA=3-of-5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassSetting(pub ClassPolicy);

impl Serialize for ClassSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClassSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a host name that is none of ours means when it could be a bucket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomDomains {
    /// Nothing: the bucket is in the path.
    #[default]
    Off,
    /// The bucket of that name.
    S3,
    /// The website of the bucket of that name.
    Website,
}

/// A target of bucket notifications, `NAME=URL`. Shown without its URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TargetSetting(pub String);

impl Serialize for TargetSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = self.0.split('=').next().unwrap_or_default();
        serializer.collect_str(&format_args!("{name}=…"))
    }
}
