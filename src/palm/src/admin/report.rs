//! How the pool is, put together from what this peer sees and what all living members have counted; and how likely objects
//! are to be lost, as modelled.

use std::collections::BTreeSet;
use std::time::Duration;

use palm_core::durability::{Estimate, Inputs};
use tracing::debug;

use super::api::{Absent, Damaged, Draining, StatusReport, Waiting};
use crate::object::{PoolHealth, Store};
use crate::pool::gossip::Told;
use crate::pool::{MemberStatus, Pool};

/// How long the voters may take to say who waits.
const WAITING_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks all living members, and says how the pool is.
pub(super) async fn of(pool: &Pool, store: &Store) -> StatusReport {
    let (status, found, waiting) = tokio::join!(pool.status(), store.pool_health(), waiting(pool));
    let now_ms = pool.ledger().now_ms();
    let PoolHealth { health, silent, damaged, .. } = found;
    let members = pool.view().members();
    let counted_seconds = (health.counted_ms > 0).then(|| now_ms.saturating_sub(health.counted_ms) / 1000);
    let status = match health.can_lose {
        least if least < u8::MAX && counted_seconds.is_some() => {
            let counted = usize::from(least);
            // Who went away after the count is not missing in it.
            let stale = members.iter().any(|member| went_after(member, now_ms, health.counted_ms));
            let fragments = if stale { counted.min(status.can_lose) } else { counted };
            // Who does not answer may be gone.
            status.counted(fragments.saturating_sub(silent.len()))
        }
        _ => status,
    };
    // A gateway is meant to be empty.
    let drains_now = |told: &Told| told.draining && (told.used > 0 || !told.gateway);
    let draining = members.iter().filter(|member| member.told.as_ref().is_some_and(drains_now));
    let mut report = StatusReport {
        repair_eta_seconds: health.queued_bytes.checked_div(health.bytes_per_second).filter(|_| health.queued > 0),
        absent: members.iter().filter(|member| !member.live).map(absent).collect(),
        damaged: damaged.into_iter().map(|(name, fragments)| Damaged { name, fragments }).collect(),
        waiting,
        draining: draining.map(drains).collect(),
        status,
        health,
        counted_seconds,
        silent,
        words: Vec::new(),
    };
    report.words = report.sentences();
    report
}

/// The estimate of the model, from what is known here; the rest is as the model assumes, and the estimate says what that is.
pub(super) async fn durability(pool: &Pool, store: &Store, scrub: Duration) -> Estimate {
    let members = pool.view().members();
    let wanted = Inputs::new(pool.view().wanted_policy(), pool.view().staying_count());
    let mut inputs = Inputs { grace: store.grace(), scrub, ..wanted };
    let told = || members.iter().filter_map(|member| member.told.as_ref());
    let fullest = told().map(|told| told.used).max().unwrap_or(0);
    let usage = pool.fragments().usage().await.unwrap_or_default();
    if let Some(mean) = usage.bytes.checked_div(usage.fragments) {
        inputs.fragment_bytes = mean;
        inputs.peer_bytes = fullest.max(usage.bytes);
    }
    let domains: BTreeSet<&str> = told().map(|told| told.domain.as_str()).collect();
    if !domains.contains("") {
        inputs.domains = domains.len();
    }
    inputs.estimate()
}

fn went_after(member: &MemberStatus, now_ms: u64, counted_ms: u64) -> bool {
    let since_count = Duration::from_millis(now_ms.saturating_sub(counted_ms));
    !member.live && member.absent_for < since_count
}

fn absent(member: &MemberStatus) -> Absent {
    Absent { name: member.name.clone(), peer_id: member.peer.to_string(), absent_seconds: member.absent_for.as_secs() }
}

/// Who waits to be let in. Nobody is known to without a majority of voters, or when they take too long: status is asked
/// for above all when something is wrong, and must not wait for it.
pub(super) async fn waiting(pool: &Pool) -> Vec<Waiting> {
    let found = match tokio::time::timeout(WAITING_TIMEOUT, pool.waiting()).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            debug!(%error, "who waits is not known");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let waiting = found.into_iter().map(|waiting| Waiting {
        peer_id: waiting.peer.to_string(),
        name: waiting.request.name,
        address: waiting.request.address,
        requested_ms: waiting.request.requested_ms,
    });
    waiting.collect()
}

fn drains(member: &MemberStatus) -> Draining {
    Draining {
        name: member.name.clone(),
        peer_id: member.peer.to_string(),
        used_bytes: member.told.as_ref().map_or(0, |told| told.used),
    }
}
