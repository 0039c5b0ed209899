//! The way of a request: what its host says, what s3s cannot do (preflights, websites, forms), s3s, and what every answer
//! carries: a request id, one log line, CORS headers. `listen` takes the connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, EXPECT, HOST, HeaderName, SERVER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use palm_core::record::BucketConfig;
use palm_core::s3::name::check_bucket;
use prometheus::core::Collector;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use s3s::auth::S3Auth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, StdError};
use time::OffsetDateTime;
use tracing::Instrument;

use super::access::{Gate, Keys};
use super::access_log::Noted;
use super::audit::Act;
use super::cors::{self, Crossing};
use super::guard::{self, Judged, Patient, Promise, XML_MAX_BYTES};
use super::hosts::{BadDomain, Hosts, Place};
use super::measure::{Asking, Measures};
use super::notification::RequestId;
use super::sts::Sts;
use super::{
    CONSISTENCY, Frontend, error, form, list_versions, mechanism, metadata, senseless, subresource, website, words,
};
use crate::config::CustomDomains;
use crate::object::{BodyError, MAX_BODY_BYTES, ObjectError, Store};

mod inside;
mod listen;
mod tls;

pub use inside::Link;
pub use listen::serve;
pub use tls::{Tls, TlsError};

/// A client that owes a body and sends nothing for this long is cut off.
const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One signed chunk: s3s holds it whole until its signature is verified. SDKs send 64 KiB to 1 MiB.
const SIGNED_CHUNK_MAX_BYTES: usize = 16 << 20;
/// How far a client's clock may be off, and AWS's limit too.
const CLOCK_SKEW_SECONDS: u32 = 15 * 60;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// What the front end is told about itself.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The region clients are told of; any region is accepted in a signature.
    pub region: String,
    /// The domains under which buckets are host names (`bucket.domain`). Path style works always.
    pub domains: Vec<String>,
    /// The domains under which buckets' websites are host names.
    pub website_domains: Vec<String>,
    /// What other host names mean.
    pub custom_domains: CustomDomains,
    /// Names this peer in every answer (`x-amz-id-2`): visible ASCII.
    pub host_id: String,
}

/// Why a front end cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A configured domain is not one.
    #[error(transparent)]
    BadDomain(#[from] BadDomain),
    /// The host id cannot stand in a header.
    #[error("not usable as a host id: {host_id:?}")]
    BadHostId {
        /// What was configured.
        host_id: String,
        /// What is wrong with it.
        source: http::header::InvalidHeaderValue,
    },
    /// The metrics cannot be made.
    #[error(transparent)]
    Measures(#[from] prometheus::Error),
}

/// How a request came; each has it among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The version of TLS; `None` for plain HTTP.
    pub tls: Option<rustls::ProtocolVersion>,
}

/// Where the settings of buckets are found, for what is decided outside s3s.
#[async_trait::async_trait]
pub(super) trait Buckets: Send + Sync {
    /// The settings of a bucket.
    async fn settings(&self, bucket: &str) -> Result<BucketConfig, ObjectError>;
}

#[async_trait::async_trait]
impl Buckets for Store {
    async fn settings(&self, bucket: &str) -> Result<BucketConfig, ObjectError> {
        Ok(self.bucket(bucket).await?.config)
    }
}

/// The S3 front end; cheap to clone.
#[derive(Clone)]
pub struct Service {
    s3: S3Service,
    hosts: Arc<Hosts>,
    buckets: Arc<dyn Buckets>,
    keys: Arc<dyn S3Auth>,
    host_id: HeaderValue,
    /// Whether answers come from this peer's own copy.
    is_local: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Called whenever bytes come from or go to a client.
    touch: Arc<dyn Fn() + Send + Sync>,
    /// The next request id: a random start and an odd step visit every number once.
    ids: Arc<AtomicU64>,
    /// Takes lines of access logs; `None` where nothing is stored.
    log: Option<Store>,
    measures: Measures,
}

/// 2^64 divided by the golden ratio: neighbouring ids look nothing alike.
const ID_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Makes the front end of a store. It has no form without authentication: s3s without keys would let anybody
/// do anything.
pub fn service(store: Store, options: S3Options) -> Result<Service, ServiceError> {
    let S3Options { region, domains, website_domains, custom_domains, host_id } = options;
    let hosts = Hosts::new(&domains, &website_domains, custom_domains)?;
    let mut builder = S3ServiceBuilder::new(Frontend { store: store.clone(), region });
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config()))));
    builder.set_auth(Keys { store: store.clone() });
    builder.set_access(Gate { store: store.clone() });
    builder.set_route(Sts { store: store.clone() });
    builder.set_host(hosts.clone());
    let host_id = HeaderValue::try_from(&host_id).map_err(|source| ServiceError::BadHostId { host_id, source })?;
    let (local, toucher, log) = (store.clone(), store.clone(), Some(store.clone()));
    Ok(Service {
        s3: builder.build(),
        hosts: Arc::new(hosts),
        buckets: Arc::new(store.clone()),
        keys: Arc::new(Keys { store }),
        host_id,
        is_local: Arc::new(move || local.is_local()),
        touch: Arc::new(move || toucher.touch()),
        ids: first_id(),
        log,
        measures: Measures::new()?,
    })
}

/// Where request ids begin.
fn first_id() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(SmallRng::from_os_rng().next_u64()))
}

/// s3s's limits, lowered to what PALM means to hold in memory for one request.
fn config() -> S3Config {
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_MAX_BYTES;
    config.put_object_max_size = Some(MAX_BODY_BYTES);
    config.aws_chunked_stream_max_chunk_size = SIGNED_CHUNK_MAX_BYTES;
    config.presigned_url_max_skew_time_secs = CLOCK_SKEW_SECONDS;
    config.enable_sig_v2 = false;
    config
}

impl Service {
    /// What is measured of requests, for who shows it, and of the certificate shown to clients, if there is one.
    pub fn collectors(&self, tls: Option<&Tls>) -> Vec<Box<dyn Collector>> {
        let mut all = self.measures.collectors();
        all.extend(tls.map(Tls::collector));
        all
    }

    /// Answers one request. Every answer carries the request's id, which every log line of the request has
    /// too.
    async fn handle<B>(&self, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let started = Instant::now();
        let id = format!("{:016X}", self.ids.fetch_add(ID_STEP, Ordering::Relaxed));
        // The query is left out: it may hold a signature that is still good.
        let resource = request.uri().path().to_owned();
        request.extensions_mut().insert(RequestId(id.clone()));
        let noted = self.note(&mut request);
        let act = Act::of(&request);
        let trace_id = trace_id(request.headers());
        let span = tracing::info_span!("s3", request_id = id, method = %request.method(), path = resource, trace_id);
        async {
            let mut response = self.answer(request, &id).await;
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
            if let Some(act) = act {
                act.answered(&id, response.status(), code.as_deref());
            }
            if let (Some(noted), Some(store)) = (noted, &self.log) {
                let ids = (id.as_str(), self.host_id.to_str().unwrap_or_default());
                noted.answered(store, &response, ids, code.as_deref(), started.elapsed());
            }
            response
        }
        .instrument(span)
        .await
    }

    /// Notes a request to a bucket that has an access log.
    fn note<B>(&self, request: &mut Request<B>) -> Option<Noted> {
        let store = self.log.as_ref()?;
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let path = request.uri().path().to_owned();
        let (bucket, path) = match self.hosts.place(host) {
            Place::Path => (bucket_of(&path)?, path.split('/').skip(2).collect::<Vec<_>>().join("/")),
            Place::Bucket(bucket) | Place::Website(Some(bucket)) => (bucket, path),
            Place::Website(None) => return None,
        };
        let connection = request.extensions().get::<Connection>().copied();
        let tls = connection.and_then(|connection| connection.tls).and_then(|version| match version {
            rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        });
        let address = connection.map(|connection| connection.peer.ip().to_string());
        Noted::of(store, request, (&bucket, &path), address, tls)
    }

    /// Answers by where the request is addressed to, and tells browsers of other origins whether they may look.
    async fn answer<B>(&self, request: Request<B>, id: &str) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let place = self.hosts.place(host);
        let bucket = match &place {
            Place::Path => bucket_of(request.uri().path()),
            Place::Bucket(bucket) => Some(bucket.clone()),
            Place::Website(bucket) => bucket.clone(),
        };
        // What cannot be a bucket's name is looked up nowhere.
        let bucket = bucket.filter(|bucket| check_bucket(bucket).is_ok());
        if request.method() == Method::OPTIONS {
            let answer = cors::preflight(self.buckets.as_ref(), bucket.as_deref(), request.headers()).await;
            return answer.unwrap_or_else(error_response);
        }
        let crossing = Crossing::of(request.method(), request.headers());
        let mut response = match place {
            Place::Website(_) => {
                if let Some(asking) = request.extensions().get::<Asking>() {
                    asking.is_website();
                }
                website::visit::visit(self, bucket.as_deref(), request.into_parts().0, id).await
            }
            Place::Path | Place::Bucket(_) => self.operate(request, &place, bucket.as_deref()).await,
        };
        if let (Some(crossing), Some(bucket)) = (crossing, bucket) {
            cors::add(response.headers_mut(), crossing.headers(self.buckets.as_ref(), &bucket).await);
        }
        response
    }

    /// Answers a request for one of S3's operations. Where its body was not read to the end the connection ends, which the
    /// answer says: a client that took it for the next request would find it closed under its hands. So it does where a body of
    /// no bytes was announced with `Expect: 100-continue`: the answer comes without the 100, and the botocore that aws-cli 1 carries
    /// takes its status line for that of the next request on the same connection, whose own it then takes for a broken header.
    async fn operate<B>(&self, request: Request<B>, place: &Place, bucket: Option<&str>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let unread = Arc::new(AtomicBool::new(!request.body().is_end_stream()));
        let hasty = request.body().is_end_stream() && request.headers().contains_key(EXPECT);
        let request = request.map(|body| Patient::new(body, BODY_STALL_TIMEOUT, Arc::clone(&unread)));
        let mut answer = self.perform(request, place, bucket).await;
        if hasty || unread.load(Ordering::Relaxed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn perform<B>(&self, mut request: Request<Patient<B>>, place: &Place, bucket: Option<&str>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        metadata::combine(request.headers_mut());
        let checked = mechanism::check(request.headers(), OffsetDateTime::now_utc())
            .and_then(|()| mechanism::check_query(request.uri().query().unwrap_or_default()))
            .and_then(|()| guard::check(&request))
            .and_then(|()| subresource::check(&request, place));
        let promise = match checked.and_then(|()| Promise::of(&request, place)) {
            Ok(promise) => promise,
            Err(told) => return error_response(told),
        };
        let verdict = Arc::new(OnceLock::new());
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            match promise {
                Some(promise) => Body::http_body_unsync(Judged::new(body, promise, Arc::clone(&verdict))),
                None => Body::http_body(body),
            }
        });
        let is_select = request.method() == Method::POST
            && request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("select-type=")));
        let answer = match form::target(&request, place, bucket) {
            None => self.take(request).await,
            Some(target) => match target {
                Ok(bucket) => form::receive(self, &bucket, request).await.unwrap_or_else(error_response),
                Err(told) => error_response(told),
            },
        };
        // Refused for what it asks, and not for the form in which it asks.
        let answer = if is_select && answer.status() == StatusCode::BAD_REQUEST {
            error_response(error::not_implemented("SELECT is not implemented"))
        } else {
            answer
        };
        match verdict.get() {
            Some(&rejection) => error_response(error::of(BodyError::Refused(rejection).into())),
            None => answer,
        }
    }

    /// Hands a request to s3s, less what makes no sense of it.
    pub(super) async fn take(&self, request: Request<Body>) -> Response<Body> {
        match senseless::find(&request) {
            None => self.dispatch(request).await,
            Some(what) => senseless::pass_over(self, request, what).await,
        }
    }

    /// Hands a request to s3s as it is.
    pub(super) async fn dispatch(&self, request: Request<Body>) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        match self.s3.call(request).await {
            // s3s says 206 to GET and forgets it for HEAD.
            Ok(mut response)
                if response.status() == StatusCode::OK && response.headers().contains_key(CONTENT_RANGE) =>
            {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response
            }
            Ok(response) if is_unknown(&response) => {
                let mut response = error_response(S3Error::new(S3ErrorCode::MethodNotAllowed));
                if is_head {
                    *response.body_mut() = Body::empty();
                }
                response
            }
            Ok(mut response) => {
                restore_order(&mut response);
                response
            }
            Err(cause) => {
                tracing::error!(%cause, "no answer could be written");
                error_response(S3Error::new(S3ErrorCode::InternalError))
            }
        }
    }

    /// Who knows the secrets of access keys.
    pub(super) fn keys(&self) -> &dyn S3Auth {
        self.keys.as_ref()
    }

    /// Where the settings of buckets are found.
    pub(super) fn buckets(&self) -> &dyn Buckets {
        self.buckets.as_ref()
    }
}

/// The first part of a path: in path style, the bucket.
fn bucket_of(path: &str) -> Option<String> {
    let first = path.strip_prefix('/')?.split('/').next().filter(|first| !first.is_empty())?;
    Some(percent_encoding::percent_decode_str(first).decode_utf8().ok()?.into_owned())
}

/// The trace that a client says its request is part of, so that our lines can be found with those of others
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let id = parent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Puts the entries of a listing of versions into their order, which s3s does not keep.
fn restore_order(response: &mut Response<Body>) {
    let Some(order) = response.extensions_mut().remove::<list_versions::Order>() else { return };
    let Some(bytes) = response.body().bytes() else { return };
    if let Some(ordered) = std::str::from_utf8(&bytes).ok().and_then(|xml| order.restore(xml)) {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(ordered);
    }
}

/// Whether s3s found no operation for a method on a resource, which it calls not implemented.
fn is_unknown(response: &Response<Body>) -> bool {
    const UNKNOWN: &[u8] = b"<Message>Unknown operation</Message>";
    response.status() == StatusCode::NOT_IMPLEMENTED
        && response
            .body()
            .bytes()
            .is_none_or(|body| body.is_empty() || body.windows(UNKNOWN.len()).any(|window| window == UNKNOWN))
}

fn log(status: StatusCode, code: Option<&str>, elapsed: Duration) {
    let (status, elapsed_ms) = (status.as_u16(), elapsed.as_millis());
    if status >= 500 && status != 501 {
        tracing::warn!(status, code, elapsed_ms, "request failed");
    } else {
        tracing::debug!(status, code, elapsed_ms, "request answered");
    }
}

/// An error as it is told.
pub(super) fn error_response(told: S3Error) -> Response<Body> {
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
    let head = words::reword(&code, head).unwrap_or_else(|| head.to_owned());
    // Quotes need no escaping in text, AWS writes them as they are, and there are clients that look for a sentence with some.
    let head = head.replace("&quot;", "\"").replace("&apos;", "'");
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
