//! The audit log's lines about administration: who asked this peer to change what, and how that ended.
//!
//! They are events of the target `audit`, which go to the file of `log.audit` alone.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tracing::{Level, enabled, info};

use super::api::path;

/// No command is longer.
const REQUEST_MAX_BYTES: usize = 1 << 20;
/// Commands that change nothing although they are sent by POST.
const QUESTIONS: [&str; 4] = [path::FIND, path::TASK, path::IDENTITY, path::IDENTITIES];
/// What stands for a secret.
const HIDDEN: &str = "***";

/// Who asks, among a request's extensions: an access key that is logged in to the console, or `token`, whoever shows the
/// admin token. Without it the request came over the socket, from who may open it.
#[derive(Debug, Clone)]
pub struct Actor(pub String);

/// Passes a command on, and notes it if it is to change something.
pub(super) async fn note(request: Request, next: Next) -> Response {
    let asks = request.method() == Method::GET || QUESTIONS.contains(&request.uri().path());
    if asks || !enabled!(target: "audit", Level::INFO) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_MAX_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let asked = serde_json::from_slice(&body).map(|asked| without_secrets("", asked)).unwrap_or_default();
    let act = parts.uri.path().trim_start_matches("/v1/").to_owned();
    let who = parts.extensions.get::<Actor>().map_or_else(|| "socket".to_owned(), |actor| actor.0.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    info!(target: "audit", act, who, %asked, status = response.status().as_u16(), "command");
    response
}

/// A request as it may be written down: secrets, and what follows the `?` of a URL, are left out.
fn without_secrets(name: &str, value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name.clone(), without_secrets(&name, value))).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| without_secrets(name, item)).collect(),
        Value::String(_) if name.contains("secret") || name.contains("token") => HIDDEN.into(),
        Value::String(url) if name.ends_with("url") => {
            let place = url.split('?').next().unwrap_or_default();
            match (place.split_once("://"), place.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}").into(),
                _ => place.into(),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Story: a key with a given secret is made, and a backend with a password added. Danger: whoever reads the audit log has both.
    /// Expected: it says what was done, without them.
    #[test]
    fn secrets_are_not_written_down() {
        let asked = json!({
            "access_key": "AK", "secret_key": "s3cret", "expires_ms": 5, "policies": [{ "name": "n", "join_token": "palm1x" }],
            "url": "s3://me:pw@host/bucket?secret_access_key=s3cret", "urls": ["disk:///a?x=1"],
        });
        let written = json!({
            "access_key": "AK", "secret_key": "***", "expires_ms": 5, "policies": [{ "name": "n", "join_token": "***" }],
            "url": "s3://***@host/bucket", "urls": ["disk:///a?x=1"],
        });
        assert_eq!(without_secrets("", asked), written);
    }
}
