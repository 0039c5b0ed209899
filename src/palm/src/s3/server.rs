//! Connections: limits, timeouts, request ids, one log line a request, and a graceful end.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, SERVER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::host::{DomainError, SingleDomain};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, StdError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::access::{Gate, Keys, Origin};
use super::guard::{self, Draining, Judged, Patient, Promise, XML_MAX_BYTES};
use super::sts::Sts;
use super::{CONSISTENCY, Frontend, error};
use crate::object::{BodyError, MAX_BODY_BYTES, Store};

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4_096;
/// A request's head must be complete within this, counted from the end of the request before: it bounds slow
/// heads and idle connections alike.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// A client that owes a body and sends nothing for this long is cut off.
const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of its answer for this long is cut off. Long, because a pipe behind a download may
/// well pause.
const TAKE_STALL_TIMEOUT: Duration = Duration::from_mins(5);
/// Requests under way get this long to end once shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused a connection (it is out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Request line and headers together: 2 KiB of user metadata, a long presigned URL and room.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// One signed chunk: s3s holds it whole until its signature is verified. SDKs send 64 KiB to 1 MiB.
const SIGNED_CHUNK_MAX_BYTES: usize = 16 << 20;
/// Fields of a POST form together, without the file (AWS allows 20 KB).
const FORM_MAX_BYTES: usize = 64 << 10;
/// Fields of a POST form.
const FORM_MAX_FIELDS: usize = 100;
/// How far a client's clock may be off, and AWS's limit too.
const CLOCK_SKEW_SECONDS: u32 = 15 * 60;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// What the front end is told about itself.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The region clients are told of; any region is accepted in a signature.
    pub region: String,
    /// The domain under which buckets are host names (`bucket.domain`). Path style works always.
    pub domain: Option<String>,
    /// Names this peer in every answer (`x-amz-id-2`): visible ASCII.
    pub host_id: String,
}

/// Why a front end cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configured domain is not one.
    #[error("not a domain: {domain:?}")]
    BadDomain {
        /// What was configured.
        domain: String,
        /// What s3s says of it.
        source: DomainError,
    },
    /// The host id cannot stand in a header.
    #[error("not usable as a host id: {host_id:?}")]
    BadHostId {
        /// What was configured.
        host_id: String,
        /// What is wrong with it.
        source: http::header::InvalidHeaderValue,
    },
}

/// The S3 front end; cheap to clone.
#[derive(Clone)]
pub struct Service {
    s3: S3Service,
    host_id: HeaderValue,
    /// Whether answers come from this peer's own copy.
    is_local: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Called whenever bytes come from or go to a client.
    touch: Arc<dyn Fn() + Send + Sync>,
    /// Where this connection's requests come from; `None` before there is a connection.
    origin: Option<Origin>,
    /// The next request id: a random start and an odd step visit every number once.
    ids: Arc<AtomicU64>,
}

/// 2^64 divided by the golden ratio: neighbouring ids look nothing alike.
const ID_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Makes the front end of a store. It has no form without authentication: s3s without keys would let anybody
/// do anything.
pub fn service(store: Store, options: S3Options) -> Result<Service, ServiceError> {
    let S3Options { region, domain, host_id } = options;
    let mut builder = S3ServiceBuilder::new(Frontend { store: store.clone(), region });
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config()))));
    builder.set_auth(Keys { store: store.clone() });
    builder.set_access(Gate { store: store.clone() });
    builder.set_route(Sts { store: store.clone() });
    if let Some(domain) = domain {
        // Without the fallback, a host name outside the domain is path style rather than a bucket.
        let host = SingleDomain::new(&domain).map_err(|source| ServiceError::BadDomain { domain, source })?;
        builder.set_host(host.with_cname_fallback(false));
    }
    let host_id = HeaderValue::try_from(&host_id).map_err(|source| ServiceError::BadHostId { host_id, source })?;
    let toucher = store.clone();
    Ok(Service::new(builder.build(), host_id, move || store.is_local(), move || toucher.touch()))
}

/// s3s's limits, lowered to what PALM means to hold in memory for one request.
fn config() -> S3Config {
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_MAX_BYTES;
    config.put_object_max_size = Some(MAX_BODY_BYTES);
    config.post_object_max_file_size = MAX_BODY_BYTES;
    config.aws_chunked_stream_max_chunk_size = SIGNED_CHUNK_MAX_BYTES;
    config.form_max_field_size = FORM_MAX_BYTES;
    config.form_max_fields_size = FORM_MAX_BYTES;
    config.form_max_parts = FORM_MAX_FIELDS;
    config.presigned_url_max_skew_time_secs = CLOCK_SKEW_SECONDS;
    config.enable_sig_v2 = false;
    config
}

/// Serves connections until `shutdown`, then lets the requests under way end (for a bounded time) and
/// returns.
pub async fn serve(listener: TcpListener, service: Service, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    refused(&cause).await;
                    continue;
                }
            };
            // Answers are written whole; waiting for more to send only delays them.
            if let Err(cause) = stream.set_nodelay(true) {
                tracing::debug!(%cause, "connection gone before it was served");
                continue;
            }
            let origin = Some(Origin { address: peer.ip(), secure: false });
            let connection = serve_connection(stream, Service { origin, ..service.clone() }, graceful.watcher());
            let cut = cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        let open = CONNECTIONS_MAX - slots.available_permits();
        tracing::warn!(open, "requests still under way are cut");
        cut.cancel();
    }
}

/// A connection the system refused: the client's own doing is passed over, ours is waited out.
async fn refused(cause: &io::Error) {
    if matches!(cause.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%cause, "cannot accept connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves one connection, over TCP or whatever is layered on it.
async fn serve_connection<I>(stream: I, service: Service, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(HEAD_MAX_BYTES);
    let (coming, going) = (Arc::clone(&service.touch), Arc::clone(&service.touch));
    let stream = InspectWriter::new(InspectReader::new(stream, move |_| coming()), move |_| going());
    let stream = TokioIo::new(Draining::new(stream, TAKE_STALL_TIMEOUT));
    let connection = builder.serve_connection(stream, service);
    if let Err(cause) = watcher.watch(connection).await {
        tracing::debug!(%cause, "connection ended early");
    }
}

impl<B> hyper::service::Service<Request<B>> for Service
where
    B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.handle(request).await) })
    }
}

impl Service {
    fn new(
        s3: S3Service,
        host_id: HeaderValue,
        is_local: impl Fn() -> bool + Send + Sync + 'static,
        touch: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            s3,
            host_id,
            is_local: Arc::new(is_local),
            touch: Arc::new(touch),
            origin: None,
            ids: Arc::new(AtomicU64::new(SmallRng::from_os_rng().next_u64())),
        }
    }

    /// Answers one request. Every answer carries the request's id, which every log line of the request has
    /// too.
    async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let started = Instant::now();
        let id = format!("{:016X}", self.ids.fetch_add(ID_STEP, Ordering::Relaxed));
        // The query is left out: it may hold a signature that is still good.
        let resource = request.uri().path().to_owned();
        let span = tracing::info_span!("s3", request_id = id, method = %request.method(), path = resource);
        async {
            let mut response = self.answer(request).await;
            let code = complete_error(&mut response, &resource, &id, &self.host_id);
            let headers = response.headers_mut();
            headers.insert(SERVER, HeaderValue::from_static("PALM"));
            headers.insert(HOST_ID, self.host_id.clone());
            if (self.is_local)() {
                headers.insert(CONSISTENCY, HeaderValue::from_static("local"));
            }
            if let Ok(value) = HeaderValue::try_from(&id) {
                headers.insert(REQUEST_ID, value);
            }
            log(response.status(), code.as_deref(), started.elapsed());
            response
        }
        .instrument(span)
        .await
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let promise = match guard::check_form(&request).and_then(|()| Promise::of(&request)) {
            Ok(promise) => promise,
            Err(told) => return error_response(told),
        };
        let verdict = Arc::new(OnceLock::new());
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let body = Patient::new(body, BODY_STALL_TIMEOUT);
            match promise {
                Some(promise) => Body::http_body_unsync(Judged::new(body, promise, Arc::clone(&verdict))),
                None => Body::http_body(body),
            }
        });
        if let Some(origin) = self.origin {
            request.extensions_mut().insert(origin);
        }
        let answer = self.s3.call(request).await;
        if let Some(&rejection) = verdict.get() {
            return error_response(error::of(BodyError::Refused(rejection).into()));
        }
        match answer {
            Ok(mut response) => {
                // s3s says 206 to GET and forgets it for HEAD.
                if response.status() == StatusCode::OK && response.headers().contains_key(CONTENT_RANGE) {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                response
            }
            Err(cause) => {
                tracing::error!(%cause, "no answer could be written");
                error_response(S3Error::new(S3ErrorCode::InternalError))
            }
        }
    }
}

fn log(status: StatusCode, code: Option<&str>, elapsed: Duration) {
    let (status, elapsed_ms) = (status.as_u16(), elapsed.as_millis());
    if status >= 500 && status != 501 {
        tracing::warn!(status, code, elapsed_ms, "request failed");
    } else {
        tracing::debug!(status, code, elapsed_ms, "request answered");
    }
}

fn error_response(told: S3Error) -> Response<Body> {
    told.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// Adds to an error's XML what s3s leaves out, and returns the error's code for the log.
fn complete_error(
    response: &mut Response<Body>,
    resource: &str,
    request_id: &str,
    host_id: &HeaderValue,
) -> Option<String> {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return None;
    }
    let bytes = response.body().bytes()?;
    let xml = std::str::from_utf8(&bytes).ok()?;
    let head = xml.strip_suffix("</Error>")?;
    let code = head.split_once("<Code>")?.1.split_once("</Code>")?.0.to_owned();
    let resource = escape(resource);
    let host_id = host_id.to_str().map(escape).unwrap_or_default();
    let completed = format!(
        "{head}<Resource>{resource}</Resource><RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
    );
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::from(completed);
    Some(code)
}

/// Text for XML. A path is percent-encoded ASCII already, so the five characters of XML are all there is.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
