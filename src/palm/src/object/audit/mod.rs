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

mod level;
mod round;
mod schedule;
mod tally;

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use palm_core::id::{FragmentId, PeerId};
use palm_core::repair::Health;
use palm_core::wire::{FragmentOrigin, Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::{ObjectError, Store};
use crate::net::{FragmentSink, FragmentSource};
use crate::pool::Homes;

pub use level::Level;
use round::Scope;
use schedule::Schedule;
pub use tally::Findings;

/// A peer that has not told its share by then is left out, and named.
const SHARE_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer counts a million objects in less.
const AUDIT_TIMEOUT: Duration = Duration::from_mins(10);

/// How the objects of a pool are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolHealth {
    /// The shares of all living members together.
    pub health: Health,
    /// This peer's share alone.
    pub mine: Health,
    /// Names of living members that did not tell theirs.
    pub silent: Vec<String>,
    /// Names of members with damaged or missing fragments, and how many.
    pub damaged: Vec<(String, u64)>,
}

/// What this peer knows of its share, and who waits for it to be counted again.
pub(super) struct Audit {
    /// What the last count found.
    found: Mutex<Findings>,
    /// How often a count was asked for, and how many of these have been answered.
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self { found: Mutex::default(), asked: watch::Sender::new(0), answered: watch::Sender::new(0) }
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
            // Whoever asks has decided that the pool is as it should be.
            let may_recode = basis.may_recode || answering > *self.audit.answered.borrow();
            match self.round(Scope::Share, urgent, may_recode).await {
                Ok(findings) => *self.audit.found.lock() = findings,
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

    /// A member away for longer is taken for lost.
    pub fn grace(&self) -> Duration {
        self.repair.grace
    }

    /// Segments of which this peer had a fragment when it last counted.
    pub fn segments_here(&self) -> u64 {
        self.audit.found.lock().segments_here
    }

    /// Bytes of parts of uploads not completed yet that this peer found in its share when it last counted.
    pub fn incomplete_upload_bytes(&self) -> u64 {
        self.audit.found.lock().upload_bytes
    }

    /// Counts the whole pool from here, whoever else counts what, and changes nothing.
    pub async fn survey(&self) -> Result<Findings, ObjectError> {
        self.round(Scope::Pool, true, true).await
    }

    /// The health of the pool: the shares of all living members, added up.
    pub async fn pool_health(&self) -> PoolHealth {
        let others = self.view.members().into_iter().filter(|member| member.live && member.peer != self.me);
        let shares = others.map(|member| async move {
            let share = match self.net.call(member.peer, Request::GetHealth, SHARE_TIMEOUT).await {
                Ok(Response::Health(share)) => Some(share),
                _ => None,
            };
            (member.name, share)
        });
        let mine = self.health().await;
        let mut pool = PoolHealth { health: mine.clone(), silent: Vec::new(), damaged: Vec::new(), mine };
        let mut damaged = vec![(self.my_name(), pool.mine.damaged_here)];
        for (name, share) in join_all(shares).await {
            match share {
                Some(share) => {
                    pool.health.add(&share);
                    damaged.push((name, share.damaged_here));
                }
                None => pool.silent.push(name),
            }
        }
        damaged.retain(|&(_, fragments)| fragments > 0);
        PoolHealth { damaged, ..pool }
    }

    /// Has every living member count anew, and returns when they have, or have failed to.
    pub async fn audit_everywhere(&self) {
        let others = self.view.members().into_iter().filter(|member| member.live && member.peer != self.me);
        let asked = others.map(|member| async move {
            if let Err(error) = self.net.call(member.peer, Request::Audit, AUDIT_TIMEOUT).await {
                warn!(peer = %member.peer, %error, "peer has not counted");
            }
        });
        futures::join!(self.audit_now(), join_all(asked));
    }

    fn my_name(&self) -> String {
        let me = self.view.members().into_iter().find(|member| member.peer == self.me);
        me.map_or_else(|| self.me.short(), |me| me.name)
    }

    /// This peer's share of the pool's health.
    pub async fn health(&self) -> Health {
        let (repairs, home) = (self.repair_figures(), self.home.figures().await);
        let name = self.my_name();
        Health {
            damaged_here: home.damaged,
            scrubbed: home.scrubbed,
            trash_bytes: self.trash_bytes(),
            ills: home.ills.into_iter().map(|ill| format!("{name}: {ill}")).collect(),
            queued: repairs.queued,
            queued_bytes: repairs.queued_bytes,
            bytes_per_second: repairs.bytes_per_second,
            repaired: repairs.repaired,
            ..self.audit.found.lock().health.clone()
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
