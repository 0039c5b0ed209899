//! Logging in and out.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Console;
use super::guard::{Failed, Who};

/// Asks for a session.
#[derive(Deserialize)]
pub(super) struct Login {
    access_key: String,
    secret_key: String,
}

/// What the pages know from the start.
#[derive(Serialize)]
pub(super) struct About {
    #[serde(flatten)]
    who: Who,
    /// The pool's name.
    pool: String,
    /// This peer's name.
    peer: String,
    version: &'static str,
    /// The S3 endpoint, as the browser can reach it; none: no member in reach has one.
    s3: Option<String>,
}

pub(super) async fn login(
    State(console): State<Console>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, Failed> {
    let parts = &console.0;
    if !parts.logins.lock().admit(from.ip(), Instant::now()) {
        return Err(Failed(StatusCode::TOO_MANY_REQUESTS, "too many attempts; wait a minute".into()));
    }
    let known = parts.admin.store.access_key(&login.access_key).await.map_err(Failed::unavailable)?;
    let secret = known.map(|known| known.secret).unwrap_or_default();
    // Hashes, so that neither length nor content of the right one shows in the time it takes.
    let (given, right) = (blake3::hash(login.secret_key.as_bytes()), blake3::hash(secret.as_bytes()));
    let is_right = bool::from(given.as_bytes().ct_eq(right.as_bytes())) && !secret.is_empty();
    let who = if is_right { Who::of(&parts.admin.store, &login.access_key).await? } else { None };
    let Some(who) = who else {
        warn!(%from, "login to the console refused");
        info!(target: "audit", act = "console/login", who = login.access_key, %from, status = 401, "login");
        let words = "no such access key, or not its secret, or it is disabled or expired";
        return Err(Failed(StatusCode::UNAUTHORIZED, words.into()));
    };
    // A proxy in front that speaks TLS says so.
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let begun = parts.sessions.lock().begin(login.access_key, parts.admin.store.now_ms(), secure);
    let cookie = begun.map_err(Failed::unavailable)?;
    info!(%from, access_key = who.access_key, "login to the console");
    info!(target: "audit", act = "console/login", who = who.access_key, %from, status = 200, "login");
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(about(&console, who, &headers))))
}

pub(super) async fn logout(State(console): State<Console>, headers: HeaderMap) -> impl IntoResponse {
    let cookie = console.0.sessions.lock().end(&headers);
    (AppendHeaders([(header::SET_COOKIE, cookie)]), StatusCode::NO_CONTENT)
}

pub(super) async fn session(
    State(console): State<Console>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Json<About> {
    Json(about(&console, who, &headers))
}

fn about(console: &Console, who: Who, headers: &HeaderMap) -> About {
    let pool = &console.0.admin.pool;
    About {
        who,
        pool: pool.name(),
        peer: pool.peer_name().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        s3: console.s3_host(headers).map(|host| format!("http://{host}")),
    }
}
