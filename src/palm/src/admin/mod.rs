//! Administration: commands over a Unix socket in the data directory, and health, metrics and service discovery
//! over HTTP.
//!
//! The socket takes commands from whoever may open it (mode 0600, in a directory of mode 0700). The HTTP endpoint
//! changes nothing and tells no secret, but who is in the pool; it is local unless set otherwise.
//!
//! [`api`] is what both ends of the socket speak, [`client`] the commands' end, [`commands`] the peer's and [`tasks`] what takes it
//! longer; [`report`] is how the pool is, [`words`] the same in words, [`metrics`] what Prometheus reads.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use palm_backends::StoreError;
use palm_core::record::Consistency;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::object::Store;
use crate::pool::Pool;

pub mod api;
mod backend_metrics;
mod backends;
pub mod client;
mod commands;
mod identity;
mod metrics;
mod report;
pub mod socket;
mod tasks;
pub(crate) mod words;

/// What administration is about. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pool: Pool,
    store: Store,
    scrub: Duration,
}

impl Admin {
    /// Administration of a peer, which reads all of its fragments once in `scrub`.
    pub fn new(pool: Pool, store: Store, scrub: Duration) -> Self {
        Self { pool, store, scrub }
    }

    /// Serves the commands until `stop`.
    pub async fn serve_commands(self, listener: UnixListener, stop: CancellationToken) -> std::io::Result<()> {
        let router = commands::router(self.pool, self.store, self.scrub);
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    /// Serves health, metrics and service discovery until `stop`.
    pub async fn serve_http(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/health/live", get(async || "alive\n"))
            .route("/health/ready", get(ready))
            .route("/metrics", get(scrape))
            .route("/sd", get(service_discovery))
            .with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

/// 200 while this peer can do its work: a majority of voters is in reach (a local pool needs none) and its backend
/// answers.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let status = admin.pool.status().await;
    let backend: Result<_, StoreError> = admin.pool.fragments().usage().await;
    let majority = status.voters / 2 + 1;
    if status.voters_live < majority && status.consistency == Consistency::Strong {
        let words = format!("no majority: {} of {} voters reachable\n", status.voters_live, status.voters);
        return (StatusCode::SERVICE_UNAVAILABLE, words);
    }
    match backend {
        Ok(_) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("backend: {error}\n")),
    }
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    match metrics::text(&admin.pool, &admin.store).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Every member that tells an admin address, for Prometheus's `http_sd_configs`
/// (<https://prometheus.io/docs/prometheus/latest/http_sd/>). Absent members stay in, so that their absence shows.
async fn service_discovery(State(admin): State<Admin>) -> Json<Value> {
    let pool = admin.pool.name();
    let targets: Vec<Value> = admin
        .pool
        .view()
        .members()
        .into_iter()
        .filter_map(|member| {
            let address = member.told?.admin?;
            let labels = json!({ "pool": &pool, "peer": member.name, "peer_id": member.peer.to_string() });
            Some(json!({ "targets": [address.to_string()], "labels": labels }))
        })
        .collect();
    Json(Value::Array(targets))
}
