//! Reading an object's bytes: the stripes of the range, from the quickest k homes, each checked as it opens.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use palm_core::code::{Coder, SegmentSecret, Shape};
use palm_core::id::BodyId;
use palm_core::place::Policy;
use palm_core::record::{Content, PartRecord, PartRef, Segment, Stored, key};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use super::budget::STREAM_BYTES;
use super::fetch::{Distrusted, Fetcher, STRIPE_DEADLINE};
use super::store::DataKey;
use super::{BodyError, ByteStream, Cipher, Object, ObjectError, Store, recover};
use crate::blocking::spawn_blocking;

/// The first stripe is there by then, or the answer is 503: a client hears within five seconds that too few
/// fragments are in reach.
const FIRST_STRIPE_DEADLINE: Duration = Duration::from_secs(4);
/// Opened stripes waiting for the client.
const READY_STRIPES: usize = 1;
/// Stripes up to this are opened where they are: moving to the blocking pool would cost more.
pub(super) const INLINE_BYTES: usize = 64 << 10;

impl Store {
    /// The bytes of a range of an object. The first stripe has been opened when this answers `Ok`, so that too
    /// few fragments is an error and not a broken body.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<ByteStream, ObjectError> {
        self.read_with(object, range, None).await
    }

    /// The same of an object that is encrypted with a key of the client's.
    pub async fn read_with(
        &self,
        object: &Object,
        range: Range<u64>,
        cipher: Option<Cipher>,
    ) -> Result<ByteStream, ObjectError> {
        let record = &object.record;
        if record.customer_key.as_ref() != cipher.as_ref().map(Cipher::record) {
            return Err(ObjectError::Internal("an object is read with another key than its own".to_owned()));
        }
        if range.start > range.end || range.end > record.size {
            return Err(ObjectError::BadRange);
        }
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let data_key = self.data_key(record.data_key).await?;
        let pieces = Pieces::new(record.body, record.content.clone());
        let mut reader = BodyReader { store: self.clone(), data_key, cipher, pieces, range, open: None };

        let late = |_| ObjectError::Unavailable("the first stripe's fragments do not come".to_owned());
        let fetched = timeout(FIRST_STRIPE_DEADLINE, reader.fetch()).await.map_err(late)??;
        let small = reader.range.is_empty();
        let (coder, first) = open(self.clone(), None, fetched).await?;
        if small {
            return Ok(stream::once(async { Ok(first) }).boxed());
        }

        let share = self.budget.take(STREAM_BYTES).await?;
        let (ready, stripes) = mpsc::channel(READY_STRIPES);
        let rest = async move {
            if let Err(error) = read_on(reader, coder, &ready).await {
                // The client may be gone, and then nobody needs to know.
                let _ = ready.send(Err(BodyError::Unavailable(error.to_string()))).await;
            }
            drop(share);
        };
        tokio::spawn(rest.in_current_span());
        Ok(stream::once(async { Ok(first) }).chain(ReceiverStream::new(stripes)).boxed())
    }
}

/// Reads the rest of a body, fetching each stripe while the one before it is opened. Ends early when the
/// client has gone.
async fn read_on(
    mut reader: BodyReader,
    coder: Coder,
    ready: &mpsc::Sender<Result<Bytes, BodyError>>,
) -> Result<(), ObjectError> {
    let mut coder = Some(coder);
    let mut fetched = Some(reader.fetch_in_time().await?);
    while let Some(stripe) = fetched.take() {
        let opening = open(reader.store.clone(), coder.take(), stripe);
        let opened = if reader.range.is_empty() {
            opening.await
        } else {
            let (opened, next) = tokio::join!(opening, reader.fetch_in_time());
            fetched = Some(next?);
            opened
        };
        let (used, bytes) = opened?;
        coder = Some(used);
        if ready.send(Ok(bytes)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A stripe's shards, and what it takes to open it.
struct Fetched {
    segment: Arc<Segment>,
    shape: Shape,
    secret: Arc<SegmentSecret>,
    stripe: u32,
    shards: Vec<(u8, Bytes)>,
    /// The bytes of the stripe that are wanted.
    wanted: Range<usize>,
    /// Decrypts them, and where they begin in the segment.
    cipher: Option<(Cipher, u64)>,
    distrusted: Distrusted,
}

/// Opens a stripe; with other shards where these do not open it.
async fn open(store: Store, coder: Option<Coder>, fetched: Fetched) -> Result<(Coder, Bytes), ObjectError> {
    let Fetched { segment, shape, secret, stripe, shards, wanted, cipher, distrusted } = fetched;
    let mut coder = match coder {
        Some(coder) if coder.policy() == shape.policy() => coder,
        _ => Coder::new(shape.policy())?,
    };
    let len = shape.stripe_len(stripe);
    let (coder, shards, opened) = if len <= INLINE_BYTES {
        let opened = coder.open(&secret, stripe, len, &shards);
        (coder, shards, opened)
    } else {
        let secret = secret.clone();
        let opening = spawn_blocking(move || {
            let opened = coder.open(&secret, stripe, len, &shards);
            (coder, shards, opened)
        });
        opening.await?
    };
    let bytes = match opened {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(segment = %segment.id, stripe, %error, "stripe does not open; trying other fragments");
            let recovered = recover::recover(&store, &segment, shape, stripe, shards, secret).await?;
            distrusted.lock().extend(recovered.corrupt);
            recovered.bytes
        }
    };
    let bytes = bytes.slice(wanted);
    let Some((cipher, at)) = cipher else { return Ok((coder, bytes)) };
    let decrypt = move || {
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        cipher.apply(segment.id, at, &mut bytes)?;
        Ok(bytes.freeze())
    };
    let decrypted: Result<Bytes, ObjectError> =
        if len <= INLINE_BYTES { decrypt() } else { spawn_blocking(decrypt).await? };
    Ok((coder, decrypted?))
}

/// Walks the stripes of a range of a body.
struct BodyReader {
    store: Store,
    data_key: Arc<DataKey>,
    cipher: Option<Cipher>,
    pieces: Pieces,
    /// What is still to be fetched, in bytes of the body.
    range: Range<u64>,
    open: Option<OpenSegment>,
}

/// The segment being read.
struct OpenSegment {
    /// Where it lies in the body.
    range: Range<u64>,
    /// As its record has it.
    recorded: Segment,
    /// As it is.
    segment: Arc<Segment>,
    shape: Shape,
    secret: Arc<SegmentSecret>,
    fetcher: Fetcher,
}

impl BodyReader {
    async fn fetch_in_time(&mut self) -> Result<Fetched, ObjectError> {
        let late = |_| ObjectError::Unavailable("a stripe's fragments do not come".to_owned());
        timeout(STRIPE_DEADLINE, self.fetch()).await.map_err(late)?
    }

    /// Fetches the next stripe of the range, which is not empty.
    async fn fetch(&mut self) -> Result<Fetched, ObjectError> {
        let at = self.range.start;
        let mut open = match self.open.take() {
            Some(open) if open.range.contains(&at) => open,
            _ => self.open_segment().await?,
        };
        let within = at - open.range.start;
        let stripe = open.shape.stripes_of(within..within + 1).start;
        let shards = match open.fetcher.fetch(stripe).await {
            Err(error) => match self.elsewhere(&open).await? {
                // Repair has moved fragments since, and this peer had not heard of it.
                Some(moved) => {
                    open = moved;
                    open.fetcher.fetch(open.shape.stripes_of(within..within + 1).start).await?
                }
                None => return Err(error),
            },
            fetched => fetched?,
        };

        let lies = open.shape.stripe_range(stripe);
        let end = lies.end.min(self.range.end - open.range.start);
        self.range.start = open.range.start + end;
        let fetched = Fetched {
            segment: open.segment.clone(),
            shape: open.shape,
            secret: open.secret.clone(),
            stripe,
            shards,
            wanted: (within - lies.start) as usize..(end - lies.start) as usize,
            cipher: self.cipher.clone().map(|cipher| (cipher, within)),
            distrusted: open.fetcher.distrusted(),
        };
        self.open = Some(open);
        Ok(fetched)
    }

    async fn open_segment(&mut self) -> Result<OpenSegment, ObjectError> {
        let (start, recorded) = self.pieces.locate(&self.store, self.range.start).await?;
        let placed = self.store.placed(&recorded);
        self.open_at(start, recorded, placed)
    }

    /// The segment anew, if it is somewhere else than where it was looked for.
    async fn elsewhere(&self, open: &OpenSegment) -> Result<Option<OpenSegment>, ObjectError> {
        let placed = self.store.placed_now(&open.recorded).await?;
        if placed == *open.segment {
            return Ok(None);
        }
        self.open_at(open.range.start, open.recorded.clone(), placed).map(Some)
    }

    fn open_at(&self, start: u64, recorded: Segment, segment: Segment) -> Result<OpenSegment, ObjectError> {
        let shape = Shape::new(Policy { k: segment.k, n: segment.n }, segment.len)?;
        let end = (self.range.end - start).min(segment.len);
        let stripes = shape.stripes_of(self.range.start - start..end);
        let secret = Arc::new(self.data_key.secret(segment.id));
        let range = start..start + segment.len;
        let segment = Arc::new(segment);
        let fetcher = Fetcher::new(&self.store, segment.clone(), shape, stripes);
        Ok(OpenSegment { range, recorded, segment, shape, secret, fetcher })
    }
}

/// A body's segments, those of multipart objects read part by part as they are needed.
struct Pieces {
    body: BodyId,
    content: Content,
    /// The segments of the part read last, and where it lies in the body.
    part: Option<(Range<u64>, Vec<Segment>)>,
}

impl Pieces {
    fn new(body: BodyId, content: Content) -> Self {
        Self { body, content, part: None }
    }

    /// The segment that holds byte `at` of the body, and where it starts.
    async fn locate(&mut self, store: &Store, at: u64) -> Result<(u64, Segment), ObjectError> {
        let parts = match &self.content {
            Content::Segments(segments) => return segment_at(segments, 0, at),
            Content::Parts(parts) => parts,
        };
        if let Some((range, segments)) = &self.part
            && range.contains(&at)
        {
            return segment_at(segments, range.start, at);
        }
        let (index, start) = find(parts, |part| part.size, at).ok_or_else(beyond)?;
        let part = &parts[index];
        let record = load_part(store, self.body, part).await?;
        let (_, segments) = self.part.insert((start..start + part.size, record.segments));
        segment_at(segments, start, at)
    }
}

/// A part's record. Its register is written once, so this peer's copy is the right one; a full member has
/// nearly always heard of it, so asking the voters is the exception and not worth doing ahead of time. A part that is gone
/// has been collected, since its object was replaced or deleted under a reader that takes longer than the grace.
pub(super) async fn load_part(store: &Store, body: BodyId, part: &PartRef) -> Result<PartRecord, ObjectError> {
    let register = key::part(body, part.number, part.attempt);
    let current = match store.ledger.peek(&register) {
        Some(current) => Some(current),
        None => store.ledger.read(&register).await?,
    };
    let current = current.ok_or_else(|| store.gone(&format!("part {} of body {body}", part.number)))?;
    Ok(PartRecord::decode(&current.value)?)
}

fn segment_at(segments: &[Segment], start: u64, at: u64) -> Result<(u64, Segment), ObjectError> {
    let (index, offset) = find(segments, |segment| segment.len, at - start).ok_or_else(beyond)?;
    Ok((start + offset, segments[index].clone()))
}

fn beyond() -> ObjectError {
    ObjectError::Internal("the record's pieces are shorter than its size".to_owned())
}

/// Which of some consecutive pieces holds byte `at`, and where it starts.
fn find<T>(pieces: &[T], len: impl Fn(&T) -> u64, at: u64) -> Option<(usize, u64)> {
    let mut start: u64 = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let end = start.checked_add(len(piece))?;
        if at < end {
            return Some((index, start));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ranged GET of a multipart object starts in the middle of some part. Off by one here is one wrong byte
    /// in a client's file, so every edge is asked: first and last byte of each piece, empty pieces, beyond the end.
    #[test]
    fn every_byte_is_found_in_its_piece() {
        let pieces = [5_u64, 0, 1, 10];
        let at = |at| find(&pieces, |&len| len, at);
        assert_eq!(at(0), Some((0, 0)));
        assert_eq!(at(4), Some((0, 0)));
        assert_eq!(at(5), Some((2, 5)));
        assert_eq!(at(6), Some((3, 6)));
        assert_eq!(at(15), Some((3, 6)));
        assert_eq!(at(16), None);
        assert_eq!(find(&[u64::MAX, 1], |&len| len, u64::MAX), None, "lengths from a bad record");
    }
}
