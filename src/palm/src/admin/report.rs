//! How the pool is, put together from what this peer sees and what all living members have counted.

use std::time::Duration;

use super::api::{Draining, StatusReport};
use crate::object::{PoolHealth, Store};
use crate::pool::{MemberStatus, Pool};

/// Asks all living members, and says how the pool is.
pub(super) async fn of(pool: &Pool, store: &Store) -> StatusReport {
    let (status, found) = tokio::join!(pool.status(), store.pool_health());
    let now_ms = pool.ledger().now_ms();
    let PoolHealth { health, silent, .. } = found;
    let members = pool.view().members();
    let counted_seconds = (health.counted_ms > 0).then(|| now_ms.saturating_sub(health.counted_ms) / 1000);
    let status = match health.can_lose {
        least if least < u8::MAX && counted_seconds.is_some() => {
            let counted = usize::from(least);
            // Who went away after the count is not missing in it.
            let stale = members.iter().any(|member| went_after(member, now_ms, health.counted_ms));
            let fragments = if stale { counted.min(status.can_lose) } else { counted };
            status.counted(fragments)
        }
        _ => status,
    };
    let draining = members.iter().filter(|member| member.told.as_ref().is_some_and(|told| told.draining));
    let mut report = StatusReport {
        repair_eta_seconds: health.queued_bytes.checked_div(health.bytes_per_second).filter(|_| health.queued > 0),
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

fn went_after(member: &MemberStatus, now_ms: u64, counted_ms: u64) -> bool {
    let since_count = Duration::from_millis(now_ms.saturating_sub(counted_ms));
    !member.live && member.absent_for < since_count
}

fn drains(member: &MemberStatus) -> Draining {
    Draining {
        name: member.name.clone(),
        peer_id: member.peer.to_string(),
        used_bytes: member.told.as_ref().map_or(0, |told| told.used),
    }
}
