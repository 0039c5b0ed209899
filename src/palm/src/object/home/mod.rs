//! What a home does: keeps fragments for the pool, and notes what each belongs to.
//!
//! - `keep`: storing and reading, on one backend or several.
//! - `notes`: what is noted of each fragment; how notes change and fragments go without a race.
//! - `emptying`: moving what a backend holds to the others.
//! - `check`: whether a fragment is there and right, and what happens when it is not.
//!
//! The walk that checks all of them from time to time is `scrub.rs`, beside this.

mod check;
mod emptying;
mod keep;
mod notes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use palm_backends::decorate::Pace;
use palm_backends::{Backends, IndexStore, StoreError, Usage};
use palm_core::code::{SEGMENT_BYTES, STRIPE_BYTES};
use palm_core::id::{BodyId, FragmentId, PeerId};
use palm_core::wire::{Failure, FragmentOrigin, MAX_CHECK_IDS, MAX_SMALL_FRAGMENT_BYTES, Request, Response};
use parking_lot::Mutex;
use tracing::{debug, warn};

use super::scrub::Progress;
use super::store::InFlight;
use crate::net::{FragmentSink, FragmentSource};
use crate::pool::Homes;

pub use check::{Damaged, HomeFigures};
pub(super) use emptying::Pass;
pub(super) use keep::HomeUpload;
pub(super) use notes::after_body;

use check::Damage;
use keep::Spread;
use notes::Guard;

/// No fragment is longer: a whole segment (k = 1) and what sealing adds to its stripes, with room to spare.
const MAX_FRAGMENT_BYTES: u64 = SEGMENT_BYTES + (1 << 20);
/// A fragment is read from the backend and sent in pieces of this.
const SEND_BYTES: u64 = STRIPE_BYTES as u64 / 4;
/// Released bodies remembered; further ones wait for the walk over all fragments.
const MAX_RELEASED: usize = 256 << 10;
/// Ids in one [`Request::DeleteFragments`].
pub(super) const MAX_DELETE_IDS: usize = 1024;

/// This peer as a home. Cheap to clone.
#[derive(Clone)]
pub struct Home(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) backends: Arc<Backends>,
    pub(super) index: Arc<dyn IndexStore>,
    in_flight: Arc<InFlight>,
    /// Bounds what comes from other peers and goes to them.
    traffic: Arc<Pace>,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    released: Mutex<VecDeque<(BodyId, u64)>>,
    spread: Spread,
    guard: Guard,
    pub(super) damage: Damage,
    pub(super) scrub: Progress,
    /// Requests to store or read so far: what can wait goes slower while they come.
    pub(super) served: AtomicU64,
}

#[async_trait]
impl Homes for Home {
    /// Answers a request about fragments. Others are refused as malformed.
    async fn call(&self, from: PeerId, request: Request) -> Response {
        match request {
            Request::PutSmall { origin, bytes } if bytes.len() <= MAX_SMALL_FRAGMENT_BYTES => {
                self.0.traffic.take(bytes.len() as u64).await;
                match self.put(from, &origin, bytes).await {
                    Ok(stat) => Response::Stored { id: stat.id, len: stat.len },
                    Err(error) => refused(&error),
                }
            }
            Request::GetSmall { id } => {
                let answer = self.get_small(id).await;
                if let Response::Small(bytes) = &answer {
                    self.0.traffic.take(bytes.len() as u64).await;
                }
                answer
            }
            Request::DeleteFragments { ids } if ids.len() <= MAX_DELETE_IDS => {
                for id in ids {
                    if let Err(error) = self.delete_of(from, id).await {
                        return refused(&error);
                    }
                }
                Response::Done
            }
            Request::Release { body } => {
                self.release(body);
                Response::Done
            }
            Request::InFlight { body } => Response::InFlight(self.0.in_flight.contains(body)),
            Request::CheckFragments { ids, verify } if ids.len() <= MAX_CHECK_IDS => {
                Response::Checked(self.check(ids, verify).await)
            }
            _ => malformed("not a request to a home"),
        }
    }

    /// Stores a fragment that streams in.
    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, mut body: FragmentSource) -> Response {
        let mut upload = match self.begin(from, origin).await {
            Ok(upload) => upload,
            Err(error) => return refused(&error),
        };
        loop {
            match body.next().await {
                Ok(Some(bytes)) if upload.len + bytes.len() as u64 > MAX_FRAGMENT_BYTES => {
                    return malformed("fragment too long");
                }
                Ok(Some(bytes)) => {
                    self.0.traffic.take(bytes.len() as u64).await;
                    if let Err(error) = upload.write(bytes).await {
                        return refused(&error);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    debug!(%from, %error, "fragment abandoned by its writer");
                    return malformed("fragment ended early");
                }
            }
        }
        match upload.finish().await {
            Ok(stat) => Response::Stored { id: stat.id, len: stat.len },
            Err(error) => refused(&error),
        }
    }

    /// Sends a range of a fragment.
    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, mut out: FragmentSink) {
        let home = self.clone();
        let sent = async move {
            let reader = match home.open(id).await {
                Ok(reader) => reader,
                Err(error) => {
                    out.respond(refused(&error)).await?;
                    return Ok(out);
                }
            };
            let total = reader.len();
            let Some(end) = offset.checked_add(len).filter(|&end| end <= total) else {
                out.respond(malformed("range beyond the fragment's end")).await?;
                return Ok(out);
            };
            out.respond(Response::Fragment { total }).await?;
            let mut at = offset;
            while at < end {
                let next = (at + SEND_BYTES).min(end);
                match reader.read(at..next).await {
                    Ok(bytes) => {
                        home.0.traffic.take(bytes.len() as u64).await;
                        out.write(bytes).await?;
                    }
                    Err(error) => {
                        // Dropping the sink resets the stream: the reader turns to another home.
                        warn!(fragment = %id, %error, "fragment does not read");
                        return Err(crate::net::NetError::Local(error.to_string()));
                    }
                }
                at = next;
            }
            Ok(out)
        };
        match sent.await {
            Ok(out) => out.finish(),
            Err(error) => debug!(%from, fragment = %id, %error, "fragment not sent to its end"),
        }
    }
}

impl Home {
    /// A home over these backends, its notes in this index.
    pub(super) fn new(
        backends: Arc<Backends>,
        index: Arc<dyn IndexStore>,
        in_flight: Arc<InFlight>,
        traffic: Arc<Pace>,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            backends,
            index,
            in_flight,
            traffic,
            now_ms: Box::new(now_ms),
            released: Mutex::default(),
            spread: Spread::default(),
            guard: Guard::default(),
            damage: Damage::default(),
            scrub: Progress::default(),
            served: AtomicU64::new(0),
        }))
    }

    /// What the backends hold and could.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.backends.usage().await
    }

    /// Notes that a body may have lost its last reference.
    pub(super) fn release(&self, body: BodyId) {
        let mut released = self.0.released.lock();
        if released.len() < MAX_RELEASED {
            released.push_back((body, self.now_ms()));
        }
    }

    /// The next body released at or before `before_ms`.
    pub(super) fn next_released(&self, before_ms: u64) -> Option<BodyId> {
        let mut released = self.0.released.lock();
        match released.front() {
            Some(&(body, at_ms)) if at_ms <= before_ms => {
                released.pop_front();
                Some(body)
            }
            _ => None,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.0.now_ms)()
    }
}

/// How a storage error is answered.
fn refused(error: &StoreError) -> Response {
    let reason = match error {
        // A disk that is gone as a whole condemns its fragments, not the peer.
        StoreError::NotFound(_) | StoreError::Gone(_) => return Response::NotFound,
        StoreError::Full => Failure::Full,
        StoreError::OutOfRange { .. } => Failure::Malformed,
        StoreError::Poisoned(_) | StoreError::Io(_) | StoreError::Corrupt(_) => Failure::Storage,
    };
    if reason == Failure::Storage {
        warn!(%error, "fragment request failed");
    }
    Response::Failed { reason, detail: error.to_string() }
}

fn malformed(detail: &str) -> Response {
    Response::Failed { reason: Failure::Malformed, detail: detail.to_owned() }
}
