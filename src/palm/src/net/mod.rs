//! QUIC between peers: mutual TLS by peer key, requests in frames, small ones batched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::{FragmentId, PeerId};
use palm_core::wire::{FragmentOrigin, JoinRequest, JoinResponse, Request, Response};

pub mod discovery;
pub mod identity;

pub use identity::Identity;

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

/// The bytes of a fragment on their way in.
pub struct FragmentSource;

impl FragmentSource {
    /// The next bytes; `Ok(None)` at the sender's clean end, an error when it gave up (store nothing).
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        unimplemented!()
    }
}

/// Where a home answers a fragment read.
pub struct FragmentSink;

impl FragmentSink {
    /// Sends the response frame; must come first, once.
    pub async fn respond(&mut self, response: Response) -> Result<(), NetError> {
        let _ = response;
        unimplemented!()
    }
    /// Sends fragment bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        let _ = bytes;
        unimplemented!()
    }
    /// Ends it cleanly; dropping without it resets the stream.
    pub fn finish(self) {}
}

/// A fragment being sent to a home. Dropping it before `finish` resets the stream: the home stores nothing.
pub struct FragmentUpload;

impl FragmentUpload {
    /// Sends the next bytes; waits for flow control.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        let _ = bytes;
        unimplemented!()
    }
    /// Ends the body and waits for the home's answer.
    pub async fn finish(self) -> Result<Response, NetError> {
        unimplemented!()
    }
}

/// A fragment being read from a home.
pub struct FragmentDownload;

impl FragmentDownload {
    /// Exactly `len` further bytes.
    pub async fn read(&mut self, len: usize) -> Result<Bytes, NetError> {
        let _ = len;
        unimplemented!()
    }
}

/// The peer's QUIC endpoint, cheap to clone. Connections are made when first needed, kept alive, and dialled
/// again with backoff when they end.
#[derive(Clone)]
pub struct Net(Arc<()>);

impl Net {
    /// Binds the endpoint; nothing is answered before [`serve`](Self::serve).
    pub fn bind(identity: &Identity, listen: SocketAddr) -> Result<Self, NetError> {
        let _ = (identity, listen);
        unimplemented!()
    }
    /// Begins to answer.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        let _ = handler;
    }
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    /// This peer.
    pub fn me(&self) -> PeerId {
        unimplemented!()
    }
    /// From now on this peer is a member: its connections are accepted.
    pub fn admit(&self, peer: PeerId) {
        let _ = peer;
    }
    /// From now on it is not: its connections are closed.
    pub fn expel(&self, peer: PeerId) {
        let _ = peer;
    }
    /// A place where the peer may be found. Hints are tried newest first; identity decides.
    pub fn hint(&self, peer: PeerId, address: SocketAddr) {
        let _ = (peer, address);
    }
    /// Whether a connection to it is up now.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        let _ = peer;
        unimplemented!()
    }
    /// Smoothed round-trip time of its connection.
    pub fn round_trip(&self, peer: PeerId) -> Option<Duration> {
        let _ = peer;
        unimplemented!()
    }
    /// Asks and waits at most `timeout`. Small requests to one peer that wait at the same time share a frame.
    pub async fn call(&self, peer: PeerId, request: Request, timeout: Duration) -> Result<Response, NetError> {
        let _ = (peer, request, timeout);
        unimplemented!()
    }
    /// Begins to store a fragment at a home.
    pub async fn put_fragment(&self, peer: PeerId, origin: FragmentOrigin) -> Result<FragmentUpload, NetError> {
        let _ = (peer, origin);
        unimplemented!()
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
        let _ = (peer, id, offset, len);
        unimplemented!()
    }
    /// Sends a gossip message; lost if the peer is not in reach.
    pub fn gossip(&self, peer: PeerId, message: Bytes) {
        let _ = (peer, message);
    }
    /// Asks someone at an address, as a non-member; answers who it proved to be.
    pub async fn join_call(
        &self,
        address: SocketAddr,
        request: JoinRequest,
        timeout: Duration,
    ) -> Result<(PeerId, JoinResponse), NetError> {
        let _ = (address, request, timeout);
        unimplemented!()
    }
    /// Closes every connection and the endpoint.
    pub async fn close(&self) {}
}
