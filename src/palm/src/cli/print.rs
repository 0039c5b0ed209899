//! What commands print: for people, or one line of JSON.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use palm_core::id::{PeerId, PoolId};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::discover::PoolLine;
use super::peer::Ready;
use crate::admin::api;
use crate::admin::words::size;
use crate::pool::ledger::CatchUp;

/// Fewer records are brought before anyone could read of it.
const CATCH_UP_SHOWN: u64 = 1_000;
const CATCH_UP_REFRESH: Duration = Duration::from_millis(250);

/// Writes a result to stdout at once. A reader that has gone (`palm status | head -1`) is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn say_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => say(&line),
        Err(error) => tracing::error!(%error, "the result cannot be written as json"),
    }
}

/// A peer serves.
pub(super) fn ready(ready: &Ready, data: &Path, as_json: bool) {
    if as_json {
        return say_json(ready);
    }
    let mut text = format!(
        "\nPool      {} ({})\nPeer      {}\nS3        {}\nAdmin     {}\n",
        ready.pool,
        ready.pool_id,
        ready.peer_id,
        if ready.s3.is_empty() { "none: this peer only stores" } else { &ready.s3 },
        ready.admin
    );
    if let (Some(access_key), Some(secret_key)) = (&ready.access_key, &ready.secret_key)
        && !ready.s3.is_empty()
    {
        let _ = write!(
            text,
            "\nAccess key {access_key}\nSecret key {secret_key}\n\
             \nTry it:\n\
             \n  export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY='{secret_key}' AWS_REGION=us-east-1\
             \n  aws --endpoint-url {0} s3 mb s3://hello\
             \n  aws --endpoint-url {0} s3 cp FILE s3://hello/\
             \n  aws --endpoint-url {0} s3 ls s3://hello\n",
            ready.s3
        );
    }
    if let Some(token) = &ready.join_token {
        let _ = write!(
            text,
            "\nAt another machine (this token is good once, for an hour; `palm invite` makes more):\n\
             \n  palm join-pool --pool-id {} --coordinator {} --token {token}\n",
            ready.pool_id, ready.quic
        );
    }
    let _ = write!(text, "\nSee how it stands: palm status --data {}\n", data.display());
    say(&text);
}

/// A joining peer waits for somebody to let it in.
pub(super) fn waiting(peer: PeerId, pool: PoolId, as_json: bool) {
    if as_json {
        return say_json(&json!({ "event": "waiting", "peer_id": peer.to_string(), "pool_id": pool.to_string() }));
    }
    say(&format!(
        "Waiting for approval. At any member of the pool:\n\n  palm approve {peer}\n\n(or `palm approve --all`; Ctrl-C gives up)"
    ));
}

/// Shows how far a catch-up is on one line of the terminal, until this peer stops.
pub(super) async fn catching_up(mut progress: watch::Receiver<Option<CatchUp>>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut shown = false;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        // A terminal that is gone is not missed.
        let written = match now {
            Some(now) if shown || now.total >= CATCH_UP_SHOWN => {
                shown = true;
                write!(std::io::stderr(), "\r\x1b[KCatching up: {now}")
            }
            None if std::mem::take(&mut shown) => writeln!(std::io::stderr(), "\r\x1b[KCaught up."),
            _ => Ok(()),
        };
        if written.is_err() {
            return;
        }
        tokio::time::sleep(CATCH_UP_REFRESH).await;
    }
}

pub(super) fn pools(pools: &[PoolLine], as_json: bool) {
    if as_json {
        return say_json(&json!({ "pools": pools }));
    }
    if pools.is_empty() {
        return say("No pool announces itself on this network. `palm create-pool` makes one.");
    }
    let rows = pools.iter().map(|pool| {
        let count = format!("{}/{}", pool.members, pool.max_members);
        let reachable = if pool.reachable { "yes" } else { "no" };
        vec![pool.name.clone(), pool.id.clone(), pool.address.clone(), count, reachable.to_owned()]
    });
    say(&table(&["NAME", "ID", "ADDRESS", "MEMBERS", "REACHABLE"], rows));
}

pub(super) fn invited(invited: &api::Invited, as_json: bool) {
    if as_json {
        return say_json(invited);
    }
    let address = invited.addresses.first().map(String::as_str).unwrap_or_default();
    say(&format!(
        "Good once, until {}. At the other machine:\n\n  palm join-pool --pool-id {} --coordinator {address} --token {}",
        date(invited.expires_ms),
        invited.pool_id,
        invited.join_token
    ));
}

pub(super) fn approved(approved: &api::Approved, as_json: bool) {
    if as_json {
        return say_json(approved);
    }
    if approved.approved.is_empty() {
        return say("Nobody waits for approval.");
    }
    for peer in &approved.approved {
        say(&format!("Approved {peer}. It is in as soon as it asks again, within seconds."));
    }
}

pub(super) fn evicted(name: &str, evicted: &api::Evicted, as_json: bool) {
    if as_json {
        return say_json(evicted);
    }
    say(&format!("{name} ({}) is evicted.", evicted.evicted));
    if evicted.votes_still {
        say("It votes still: the voters will go on without it as soon as they can. `palm status` tells.");
    }
}

pub(super) fn left(left: &api::Left, as_json: bool) {
    if as_json {
        return say_json(left);
    }
    say(&format!("{} has left pool {} and stops.", left.left, left.pool_id));
}

/// The plan of a recovery, to stderr and for people only: it is shown before the question.
pub(super) fn recovery_plan(plan: &api::RecoveryPlan) {
    let list = |members: &[crate::pool::recovery::Named]| {
        let line = |one: &crate::pool::recovery::Named| {
            format!("\n    {} {} ({})", if one.voter { "voter  " } else { "learner" }, one.name, one.peer_id)
        };
        members.iter().map(line).collect::<String>()
    };
    eprintln!("In reach, what they hold is kept:{}", list(&plan.reachable));
    eprintln!("Out of reach:{}\n", list(&plan.missing));
    for words in &plan.words {
        eprintln!("* {words}");
    }
}

pub(super) fn recovered(recovered: &api::Recovered, as_json: bool) {
    if as_json {
        return say_json(recovered);
    }
    say(&format!(
        "The pool is founded anew, in epoch {}, from {} registers. This peer votes alone until others have caught up, which `palm status` \
         shows; evict the members that are lost for ever.",
        recovered.epoch, recovered.registers
    ));
}

pub(super) fn members(members: &api::Members, as_json: bool) {
    if as_json {
        return say_json(members);
    }
    let rows = members.members.iter().map(|member| {
        let state = match member.state {
            api::MemberState::Live => "live",
            api::MemberState::Absent => "ABSENT",
        };
        let role = match (member.voter, member.gateway) {
            (true, false) => "voter",
            (false, false) => "learner",
            (true, true) => "voter, gateway",
            (false, true) => "learner, gateway",
        };
        vec![
            format!("{}{}", member.name, if member.this_peer { " (this peer)" } else { "" }),
            state.to_owned(),
            role.to_owned(),
            member.addresses.first().cloned().unwrap_or_default(),
            member.used_bytes.map(size).unwrap_or_default(),
            member.free_bytes.map(size).unwrap_or_default(),
            date(member.joined_ms),
            member.peer_id.clone(),
        ]
    });
    say(&table(&["NAME", "STATE", "ROLE", "ADDRESS", "USED", "FREE", "JOINED", "ID"], rows));
    if !members.waiting.is_empty() {
        let rows = members.waiting.iter().map(|waiting| {
            vec![waiting.name.clone(), waiting.address.clone(), date(waiting.requested_ms), waiting.peer_id.clone()]
        });
        say("\nWaiting for approval (`palm approve ID`):");
        say(&table(&["NAME", "ADDRESS", "SINCE", "ID"], rows));
    }
}

pub(super) fn status(report: &api::StatusReport, as_json: bool) {
    if as_json {
        return say_json(report);
    }
    let status = &report.status;
    let mut text = report.words.join("\n");
    let _ = write!(
        text,
        "\n\nPool        {} ({})\nMembers     {} of {} live, {} of {} voters reachable\nPolicy      {}\n\
         Here        {} fragments, {}{}\nPool free   {} before redundancy{}{}",
        status.pool,
        status.pool_id,
        status.members_live,
        status.members,
        status.voters_live,
        status.voters,
        status.policy,
        status.fragments_here,
        size(status.bytes_here),
        status.free_here.map(|free| format!(", {} free", size(free))).unwrap_or_default(),
        size(status.free_pool),
        match report.health.trash_bytes {
            0 => String::new(),
            bytes => format!(", {} in the trash", size(bytes)),
        },
        match report.health.scrubbed {
            (_, 0) => String::new(),
            (done, all) => format!("\nScrub       {done} of {all} fragments read in this round"),
        },
    );
    say(&text);
}

/// How likely objects are to be lost, and what that assumes.
pub(super) fn durability(estimate: &api::Estimate, as_json: bool) {
    if as_json {
        return say_json(estimate);
    }
    say(&estimate.to_string());
}

pub(super) fn backends(backends: &api::Backends, as_json: bool) {
    if as_json {
        return say_json(backends);
    }
    let rows = backends.backends.iter().map(|one| {
        let state = match (&one.ill, one.leaving) {
            (Some(ill), _) => ill.clone(),
            (None, true) => "being removed".to_owned(),
            (None, false) => one.state.clone(),
        };
        vec![
            one.number.to_string(),
            one.url.clone(),
            one.fragments.map(|fragments| fragments.to_string()).unwrap_or_default(),
            one.bytes.map(size).unwrap_or_default(),
            one.free_bytes.map(size).unwrap_or_default(),
            one.stuck.as_ref().map_or(state.clone(), |stuck| format!("{state}; {stuck}")),
        ]
    });
    say(&table(&["NUMBER", "URL", "FRAGMENTS", "USED", "FREE", "STATE"], rows));
}

pub(super) fn added_backend(added: &api::Backend, as_json: bool) {
    if as_json {
        return say_json(added);
    }
    say(&format!("Backend {} ({}) takes fragments, now and after restarts.", added.number, added.url));
}

pub(super) fn removed_backend(removed: &api::Backend, how: api::Removal, as_json: bool) {
    if as_json {
        return say_json(removed);
    }
    let (number, url) = (removed.number, &removed.url);
    say(&match how {
        api::Removal::Undone => format!("Backend {number} ({url}) takes fragments again."),
        _ => format!(
            "Backend {number} ({url}) is removed with what it has; repair makes that anew where enough is left."
        ),
    });
}

/// How a task ended well.
pub(super) fn outcome(outcome: &api::Outcome, as_json: bool) {
    if as_json {
        return say_json(outcome);
    }
    say(&outcome.words.join("\n"));
}

/// This peer takes fragments again.
pub(super) fn undrained(as_json: bool) {
    if as_json {
        return say_json(&json!({ "draining": false }));
    }
    say("This peer takes fragments again. What has been moved away stays there.");
}

pub(super) fn created_key(key: &api::CreatedKey, as_json: bool) {
    if as_json {
        return say_json(key);
    }
    say(&format!(
        "Access key {}\nSecret key {}\n\nAccount {}, number {}, canonical id\n{}\n\nThe secret is not shown again.",
        key.access_key, key.secret_key, key.account, key.account_number, key.canonical_id
    ));
}

pub(super) fn keys(keys: &api::Keys, as_json: bool) {
    if as_json {
        return say_json(keys);
    }
    let rows = keys.keys.iter().map(|key| {
        let user = key.user.as_deref().unwrap_or("(root)");
        let state = match key.expires_ms {
            _ if !key.enabled => "disabled".to_owned(),
            Some(expires_ms) => format!("until {}", date(expires_ms)),
            None => "valid".to_owned(),
        };
        let account = format!("{} {}", key.account, key.account_number);
        vec![key.access_key.clone(), account, user.to_owned(), state, date(key.created_ms), key.description.clone()]
    });
    say(&table(&["ACCESS KEY", "ACCOUNT", "USER", "STATE", "CREATED", "DESCRIPTION"], rows));
}

pub(super) fn identity(state: &api::IdentityState, as_json: bool) {
    if as_json {
        return say_json(state);
    }
    for policy in &state.policies {
        say(&format!("{}:\n{}\n", policy.name, policy.document));
    }
    if let Some(trust) = &state.trust {
        say(&format!("May be assumed as this says:\n{trust}"));
    }
}

pub(super) fn names(names: &api::Names, as_json: bool) {
    if as_json {
        return say_json(names);
    }
    say(&names.names.join("\n"));
}

/// A change that has nothing to tell.
pub(super) fn done(what: &str, as_json: bool) {
    if as_json {
        return say_json(&json!({ "done": what }));
    }
    say(what);
}

pub(super) fn quota(found: &api::BucketQuota, as_json: bool) {
    if as_json {
        return say_json(found);
    }
    let api::BucketQuota { bucket, quota, usage } = found;
    let Some(usage) = usage else { return say(&format!("{bucket} has no quota")) };
    let of = |limit: Option<String>| limit.map_or_else(String::new, |limit| format!(" of {limit}"));
    say(&format!(
        "{bucket} holds {}{} in {}{} objects",
        size(usage.bytes),
        of(quota.bytes.map(size)),
        usage.objects,
        of(quota.objects.map(|limit| limit.to_string())),
    ));
}

pub(super) fn revoked(revoked: &api::Revoked, as_json: bool) {
    if as_json {
        return say_json(revoked);
    }
    say(&format!("Revoked {}.", revoked.revoked));
}

pub(super) fn config(origins: &[(&'static str, String, String)], as_json: bool) {
    if as_json {
        let settings: serde_json::Map<String, serde_json::Value> = origins
            .iter()
            .map(|(name, value, origin)| ((*name).to_owned(), json!({ "value": value, "origin": origin })))
            .collect();
        return say_json(&settings);
    }
    let rows = origins.iter().map(|(name, value, origin)| vec![(*name).to_owned(), value.clone(), origin.clone()]);
    say(&table(&["SETTING", "VALUE", "FROM"], rows));
}

/// Columns as wide as their widest cell; the last is not padded.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&cell| cell.to_owned()).collect()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let padded = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    });
    padded.collect::<Vec<_>>().join("\n")
}

/// A time for people, in UTC.
fn date(ms: u64) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'static>] =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["cccc".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], rows.into_iter()), "X     Y\na     bb\ncccc");
    }

    #[test]
    fn dates_are_for_people() {
        assert_eq!(date(1_700_000_000_000), "2023-11-14 22:13 UTC");
    }
}
