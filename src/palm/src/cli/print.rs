//! What commands print: for people, or one line of JSON.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use palm_core::id::{PeerId, PoolId};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::doctor::{Check, Verdict};
use super::peer::Ready;
use crate::admin::api;
use crate::admin::words::size;
use crate::pool::ledger::CatchUp;

mod backends;
mod members;
mod pages;
mod status;
mod table;

pub(super) use backends::{added_backend, backends, removed_backend};
pub(super) use members::{approved, evicted, invited, left, members, pools, recovered, recovery_plan, refused};
pub(super) use pages::{completions, manual};
pub(super) use status::{durability, status};

use table::{date, table};

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
        "\nPool      {} ({})\nPeer      {}\nS3        {}\nConsole   {}/\n",
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
    let (data, admin) = (data.display(), &ready.admin);
    let _ = write!(text, "\nSee how it stands: palm status --data {data}\nor, in a browser:  {admin}/console/\n");
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

/// What a check of this machine found.
pub(super) fn checks(checks: &[Check], as_json: bool) {
    if as_json {
        return say_json(&json!({ "checks": checks }));
    }
    let rows = checks.iter().map(|check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        vec![check.name.to_owned(), verdict.to_owned(), check.found.clone()]
    });
    say(&table(&["CHECK", "", "FOUND"], rows));
    let to_mend = checks.iter().filter_map(|check| Some(format!("\n{}: {}", check.name, check.mend.as_ref()?)));
    to_mend.for_each(|words| say(&words));
}

/// What a benchmark measured.
pub(super) fn bench(report: &palm_bench::report::Report, as_json: bool) {
    if as_json {
        return say_json(report);
    }
    say(report.to_string().trim_end());
}

pub(super) fn admin_token(token: &str, as_json: bool) {
    if as_json {
        return say_json(&json!({ "admin_token": token }));
    }
    say(token);
}

/// How a task ended well.
pub(super) fn outcome(outcome: &api::Outcome, as_json: bool) {
    if as_json {
        return say_json(outcome);
    }
    say(&outcome.words.join("\n"));
}

/// What a task is going to do.
pub(super) fn plan(plan: &api::Outcome) {
    say(&format!("Plan: {}\n", plan.words.join("\n      ")));
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
