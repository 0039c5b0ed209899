//! `palm bench`: the load generator, against this peer or any other S3 server.

use std::time::Duration;

use palm_bench::{Arguments, load};

use super::identity::now_ms;
use super::task::spinning;
use super::{CliError, failed, print};
use crate::admin::api::{self, path};
use crate::admin::client::{Reach, ask};

/// A key made for a run is not taken for longer, should the run end without revoking it.
const KEY_LASTS: Duration = Duration::from_hours(24);

/// Measures, and fails when requests did. Without `--endpoint` it is the peer in reach, without a key one made for the occasion.
pub(super) async fn run(reach: Result<Reach, CliError>, mut arguments: Arguments, json: bool) -> Result<(), CliError> {
    let mut made = None;
    if arguments.endpoint.is_empty() {
        let reach = reach?;
        arguments.endpoint.push(this_endpoint(&reach).await?);
        if arguments.access_key.is_none() {
            let key = make_key(&reach).await?;
            arguments.access_key = Some(key.access_key.clone());
            arguments.secret_key = Some(key.secret_key);
            made = Some((reach, key.access_key));
        }
    }
    let measured = measure(arguments, json).await;
    if let Some((reach, access_key)) = made {
        let _: api::Revoked = ask(&reach, path::REVOKE, Some(&api::RevokeKey { access_key })).await?;
    }
    measured
}

async fn measure(arguments: Arguments, json: bool) -> Result<(), CliError> {
    let plan = arguments.plan().map_err(|error| CliError::Usage(format!("{error:#}")))?;
    let words = format!("measuring {}", plan.endpoints.join(", "));
    let report =
        spinning(&words, json, load::run(plan)).await.map_err(|error| CliError::Failed(format!("{error:#}")))?;
    print::bench(&report, json);
    match report.failures() {
        0 => Ok(()),
        some => Err(CliError::Failed(format!("{some} requests failed"))),
    }
}

/// The S3 endpoint of the peer in reach.
async fn this_endpoint(reach: &Reach) -> Result<String, CliError> {
    let members: api::Members = ask(reach, path::MEMBERS, None::<&()>).await?;
    let this = members.members.into_iter().find(|member| member.this_peer);
    let missing = || CliError::Failed("this peer has no S3 endpoint: name another's with --endpoint".into());
    this.and_then(|member| member.s3).ok_or_else(missing)
}

async fn make_key(reach: &Reach) -> Result<api::CreatedKey, CliError> {
    let expires_ms = now_ms().saturating_add(KEY_LASTS.as_millis().try_into().map_err(failed("time"))?);
    let wish =
        api::CreateKey { description: "palm bench".into(), expires_ms: Some(expires_ms), ..api::CreateKey::default() };
    Ok(ask(reach, path::KEYS, Some(&wish)).await?)
}
