//! Lines of access logs: what is kept of a request until its answer is known.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HOST, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use palm_core::s3::logging::{Entry, operation};
use percent_encoding::percent_decode_str;

use crate::object::{LogLine, Store};

/// Who a request turned out to come from: left in its extensions empty, and filled in by whoever verifies it.
#[derive(Debug, Clone, Default)]
pub struct Requester(Arc<OnceLock<String>>);

impl Requester {
    /// Fills it in: a canonical id, or the ARN of a user.
    pub fn is(&self, name: &str) {
        self.0.get_or_init(|| name.to_owned());
    }
}

/// A request to a bucket with a log.
pub struct Noted {
    bucket: String,
    owner: String,
    key: Option<String>,
    operation: String,
    line: String,
    headers: HeaderMap,
    query: String,
    is_head: bool,
    remote_ip: Option<String>,
    tls_version: Option<&'static str>,
    requester: Requester,
    time_ms: u64,
}

impl Noted {
    /// Notes a request, where its bucket has a log: `None` elsewhere. By this peer's copy of the bucket: it may take a
    /// moment until a log begins.
    pub fn of<B>(
        store: &Store,
        request: &mut Request<B>,
        (bucket, path): (&str, &str),
        remote_ip: Option<String>,
        tls_version: Option<&'static str>,
    ) -> Option<Self> {
        let record = store.peek_bucket(bucket)?;
        record.config.logging.as_ref()?;
        let key = percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy().into_owned();
        let key = Some(key).filter(|key| !key.is_empty());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let names: Vec<&str> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
        let copies = request.headers().contains_key("x-amz-copy-source");
        let requester = Requester::default();
        let noted = Self {
            bucket: bucket.to_owned(),
            owner: record.owner,
            operation: operation(request.method().as_str(), key.is_some(), &names, copies),
            key,
            line: format!("{} {} {:?}", request.method(), without_signature(request.uri()), request.version()),
            headers: request.headers().clone(),
            is_head: request.method() == Method::HEAD,
            query,
            remote_ip,
            tls_version,
            requester: requester.clone(),
            time_ms: store.now_ms(),
        };
        request.extensions_mut().insert(requester);
        Some(noted)
    }

    /// Writes its line.
    pub fn answered<B: http_body::Body>(
        self,
        store: &Store,
        response: &Response<B>,
        (request_id, host_id): (&str, &str),
        error_code: Option<&str>,
        took: Duration,
    ) {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let whole = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()?.rsplit('/').next());
        let uploaded = text(http::HeaderName::from_static("x-amz-decoded-content-length")).or(text(CONTENT_LENGTH));
        let of_object = self.operation.ends_with(".OBJECT") && response.status().is_success();
        let object_size = match (self.operation.as_str(), whole) {
            (_, Some(whole)) => whole.parse().ok(),
            ("REST.PUT.OBJECT", None) => uploaded.and_then(|length| length.parse().ok()),
            _ if of_object => length,
            _ => None,
        };
        let (signature_version, authentication) = match text(AUTHORIZATION) {
            Some(value) if value.starts_with("AWS4-") => (Some("SigV4"), Some("AuthHeader")),
            _ if self.query.contains("X-Amz-Signature=") => (Some("SigV4"), Some("QueryString")),
            _ => (None, None),
        };
        let version = response.headers().get("x-amz-version-id").and_then(|value| value.to_str().ok());
        let total_ms = u64::try_from(took.as_millis()).ok();
        let entry = Entry {
            bucket_owner: &self.owner,
            bucket: &self.bucket,
            time_ms: self.time_ms,
            remote_ip: self.remote_ip.as_deref(),
            requester: self.requester.0.get().map(String::as_str),
            request_id,
            operation: &self.operation,
            key: self.key.as_deref(),
            request_uri: Some(&self.line),
            status: Some(response.status().as_u16()),
            error_code,
            bytes_sent: if self.is_head { None } else { length.or(response.body().size_hint().exact()) },
            object_size,
            total_ms,
            turn_around_ms: total_ms,
            referer: text(REFERER),
            user_agent: text(USER_AGENT),
            version_id: version,
            host_id: Some(host_id),
            signature_version,
            authentication,
            host: text(HOST),
            tls_version: self.tls_version,
            ..Entry::default()
        };
        let text = entry.line();
        store.log_access(LogLine { bucket: self.bucket, time_ms: self.time_ms, text });
    }
}

/// A URI whose signature cannot be used by who reads the log: "X-Amz-Signature" is struck out, as AWS does.
fn without_signature(uri: &http::Uri) -> String {
    let text = uri.path_and_query().map_or("/", |path| path.as_str());
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    let secret = |pair: &&str| !["X-Amz-Signature=", "X-Amz-Security-Token="].iter().any(|name| pair.starts_with(name));
    let kept: Vec<&str> = query.split('&').filter(secret).collect();
    format!("{path}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a presigned URL that is good for a week is used once. Danger: whoever reads the log can use it too.
    /// Expectation: it stands there without its signature.
    #[test]
    fn a_log_holds_no_signature() {
        let uri = "/b/k?X-Amz-Date=1&X-Amz-Signature=secret&x=1".parse().expect("uri");
        assert_eq!(without_signature(&uri), "/b/k?X-Amz-Date=1&x=1");
        assert_eq!(without_signature(&"/b/k".parse().expect("uri")), "/b/k");
    }
}
