//! When to count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use palm_core::id::PeerId;
use palm_core::place::Policy;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::object::{RepairSettings, Store};

/// Changes of the view that follow each other within this are one.
const QUIET: Duration = Duration::from_secs(2);
/// A view that never comes to rest is not waited for longer.
const MAX_UNREST: Duration = Duration::from_secs(20);
/// How often the facts are looked at that nobody tells of.
const TICK: Duration = Duration::from_secs(1);
/// Objects that come and go are counted again after this, and what was repaired once repair has come to its end; neither
/// before [`REST`] times what the last count took.
const FRESH: Duration = Duration::from_secs(10);
const REST: u32 = 10;
/// Where counting takes long, `repair.every` is not kept: no count begins before this many times what the last one took.
const REST_BETWEEN: u32 = 2;

/// Decides when the next round begins.
pub(super) struct Schedule<'a> {
    store: &'a Store,
    requests: watch::Receiver<u64>,
    views: watch::Receiver<u64>,
    writes: broadcast::Receiver<Bytes>,
    begun: Instant,
    ended: Option<Instant>,
    /// What repair had done when the last round began.
    repaired: u64,
    /// On what the last round was based.
    basis: Option<Basis>,
    settled: Settled,
}

/// What a round's findings depend on besides the records. When it changes, there is something else to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    /// Members that are away for longer than the grace.
    gone: BTreeSet<PeerId>,
    /// How many of its disks work at each member, as far as it has told.
    disks: BTreeMap<PeerId, u8>,
    /// The pool has been as it is for so long that segments may be coded anew for it, and moved to level its members.
    pub(super) may_recode: bool,
}

/// Since when the pool is as it is.
struct Settled {
    outline: Outline,
    since: Instant,
}

/// Members and whether they drain, and the policy.
type Outline = (Vec<(PeerId, bool)>, Policy);

impl<'a> Schedule<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        let now = Instant::now();
        Self {
            store,
            requests: store.audit.asked.subscribe(),
            views: store.view.changes(),
            writes: store.ledger.watch(),
            begun: now,
            ended: None,
            repaired: 0,
            basis: None,
            settled: Settled { outline: outline(store), since: now },
        }
    }

    /// Waits until there is a reason to count; answers whether somebody or something waits for it.
    pub(super) async fn due(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.requests.changed() => return true,
                _ = self.views.changed() => {
                    self.quiet().await;
                    return true;
                }
                () = sleep(TICK) => {}
            }
            let basis = Some(self.basis_now());
            if self.basis != basis {
                return true;
            }
            if self.is_due() {
                return false;
            }
        }
    }

    /// Waits until the view has been at rest for a moment.
    async fn quiet(&mut self) {
        let latest = Instant::now() + MAX_UNREST;
        while let Ok(Ok(())) = timeout_at(latest.min(Instant::now() + QUIET), self.views.changed()).await {}
    }

    fn is_due(&self) -> bool {
        let Some(ended) = self.ended else { return true };
        let took = ended - self.begun;
        let (every, since, rest) = (self.store.repair.every.max(took * REST_BETWEEN), ended.elapsed(), took * REST);
        let repairs = self.store.repair_figures();
        since >= every
            || (!self.writes.is_empty() && since >= FRESH.max(rest).min(every))
            || (repairs.queued == 0 && repairs.repaired != self.repaired && since >= QUIET.max(rest))
    }

    fn basis_now(&mut self) -> Basis {
        let now = outline(self.store);
        if now != self.settled.outline {
            self.settled = Settled { outline: now, since: Instant::now() };
        }
        let RepairSettings { grace, settle, .. } = self.store.repair;
        let away = |peer| self.store.view.absence(peer).is_none_or(|absent| absent >= grace);
        let gone = self.settled.outline.0.iter().map(|&(peer, _)| peer).filter(|&peer| away(peer)).collect();
        let told = self.store.view.members().into_iter().filter_map(|member| Some((member.peer, member.told?.disks)));
        Basis { gone, disks: told.collect(), may_recode: self.settled.since.elapsed() >= settle }
    }

    /// A round begins, on this basis.
    pub(super) fn begin(&mut self) -> Basis {
        self.begun = Instant::now();
        self.writes = self.writes.resubscribe();
        self.repaired = self.store.repair_figures().repaired;
        self.basis_now()
    }

    /// It has ended.
    pub(super) fn end(&mut self, basis: Basis) {
        self.ended = Some(Instant::now());
        self.basis = Some(basis);
    }
}

fn outline(store: &Store) -> Outline {
    let members = store.view.members().into_iter();
    let members = members.map(|member| (member.peer, member.told.is_some_and(|told| told.draining)));
    (members.collect(), store.view.wanted_policy())
}
