//! Fragments kept by another program: `exec:///path/to/program` is started as a child process and asked over its
//! standard input and output, so a backend can be written in any language. The protocol is in
//! `docs/backend-protocol.md`; `examples/backend-plugin/` has one in Python.
//!
//! The program is not trusted with more than its own fragments. Every frame is bounded, every call has its time, and
//! what it answers is checked: ids are computed here, an answer of the wrong length is an error, a listing out of order is
//! an error. One that hangs or talks nonsense is killed and started again at the next call, not more often than its
//! failures allow. What it answers wrongly in a fragment's bytes is found like any rot.
//!
//! Map: `frame.rs` (bytes on the pipe), `child.rs` (one life of the program: calls and their answers),
//! `supervisor.rs` (its lives), this file (the store).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use palm_core::id::FragmentId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::open::OpenError;
use crate::reader::check_range;

mod child;
mod frame;
mod supervisor;
#[cfg(test)]
mod tests;

use frame::BODY_MAX_BYTES;
use supervisor::Supervisor;

/// The version spoken here.
const PROTOCOL: u32 = 1;
/// Ids asked about at once.
const STATS_MAX: usize = 256;
/// Fragments listed at once.
const LIST_MAX: usize = 1_000;
/// A call that takes longer counts as hung.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How a program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOptions {
    /// An absolute path.
    pub program: PathBuf,
    /// Handed to the program in its first call.
    pub options: BTreeMap<String, String>,
    /// A call that takes longer counts as hung.
    pub timeout: Duration,
}

impl ExecOptions {
    /// A program with no options and the usual patience.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), options: BTreeMap::new(), timeout: CALL_TIMEOUT }
    }
}

/// Fragments kept by a program. Cloning gives another handle on the same one.
#[derive(Clone)]
pub struct ExecFragments(Arc<Inner>);

struct Inner {
    program: Supervisor,
    /// Names uploads; never the same twice in the program's life.
    uploads: AtomicU64,
}

#[derive(Deserialize)]
struct Lens {
    lens: Vec<Option<u64>>,
}

#[derive(Deserialize)]
struct Found {
    found: bool,
}

#[derive(Deserialize)]
struct Stored {
    len: u64,
}

#[derive(Deserialize)]
struct Listed {
    fragments: Vec<(String, u64)>,
}

#[derive(Deserialize)]
struct Used {
    fragments: u64,
    bytes: u64,
    /// `null`: nothing bounds it.
    free: Option<u64>,
}

impl ExecFragments {
    /// Starts the program and greets it. Needs a tokio runtime.
    pub async fn open(options: ExecOptions) -> Result<Self, OpenError> {
        let program = Supervisor::new(options);
        program.start().await?;
        Ok(Self::of(program))
    }

    /// The store of a program that is started when it is first asked.
    pub fn lazy(options: ExecOptions) -> Self {
        Self::of(Supervisor::new(options))
    }

    fn of(program: Supervisor) -> Self {
        Self(Arc::new(Inner { program, uploads: AtomicU64::new(1) }))
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, verb: &str, header: Value) -> Result<T, StoreError> {
        let (answer, _) = self.0.program.call(verb, header, Bytes::new()).await?;
        serde_json::from_value(answer).map_err(|error| nonsense(verb, &error.to_string()))
    }

    async fn lens(&self, ids: &[FragmentId]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        for some in ids.chunks(STATS_MAX) {
            let names: Vec<String> = some.iter().map(FragmentId::to_string).collect();
            let Lens { lens } = self.ask("stat", json!({ "ids": names })).await?;
            if lens.len() != some.len() {
                return Err(nonsense("stat", "answered about another number of fragments"));
            }
            all.extend(lens);
        }
        Ok(all)
    }

    async fn len(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        Ok(self.lens(&[id]).await?.pop().flatten())
    }
}

/// What the program answered makes no sense.
fn nonsense(verb: &str, what: &str) -> StoreError {
    StoreError::Corrupt(format!("the backend's program answered {verb:?} wrongly: {what}"))
}

#[async_trait]
impl FragmentStore for ExecFragments {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let upload = self.0.uploads.fetch_add(1, Ordering::Relaxed);
        let mut writer =
            ExecWriter { store: self.clone(), upload, life: 0, hasher: Hasher::new(), len: 0, under_way: true };
        let (life, Value::Object(_)) = self.0.program.begin(json!({ "upload": upload, "len": len })).await? else {
            return Err(nonsense("begin", "not an object"));
        };
        writer.life = life;
        Ok(Box::new(writer))
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let len = self.len(id).await?.ok_or(StoreError::NotFound(id))?;
        Ok(Box::new(ExecReader { store: self.clone(), id, len }))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        Ok(self.len(id).await?.map(|len| FragmentStat { id, len }))
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        let lens = self.lens(&ids).await?;
        Ok(ids.into_iter().zip(lens).map(|(id, len)| len.map(|len| FragmentStat { id, len })).collect())
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        let Found { found } = self.ask("delete", json!({ "id": id.to_string() })).await?;
        Ok(found)
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let (mut all, mut after) = (Vec::new(), after);
        while all.len() < limit {
            let asked = (limit - all.len()).min(LIST_MAX);
            let header = json!({ "after": after.map(|id| id.to_string()), "limit": asked });
            let Listed { fragments } = self.ask("list", header).await?;
            if fragments.len() > asked {
                return Err(nonsense("list", "more than was asked for"));
            }
            let is_last = fragments.len() < asked;
            for (name, len) in fragments {
                let id: FragmentId = name.parse().map_err(|_| nonsense("list", "not an id"))?;
                if after.is_some_and(|after| id <= after) {
                    return Err(nonsense("list", "not in order"));
                }
                after = Some(id);
                all.push(FragmentStat { id, len });
            }
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let Used { fragments, bytes, free } = self.ask("usage", json!({})).await?;
        Ok(Usage { fragments, bytes, free: free.unwrap_or(u64::MAX) })
    }
}

struct ExecWriter {
    store: ExecFragments,
    upload: u64,
    /// The life of the program that the upload was begun in: another one knows nothing of it.
    life: u64,
    hasher: Hasher,
    len: u64,
    under_way: bool,
}

#[async_trait]
impl FragmentWriter for ExecWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.hasher.update(&bytes);
        self.len += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(BODY_MAX_BYTES));
            let header = json!({ "upload": self.upload });
            self.store.0.program.call_in(self.life, "write", header, piece).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let id = FragmentId::from_bytes(*self.hasher.finalize().as_bytes());
        let header = json!({ "upload": self.upload, "id": id.to_string() });
        let (answer, _) = self.store.0.program.call_in(self.life, "finish", header, Bytes::new()).await?;
        self.under_way = false;
        let Stored { len } = serde_json::from_value(answer).map_err(|error| nonsense("finish", &error.to_string()))?;
        if len != self.len {
            return Err(nonsense("finish", &format!("{len} bytes stored of {}", self.len)));
        }
        Ok(FragmentStat { id, len })
    }
}

impl Drop for ExecWriter {
    fn drop(&mut self) {
        if self.under_way {
            self.store.0.program.tell(self.life, "abandon", &json!({ "upload": self.upload }));
        }
    }
}

struct ExecReader {
    store: ExecFragments,
    id: FragmentId,
    len: u64,
}

#[async_trait]
impl FragmentReader for ExecReader {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(self.id, &range, self.len)?;
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(BODY_MAX_BYTES as u64);
            let header = json!({ "id": self.id.to_string(), "offset": at, "len": len });
            let read = self.store.0.program.call("read", header, Bytes::new()).await;
            let (_, body) = read.map_err(|error| match error {
                StoreError::NotFound(_) => StoreError::NotFound(self.id),
                other => other,
            })?;
            if body.len() as u64 != len {
                return Err(nonsense("read", &format!("{} bytes instead of {len}", body.len())));
            }
            at += len;
            pieces.push(body);
        }
        Ok(match pieces.len() {
            1 => pieces.remove(0),
            _ => pieces
                .iter()
                .fold(BytesMut::new(), |mut all, piece| {
                    all.extend_from_slice(piece);
                    all
                })
                .freeze(),
        })
    }
}
