//! Commands to a running peer.

use std::path::Path;
use std::time::Duration;

use super::confirm::confirm;
use super::{CliError, print, task};
use crate::admin::api::{self, path};
use crate::admin::client::{ask, ask_within};
use crate::admin::words::size;

/// A recovery takes every register of every member in reach.
const RECOVERY_TIMEOUT: Duration = Duration::from_hours(1);
/// Counting a bucket takes a listing of all of it.
const COUNT_TIMEOUT: Duration = Duration::from_hours(1);
/// A question without a body.
const NOTHING: Option<&()> = None;

pub(super) async fn invite(data: &Path, lasts: Duration, json: bool) -> Result<(), CliError> {
    let request = api::InviteRequest { expires_seconds: lasts.as_secs() };
    let invited: api::Invited = ask(data, path::INVITE, Some(&request)).await?;
    print::invited(&invited, json);
    Ok(())
}

pub(super) async fn approve(data: &Path, peer_id: Option<String>, json: bool) -> Result<(), CliError> {
    let approved: api::Approved = ask(data, path::APPROVE, Some(&api::ApproveRequest { peer_id })).await?;
    print::approved(&approved, json);
    Ok(())
}

pub(super) async fn members(data: &Path, json: bool) -> Result<(), CliError> {
    let members: api::Members = ask(data, path::MEMBERS, NOTHING).await?;
    print::members(&members, json);
    Ok(())
}

pub(super) async fn evict(data: &Path, peer: String, reason: String, yes: bool, json: bool) -> Result<(), CliError> {
    let found: api::Member = ask(data, path::FIND, Some(&api::FindMember { peer })).await?;
    if !yes {
        let question = format!(
            "{} ({}, {} stored) can never come back with its key. Objects with fragments there can lose one peer fewer until the \
             others have made these again.\nEvict it? [y/N]",
            found.name,
            found.peer_id,
            size(found.used_bytes.unwrap_or(0))
        );
        confirm(&question, "y", "--yes")?;
    }
    let request = api::EvictRequest { peer_id: found.peer_id, reason };
    let evicted: api::Evicted = ask(data, path::EVICT, Some(&request)).await?;
    print::evicted(&found.name, &evicted, json);
    Ok(())
}

pub(super) async fn leave(data: &Path, force: bool, yes: bool, json: bool) -> Result<(), CliError> {
    if !yes {
        confirm(
            "This peer leaves its pool for good: its key opens nothing there any more. Leave? [y/N]",
            "y",
            "--yes",
        )?;
    }
    if !force {
        task::finish(data, api::StartTask { task: api::Task::Drain, dry_run: false }, json).await?;
    }
    let left: api::Left = ask(data, path::LEAVE, Some(&api::LeaveRequest { force })).await?;
    print::left(&left, json);
    Ok(())
}

pub(super) async fn recover(data: &Path, accepted: bool, json: bool) -> Result<(), CliError> {
    let plan: api::RecoveryPlan = ask(data, path::RECOVER, NOTHING).await?;
    if !plan.needed {
        return Err(CliError::Failed(plan.words.concat()));
    }
    if !accepted {
        print::recovery_plan(&plan);
        let question = format!("Type the pool's name ({}) to go on:", plan.pool);
        confirm(&question, &plan.pool, "--i-accept-data-loss")?;
    }
    let recovered: api::Recovered = ask_within(data, path::RECOVER, Some(&api::Empty {}), RECOVERY_TIMEOUT).await?;
    print::recovered(&recovered, json);
    Ok(())
}

pub(super) async fn status(data: &Path, json: bool) -> Result<(), CliError> {
    let report: api::StatusReport = ask(data, path::STATUS, NOTHING).await?;
    print::status(&report, json);
    Ok(())
}

pub(super) async fn durability(data: &Path, json: bool) -> Result<(), CliError> {
    let estimate: api::Estimate = ask(data, path::DURABILITY, NOTHING).await?;
    print::durability(&estimate, json);
    Ok(())
}

pub(super) async fn quota(data: &Path, bucket: String, quota: Option<api::Quota>, json: bool) -> Result<(), CliError> {
    // Setting one counts the bucket.
    let asked = Some(api::QuotaRequest { bucket, quota });
    let quota: api::BucketQuota = ask_within(data, path::QUOTA, asked.as_ref(), COUNT_TIMEOUT).await?;
    print::quota(&quota, json);
    Ok(())
}
