//! Time spans as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds in each unit, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// A time span: `90s`, `30m`, `1h`, `7d`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lasting(pub Duration);

impl FromStr for Lasting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let unit = match unit {
            "" => "s",
            "min" => "m",
            unit => unit,
        };
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, seconds)| seconds);
        let lasts = seconds.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
        lasts
            .filter(|&seconds| seconds > 0)
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| format!("not a time such as 90s, 30m, 1h or 7d: {text:?}"))
    }
}

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (name, unit) = UNITS.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit)).unwrap_or(("s", 1));
        write!(f, "{}{name}", seconds / unit)
    }
}

impl From<Lasting> for String {
    fn from(lasting: Lasting) -> Self {
        lasting.to_string()
    }
}

impl TryFrom<String> for Lasting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text: &str| text.parse::<Lasting>().map(|lasting| lasting.0.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert!(seconds("1w").is_err() && seconds("").is_err() && seconds("h").is_err() && seconds("0s").is_err());
        for text in ["90s", "15m", "1h", "7d"] {
            assert_eq!(text.parse::<Lasting>().map(|lasting| lasting.to_string()).as_deref(), Ok(text));
        }
    }
}
