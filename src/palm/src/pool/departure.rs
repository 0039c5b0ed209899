//! Members that go: sent away by another ([`evict`]) or of their own accord ([`drain`], then [`leave`]).
//!
//! The member's record is changed first. That decides it, and everything else follows from it at whichever members are
//! there: the voters go on without it (R8, `voters`), then its connections are closed (`members`). A crash anywhere leaves
//! nothing half done that would stay so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use palm_backends::{Durability, IndexStore, Space, Write};
use palm_core::id::PeerId;
use palm_core::record::{MemberRecord, MemberState, Stored, key};
use tracing::{info, warn};

use super::ledger::Decision;
use super::state::StateError;
use super::voters::{self, Presence};
use super::{PoolError, Shared, members};

/// How long a command waits for the voters to go on without a member. They do so in any case.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(25);

/// Where [`Space::Meta`] says that this peer drains: by being there.
const DRAINING_KEY: &[u8] = b"draining";

/// A reason is cut to this many characters.
const MAX_REASON_CHARS: usize = 200;

/// This peer is not a member any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dismissal {
    /// Evicted, or left.
    pub state: MemberState,
    /// Why, in the words of whoever evicted it; may be empty.
    pub reason: String,
}

impl fmt::Display for Dismissal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.state == MemberState::Left {
            "this peer has left the pool"
        } else {
            "this peer was evicted from the pool"
        })?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// How far a departure got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departed {
    /// It votes still: the voters have not yet come to go on without it.
    pub votes_still: bool,
}

/// Sends a member away, for good.
pub(super) async fn evict(shared: &Shared, peer: PeerId, reason: &str) -> Result<Departed, PoolError> {
    if peer == shared.me {
        return Err(PoolError::Refused("a peer does not evict itself; `palm leave` is for that".into()));
    }
    let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
    dismiss(shared, peer, &Dismissal { state: MemberState::Evicted, reason }).await
}

/// Whether this peer was told to drain, in this life or an earlier one.
pub(super) fn is_draining(index: &Arc<dyn IndexStore>) -> Result<bool, StateError> {
    Ok(index.get(Space::Meta, DRAINING_KEY)?.is_some())
}

/// Begins or ends to give this peer's fragments away.
pub(super) async fn drain(shared: &Shared, draining: bool) -> Result<(), PoolError> {
    if draining && shared.view.member_count() == 1 {
        return Err(PoolError::Refused(
            "this is the only member: nobody could take its fragments; `palm invite` others first".into(),
        ));
    }
    if !draining && shared.is_gateway {
        return Err(PoolError::Refused(
            "this peer is a gateway by its settings (backend.enabled): it takes no fragments".into(),
        ));
    }
    let key = Bytes::from_static(DRAINING_KEY);
    let write = if draining { Write::Put(Space::Meta, key, Bytes::new()) } else { Write::Delete(Space::Meta, key) };
    shared.index.commit(vec![write], Durability::Synced).await.map_err(StateError::from)?;
    shared.view.set_draining(draining);
    info!(draining, "draining changed");
    Ok(())
}

/// Takes this peer out of its pool. What it keeps is nobody's concern here.
pub(super) async fn leave(shared: &Shared) -> Result<Departed, PoolError> {
    let departed = dismiss(shared, shared.me, &Dismissal { state: MemberState::Left, reason: String::new() }).await?;
    if departed.votes_still {
        // It must not stop while its vote is needed to end its vote.
        return Err(PoolError::Refused(
            "the pool knows that this peer leaves, but its voters could not go on without it yet; it serves until they can".into(),
        ));
    }
    shared.dismiss(Dismissal { state: MemberState::Left, reason: String::new() });
    Ok(departed)
}

async fn dismiss(shared: &Shared, peer: PeerId, dismissal: &Dismissal) -> Result<Departed, PoolError> {
    check(shared, peer)?;
    let updated = shared
        .ledger
        .update(key::member(peer), |current| match current.map(|found| MemberRecord::decode(&found.value)) {
            Some(Ok(record)) if record.state == MemberState::Active => {
                let Dismissal { state, reason } = dismissal.clone();
                Decision::Put(MemberRecord { state, reason, ..record }.encode(), true)
            }
            // Gone already: whoever asks again waits again.
            Some(Ok(_)) => Decision::Keep(true),
            Some(Err(_)) | None => Decision::Keep(false),
        })
        .await?;
    if !updated.answer {
        return Err(PoolError::Refused(format!("{peer} is no member of the pool")));
    }
    warn!(%peer, state = ?dismissal.state, reason = %dismissal.reason, "member dismissed");
    members::refresh_from_copy(shared);
    let (mut configs, mut dismissed) = (shared.ledger.config_changes(), shared.dismissed.subscribe());
    let replaced = async {
        tokio::select! {
            _ = configs.wait_for(|config| !config.is_voter(&peer)) => {}
            // Whoever goes may be cut off before it is told of the new voters, and hears of it by asking.
            _ = dismissed.wait_for(Option::is_some), if peer == shared.me => {}
        }
    };
    Ok(Departed { votes_still: tokio::time::timeout(SETTLE_TIMEOUT, replaced).await.is_err() })
}

/// Refuses a departure after which the ledger would stand still.
fn check(shared: &Shared, peer: PeerId) -> Result<(), PoolError> {
    let config = shared.ledger.config();
    let mut live = shared.view.live();
    if !config.is_quorum(&live) {
        return Err(PoolError::Refused(format!(
            "only {} of {} voters are reachable, and a majority has to agree. If the others are lost for ever, see `palm pool recover`",
            config.voters.intersection(&live).count(),
            config.voters.len()
        )));
    }
    if shared.view.member_count() == 1 {
        return Err(PoolError::Refused(
            "this is the only member: without it there is no pool; to end it, stop the peer and remove its directory"
                .into(),
        ));
    }
    let mut electors = shared.view.electors();
    for elector in electors.iter_mut().filter(|elector| elector.peer == peer) {
        elector.presence = Presence::Dismissed;
    }
    let target = voters::choose(&electors, &config.voters, shared.grace).unwrap_or_else(|| config.voters.clone());
    live.remove(&peer);
    if target.intersection(&live).count() * 2 <= target.len() {
        return Err(PoolError::Refused(format!(
            "of the {} voters left, {} would be reachable: no majority, and the pool would stand still. Bring absent members back first, \
             or evict them first if they are lost for ever",
            target.len(),
            target.intersection(&live).count()
        )));
    }
    Ok(())
}
