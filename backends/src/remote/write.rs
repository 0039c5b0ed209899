//! How a fragment gets to its name.

use std::mem;
use std::sync::Arc;

use async_trait::async_trait;
use blake3::Hasher;
use bytes::Bytes;
use opendal::{Buffer, Operator};
use palm_core::id::FragmentId;
use tokio::runtime::Handle;

use super::{CHUNK_BYTES, PART, PARTS, Remote, store_error, sync_dir, to_its_end};
use crate::fragment::{FragmentStat, FragmentWriter, StoreError};

/// Services that take an object in one request only (WebDAV) have it in memory as a whole, up to this: a segment is 64 MiB, and a
/// fragment is no longer than its segment with its seals.
const MAX_WHOLE_BYTES: usize = 96 << 20;

/// The bytes of a fragment whose name is known.
pub(super) enum Content {
    Memory(Buffer),
    /// Stored already, under a name of its own.
    Part(Part),
}

impl Content {
    pub(super) async fn place(self, remote: &Remote, to: &str) -> Result<(), StoreError> {
        match self {
            Self::Memory(bytes) if remote.service.atomic => write(remote, to, bytes).await,
            Self::Memory(bytes) => {
                let part = Part::new(&remote.operator);
                write(remote, &part.path, bytes).await?;
                part.place(remote, to).await
            }
            Self::Part(part) => part.place(remote, to).await,
        }
    }
}

async fn write(remote: &Remote, to: &str, bytes: Buffer) -> Result<(), StoreError> {
    let writing = remote.operator.write_with(to, bytes);
    let writing = if remote.service.chunks { writing.chunk(CHUNK_BYTES) } else { writing };
    writing.await.map(drop).map_err(store_error)
}

/// An object under a temporary name. Dropped before it is placed, it is removed.
pub(super) struct Part {
    operator: Operator,
    path: String,
    writer: Option<opendal::Writer>,
    placed: bool,
}

impl Part {
    fn new(operator: &Operator) -> Self {
        let path = format!("{PARTS}{:016x}{PART}", rand::random::<u64>());
        Self { operator: operator.clone(), path, writer: None, placed: false }
    }

    async fn begin(operator: &Operator) -> Result<Self, StoreError> {
        let mut part = Self::new(operator);
        part.writer = Some(operator.writer_with(&part.path).chunk(CHUNK_BYTES).await.map_err(store_error)?);
        Ok(part)
    }

    async fn append(&mut self, bytes: Vec<Bytes>) -> Result<(), StoreError> {
        let writer = self.writer.as_mut().ok_or_else(cut_short)?;
        writer.write(joined(bytes)).await.map_err(store_error)
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        let mut writer = self.writer.take().ok_or_else(cut_short)?;
        writer.close().await.map(drop).map_err(store_error)
    }

    async fn place(mut self, remote: &Remote, to: &str) -> Result<(), StoreError> {
        if remote.service.atomic {
            // What was copied is left behind; dropping this removes it.
            return remote.operator.copy(&self.path, to).await.map(drop).map_err(store_error);
        }
        remote.operator.rename(&self.path, to).await.map_err(store_error)?;
        self.placed = true;
        if let Some(root) = &remote.service.local
            && let Some((dir, _)) = to.rsplit_once('/')
        {
            sync_dir(root.join(dir)).await?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let (operator, path, writer) = (self.operator.clone(), mem::take(&mut self.path), self.writer.take());
        runtime.spawn(async move {
            if let Some(mut writer) = writer {
                // Where a service cannot give up, the delete does it.
                let _given_up = writer.abort().await;
            }
            if let Err(error) = operator.delete(&path).await {
                tracing::warn!(path, %error, "temporary object stays until the store is opened again");
            }
        });
    }
}

/// The pieces as one: `OpenDAL` would write each by itself, and never ends with an empty one (0.59, in a directory).
fn joined(mut pieces: Vec<Bytes>) -> Buffer {
    match pieces.len() {
        1 => Buffer::from(pieces.remove(0)),
        _ => Buffer::from(pieces.concat()),
    }
}

fn cut_short() -> StoreError {
    StoreError::Io(std::io::Error::other("an earlier write failed"))
}

/// Gathers a fragment: short ones whole, longer ones a request's worth at a time.
pub(super) struct Writer {
    remote: Arc<Remote>,
    hasher: Hasher,
    len: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    part: Destination,
}

enum Destination {
    /// Memory, so far.
    Undecided,
    Part(Part),
    /// A write failed, or was not waited for.
    Failed,
}

impl Writer {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        let (hasher, part) = (Hasher::new(), Destination::Undecided);
        Self { remote, hasher, len: 0, gathered: Vec::new(), gathered_bytes: 0, part }
    }
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.hasher.update(&bytes);
        self.len += bytes.len() as u64;
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes <= CHUNK_BYTES {
            return Ok(());
        }
        if !self.remote.service.chunks {
            let fits = self.gathered_bytes <= MAX_WHOLE_BYTES;
            let refusal = || std::io::Error::other(format!("a fragment of more than {MAX_WHOLE_BYTES} bytes"));
            return if fits { Ok(()) } else { Err(refusal().into()) };
        }
        // Taken out while it is under way: a caller that does not wait for it cannot go on as if it had.
        let mut part = match mem::replace(&mut self.part, Destination::Failed) {
            Destination::Undecided => Part::begin(&self.remote.operator).await?,
            Destination::Part(part) => part,
            Destination::Failed => return Err(cut_short()),
        };
        self.gathered_bytes = 0;
        part.append(mem::take(&mut self.gathered)).await?;
        self.part = Destination::Part(part);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let Self { remote, hasher, len, gathered, part, .. } = *self;
        let stat = FragmentStat { id: FragmentId::from_bytes(*hasher.finalize().as_bytes()), len };
        to_its_end(async move {
            let content = match part {
                Destination::Undecided => Content::Memory(joined(gathered)),
                Destination::Part(mut part) => {
                    part.append(gathered).await?;
                    part.close().await?;
                    Content::Part(part)
                }
                Destination::Failed => return Err(cut_short()),
            };
            remote.place(stat, content).await
        })
        .await
    }
}
