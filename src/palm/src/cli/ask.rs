//! Commands to a running peer.

use std::time::Duration;

use super::confirm::confirm;
use super::{CliError, print, task};
use crate::admin::api::{self, path};
use crate::admin::client::{Reach, ask, ask_within};
use crate::admin::words::size;

/// A recovery takes every register of every member in reach.
const RECOVERY_TIMEOUT: Duration = Duration::from_hours(1);
/// Counting a bucket takes a listing of all of it.
const COUNT_TIMEOUT: Duration = Duration::from_hours(1);
/// A question without a body.
const NOTHING: Option<&()> = None;

pub(super) async fn invite(reach: &Reach, lasts: Duration, json: bool) -> Result<(), CliError> {
    let request = api::InviteRequest { expires_seconds: lasts.as_secs() };
    let invited: api::Invited = ask(reach, path::INVITE, Some(&request)).await?;
    print::invited(&invited, json);
    Ok(())
}

pub(super) async fn approve(reach: &Reach, peer_id: Option<String>, json: bool) -> Result<(), CliError> {
    let approved: api::Approved = ask(reach, path::APPROVE, Some(&api::Applicants { peer_id })).await?;
    print::approved(&approved, json);
    Ok(())
}

pub(super) async fn refuse(reach: &Reach, peer_id: Option<String>, json: bool) -> Result<(), CliError> {
    let refused: api::Refused = ask(reach, path::REFUSE, Some(&api::Applicants { peer_id })).await?;
    print::refused(&refused, json);
    Ok(())
}

pub(super) async fn members(reach: &Reach, json: bool) -> Result<(), CliError> {
    let members: api::Members = ask(reach, path::MEMBERS, NOTHING).await?;
    print::members(&members, json);
    Ok(())
}

pub(super) async fn evict(reach: &Reach, peer: String, reason: String, yes: bool, json: bool) -> Result<(), CliError> {
    let found: api::Member = ask(reach, path::FIND, Some(&api::FindMember { peer })).await?;
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
    let evicted: api::Evicted = ask(reach, path::EVICT, Some(&request)).await?;
    print::evicted(&found.name, &evicted, json);
    Ok(())
}

pub(super) async fn leave(reach: &Reach, force: bool, yes: bool, json: bool) -> Result<(), CliError> {
    if !yes {
        confirm(
            "This peer leaves its pool for good: its key opens nothing there any more. Leave? [y/N]",
            "y",
            "--yes",
        )?;
    }
    if !force {
        task::finish(reach, api::StartTask { task: api::Task::Drain, dry_run: false }, json).await?;
    }
    let left: api::Left = ask(reach, path::LEAVE, Some(&api::LeaveRequest { force })).await?;
    print::left(&left, json);
    Ok(())
}

pub(super) async fn recover(reach: &Reach, accepted: bool, json: bool) -> Result<(), CliError> {
    let plan: api::RecoveryPlan = ask(reach, path::RECOVER, NOTHING).await?;
    if !plan.needed {
        return Err(CliError::Failed(plan.words.concat()));
    }
    if !accepted {
        print::recovery_plan(&plan);
        let question = format!("Type the pool's name ({}) to go on:", plan.pool);
        confirm(&question, &plan.pool, "--i-accept-data-loss")?;
    }
    let recovery = ask_within(reach, path::RECOVER, Some(&api::Empty {}), RECOVERY_TIMEOUT);
    let recovered: api::Recovered = task::spinning("founding the pool anew", json, recovery).await?;
    print::recovered(&recovered, json);
    Ok(())
}

pub(super) async fn quota(
    reach: &Reach,
    bucket: String,
    quota: Option<api::Quota>,
    json: bool,
) -> Result<(), CliError> {
    // Setting one counts the bucket.
    let asked = Some(api::QuotaRequest { bucket, quota });
    let counting = ask_within(reach, path::QUOTA, asked.as_ref(), COUNT_TIMEOUT);
    let quota: api::BucketQuota = task::spinning("counting the bucket", json, counting).await?;
    print::quota(&quota, json);
    Ok(())
}
