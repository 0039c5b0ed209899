//! Administration: commands over a Unix socket in the data directory, and health, metrics, service discovery and the
//! console over HTTP.
//!
//! The socket takes commands from whoever may open it (mode 0600, in a directory of mode 0700). The HTTP endpoint takes them
//! from whoever shows the [`token`] or has logged in to the console; everybody else changes nothing there and is told no secret,
//! but who is in the pool. It is local unless set otherwise.
//!
//! [`api`] is what both ends of the socket speak, [`client`] the commands' end, [`commands`] the peer's and [`tasks`] what takes it
//! longer; [`report`] is how the pool is, [`words`] the same in words, [`metrics`] what Prometheus reads, [`health`] what load
//! balancers do, [`console`] what people see in a browser.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{Registry, TextEncoder};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use token::AdminToken;

use crate::object::Store;
use crate::pool::Pool;

pub mod api;
mod audit;
mod backend_metrics;
mod backends;
pub mod client;
mod commands;
pub mod console;
mod health;
mod identity;
mod metrics;
mod report;
pub mod socket;
mod tasks;
pub mod token;
pub(crate) mod words;

/// Requests under way get this long to end once shutdown begins: some are downloads.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What administration is about. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pool: Pool,
    store: Store,
    commands: Router,
    token: AdminToken,
    /// Metrics of what administration does not know.
    others: Registry,
}

impl Admin {
    /// Administration of a peer, which reads all of its fragments once in `scrub`.
    pub fn new(pool: Pool, store: Store, scrub: Duration, token: AdminToken) -> Self {
        let commands = commands::router(pool.clone(), store.clone(), scrub);
        Self { pool, store, commands, token, others: Registry::new() }
    }

    /// Shows these metrics too.
    pub fn showing(self, collectors: Vec<Box<dyn Collector>>) -> Result<Self, prometheus::Error> {
        collectors.into_iter().try_for_each(|collector| self.others.register(collector))?;
        Ok(self)
    }

    /// Serves the commands until `stop`.
    pub async fn serve_commands(self, listener: UnixListener, stop: CancellationToken) -> std::io::Result<()> {
        axum::serve(listener, self.commands).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    /// Serves health, metrics and service discovery, the commands to who has the token, and the console, until `stop`. The
    /// console's S3 requests go to `s3`, which listens at `s3_address` for others, if it does.
    pub async fn serve_http(
        self,
        listener: TcpListener,
        (s3, s3_address): (Arc<dyn console::S3>, Option<SocketAddr>),
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let commands = self.token.clone().guard(self.commands.clone());
        let (console, watching) = console::router(self.clone(), s3, s3_address);
        let router = Router::new()
            .route("/health/live", get(async || "alive\n"))
            .route("/health/ready", get(health::ready))
            .route("/metrics", get(scrape))
            .route("/sd", get(service_discovery))
            .with_state(self)
            .merge(commands)
            .merge(console);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            served = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned()) => served,
            () = watching => Ok(()),
            () = overdue => Ok(()),
        }
    }

    /// The figures of requests now, as Prometheus reads them: counters alone, so that nothing is asked or looked up for them.
    fn request_figures(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.others.gather())
    }

    /// All figures now, as Prometheus reads them.
    pub async fn figures(&self) -> Result<String, prometheus::Error> {
        metrics::text(&self.pool, &self.store, &self.others).await
    }
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.figures().await {
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
