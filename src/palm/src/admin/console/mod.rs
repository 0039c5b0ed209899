//! The console: pages for people, and what they ask.
//!
//! The pages are three files within the binary ([`assets`]). They log in with an access key ([`session`], [`login`]); then they
//! ask what the commands ask, in the commands' own words, as far as their key may ([`guard`]), see how the pool was lately
//! ([`history`]), and speak S3 by the same gate as any client ([`gateway`]).
//!
//! Every answer forbids the browser all that the pages do not need. Nothing an object holds is ever shown as a page of
//! this origin: it could act for whoever looks at it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{Redirect, Response};
use axum::routing::{any, get, post};
use parking_lot::Mutex;

use super::Admin;
use crate::pool::join::Limiter;

mod assets;
mod gateway;
mod guard;
mod history;
mod login;
mod session;

pub use gateway::{S3, SharedObject};
use history::History;
use session::Sessions;

/// Attempts to log in that an address may make at once, and per second after that: enough for fingers, not for guessing.
const LOGIN_BURST: f64 = 30.0;
const LOGINS_PER_SECOND: f64 = 0.2;
/// What the pages may do: load their own files, and ask this peer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the console is about. Cheap to clone.
#[derive(Clone)]
struct Console(Arc<Parts>);

struct Parts {
    admin: Admin,
    s3: Arc<dyn S3>,
    /// Where the S3 front end listens, if it does.
    s3_address: Option<SocketAddr>,
    sessions: Mutex<Sessions>,
    logins: Mutex<Limiter>,
    history: History,
}

/// The console's part of the HTTP endpoint, and the work that fills its charts for as long as it is polled.
pub(super) fn router(
    admin: Admin,
    s3: Arc<dyn S3>,
    s3_address: Option<SocketAddr>,
) -> (Router, impl Future<Output = ()>) {
    let commands = admin.commands.clone().with_state(()).layer(middleware::from_fn(guard::may_command));
    let sessions = Mutex::new(Sessions::new(&admin.pool.me()));
    let logins = Mutex::new(Limiter::new(LOGIN_BURST, LOGINS_PER_SECOND));
    let console = Console(Arc::new(Parts { admin, s3, s3_address, sessions, logins, history: History::default() }));
    let inside = Router::new()
        .route("/console/api/session", get(login::session))
        .route("/console/api/logout", post(login::logout))
        .route("/console/api/history", get(history::show))
        .route("/console/api/share", post(gateway::share))
        .route("/console/s3/", any(gateway::call))
        .route("/console/s3/{*path}", any(gateway::call))
        .nest("/console/api", commands)
        .layer(middleware::from_fn_with_state(console.clone(), guard::logged_in));
    let router = Router::new()
        .route("/console/api/login", post(login::login))
        .merge(inside)
        .layer(middleware::from_fn(guard::own_origin))
        .route("/", get(async || Redirect::to("/console/")))
        .route("/console", get(async || Redirect::to("/console/")))
        .route("/console/", get(assets::index))
        .route("/console/{file}", get(assets::file))
        .layer(middleware::from_fn(forbid))
        .with_state(console.clone());
    (router, async move { history::keep(&console.0).await })
}

/// Says in every answer what the browser must not do with it. An answer that says something stricter keeps it.
async fn forbid(request: axum::extract::Request, next: Next) -> Response {
    const RULES: [(HeaderName, &str); 6] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in RULES {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
