//! What is asked before anything is done: does it come from the console's own pages, from whom, and may they.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Console;
use crate::admin::api::{self, path};
use crate::admin::audit::Actor;
use crate::object::{ObjectError, Store};

/// The pages send it with all that changes something; a page of another origin cannot, unless it is allowed to, which none is.
const OWN: &str = "x-palm-console";
/// What anybody may ask who is logged in.
const SHOWN: [&str; 3] = [path::STATUS, path::MEMBERS, path::DURABILITY];
/// What the pool's root key may ask besides. Leaving and recovering stay at the command line.
const ADMINISTERED: [&str; 11] = [
    path::INVITE,
    path::APPROVE,
    path::REFUSE,
    path::EVICT,
    path::KEYS,
    path::REVOKE,
    path::ENABLE,
    path::QUOTA,
    path::TASKS,
    path::TASK,
    path::UNDRAIN,
];

/// Why something was not done.
pub(super) struct Failed(pub StatusCode, pub String);

impl Failed {
    /// The pool cannot tell now.
    pub(super) fn unavailable(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }

    fn forbidden(words: &str) -> Self {
        Self(StatusCode::FORBIDDEN, words.to_owned())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(api::Failure { error: self.1 })).into_response()
    }
}

/// Who is logged in.
#[derive(Clone, Serialize)]
pub(super) struct Who {
    /// Their access key.
    pub access_key: String,
    /// Name of its account.
    pub account: String,
    /// Whose it is; none: the account's own.
    pub user: Option<String>,
    /// Whether it is a root key of the pool, which administers it.
    pub administrator: bool,
}

impl Who {
    /// Whose key this is, if it is still taken.
    pub(super) async fn of(store: &Store, access_key: &str) -> Result<Option<Self>, Failed> {
        let record =
            store.access_key_record(access_key).await.map_err(|error: ObjectError| Failed::unavailable(error))?;
        let now_ms = store.now_ms();
        let taken = record.filter(|key| key.enabled && key.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms));
        Ok(taken.map(|key| Self {
            access_key: access_key.to_owned(),
            account: key.account,
            user: key.user,
            administrator: key.root,
        }))
    }
}

/// Lets nothing change that another site's page may have sent. A browser sends the session's cookie with requests of this
/// site only; this stands behind that.
pub(super) async fn own_origin(request: Request, next: Next) -> Result<Response, Failed> {
    let headers = request.headers();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_own = headers.contains_key(OWN) && is_same_origin(headers);
    if !is_read && !is_own {
        return Err(Failed::forbidden("changes are taken from the console's own pages only"));
    }
    Ok(next.run(request).await)
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = headers.get(header::ORIGIN).is_none() || {
        let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        origin.is_some() && origin == text(header::HOST)
    };
    origin && headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

/// Finds out who is logged in. The key is looked up every time: one that was revoked opens nothing any more.
pub(super) async fn logged_in(
    State(console): State<Console>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failed> {
    let parts = &console.0;
    let access_key = parts.sessions.lock().find(request.headers(), parts.admin.store.now_ms()).map(str::to_owned);
    let who = match access_key {
        Some(access_key) => Who::of(&parts.admin.store, &access_key).await?,
        None => None,
    };
    let who = who.ok_or_else(|| Failed(StatusCode::UNAUTHORIZED, "log in first".into()))?;
    request.extensions_mut().insert(Actor(who.access_key.clone()));
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

/// Lets a command pass that the key may give.
pub(super) async fn may_command(request: Request, next: Next) -> Result<Response, Failed> {
    let asked = request.uri().path();
    let is_shown = request.method() == Method::GET && SHOWN.contains(&asked);
    if !is_shown && !ADMINISTERED.contains(&asked) {
        return Err(Failed(StatusCode::NOT_FOUND, "the console has no such command".into()));
    }
    let administers = request.extensions().get::<Who>().is_some_and(|who| who.administrator);
    if !is_shown && !administers {
        return Err(Failed::forbidden("only the pool's root key may do this"));
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page elsewhere sends what a browser lets it send. Danger: it acts for who is logged in. Expected: only what says that
    /// it comes from here, or says nothing of where from, passes.
    #[test]
    fn other_origins_are_seen() {
        let same = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("host", "peer:9001")].iter().chain(pairs) {
                headers.insert(*name, value.parse().unwrap());
            }
            is_same_origin(&headers)
        };
        assert!(same(&[]));
        assert!(same(&[("origin", "http://peer:9001"), ("sec-fetch-site", "same-origin")]));
        for origin in ["http://peer:9002", "http://evil.example", "null", "peer:9001", "http://peer:9001.evil.example"]
        {
            assert!(!same(&[("origin", origin)]), "{origin}");
        }
        for site in ["same-site", "cross-site", "none"] {
            assert!(!same(&[("sec-fetch-site", site)]), "{site}");
        }
    }
}
