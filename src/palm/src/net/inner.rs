//! What all handles of one endpoint share.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palm_core::id::PeerId;
use parking_lot::RwLock;
use quinn::{AsyncUdpSocket, Endpoint};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SetOnce};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, close};
use super::tls::Tls;
use super::{Handler, NetError, serve, transport};

/// Peers remembered: members, and those of whom only an address is known.
const MAX_PEERS: usize = 1024;
/// Handshakes under way that others began.
pub(super) const MAX_HANDSHAKES: usize = 64;
/// Strangers served at once.
pub(super) const MAX_STRANGERS: usize = 16;
/// How long closing waits for the other ends to take note.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The endpoint and everyone it knows.
pub(super) struct Inner {
    pub(super) me: PeerId,
    pub(super) endpoint: Endpoint,
    pub(super) address: SocketAddr,
    pub(super) tls: Tls,
    pub(super) handler: SetOnce<Arc<dyn Handler>>,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) strangers: Arc<Semaphore>,
    peers: RwLock<HashMap<PeerId, Arc<Peer>>>,
    pub(super) runtime: Handle,
    closed: CancellationToken,
}

impl Inner {
    pub(super) fn bind(identity: &super::Identity, socket: Arc<dyn AsyncUdpSocket>) -> Result<Self, NetError> {
        let local = |error: &dyn std::fmt::Display| NetError::Local(error.to_string());
        let runtime = Handle::try_current().map_err(|error| local(&error))?;
        let endpoint = transport::endpoint(identity, socket)?;
        let address = endpoint.local_addr().map_err(|error| local(&error))?;
        Ok(Self {
            me: identity.peer_id(),
            endpoint,
            address,
            tls: Tls::new(identity),
            handler: SetOnce::new(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            peers: RwLock::default(),
            runtime,
            closed: CancellationToken::new(),
        })
    }

    /// Runs a task that ends with the endpoint. (Those that live no longer than a request go to `runtime` directly.)
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Begins to accept.
    pub(super) fn serve(self: &Arc<Self>, handler: Arc<dyn Handler>) -> Result<(), NetError> {
        let config = transport::server_config(&self.tls)?;
        if self.handler.set(handler).is_err() {
            return Err(NetError::Local("already serving".into()));
        }
        self.endpoint.set_server_config(Some(config));
        self.spawn(serve::accept(self.clone()));
        Ok(())
    }

    pub(super) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peers.read().get(&id).cloned()
    }

    /// A peer that may be asked something.
    pub(super) fn member(&self, id: PeerId) -> Result<Arc<Peer>, NetError> {
        if self.closed.is_cancelled() {
            return Err(NetError::Local("endpoint is closed".into()));
        }
        if id == self.me {
            return Err(NetError::Local("a peer does not ask itself over the network".into()));
        }
        self.peer(id).ok_or(NetError::Unreachable(id))
    }

    pub(super) fn admit(self: &Arc<Self>, id: PeerId) {
        if id == self.me {
            return;
        }
        let peer = self.peers.write().entry(id).or_insert_with(|| Arc::new(Peer::new(id))).clone();
        if peer.admit() {
            self.spawn(self.clone().keep(peer));
        }
    }

    pub(super) fn expel(&self, id: PeerId) {
        if let Some(peer) = self.peers.write().remove(&id) {
            peer.expel();
        }
    }

    pub(super) fn hint(&self, id: PeerId, address: SocketAddr) {
        if id == self.me {
            return;
        }
        let known = self.peer(id);
        let peer = known.or_else(|| {
            let mut peers = self.peers.write();
            (peers.len() < MAX_PEERS).then(|| peers.entry(id).or_insert_with(|| Arc::new(Peer::new(id))).clone())
        });
        if let Some(peer) = peer {
            peer.hint(address);
        }
    }

    /// Members a link to whom is up.
    pub(super) fn connected(&self) -> Vec<PeerId> {
        self.peers.read().values().filter(|peer| peer.current().is_some()).map(|peer| peer.id).collect()
    }

    pub(super) async fn close(&self) {
        self.closed.cancel();
        self.endpoint.close(close::GOODBYE, b"goodbye");
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}
