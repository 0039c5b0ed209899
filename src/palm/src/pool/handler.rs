//! Hands each peer's request to whom it concerns.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::{FragmentId, PeerId};
use palm_core::wire::{FragmentOrigin, JoinRequest, JoinResponse, Request, Response};

use super::Shared;
use super::gossip::Inbox;
use super::join::Doorkeeper;
use crate::net::{FragmentSink, FragmentSource, Handler};

/// Answers for the fragments this peer keeps. The object layer implements it.
#[async_trait]
pub trait Homes: Send + Sync + 'static {
    /// Small fragments, deletions, and questions about uploads.
    async fn call(&self, from: PeerId, request: Request) -> Response;
    /// A fragment being stored. Answer [`Response::Stored`] once durable.
    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, body: FragmentSource) -> Response;
    /// A range of a fragment being read: send [`Response::Fragment`] and then the bytes through `out`.
    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, out: FragmentSink);
}

struct PoolHandler {
    shared: Arc<Shared>,
    homes: Arc<dyn Homes>,
    gossip: Inbox,
    door: Doorkeeper,
}

/// The handler of a pool's endpoint.
pub(super) fn handler(shared: Arc<Shared>, homes: Arc<dyn Homes>, gossip: Inbox) -> Arc<dyn Handler> {
    Arc::new(PoolHandler { shared, homes, gossip, door: Doorkeeper::new() })
}

#[async_trait]
impl Handler for PoolHandler {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        match request {
            Request::PutFragment(_)
            | Request::PutSmall { .. }
            | Request::GetFragment { .. }
            | Request::GetSmall { .. }
            | Request::DeleteFragments { .. }
            | Request::Release { .. }
            | Request::InFlight { .. }
            | Request::CheckFragments { .. }
            | Request::GetHealth
            | Request::Audit => self.homes.call(from, request).await,
            ledger => self.shared.ledger.handle(from, ledger).await,
        }
    }

    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, body: FragmentSource) -> Response {
        self.homes.put_fragment(from, origin, body).await
    }

    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, out: FragmentSink) {
        self.homes.get_fragment(from, id, offset, len, out).await;
    }

    fn gossip(&self, from: PeerId, message: Bytes) {
        self.gossip.deliver(from, message);
    }

    async fn join(&self, from: PeerId, address: SocketAddr, request: JoinRequest) -> JoinResponse {
        self.door.answer(&self.shared, from, address, request).await
    }
}
