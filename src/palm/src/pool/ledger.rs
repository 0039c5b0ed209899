//! The ledger over the network.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use palm_core::hlc::Ballot;
use palm_core::id::PeerId;
use palm_core::wire::{Request, Response, ScanQuery};

/// Why the ledger gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Too few voters answered. Nothing was written.
    #[error("{missing} of {voters} voters missing for a majority")]
    NoQuorum {
        /// How many more are needed.
        missing: usize,
        /// How many there are.
        voters: usize,
    },
    /// An accept was sent and its outcome is not known (R4).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// This peer's index failed.
    #[error("index: {0}")]
    Storage(String),
}

/// The current, live state of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Stamp of the write that made it (R1).
    pub version: Ballot,
    /// Its value.
    pub value: Bytes,
}

/// What an update decides on the state it is shown. Carries the answer for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<T> {
    /// Write this value.
    Put(Bytes, T),
    /// Leave a tombstone.
    Delete(T),
    /// Change nothing (a failed precondition, say).
    Keep(T),
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated<T> {
    /// Version of the register's state after it; [`Ballot::ZERO`] where it never existed.
    pub version: Ballot,
    /// What the decision answered.
    pub answer: T,
}

/// One page of live registers and groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In key order.
    pub items: Vec<Item>,
    /// Start of the next page; `None` when there is none.
    pub next: Option<Bytes>,
}

/// One line of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A live register.
    Register(Bytes, Current),
    /// A common prefix (the register key's, delimiter included).
    Group(Bytes),
}

/// The replicated, ordered map of registers. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<()>);

impl Ledger {
    /// Scaffold.
    #[expect(clippy::unused_async)]
    pub async fn open(
        me: PeerId,
        index: Arc<dyn palm_backends::IndexStore>,
        net: crate::net::Net,
        initial: Option<palm_core::register::Config>,
    ) -> Result<Self, LedgerError> {
        let _ = (me, index, net, initial);
        unimplemented!()
    }
    /// Scaffold.
    pub fn config(&self) -> Arc<palm_core::register::Config> {
        unimplemented!()
    }
    /// Scaffold.
    pub fn config_changes(&self) -> tokio::sync::watch::Receiver<Arc<palm_core::register::Config>> {
        unimplemented!()
    }
    /// Scaffold.
    pub fn watch(&self) -> tokio::sync::broadcast::Receiver<Bytes> {
        unimplemented!()
    }
    /// Scaffold.
    pub fn local_scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Current)>, LedgerError> {
        let _ = prefix;
        unimplemented!()
    }
    /// Scaffold.
    pub fn set_members(&self, members: std::collections::BTreeSet<PeerId>) {
        let _ = members;
    }
    /// Scaffold.
    pub async fn change_voters(&self, target: std::collections::BTreeSet<PeerId>) -> Result<(), LedgerError> {
        let _ = target;
        std::future::ready(()).await;
        unimplemented!()
    }
    /// A linearizable read; `None` for absent and deleted alike.
    pub async fn read(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        let _ = key;
        unimplemented!()
    }
    /// A linearizable read that may share its round with concurrent reads of the same key (each still
    /// starts after its caller asked): for hot registers such as a bucket's.
    pub async fn read_shared(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        let _ = key;
        unimplemented!()
    }
    /// What this peer knows, without asking: may be stale.
    pub fn peek(&self, key: &Bytes) -> Option<Current> {
        let _ = key;
        unimplemented!()
    }
    /// A linearizable read-modify-write. `decide` may run several times, each time on the current state.
    pub async fn update<T, F>(&self, key: Bytes, decide: F) -> Result<Updated<T>, LedgerError>
    where
        T: Send,
        F: FnMut(Option<&Current>) -> Decision<T> + Send,
    {
        let _ = (key, decide);
        unimplemented!()
    }
    /// The same, with its first phase running while `ready` (storing fragments, say) completes. When `ready`
    /// fails nothing is written.
    pub async fn update_when<T, F, E>(
        &self,
        key: Bytes,
        ready: impl Future<Output = Result<F, E>> + Send,
    ) -> Result<Result<Updated<T>, LedgerError>, E>
    where
        T: Send,
        E: Send,
        F: FnMut(Option<&Current>) -> Decision<T> + Send,
    {
        let _ = (key, ready.await?);
        unimplemented!()
    }
    /// A linearizable page.
    pub async fn scan(&self, query: ScanQuery) -> Result<Page, LedgerError> {
        let _ = query;
        unimplemented!()
    }
    /// Milliseconds since the Unix epoch by the hybrid clock.
    pub fn now_ms(&self) -> u64 {
        unimplemented!()
    }
    /// Answers another member's ledger request.
    pub async fn handle(&self, from: PeerId, request: Request) -> Response {
        let _ = (from, request);
        unimplemented!()
    }
}
