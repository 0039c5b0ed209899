//! A member's side of joining.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palm_core::id::{PeerId, PoolId};
use palm_core::record::{JoinRequestRecord, MemberRecord, MemberState, Stored, TokenRecord, key};
use palm_core::wire::{JoinRequest, JoinResponse, Welcome};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{info, warn};

use super::limit::Limiter;
use super::standing;
use super::token::JoinToken;
use crate::pool::ledger::{Decision, Ledger};
use crate::pool::{Dismissal, PoolError, Shared, members, scan_all};

/// How long a request that waits for approval is held before the newcomer is told to ask again.
const HOLD: Duration = Duration::from_secs(10);
/// While the ledger cannot be read, a held request tries again this often.
const RETRY: Duration = Duration::from_millis(500);
/// Requests held at once. Beyond it strangers are told to ask again.
const MAX_HELD: usize = 64;
/// Peers waiting for approval in the ledger: strangers must not be able to fill it.
const MAX_WAITING: usize = 100;
/// A peer's name for itself is cut to this many characters.
const MAX_NAME_CHARS: usize = 64;
/// For how long a door knows who waits at it: longer than a newcomer takes to ask again, which it does about every [`HOLD`].
const REMEMBERED: Duration = Duration::from_secs(30);

/// Answers those who are not members.
pub(in crate::pool) struct Doorkeeper {
    limiter: Mutex<Limiter>,
    held: Semaphore,
    lately: Lately,
}

/// Who waits at this door, and when that was last seen: of them a request that is gone was refused, and is not to be made anew.
/// Another door, or this one after a restart, takes them for new.
#[derive(Default)]
struct Lately(Mutex<HashMap<PeerId, Instant>>);

impl Lately {
    /// Whether this peer's request was there when it last asked here.
    fn has(&self, peer: PeerId) -> bool {
        self.0.lock().get(&peer).is_some_and(|seen| seen.elapsed() < REMEMBERED)
    }

    fn note(&self, peer: PeerId) {
        let mut seen = self.0.lock();
        seen.retain(|_, at| at.elapsed() < REMEMBERED);
        if seen.len() < MAX_WAITING || seen.contains_key(&peer) {
            seen.insert(peer, Instant::now());
        }
    }

    fn forget(&self, peer: PeerId) {
        self.0.lock().remove(&peer);
    }
}

/// A newcomer who asks to be let in.
struct Applicant {
    peer: PeerId,
    name: String,
    address: SocketAddr,
    token: Option<[u8; 32]>,
    /// Its request was there before.
    waits: bool,
}

/// What the door decided.
enum Verdict {
    Admitted,
    Wait,
    Refused(String),
}

impl Doorkeeper {
    pub(in crate::pool) fn new() -> Self {
        Self { limiter: Mutex::default(), held: Semaphore::new(MAX_HELD), lately: Lately::default() }
    }

    /// Answers a request from `peer`, seen at `address`.
    pub(in crate::pool) async fn answer(
        &self,
        shared: &Arc<Shared>,
        peer: PeerId,
        address: SocketAddr,
        request: JoinRequest,
    ) -> JoinResponse {
        if !self.limiter.lock().admit(address.ip(), Instant::now()) {
            warn!(%peer, %address, "join request refused: too many from this address");
            return refused("too many join requests from this address; wait a minute");
        }
        match request {
            JoinRequest::Describe => describe(shared),
            JoinRequest::Join { pool, .. } | JoinRequest::Standing { pool } if pool != shared.state.id => {
                refused(&format!("this peer is a member of pool {}, not {pool}", shared.state.id))
            }
            JoinRequest::Join { token, name, port, .. } => {
                let name = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
                let address = SocketAddr::new(address.ip(), port);
                let waits = self.lately.has(peer);
                self.attend(shared, Applicant { peer, name, address, token, waits }).await
            }
            JoinRequest::Standing { .. } => standing::answer(shared, peer),
        }
    }

    /// Decides, and holds a request that has to wait for up to [`HOLD`]: until it is approved or refused, or the ledger has
    /// its majority back.
    async fn attend(&self, shared: &Arc<Shared>, mut applicant: Applicant) -> JoinResponse {
        let Ok(_held) = self.held.try_acquire() else { return JoinResponse::Pending };
        let deadline = Instant::now() + HOLD;
        let request_key = key::join_request(applicant.peer);
        let mut changes = shared.ledger.watch();
        loop {
            let decided = decide(shared, &applicant).await;
            let retry_at = match decided {
                Ok(Verdict::Admitted) => match welcome(shared).await {
                    Ok(welcome) => return JoinResponse::Welcome(Box::new(welcome)),
                    Err(error) => return failed(&applicant, &error),
                },
                Ok(Verdict::Refused(reason)) => {
                    info!(peer = %applicant.peer, %reason, "join refused");
                    self.lately.forget(applicant.peer);
                    return JoinResponse::Refused { reason };
                }
                Ok(Verdict::Wait) => {
                    applicant.waits = true;
                    self.lately.note(applicant.peer);
                    deadline
                }
                Err(error) if Instant::now() + RETRY >= deadline => return failed(&applicant, &error),
                Err(_) => Instant::now() + RETRY,
            };
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(retry_at) => {
                        if retry_at >= deadline {
                            return JoinResponse::Pending;
                        }
                        break;
                    }
                    changed = changes.recv() => match changed {
                        Ok(changed) if changed != request_key => {}
                        // Approved or refused, or so much changed that this may be among it.
                        Ok(_) | Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return JoinResponse::Pending,
                    },
                }
            }
        }
    }
}

fn refused(reason: &str) -> JoinResponse {
    JoinResponse::Refused { reason: reason.to_owned() }
}

fn failed(applicant: &Applicant, error: &PoolError) -> JoinResponse {
    warn!(peer = %applicant.peer, %error, "join request could not be decided");
    refused(&format!("the pool cannot decide now ({error}); try again"))
}

/// Who this pool is, with the proof that this peer speaks for it.
fn describe(shared: &Shared) -> JoinResponse {
    let pool = shared.roll.pool();
    JoinResponse::Pool {
        id: shared.state.id,
        name: pool.as_ref().map_or_else(|| shared.state.name.clone(), |pool| pool.name.clone()),
        members: u16::try_from(shared.view.member_count()).unwrap_or(u16::MAX),
        max_members: pool.map_or(0, |pool| pool.max_members),
        public_key: *shared.pool_key.public_key(),
        proof: shared.pool_key.prove(shared.me),
    }
}

async fn decide(shared: &Shared, applicant: &Applicant) -> Result<Verdict, PoolError> {
    match members::read(&shared.ledger, applicant.peer).await? {
        // The welcome may have been lost on the way.
        Some(member) if member.state == MemberState::Active => return Ok(Verdict::Admitted),
        Some(member) => {
            let dismissal = Dismissal { state: member.state, reason: member.reason };
            return Ok(Verdict::Refused(format!("{dismissal}; another data directory gives it another key")));
        }
        None => {}
    }
    let Some(pool) = shared.pool_record().await? else {
        return Ok(Verdict::Refused("the pool is still being created; try again".into()));
    };
    // Two doors may each let the last one in: one member too many is no harm, refusing a rightful one would be.
    if members::count_active(&shared.ledger).await? >= usize::from(pool.max_members) {
        return Ok(Verdict::Refused(format!(
            "the pool is full: it takes {} members; `palm evict` makes room where one is gone for good",
            pool.max_members
        )));
    }
    let verdict = match applicant.token {
        Some(secret) => redeem(&shared.ledger, applicant.peer, &secret).await?,
        None if pool.open => Verdict::Admitted,
        None => look_for_approval(&shared.ledger, applicant).await?,
    };
    if matches!(verdict, Verdict::Admitted) {
        admit(shared, applicant).await?;
    }
    Ok(verdict)
}

/// What an invitation's register says of someone who presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redeemed {
    Yes,
    Unknown,
    Expired,
    Used,
}

/// Judges an invitation; `Yes` also for the peer that used it already, whose first answer may have been lost.
fn judge_token(record: Option<&TokenRecord>, peer: PeerId, now_ms: u64) -> Redeemed {
    match record {
        None => Redeemed::Unknown,
        Some(TokenRecord { used_by: Some(user), .. }) if *user == peer => Redeemed::Yes,
        Some(TokenRecord { used_by: Some(_), .. }) => Redeemed::Used,
        Some(token) if token.expires_ms <= now_ms => Redeemed::Expired,
        Some(_) => Redeemed::Yes,
    }
}

/// Uses up an invitation: decided inside the update, so that of two who present it one gets it.
async fn redeem(ledger: &Ledger, peer: PeerId, secret: &[u8; 32]) -> Result<Verdict, PoolError> {
    let now_ms = ledger.now_ms();
    let redeemed = ledger
        .update(key::token(&JoinToken::secret_hash(secret)), |current| {
            let record = current.and_then(|found| TokenRecord::decode(&found.value).ok());
            match (judge_token(record.as_ref(), peer, now_ms), record) {
                (Redeemed::Yes, Some(token)) if token.used_by.is_none() => {
                    Decision::Put(TokenRecord { used_by: Some(peer), ..token }.encode(), Redeemed::Yes)
                }
                (judged, _) => Decision::Keep(judged),
            }
        })
        .await?;
    Ok(match redeemed.answer {
        Redeemed::Yes => Verdict::Admitted,
        Redeemed::Unknown => Verdict::Refused("unknown join token: `palm invite` at a member makes one".into()),
        Redeemed::Expired => Verdict::Refused("the join token has expired: `palm invite` makes a new one".into()),
        Redeemed::Used => {
            Verdict::Refused("the join token was used by another peer: `palm invite` makes a new one".into())
        }
    })
}

/// Admits an approved applicant, turns a refused one away; writes the request of a new one down for `palm approve` and
/// `palm refuse`.
async fn look_for_approval(ledger: &Ledger, applicant: &Applicant) -> Result<Verdict, PoolError> {
    let at = key::join_request(applicant.peer);
    if let Some(found) = ledger.read(&at).await? {
        let request = JoinRequestRecord::decode(&found.value)?;
        return Ok(if request.approved { Verdict::Admitted } else { Verdict::Wait });
    }
    if applicant.waits {
        // Whoever admitted it in the meantime has taken its request away, too.
        return Ok(if is_member(ledger, applicant.peer).await? {
            Verdict::Admitted
        } else {
            Verdict::Refused("a member turned the request down (`palm refuse`); a new one may be made".into())
        });
    }
    if scan_all(ledger, &key::join_requests()).await?.len() >= MAX_WAITING {
        return Ok(Verdict::Refused(
            "too many peers wait for approval: `palm approve` and `palm refuse` answer them, a token passes them by"
                .into(),
        ));
    }
    let request = JoinRequestRecord {
        name: applicant.name.clone(),
        address: applicant.address.to_string(),
        requested_ms: ledger.now_ms(),
        approved: false,
    };
    let value = request.encode();
    ledger
        .update(at, |current| match current {
            None => Decision::Put(value.clone(), ()),
            Some(_) => Decision::Keep(()),
        })
        .await?;
    info!(peer = %applicant.peer, name = %applicant.name, address = %applicant.address, "peer waits for approval");
    Ok(Verdict::Wait)
}

/// Makes the applicant a member.
async fn admit(shared: &Shared, applicant: &Applicant) -> Result<(), PoolError> {
    let record = MemberRecord {
        name: applicant.name.clone(),
        state: MemberState::Active,
        joined_ms: shared.ledger.now_ms(),
        addresses: vec![applicant.address.to_string()],
        reason: String::new(),
    };
    let value = record.encode();
    shared
        .ledger
        .update(key::member(applicant.peer), |current| match current {
            None => Decision::Put(value.clone(), ()),
            Some(_) => Decision::Keep(()),
        })
        .await?;
    shared
        .ledger
        .update(key::join_request(applicant.peer), |current| match current {
            None => Decision::Keep(()),
            Some(_) => Decision::Delete(()),
        })
        .await?;
    shared.net.hint(applicant.peer, applicant.address);
    members::refresh_from_copy(shared);
    Ok(())
}

/// All that a new member needs.
async fn welcome(shared: &Shared) -> Result<Welcome, PoolError> {
    let mut introduced: Vec<(PeerId, Vec<String>)> = Vec::new();
    for (at, current) in scan_all(&shared.ledger, &key::members()).await? {
        let (Some(peer), Ok(record)) = (key::parse_peer(&at), MemberRecord::decode(&current.value)) else { continue };
        if record.state == MemberState::Active {
            introduced.push((peer, record.addresses));
        }
    }
    Ok(Welcome {
        pool_seed: *shared.state.seed,
        pool_key: *shared.state.sealing_key.expose(),
        config: (*shared.ledger.config()).clone(),
        members: introduced,
    })
}

/// Makes an invitation that lasts `lasts`.
pub(in crate::pool) async fn invite(
    ledger: &Ledger,
    pool: PoolId,
    me: PeerId,
    lasts: Duration,
) -> Result<JoinToken, PoolError> {
    let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    let token = JoinToken::new(pool, me, ledger.now_ms().saturating_add(lasts_ms))?;
    let value = TokenRecord { expires_ms: token.expires_ms, used_by: None }.encode();
    let at = key::token(&JoinToken::secret_hash(token.secret()));
    ledger.update(at, |_| Decision::Put(value.clone(), ())).await?;
    Ok(token)
}

/// A peer that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub peer: PeerId,
    /// Its request.
    pub request: JoinRequestRecord,
}

/// Who waits for approval, strongly read.
pub(in crate::pool) async fn waiting(ledger: &Ledger) -> Result<Vec<Waiting>, PoolError> {
    let mut waiting = Vec::new();
    for (at, current) in scan_all(ledger, &key::join_requests()).await? {
        let Some(peer) = key::parse_peer(&at) else { continue };
        let request = JoinRequestRecord::decode(&current.value)?;
        if !request.approved {
            waiting.push(Waiting { peer, request });
        }
    }
    Ok(waiting)
}

/// What became of the answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It is given; the peer hears it as soon as it asks again, which it does every few seconds.
    Now,
    /// The peer was approved before.
    Approved,
    /// Nobody of this id has asked.
    Unknown,
}

/// Approves a request.
pub(in crate::pool) async fn approve(ledger: &Ledger, peer: PeerId) -> Result<Answered, PoolError> {
    let approved = |request| JoinRequestRecord { approved: true, ..request }.encode();
    answer(ledger, peer, |request| Decision::Put(approved(request), Answered::Now)).await
}

/// Refuses a request, by taking it away: the door where its peer waits sees that it is gone. Who was approved comes in.
pub(in crate::pool) async fn refuse(ledger: &Ledger, peer: PeerId) -> Result<Answered, PoolError> {
    answer(ledger, peer, |_| Decision::Delete(Answered::Now)).await
}

async fn answer(
    ledger: &Ledger,
    peer: PeerId,
    decide: impl Fn(JoinRequestRecord) -> Decision<Answered> + Send + Sync,
) -> Result<Answered, PoolError> {
    let updated = ledger
        .update(key::join_request(peer), |current| {
            match current.and_then(|found| JoinRequestRecord::decode(&found.value).ok()) {
                None => Decision::Keep(Answered::Unknown),
                Some(request) if request.approved => Decision::Keep(Answered::Approved),
                Some(request) => decide(request),
            }
        })
        .await?;
    // The request is gone once its peer is in.
    if updated.answer == Answered::Unknown && is_member(ledger, peer).await? {
        return Ok(Answered::Approved);
    }
    Ok(updated.answer)
}

async fn is_member(ledger: &Ledger, peer: PeerId) -> Result<bool, PoolError> {
    Ok(members::read(ledger, peer).await?.is_some_and(|member| member.state == MemberState::Active))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An invitation is for one peer and for a while. The second to present it, or a late one, must be refused; the
    /// first may come again, because its welcome may have been lost and its token with it.
    #[test]
    fn a_token_admits_one_peer_in_time() {
        let (one, two) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let fresh = TokenRecord { expires_ms: 100, used_by: None };
        let used = TokenRecord { expires_ms: 100, used_by: Some(one) };
        assert_eq!(judge_token(None, one, 50), Redeemed::Unknown);
        assert_eq!(judge_token(Some(&fresh), one, 99), Redeemed::Yes);
        assert_eq!(judge_token(Some(&fresh), one, 100), Redeemed::Expired);
        assert_eq!(judge_token(Some(&used), two, 50), Redeemed::Used);
        assert_eq!(judge_token(Some(&used), one, 50), Redeemed::Yes);
        assert_eq!(judge_token(Some(&used), one, 500), Redeemed::Yes, "it was in time when it first came");
    }

    /// Story: strangers ask, wait and go, one after the other. Danger: a door that remembers them all, or that tells one who comes
    /// back much later of a refusal it never got. Expected: each is known for a while, until it was told, and the memory is bounded.
    #[tokio::test(start_paused = true)]
    async fn a_door_knows_who_waits_at_it() {
        let lately = Lately::default();
        let peer = |n: usize| PeerId::from_bytes([n as u8; 32]);
        for n in 0..2 * MAX_WAITING {
            lately.note(peer(n));
        }
        assert_eq!(lately.0.lock().len(), MAX_WAITING);
        lately.forget(peer(0));
        assert!(!lately.has(peer(0)) && lately.has(peer(1)));
        tokio::time::advance(REMEMBERED).await;
        assert!(!lately.has(peer(1)));
    }
}
