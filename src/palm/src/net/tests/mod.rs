//! Several endpoints in one process, on loopback, each with a handler that can be watched.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::hlc::Ballot;
use palm_core::id::{BodyId, FragmentId, PeerId, PoolId, SegmentId};
use palm_core::wire::{Failure, FragmentOrigin, Frame, JoinRequest, JoinResponse, Request, Response};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{FragmentSink, FragmentSource, Handler, Identity, Net, NetError};

mod calls;
mod fragments;
mod links;
mod strangers;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes on a busy machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: &str = "127.0.0.1:0";

/// Answers so that the asker can tell which answer is whose, keeps fragments in memory, and counts.
#[derive(Default)]
struct Watched {
    calls: AtomicUsize,
    slow: Mutex<Option<Duration>>,
    fragments: Mutex<HashMap<FragmentId, Bytes>>,
    uploads_begun: AtomicUsize,
    upload_ends: Mutex<Vec<Result<usize, String>>>,
    gossip: Mutex<Vec<(PeerId, Bytes)>>,
    happened: Notify,
}

#[async_trait]
impl Handler for Watched {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let slow = *self.slow.lock();
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        match request {
            Request::Ping => Response::Pong { epoch: from.tag() },
            Request::Prepare { epoch, .. } => Response::Pong { epoch },
            Request::GetSmall { id } => Response::Small(Bytes::copy_from_slice(id.as_bytes())),
            Request::InFlight { .. } => Response::InFlight(true),
            Request::PutSmall { bytes, .. } => Response::Stored { id: FragmentId::of(&bytes), len: bytes.len() as u64 },
            // Large answers on demand: as many bytes as the epoch says.
            Request::Read { epoch, .. } => Response::Small(vec![7; epoch as usize].into()),
            _ => Response::Done,
        }
    }

    async fn put_fragment(&self, _: PeerId, origin: FragmentOrigin, mut body: FragmentSource) -> Response {
        if origin.index == u8::MAX {
            return Response::Failed { reason: Failure::Full, detail: "full".into() };
        }
        let mut bytes = Vec::new();
        let end = loop {
            match body.next().await {
                Ok(Some(chunk)) => {
                    if bytes.is_empty() {
                        self.uploads_begun.fetch_add(1, Ordering::SeqCst);
                    }
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => break Ok(bytes.len()),
                Err(error) => break Err(error.to_string()),
            }
        };
        self.upload_ends.lock().push(end.clone());
        self.happened.notify_one();
        match end {
            Ok(len) => {
                let id = FragmentId::of(&bytes);
                self.fragments.lock().insert(id, bytes.into());
                Response::Stored { id, len: len as u64 }
            }
            Err(detail) => Response::Failed { reason: Failure::Storage, detail },
        }
    }

    async fn get_fragment(&self, _: PeerId, id: FragmentId, offset: u64, len: u64, mut out: FragmentSink) {
        let Some(bytes) = self.fragments.lock().get(&id).cloned() else {
            let _ = out.respond(Response::NotFound).await;
            return out.finish();
        };
        let range = offset as usize..(offset + len) as usize;
        out.respond(Response::Fragment { total: bytes.len() as u64 }).await.unwrap();
        let wanted = bytes.slice(range);
        for at in (0..wanted.len()).step_by(1 << 20) {
            let _ = out.write(wanted.slice(at..wanted.len().min(at + (1 << 20)))).await;
        }
        out.finish();
    }

    fn gossip(&self, from: PeerId, message: Bytes) {
        self.gossip.lock().push((from, message));
        self.happened.notify_one();
    }

    async fn join(&self, from: PeerId, _: SocketAddr, request: JoinRequest) -> JoinResponse {
        match request {
            JoinRequest::Describe => JoinResponse::Pool {
                id: PoolId::from_public_key(&[1; 32]),
                name: from.to_string(),
                members: 1,
                max_members: 10,
                public_key: [1; 32],
                proof: vec![0; 64],
            },
            JoinRequest::Join { .. } | JoinRequest::Standing { .. } => JoinResponse::Pending,
        }
    }
}

/// A peer and what its handler saw.
struct TestPeer {
    net: Net,
    seen: Arc<Watched>,
}

impl TestPeer {
    fn start(seed: u8) -> Self {
        Self::start_at(seed, ANY_PORT.parse().unwrap())
    }

    fn start_at(seed: u8, listen: SocketAddr) -> Self {
        let net = Net::bind(&identity(seed), listen).unwrap();
        let seen = Arc::new(Watched::default());
        net.serve(seen.clone());
        Self { net, seen }
    }

    /// Admits another and says where it is.
    fn knows(&self, other: &Self) {
        self.net.admit(other.net.me());
        self.net.hint(other.net.me(), other.net.local_addr());
    }

    async fn ping(&self, other: PeerId) -> Result<Response, NetError> {
        self.net.call(other, Request::Ping, PATIENCE).await
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32]).unwrap()
}

/// Two members that know each other.
fn pair() -> (TestPeer, TestPeer) {
    let (a, b) = (TestPeer::start(1), TestPeer::start(2));
    a.knows(&b);
    b.knows(&a);
    (a, b)
}

fn origin(index: u8) -> FragmentOrigin {
    FragmentOrigin {
        segment: SegmentId::from_bytes([1; 16]),
        index,
        body: BodyId::from_bytes([2; 16]),
        object: Bytes::from_static(b"object"),
    }
}

/// A small request that is answered by its number.
fn echo(n: u64) -> Request {
    Request::Prepare { epoch: n, key: Bytes::from_static(b"some key"), ballot: Ballot::ZERO }
}

/// Waits for a condition that some event is about to make true.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
