//! Commands to a running peer.

use std::path::Path;
use std::time::Duration;

use super::args::Key;
use super::{CliError, print};
use crate::admin::api::{self, path};
use crate::admin::client::ask;

/// A question without a body.
const NOTHING: Option<&()> = None;

pub(super) async fn invite(data: &Path, lasts: Duration, json: bool) -> Result<(), CliError> {
    let request = api::InviteRequest { expires_seconds: lasts.as_secs() };
    let invited: api::Invited = ask(data, path::INVITE, Some(&request)).await?;
    print::invited(&invited, json);
    Ok(())
}

pub(super) async fn approve(data: &Path, peer_id: Option<String>, json: bool) -> Result<(), CliError> {
    let approved: api::Approved = ask(data, path::APPROVE, Some(&api::ApproveRequest { peer_id })).await?;
    print::approved(&approved, json);
    Ok(())
}

pub(super) async fn members(data: &Path, json: bool) -> Result<(), CliError> {
    let members: api::Members = ask(data, path::MEMBERS, NOTHING).await?;
    print::members(&members, json);
    Ok(())
}

pub(super) async fn status(data: &Path, json: bool) -> Result<(), CliError> {
    let report: api::StatusReport = ask(data, path::STATUS, NOTHING).await?;
    print::status(&report, json);
    Ok(())
}

pub(super) async fn key(data: &Path, key: Key, json: bool) -> Result<(), CliError> {
    match key {
        Key::Create { description } => {
            let created: api::CreatedKey = ask(data, path::KEYS, Some(&api::CreateKey { description })).await?;
            print::created_key(&created, json);
        }
        Key::List => {
            let keys: api::Keys = ask(data, path::KEYS, NOTHING).await?;
            print::keys(&keys, json);
        }
        Key::Revoke { access_key } => {
            let revoked: api::Revoked = ask(data, path::REVOKE, Some(&api::RevokeKey { access_key })).await?;
            print::revoked(&revoked, json);
        }
    }
    Ok(())
}
