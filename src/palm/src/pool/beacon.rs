//! Being found and finding: mDNS announcements, the announcements of other members, and addresses set by hand.
//!
//! All of it yields hints. Who really is at an address shows when a connection is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palm_core::wire::{JoinRequest, JoinResponse};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Discovery, Shared};
use crate::net::discovery::{Announcement, Announcer, Browser, Found};

/// How often addresses set by hand are looked at while some member is not connected.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a peer there may take to say who it is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Announces this peer and listens for others until `stop`.
pub(super) async fn keep(shared: Arc<Shared>, discovery: Discovery, stop: CancellationToken) {
    let (mut announcer, mut browser) = (None, None);
    if discovery.mdns {
        match Announcer::start(&discovery.interfaces, announcement(&shared)) {
            Ok(started) => announcer = Some(started),
            Err(error) => warn!(%error, "mdns cannot announce; others find this peer by address only"),
        }
        match Browser::start(&discovery.interfaces) {
            Ok(started) => browser = Some(started),
            Err(error) => warn!(%error, "mdns cannot listen; members are found by address only"),
        }
    }
    let mut changes = shared.view.changes();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {
                if let Some(announcer) = &announcer {
                    announcer.update(announcement(&shared));
                }
            }
            found = next(&mut browser) => match found {
                Some(found) => hear(&shared, &found),
                None => browser = None,
            },
            _ = look.tick(), if !discovery.peers.is_empty() => look_at_named(&shared, &discovery.peers).await,
        }
    }
}

/// The next announcement; never, without a browser.
async fn next(browser: &mut Option<Browser>) -> Option<Found> {
    match browser {
        Some(browser) => browser.next().await,
        None => std::future::pending().await,
    }
}

fn announcement(shared: &Shared) -> Announcement {
    let pool = shared.roll.pool();
    Announcement {
        pool_id: shared.state.id,
        pool_name: pool.as_ref().map_or_else(|| shared.state.name.clone(), |pool| pool.name.clone()),
        peer_id: shared.me,
        members: u16::try_from(shared.view.member_count()).unwrap_or(u16::MAX),
        max_members: pool.map_or(0, |pool| pool.max_members),
        listen: shared.net.local_addr(),
    }
}

/// Another member has told where it is.
fn hear(shared: &Shared, found: &Found) {
    let is_member = found.pool_id == shared.state.id && shared.admitted.lock().contains(&found.peer_id);
    if is_member && !shared.net.is_connected(found.peer_id) {
        debug!(peer = %found.peer_id, addresses = ?found.addresses, "member announced itself");
        for &address in &found.addresses {
            shared.net.hint(found.peer_id, address);
        }
    }
}

/// Asks who is at the addresses set by hand: a member that has moved is found again.
async fn look_at_named(shared: &Shared, peers: &[String]) {
    let all_connected = shared.admitted.lock().iter().all(|&peer| shared.net.is_connected(peer));
    if all_connected {
        return;
    }
    for name in peers {
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(name).await {
            Ok(found) => found.collect(),
            Err(error) => {
                debug!(%name, %error, "peer's name does not resolve");
                continue;
            }
        };
        for address in addresses.into_iter().filter(|&address| address != shared.net.local_addr()) {
            match shared.net.join_call(address, None, JoinRequest::Describe, LOOK_TIMEOUT).await {
                Ok((peer, JoinResponse::Pool { id, .. })) if id == shared.state.id => {
                    if shared.admitted.lock().contains(&peer) {
                        shared.net.hint(peer, address);
                    }
                }
                Ok((peer, _)) => info!(%peer, %address, "peer set by hand is not of this pool"),
                Err(error) => debug!(%address, %error, "nobody at the address set by hand"),
            }
        }
    }
}
