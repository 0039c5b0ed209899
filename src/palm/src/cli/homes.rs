//! The object layer's home, answering for the pool's endpoint: `pool` knows no objects and `object` no handler.

use async_trait::async_trait;
use palm_core::id::{FragmentId, PeerId};
use palm_core::wire::{FragmentOrigin, Request, Response};

use crate::net::{FragmentSink, FragmentSource};
use crate::object::Home;
use crate::pool::Homes;

#[async_trait]
impl Homes for Home {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        self.call(from, request).await
    }

    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, body: FragmentSource) -> Response {
        self.put_fragment(from, origin, body).await
    }

    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, out: FragmentSink) {
        self.get_fragment(from, id, offset, len, out).await;
    }
}
