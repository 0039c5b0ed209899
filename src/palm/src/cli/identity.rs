//! Commands about access keys, users and roles.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use palm_core::record::IdentityKind;

use super::args::{Key, Policy, Role, Who};
use super::{CliError, failed, print};
use crate::admin::api::{self, path};
use crate::admin::client::{Reach, ask};

/// A question without a body.
const NOTHING: Option<&()> = None;

pub(super) async fn key(reach: &Reach, key: Key, json: bool) -> Result<(), CliError> {
    match key {
        Key::Create { description, account, user, policy, access_key, secret_key, expires } => {
            let expires_ms =
                expires.map(|lasts| now_ms().saturating_add(lasts.0.as_millis().try_into().unwrap_or(u64::MAX)));
            let policies = policy.iter().map(|policy| read(policy)).collect::<Result<_, _>>()?;
            let wish = api::CreateKey { description, account, user, policies, access_key, secret_key, expires_ms };
            let created: api::CreatedKey = ask(reach, path::KEYS, Some(&wish)).await?;
            print::created_key(&created, json);
        }
        Key::List => {
            let keys: api::Keys = ask(reach, path::KEYS, NOTHING).await?;
            print::keys(&keys, json);
        }
        Key::Revoke { access_key } => {
            let revoked: api::Revoked = ask(reach, path::REVOKE, Some(&api::RevokeKey { access_key })).await?;
            print::revoked(&revoked, json);
        }
        Key::Disable { access_key } => enable(reach, access_key, false, json).await?,
        Key::Enable { access_key } => enable(reach, access_key, true, json).await?,
        Key::Policy(Policy::Put { who, policy }) => {
            let wish = api::PutPolicy { who: identity(who), policy: read(&policy)? };
            let _: api::Empty = ask(reach, path::POLICY_PUT, Some(&wish)).await?;
            print::done(&format!("{} has the policy {}.", wish.who.name, wish.policy.name), json);
        }
        Key::Policy(Policy::Get { who }) => {
            let state: api::IdentityState = ask(reach, path::IDENTITY, Some(&identity(who))).await?;
            print::identity(&state, json);
        }
        Key::Policy(Policy::Delete { who, policy }) => {
            let wish = api::DeletePolicy { who: identity(who), policy };
            let _: api::Empty = ask(reach, path::POLICY_DELETE, Some(&wish)).await?;
            print::done(&format!("{} has the policy {} no more.", wish.who.name, wish.policy), json);
        }
    }
    Ok(())
}

pub(super) async fn role(reach: &Reach, role: Role, json: bool) -> Result<(), CliError> {
    match role {
        Role::Create { name, policy, trust, account } => {
            let policies = policy.iter().map(|policy| read(policy)).collect::<Result<_, _>>()?;
            let trust = trust.map(|file| std::fs::read_to_string(&file).map_err(failed(file.display()))).transpose()?;
            let wish = api::PutRole { account, name, policies, trust };
            let _: api::Empty = ask(reach, path::ROLE_PUT, Some(&wish)).await?;
            print::done(&format!("Role {} made.", wish.name), json);
        }
        Role::List { account } => {
            let wish = api::Identities { account, kind: IdentityKind::Role };
            let names: api::Names = ask(reach, path::IDENTITIES, Some(&wish)).await?;
            print::names(&names, json);
        }
        Role::Delete { name, account } => {
            let wish = api::Identity { account, kind: IdentityKind::Role, name };
            let _: api::Empty = ask(reach, path::IDENTITY_DELETE, Some(&wish)).await?;
            print::done(&format!("Role {} deleted.", wish.name), json);
        }
    }
    Ok(())
}

async fn enable(reach: &Reach, access_key: String, enabled: bool, json: bool) -> Result<(), CliError> {
    let wish = api::EnableKey { access_key, enabled };
    let _: api::Empty = ask(reach, path::ENABLE, Some(&wish)).await?;
    print::done(&format!("{} is {}.", wish.access_key, if enabled { "enabled" } else { "disabled" }), json);
    Ok(())
}

fn identity(Who { user, role, account }: Who) -> api::Identity {
    match (user, role) {
        (Some(name), _) => api::Identity { account, kind: IdentityKind::User, name },
        (None, role) => api::Identity { account, kind: IdentityKind::Role, name: role.unwrap_or_default() },
    }
}

/// A policy by the name of one that is always there, or from a file, whose name without its ending it gets.
fn read(given: &str) -> Result<api::Policy, CliError> {
    let actions = match given {
        "readonly" => Some(r#"["s3:Get*","s3:List*"]"#),
        "readwrite" => Some(r#""s3:*""#),
        "writeonly" => Some(r#"["s3:PutObject","s3:AbortMultipartUpload","s3:ListMultipartUploadParts"]"#),
        _ => None,
    };
    if let Some(actions) = actions {
        let statement = format!(r#"{{"Effect":"Allow","Action":{actions},"Resource":"*"}}"#);
        let document = format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
        return Ok(api::Policy { name: given.to_owned(), document });
    }
    let document = std::fs::read_to_string(given).map_err(failed(format!("policy {given}")))?;
    let stem = Path::new(given).file_stem().and_then(|stem| stem.to_str());
    Ok(api::Policy { name: stem.unwrap_or("policy").to_owned(), document })
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
