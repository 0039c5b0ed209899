//! `palm doctor`: looks for what may keep a peer from working here, with or without one running, and says what to mend.
//!
//! [`host`] looks at the machine, [`network`] at what peers need of it, [`pool`] asks the running peer. Nothing is changed: what is
//! written to measure a disk is removed again.

use serde::Serialize;

use super::{CliError, print};
use crate::admin::client::Reach;
use crate::config::{Loaded, SettingsError};

mod host;
mod network;
mod pool;

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// In words.
    pub(super) found: String,
    /// What to do about it.
    pub(super) mend: Option<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// A peer works, and not as well as it could.
    Warn,
    /// A peer cannot work so.
    Fail,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), mend: Some(mend.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks at everything, prints what was found, and fails if something cannot work.
pub(super) async fn run(loaded: Result<Loaded, SettingsError>, json: bool) -> Result<(), CliError> {
    let checks = match loaded {
        Err(error) => {
            vec![Check::fail(
                "settings",
                error.to_string(),
                "correct it; nothing else was looked at: examples/palm.toml documents all settings",
            )]
        }
        Ok(loaded) => look(&loaded).await,
    };
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    print::checks(&checks, json);
    match failed {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 check failed".to_owned())),
        some => Err(CliError::Failed(format!("{some} checks failed"))),
    }
}

async fn look(loaded: &Loaded) -> Vec<Check> {
    let settings = &loaded.settings;
    let changed = loaded.origins.iter().filter(|(_, _, origin)| origin != "default").count();
    let mut checks = vec![Check::ok("settings", format!("{changed} set, the others as they are by default"))];
    checks.push(host::directory(&settings.data));
    checks.push(host::secrets(&settings.data));
    checks.push(host::descriptors());
    checks.extend(host::disks(settings).await);
    let reach = Reach::Socket(settings.data.clone());
    match pool::ask_all(&reach).await {
        Ok(told) => checks.extend(pool::look(&told).await),
        Err(why) => {
            checks.push(why);
            checks.extend(network::ports(settings));
        }
    }
    checks.extend(network::multicast(&settings.discovery).await);
    checks
}
