//! What each task does.

use std::time::Duration;

use palm_backends::{Backend, FragmentStore as _};
use palm_core::repair::Health;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::super::api::{Outcome, Task};
use super::super::words::{counted, size};
use super::{Progress, Tasks};
use crate::object::{Amount, Because};

/// How often a task looks at what it waits for.
const LOOK: Duration = Duration::from_millis(500);
/// A task that waits for peers to repair gives up when so many counts in a row found as much to mend as the one before.
const MAX_IDLE_COUNTS: u32 = 3;

impl Tasks {
    pub(super) async fn work(&self, task: Task, dry_run: bool, progress: &Progress) -> Result<Outcome, String> {
        match (task, dry_run) {
            (Task::Repair, true) => self.plan_repair(progress).await,
            (Task::Repair, false) => self.repair(progress).await,
            (Task::Rebalance, true) => Ok(self.plan_rebalance()),
            (Task::Rebalance, false) => self.rebalance(progress).await,
            (Task::Drain, _) => self.drain(progress).await,
            (Task::EmptyBackends, _) => self.empty_backends(progress).await,
            (Task::Scrub, true) => self.plan_scrub().await,
            (Task::Scrub, false) => self.scrub(progress).await,
            (Task::Gc, dry_run) => self.collect(dry_run, progress).await,
        }
    }

    async fn plan_repair(&self, progress: &Progress) -> Result<Outcome, String> {
        progress.tell("counting", 0, 0);
        let found = self.store.survey().await.map_err(|error| error.to_string())?;
        let [unreadable, none, reduced, full] = found.health.objects;
        let mut words = vec![format!(
            "{} at full redundancy, {} reduced, {} without, {} unreadable.",
            counted(full.objects, "object"),
            reduced.objects,
            none.objects,
            unreadable.objects
        )];
        let [_, bare, fewer, moved] = found.to_mend;
        words.push(match found.health.segments_to_mend {
            0 => "Nothing to repair.".to_owned(),
            all => format!(
                "To repair: {} ({bare} without redundancy, {fewer} with less than meant, {moved} only to be placed better; {} coded \
                 anew), {} to be stored.",
                counted(all, "segment"),
                found.to_recode,
                size(found.bytes)
            ),
        });
        Ok(outcome(words, json!({ "findings": found })))
    }

    async fn repair(&self, progress: &Progress) -> Result<Outcome, String> {
        let (repaired, health) = self.mend_all(progress).await;
        let mut words = vec![match repaired {
            0 => "Nothing was to be repaired.".to_owned(),
            some => format!("Repaired {}.", counted(some, "segment")),
        }];
        if health.segments_to_mend > 0 {
            let left = counted(health.segments_to_mend, "segment");
            words.push(format!("{left} cannot be repaired as things are; `palm status` says how they are."));
        }
        Ok(outcome(words, json!({ "repaired_segments": repaired, "health": health })))
    }

    /// Has all peers count, and waits until they have repaired what they found; as often as there is something left and it
    /// becomes less. Answers how many segments were repaired, and how things are then.
    async fn mend_all(&self, progress: &Progress) -> (u64, Health) {
        let before = self.store.pool_health().await.health.repaired;
        let (mut repaired, mut idle) = (0, 0);
        loop {
            progress.tell("counting", repaired, repaired);
            self.store.audit_everywhere().await;
            let mut health = self.store.pool_health().await.health;
            let done = |health: &Health| health.repaired.saturating_sub(before);
            let mut total = 0;
            while health.queued > 0 {
                total = total.max(done(&health) + health.queued);
                progress.tell(&format!("repairing, {}/s", size(health.bytes_per_second)), done(&health), total);
                sleep(LOOK).await;
                health = self.store.pool_health().await.health;
            }
            idle = if done(&health) > repaired { 0 } else { idle + 1 };
            repaired = repaired.max(done(&health));
            // What was repaired since the count is still in it: only a count that finds nothing ends this well.
            if health.segments_to_mend == 0 || idle == MAX_IDLE_COUNTS {
                return (repaired, health);
            }
        }
    }

    fn plan_rebalance(&self) -> Outcome {
        let members = self.store.levels();
        let moved: u64 = members.iter().map(|member| member.surplus_bytes).sum();
        let mut words: Vec<String> = members
            .iter()
            .map(|member| {
                let to_move = match member.surplus_bytes {
                    0 => String::new(),
                    bytes => format!(", {} to move", size(bytes)),
                };
                format!("{}: {} used{to_move}", member.name, size(member.used_bytes))
            })
            .collect();
        if moved == 0 {
            words.push("No member is more than ten points fuller than the pool: nothing to move.".to_owned());
        }
        outcome(words, json!({ "members": members, "bytes": moved }))
    }

    async fn rebalance(&self, progress: &Progress) -> Result<Outcome, String> {
        let (moved, health) = self.mend_all(progress).await;
        let words = match moved {
            0 => "Nothing was to be moved.".to_owned(),
            some => format!("Moved or repaired {}.", counted(some, "segment")),
        };
        Ok(outcome(vec![words], json!({ "repaired_segments": moved, "health": health })))
    }

    /// Gives this peer's fragments away, until it keeps nothing that anything refers to; then collects what is left.
    async fn drain(&self, progress: &Progress) -> Result<Outcome, String> {
        self.pool.drain(true).await.map_err(|error| error.to_string())?;
        let (mut most, mut least, mut idle) = (0, u64::MAX, 0);
        loop {
            progress.tell("counting", 0, most);
            self.store.audit_now().await;
            let left = self.store.segments_here();
            if !self.pool.view().is_draining() {
                return Err("draining was ended meanwhile".to_owned());
            }
            if left == 0 {
                break;
            }
            idle = if left < least { 0 } else { idle + 1 };
            (most, least) = (most.max(left), least.min(left));
            if idle == MAX_IDLE_COUNTS {
                return Err(format!(
                    "{} cannot be moved as things are: the other members are too few, away, or full. They are tried again; `palm \
                     drain --undo` ends that",
                    counted(left, "segment")
                ));
            }
            loop {
                let queued = self.store.repair_figures().queued;
                progress.tell("moving", most.saturating_sub(queued.min(left)), most);
                if queued == 0 {
                    break;
                }
                sleep(LOOK).await;
            }
        }
        self.collect(false, progress).await?;
        let kept = self.pool.fragments().usage().await.map(|usage| usage.fragments).unwrap_or_default();
        let mut words = vec!["Drained: nothing refers to this peer's fragments any more.".to_owned()];
        if kept > 0 {
            words.push(format!("{} left over will be collected.", counted(kept, "fragment")));
        }
        Ok(outcome(words, json!({ "segments": most, "fragments_left": kept })))
    }
}

impl Tasks {
    /// Watches until the backends that are to be removed are gone; who empties them needs no watching.
    async fn empty_backends(&self, progress: &Progress) -> Result<Outcome, String> {
        let backends = self.pool.fragments();
        let named: Vec<Backend> = backends.iter().filter(Backend::is_leaving).collect();
        let (mut most, mut changes) = (0, backends.changes());
        loop {
            changes.mark_unchanged();
            let leaving = || named.iter().filter(|one| one.is_leaving() && backends.get(one.number()).is_some());
            let mut left = 0;
            for backend in leaving() {
                left += backend.usage().await.map_or(0, |usage| usage.fragments);
            }
            most = most.max(left);
            progress.tell("moving fragments", most - left, most);
            if leaving().next().is_none() {
                break;
            }
            let stuck = leaving().find_map(|one| Some((one, self.store.stuck(one.number())?)));
            if let Some((backend, stuck)) = stuck.filter(|(_, stuck)| stuck.passes >= MAX_IDLE_COUNTS) {
                return Err(format!(
                    "{} of backend {} ({}) cannot be moved as things are: {}. This is tried again on and on; `palm backend remove {1} \
                     --undo` ends that, --force gives them up",
                    counted(stuck.fragments, "fragment"),
                    backend.number(),
                    backend.place(),
                    stuck.why
                ));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
        let is_gone = |one: &&Backend| backends.get(one.number()).is_none();
        let words = named.iter().map(|one| {
            let how = if is_gone(&one) { "is empty, and removed" } else { "stays" };
            format!("Backend {} ({}) {how}.", one.number(), one.place())
        });
        let removed: Vec<u16> = named.iter().filter(is_gone).map(Backend::number).collect();
        Ok(outcome(words.collect(), json!({ "removed": removed })))
    }

    async fn plan_scrub(&self) -> Result<Outcome, String> {
        let here = self.pool.fragments().usage().await.map_err(|error| error.to_string())?;
        let words = format!("{} ({}) to be read and hashed.", counted(here.fragments, "fragment"), size(here.bytes));
        Ok(outcome(vec![words], json!({ "to_check": here.fragments, "bytes": here.bytes })))
    }

    async fn scrub(&self, progress: &Progress) -> Result<Outcome, String> {
        let found =
            self.store.home().scrub_now(|checked, all| progress.tell("reading and hashing", checked, all)).await;
        let found = found.map_err(|error| error.to_string())?;
        let damaged = match found.damaged {
            0 => "all are as they should be".to_owned(),
            some => format!("{some} damaged or missing: they are replaced by repair"),
        };
        let mut words = vec![format!("{} read and hashed, {damaged}.", counted(found.checked, "fragment"))];
        if found.orphans > 0 {
            words.push(format!(
                "{} of which nobody can say what they belong to.",
                counted(found.orphans, "more fragment")
            ));
        }
        let figures = json!({ "checked": found.checked, "damaged": found.damaged, "orphans": found.orphans });
        Ok(outcome(words, figures))
    }

    async fn collect(&self, dry_run: bool, progress: &Progress) -> Result<Outcome, String> {
        let told = progress.clone();
        let found = self.store.collect_now(dry_run, move |report| told.tell("looking for garbage", report.bodies, 0));
        let report = found.await.map_err(|error| error.to_string())?;
        let amount = |amount: Amount| format!("{} ({})", counted(amount.fragments, "fragment"), size(amount.bytes));
        let would = if dry_run { "would be " } else { "" };
        let mut words = vec![
            format!("{} looked at; {} {would}deleted for good.", bodies(report.bodies), amount(report.deleted)),
            format!("{} {would}put into the trash, {} in it then.", amount(report.trashed), amount(report.in_trash)),
        ];
        words.extend(report.kept_because.iter().map(|(&because, &kept)| {
            let why = match because {
                Because::Young => "too young to be judged",
                Because::InFlight => "an upload, copy or repair is under way",
                Because::Silence => "who may be writing them does not answer",
                Because::NotWhole => "their segments are not whole elsewhere yet",
                Because::Undecided => "the ledger did not answer",
            };
            format!("{} left alone: {why}.", amount(kept))
        }));
        Ok(outcome(words, json!({ "gc": report })))
    }
}

/// `1 body`, `2 bodies`.
fn bodies(number: u64) -> String {
    if number == 1 { "1 body".to_owned() } else { format!("{number} bodies") }
}

fn outcome(words: Vec<String>, figures: Value) -> Outcome {
    let figures = match figures {
        Value::Object(figures) => figures,
        _ => Map::new(),
    };
    Outcome { words, figures }
}
