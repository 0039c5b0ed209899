//! Bodies between s3s and the object layer: passed on as they come, never copied.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use s3s::dto::StreamingBlob;
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use s3s::stream::{ByteStream as SizedStream, RemainingLength};
use s3s::{BodySizeLimitExceeded, S3Error, S3ErrorCode, S3Result, StdError};

use super::checksum::Declared;
use super::error;
use crate::object::{BodyError, ByteStream, Cipher, Incoming, Rejection};

/// A body on its way in, to be judged by what the client declared. `length` is the decoded length.
pub fn incoming(
    blob: Option<StreamingBlob>,
    length: Option<i64>,
    declared: Declared,
    cipher: Option<Cipher>,
) -> S3Result<Incoming> {
    let length = length.ok_or_else(|| S3Error::new(S3ErrorCode::MissingContentLength))?;
    let length = u64::try_from(length).map_err(|_| error::invalid_argument("Content-Length is negative"))?;
    let stream = match blob {
        Some(blob) => blob.map_err(|cause| classify(&cause)).boxed(),
        None => futures::stream::empty().boxed(),
    };
    Ok(received(stream, length, declared, cipher))
}

/// A body already in the object layer's terms.
pub fn received(stream: ByteStream, length: u64, declared: Declared, cipher: Option<Cipher>) -> Incoming {
    Incoming {
        stream,
        length: Some(length),
        algorithms: declared.algorithm().into_iter().collect(),
        verify: Box::new(|digested| declared.judge(digested)),
        cipher,
    }
}

/// What an error of a request body means. Whatever is not a known refusal is a client that went away.
fn classify(cause: &StdError) -> BodyError {
    if let Some(cause) = cause.downcast_ref::<UploadStreamError>() {
        return match cause {
            UploadStreamError::Sha256Mismatch => BodyError::Refused(Rejection::BadPayloadHash),
            UploadStreamError::Underlying(cause) => classify(cause),
            UploadStreamError::LengthMismatch | UploadStreamError::Incomplete => BodyError::Incomplete,
        };
    }
    if let Some(cause) = cause.downcast_ref::<AwsChunkedStreamError>() {
        return match cause {
            AwsChunkedStreamError::Underlying(cause) => classify(cause),
            AwsChunkedStreamError::SignatureMismatch => BodyError::Refused(Rejection::BadSignature),
            AwsChunkedStreamError::Incomplete | AwsChunkedStreamError::LengthMismatch => BodyError::Incomplete,
            AwsChunkedStreamError::ChunkDataTooLarge(..) => BodyError::Refused(Rejection::TooLarge),
            AwsChunkedStreamError::FormatError
            | AwsChunkedStreamError::ChunkMetaTooLarge(..)
            | AwsChunkedStreamError::TrailersTooLarge(..)
            | AwsChunkedStreamError::TooManyTrailerHeaders(..) => BodyError::Refused(Rejection::Malformed),
        };
    }
    if cause.is::<BodySizeLimitExceeded>() {
        return BodyError::Refused(Rejection::TooLarge);
    }
    tracing::debug!(%cause, "request body ended early");
    BodyError::Incomplete
}

/// A body on its way out. s3s wants it `Sync` and with its length known.
struct Outgoing {
    /// Never locked: a mutex is what makes a `Send` stream `Sync`, and `get_mut` costs nothing.
    stream: Mutex<ByteStream>,
    remaining: u64,
    done: bool,
}

/// A body of exactly `length` bytes on its way out.
pub fn outgoing(stream: ByteStream, length: u64) -> StreamingBlob {
    StreamingBlob::new(Outgoing { stream: Mutex::new(stream), remaining: length, done: false })
}

impl Outgoing {
    /// Ends the body with an error, which makes hyper cut the connection: a client must never take a short
    /// body for a whole one.
    fn fail(&mut self, cause: StdError) -> Poll<Option<Result<Bytes, StdError>>> {
        self.done = true;
        Poll::Ready(Some(Err(cause)))
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        match futures::ready!(self.stream.get_mut().poll_next_unpin(context)) {
            Some(Ok(bytes)) => match self.remaining.checked_sub(bytes.len() as u64) {
                Some(remaining) => {
                    self.remaining = remaining;
                    Poll::Ready(Some(Ok(bytes)))
                }
                None => self.fail("object is longer than its record says".into()),
            },
            Some(Err(cause)) => {
                tracing::warn!(%cause, remaining = self.remaining, "response body cut");
                self.fail(Box::new(cause))
            }
            None if self.remaining > 0 => self.fail("object is shorter than its record says".into()),
            None => {
                self.done = true;
                Poll::Ready(None)
            }
        }
    }
}

impl SizedStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn drain(parts: Vec<Result<Bytes, BodyError>>, length: u64) -> Result<usize, String> {
        let blob = outgoing(stream::iter(parts).boxed(), length);
        let parts: Result<Vec<Bytes>, StdError> = blob.try_collect().await;
        parts.map(|parts| parts.iter().map(Bytes::len).sum()).map_err(|cause| cause.to_string())
    }

    /// Scenario: fragments run out in the middle of an answer. Danger: the body ends as if complete.
    /// Expectation: an error ends it, whichever way it falls short.
    #[tokio::test]
    async fn a_short_or_long_answer_ends_with_an_error() {
        let part = || Ok(Bytes::from_static(b"12345"));
        assert_eq!(drain(vec![part(), part()], 10).await, Ok(10));
        assert!(drain(vec![part()], 10).await.is_err());
        assert!(drain(vec![part(), part(), part()], 10).await.is_err());
        assert!(drain(vec![part(), Err(BodyError::Unavailable("two short".into()))], 10).await.is_err());
    }

    /// Scenario: s3s refuses a body in each of its ways, also from inside another stream. Danger: the client
    /// is told of a cut connection and retries a forged request for ever. Expectation: the refusal survives.
    #[test]
    fn refusals_of_s3s_keep_their_meaning() {
        let table: [(StdError, Option<Rejection>); 8] = [
            (Box::new(UploadStreamError::Sha256Mismatch), Some(Rejection::BadPayloadHash)),
            (Box::new(UploadStreamError::Incomplete), None),
            (Box::new(AwsChunkedStreamError::SignatureMismatch), Some(Rejection::BadSignature)),
            (Box::new(AwsChunkedStreamError::FormatError), Some(Rejection::Malformed)),
            (Box::new(AwsChunkedStreamError::LengthMismatch), None),
            (Box::new(AwsChunkedStreamError::ChunkDataTooLarge(2, 1)), Some(Rejection::TooLarge)),
            (
                Box::new(AwsChunkedStreamError::Underlying(Box::new(BodySizeLimitExceeded { size: 2, limit: 1 }))),
                Some(Rejection::TooLarge),
            ),
            (Box::new(std::io::Error::other("reset")), None),
        ];
        for (cause, expected) in table {
            match (classify(&cause), expected) {
                (BodyError::Refused(got), Some(expected)) => assert_eq!(got, expected, "{cause}"),
                (BodyError::Incomplete, None) => {}
                (got, expected) => panic!("{cause}: {got:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_body_needs_its_length() {
        let code = |length| {
            incoming(None, length, Declared::default(), None).err().map(|told| told.code().as_str().to_owned())
        };
        assert_eq!(code(None).as_deref(), Some("MissingContentLength"));
        assert_eq!(code(Some(-1)).as_deref(), Some("InvalidArgument"));
        assert_eq!(code(Some(0)), None);
    }
}
