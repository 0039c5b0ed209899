//! The peer's end of the admin socket.

use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use palm_core::durability::Estimate;
use palm_core::id::PeerId;
use tracing::info;

use super::api::{self, path};
use super::report;
use super::tasks::Tasks;
use crate::object::{ObjectError, Store};
use crate::pool::join::Answered;
use crate::pool::{MemberStatus, Pool, PoolError, address};

/// Invitations last at most this long: one that is forgotten must not stay open for ever.
const MAX_INVITATION: Duration = Duration::from_hours(30 * 24);

/// Why a command failed.
pub(super) enum Refusal {
    /// It makes no sense as asked.
    Wrong(String),
    /// What it is about does not exist.
    Unknown(String),
    /// The peer failed.
    Failed(String),
    /// The pool could not do it.
    Pool(PoolError),
    /// The ledger could not.
    Store(ObjectError),
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Wrong(error) | Self::Pool(PoolError::Refused(error)) => (StatusCode::BAD_REQUEST, error),
            Self::Pool(PoolError::Wrong(error)) => (StatusCode::BAD_REQUEST, error.message.into_owned()),
            Self::Unknown(error) => (StatusCode::NOT_FOUND, error),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
            Self::Pool(error @ PoolError::Ledger(_)) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Store(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Pool(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        (status, Json(api::Failure { error })).into_response()
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// What commands are about.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) pool: Pool,
    pub(super) store: Store,
    tasks: Tasks,
    scrub: Duration,
}

impl FromRef<Peer> for Pool {
    fn from_ref(peer: &Peer) -> Self {
        peer.pool.clone()
    }
}

impl FromRef<Peer> for Tasks {
    fn from_ref(peer: &Peer) -> Self {
        peer.tasks.clone()
    }
}

pub(super) fn router(pool: Pool, store: Store, scrub: Duration) -> Router {
    let tasks = Tasks::new(pool.clone(), store.clone());
    Router::new()
        .route(path::INVITE, post(invite))
        .route(path::APPROVE, post(approve))
        .route(path::REFUSE, post(refuse))
        .route(path::MEMBERS, get(members))
        .route(path::FIND, post(find))
        .route(path::EVICT, post(evict))
        .route(path::LEAVE, post(leave))
        .route(path::RECOVER, get(plan_recovery).post(recover))
        .route(path::STATUS, get(status))
        .route(path::DURABILITY, get(durability))
        .merge(super::identity::routes())
        .merge(super::backends::routes())
        .route(path::QUOTA, post(quota))
        .route(path::TASKS, post(start_task))
        .route(path::TASK, post(task))
        .route(path::PLAN, post(plan))
        .route(path::UNDRAIN, post(undrain))
        .with_state(Peer { pool, store, tasks, scrub })
        .layer(middleware::from_fn(super::audit::note))
}

async fn invite(State(pool): State<Pool>, Json(request): Json<api::InviteRequest>) -> Answer<api::Invited> {
    let lasts = Duration::from_secs(request.expires_seconds);
    if lasts.is_zero() || lasts > MAX_INVITATION {
        return Err(Refusal::Wrong("an invitation lasts from one second to 30 days".into()));
    }
    let token = pool.invite(lasts).await?;
    info!(expires_ms = token.expires_ms, "invitation made");
    Ok(Json(api::Invited {
        join_token: token.to_string(),
        expires_ms: token.expires_ms,
        pool_id: pool.id().to_string(),
        addresses: address::advertised(pool.net().local_addr()).iter().map(ToString::to_string).collect(),
    }))
}

async fn approve(State(pool): State<Pool>, Json(request): Json<api::Applicants>) -> Answer<api::Approved> {
    let mut approved = Vec::new();
    for peer in applicants(&pool, request).await? {
        match pool.approve(peer).await? {
            Answered::Now | Answered::Approved => approved.push(peer.to_string()),
            Answered::Unknown => return Err(waits_not(peer)),
        }
        info!(%peer, "peer approved");
    }
    Ok(Json(api::Approved { approved }))
}

async fn refuse(State(pool): State<Pool>, Json(request): Json<api::Applicants>) -> Answer<api::Refused> {
    let mut refused = Vec::new();
    for peer in applicants(&pool, request).await? {
        match pool.refuse(peer).await? {
            Answered::Now => refused.push(peer.to_string()),
            Answered::Approved => {
                return Err(Refusal::Wrong(format!("peer {peer} was approved; `palm evict` sends members away")));
            }
            Answered::Unknown => return Err(waits_not(peer)),
        }
        info!(%peer, "peer refused");
    }
    Ok(Json(api::Refused { refused }))
}

fn waits_not(peer: PeerId) -> Refusal {
    Refusal::Unknown(format!("no peer {peer} waits for approval"))
}

/// Who is meant among those that wait.
async fn applicants(pool: &Pool, request: api::Applicants) -> Result<Vec<PeerId>, Refusal> {
    Ok(match request.peer_id {
        None => pool.waiting().await?.into_iter().map(|waiting| waiting.peer).collect(),
        Some(text) => vec![find_waiting(pool, &text).await?],
    })
}

/// The peer with this id; the beginning of an id will do where only one waiting peer has it.
async fn find_waiting(pool: &Pool, text: &str) -> Result<PeerId, Refusal> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let waiting = pool.waiting().await?;
    let text = text.to_ascii_lowercase();
    let mut matching = waiting.iter().filter(|waiting| waiting.peer.to_string().starts_with(&text));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one.peer),
        (None, _) => Err(Refusal::Unknown(format!("no peer whose id begins with {text:?} waits for approval"))),
        (Some(_), Some(_)) => Err(Refusal::Wrong(format!("several waiting peers begin with {text:?}"))),
    }
}

/// The member with this name or id; the beginning of an id will do where only one has it.
fn find_member(pool: &Pool, text: &str) -> Result<MemberStatus, Refusal> {
    let members = pool.view().members();
    let prefix = text.to_ascii_lowercase();
    let named = |member: &&MemberStatus| member.name == text;
    let by_id = |member: &&MemberStatus| member.peer.to_string().starts_with(&prefix);
    let mut found: Vec<&MemberStatus> = members.iter().filter(named).collect();
    if found.is_empty() {
        found = members.iter().filter(by_id).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Refusal::Unknown(format!("no member is called {text:?} or has an id that begins so"))),
        several => {
            let ids: Vec<String> = several.iter().map(|member| member.peer.to_string()).collect();
            Err(Refusal::Wrong(format!("several members are meant by {text:?}: {}", ids.join(", "))))
        }
    }
}

async fn find(State(pool): State<Pool>, Json(request): Json<api::FindMember>) -> Answer<api::Member> {
    Ok(Json(describe(&pool, find_member(&pool, &request.peer)?)))
}

async fn evict(State(pool): State<Pool>, Json(request): Json<api::EvictRequest>) -> Answer<api::Evicted> {
    let member = find_member(&pool, &request.peer_id)?;
    let departed = pool.evict(member.peer, &request.reason).await?;
    Ok(Json(api::Evicted { evicted: member.peer.to_string(), votes_still: departed.votes_still }))
}

async fn leave(State(peer): State<Peer>, Json(request): Json<api::LeaveRequest>) -> Answer<api::Left> {
    let Peer { pool, store, .. } = peer;
    if !request.force {
        store.audit_now().await;
        let kept = store.segments_here();
        if kept > 0 {
            return Err(Refusal::Wrong(format!(
                "this peer keeps fragments of {kept} segments that would miss them: `palm drain` moves them to others first, --force \
                 leaves all the same"
            )));
        }
    }
    pool.leave().await?;
    Ok(Json(api::Left { left: pool.me().to_string(), pool_id: pool.id().to_string() }))
}

async fn plan_recovery(State(pool): State<Pool>) -> Answer<api::RecoveryPlan> {
    Ok(Json(pool.plan_recovery().await?))
}

async fn recover(State(pool): State<Pool>, Json(api::Empty {}): Json<api::Empty>) -> Answer<api::Recovered> {
    Ok(Json(pool.recover().await?))
}

async fn members(State(pool): State<Pool>) -> Json<api::Members> {
    let mut members = pool.view().members();
    members.sort_by_key(|member| (member.joined_ms, member.peer));
    Json(api::Members {
        members: members.into_iter().map(|member| describe(&pool, member)).collect(),
        waiting: report::waiting(&pool).await,
    })
}

fn describe(pool: &Pool, member: MemberStatus) -> api::Member {
    let told = member.told.as_ref();
    // The newest addresses are those it tells itself.
    let addresses = match told {
        Some(told) if !told.quic.is_empty() => told.quic.iter().map(ToString::to_string).collect(),
        _ => member.addresses,
    };
    api::Member {
        peer_id: member.peer.to_string(),
        name: member.name,
        state: if member.live { api::MemberState::Live } else { api::MemberState::Absent },
        absent_seconds: member.absent_for.as_secs(),
        voter: member.voter,
        gateway: told.is_some_and(|told| told.gateway),
        this_peer: member.peer == pool.me(),
        joined_ms: member.joined_ms,
        addresses,
        s3: told.and_then(|told| told.s3).map(|s3| format!("http://{s3}")),
        used_bytes: told.map(|told| told.used),
        free_bytes: told.map(|told| told.free).filter(|&free| free < UNBOUNDED_FREE),
        domain: told.map(|told| told.domain.clone()).filter(|domain| !domain.is_empty()),
        version: told.map(|told| told.version.clone()),
        round_trip_us: member.round_trip.and_then(|time| u64::try_from(time.as_micros()).ok()),
    }
}

/// Free space from here on means that nothing bounds it: it is told in steps, and so not exactly `u64::MAX`.
pub(super) const UNBOUNDED_FREE: u64 = 1 << 62;

async fn status(State(Peer { pool, store, .. }): State<Peer>) -> Json<api::StatusReport> {
    Json(report::of(&pool, &store).await)
}

async fn durability(State(Peer { pool, store, scrub, .. }): State<Peer>) -> Json<Estimate> {
    Json(report::durability(&pool, &store, scrub).await)
}

async fn quota(State(peer): State<Peer>, Json(request): Json<api::QuotaRequest>) -> Answer<api::BucketQuota> {
    let api::QuotaRequest { bucket, quota } = request;
    let refusal = |error| match error {
        ObjectError::NoSuchBucket => Refusal::Unknown(format!("no bucket is called {bucket:?}")),
        other => Refusal::Store(other),
    };
    if let Some(quota) = quota {
        peer.store.set_quota(&bucket, quota).await.map_err(refusal)?;
    }
    let (quota, usage) = peer.store.quota(&bucket).await.map_err(refusal)?;
    Ok(Json(api::BucketQuota { bucket, quota, usage }))
}

async fn start_task(State(tasks): State<Tasks>, Json(wish): Json<api::StartTask>) -> Json<api::TaskState> {
    Json(tasks.start(wish))
}

async fn task(State(tasks): State<Tasks>, Json(task): Json<api::Task>) -> Answer<api::TaskState> {
    state(&tasks, api::StartTask { task, dry_run: false })
}

async fn plan(State(tasks): State<Tasks>, Json(task): Json<api::Task>) -> Answer<api::TaskState> {
    state(&tasks, api::StartTask { task, dry_run: true })
}

fn state(tasks: &Tasks, wish: api::StartTask) -> Answer<api::TaskState> {
    tasks.state(wish).map(Json).ok_or_else(|| Refusal::Unknown("no such task was begun".into()))
}

async fn undrain(State(pool): State<Pool>, Json(api::Empty {}): Json<api::Empty>) -> Answer<api::Empty> {
    pool.drain(false).await?;
    Ok(Json(api::Empty {}))
}
