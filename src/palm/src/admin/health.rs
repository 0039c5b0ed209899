//! Whether this peer lives and can do its work, for load balancers, orchestrators and people with `curl`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use palm_backends::BackendState;
use palm_core::record::Consistency;
use serde::Serialize;

use super::Admin;

/// The answer to `/health/ready`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// Every check is well.
    ready: bool,
    checks: Vec<Check>,
}

/// One thing that has to be well.
#[derive(Debug, Serialize)]
struct Check {
    /// `quorum` or `backends`.
    name: &'static str,
    ok: bool,
    /// In words.
    detail: String,
}

/// 200 while this peer can do its work, 503 otherwise; which check fails is in the body.
pub(super) async fn ready(State(admin): State<Admin>) -> (StatusCode, Json<Readiness>) {
    let checks = vec![quorum(&admin).await, backends(&admin).await];
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks }))
}

/// A majority of voters has to be in reach; a local pool needs none.
async fn quorum(admin: &Admin) -> Check {
    let status = admin.pool.status().await;
    let majority = status.voters / 2 + 1;
    let is_local = status.consistency == Consistency::Local;
    let needed = if is_local { "none needed in a local pool".to_owned() } else { format!("{majority} needed") };
    let detail = format!("{} of {} voters reachable, {needed}", status.voters_live, status.voters);
    Check { name: "quorum", ok: is_local || status.voters_live >= majority, detail }
}

/// One backend has to give what it keeps: others may be ill, as long as requests can be answered.
async fn backends(admin: &Admin) -> Check {
    let (mut ok, mut told) = (false, Vec::new());
    for backend in admin.pool.fragments().iter() {
        let state = backend.state().await;
        ok |= !matches!(state, BackendState::Failed(_));
        told.push(format!("{}: {state}", backend.number()));
    }
    Check { name: "backends", ok, detail: told.join("; ") }
}
