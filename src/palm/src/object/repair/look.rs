//! How fragments are: asked of the homes that are there, known of those that are not.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use palm_core::id::{FragmentId, PeerId};
use palm_core::record::{Placed, Segment};
use palm_core::repair::Condition;
use palm_core::wire::{FragmentState, MAX_CHECK_IDS, Request, Response};
use tracing::debug;

use crate::object::Store;

/// A home that has not said by then is taken for asleep.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same where it reads every fragment first.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// Marks as leaving what is sound and at a home that gives it away.
pub(in crate::object) fn give_away(segment: &Segment, conditions: &mut [Condition], home: PeerId) {
    for (placed, condition) in segment.fragments.iter().zip(conditions) {
        if placed.home == home && *condition == Condition::Sound {
            *condition = Condition::Leaving;
        }
    }
}

impl Store {
    /// How each fragment of some segments is, in the order of `fragments`. With `verify` homes read and hash them.
    pub(in crate::object) async fn look(&self, segments: &[&Segment], verify: bool) -> Vec<Vec<Condition>> {
        let mut at_home: BTreeMap<PeerId, Vec<(usize, usize, FragmentId)>> = BTreeMap::new();
        for (segment, found) in segments.iter().zip(0..) {
            for (placed, fragment) in segment.fragments.iter().zip(0..) {
                at_home.entry(placed.home).or_default().push((found, fragment, placed.id));
            }
        }
        let mut conditions: Vec<Vec<Condition>> =
            segments.iter().map(|segment| vec![Condition::Asleep; segment.fragments.len()]).collect();
        let asked = at_home.iter().map(|(&home, asked)| async move {
            let ids: Vec<FragmentId> = asked.iter().map(|(_, _, id)| *id).collect();
            (asked, self.look_at(home, &ids, verify).await)
        });
        for (asked, found) in join_all(asked).await {
            for ((segment, fragment, _), condition) in asked.iter().zip(found) {
                conditions[*segment][*fragment] = condition;
            }
        }
        conditions
    }

    /// A reader has found a fragment wrong or missing: its home reads it, and has it repaired if that is so. Not waited for.
    pub(in crate::object) fn report(&self, placed: &Placed) {
        if !self.reports.is_due(placed.id) {
            return;
        }
        let (store, home, id) = (self.clone(), placed.home, placed.id);
        tokio::spawn(async move {
            let request = Request::CheckFragments { ids: vec![id], verify: true };
            let answer = store.ask(home, request, VERIFY_TIMEOUT).await;
            debug!(peer = %home, fragment = %id, ?answer, "home looks at a fragment that was read wrong");
        });
    }

    async fn look_at(&self, home: PeerId, ids: &[FragmentId], verify: bool) -> Vec<Condition> {
        match self.view.absence(home) {
            None => return vec![Condition::Gone; ids.len()],
            Some(absent) if home != self.me && !absent.is_zero() => {
                let condition = if absent >= self.repair.grace { Condition::Gone } else { Condition::Asleep };
                return vec![condition; ids.len()];
            }
            Some(_) => {}
        }
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_CHECK_IDS) {
            let request = Request::CheckFragments { ids: ids.to_vec(), verify };
            match self.ask(home, request, if verify { VERIFY_TIMEOUT } else { TIMEOUT }).await {
                Ok(Response::Checked(states)) if states.len() == ids.len() => {
                    found.extend(states.into_iter().map(|state| match state {
                        FragmentState::Sound => Condition::Sound,
                        FragmentState::Missing | FragmentState::Corrupt => Condition::Damaged,
                    }));
                }
                answer => {
                    debug!(peer = %home, ?answer, "home does not say how its fragments are");
                    found.extend(ids.iter().map(|_| Condition::Asleep));
                }
            }
        }
        found
    }
}
