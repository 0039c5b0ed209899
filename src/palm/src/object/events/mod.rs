//! Event notifications: told at least once, by whoever made it happen or, when that one is gone, by another.
//!
//! An event is one register, written *before* what it tells of is committed ([`Store::begin_event`]), and only where a bucket's
//! configuration asks for it: everybody else pays nothing. Afterwards its outcome is entered and its targets are told, without
//! the client waiting; when all have been, the register goes. So a peer may die at any moment:
//!
//! - before the commit: the event is found without an outcome, and without an effect; it is dropped when it is old.
//! - after the commit, before the outcome is entered: the effect is found (the object is there, or gone), and the event told.
//! - after that: the outcome stands in the register.
//!
//! Who tells (`tell`): the peer that served the request as long as it lives; otherwise the living member that sees to the
//! register by its name, as with all chores. Two may tell the same, never none.
//!
//! The queue is bounded twice: a write that would put more than [`EVENTS_MAX`] into it is answered 503 `SlowDown` (an event that
//! is lost is never noticed, a write that is refused is repeated), and what no target took for [`KEEP`] is dropped.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use palm_core::hlc::Stamp;
use palm_core::record::{BucketRecord, EventRecord, EventTarget, Outcome, Stored, key};
use palm_core::s3::notification::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::{Deleted, Object, ObjectError, Store};
use crate::pool::Decision;

mod address;
mod kafka;
mod mqtt;
mod nats;
mod redis;
mod session;
mod target;
mod tell;
mod webhook;

pub use target::NotifyTarget;
use tell::Door;

/// Events that wait in a pool at most.
pub const EVENTS_MAX: usize = 100_000;
/// What has not been told by then is dropped.
pub const KEEP: Duration = Duration::from_hours(3 * 24);

/// What this peer knows of events, beside their registers.
pub(super) struct Events {
    targets: Vec<NotifyTarget>,
    /// Events of requests that are served here now, or that are being told.
    busy: Mutex<HashSet<Bytes>>,
    /// Those that waited in the pool when this peer last looked, and those begun here since.
    waiting: AtomicUsize,
    /// What is known of each target by its name.
    doors: Mutex<HashMap<String, Door>>,
    /// There is reason to look at what waits.
    due: Notify,
    told: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Figures about events, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFigures {
    /// Events that wait in the pool, as this peer last saw.
    pub waiting: u64,
    /// Messages that targets took from this peer.
    pub told: u64,
    /// Messages that they did not take; they are sent again.
    pub failed: u64,
    /// Events that were given up after [`KEEP`].
    pub dropped: u64,
}

/// What a request is about to do.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Which event it is.
    pub event: Event,
    /// Name of the bucket.
    pub bucket: &'a str,
    /// Key of the object.
    pub key: &'a str,
    /// Who asks, as messages name it.
    pub principal: &'a str,
    /// Where from.
    pub source_ip: &'a str,
    /// The request's id.
    pub request_id: &'a str,
}

impl Events {
    pub(super) fn new(targets: Vec<NotifyTarget>) -> Self {
        Self {
            targets,
            busy: Mutex::default(),
            waiting: AtomicUsize::new(0),
            doors: Mutex::default(),
            due: Notify::new(),
            told: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn target(&self, arn: &str) -> Option<&NotifyTarget> {
        let name = target::name_in(arn)?;
        self.targets.iter().find(|target| target.name() == name)
    }
}

impl Store {
    /// Whether there is such a target, by the settings of this peer.
    pub fn knows_target(&self, arn: &str) -> bool {
        self.events.target(arn).is_some()
    }

    /// Figures about events.
    pub fn event_figures(&self) -> EventFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Events { waiting, told, failed, dropped, .. } = &self.events;
        EventFigures {
            waiting: waiting.load(Ordering::Relaxed) as u64,
            told: of(told),
            failed: of(failed),
            dropped: of(dropped),
        }
    }

    /// Says that something is about to happen in a bucket: to be called before it is committed. Costs nothing where
    /// nobody wants to be told.
    pub async fn begin_event(&self, record: &BucketRecord, about: About<'_>) -> Result<Notice, ObjectError> {
        let About { event, bucket, key, principal, source_ip, request_id } = about;
        let targets: Vec<EventTarget> = record
            .config
            .notification
            .targets_of(event, key)
            .map(|target| EventTarget { arn: target.arn.clone(), configuration: target.id.clone() })
            .collect();
        if targets.is_empty() {
            return Ok(Notice(None));
        }
        if self.events.waiting.load(Ordering::Relaxed) >= EVENTS_MAX {
            return Err(ObjectError::Overloaded);
        }
        let begun_ms = self.ledger.now_ms();
        let record = EventRecord {
            event,
            bucket: bucket.to_owned(),
            bucket_owner: record.owner.clone(),
            key: key.to_owned(),
            principal: principal.to_owned(),
            source_ip: source_ip.to_owned(),
            request_id: request_id.to_owned(),
            by: self.me,
            begun_ms,
            targets,
            outcome: None,
        };
        let begun = Begun::new(self, key::event(begun_ms, rand::random()), record);
        let value = begun.record.encode();
        self.ledger.update(begun.register.clone(), |_| Decision::Put(value.clone(), ())).await?;
        self.events.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Notice(Some(begun)))
    }
}

/// That something is about to happen. Dropped without a word, what came of it is found out later.
#[must_use]
pub struct Notice(Option<Begun>);

struct Begun {
    store: Store,
    register: Bytes,
    record: EventRecord,
}

impl Begun {
    fn new(store: &Store, register: Bytes, record: EventRecord) -> Self {
        store.events.busy.lock().insert(register.clone());
        Self { store: store.clone(), register, record }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.store.events.busy.lock().remove(&self.register);
    }
}

impl Notice {
    /// Nobody wants to be told.
    pub fn none() -> Self {
        Self(None)
    }

    /// A write has ended so.
    pub fn end(self, written: &Result<Object, ObjectError>) {
        match written {
            Ok(object) => self.happened(outcome_of(object)),
            Err(error) if error.is_certain() => self.cancelled(),
            Err(_) => self.unknown(),
        }
    }

    /// It has happened, and is told from now on.
    pub fn happened(mut self, outcome: Outcome) {
        let Some(mut begun) = self.0.take() else { return };
        tokio::spawn(async move {
            begun.record.outcome = Some(outcome);
            // Should this fail, what came of it is found out later.
            let value = begun.record.encode();
            let entered = begun.store.ledger.update(begun.register.clone(), |_| Decision::Put(value.clone(), ())).await;
            if let Err(error) = entered {
                warn!(%error, "outcome of an event not entered");
            }
            begun.store.tell_targets(&begun.register, begun.record.clone()).await;
        });
    }

    /// It has not happened, for certain.
    pub fn cancelled(mut self) {
        let Some(begun) = self.0.take() else { return };
        tokio::spawn(async move { begun.store.forget_event(&begun.register).await });
    }

    /// Nobody knows whether it has happened.
    pub fn unknown(mut self) {
        if let Some(begun) = self.0.take() {
            begun.store.events.due.notify_one();
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if let Some(begun) = self.0.take() {
            begun.store.events.due.notify_one();
        }
    }
}

impl Store {
    /// What a message says of a deletion that was just made.
    pub fn outcome_of_deletion(&self, deleted: &Deleted) -> Outcome {
        let time_ms = self.ledger.now_ms();
        let version_id = deleted.version.map(|version| version.to_string());
        Outcome { time_ms, sequencer: Stamp::from_millis(time_ms).0, version_id, ..Outcome::default() }
    }
}

/// What a message says of an object.
fn outcome_of(object: &Object) -> Outcome {
    Outcome {
        time_ms: object.modified_ms(),
        sequencer: object.version.stamp.0,
        size: object.record.size,
        etag: object.record.etag.to_string(),
        version_id: object.id.map(|id| id.to_string()),
    }
}
