//! Whole requests against the front end with a stand-in for the operations, signed as a client signs them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use palm_core::record::{Checksum, ChecksumAlgorithm, ChecksumKind};
use palm_core::s3::cors::{Configuration, Rule};
use s3s::auth::SimpleAuth;
use s3s::config::StaticConfigProvider;
use s3s::crypto::Checksum as _;
use s3s::dto;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::body;
use super::super::checksum::{Declared, explain};
use super::*;
use crate::object::{Digested, Incoming, ObjectError};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "secret";
const HOST: &str = "localhost";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Reads and judges every upload as the object layer does, copies nothing, and holds every HEAD until it is let
/// go.
#[derive(Default)]
struct StandIn {
    started: Arc<Notify>,
    go: Arc<Notify>,
}

#[async_trait::async_trait]
impl S3 for StandIn {
    async fn put_object(&self, mut put: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let declared = Declared::read(&put.headers, put.trailing_headers.take())?;
        let algorithm = declared.algorithm();
        let incoming = body::incoming(put.input.body, put.input.content_length, declared, None)?;
        receive(incoming).await.map_err(|failure| explain(failure, algorithm))?;
        Ok(S3Response::new(dto::PutObjectOutput::default()))
    }

    async fn head_object(&self, _: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let content_range = Some("bytes 0-0/10".to_owned());
        Ok(S3Response::new(dto::HeadObjectOutput { content_range, ..dto::HeadObjectOutput::default() }))
    }

    async fn copy_object(&self, _: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        panic!("an unsigned header turned an upload into a copy");
    }

    async fn delete_objects(
        &self,
        _: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        Ok(S3Response::new(dto::DeleteObjectsOutput::default()))
    }

    async fn head_bucket(&self, _: S3Request<dto::HeadBucketInput>) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        self.started.notify_one();
        self.go.notified().await;
        Ok(S3Response::new(dto::HeadBucketOutput::default()))
    }
}

/// Reads a body to its end and lets it be judged.
async fn receive(incoming: Incoming) -> Result<(), ObjectError> {
    let Incoming { mut stream, length, algorithms, verify, .. } = incoming;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    if length.is_some_and(|length| length != bytes.len() as u64) {
        return Err(BodyError::Incomplete.into());
    }
    let sum = |algorithm: &ChecksumAlgorithm| match algorithm {
        ChecksumAlgorithm::Crc32 => Checksum {
            algorithm: *algorithm,
            kind: ChecksumKind::FullObject,
            value: s3s::crypto::Crc32::checksum(&bytes).to_vec(),
        },
        other => panic!("no test uses {other:?}"),
    };
    let digested = Digested {
        size: bytes.len() as u64,
        md5: s3s::crypto::Md5::checksum(&bytes),
        checksums: algorithms.iter().map(sum).collect(),
    };
    verify(&digested).map(drop).map_err(|rejection| BodyError::Refused(rejection).into())
}

/// Every bucket is as this says.
struct Configured(BucketConfig);

#[async_trait::async_trait]
impl Buckets for Configured {
    async fn settings(&self, _: &str) -> Result<BucketConfig, ObjectError> {
        Ok(self.0.clone())
    }
}

fn stand_in(operations: StandIn) -> Service {
    configured(operations, BucketConfig::default())
}

fn configured(operations: StandIn, config_of_buckets: BucketConfig) -> Service {
    let mut builder = S3ServiceBuilder::new(operations);
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config()))));
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    Service {
        s3: builder.build(),
        hosts: Arc::new(Hosts::default()),
        buckets: Arc::new(Configured(config_of_buckets)),
        keys: Arc::new(SimpleAuth::from_single(KEY, SECRET)),
        host_id: HeaderValue::from_static("peer-1"),
        is_local: Arc::new(|| false),
        touch: Arc::new(|| {}),
        ids: first_id(),
        log: None,
        measures: Measures::new().expect("measures"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn format_time(at: OffsetDateTime) -> (String, String) {
    let date = at.format(format_description!("[year][month][day]")).expect("date");
    let clock = at.format(format_description!("[hour][minute][second]")).expect("time");
    (date.clone(), format!("{date}T{clock}Z"))
}

/// `SigV4` of a request whose headers and query are sorted and encoded already.
fn signature(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    hash: &str,
    at: OffsetDateTime,
) -> String {
    let (date, time) = format_time(at);
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical_headers = lines.concat();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = format!("{method}\n{path}\n{query}\n{canonical_headers}\n{names}\n{hash}");
    let scope = format!("{date}/us-east-1/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let key = mac(format!("AWS4{SECRET}").as_bytes(), &date);
    let key = ["us-east-1", "s3", "aws4_request"].iter().fold(key, |key, part| mac(key.as_ref(), part));
    HEXLOWER.encode(mac(key.as_ref(), &to_sign).as_ref())
}

/// A request signed in its headers.
fn signed(method: &str, target: &str, hash: &str, at: OffsetDateTime) -> http::request::Builder {
    signed_with(method, target, hash, at, &[])
}

/// A request signed in its headers, with more of them.
fn signed_with(
    method: &str,
    target: &str,
    hash: &str,
    at: OffsetDateTime,
    more: &[(&str, &str)],
) -> http::request::Builder {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (date, time) = format_time(at);
    let mut headers = vec![("host", HOST), ("x-amz-content-sha256", hash), ("x-amz-date", time.as_str())];
    headers.extend_from_slice(more);
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let signature = signature(method, path, query, &headers, hash, at);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/{date}/us-east-1/s3/aws4_request, SignedHeaders={names}, \
         Signature={signature}"
    );
    let mut request = Request::builder().method(method).uri(target).header("authorization", authorization);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

/// A URL that allows `method` on `path` for a minute from `at`.
fn presigned(method: &str, path: &str, at: OffsetDateTime) -> String {
    let (date, time) = format_time(at);
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F{date}%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date={time}&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    );
    let signature = signature(method, path, &query, &[("host", HOST)], UNSIGNED, at);
    format!("{path}?{query}&X-Amz-Signature={signature}")
}

async fn send(request: http::request::Builder, body: &'static [u8]) -> (Response<()>, String) {
    let request = request.header("content-length", body.len());
    let request = request.body(Full::new(Bytes::from_static(body))).expect("request");
    let (parts, body) = stand_in(StandIn::default()).handle(request).await.into_parts();
    let body = BodyExt::collect(body).await.expect("body").to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).expect("text"))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Scenario: an anonymous request. Danger: it is let in, or refused in a way no operator can trace. Expectation:
/// `AccessDenied`, with the request's id in the headers and in the XML, and the log finds it by that id.
#[tokio::test]
async fn an_unsigned_request_is_refused_and_traceable() {
    let request = Request::builder().method("GET").uri("/bucket/a&b").header("host", HOST);
    let (response, xml) = send(request, b"").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let id = response.headers()[REQUEST_ID].to_str().expect("text");
    assert_eq!(id.len(), 16);
    assert_eq!(response.headers()[HOST_ID], "peer-1");
    assert_eq!(response.headers()[SERVER], "PALM");
    assert!(xml.contains("<Code>AccessDenied</Code>"), "{xml}");
    assert!(xml.contains(&format!("<RequestId>{id}</RequestId>")), "{xml}");
    assert!(xml.contains("<Resource>/bucket/a&amp;b</Resource>"), "{xml}");
    let (again, _) = send(Request::builder().method("GET").uri("/").header("host", HOST), b"").await;
    assert_ne!(again.headers()[REQUEST_ID], response.headers()[REQUEST_ID], "ids are never reused");
}

#[tokio::test]
async fn success_carries_ids_too_and_the_unknown_is_501() {
    let (response, _) = send(signed("PUT", "/bucket/key", UNSIGNED, now()), b"body").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key(REQUEST_ID));
    let (response, xml) = send(signed("GET", "/bucket?policy=", UNSIGNED, now()), b"").await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED, "{xml}");
    assert!(xml.contains("<Code>NotImplemented</Code>"), "{xml}");
}

/// Scenario: the pool is of local consistency. Danger: an answer that passes for a strong one, above all a refusal, which is
/// only this peer's word. Expectation: every answer says so, and none of a strong pool does.
#[tokio::test]
async fn every_answer_of_a_local_pool_says_so() {
    for (local, label) in [(true, Some("local")), (false, None)] {
        let service = Service { is_local: Arc::new(move || local), ..stand_in(StandIn::default()) };
        let refused = Request::builder().method("GET").uri("/bucket/key").header("host", HOST);
        for (request, status) in [(signed("HEAD", "/bucket/key", UNSIGNED, now()), 206), (refused, 403)] {
            let response = service.handle(request.body(Full::new(Bytes::new())).expect("request")).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().get(CONSISTENCY).map(|value| value.to_str().expect("text")), label);
        }
    }
}

/// Scenario: the holder of a presigned PUT adds an unsigned `x-amz-copy-source`. Danger: the upload becomes a
/// copy of any object its signer can read (s3s before 0.16). Expectation: refused, and the honest upload is not.
#[tokio::test]
async fn a_presigned_upload_cannot_become_a_copy() {
    let url = presigned("PUT", "/bucket/key", now());
    let honest = Request::builder().method("PUT").uri(&url).header("host", HOST);
    let (response, xml) = send(honest, b"body").await;
    assert_eq!(response.status(), StatusCode::OK, "{xml}");
    let attack = Request::builder().method("PUT").uri(&url).header("host", HOST);
    let (response, xml) = send(attack.header("x-amz-copy-source", "/secret/key"), b"").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN, "{xml}");
    assert!(xml.contains("<Code>AccessDenied</Code>"), "{xml}");
}

#[tokio::test]
async fn old_signatures_are_refused() {
    let past = now() - Duration::from_mins(16);
    let (response, xml) = send(signed("GET", "/bucket/key", UNSIGNED, past), b"").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(xml.contains("<Code>RequestTimeTooSkewed</Code>"), "{xml}");
    let url = presigned("GET", "/bucket/key", now() - Duration::from_secs(61));
    let (response, xml) = send(Request::builder().uri(url).header("host", HOST), b"").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(xml.contains("<Message>Request has expired</Message>"), "{xml}");
}

/// Scenario: the XML of a delete does not have the hash it was signed with. Danger: s3s alone answers 500, which
/// tells the client to repeat. Expectation: AWS's 400; the right hash passes.
#[tokio::test]
async fn xml_with_a_wrong_hash_is_the_clients_fault() {
    const XML: &[u8] = b"<Delete><Object><Key>k</Key></Object></Delete>";
    let (response, xml) = send(signed("POST", "/bucket?delete=", &sha256(XML), now()), XML).await;
    assert_eq!(response.status(), StatusCode::OK, "{xml}");
    let (response, xml) = send(signed("POST", "/bucket?delete=", &sha256(b"other"), now()), XML).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{xml}");
    assert!(xml.contains("<Code>XAmzContentSHA256Mismatch</Code>"), "{xml}");
}

/// Sends an upload with these headers and says what came of it: `OK` or the error's code.
async fn upload(hash: &str, headers: &[(&str, &str)], body: &'static [u8]) -> String {
    let (response, xml) = send(signed_with("PUT", "/bucket/key", hash, now(), headers), body).await;
    if let Some((code, _)) = xml.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")) {
        return code.to_owned();
    }
    assert_eq!(response.status(), StatusCode::OK, "{xml}");
    "OK".to_owned()
}

/// Scenario: uploads damaged in every way a client can tell us of. Danger: damage is stored, or the client is
/// told the wrong thing and gives up or repeats for ever. Expectation: AWS's code for each.
#[tokio::test]
async fn damaged_uploads_are_refused_with_awss_codes() {
    const BODY: &[u8] = b"123456789";
    let hash = sha256(BODY);
    assert_eq!(upload(&hash, &[], BODY).await, "OK");
    assert_eq!(upload(&sha256(b"other"), &[], BODY).await, "XAmzContentSHA256Mismatch");
    assert_eq!(upload(&hash, &[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")], BODY).await, "OK");
    assert_eq!(upload(&hash, &[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], BODY).await, "BadDigest");
    assert_eq!(upload(&hash, &[("content-md5", "AAAA")], BODY).await, "InvalidDigest");
    assert_eq!(upload(UNSIGNED, &[("x-amz-checksum-crc32", "y/Q5Jg==")], BODY).await, "OK");
    assert_eq!(upload(UNSIGNED, &[("x-amz-checksum-crc32", "AAAAAA==")], BODY).await, "BadDigest");
}

/// Scenario: the framing that SDKs use by default since 2025, whole and damaged. Danger: as above, and a trailer
/// that is cut off switches verification off. Expectation: AWS's code for each.
#[tokio::test]
async fn chunked_uploads_are_judged_by_their_trailers() {
    const HASH: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "9"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let table: [(&'static [u8], &str); 6] = [
        (b"9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", "OK"),
        (b"4\r\n1234\r\n5\r\n56789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", "OK"),
        (b"9\r\n123456780\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", "BadDigest"),
        (b"9\r\n123456789\r\n0\r\n\r\n", "MalformedTrailerError"),
        (b"9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:nonsense\r\n\r\n", "MalformedTrailerError"),
        (b"8\r\n12345678\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", "IncompleteBody"),
    ];
    for (body, expected) in table {
        assert_eq!(upload(HASH, &headers, body).await, expected, "{}", String::from_utf8_lossy(body));
    }
}

/// Scenario: signed chunks with a signature that is not theirs. Danger: bytes nobody signed are stored.
/// Expectation: `SignatureDoesNotMatch`.
#[tokio::test]
async fn a_forged_chunk_is_refused() {
    const HASH: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    const BODY: &[u8] = b"9;chunk-signature=0000000000000000000000000000000000000000000000000000000000000000\r\n\
        123456789\r\n0;chunk-signature=0000000000000000000000000000000000000000000000000000000000000000\r\n\r\n";
    let headers = [("x-amz-decoded-content-length", "9")];
    assert_eq!(upload(HASH, &headers, BODY).await, "SignatureDoesNotMatch");
}

#[tokio::test]
async fn a_partial_head_is_206() {
    let (response, _) = send(signed("HEAD", "/bucket/key", UNSIGNED, now()), b"").await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
}

/// Scenario: shutdown while a request is under way. Danger: the client loses an answer to a write that happened.
/// Expectation: no new connections, the answer arrives, then `serve` returns.
#[tokio::test]
async fn shutdown_lets_requests_end() {
    let operations = StandIn::default();
    let (started, go) = (Arc::clone(&operations.started), Arc::clone(&operations.go));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, None, stand_in(operations), shutdown.clone()));

    let request = signed("HEAD", "/bucket", UNSIGNED, now()).body(()).expect("request");
    let header = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}\r\n", value.to_str().expect("text"));
    let headers: Vec<String> = request.headers().iter().map(header).collect();
    let head = format!("HEAD {} HTTP/1.1\r\n{}\r\n", request.uri(), headers.concat());
    let mut client = tokio::net::TcpStream::connect(address).await.expect("connect");
    client.write_all(head.as_bytes()).await.expect("send");
    started.notified().await;

    shutdown.cancel();
    tokio::task::yield_now().await;
    assert!(!server.is_finished(), "a request is under way");
    go.notify_one();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.await.expect("serve returns");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

/// Scenario: a page of another origin gets an error. Danger: its user sees nothing, or any page sees everything.
/// Expectation: the answer is the same for all, and only origins that a rule names may read it.
#[tokio::test]
async fn pages_of_allowed_origins_may_read_errors() {
    let (allowed_origins, allowed_methods) = (vec!["http://page".to_owned()], vec!["GET".to_owned()]);
    let rule = Rule { allowed_origins, allowed_methods, ..Rule::default() };
    let cors = Some(Configuration::new(vec![rule]).expect("rules"));
    let service = configured(StandIn::default(), BucketConfig { cors, ..BucketConfig::default() });
    for (origin, allowed) in [("http://page", Some("http://page")), ("http://other", None)] {
        let request = Request::builder().uri("/bucket/key").header("origin", origin);
        let response = service.handle(request.body(Full::new(Bytes::new())).expect("request")).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let told = response.headers().get("access-control-allow-origin").map(|told| told.to_str().expect("text"));
        assert_eq!(told, allowed);
    }
}
