//! Group commit: one thread turns all commits that wait into one write and at most one sync.
//!
//! While a group is being synced the next one gathers, so a sync is shared by as many commits as there are
//! concurrent callers, and a lone caller waits for nobody.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use super::db::store_error;
use super::health::Health;
use crate::fragment::StoreError;
use crate::index::Durability;

/// Commits that may wait; callers beyond it wait to enter.
const QUEUED_COMMITS: usize = 1024;
/// A group takes no further commits once it has this many bytes, so that none waits long.
const GROUP_BYTES: usize = 4 << 20;

/// What a database's commits mean. Runs on the commit thread alone, so it may keep state without locks.
pub(crate) trait Changes: Send + 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// Adds a request to the group, after the others in `batch`. On an error it has added nothing.
    fn stage(&mut self, request: Self::Request, batch: &mut WriteBatch) -> Result<Self::Answer, StoreError>;

    /// Adds what a whole group needs once.
    fn seal(&mut self, _batch: &mut WriteBatch) -> Result<(), StoreError> {
        Ok(())
    }

    /// The database says that its own tables do not read as they were written, and takes no more writes.
    fn corrupted(&self) {}

    /// The group is in the database, or it is not. Runs before anybody is answered.
    fn settle(&mut self, _written: bool) {}
}

struct Commit<C: Changes> {
    request: C::Request,
    durability: Durability,
    answer: oneshot::Sender<Result<C::Answer, StoreError>>,
}

/// The handle of a commit thread. Dropping it commits what is queued and ends the thread.
pub(crate) struct Committer<C: Changes> {
    queue: Option<mpsc::Sender<Commit<C>>>,
    thread: Option<JoinHandle<()>>,
}

/// The answer to come of a commit that is queued.
pub(crate) struct Pending<A>(oneshot::Receiver<Result<A, StoreError>>);

impl<A> Pending<A> {
    /// Waits on a thread that may block.
    pub(crate) fn wait(self) -> Result<A, StoreError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

impl<C: Changes> Committer<C> {
    /// Starts the thread, called `name`.
    pub(crate) fn start(name: &str, db: Arc<DB>, health: Arc<Health>, changes: C) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUED_COMMITS);
        let thread = Builder::new().name(name.to_owned()).spawn(move || run(&db, &health, changes, waiting))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Commits, and answers when the request is applied and as durable as asked for.
    pub(crate) async fn commit(&self, request: C::Request, durability: Durability) -> Result<C::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Commit { request, durability, answer }).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Queues a commit from a thread that may block. Commits are applied in the order they are queued.
    pub(crate) fn submit(&self, request: C::Request, durability: Durability) -> Result<Pending<C::Answer>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.blocking_send(Commit { request, durability, answer }).map_err(|_| stopped())?;
        Ok(Pending(answered))
    }
}

impl<C: Changes> Drop for Committer<C> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a commit thread panicked");
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Io(io::Error::other("the commit thread has stopped"))
}

fn run<C: Changes>(db: &DB, health: &Health, mut changes: C, mut waiting: mpsc::Receiver<Commit<C>>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = WriteBatch::default();
        let mut answers = Vec::new();
        let mut sync = false;
        let mut next = Some(first);
        while let Some(commit) = next {
            match changes.stage(commit.request, &mut batch) {
                Ok(answer) => {
                    sync |= commit.durability == Durability::Synced;
                    answers.push((commit.answer, answer));
                }
                Err(error) => reply(commit.answer, Err(error)),
            }
            next = if batch.size_in_bytes() < GROUP_BYTES { waiting.try_recv().ok() } else { None };
        }
        let written = write(db, health, &mut changes, batch, sync);
        changes.settle(written.is_ok());
        match written {
            Ok(()) => answers.into_iter().for_each(|(to, answer)| reply(to, Ok(answer))),
            Err(error) => answers.into_iter().for_each(|(to, _)| reply(to, Err(copy(&error)))),
        }
    }
}

/// Answers a caller. One that no longer waits has dropped its future; the commit stands all the same.
fn reply<A>(to: oneshot::Sender<Result<A, StoreError>>, answer: Result<A, StoreError>) {
    let _gone = to.send(answer);
}

/// The error of a group for one of its callers.
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Poisoned(reason) => StoreError::Poisoned(reason.clone()),
        other => StoreError::Io(io::Error::other(other.to_string())),
    }
}

fn write<C: Changes>(
    db: &DB,
    health: &Health,
    changes: &mut C,
    mut batch: WriteBatch,
    sync: bool,
) -> Result<(), StoreError> {
    health.check()?;
    let written = if !batch.is_empty() {
        changes.seal(&mut batch)?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        db.write_opt(batch, &options)
    } else if sync {
        // Nothing to write, but a synced commit also promises that all before it lasts.
        db.flush_wal(true)
    } else {
        Ok(())
    };
    written.map_err(|error| match store_error(&error) {
        // RocksDB itself refuses to write until there is space again and it has moved to a fresh log.
        StoreError::Full => StoreError::Full,
        StoreError::Corrupt(_) => {
            changes.corrupted();
            health.poison("log write or sync", &error)
        }
        _ => health.poison("log write or sync", &error),
    })
}
