//! Two small queues by key: updates one at a time, and reads that share a round.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{Current, Ledger, LedgerError};

/// Serialises this peer's updates of one key: contending with oneself only burns ballots.
#[derive(Default)]
pub(super) struct KeyQueues(Arc<Mutex<HashMap<Bytes, Arc<tokio::sync::Mutex<()>>>>>);

/// A place at the head of a key's queue.
pub(super) struct Turn {
    key: Bytes,
    queues: Arc<Mutex<HashMap<Bytes, Arc<tokio::sync::Mutex<()>>>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyQueues {
    /// Waits for this key's turn, first come first served.
    pub(super) async fn enter(&self, key: &Bytes) -> Turn {
        let queue = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        // The turn exists before the wait, so that giving up waiting tidies up as well.
        let mut turn = Turn { key: key.clone(), queues: Arc::clone(&self.0), guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut queues = self.queues.lock();
        // The map's own reference is the last one: nobody holds or awaits the key. New ones cannot come
        // while the map is locked.
        if queues.get(&self.key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.key);
        }
    }
}

type Waiters = Vec<oneshot::Sender<Result<Option<Current>, LedgerError>>>;

/// Reads of one key that wait for the next round together. An entry exists while a round is running.
#[derive(Default)]
pub(super) struct SharedReads(Mutex<HashMap<Bytes, Waiters>>);

impl Ledger {
    /// A linearizable read that may share its round with concurrent reads of the same key: for hot registers
    /// such as a bucket's. A round answers only those who asked before it began.
    pub async fn read_shared(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        if self.decides(key)? {
            return self.read_locally(key);
        }
        let (answer, answered) = oneshot::channel();
        let begin = {
            let mut shared = self.0.shared.0.lock();
            let waiters = shared.get_mut(key);
            let begin = waiters.is_none();
            match waiters {
                Some(waiters) => waiters.push(answer),
                None => drop(shared.insert(key.clone(), vec![answer])),
            }
            begin
        };
        if begin {
            let (ledger, key) = (self.clone(), key.clone());
            tokio::spawn(async move { ledger.run_shared_rounds(&key).await });
        }
        answered.await.unwrap_or_else(|_| Err(LedgerError::Storage("shared read ended".to_owned())))
    }

    async fn run_shared_rounds(&self, key: &Bytes) {
        loop {
            let waiters = {
                let mut shared = self.0.shared.0.lock();
                match shared.get_mut(key).map(std::mem::take) {
                    Some(waiters) if !waiters.is_empty() => waiters,
                    _ => {
                        shared.remove(key);
                        return;
                    }
                }
            };
            let result = self.read(key).await;
            for waiter in waiters {
                // A reader that has gone away is no loss.
                let _ = waiter.send(result.clone());
            }
        }
    }
}
