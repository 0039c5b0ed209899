//! Backends of this peer, which come and go while it runs.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use palm_backends::set::RemoveError;
use palm_backends::{Backend, BackendState, FragmentStore as _, OpenError};

use super::api::{self, Removal, path};
use super::commands::{Answer, Peer, Refusal, UNBOUNDED_FREE};
use crate::object::Store;

pub(super) fn routes() -> Router<Peer> {
    Router::new().route(path::BACKENDS, get(list).post(add)).route(path::BACKEND_REMOVE, post(remove))
}

async fn list(State(Peer { pool, store, .. }): State<Peer>) -> Json<api::Backends> {
    let mut backends = Vec::new();
    for backend in pool.fragments().iter() {
        backends.push(describe(&store, &backend).await);
    }
    backends.sort_by_key(|backend| backend.number);
    Json(api::Backends { backends })
}

async fn add(State(Peer { pool, store, .. }): State<Peer>, Json(wish): Json<api::AddBackend>) -> Answer<api::Backend> {
    let added = pool.fragments().add(&wish.url).await.map_err(|error| match error {
        OpenError::Store(error) => Refusal::Wrong(format!("backend {:?} takes no fragments: {error}", wish.url)),
        error => Refusal::Wrong(error.to_string()),
    })?;
    Ok(Json(describe(&store, &added).await))
}

async fn remove(
    State(Peer { pool, store, .. }): State<Peer>,
    Json(api::RemoveBackend { backend, how }): Json<api::RemoveBackend>,
) -> Answer<api::Backend> {
    let all = pool.fragments();
    let place = palm_backends::open::place(&backend);
    let named = |one: &Backend| one.place() == place || one.number().to_string() == backend;
    let found = all.iter().find(named);
    let found = found.ok_or_else(|| {
        let known: Vec<String> = all.iter().map(|one| format!("{} ({})", one.number(), one.place())).collect();
        Refusal::Unknown(format!("this peer has no backend {backend:?}; it has {}", known.join(", ")))
    })?;
    let told = describe(&store, &found).await;
    let removed = match how {
        Removal::Emptied => all.leave(&found).await,
        Removal::Undone => all.stay(&found).await,
        Removal::Forced => all.abandon(&found).await,
    };
    match removed {
        Ok(()) => Ok(Json(api::Backend { leaving: how != Removal::Undone, ..told })),
        Err(error @ RemoveError::Store(_)) => Err(Refusal::Failed(error.to_string())),
        Err(error) => Err(Refusal::Wrong(format!("backend {} ({}) stays: {error}", found.number(), found.place()))),
    }
}

async fn describe(store: &Store, backend: &Backend) -> api::Backend {
    let usage = backend.usage().await.ok();
    let state = backend.state().await;
    let name = match &state {
        BackendState::Well => "well",
        BackendState::Full => "full",
        BackendState::ReadOnly(_) => "read-only",
        BackendState::Failed(_) => "failed",
    };
    let stuck = store.stuck(backend.number());
    api::Backend {
        number: backend.number(),
        url: backend.place().to_owned(),
        domain: backend.domain().map(str::to_owned),
        state: name.to_owned(),
        ill: (state != BackendState::Well).then(|| state.to_string()),
        leaving: backend.is_leaving(),
        stuck: stuck.filter(|stuck| stuck.passes > 0).map(|stuck| format!("{} stay: {}", stuck.fragments, stuck.why)),
        fragments: usage.map(|usage| usage.fragments),
        bytes: usage.map(|usage| usage.bytes),
        free_bytes: usage.map(|usage| usage.free).filter(|&free| free < UNBOUNDED_FREE),
    }
}
