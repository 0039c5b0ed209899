//! A client: one operation after the other, at random, through its machine's peer; and it writes down what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};
use palm::object::{
    BodyError, CompletedPart, Completion, Deletion, Incoming, ListQuery, Listed, ListedObject, NewObject, NewUpload,
    Object, ObjectError, Store, VersionsQuery, WriteConditions, after_key,
};
use palm::pool::{Decision, Ledger, LedgerError, Pool};
use palm_core::id::PeerId;
use rand::rngs::SmallRng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::history::{Action, Op, Outcome, Value};
use crate::peer::identity;
use crate::world::{Phase, World};

/// Where all objects are.
pub const BUCKET: &str = "bucket";
/// Keys everyone writes to: few, so that clients meet.
const OBJECTS: [&str; 6] = ["a", "b/1", "b/2", "c", "d", "e"];
/// Ledger registers that grow by appending, in a family of their own.
const LISTS: [&str; 2] = ["\u{1}list/1", "\u{1}list/2"];
/// The machine that drains at times: one of them, so that the others can take what it has.
const DRAINING: usize = 1;
/// The longest pause between two operations of a client.
const LONGEST_PAUSE_MS: u64 = 300;
/// Once all is mended what fails is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

/// One client.
pub struct Client {
    machine: usize,
    pool: Pool,
    store: Store,
    ledger: Ledger,
    /// All members.
    peers: Vec<PeerId>,
    world: Rc<World>,
    dice: SmallRng,
    /// The tag and value it last saw of each object.
    seen: BTreeMap<&'static str, (String, Value)>,
}

/// A body no other write has: its value, and bytes that follow from it.
fn body(value: Value) -> Bytes {
    let mut dice = SmallRng::seed_from_u64(u64::from(value));
    let len = match value % 100 {
        0 => 1_200_000,
        1..10 => 100_000,
        _ => dice.random_range(8..3_000),
    };
    let mut bytes = vec![0; len];
    dice.fill(bytes.as_mut_slice());
    bytes[..4].copy_from_slice(&value.to_be_bytes());
    bytes.into()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A body on its way in, in a few pieces.
fn incoming(bytes: &Bytes) -> Incoming {
    let pieces: Vec<_> =
        (0..bytes.len()).step_by(60_000).map(|at| bytes.slice(at..bytes.len().min(at + 60_000))).collect();
    Incoming {
        stream: stream::iter(pieces.into_iter().map(Ok)).boxed(),
        length: Some(bytes.len() as u64),
        algorithms: Vec::new(),
        verify: Box::new(|_| Ok(None)),
        cipher: None,
    }
}

fn values(bytes: &[u8]) -> Vec<Value> {
    bytes.as_chunks().0.iter().map(|four| Value::from_be_bytes(*four)).collect()
}

impl Client {
    pub fn new(machine: usize, pool: Pool, store: Store, world: Rc<World>) -> Self {
        let dice = SmallRng::from_rng(&mut rand::rng());
        let peers = (0..world.machines).map(|machine| identity(machine).peer_id()).collect();
        let ledger = pool.ledger().clone();
        Self { machine, pool, store, ledger, peers, world, dice, seen: BTreeMap::new() }
    }

    /// Works for as long as there is chaos.
    pub async fn work(mut self) {
        while *self.world.phase.borrow() == Phase::Chaos {
            let key = OBJECTS[self.dice.random_range(0..OBJECTS.len())];
            let list = LISTS[self.dice.random_range(0..LISTS.len())];
            match self.dice.random_range(0..100) {
                0..20 => self.put(key, Action::Put).await,
                20..30 => self.put(key, Action::Create).await,
                30..42 => self.replace(key).await,
                42..50 => self.delete(key).await,
                50..56 => self.upload(key).await,
                56..62 => self.copy(key).await,
                62..80 => drop(self.get(key).await),
                80..84 => drop(self.list_objects().await),
                84..86 => self.forget_version(key).await,
                86..93 => self.append(list).await,
                93..97 => drop(self.read_list(list).await),
                97 => self.collect_tombstones().await,
                98 => self.drain().await,
                _ => self.change_voters().await,
            }
            sleep(Duration::from_millis(self.dice.random_range(0..LONGEST_PAUSE_MS))).await;
        }
    }

    /// Ends what it began: nothing drains, and no upload stays that could be ended.
    pub async fn end(mut self) {
        while let Err(error) = self.pool.drain(false).await {
            self.world.log(&format!("machine {} drains still: {error}", self.machine));
            sleep(RETRY).await;
        }
        for key in OBJECTS {
            self.abort_uploads(key).await;
        }
    }

    /// Reads all there is, each until it succeeds.
    pub async fn read_everything(mut self) {
        for key in OBJECTS {
            while !self.get(key).await {
                sleep(RETRY).await;
            }
        }
        for list in LISTS {
            while !self.read_list(list).await {
                sleep(RETRY).await;
            }
        }
        while !self.list_objects().await {
            sleep(RETRY).await;
        }
    }

    fn call(&self, register: &str, action: Action) -> Op {
        self.world.call(register, action, self.machine)
    }

    /// What an error says of a write. Those that nothing in this world can cause are violations.
    fn failed(&self, op: Op, error: &ObjectError) {
        let why = error.to_string();
        match error {
            ObjectError::Conflict | ObjectError::Overloaded | ObjectError::Body(BodyError::Unavailable(_)) => {
                self.world.fail(op, &why);
            }
            // Somebody else has aborted it.
            ObjectError::NoSuchUpload => self.world.fail(op, &why),
            ObjectError::Unavailable(_) => self.world.leave_unknown(op, &why),
            _ => self.world.violated(format!("op {op} must not fail like this: {error:?}")),
        }
    }

    async fn put(&mut self, key: &'static str, action: fn(Value) -> Action) {
        let value = self.world.new_value();
        let action = action(value);
        let if_absent = matches!(action, Action::Create(_));
        self.store_object(key, value, action, WriteConditions { if_absent, ..WriteConditions::default() }).await;
    }

    async fn replace(&mut self, key: &'static str) {
        let Some((tag, expected)) = self.seen.get(key).cloned() else { return };
        let value = self.world.new_value();
        let conditions = WriteConditions { if_match: Some(tag), ..WriteConditions::default() };
        self.store_object(key, value, Action::Replace(expected, value), conditions).await;
    }

    async fn store_object(&mut self, key: &'static str, value: Value, action: Action, conditions: WriteConditions) {
        let bytes = body(value);
        let tag = hex(&Md5::digest(&bytes));
        self.world.expect_tag(tag.clone(), value);
        let op = self.call(key, action);
        match self.store.put(BUCKET, key, NewObject::default(), conditions, incoming(&bytes)).await {
            Ok(_) => {
                self.world.answer(op, Outcome::Done);
                self.seen.insert(key, (tag, value));
            }
            // The condition did not hold; with If-Match, since nothing was there.
            Err(ObjectError::PreconditionFailed | ObjectError::NoSuchKey) => self.world.answer(op, Outcome::Refused),
            Err(error) => self.failed(op, &error),
        }
    }

    async fn delete(&mut self, key: &'static str) {
        let op = self.call(key, Action::Delete);
        match self.store.delete(BUCKET, key, Deletion::default()).await {
            Ok(deleted) if deleted.found => self.world.answer(op, Outcome::Done),
            Ok(_) => self.world.answer(op, Outcome::Refused),
            Err(error) => self.failed(op, &error),
        }
    }

    /// A multipart upload; its completion is the write.
    async fn upload(&mut self, key: &'static str) {
        let value = self.world.new_value();
        let bytes = body(value);
        let md5 = Md5::digest(&bytes);
        let tag = format!("{}-1", hex(&Md5::digest(md5)));
        self.world.expect_tag(tag.clone(), value);
        let begun = async {
            let id = self.store.create_upload(BUCKET, key, NewUpload::default()).await?;
            self.store.put_part(BUCKET, key, id, 1, incoming(&bytes)).await?;
            Ok::<_, ObjectError>(id)
        };
        let begun = begun.await;
        let op = self.call(key, Action::Put(value));
        let id = match begun {
            Ok(id) => id,
            Err(error) => {
                self.failed(op, &error);
                return self.world.fail(op, "never completed");
            }
        };
        if self.dice.random_bool(0.3) {
            self.world.fail(op, "aborted");
            return self.abort_uploads(key).await;
        }
        let parts = vec![CompletedPart { number: 1, etag: hex(&md5), checksum: None }];
        match self.store.complete_upload(BUCKET, key, id, Completion { parts, ..Completion::default() }).await {
            Ok(_) => {
                self.world.answer(op, Outcome::Done);
                self.seen.insert(key, (tag, value));
            }
            Err(error) => self.failed(op, &error),
        }
    }

    /// Deletes a version that is not the current one: nobody must notice, but the disks.
    async fn forget_version(&mut self, key: &'static str) {
        let keys = ListQuery { prefix: key.to_owned(), limit: 20, ..ListQuery::default() };
        let query = VersionsQuery { keys, after: None };
        let Ok(page) = self.store.list_versions(BUCKET, query).await else { return };
        let older = page.items.into_iter().filter_map(|item| match item {
            Listed::Key(_, version) if !version.is_latest => Some(version.id),
            _ => None,
        });
        let Some(version) = older.choose(&mut self.dice) else { return };
        let deletion = Deletion { version: Some(version), ..Deletion::default() };
        let deleted = self.store.delete(BUCKET, key, deletion).await;
        self.world.log(&format!("version {version} of {key} deleted at {}: {}", self.machine, deleted.is_ok()));
    }

    /// Makes an object of another one's body.
    async fn copy(&mut self, key: &'static str) {
        let from = OBJECTS[self.dice.random_range(0..OBJECTS.len())];
        let Ok(source) = self.store.head(BUCKET, from, None).await else { return };
        let tag = source.record.etag.to_string();
        let Some(value) = self.world.value_of(&tag).filter(|_| from != key) else { return };
        let op = self.call(key, Action::Put(value));
        let (new, conditions) = (NewObject::default(), WriteConditions::default());
        match self.store.copy(&source, (BUCKET, from), BUCKET, key, new, conditions).await {
            Ok(_) => {
                self.world.answer(op, Outcome::Done);
                self.seen.insert(key, (tag, value));
            }
            Err(ObjectError::NoSuchKey) => self.world.fail(op, "the source is gone"),
            Err(error) => self.failed(op, &error),
        }
    }

    /// Aborts what uploads of a key it finds.
    async fn abort_uploads(&mut self, key: &str) {
        let query = ListQuery { start: key.to_owned(), limit: 10, ..ListQuery::default() };
        let Ok(page) = self.store.list_uploads(BUCKET, query, None).await else { return };
        for item in page.items {
            if let Listed::Key(key, (id, _)) = item {
                let aborted = self.store.abort_upload(BUCKET, &key, id).await;
                self.world.log(&format!("upload {id} of {key} aborted at {}: {aborted:?}", self.machine));
            }
        }
    }

    /// Has its machine's fragments go elsewhere for a while, or ends that.
    async fn drain(&mut self) {
        if self.machine != DRAINING {
            return;
        }
        let draining = self.dice.random_bool(0.6);
        let done = self.pool.drain(draining).await;
        self.world.log(&format!("machine {} drains: {draining}, {}", self.machine, done.is_ok()));
    }

    /// Reads an object, its body too. Answers whether that succeeded.
    async fn get(&mut self, key: &'static str) -> bool {
        let op = self.call(key, Action::Read);
        let object = match self.store.head(BUCKET, key, None).await {
            Ok(object) => object,
            Err(ObjectError::NoSuchKey | ObjectError::Marker { named: false, .. }) => {
                self.world.answer(op, Outcome::Saw(Vec::new()));
                return true;
            }
            Err(error) => {
                self.failed(op, &error);
                return false;
            }
        };
        let tag = object.record.etag.to_string();
        let Some(value) = self.world.value_of(&tag) else { return false };
        self.world.answer(op, Outcome::Saw(vec![value]));
        self.seen.insert(key, (tag, value));
        match self.read_body(&object).await {
            Ok(bytes) if bytes == body(value) => true,
            Ok(bytes) => {
                self.world.violated(format!("op {op}: {} bytes that are not those of write {value}", bytes.len()));
                false
            }
            Err(ObjectError::Unavailable(why) | ObjectError::Body(BodyError::Unavailable(why))) => {
                self.world.log(&format!("op {op}: no body: {why}"));
                false
            }
            Err(error) => {
                self.world.violated(format!("op {op} must not fail like this: {error:?}"));
                false
            }
        }
    }

    async fn read_body(&self, object: &Object) -> Result<Vec<u8>, ObjectError> {
        let stream = self.store.read(object, 0..object.record.size).await?;
        let pieces: Vec<Bytes> = stream.try_collect().await?;
        Ok(pieces.concat())
    }

    /// Lists all objects: one read of each key. Answers whether that succeeded.
    async fn list_objects(&mut self) -> bool {
        let ops: Vec<Op> = OBJECTS.iter().map(|key| self.call(key, Action::Read)).collect();
        let limit = self.dice.random_range(1..10);
        let mut listed = match self.list_pages(limit).await {
            Ok(listed) => listed,
            Err(error) => {
                for op in ops {
                    self.failed(op, &error);
                }
                return false;
            }
        };
        for (key, op) in OBJECTS.into_iter().zip(ops) {
            let value = listed.remove(key).and_then(|object| self.world.value_of(&object.summary.etag.to_string()));
            self.world.answer(op, Outcome::Saw(value.into_iter().collect()));
        }
        if !listed.is_empty() {
            self.world.violated(format!("keys nobody wrote are listed: {:?}", listed.keys()));
        }
        true
    }

    async fn list_pages(&self, limit: u32) -> Result<BTreeMap<String, ListedObject>, ObjectError> {
        let mut listed = BTreeMap::new();
        let mut start = String::new();
        loop {
            let page =
                self.store.list(BUCKET, ListQuery { start: start.clone(), limit, ..ListQuery::default() }).await?;
            for item in page.items {
                let Listed::Key(key, object) = item else { continue };
                if key < start || listed.insert(key.clone(), object).is_some() {
                    self.world.violated(format!("{key} is listed out of order, or twice"));
                }
                start = after_key(&key);
            }
            match page.next {
                Some(next) => start = next,
                None => return Ok(listed),
            }
        }
    }

    /// What an error of the ledger says.
    fn ledger_failed(&self, op: Op, error: &LedgerError) {
        match error {
            LedgerError::NoQuorum { .. } | LedgerError::Contended => self.world.fail(op, &error.to_string()),
            LedgerError::Unknown(why) => self.world.leave_unknown(op, why),
            LedgerError::Storage(_) | LedgerError::Recovery(_) | LedgerError::Absent(_) | LedgerError::Metrics(_) => {
                self.world.violated(format!("op {op} must not fail like this: {error}"));
            }
        }
    }

    async fn append(&mut self, list: &'static str) {
        let value = self.world.new_value();
        let op = self.call(list, Action::Append(value));
        let append = |current: Option<&palm::pool::Current>| {
            let before = current.map(|current| current.value.clone()).unwrap_or_default();
            Decision::Put([&before[..], &value.to_be_bytes()].concat().into(), values(&before))
        };
        match self.ledger.update(Bytes::from_static(list.as_bytes()), append).await {
            Ok(updated) => self.world.answer(op, Outcome::Saw(updated.answer)),
            Err(error) => self.ledger_failed(op, &error),
        }
    }

    /// Has tombstones collected at once (R7), however young: deleted keys must stay deleted all the same.
    async fn collect_tombstones(&self) {
        if let Ok(count @ 1..) = self.ledger.collect_tombstones(Duration::ZERO).await {
            self.world.log(&format!("{count} tombstones collected at {}", self.machine));
        }
    }

    /// Has others vote (R8): an odd number of members, at random. The peers themselves bring back the usual number.
    async fn change_voters(&mut self) {
        let mut target: Vec<PeerId> = self.peers.clone();
        target.shuffle(&mut self.dice);
        target.truncate(self.dice.random_range(0..target.len().div_ceil(2)) * 2 + 1);
        let target: BTreeSet<PeerId> = target.into_iter().collect();
        self.world.log(&format!("{} shall vote, {} says", target.len(), self.machine));
        for _ in 0..2 * self.peers.len() {
            match self.ledger.change_voters(&target).await {
                Ok(true) => return self.world.log(&format!("{} vote, {} says", target.len(), self.machine)),
                Ok(false) => {}
                Err(error) => return self.world.log(&format!("the voters stay, {} says: {error}", self.machine)),
            }
        }
    }

    /// Answers whether that succeeded.
    async fn read_list(&mut self, list: &'static str) -> bool {
        let op = self.call(list, Action::Read);
        let register = Bytes::from_static(list.as_bytes());
        let read = match self.dice.random_range(0..3) {
            0 => self.ledger.read(&register).await,
            1 => self.ledger.read_shared(&register).await,
            _ => self.ledger.read_fenced(&register).await,
        };
        match read {
            Ok(current) => {
                let found = current.map(|current| values(&current.value)).unwrap_or_default();
                self.world.answer(op, Outcome::Saw(found));
                true
            }
            Err(error) => {
                self.ledger_failed(op, &error);
                false
            }
        }
    }
}
