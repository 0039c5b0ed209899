//! Whether this peer is a member still: for one that members turn away.
//!
//! Who was evicted while it was off reads no ledger, since nobody answers it as a member, and would wait for ever for a
//! majority that is there. Any member tells it, over the same door as strangers.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{StreamExt, stream};
use palm_core::id::PeerId;
use palm_core::wire::{JoinRequest, JoinResponse};

use crate::pool::{Dismissal, Shared};

/// How long one address may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses asked at the same time.
const ASKED_AT_ONCE: usize = 8;

/// Asks the members that this peer has no connection to, by their last known addresses. Only the member itself is heard,
/// whoever else has its address now. `None`: none of them says that this peer was dismissed.
pub(in crate::pool) async fn ask_standing(shared: &Shared) -> Option<Dismissal> {
    let mut addresses: Vec<(PeerId, SocketAddr)> = Vec::new();
    for (peer, member) in shared.roll.active() {
        if peer != shared.me && !shared.net.is_connected(peer) {
            addresses.extend(member.addresses.iter().filter_map(|address| Some((peer, address.parse().ok()?))));
        }
    }
    let asked = stream::iter(addresses).map(|(peer, address)| async move {
        let request = JoinRequest::Standing { pool: shared.state.id };
        match shared.net.join_call(address, Some(peer), request, ASK_TIMEOUT).await {
            Ok((_, JoinResponse::Standing { state: Some(state), reason })) if state.is_dismissed() => {
                Some(Dismissal { state, reason })
            }
            _ => None,
        }
    });
    let mut answers = asked.buffer_unordered(ASKED_AT_ONCE);
    while let Some(answer) = answers.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// A member's side: what its roll says.
pub(super) fn answer(shared: &Shared, peer: PeerId) -> JoinResponse {
    let member = shared.roll.of(peer);
    JoinResponse::Standing {
        state: member.as_ref().map(|member| member.state),
        reason: member.map(|member| member.reason).unwrap_or_default(),
    }
}
