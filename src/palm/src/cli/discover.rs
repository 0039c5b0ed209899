//! `palm discover-pools`, and finding a pool's members where no address was typed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use palm_core::id::{PeerId, PoolId};
use palm_core::wire::{JoinRequest, JoinResponse};
use serde::Serialize;

use super::task::spinning;
use super::{CliError, failed, print};
use crate::config::Settings;
use crate::net::discovery::{Found, browse};
use crate::net::identity::verify_proof;
use crate::net::{Identity, Net};
use crate::pool::join::Coordinator;
use crate::pool::secret::fill_random;

/// How long a peer may take to say which pool it is of.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a joiner without an address listens for members.
const JOIN_LISTEN: Duration = Duration::from_secs(5);
/// Addresses tried per pool.
const MAX_ADDRESSES: usize = 16;

/// A pool on this network.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PoolLine {
    pub(super) name: String,
    pub(super) id: String,
    /// A member's, one that answered where any did.
    pub(super) address: String,
    pub(super) members: u16,
    pub(super) max_members: u16,
    /// Whether a member answered and proved that it speaks for the pool.
    pub(super) reachable: bool,
}

/// Shows the pools that announce themselves, and whether they answer.
pub(super) async fn run(settings: &Settings, timeout_seconds: u64, json: bool) -> Result<(), CliError> {
    let listening = browse(&settings.discovery.interfaces, Duration::from_secs(timeout_seconds));
    let found = spinning("listening for pools", json, listening).await?;
    let net = bystander(settings)?;
    let lines = join_all(by_pool(found).into_values().map(|members| describe(&net, members))).await;
    net.close().await;
    print::pools(&lines.into_iter().flatten().collect::<Vec<_>>(), json);
    Ok(())
}

/// An endpoint with a name made up for the occasion: looking around needs no data directory.
fn bystander(settings: &Settings) -> Result<Net, CliError> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    fill_random(seed.as_mut_slice()).map_err(failed("randomness"))?;
    let listen = SocketAddr::new(settings.quic.address.ip(), 0);
    Ok(Net::bind(&Identity::from_seed(&seed)?, listen)?)
}

fn by_pool(found: Vec<Found>) -> BTreeMap<PoolId, Vec<Found>> {
    let mut pools: BTreeMap<PoolId, Vec<Found>> = BTreeMap::new();
    for member in found {
        pools.entry(member.pool_id).or_default().push(member);
    }
    pools
}

/// One pool's line: by a member that proves itself, otherwise as announced.
async fn describe(net: &Net, members: Vec<Found>) -> Option<PoolLine> {
    let addresses: Vec<SocketAddr> =
        members.iter().flat_map(|member| member.addresses.iter().copied()).take(MAX_ADDRESSES).collect();
    let announced = members.into_iter().max_by_key(|member| member.members)?;
    let answers = join_all(addresses.iter().map(|&address| ask(net, announced.pool_id, address))).await;
    if let Some(line) = answers.into_iter().flatten().next() {
        return Some(line);
    }
    Some(PoolLine {
        name: announced.pool_name,
        id: announced.pool_id.to_string(),
        address: addresses.first().map(ToString::to_string).unwrap_or_default(),
        members: announced.members,
        max_members: announced.max_members,
        reachable: false,
    })
}

async fn ask(net: &Net, pool: PoolId, address: SocketAddr) -> Option<PoolLine> {
    match net.join_call(address, None, JoinRequest::Describe, DESCRIBE_TIMEOUT).await {
        Ok((peer, JoinResponse::Pool { id, name, members, max_members, public_key, proof }))
            if id == pool && verify_proof(pool, &public_key, peer, &proof) =>
        {
            let address = address.to_string();
            Some(PoolLine { name, id: id.to_string(), address, members, max_members, reachable: true })
        }
        _ => None,
    }
}

/// Looks for members by mDNS.
pub(super) struct Lookout<'a> {
    settings: &'a Settings,
}

impl<'a> Lookout<'a> {
    /// A lookout, unless the settings forbid mDNS.
    pub(super) fn of(settings: &'a Settings) -> Result<Self, CliError> {
        if settings.discovery.mdns {
            Ok(Self { settings })
        } else {
            Err(CliError::Usage("--coordinator is needed: discovery.mdns is off".into()))
        }
    }

    /// Where members of this pool say they are, the inviter's addresses first.
    pub(super) async fn coordinators(
        &self,
        pool: PoolId,
        inviter: Option<PeerId>,
    ) -> Result<Vec<Coordinator>, CliError> {
        let mut found = browse(&self.settings.discovery.interfaces, JOIN_LISTEN).await?;
        found.retain(|member| member.pool_id == pool);
        found.sort_by_key(|member| Some(member.peer_id) != inviter);
        let addresses = found.iter().flat_map(|member| member.addresses.iter().copied());
        let coordinators: Vec<Coordinator> = addresses.map(Coordinator::Found).take(MAX_ADDRESSES).collect();
        if coordinators.is_empty() {
            return Err(CliError::Failed(format!(
                "no member of pool {pool} announces itself on this network; name one with --coordinator HOST:PORT"
            )));
        }
        Ok(coordinators)
    }
}
