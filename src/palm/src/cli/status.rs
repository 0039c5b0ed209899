//! `palm status`: how the pool is, once or again and again.

use std::io::IsTerminal;
use std::time::Duration;

use super::{CliError, print};
use crate::admin::api::{self, path};
use crate::admin::client::{Reach, ask};

/// How often it is shown anew.
const REFRESH: Duration = Duration::from_secs(2);
/// A question without a body.
const NOTHING: Option<&()> = None;

pub(super) async fn once(reach: &Reach, json: bool) -> Result<(), CliError> {
    let report: api::StatusReport = ask(reach, path::STATUS, NOTHING).await?;
    print::status(&report, json);
    Ok(())
}

/// Shows it until Ctrl-C: on a terminal in place, elsewhere one after the other. A peer that does not answer for a while is
/// waited for; one that never did is a failure.
pub(super) async fn watch(reach: &Reach, json: bool) -> Result<(), CliError> {
    let in_place = !json && std::io::stdout().is_terminal();
    let mut report = Some(ask::<api::StatusReport>(reach, path::STATUS, NOTHING).await?);
    loop {
        if in_place && report.is_some() {
            // A terminal that cannot be cleared is written on.
            let _ = console::Term::stdout().clear_screen();
        }
        if let Some(report) = &report {
            print::status(report, json);
        }
        tokio::time::sleep(REFRESH).await;
        report = match ask(reach, path::STATUS, NOTHING).await {
            Ok(report) => Some(report),
            Err(error) => {
                eprintln!("palm: {error}");
                None
            }
        };
    }
}

pub(super) async fn durability(reach: &Reach, json: bool) -> Result<(), CliError> {
    let estimate: api::Estimate = ask(reach, path::DURABILITY, NOTHING).await?;
    print::durability(&estimate, json);
    Ok(())
}
