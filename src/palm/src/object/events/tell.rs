//! Telling targets, again and again until they have taken it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm_core::record::{EventRecord, Outcome, Stored, key};
use palm_core::s3::notification::{Event, Message, test_message};
use palm_core::wire::ScanQuery;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::target::Letter;
use super::{Begun, KEEP, NotifyTarget, outcome_of};
use crate::object::{ObjectError, Store};
use crate::pool::Decision;
use crate::pool::ledger::Item;

/// Messages on their way to one target at once.
const AT_ONCE: usize = 8;
/// Events looked at in one step.
const PAGE: u32 = 256;
/// What waits is looked at no oftener than this, and this many times as long as the last look took is left between two.
const PASS: Duration = Duration::from_secs(1);
const REST: u32 = 10;
/// And again after this, when nothing seems to be due.
const IDLE_PASS: Duration = Duration::from_mins(1);
/// A target that failed is let be for this long, twice as long after each further failure, and no longer than the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_mins(2);
/// An event whose effect is not to be found is kept for this long: its request may be under way yet at a peer that is cut off.
const UNCERTAIN_MS: u64 = 10 * 60 * 1000;

/// What is known of a target.
pub(super) struct Door {
    slots: Arc<Semaphore>,
    failures: u32,
    closed_until: Option<Instant>,
}

impl Default for Door {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), failures: 0, closed_until: None }
    }
}

impl Door {
    /// Messages that were on their way at once fail at once, and count as one failure.
    fn failed(&mut self) {
        if self.closed_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(MAX_PAUSE);
        self.failures += 1;
        self.closed_until = Some(Instant::now() + pause);
    }

    fn took(&mut self) {
        (self.failures, self.closed_until) = (0, None);
    }
}

impl Store {
    /// Tells of what waits, for as long as it is polled. What goes well is told without it: this is for what failed, and for
    /// what peers that are gone left behind.
    pub async fn keep_telling(&self) {
        let mut views = self.view.changes();
        loop {
            let began = Instant::now();
            let retry = match self.tell_waiting().await {
                Ok(retry) => retry,
                Err(error) => {
                    warn!(%error, "events cannot be read");
                    true
                }
            };
            sleep((began.elapsed() * REST).max(PASS)).await;
            if retry {
                continue;
            }
            tokio::select! {
                () = self.events.due.notified() => {}
                _ = views.changed() => {}
                () = sleep(IDLE_PASS) => {}
            }
        }
    }

    /// One look at all events; whether another is due soon.
    async fn tell_waiting(&self) -> Result<bool, ObjectError> {
        if !self.view.in_touch() || self.ledger.catch_up().borrow().is_some() {
            return Ok(true);
        }
        let prefix = key::events();
        let mut query = ScanQuery { prefix: prefix.clone(), start: prefix, delimiter: None, limit: PAGE };
        let (mut waiting, mut mine) = (0, false);
        loop {
            let page = self.ledger.local_page(query.clone()).await?;
            let mut due = Vec::new();
            for item in page.items {
                let Item::Register(register, current) = item else { continue };
                waiting += 1;
                let record = EventRecord::decode(&current.value)?;
                let absent = |by| self.view.absence(by).is_none_or(|absent| !absent.is_zero());
                let is_mine = record.by == self.me || absent(record.by) && self.sees_to(&register);
                mine |= is_mine;
                if is_mine && !self.events.busy.lock().contains(&register) {
                    due.push(register);
                }
            }
            stream::iter(due).for_each_concurrent(AT_ONCE, |register| self.tell_anew(register)).await;
            match page.next {
                Some(next) => query.start = next,
                None => break,
            }
        }
        self.events.waiting.store(waiting, Ordering::Relaxed);
        Ok(mine)
    }

    /// Tells of an event that has waited: by what a strong read says of it, since another peer may have told of it.
    async fn tell_anew(&self, register: Bytes) {
        let record = match self.ledger.read(&register).await {
            Ok(Some(current)) => EventRecord::decode(&current.value),
            Ok(None) => return,
            Err(error) => return debug!(%error, "event not read"),
        };
        let Ok(record) = record else { return };
        if record.targets.iter().all(|target| !self.is_open(&target.arn)) {
            return self.drop_if_old(&register, &record, KEEP.as_millis() as u64).await;
        }
        let mut begun = Begun::new(self, register, record);
        if begun.record.outcome.is_none() {
            match self.find_out(&begun.record).await {
                Some(outcome) => begun.record.outcome = Some(outcome),
                None => return self.drop_if_old(&begun.register, &begun.record, UNCERTAIN_MS).await,
            }
        }
        self.tell_targets(&begun.register, begun.record.clone()).await;
    }

    /// Whether a target can be tried now. One that this peer does not know is never taken for one that was told.
    fn is_open(&self, arn: &str) -> bool {
        let Some(target) = self.events.target(arn) else { return false };
        let doors = self.events.doors.lock();
        let closed_until = doors.get(target.name()).and_then(|door| door.closed_until);
        closed_until.is_none_or(|until| until <= Instant::now())
    }

    async fn drop_if_old(&self, register: &Bytes, record: &EventRecord, keep_ms: u64) {
        if self.ledger.now_ms().saturating_sub(record.begun_ms) > keep_ms {
            if record.outcome.is_some() {
                self.events.dropped.fetch_add(1, Ordering::Relaxed);
                warn!(bucket = record.bucket, key = record.key, event = ?record.event, "event dropped: nobody took it");
            }
            self.forget_event(register).await;
        }
    }

    pub(super) async fn forget_event(&self, register: &Bytes) {
        match self.ledger.update(register.clone(), |_| Decision::Delete(())).await {
            Ok(_) => {
                let down = |waiting: usize| Some(waiting.saturating_sub(1));
                let _ = self.events.waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, down);
            }
            Err(error) => {
                warn!(%error, "an event that was told is told again");
                self.events.due.notify_one();
            }
        }
    }

    /// Tells the targets of an event whose outcome is known. Those that do not take it remain in the register.
    pub(super) async fn tell_targets(&self, register: &Bytes, mut record: EventRecord) {
        let (mut left, targets) = (Vec::new(), std::mem::take(&mut record.targets));
        let wanted = targets.len();
        for target in targets {
            let told = match self.events.target(&target.arn) {
                Some(_) if !self.is_open(&target.arn) => false,
                Some(known) => {
                    let message = self.message(&record, &target.configuration);
                    let about = format!("{}/{}", record.bucket, record.key);
                    let time_ms = record.outcome.as_ref().map_or(record.begun_ms, |outcome| outcome.time_ms);
                    self.send(known, &Letter { about, time_ms, body: message.to_string().into() }).await
                }
                None => {
                    warn!(
                        arn = target.arn,
                        "a target that this peer's settings do not name; all peers must name the same"
                    );
                    false
                }
            };
            if !told {
                left.push(target);
            }
        }
        if left.is_empty() {
            return self.forget_event(register).await;
        }
        self.events.due.notify_one();
        if left.len() == wanted {
            return;
        }
        record.targets = left;
        let value = record.encode();
        let kept = self.ledger.update(register.clone(), |current| match current {
            Some(_) => Decision::Put(value.clone(), ()),
            None => Decision::Keep(()),
        });
        if let Err(error) = kept.await {
            debug!(%error, "event kept as it was");
        }
    }

    async fn send(&self, target: &NotifyTarget, letter: &Letter) -> bool {
        let slots = Arc::clone(&self.events.doors.lock().entry(target.name().to_owned()).or_default().slots);
        // Never closed.
        let Ok(_slot) = slots.acquire().await else { return false };
        let sent = target.send(letter).await;
        let mut doors = self.events.doors.lock();
        let door = doors.entry(target.name().to_owned()).or_default();
        match sent {
            Ok(()) => {
                if door.failures > 0 {
                    info!(%target, "takes events again");
                }
                door.took();
                self.events.told.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(error) => {
                if door.failures == 0 {
                    warn!(%target, %error, "event not taken; it is sent again");
                }
                door.failed();
                self.events.failed.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Tells a target that it was configured for a bucket; an error when it does not take that.
    pub async fn test_target(&self, arn: &str, bucket: &str, request_id: &str) -> Result<(), String> {
        let target = self.events.target(arn).ok_or("no such target")?;
        let time_ms = self.ledger.now_ms();
        let message = test_message(bucket, time_ms, request_id, &self.me.to_string());
        let letter = Letter { about: bucket.to_owned(), time_ms, body: message.to_string().into() };
        target.send(&letter).await.map_err(|error| error.to_string())
    }

    fn message(&self, record: &EventRecord, configuration: &str) -> Value {
        let outcome = record.outcome.clone().unwrap_or_default();
        let message = Message {
            event: record.event,
            time_ms: outcome.time_ms,
            region: &self.chores.region,
            principal: &record.principal,
            source_ip: &record.source_ip,
            request_id: &record.request_id,
            host_id: &record.by.to_string(),
            configuration_id: configuration,
            bucket: &record.bucket,
            bucket_owner: &record.bucket_owner,
            key: &record.key,
            size: outcome.size,
            etag: &outcome.etag,
            version_id: outcome.version_id.as_deref(),
            sequencer: outcome.sequencer,
        };
        message.json()
    }

    /// What came of a request whose peer did not live to say so, by what is there now; `None` when it left no trace.
    async fn find_out(&self, record: &EventRecord) -> Option<Outcome> {
        let removed = matches!(
            record.event,
            Event::RemovedDelete
                | Event::RemovedDeleteMarkerCreated
                | Event::ExpirationDelete
                | Event::ExpirationDeleteMarkerCreated
        );
        match self.head(&record.bucket, &record.key, None).await {
            Ok(object) if !removed && object.modified_ms() >= record.begun_ms => Some(outcome_of(&object)),
            Ok(object) if matches!(record.event, Event::TaggingPut | Event::TaggingDelete | Event::AclPut) => {
                Some(outcome_of(&object))
            }
            Err(ObjectError::NoSuchKey) if removed => {
                let time_ms = record.begun_ms;
                Some(Outcome { time_ms, sequencer: time_ms, ..Outcome::default() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a target is down for hours. Danger: it is hammered, or a shift overflows and it is never tried again.
    /// Expectation: pauses that double up to a bound, and none once it takes something.
    #[tokio::test(start_paused = true)]
    async fn a_target_that_fails_is_let_be_for_longer_and_longer() {
        let mut door = Door::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            door.failed();
            door.failed(); // was on its way when the first failed
            let pause = door.closed_until.map(|until| until - Instant::now()).expect("closed");
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[39], MAX_PAUSE);
        door.took();
        assert!(door.closed_until.is_none());
    }
}
