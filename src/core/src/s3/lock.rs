//! Object lock (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>): what may be written over,
//! changed or deleted, and when. Asked inside the ledger update that does it, so that no race gets around it.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::calendar::DAY_MS;
use super::version::Versioning;

/// The longest default retention: 100 years.
const PERIOD_DAYS_MAX: u32 = 36_500;

/// How strong a retention is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Who has `s3:BypassGovernanceRetention`, and says so, may end it.
    Governance,
    /// Nobody may end or shorten it.
    Compliance,
}

impl Mode {
    /// By its name in XML and headers.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "GOVERNANCE" => Ok(Self::Governance),
            "COMPLIANCE" => Ok(Self::Compliance),
            _ => Err(Refusal::malformed_xml()),
        }
    }

    /// Its name in XML and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// Until when a version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How strongly.
    pub mode: Mode,
    /// Milliseconds since the epoch.
    pub until_ms: u64,
}

/// What protects one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lock {
    /// Its retention, perhaps over by now.
    pub retention: Option<Retention>,
    /// `true`: kept until the hold is taken off, which leaves `false`. `None`: it never had one.
    pub legal_hold: Option<bool>,
}

/// What a bucket with object lock gives to versions that bring no retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRetention {
    /// How strongly.
    pub mode: Mode,
    /// For how long from their making.
    pub days: u32,
}

impl DefaultRetention {
    /// Validates `Days` and `Years` of a configuration, of which one is given; a year has 365 days.
    pub fn new(mode: Mode, days: Option<u32>, years: Option<u32>) -> Result<Self, Refusal> {
        let days = match (days, years) {
            (Some(days), None) => days,
            (None, Some(years)) => years.saturating_mul(365),
            _ => return Err(Refusal::malformed_xml()),
        };
        match days {
            0 => Err(invalid_period("Default retention period must be a positive integer value.")),
            1..=PERIOD_DAYS_MAX => Ok(Self { mode, days }),
            _ => Err(invalid_period("Default retention period too large.")),
        }
    }
}

/// Who asks for a change, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// Now, milliseconds since the epoch.
    pub now_ms: u64,
    /// `x-amz-bypass-governance-retention: true`, and the permission for it.
    pub bypass: bool,
}

impl Lock {
    /// What protects a version that is being made. `bucket`: `None` without object lock, else its default retention.
    pub fn for_new(asked: Self, bucket: Option<Option<DefaultRetention>>, now_ms: u64) -> Result<Self, Refusal> {
        let Some(default) = bucket else {
            return if asked == Self::default() { Ok(asked) } else { Err(missing_configuration()) };
        };
        let given = |default: DefaultRetention| {
            let until_ms = now_ms.saturating_add(u64::from(default.days) * DAY_MS);
            Retention { mode: default.mode, until_ms }
        };
        if let Some(retention) = asked.retention {
            check_future(retention, now_ms)?;
        }
        Ok(Self { retention: asked.retention.or(default.map(given)), ..asked })
    }

    /// Whether the version may be deleted for good, or written over where it has no version id.
    pub fn check_delete(&self, asking: Asking) -> Result<(), Refusal> {
        let retained = self.in_force(asking.now_ms).is_some_and(|retention| match retention.mode {
            Mode::Compliance => true,
            Mode::Governance => !asking.bypass,
        });
        if self.legal_hold == Some(true) || retained { Err(protected()) } else { Ok(()) }
    }

    /// Its lock with another retention, or with none: a retention in force may be prolonged by everybody, and shortened,
    /// weakened, changed in mode or ended only under governance and with bypass.
    pub fn with_retention(&self, new: Option<Retention>, asking: Asking) -> Result<Self, Refusal> {
        if let Some(new) = new {
            check_future(new, asking.now_ms)?;
        }
        if let Some(old) = self.in_force(asking.now_ms) {
            let prolongs = new.is_some_and(|new| new.mode == old.mode && new.until_ms >= old.until_ms);
            let may_bypass = old.mode == Mode::Governance && asking.bypass;
            // From governance to compliance takes bypass too: nobody can undo it.
            if !prolongs && !may_bypass {
                return Err(protected());
            }
        }
        Ok(Self { retention: new, ..*self })
    }

    /// Its lock with the hold put on or taken off, which only needs the permission.
    pub fn with_legal_hold(&self, legal_hold: bool) -> Self {
        Self { legal_hold: Some(legal_hold), ..*self }
    }

    fn in_force(&self, now_ms: u64) -> Option<Retention> {
        self.retention.filter(|retention| retention.until_ms > now_ms)
    }
}

/// Reads the two headers of a retention, of which neither or both are given.
pub fn retention_of_headers(mode: Option<&str>, until_ms: Option<u64>) -> Result<Option<Retention>, Refusal> {
    match (mode, until_ms) {
        (None, None) => Ok(None),
        (Some(mode), Some(until_ms)) => {
            let mode = Mode::parse(mode).map_err(|_| Refusal::invalid_argument("Unknown wormMode directive."))?;
            Ok(Some(Retention { mode, until_ms }))
        }
        _ => {
            let message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
            Err(Refusal::invalid_argument(message))
        }
    }
}

/// Whether a bucket may be given object lock: never taken away again.
pub fn check_enable(versioning: Versioning) -> Result<(), Refusal> {
    if versioning == Versioning::Enabled {
        return Ok(());
    }
    let message = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration";
    Err(Refusal::with_status(409, "InvalidBucketState", message))
}

/// Whether a bucket's versioning may be changed to this.
pub fn check_versioning(to: Versioning, has_lock: bool) -> Result<(), Refusal> {
    if to == Versioning::Enabled || !has_lock {
        return Ok(());
    }
    let message = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.";
    Err(Refusal::with_status(409, "InvalidBucketState", message))
}

/// What object lock's operations answer in a bucket without it.
pub fn missing_configuration() -> Refusal {
    Refusal::invalid_request("Bucket is missing Object Lock Configuration")
}

/// What reading a version's retention or hold answers when it has none.
pub fn no_lock() -> Refusal {
    let message = "The specified object does not have a ObjectLock configuration";
    Refusal::with_status(404, "NoSuchObjectLockConfiguration", message)
}

/// AWS says `InvalidArgument`, public suites want this.
fn invalid_period(message: &'static str) -> Refusal {
    Refusal::bad("InvalidRetentionPeriod", message)
}

fn protected() -> Refusal {
    Refusal::with_status(403, "AccessDenied", "Access Denied because object protected by object lock.")
}

fn check_future(retention: Retention, now_ms: u64) -> Result<(), Refusal> {
    if retention.until_ms > now_ms {
        Ok(())
    } else {
        Err(Refusal::invalid_argument("The retain until date must be in the future!"))
    }
}

#[cfg(test)]
mod tests;
