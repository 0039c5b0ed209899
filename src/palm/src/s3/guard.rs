//! Clients under guard: one that stops sending or taking is cut off, and the XML of a request is what its client
//! says it is.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame, SizeHint};
use palm_core::record::ChecksumAlgorithm;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::checksum::Declared;
use super::error;
use super::hosts::Place;
use crate::object::{Digests, Rejection};

/// Tells when a client has been waited for too long. Time in which nobody waits does not count: that is our own
/// doing.
struct Alarm {
    patience: Duration,
    /// Since when the client has been waited for.
    waiting: Option<Instant>,
    /// Moved when it fires, not with every frame.
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new(patience: Duration) -> Self {
        Self { patience, waiting: None, sleep: Box::pin(tokio::time::sleep(patience)) }
    }

    /// Passes on what came of an attempt; one that has been pending for too long becomes an error.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: Poll<T>,
        what: &'static str,
    ) -> Poll<Result<T, io::Error>> {
        if let Poll::Ready(outcome) = attempt {
            self.waiting = None;
            return Poll::Ready(Ok(outcome));
        }
        let deadline = *self.waiting.get_or_insert_with(Instant::now) + self.patience;
        while self.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// A request's body that fails once its client has sent nothing for a while although it is waited for.
pub struct Patient<B> {
    inner: B,
    alarm: Alarm,
    /// Whether there may be more of it.
    unread: Arc<AtomicBool>,
}

impl<B> Patient<B> {
    /// Waits `patience` for each frame; after the last one `unread` is false.
    pub fn new(inner: B, patience: Duration, unread: Arc<AtomicBool>) -> Self {
        Self { inner, alarm: Alarm::new(patience), unread }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let attempt = Pin::new(&mut self.inner).poll_frame(context);
        match ready!(self.alarm.watch(context, attempt, "client stopped sending")) {
            Ok(frame) => {
                let ended = frame.is_none() || self.inner.is_end_stream();
                self.unread.fetch_and(!ended, Ordering::Relaxed);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Err(overdue) => Poll::Ready(Some(Err(overdue.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection that fails once its client has taken nothing for a while although there is something to send: it
/// would hold an answer's buffers for ever.
pub struct Draining<S> {
    inner: S,
    alarm: Alarm,
}

impl<S> Draining<S> {
    /// Waits `patience` for each write.
    pub fn new(inner: S, patience: Duration) -> Self {
        Self { inner, alarm: Alarm::new(patience) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Draining<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Draining<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write(context, data);
        self.alarm.watch(context, attempt, NOT_TAKING).map(Result::flatten)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(context, data);
        self.alarm.watch(context, attempt, NOT_TAKING).map(Result::flatten)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_flush(context);
        self.alarm.watch(context, attempt, NOT_TAKING).map(Result::flatten)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

const NOT_TAKING: &str = "client stopped taking";

/// Content types of forms start so.
const FORM: &[u8] = b"multipart/";

/// Headers that say how to encrypt what is written.
const ENCRYPTION: [&str; 2] = ["x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"];

/// Whether a request is a browser form.
pub fn is_form<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..FORM.len()));
    request.method() == Method::POST && kind.is_some_and(|kind| kind.eq_ignore_ascii_case(FORM))
}

/// Refuses what s3s would take although it must not: a form without a length, whose fields it would wait for without
/// end; a part that lacks its number or its upload, and a PUT to a version, which would replace the object; and an anonymous request that says how it wants to be answered, with which anybody could make a public object
/// appear to be a page of its host; and a read that asks for an encryption
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>).
pub fn check<B>(request: &Request<B>) -> S3Result<()> {
    if is_form(request) && !request.headers().contains_key(CONTENT_LENGTH) {
        return Err(S3Error::new(S3ErrorCode::MissingContentLength));
    }
    let has =
        |start: &str| request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with(start)));
    if *request.method() == Method::PUT && has("partNumber=") != has("uploadId=") {
        return Err(error::invalid_argument("A part needs both partNumber and uploadId"));
    }
    if *request.method() == Method::PUT && has("versionId=") && !OF_OBJECTS.iter().any(|name| has(name)) {
        return Err(error::invalid_argument("This operation does not accept a version-id."));
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read && ENCRYPTION.iter().any(|name| request.headers().contains_key(*name)) {
        return Err(error::invalid_argument(
            "x-amz-server-side-encryption header is not supported for this operation.",
        ));
    }
    let signed = request.headers().contains_key(AUTHORIZATION) || has("X-Amz-Signature=");
    if is_read && !signed && has("response-") {
        let text = "Request specific response headers cannot be used for anonymous GET requests.";
        return Err(error::invalid_request(text));
    }
    Ok(())
}

/// The most XML one request may carry. The largest, a completion of 10,000 parts with SHA-256 each, is 1.7 MiB.
pub const XML_MAX_BYTES: usize = 2 << 20;

/// Settings of an object. Everything else that is PUT there is the object itself, whereas all that is PUT to a bucket are settings.
const OF_OBJECTS: [&str; 4] = ["acl", "tagging", "retention", "legal-hold"];

/// What a client declares about the XML (or JSON) of a POST request or of a setting. s3s reads such a body whole before any
/// operation sees it, checks its SHA-256 but answers 500 when that fails, and checks nothing else; so it is judged here,
/// on its way to s3s.
pub struct Promise {
    length: u64,
    sha256: Option<[u8; 32]>,
    declared: Declared,
}

impl Promise {
    /// Reads the headers; `None` for a request whose body is not judged here.
    pub fn of<B>(request: &Request<B>, place: &Place) -> S3Result<Option<Self>> {
        let query = request.uri().query().unwrap_or_default();
        let asks =
            |names: &[&str]| query.split('&').any(|pair| names.contains(&pair.split('=').next().unwrap_or(pair)));
        let is_setting =
            request.method() == Method::PUT && (asks(&OF_OBJECTS) || !place.names_object(request.uri().path()));
        let headers = request.headers();
        let length = text(headers, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let hash = text(headers, "x-amz-content-sha256").unwrap_or_default();
        // A chunked body is verified by its chunk signatures, and its length is not the XML's.
        let is_judged = request.method() == Method::POST || is_setting;
        if !is_judged || length == 0 || is_form(request) || hash.starts_with("STREAMING-") {
            return Ok(None);
        }
        if length > XML_MAX_BYTES as u64 {
            return Err(S3Error::new(S3ErrorCode::MaxMessageLengthExceeded));
        }
        let decoded = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok();
        let sha256 = decoded.and_then(|hash| hash.try_into().ok());
        // In CompleteMultipartUpload checksum headers speak of the object.
        let of_body = is_setting || asks(&["delete"]);
        let declared = if of_body { Declared::read(headers, None)? } else { Declared::read_md5(headers)? };
        Ok(Some(Self { length, sha256, declared }))
    }

    fn digests(&self) -> Digests {
        let of_signature = self.sha256.map(|_| ChecksumAlgorithm::Sha256);
        let wanted: Vec<_> = of_signature.into_iter().chain(self.declared.algorithm()).collect();
        Digests::new(&wanted)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A body that is judged as it ends, and fails where its promise is broken.
pub struct Judged<B> {
    inner: B,
    remaining: u64,
    work: Option<(Digests, Promise)>,
    verdict: Arc<OnceLock<Rejection>>,
}

impl<B> Judged<B> {
    /// Judges `inner`; a broken promise is told through `verdict` too, as s3s forgets why a body failed.
    pub fn new(inner: B, promise: Promise, verdict: Arc<OnceLock<Rejection>>) -> Self {
        let work = Some((promise.digests(), promise));
        let remaining = work.as_ref().map_or(0, |(_, promise)| promise.length);
        Self { inner, remaining, work, verdict }
    }

    fn take_in(&mut self, data: &[u8]) -> Result<(), Rejection> {
        let Some((digests, _)) = &mut self.work else { return Ok(()) };
        digests.update(data);
        self.remaining = self.remaining.saturating_sub(data.len() as u64);
        if self.remaining > 0 {
            return Ok(());
        }
        match self.work.take() {
            Some((digests, promise)) => judge(digests, promise),
            None => Ok(()),
        }
    }
}

fn judge(digests: Digests, promise: Promise) -> Result<(), Rejection> {
    let Promise { sha256, declared, .. } = promise;
    let digested = digests.finish();
    if sha256.is_some_and(|sha256| digested.value(ChecksumAlgorithm::Sha256) != Some(&sha256)) {
        return Err(Rejection::BadPayloadHash);
    }
    declared.judge(&digested).map(drop)
}

impl<B> Body for Judged<B>
where
    B: Body<Data = Bytes, Error = StdError> + Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        if let Some(data) = frame.data_ref()
            && let Err(rejection) = self.take_in(data)
        {
            // Set once: the work is gone after its first verdict.
            let _ = self.verdict.set(rejection);
            return Poll::Ready(Some(Err(rejection.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use data_encoding::BASE64;
    use http_body_util::{BodyExt, Full, StreamBody};
    use s3s::crypto::{Checksum as _, Crc32, Md5, Sha256};

    use super::*;

    const XML: &[u8] = b"<Delete/>";

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(Method::POST).uri(uri).header(CONTENT_LENGTH, XML.len());
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("request")
    }

    async fn outcome(uri: &str, headers: &[(&str, &str)]) -> Option<Rejection> {
        let promise = Promise::of(&request(uri, headers), &Place::Path).expect("well-formed").expect("judged");
        let verdict = Arc::new(OnceLock::new());
        let inner = Full::new(Bytes::from_static(XML)).map_err(|never: Infallible| match never {});
        let read = Judged::new(inner, promise, Arc::clone(&verdict)).collect().await;
        assert_eq!(read.is_err(), verdict.get().is_some(), "a body fails exactly when its promise is broken");
        verdict.get().copied()
    }

    fn hash() -> String {
        data_encoding::HEXLOWER.encode(&Sha256::checksum(XML))
    }

    fn base64(bytes: &[u8]) -> String {
        BASE64.encode(bytes)
    }

    /// Scenario: the list of keys to delete is damaged on its way. Danger: other keys are deleted, or the client is
    /// told of our fault and repeats. Expectation: each declaration is checked and each breach named.
    #[tokio::test]
    async fn the_xml_of_a_delete_is_judged_by_all_that_is_declared() {
        let (hash, md5, crc) = (hash(), base64(&Md5::checksum(XML)), base64(&Crc32::checksum(XML)));
        let good = [("x-amz-content-sha256", hash.as_str()), ("content-md5", &md5), ("x-amz-checksum-crc32", &crc)];
        assert_eq!(outcome("/b?delete", &good).await, None);
        assert_eq!(outcome("/b?delete", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]).await, None);
        let zeros = "0".repeat(64);
        let wrong = [("x-amz-content-sha256", zeros.as_str())];
        assert_eq!(outcome("/b?delete", &wrong).await, Some(Rejection::BadPayloadHash));
        let wrong = [("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")];
        assert_eq!(outcome("/b?delete=", &wrong).await, Some(Rejection::BadDigest));
        let wrong = [("x-amz-checksum-crc32", "AAAAAA==")];
        assert_eq!(outcome("/b?x=1&delete", &wrong).await, Some(Rejection::BadChecksum));
        assert_eq!(outcome("/b/k?uploadId=1", &wrong).await, None, "there it speaks of the object");
    }

    #[test]
    fn only_xml_is_judged_and_only_forms_need_a_length() {
        let judged = |request: &Request<()>| Promise::of(request, &Place::Path).expect("well-formed").is_some();
        assert!(judged(&request("/b?delete", &[])));
        assert!(!judged(&request("/b", &[("content-type", "Multipart/form-data; boundary=x")])));
        let streaming = [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")];
        assert!(!judged(&request("/b?delete", &streaming)));
        let put = Request::builder().method(Method::PUT).uri("/b/k").body(()).expect("request");
        assert!(!judged(&put) && check(&put).is_ok());
        let versioned =
            |uri| check(&Request::builder().method(Method::PUT).uri(uri).body(()).expect("request")).is_ok();
        assert!(versioned("/b/k?acl&versionId=1") && !versioned("/b/k?versionId=1"), "a version cannot be put over");
        for (uri, is_setting) in [
            ("/b", true),
            ("/b/", true),
            ("/b?policy", true),
            ("/b/k?acl", true),
            ("/b/k?aclx", false),
            ("/b/k?partNumber=1", false),
        ] {
            let put =
                Request::builder().method(Method::PUT).uri(uri).header(CONTENT_LENGTH, 9).body(()).expect("request");
            assert_eq!(judged(&put), is_setting, "{uri}");
        }
        let form = Request::builder().method(Method::POST).uri("/b").header("content-type", "multipart/form-data");
        let told = check(&form.body(()).expect("request")).expect_err("no length");
        assert_eq!(told.code().as_str(), "MissingContentLength");
    }

    /// Scenario: a client sends a little and then nothing. Danger: its connection, and the fragments begun for
    /// it, are held for ever. Expectation: an error, and not before the client has been waited for.
    #[tokio::test]
    async fn a_silent_client_is_cut_off() {
        let patience = Duration::from_millis(20);
        let first = futures::stream::iter([Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x")))]);
        let inner = StreamBody::new(futures::StreamExt::chain(first, futures::stream::pending()));
        let mut body = Patient::new(inner, patience, Arc::default());
        assert!(body.frame().await.expect("a frame").is_ok());
        tokio::time::sleep(patience * 2).await;
        let asked = Instant::now();
        let cause = body.frame().await.expect("an end").expect_err("an error");
        assert_eq!(cause.to_string(), "client stopped sending");
        assert!(asked.elapsed() >= patience, "time in which nobody asked does not count");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        use tokio::io::AsyncWriteExt;
        let (ours, theirs) = tokio::io::duplex(4);
        let mut connection = Draining::new(ours, Duration::from_millis(20));
        let cause = connection.write_all(b"more than four bytes").await.expect_err("nobody reads");
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }
}
