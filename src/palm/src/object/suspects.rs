//! Homes that just failed this peer, asked last until it has passed; and fragments that did, which their homes look at.

use std::collections::HashMap;
use std::time::Duration;

use palm_core::id::{FragmentId, PeerId};
use palm_core::place::Candidate;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a home is avoided after it failed or stalled. Liveness takes seconds to notice a dead peer; this
/// bridges them, so that one request waits for it and not every one. Short, since it is a guess.
const SUSPICION: Duration = Duration::from_secs(5);

/// A fragment found wrong is not reported again before: one broken fragment of a popular object is met a thousand times.
const REPORT_AGAIN: Duration = Duration::from_mins(1);
/// Reports remembered; beyond it they are forgotten, and some made twice.
const MAX_REPORTS: usize = 1024;

/// Fragments that were wrong or missing, and when their homes were told.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<HashMap<FragmentId, Instant>>);

impl Reports {
    /// Whether to report this fragment now.
    pub(super) fn is_due(&self, id: FragmentId) -> bool {
        let now = Instant::now();
        let mut reports = self.0.lock();
        if reports.get(&id).is_some_and(|&at| now - at < REPORT_AGAIN) {
            return false;
        }
        if reports.len() >= MAX_REPORTS {
            reports.clear();
        }
        reports.insert(id, now);
        true
    }
}

/// Who is under suspicion, and until when.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<HashMap<PeerId, Instant>>);

impl Suspects {
    /// It failed or stalled. At most one entry per member.
    pub(super) fn add(&self, peer: PeerId) {
        self.0.lock().insert(peer, Instant::now() + SUSPICION);
    }

    /// It answered.
    pub(super) fn clear(&self, peer: PeerId) {
        let mut suspects = self.0.lock();
        if !suspects.is_empty() {
            suspects.remove(&peer);
        }
    }

    /// Whether it is to be avoided now.
    pub(super) fn contains(&self, peer: PeerId) -> bool {
        let suspects = self.0.lock();
        suspects.get(&peer).is_some_and(|&until| Instant::now() < until)
    }

    /// Splits candidates into trusted ones and suspects.
    pub(super) fn split(&self, candidates: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
        let suspects = self.0.lock();
        if suspects.is_empty() {
            return (candidates, Vec::new());
        }
        let now = Instant::now();
        candidates.into_iter().partition(|candidate| suspects.get(&candidate.peer).is_none_or(|&until| until <= now))
    }
}
