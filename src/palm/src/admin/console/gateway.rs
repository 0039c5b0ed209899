//! Buckets and objects: the pages speak S3 itself, and the front end answers as it answers any client who signs with
//! the session's key. Bodies pass through in both directions and are held nowhere.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use super::Console;
use super::guard::{Failed, Who};
use crate::pool::address;

/// Before the S3 path.
const PREFIX: &str = "/console/s3";
/// What the browser says about itself and its session; the session's key stands in its place.
const KEPT_BACK: [&str; 5] = ["authorization", "cookie", "host", "origin", "x-amz-security-token"];
/// An answer of S3 is handed to the pages' code or saved as a file; shown as a page it may do nothing at all.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// Where the browser may put what it asked for: in the hands of a script that fetched it, or in a file. Never in a script tag.
const DESTINATIONS: [&str; 2] = ["empty", "document"];
/// What stands for itself in the parameter of a header (<https://www.rfc-editor.org/rfc/rfc8187#section-3.2>).
const IN_HEADER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A shared link lasts at most this long (as AWS has it).
const MAX_SHARED: Duration = Duration::from_hours(7 * 24);

/// The S3 front end, as the console needs it.
#[async_trait::async_trait]
pub trait S3: Send + Sync {
    /// Answers a request from `from` as if `access_key` had signed it.
    async fn call(&self, request: Request, access_key: &str, from: SocketAddr) -> Response;

    /// A link with which anybody may GET an object at the endpoint `host` (with its port) for a time, signed by a key.
    fn link(&self, host: &str, object: &SharedObject, lasts: Duration, key: (&str, &str)) -> String;
}

/// What a link leads to.
#[derive(Debug, Clone, Deserialize)]
pub struct SharedObject {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// Its version; none: whichever is the latest.
    pub version: Option<String>,
}

/// Asks for a link to an object.
#[derive(Deserialize)]
pub(super) struct Share {
    #[serde(flatten)]
    object: SharedObject,
    /// How long it lasts.
    seconds: u64,
}

/// A link.
#[derive(Serialize)]
pub(super) struct Shared {
    url: String,
}

impl Console {
    /// The S3 endpoint as a browser can reach it, which reached this one: where the front end listens everywhere, at the same host.
    /// A peer without one names that of another member, always the same as long as it lives; `None`: nobody in reach has one.
    pub(super) fn s3_host(&self, headers: &HeaderMap) -> Option<String> {
        let Some(listens) = self.0.s3_address else {
            let members = self.0.admin.pool.view().members().into_iter().filter(|member| member.live);
            return members.filter_map(|member| member.told?.s3).min().map(|s3| s3.to_string());
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        Some(match host.filter(|_| listens.ip().is_unspecified()) {
            Some(host) => format!("{}:{}", host.host(), listens.port()),
            None => address::local(listens).to_string(),
        })
    }
}

pub(super) async fn call(
    State(console): State<Console>,
    Extension(who): Extension<Who>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, Failed> {
    let destination = request.headers().get("sec-fetch-dest").and_then(|value| value.to_str().ok());
    if destination.is_some_and(|destination| !DESTINATIONS.contains(&destination)) {
        return Err(Failed(StatusCode::FORBIDDEN, "objects are downloaded, not run".into()));
    }
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let target: Uri = target
        .strip_prefix(PREFIX)
        .and_then(|path| path.parse().ok())
        .ok_or_else(|| Failed(StatusCode::BAD_REQUEST, "not a path of an object".into()))?;
    let name = (request.method() == Method::GET).then(|| file_name(target.path())).flatten();
    *request.uri_mut() = target;
    for name in KEPT_BACK {
        request.headers_mut().remove(name);
    }
    let mut response = console.0.s3.call(request, &who.access_key, from).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // What the object says of caches is meant for those who have it by its own address.
    headers.remove(header::CACHE_CONTROL);
    headers.remove(header::SET_COOKIE);
    if let Some(disposition) = name.and_then(|name| HeaderValue::try_from(name).ok()) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Has the browser save an object under the last part of its key (<https://www.rfc-editor.org/rfc/rfc6266#section-5>); `None` for what is
/// no object.
fn file_name(path: &str) -> Option<String> {
    let (_, key) = path.strip_prefix('/')?.split_once('/').filter(|(_, key)| !key.is_empty())?;
    let name = key.rsplit('/').find(|part| !part.is_empty()).unwrap_or("download");
    // A client may have encoded less of the path than a header can hold.
    let name: Vec<u8> = percent_decode_str(name).collect();
    Some(format!("attachment; filename*=UTF-8''{}", percent_encode(&name, IN_HEADER)))
}

pub(super) async fn share(
    State(console): State<Console>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Json(share): Json<Share>,
) -> Result<impl IntoResponse, Failed> {
    let lasts = Duration::from_secs(share.seconds);
    if lasts.is_zero() || lasts > MAX_SHARED {
        return Err(Failed(StatusCode::BAD_REQUEST, "a link lasts from one second to 7 days".into()));
    }
    let host = console.s3_host(&headers);
    let host = host.ok_or_else(|| Failed::unavailable("no member in reach serves S3: no link would lead anywhere"))?;
    let parts = &console.0;
    let known = parts.admin.store.access_key(&who.access_key).await.map_err(Failed::unavailable)?;
    let known = known.ok_or_else(|| Failed(StatusCode::UNAUTHORIZED, "the access key is gone".into()))?;
    let key = (who.access_key.as_str(), known.secret.as_str());
    Ok(Json(Shared { url: parts.s3.link(&host, &share.object, lasts, key) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key may hold anything. Danger: a name that ends the header, or sends the file elsewhere on the disk. Expected: the last
    /// part of it, with nothing in it that is more than a name.
    #[test]
    fn files_are_saved_under_the_end_of_their_key() {
        let name = |path| file_name(path).map(|header| header.replace("attachment; filename*=UTF-8''", ""));
        assert_eq!(name("/b/photos/a%20b.jpg").as_deref(), Some("a%20b.jpg"));
        assert_eq!(name("/b/folder/").as_deref(), Some("folder"));
        assert_eq!(name("/b/a;(1)\"%0d%0a").as_deref(), Some("a%3B%281%29%22%0D%0A"));
        assert_eq!(name("/b//").as_deref(), Some("download"));
        assert_eq!((name("/b"), name("/b/"), name("/")), (None, None, None));
    }
}
