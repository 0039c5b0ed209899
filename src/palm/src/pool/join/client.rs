//! The newcomer's side of joining.

use std::net::SocketAddr;
use std::time::Duration;

use palm_core::id::{PeerId, PoolId};
use palm_core::register::Config;
use palm_core::wire::{JoinRequest, JoinResponse, Welcome};
use tokio::net::lookup_host;
use tokio::time::Instant;
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::token::JoinToken;
use crate::net::{Net, NetError};
use crate::net::{PoolKey, verify_proof};
use crate::pool::secret::SealingKey;

/// How long one answer may take; members hold a request for 10 s while it waits for approval.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a newcomer keeps trying members that do not answer before it gives up.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Pause between tries.
const RETRY: Duration = Duration::from_secs(1);
/// Members a welcome may name; pools have at most 64.
const MAX_INTRODUCED: usize = 256;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coordinator {
    /// `host:port`, as typed.
    Named(String),
    /// An address found by discovery.
    Found(SocketAddr),
}

/// What a newcomer wants.
#[derive(Debug, Clone)]
pub struct JoinWish {
    /// Which pool; whoever answers must prove that it speaks for it.
    pub pool: PoolId,
    /// Members to ask, in turn. Any will do.
    pub coordinators: Vec<Coordinator>,
    /// The invitation, if there is one.
    pub token: Option<JoinToken>,
    /// What this peer calls itself.
    pub name: String,
}

/// How joining is going, for the person who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A member was found and has proved itself; it waits for someone to approve.
    WaitingForApproval,
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody asked was a member, or none answered.
    #[error("no member of pool {pool} answered ({last}); is the address right and its quic port open?")]
    NoAnswer {
        /// Which pool.
        pool: PoolId,
        /// What the last one said.
        last: String,
    },
    /// Whoever answered is of another pool.
    #[error("the peer at {address} is a member of pool {found} ({name:?}), not of {wanted}")]
    OtherPool {
        /// Who was asked.
        address: SocketAddr,
        /// What it belongs to.
        found: PoolId,
        /// That pool's name.
        name: String,
        /// What was wanted.
        wanted: PoolId,
    },
    /// Whoever answered claims the pool and cannot prove it.
    #[error("the peer at {address} claims pool {pool} and cannot prove it; nothing was sent to it")]
    Unproven {
        /// Who was asked.
        address: SocketAddr,
        /// What it claims.
        pool: PoolId,
    },
    /// Refused for good.
    #[error("join refused: {0}")]
    Refused(String),
    /// A proven member broke the protocol.
    #[error("a member's answer makes no sense: {0}")]
    Malformed(&'static str),
}

/// What a newcomer has when it is in.
pub(in crate::pool) struct Admission {
    /// The pool's name.
    pub(in crate::pool) name: String,
    /// Seed of the pool's key.
    pub(in crate::pool) seed: Zeroizing<[u8; 32]>,
    /// Seals the pool's secrets.
    pub(in crate::pool) sealing_key: SealingKey,
    /// The voters.
    pub(in crate::pool) config: Config,
    /// Members and their addresses, the one that answered with the address it answered at.
    pub(in crate::pool) introduced: Vec<(PeerId, Vec<String>)>,
}

/// How one member, asked once, answered.
enum Answer {
    Welcome(Admission),
    Pending,
}

/// A failure of one try.
enum Failure {
    /// The next address, or the same one later, may do better.
    TryOn(String),
    Final(JoinError),
}

/// Asks until admitted, refused, or nobody answers for [`GIVE_UP`]. Waiting for approval has no end: the person who
/// started it decides.
pub(in crate::pool) async fn ask(
    net: &Net,
    wish: &JoinWish,
    progress: impl Fn(Progress),
) -> Result<Admission, JoinError> {
    let mut last_answer = Instant::now();
    let mut told = false;
    loop {
        let mut last = "no address to ask".to_owned();
        let mut pending = false;
        for address in resolve(&wish.coordinators, &mut last).await {
            match ask_one(net, wish, address).await {
                Ok(Answer::Welcome(admission)) => return Ok(admission),
                Ok(Answer::Pending) => {
                    pending = true;
                    last_answer = Instant::now();
                    if !told {
                        told = true;
                        progress(Progress::WaitingForApproval);
                    }
                    break;
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::TryOn(detail)) => {
                    debug!(%address, %detail, "no answer from this address");
                    last = detail;
                }
            }
        }
        if last_answer.elapsed() > GIVE_UP {
            return Err(JoinError::NoAnswer { pool: wish.pool, last });
        }
        if !pending {
            info!(pool = %wish.pool, reason = %last, "no member answers yet; trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn resolve(coordinators: &[Coordinator], last: &mut String) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for coordinator in coordinators {
        match coordinator {
            Coordinator::Found(address) => addresses.push(*address),
            Coordinator::Named(name) => match lookup_host(name).await {
                Ok(found) => addresses.extend(found),
                Err(error) => *last = format!("{name}: {error}"),
            },
        }
    }
    addresses.dedup();
    addresses
}

async fn ask_one(net: &Net, wish: &JoinWish, address: SocketAddr) -> Result<Answer, Failure> {
    let (member, name) = identify(net, wish.pool, address).await?;
    let request = JoinRequest::Join {
        pool: wish.pool,
        token: wish.token.as_ref().map(|token| *token.secret()),
        name: wish.name.clone(),
        port: net.local_addr().port(),
    };
    // The token is shown to the peer that has proved itself, and to nobody who answers in its place.
    let (_, response) =
        net.join_call(address, Some(member), request, ASK_TIMEOUT).await.map_err(|error| try_on(&error))?;
    match response {
        JoinResponse::Welcome(welcome) => {
            accept(wish.pool, name, *welcome, member, address).map(Answer::Welcome).map_err(Failure::Final)
        }
        JoinResponse::Pending => Ok(Answer::Pending),
        JoinResponse::Refused { reason } => Err(Failure::Final(JoinError::Refused(reason))),
        JoinResponse::Pool { .. } | JoinResponse::Standing { .. } => {
            Err(Failure::Final(JoinError::Malformed("another answer where a verdict belongs")))
        }
    }
}

fn try_on(error: &NetError) -> Failure {
    Failure::TryOn(error.to_string())
}

/// Has whoever is at `address` prove that it speaks for the pool, before any secret is shown to it: anyone can
/// announce a pool's id by mDNS.
async fn identify(net: &Net, wanted: PoolId, address: SocketAddr) -> Result<(PeerId, String), Failure> {
    let described = net.join_call(address, None, JoinRequest::Describe, ASK_TIMEOUT).await;
    let (peer, response) = described.map_err(|error| try_on(&error))?;
    match response {
        JoinResponse::Pool { id, name, .. } if id != wanted => {
            Err(Failure::Final(JoinError::OtherPool { address, found: id, name, wanted }))
        }
        JoinResponse::Pool { name, public_key, proof, .. } => {
            if verify_proof(wanted, &public_key, peer, &proof) {
                Ok((peer, name))
            } else {
                Err(Failure::Final(JoinError::Unproven { address, pool: wanted }))
            }
        }
        JoinResponse::Refused { reason } => Err(Failure::TryOn(reason)),
        JoinResponse::Pending | JoinResponse::Welcome(_) | JoinResponse::Standing { .. } => {
            Err(Failure::TryOn("an answer out of turn".into()))
        }
    }
}

/// Checks a welcome before anything of it is kept.
fn accept(
    pool: PoolId,
    name: String,
    welcome: Welcome,
    member: PeerId,
    address: SocketAddr,
) -> Result<Admission, JoinError> {
    let seed = Zeroizing::new(welcome.pool_seed);
    let pool_key = PoolKey::from_seed(&seed).map_err(|_| JoinError::Malformed("the pool key is no key"))?;
    if pool_key.pool_id() != pool {
        return Err(JoinError::Malformed("the pool key is another pool's"));
    }
    if welcome.config.voters.is_empty() || welcome.members.len() > MAX_INTRODUCED {
        return Err(JoinError::Malformed("no voters, or too many members"));
    }
    let mut introduced = welcome.members;
    let answered_at = address.to_string();
    match introduced.iter_mut().find(|(peer, _)| *peer == member) {
        Some((_, addresses)) if addresses.contains(&answered_at) => {}
        Some((_, addresses)) => addresses.push(answered_at),
        None => introduced.push((member, vec![answered_at])),
    }
    Ok(Admission {
        name,
        seed,
        sealing_key: SealingKey::from_bytes(welcome.pool_key),
        config: welcome.config,
        introduced,
    })
}
