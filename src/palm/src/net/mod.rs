//! QUIC between peers: mutual TLS by peer key, requests in frames, small ones batched.
//!
//! A good order to read: [`identity`] (who a peer is), `tls` (how it proves that), `transport` (the endpoint and its
//! limits), `peer` and `dial` (links and how they come about), `frames`, `lanes` and `fragment` (what travels over
//! them), `serve` (the other end), [`discovery`] (who is there at all).
//!
//! Deliberately absent: certificates and authorities (a peer is its key), 0-RTT and session resumption (a request
//! must not be replayed, and every connection proves its peer anew), and retries of requests: whoever asks knows
//! whether asking twice is safe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::{FragmentId, PeerId};
use palm_core::wire::{FragmentOrigin, Frame, JoinRequest, JoinResponse, MAX_FRAME_BYTES, Request, Response};
use quinn::AsyncUdpSocket;
use tokio::time::{Instant, timeout_at};

mod dial;
pub mod discovery;
mod fragment;
mod frames;
pub mod identity;
mod inner;
mod lanes;
mod peer;
mod poolkey;
mod serve;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

use frames::{FrameReader, FrameWriter};
use inner::Inner;
use lanes::Class;
use peer::{InUse, Peer, close};
use tls::{Purpose, peer_of};

pub use fragment::{FragmentDownload, FragmentSink, FragmentSource, FragmentUpload};
pub use identity::{Identity, PoolKey, verify_proof};

/// No gossip message is longer.
pub const MAX_GOSSIP_BYTES: usize = serve::MAX_GOSSIP_BYTES;
/// The answer to a join request, a [`Welcome`](palm_core::wire::Welcome) with every member's addresses at most.
const MAX_JOIN_RESPONSE_BYTES: usize = 1 << 20;
/// A gossip message that cannot be sent in this time is stale.
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetError {
    /// No known address answers as this peer. The request was not sent.
    #[error("peer {0} cannot be reached")]
    Unreachable(PeerId),
    /// The connection or the deadline ended first: whether the request was carried out is unknown.
    #[error("peer {peer} did not answer: {detail}")]
    NoAnswer {
        /// Which.
        peer: PeerId,
        /// For logs.
        detail: String,
    },
    /// What came back breaks the protocol; the connection was closed.
    #[error("peer {peer} broke the protocol: {detail}")]
    Protocol {
        /// Which.
        peer: PeerId,
        /// For logs.
        detail: String,
    },
    /// Could not listen, or the endpoint is closed.
    #[error("network: {0}")]
    Local(String),
}

/// Answers what other peers ask. Only admitted members reach any method but [`join`](Self::join).
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Every request but the two fragment streams; batches come unpacked, each call concurrently.
    async fn call(&self, from: PeerId, request: Request) -> Response;
    /// A fragment being stored. Answer [`Response::Stored`] once durable.
    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, body: FragmentSource) -> Response;
    /// A range of a fragment being read: send [`Response::Fragment`] and then the bytes through `out`.
    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, out: FragmentSink);
    /// A gossip message; may be dropped.
    fn gossip(&self, from: PeerId, message: Bytes);
    /// Someone who is not (or not yet) a member, seen at `address`.
    async fn join(&self, from: PeerId, address: SocketAddr, request: JoinRequest) -> JoinResponse;
}

/// How a link to a peer does, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// UDP payload sent over this connection.
    pub sent_bytes: u64,
    /// UDP payload received over this connection.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets deemed lost, and sent again.
    pub lost_packets: u64,
    /// The largest packet the path was found to take.
    pub packet_bytes: u16,
}

/// The peer's QUIC endpoint, cheap to clone. Connections are made when first needed, kept alive, and dialled
/// again with backoff when they end. It runs until [`close`](Self::close).
#[derive(Clone)]
pub struct Net(Arc<Inner>);

impl Net {
    /// Binds the endpoint, within a tokio runtime; nothing is answered before [`serve`](Self::serve).
    pub fn bind(identity: &Identity, listen: SocketAddr) -> Result<Self, NetError> {
        Self::bind_on(identity, transport::socket(listen)?)
    }

    /// The same over any socket for datagrams, such as a simulated one. Time is tokio's in either case, so that it may
    /// be simulated too.
    pub fn bind_on(identity: &Identity, socket: Arc<dyn AsyncUdpSocket>) -> Result<Self, NetError> {
        Ok(Self(Arc::new(Inner::bind(identity, socket)?)))
    }

    /// Begins to answer. Once; a second handler is refused.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        if let Err(error) = self.0.serve(handler) {
            tracing::error!(%error, "cannot serve");
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// This peer.
    pub fn me(&self) -> PeerId {
        self.0.me
    }

    /// From now on this peer is a member: its connections are accepted, and one is kept up.
    pub fn admit(&self, peer: PeerId) {
        self.0.admit(peer);
    }

    /// From now on it is not: its connections are closed.
    pub fn expel(&self, peer: PeerId) {
        self.0.expel(peer);
    }

    /// A place where the peer may be found. Hints are tried newest first; identity decides.
    pub fn hint(&self, peer: PeerId, address: SocketAddr) {
        self.0.hint(peer, address);
    }

    /// Whether a connection to it is up now.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.0.peer(peer).is_some_and(|peer| peer.current().is_some())
    }

    /// Everyone a connection to whom is up now.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.0.connected()
    }

    /// Smoothed round-trip time of its connection.
    pub fn round_trip(&self, peer: PeerId) -> Option<Duration> {
        Some(self.0.peer(peer)?.current()?.connection.rtt())
    }

    /// How the connection to it does; `None` while there is none. Counters begin anew with each connection.
    pub fn link_stats(&self, peer: PeerId) -> Option<LinkStats> {
        let stats = self.0.peer(peer)?.current()?.connection.stats();
        Some(LinkStats {
            round_trip: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            packet_bytes: stats.path.current_mtu,
        })
    }

    /// Where the other end of its connection is.
    pub fn remote_addr(&self, peer: PeerId) -> Option<SocketAddr> {
        Some(self.0.peer(peer)?.current()?.connection.remote_address())
    }

    /// Asks and waits at most `timeout`. Small requests to one peer that wait at the same time share a frame.
    /// [`NetError::Unreachable`] and [`NetError::Local`] mean that it was not carried out.
    pub async fn call(&self, peer: PeerId, request: Request, timeout: Duration) -> Result<Response, NetError> {
        let deadline = Instant::now() + timeout;
        let peer = self.0.member(peer)?;
        if matches!(request, Request::PutFragment(_) | Request::GetFragment { .. }) {
            return Err(NetError::Local("not a request to call".into()));
        }
        match Class::of(&request) {
            Some(class) => self.0.call_by_lane(peer, class, request, deadline).await,
            None => self.0.call_alone(peer, request, deadline).await,
        }
    }

    /// Begins to store a fragment at a home.
    pub async fn put_fragment(&self, peer: PeerId, origin: FragmentOrigin) -> Result<FragmentUpload, NetError> {
        let peer = self.0.member(peer)?;
        let (link, writer, reader) = self.ask(&peer, &Request::PutFragment(origin)).await?;
        Ok(FragmentUpload::new(peer.id, link, writer, reader))
    }

    /// Begins to read a range of a fragment; answers once the home has said what it has. `Ok(Err(_))` is a
    /// home that answered but cannot serve it.
    pub async fn get_fragment(
        &self,
        peer: PeerId,
        id: FragmentId,
        offset: u64,
        len: u64,
    ) -> Result<Result<FragmentDownload, Response>, NetError> {
        let peer = self.0.member(peer)?;
        let (link, mut writer, mut reader) = self.ask(&peer, &Request::GetFragment { id, offset, len }).await?;
        writer.finish();
        match fragment::read_message(peer.id, &link, &mut reader).await? {
            Response::Fragment { .. } => Ok(Ok(FragmentDownload::new(peer.id, link, reader))),
            refusal => Ok(Err(refusal)),
        }
    }

    /// Opens a stream for a fragment and writes the request frame.
    async fn ask(&self, peer: &Arc<Peer>, request: &Request) -> Result<(InUse, FrameWriter, FrameReader), NetError> {
        let link = self.0.link(peer).await?.occupy();
        let (send, receive) = link.connection.open_bi().await.map_err(|_| NetError::Unreachable(peer.id))?;
        let mut writer = FrameWriter::new(send);
        fragment::write_message(peer.id, &mut writer, &Frame::One(request)).await?;
        Ok((link, writer, FrameReader::new(receive)))
    }

    /// Sends a gossip message; lost if the peer is not in reach, already has several under way, or the message
    /// is longer than [`MAX_GOSSIP_BYTES`].
    pub fn gossip(&self, peer: PeerId, message: Bytes) {
        let Some(peer) = self.0.peer(peer) else {
            return;
        };
        let (Some(link), Ok(place)) = (peer.current(), peer.gossip.clone().try_acquire_owned()) else {
            return;
        };
        if message.len() > MAX_GOSSIP_BYTES {
            return;
        }
        self.0.runtime.spawn(async move {
            let send = async {
                let mut writer = FrameWriter::new(link.connection.open_uni().await.ok()?);
                writer.bytes(message).await.ok()?;
                writer.finish();
                Some(())
            };
            let _ = timeout_at(Instant::now() + GOSSIP_TIMEOUT, send).await;
            drop(place);
        });
    }

    /// Asks someone at an address, as a non-member; answers who it proved to be.
    ///
    /// With `expect` nothing is said to anyone but that peer.
    pub async fn join_call(
        &self,
        address: SocketAddr,
        expect: Option<PeerId>,
        request: JoinRequest,
        timeout: Duration,
    ) -> Result<(PeerId, JoinResponse), NetError> {
        let deadline = Instant::now() + timeout;
        let local = |detail: String| NetError::Local(format!("{address}: {detail}"));
        let config = transport::client_config(&self.0.tls, Purpose::Join, expect)?;
        let ask = async {
            let connection = self.0.handshake(config, address).await.map_err(|error| local(error.to_string()))?;
            let peer = peer_of(&connection).ok_or_else(|| local("no identity".into()))?;
            let lost = |detail: String| NetError::NoAnswer { peer, detail };
            let (send, receive) = connection.open_bi().await.map_err(|error| lost(error.to_string()))?;
            let mut writer = FrameWriter::new(send);
            fragment::write_message(peer, &mut writer, &request).await?;
            writer.finish();
            let mut reader = FrameReader::new(receive);
            let response = reader
                .message(MAX_JOIN_RESPONSE_BYTES.min(MAX_FRAME_BYTES))
                .await
                .map_err(|error| lost(error.to_string()))?;
            connection.close(close::GOODBYE, b"thank you");
            Ok((peer, response))
        };
        timeout_at(deadline, ask).await.unwrap_or_else(|_| Err(local("no answer in time".into())))
    }

    /// Closes every connection and the endpoint.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
