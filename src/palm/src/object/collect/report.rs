//! What a walk found and did.

use std::collections::BTreeMap;
use std::time::Duration;

use palm_core::record::FragmentRecord;
use parking_lot::Mutex;
use serde::Serialize;

use super::Noted;

/// Fragments and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Amount {
    /// How many.
    pub fragments: u64,
    /// Their length together.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, note: &FragmentRecord) {
        self.fragments += 1;
        self.bytes += note.len;
    }
}

/// Why a fragment stays that is not in use as far as this peer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// It is younger than the grace.
    Young,
    /// An upload, a copy or a repair of its body is under way.
    InFlight,
    /// A peer that may be uploading, copying or repairing its body does not answer.
    Silence,
    /// Its segment does not have all its fragments elsewhere: it may be needed.
    NotWhole,
    /// The ledger, or a member of a local pool, gave no answer.
    Undecided,
}

/// What a walk over all fragments found and did; of a dry run, what it would have done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GcReport {
    /// Bodies looked at.
    pub bodies: u64,
    /// Deleted for good: long enough in the trash, and nothing refers to them.
    pub deleted: Amount,
    /// Put into the trash.
    pub trashed: Amount,
    /// Taken out of it, being in use again.
    pub restored: Amount,
    /// In the trash now, with those just put there.
    pub in_trash: Amount,
    /// Left where they are though nothing known here refers to them, and why.
    pub kept_because: BTreeMap<Because, Amount>,
    /// Registers of moved segments deleted, since their bodies are gone.
    pub moved: u64,
}

/// A walk under way: how it goes about it, and what it has come to.
pub(super) struct Walk {
    dry: bool,
    background: bool,
    progress: Box<dyn Fn(&GcReport) + Send + Sync>,
    report: Mutex<GcReport>,
}

impl Walk {
    /// One that takes its time.
    pub(super) fn in_background() -> Self {
        Self { dry: false, background: true, progress: Box::new(|_| {}), report: Mutex::default() }
    }

    /// One that someone waits for.
    pub(super) fn at_once(dry: bool, progress: Box<dyn Fn(&GcReport) + Send + Sync>) -> Self {
        Self { dry, background: false, progress, report: Mutex::default() }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Does what a dry run leaves.
    pub(super) fn act<T>(&self, act: impl FnOnce() -> T) {
        if !self.dry {
            act();
        }
    }

    /// After each batch.
    pub(super) async fn rest(&self, pause: Duration) {
        (self.progress)(&self.report.lock());
        if self.background {
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) fn report(&self) -> GcReport {
        self.report.lock().clone()
    }

    pub(super) fn body(&self) {
        self.report.lock().bodies += 1;
    }

    pub(super) fn moved(&self) {
        self.report.lock().moved += 1;
    }

    pub(super) fn deletes(&self, note: &FragmentRecord) {
        self.report.lock().deleted.add(note);
    }

    pub(super) fn restores(&self, note: &FragmentRecord) {
        self.report.lock().restored.add(note);
    }

    pub(super) fn trashes(&self, note: &FragmentRecord) {
        let report = &mut *self.report.lock();
        report.trashed.add(note);
        report.in_trash.add(note);
    }

    /// In the trash, and to stay there for now.
    pub(super) fn waits(&self, note: &FragmentRecord) {
        self.report.lock().in_trash.add(note);
    }

    pub(super) fn wait_all(&self, fragments: &[Noted]) {
        for (_, note) in fragments {
            self.waits(note);
        }
    }

    pub(super) fn keep_all(&self, fragments: &[Noted], because: Because) {
        for (_, note) in fragments {
            self.keeps(note, because);
        }
    }

    /// Stays where it is, in the trash or not.
    pub(super) fn keeps(&self, note: &FragmentRecord, because: Because) {
        tracing::trace!(body = %note.body, segment = %note.segment, ?because, "kept");
        let report = &mut *self.report.lock();
        report.kept_because.entry(because).or_default().add(note);
        if note.trashed_ms.is_some() {
            report.in_trash.add(note);
        }
    }
}
