//! Access logs of buckets: lines are noted here as requests end, and delivered as objects
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerLogs.html>).
//!
//! Each peer delivers what it answered itself. Lines wait in memory for seconds, then in this peer's index, which outlives the
//! process, until they are delivered: every `access_log.every`, when there are many, and when the peer stops. A delivery that is
//! interrupted is repeated, so a line may come twice; lines of the last seconds before a crash are lost ("best effort", as
//! AWS has it). Deliveries are not requests, and so make no lines of their own.
//!
//! Layout of the index, in [`Space::Meta`]: `access-log/`, milliseconds since the epoch and a random number (u64 BE each);
//! a [`Batch`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use palm_backends::{Durability, Next, Space, StoreError, Write};
use palm_core::record::{BucketRecord, Logging, Stored, Subresources};
use palm_core::s3::account::Account;
use palm_core::s3::acl::{Acl, Grant, Grantee, Permission};
use palm_core::s3::calendar::DAY_MS;
use palm_core::s3::logging::{log_key, partitioned_key};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::{Incoming, NewObject, ObjectError, Store, WriteConditions};

const PREFIX: &[u8] = b"access-log/";
/// Lines wait this long before they are stored.
const SPILL: Duration = Duration::from_secs(5);
/// Or until there are so many bytes of them.
const SPILL_BYTES: usize = 256 << 10;
/// What cannot be stored as fast as it comes is dropped from here on.
const BUFFER_MAX_BYTES: usize = 4 << 20;
/// So much stored is delivered before its time.
const DELIVER_BYTES: u64 = 4 << 20;
/// Lines that cannot be delivered are kept up to this.
const STORED_MAX_BYTES: u64 = 64 << 20;
/// One log object at most.
const OBJECT_MAX_BYTES: usize = 8 << 20;
/// A peer that stops waits no longer for its last delivery; what is left is delivered when it is back.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Batch {
    lines: Vec<LogLine>,
}

impl Stored for Batch {
    const VERSION: u8 = 1;
    const KIND: &'static str = "access log";
}

/// A line of an access log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The bucket it is about.
    pub bucket: String,
    /// When the request came, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The line, without its break.
    pub text: String,
}

/// Lines of this peer that are not delivered yet.
#[derive(Default)]
pub(super) struct AccessLog {
    fresh: Mutex<(Vec<LogLine>, usize)>,
    added: Notify,
    full: Notify,
    stored_bytes: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
}

impl Store {
    /// Notes a line, to be delivered later. Never waits.
    pub fn log_access(&self, line: LogLine) {
        let log = &self.access_log;
        let mut fresh = log.fresh.lock();
        let over = log.stored_bytes.load(Ordering::Relaxed) > STORED_MAX_BYTES;
        if over || fresh.1 > BUFFER_MAX_BYTES {
            log.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        fresh.1 += line.text.len() + line.bucket.len();
        fresh.0.push(line);
        if fresh.1 > SPILL_BYTES {
            log.full.notify_one();
        }
        log.added.notify_one();
    }

    /// Lines delivered, and lines dropped, by this peer.
    pub fn access_log_figures(&self) -> (u64, u64) {
        let AccessLog { delivered, dropped, .. } = &self.access_log;
        (delivered.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed))
    }

    /// Delivers access logs for as long as it is polled.
    pub async fn keep_logging(&self) {
        let log = &self.access_log;
        let mut next = Instant::now() + self.chores.log_every;
        // What the last life left.
        let mut waiting = true;
        loop {
            tokio::select! {
                () = log.added.notified() => tokio::select! {
                    () = sleep(SPILL) => {}
                    () = log.full.notified() => {}
                },
                () = sleep_until(next), if waiting => {}
            }
            waiting = true;
            self.store_log().await;
            if Instant::now() >= next || log.stored_bytes.load(Ordering::Relaxed) > DELIVER_BYTES {
                waiting = self.deliver_log().await;
                next = Instant::now() + self.chores.log_every;
            }
        }
    }

    /// Delivers what there is before this peer stops.
    pub async fn flush_log(&self) {
        self.store_log().await;
        if timeout(FLUSH_TIMEOUT, self.deliver_log()).await.unwrap_or(true) {
            info!("access log lines wait until this peer is back");
        }
    }

    /// Brings lines from memory into the index.
    async fn store_log(&self) {
        let (lines, bytes) = std::mem::take(&mut *self.access_log.fresh.lock());
        if lines.is_empty() {
            return;
        }
        let key = [PREFIX, &self.ledger.now_ms().to_be_bytes(), &rand::random::<u64>().to_be_bytes()].concat();
        let write = Write::Put(Space::Meta, key.into(), Batch { lines }.encode());
        match self.index.commit(vec![write], Durability::Buffered).await {
            Ok(()) => {
                self.access_log.stored_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(cause) => error!(%cause, "access log lines lost"),
        }
    }

    /// Delivers what is stored; whether anything is left.
    async fn deliver_log(&self) -> bool {
        match self.deliver_stored().await {
            Ok(left) => {
                self.access_log.stored_bytes.store(left, Ordering::Relaxed);
                left > 0
            }
            Err(cause) => {
                error!(%cause, "access log unreadable");
                true
            }
        }
    }

    /// The bytes that are left.
    async fn deliver_stored(&self) -> Result<u64, StoreError> {
        let mut left = 0;
        loop {
            // As much as fits into memory, by batches: each goes once all of its lines are delivered.
            let (mut batches, mut bytes, mut more) = (Vec::new(), 0, false);
            self.index.scan(Space::Meta, PREFIX, &mut |key, value| {
                if !key.starts_with(PREFIX) {
                    return Next::Stop;
                }
                if bytes > OBJECT_MAX_BYTES {
                    more = true;
                    return Next::Stop;
                }
                bytes += value.len();
                batches.push((Bytes::copy_from_slice(key), Batch::decode(value).unwrap_or_default()));
                Next::Continue
            })?;
            if batches.is_empty() {
                return Ok(left);
            }
            let mut by_bucket: BTreeMap<String, Vec<LogLine>> = BTreeMap::new();
            let mut writes = Vec::new();
            for (key, batch) in batches {
                writes.push(Write::Delete(Space::Meta, key));
                for line in batch.lines {
                    by_bucket.entry(line.bucket.clone()).or_default().push(line);
                }
            }
            let mut kept = Batch::default();
            for (bucket, lines) in by_bucket {
                match self.deliver_bucket(&bucket, &lines).await {
                    Ok(()) => {
                        self.access_log.delivered.fetch_add(lines.len() as u64, Ordering::Relaxed);
                    }
                    Err(ObjectError::NoSuchBucket) => debug!(bucket, "access log has no place to go to any more"),
                    Err(cause) => {
                        warn!(bucket, %cause, "access log not delivered; it is tried again");
                        kept.lines.extend(lines);
                    }
                }
            }
            let stuck = !kept.lines.is_empty();
            if stuck {
                left += kept.lines.iter().map(|line| line.text.len() as u64).sum::<u64>();
                let key = [PREFIX, &self.ledger.now_ms().to_be_bytes(), &rand::random::<u64>().to_be_bytes()].concat();
                writes.push(Write::Put(Space::Meta, key.into(), kept.encode()));
            }
            self.index.commit(writes, Durability::Buffered).await?;
            if stuck || !more {
                return Ok(left);
            }
        }
    }

    async fn deliver_bucket(&self, bucket: &str, lines: &[LogLine]) -> Result<(), ObjectError> {
        let source = self.bucket(bucket).await?;
        // Switched off meanwhile: then nobody wants them.
        let Some(logging) = source.config.logging.clone() else { return Ok(()) };
        let target = self.bucket(&logging.bucket).await?;
        let mut days: BTreeMap<Option<u64>, Vec<&LogLine>> = BTreeMap::new();
        for line in lines {
            let by_day = logging.partitioned_by_event_time == Some(true);
            days.entry(by_day.then(|| line.time_ms / DAY_MS * DAY_MS)).or_default().push(line);
        }
        for (day_ms, lines) in days {
            let key = self.log_object(bucket, &source, &logging, day_ms);
            let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
            let acl = grants(&logging, &target);
            let new = NewObject { subresources: Subresources { acl, ..Subresources::default() }, ..text_object() };
            let putting = self.put(&logging.bucket, &key, new, WriteConditions::default(), whole(text.into()));
            Box::pin(putting).await?;
            debug!(bucket, target = logging.bucket, key, lines = lines.len(), "access log delivered");
        }
        Ok(())
    }

    fn log_object(&self, bucket: &str, source: &BucketRecord, logging: &Logging, day_ms: Option<u64>) -> String {
        let (prefix, unique) = (&logging.prefix, rand::random());
        let now_ms = day_ms.unwrap_or_else(|| self.ledger.now_ms());
        if logging.partitioned_by_event_time.is_none() {
            return log_key(prefix, now_ms, unique);
        }
        let account = Account::number_of(&source.owner).unwrap_or_default();
        partitioned_key(prefix, (&account, &self.chores.region, bucket), now_ms, unique)
    }
}

/// What a log's object grants, beside its owner's own rights; `None` where nothing was asked for.
fn grants(logging: &Logging, target: &BucketRecord) -> Option<Acl> {
    let owner = target.owner.clone();
    let own = Grant { grantee: Grantee::CanonicalId(owner.clone()), permission: Permission::FullControl };
    (!logging.grants.is_empty()).then(|| Acl { owner, grants: [vec![own], logging.grants.clone()].concat() })
}

fn text_object() -> NewObject {
    let mut new = NewObject::default();
    new.attributes.content_type = Some("text/plain".to_owned());
    new
}

/// A body that is here already.
fn whole(bytes: Bytes) -> Incoming {
    let length = Some(bytes.len() as u64);
    let stream = futures::stream::once(async move { Ok(bytes) }).boxed();
    Incoming { stream, length, algorithms: Vec::new(), verify: Box::new(|_| Ok(None)), cipher: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a peer is upgraded between a request and its log's delivery. Danger: its lines are lost. Expectation: these
    /// bytes are read for ever.
    #[test]
    fn stored_lines_are_read_back() {
        let line = LogLine { bucket: "b".to_owned(), time_ms: 300, text: "l".to_owned() };
        let batch = Batch { lines: vec![line] };
        let bytes = [1, 1, 1, b'b', 0xAC, 0x02, 1, b'l'];
        assert_eq!(batch.encode().as_ref(), bytes);
        assert_eq!(Batch::decode(&bytes), Ok(batch));
    }
}
