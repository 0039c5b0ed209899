//! Reaching peers: one attempt at a time for each, all its addresses at once, and a keeper that tries again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_core::id::PeerId;
use quinn::{ClientConfig, Connection};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::inner::Inner;
use super::peer::{Added, Approach, Attempt, Link, Peer, is_other_peer};
use super::tls::Purpose;
use super::transport::{IDLE_TIMEOUT, client_config};
use super::{NetError, serve};

/// An attempt to reach a peer, over all its addresses, takes no longer.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Each further address is tried this much later than the one before: a good newest hint wins alone.
const NEXT_ADDRESS: Duration = Duration::from_millis(60);
/// Both ends of a missing link notice at once. The smaller id dials; the other waits this long first, so that
/// they seldom end up with two connections.
const HEAD_START: Duration = Duration::from_millis(400);
/// A peer that says this one is no member is asked again after this long: it may have to catch up first.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// A second link is given this long to prove itself, and the first to die, before one of them is retired.
const SETTLE_AFTER: Duration = IDLE_TIMEOUT.saturating_add(Duration::from_secs(2));
/// The name that TLS wants and PALM does not use.
const SERVER_NAME: &str = "palm";

impl Inner {
    /// A link to a member: the one there is, or a new one. Fails at once when the peer is known to be away.
    pub(super) async fn link(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<Arc<Link>, NetError> {
        let attempt = match peer.approach(false) {
            Approach::Linked(link) => return Ok(link),
            Approach::Away => return Err(NetError::Unreachable(peer.id)),
            Approach::Dialling(attempt) => attempt,
            Approach::Dial(attempt) => {
                // In a task of its own: the asker may give up, the others still wait.
                let (net, peer, result) = (self.clone(), peer.clone(), attempt.clone());
                self.spawn(async move { net.attempt(&peer, &result).await });
                attempt
            }
        };
        attempt.wait().await.clone()
    }

    /// Keeps a link to a member up for as long as it is one.
    pub(super) async fn keep(self: Arc<Self>, peer: Arc<Peer>) {
        while peer.is_admitted() {
            if self.me > peer.id && peer.is_new_gap() {
                // Whoever needs the peer in this time dials without waiting.
                sleep(HEAD_START).await;
            }
            if peer.take_refused() {
                // Not cut short by the bell: the refusal itself rings it. A link from the other side needs no dialling.
                sleep(REFUSED_PAUSE).await;
            }
            match peer.approach(true) {
                Approach::Linked(_) | Approach::Away => peer.bell.notified().await,
                Approach::Dialling(attempt) => drop(attempt.wait().await.clone()),
                Approach::Dial(attempt) => {
                    self.attempt(&peer, &attempt).await;
                    if peer.current().is_none() {
                        // A new hint, or the peer itself, cuts the delay short.
                        let _ = timeout(peer.backoff(self.me), peer.bell.notified()).await;
                    }
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, peer: &Arc<Peer>, attempt: &Arc<Attempt>) {
        match timeout(CONNECT_TIMEOUT, self.dial(peer)).await {
            Ok(Some(connection)) => self.established(peer, connection, true),
            Ok(None) => debug!(peer = %peer.id, "no address answers as this peer"),
            Err(_) => debug!(peer = %peer.id, "no address answers in time"),
        }
        peer.attempt_failed(attempt);
    }

    /// Tries all hints, each a little later than the one before; the first that proves to be the peer wins.
    async fn dial(&self, peer: &Peer) -> Option<Connection> {
        let config = client_config(&self.tls, Purpose::Member, Some(peer.id)).ok()?;
        let mut dials: FuturesUnordered<_> = peer
            .hints()
            .into_iter()
            .zip(0u32..)
            .map(|(address, position)| {
                let config = config.clone();
                async move {
                    sleep(NEXT_ADDRESS * position).await;
                    (address, self.handshake(config, address).await)
                }
            })
            .collect();
        while let Some((address, outcome)) = dials.next().await {
            match outcome {
                Ok(connection) => return Some(connection),
                Err(DialError::Connection(error)) if is_other_peer(&error) => {
                    info!(peer = %peer.id, %address, "another peer answers at this address");
                    peer.refute_hint(address);
                }
                Err(error) => debug!(peer = %peer.id, %address, %error, "dial failed"),
            }
        }
        None
    }

    /// Connects to one address.
    pub(super) async fn handshake(&self, config: ClientConfig, address: SocketAddr) -> Result<Connection, DialError> {
        Ok(self.endpoint.connect_with(config, address, SERVER_NAME)?.await?)
    }

    /// Takes a connection to a member into use, and serves what the other end asks over it.
    pub(super) fn established(self: &Arc<Self>, peer: &Arc<Peer>, connection: Connection, dialled: bool) {
        let link = Link::new(connection, dialled);
        let added = peer.add_link(&link);
        if added == Added::Refused {
            return;
        }
        debug!(peer = %peer.id, address = %link.connection.remote_address(), dialled, "connected");
        self.spawn(serve::serve_link(self.clone(), peer.clone(), link));
        if added == Added::Second {
            let (me, peer): (PeerId, _) = (self.me, peer.clone());
            self.spawn(async move {
                sleep(SETTLE_AFTER).await;
                peer.settle(me).await;
            });
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// It could not begin: the address makes no sense, or the endpoint is closed.
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    /// It did not end well.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
}
