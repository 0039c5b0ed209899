//! Bodies on their way in and out, and how an incoming one is cut into stripes.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use palm_core::code::STRIPE_BYTES;
use palm_core::record::{Checksum, ChecksumAlgorithm};

use super::customer::Cipher;
use super::digest::Digested;

/// A body on its way in or out.
pub type ByteStream = BoxStream<'static, Result<Bytes, BodyError>>;

/// The longest body S3 takes in one request: 5 GiB, for objects and parts alike
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>). It also bounds the segments of a record.
pub const MAX_BODY_BYTES: u64 = 5 << 30;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client stopped sending, or sent too little or too much.
    #[error("body incomplete")]
    Incomplete,
    /// The front end refused the body while it streamed (a bad chunk signature, say).
    #[error("body refused: {0}")]
    Refused(Rejection),
    /// On the way out: too few fragments could be read. The connection must be cut, never ended cleanly.
    #[error("body unavailable: {0}")]
    Unavailable(String),
}

/// Why the front end refuses a body; the S3 layer knows the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `Content-MD5` does not match.
    #[error("content md5 does not match")]
    BadDigest,
    /// `x-amz-content-sha256` does not match.
    #[error("payload sha256 does not match")]
    BadPayloadHash,
    /// `x-amz-checksum-*` does not match or is missing where promised.
    #[error("checksum does not match")]
    BadChecksum,
    /// A chunk's signature is wrong.
    #[error("chunk signature does not match")]
    BadSignature,
    /// The chunked framing or a trailer is malformed.
    #[error("malformed chunked body")]
    Malformed,
    /// More bytes than S3 allows.
    #[error("body too large")]
    TooLarge,
}

/// Judges a body once it has ended, before anything of it becomes visible (trailers are readable by
/// then), and says which checksum to store.
pub type Verify = Box<dyn FnOnce(&Digested) -> Result<Option<Checksum>, Rejection> + Send>;

/// A body being uploaded.
pub struct Incoming {
    /// Its bytes.
    pub stream: ByteStream,
    /// Its (decoded) length where the client declared it.
    pub length: Option<u64>,
    /// Checksums to compute beside MD5.
    pub algorithms: Vec<ChecksumAlgorithm>,
    /// Judges it, as it came.
    pub verify: Verify,
    /// Encrypts it with a key of the client's.
    pub cipher: Option<Cipher>,
}

/// Up to [`STRIPE_BYTES`] of a body, in the pieces it came in: hashing reads them where they lie, and sealing
/// copies them once, into the buffer it works in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stripe {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Stripe {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Its pieces.
    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// All its bytes in one buffer with room for `capacity` bytes.
    pub(super) fn gather(&self, capacity: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(capacity.max(self.len));
        for chunk in &self.chunks {
            buffer.extend_from_slice(chunk);
        }
        buffer
    }

    fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.chunks.push(chunk);
    }
}

impl From<Bytes> for Stripe {
    /// A stripe in one piece, of at most [`STRIPE_BYTES`].
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len(), chunks: vec![bytes] }
    }
}

/// Cuts a body into stripes without copying, and checks its length.
pub(super) struct Cutter {
    stream: ByteStream,
    declared: Option<u64>,
    received: u64,
    /// The first bytes of the next stripe. Looking ahead tells the last stripe from the others, so that a
    /// body of one stripe takes the short way.
    ahead: Option<Bytes>,
    ended: bool,
}

impl Cutter {
    pub(super) fn new(stream: ByteStream, declared: Option<u64>) -> Self {
        Self { stream, declared, received: 0, ahead: None, ended: false }
    }

    /// Whether the body has ended, with the right length, after what was given out so far.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next stripe: a full one unless it is the last. Empty at the end.
    pub(super) async fn next(&mut self) -> Result<Stripe, BodyError> {
        let mut stripe = Stripe::default();
        while !self.ended {
            let Some(mut chunk) = self.chunk().await? else {
                self.ended = true;
                break;
            };
            let room = STRIPE_BYTES - stripe.len;
            if chunk.len() > room {
                self.ahead = Some(chunk.split_off(room));
            }
            if !chunk.is_empty() {
                stripe.push(chunk);
            }
            if self.ahead.is_some() {
                break;
            }
        }
        Ok(stripe)
    }

    /// The next bytes; `None` at an end of the right length.
    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let Some(chunk) = self.stream.next().await.transpose()? else {
            return match self.declared {
                Some(declared) if declared != self.received => Err(BodyError::Incomplete),
                _ => Ok(None),
            };
        };
        self.received += chunk.len() as u64;
        if self.received > MAX_BODY_BYTES {
            return Err(BodyError::Refused(Rejection::TooLarge));
        }
        if self.declared.is_some_and(|declared| self.received > declared) {
            return Err(BodyError::Incomplete);
        }
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: Vec<Vec<u8>>) -> ByteStream {
        futures::stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk)))).boxed()
    }

    /// Chunks from the network end anywhere. Stripes must end at 1 MiB all the same, lose nothing, and the
    /// last must be known as the last, or a body of exactly one stripe would take the long way.
    #[tokio::test]
    async fn stripes_are_full_but_the_last_and_nothing_is_lost() {
        let bytes: Vec<u8> = (0..3 * STRIPE_BYTES + 17).map(|at| (at % 251) as u8).collect();
        for (total, step) in [
            (0, 1),
            (5, 2),
            (STRIPE_BYTES, 65_536),
            (STRIPE_BYTES, STRIPE_BYTES),
            (STRIPE_BYTES + 1, 70_001),
            (3 * STRIPE_BYTES, 3 * STRIPE_BYTES),
            (3 * STRIPE_BYTES + 17, 999_983),
        ] {
            let mut chunks: Vec<Vec<u8>> = bytes[..total].chunks(step).map(<[u8]>::to_vec).collect();
            chunks.insert(chunks.len() / 2, Vec::new());
            let mut cutter = Cutter::new(body(chunks), Some(total as u64));
            let mut read = Vec::new();
            while !cutter.ended() {
                let stripe = cutter.next().await.unwrap();
                assert!(stripe.len() == STRIPE_BYTES || cutter.ended(), "a short stripe before the end");
                assert_eq!(cutter.ended(), read.len() + stripe.len() == total, "{total} by {step}");
                read.extend_from_slice(&stripe.gather(0));
            }
            assert_eq!(read, bytes[..total]);
            assert_eq!(cutter.next().await.unwrap().len(), 0);
        }
    }

    /// A client that sends less or more than it declared must not leave an object behind: the cutter
    /// refuses at the end, or at the first byte too much.
    #[tokio::test]
    async fn a_wrong_length_is_refused() {
        for (sent, declared) in [(9, 10), (11, 10), (0, 1), (1, 0)] {
            let mut cutter = Cutter::new(body(vec![vec![1; sent]]), Some(declared));
            assert!(matches!(cutter.next().await, Err(BodyError::Incomplete)), "{sent} of {declared}");
        }
    }
}
