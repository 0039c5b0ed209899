//! Frames on a QUIC stream: a `u32` length, little-endian, and that many bytes. What follows the frames of a
//! fragment stream is handed on as it came, without copies.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use palm_core::wire::{self, MAX_FRAME_BYTES};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use serde::{Deserialize, Serialize};

/// Packets' worth of data taken from the connection at once.
const READ_CHUNKS: usize = 32;
/// Reserved for a frame before its bytes have come: a length alone must not cost memory.
const FRAME_RESERVE_BYTES: usize = 64 << 10;

/// The code with which a stream is reset before its end.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// Stream priority of small messages; fragment bodies have 0.
const URGENT: i32 = 1;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The sender ended the stream before the frame.
    #[error("stream ended")]
    Ended,
    /// The stream or the connection broke.
    #[error("stream broke: {0}")]
    Broke(#[from] ReadError),
    /// The bytes are not a frame, or not the message they should be.
    #[error("{0}")]
    Malformed(String),
}

/// The receiving half of a stream: frames first, then perhaps raw bytes.
pub(super) struct FrameReader {
    stream: RecvStream,
    ready: VecDeque<Bytes>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, ready: VecDeque::new() }
    }

    /// The next frame's body, at most `max_bytes`. Not cancel-safe: give up the stream with it.
    pub(super) async fn frame(&mut self, max_bytes: usize) -> Result<Bytes, FrameError> {
        let len = self.frame_len(max_bytes).await?;
        self.frame_body(len).await
    }

    /// The length of the next frame.
    pub(super) async fn frame_len(&mut self, max_bytes: usize) -> Result<usize, FrameError> {
        if self.ready.is_empty() && !self.fill().await? {
            return Err(FrameError::Ended);
        }
        let header = self.exact(4).await?.ok_or_else(|| FrameError::Malformed("frame header cut short".into()))?;
        let len = header.as_ref().try_into().map_or(u32::MAX, u32::from_le_bytes) as usize;
        if len > max_bytes.min(MAX_FRAME_BYTES) {
            return Err(FrameError::Malformed(format!("frame of {len} bytes, at most {max_bytes} allowed")));
        }
        Ok(len)
    }

    /// The body of the frame whose length was read.
    pub(super) async fn frame_body(&mut self, len: usize) -> Result<Bytes, FrameError> {
        self.exact(len).await?.ok_or_else(|| FrameError::Malformed("frame cut short".into()))
    }

    /// The next frame as a message.
    pub(super) async fn message<T: for<'de> Deserialize<'de>>(&mut self, max_bytes: usize) -> Result<T, FrameError> {
        let body = self.frame(max_bytes).await?;
        decode(&body)
    }

    /// The next raw bytes, `None` at the sender's clean end. Cancel-safe.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.ready.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        Ok(self.ready.pop_front())
    }

    /// Exactly `len` raw bytes; `None` when the stream ends before. Copies only what came in several packets.
    pub(super) async fn exact(&mut self, len: usize) -> Result<Option<Bytes>, ReadError> {
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        if self.ready.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        if let Some(first) = self.ready.front_mut()
            && first.len() > len
        {
            return Ok(Some(first.split_to(len)));
        }
        if self.ready.front().is_some_and(|first| first.len() == len) {
            return Ok(self.ready.pop_front());
        }
        let mut whole = BytesMut::with_capacity(len.min(FRAME_RESERVE_BYTES));
        while whole.len() < len {
            let Some(mut next) = self.chunk().await? else {
                return Ok(None);
            };
            let missing = len - whole.len();
            if next.len() > missing {
                self.ready.push_front(next.split_off(missing));
            }
            whole.extend_from_slice(&next);
        }
        Ok(Some(whole.freeze()))
    }

    /// Takes what has arrived; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        let mut chunks: [Bytes; READ_CHUNKS] = Default::default();
        let Some(count) = self.stream.read_chunks(&mut chunks).await? else {
            return Ok(false);
        };
        self.ready.extend(chunks.into_iter().take(count));
        Ok(true)
    }
}

/// Reads a frame's body as a message.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, FrameError> {
    wire::decode(body).map_err(|error| FrameError::Malformed(error.to_string()))
}

/// A message's frame body, unless it is too long for a frame: then its length.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Bytes, usize> {
    let body = wire::encode(message);
    if body.len() > MAX_FRAME_BYTES { Err(body.len()) } else { Ok(body.into()) }
}

/// The sending half of a stream. Dropped before [`finish`](Self::finish) it resets the stream: quinn alone would
/// end it cleanly, and the reader would take half of something for the whole.
pub(super) struct FrameWriter {
    stream: SendStream,
    finished: bool,
}

impl FrameWriter {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false }
    }

    /// Goes before fragment bytes that wait to be sent over the same connection.
    pub(super) fn urgent(self) -> Self {
        // Fails only on a stream that has ended.
        let _ = self.stream.set_priority(URGENT);
        self
    }

    /// Writes a frame. `body` comes from [`encode`], so its length fits.
    pub(super) async fn frame(&mut self, body: Bytes) -> Result<(), WriteError> {
        let header = (body.len() as u32).to_le_bytes();
        self.stream.write_all_chunks(&mut [Bytes::copy_from_slice(&header), body]).await
    }

    /// Writes raw bytes.
    pub(super) async fn bytes(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(bytes).await
    }

    /// Ends the stream cleanly.
    pub(super) fn finish(&mut self) {
        // Fails only on a stream that has ended.
        let _ = self.stream.finish();
        self.finished = true;
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(ABANDONED);
        }
    }
}
