//! Knowing how things are: every peer counts its share of the objects by what their homes say of the fragments, and puts on
//! the repair queue what is found wanting.
//!
//! Nobody hands out the work. Each segment is seen to by one of its homes ([`palm_core::repair::owner`]), each object
//! counted by whoever sees to its first segment, and a pool's health is the sum of the shares of its living members. Peers
//! that see different members living may count an object twice or not at all; their next counts, seconds after their views
//! agree, set that right.
//!
//! A count is a [`round`] over this peer's own copy of the records. Rounds come when something has changed that could change their
//! outcome ([`schedule`]), and otherwise every `repair.every`. What is counted is added up in [`tally`].

mod round;
mod schedule;
mod tally;

use async_trait::async_trait;
use palm_core::id::{FragmentId, PeerId};
use palm_core::repair::Health;
use palm_core::wire::{FragmentOrigin, Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::{ObjectError, Store};
use crate::net::{FragmentSink, FragmentSource};
use crate::pool::Homes;

use round::Scope;
use schedule::Schedule;
pub use tally::Findings;

/// What this peer knows of its share, and who waits for it to be counted again.
pub(super) struct Audit {
    /// The last count's figures; those that are taken when asked are left at 0 here.
    counted: Mutex<Health>,
    /// How often a count was asked for, and how many of these have been answered.
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self { counted: Mutex::default(), asked: watch::Sender::new(0), answered: watch::Sender::new(0) }
    }
}

impl Store {
    /// Counts, and enqueues what is to be repaired, for as long as it is polled.
    pub async fn keep_auditing(&self) {
        let mut schedule = Schedule::new(self);
        loop {
            let urgent = schedule.due().await;
            let answering = *self.audit.asked.borrow();
            let basis = schedule.begin();
            match self.round(Scope::Share, urgent, basis.may_recode).await {
                Ok(findings) => *self.audit.counted.lock() = findings.health,
                Err(error) => warn!(%error, "objects could not be counted"),
            }
            schedule.end(basis);
            self.audit.answered.send_replace(answering);
        }
    }

    /// Has this peer count anew, and returns when that is done. Someone has to poll [`keep_auditing`](Self::keep_auditing).
    pub async fn audit_now(&self) {
        self.audit.asked.send_modify(|asked| *asked += 1);
        let mine = *self.audit.asked.borrow();
        // The sender lives as long as this store.
        let _ = self.audit.answered.subscribe().wait_for(|answered| *answered >= mine).await;
    }

    /// Counts the whole pool from here, whoever else counts what, and changes nothing.
    pub async fn survey(&self) -> Result<Findings, ObjectError> {
        self.round(Scope::Pool, true, true).await
    }

    /// This peer's share of the pool's health.
    pub async fn health(&self) -> Health {
        let repairs = self.repair_figures();
        Health {
            queued: repairs.queued,
            queued_bytes: repairs.queued_bytes,
            bytes_per_second: repairs.bytes_per_second,
            repaired: repairs.repaired,
            ..self.audit.counted.lock().clone()
        }
    }
}

/// A store answers for its home, and for what it counts.
#[async_trait]
impl Homes for Store {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        match request {
            Request::GetHealth => Response::Health(Box::new(self.health().await)),
            Request::Audit => {
                self.audit_now().await;
                Response::Done
            }
            other => self.home.call(from, other).await,
        }
    }

    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, body: FragmentSource) -> Response {
        self.home.put_fragment(from, origin, body).await
    }

    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, out: FragmentSink) {
        self.home.get_fragment(from, id, offset, len, out).await;
    }
}
