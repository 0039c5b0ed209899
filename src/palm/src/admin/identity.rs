//! Access keys, users and roles: what a peer is told about them and says of them.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use palm_core::record::{IdentityKind, IdentityRecord};
use palm_core::s3::account::Account;
use palm_core::s3::policy::{Attached, Policy};
use tracing::info;

use super::api::{self, path};
use super::commands::{Answer, Peer, Refusal};
use crate::pool::keys::{AccessKey, NewKey, Revoked};
use crate::pool::{Pool, PoolError, identity};

pub(super) fn routes() -> Router<Peer> {
    Router::new()
        .route(path::KEYS, get(list_keys).post(create_key))
        .route(path::REVOKE, post(revoke_key))
        .route(path::ENABLE, post(enable_key))
        .route(path::IDENTITY, post(show))
        .route(path::IDENTITIES, post(list))
        .route(path::POLICY_PUT, post(put_policy))
        .route(path::POLICY_DELETE, post(delete_policy))
        .route(path::ROLE_PUT, post(put_role))
        .route(path::IDENTITY_DELETE, post(delete))
}

async fn create_key(State(pool): State<Pool>, Json(request): Json<api::CreateKey>) -> Answer<api::CreatedKey> {
    let given = match (request.access_key, request.secret_key) {
        (None, None) => None,
        (Some(id), Some(secret)) => {
            Some(AccessKey::given(&id, &secret).map_err(|error| Refusal::Wrong(error.to_string()))?)
        }
        _ => return Err(Refusal::Wrong("an access key is given with its secret, or neither".into())),
    };
    let account = account(request.account.as_deref())?;
    let new = NewKey {
        description: request.description,
        account: Some(account.name().to_owned()),
        user: request.user,
        policies: request.policies.into_iter().map(|policy| (policy.name, policy.document)).collect(),
        given,
        expires_ms: request.expires_ms,
    };
    let created = pool.create_access_key(new).await?;
    info!(access_key = %created.id, account = account.name(), "access key made");
    Ok(Json(api::CreatedKey {
        access_key: created.id,
        secret_key: created.secret.to_string(),
        account: account.name().to_owned(),
        account_number: account.number(),
        canonical_id: account.canonical_id(),
    }))
}

async fn list_keys(State(pool): State<Pool>) -> Answer<api::Keys> {
    let keys = pool.access_keys().await?.into_iter().map(|listed| {
        let account = Account::named(&listed.record.account).ok();
        api::Key {
            access_key: listed.id,
            description: listed.record.description,
            root: listed.record.root,
            created_ms: listed.record.created_ms,
            account_number: account.as_ref().map(Account::number).unwrap_or_default(),
            canonical_id: account.as_ref().map(Account::canonical_id).unwrap_or_default(),
            account: listed.record.account,
            user: listed.record.user,
            enabled: listed.record.enabled,
            expires_ms: listed.record.expires_ms,
        }
    });
    Ok(Json(api::Keys { keys: keys.collect() }))
}

async fn revoke_key(State(pool): State<Pool>, Json(request): Json<api::RevokeKey>) -> Answer<api::Revoked> {
    match pool.revoke_access_key(&request.access_key).await? {
        Revoked::Done => {
            info!(access_key = %request.access_key, "access key revoked");
            Ok(Json(api::Revoked { revoked: request.access_key }))
        }
        Revoked::Unknown => Err(Refusal::Unknown(format!("no access key {}", request.access_key))),
        Revoked::IsRoot => Err(Refusal::Wrong(format!("{} is a root key and stays", request.access_key))),
    }
}

async fn enable_key(State(pool): State<Pool>, Json(request): Json<api::EnableKey>) -> Answer<api::Empty> {
    let api::EnableKey { access_key, enabled } = request;
    if !pool.enable_access_key(&access_key, enabled).await? {
        return Err(Refusal::Unknown(format!("no access key {access_key} that may be changed")));
    }
    info!(access_key, enabled, "access key changed");
    Ok(Json(api::Empty {}))
}

async fn show(State(pool): State<Pool>, Json(who): Json<api::Identity>) -> Answer<api::IdentityState> {
    let account = account(who.account.as_deref())?;
    let record = pool.identity((account.name(), who.kind, &who.name)).await?;
    let record = record.ok_or_else(|| nobody(&who))?;
    let policies = record.policies.into_iter().map(|(name, document)| api::Policy { name, document });
    Ok(Json(api::IdentityState { policies: policies.collect(), trust: record.trust }))
}

async fn list(State(pool): State<Pool>, Json(whose): Json<api::Identities>) -> Answer<api::Names> {
    let account = account(whose.account.as_deref())?;
    Ok(Json(api::Names { names: pool.identities(account.name(), whose.kind).await? }))
}

async fn put_policy(State(pool): State<Pool>, Json(request): Json<api::PutPolicy>) -> Answer<api::Empty> {
    let api::PutPolicy { who, policy } = request;
    change(&pool, &who, |record| identity::attach(record, &policy.name, &policy.document)).await?;
    info!(who = who.name, policy = policy.name, "policy attached");
    Ok(Json(api::Empty {}))
}

async fn delete_policy(State(pool): State<Pool>, Json(request): Json<api::DeletePolicy>) -> Answer<api::Empty> {
    let api::DeletePolicy { who, policy } = request;
    let was_there = change(&pool, &who, |record| Ok(record.detach(&policy))).await?;
    if !was_there {
        return Err(Refusal::Unknown(format!("{} has no policy {policy}", who.name)));
    }
    info!(who = who.name, policy, "policy detached");
    Ok(Json(api::Empty {}))
}

async fn put_role(State(pool): State<Pool>, Json(request): Json<api::PutRole>) -> Answer<api::Empty> {
    let account = account(request.account.as_deref())?;
    let trust = request.trust.unwrap_or_else(|| identity::trust_in(&account));
    Policy::parse(trust.as_bytes(), Attached::Trust).map_err(PoolError::from)?;
    let now_ms = pool.now_ms();
    let put = pool.change_identity((account.name(), IdentityKind::Role, &request.name), |record| {
        let created_ms = record.as_ref().map_or(now_ms, |record| record.created_ms);
        let mut role = IdentityRecord { created_ms, trust: Some(trust.clone()), ..IdentityRecord::default() };
        request
            .policies
            .iter()
            .try_for_each(|api::Policy { name, document }| identity::attach(&mut role, name, document))?;
        *record = Some(role);
        Ok(())
    });
    put.await?;
    info!(role = request.name, account = account.name(), "role put");
    Ok(Json(api::Empty {}))
}

async fn delete(State(pool): State<Pool>, Json(who): Json<api::Identity>) -> Answer<api::Empty> {
    let account = account(who.account.as_deref())?;
    let deleted = pool.change_identity((account.name(), who.kind, &who.name), |record| Ok(record.take().is_some()));
    if !deleted.await? {
        return Err(nobody(&who));
    }
    info!(who = who.name, account = account.name(), "user or role deleted");
    Ok(Json(api::Empty {}))
}

fn account(name: Option<&str>) -> Result<Account, Refusal> {
    let account = name.map_or_else(|| Ok(Account::main()), Account::named);
    account.map_err(|error| Refusal::Wrong(error.to_string()))
}

fn nobody(who: &api::Identity) -> Refusal {
    let kind = match who.kind {
        IdentityKind::User => "user",
        IdentityKind::Role => "role",
    };
    Refusal::Unknown(format!("no {kind} {}", who.name))
}

/// Changes somebody who is there.
async fn change<T: Send>(
    pool: &Pool,
    who: &api::Identity,
    change: impl Fn(&mut IdentityRecord) -> Result<T, palm_core::s3::Refusal> + Send + Sync,
) -> Result<T, Refusal> {
    let account = account(who.account.as_deref())?;
    let changed = pool.change_identity((account.name(), who.kind, &who.name), |record| match record {
        Some(record) => change(record).map(Some),
        None => Ok(None),
    });
    changed.await?.ok_or_else(|| nobody(who))
}
