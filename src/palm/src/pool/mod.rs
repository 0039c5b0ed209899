//! Pools: membership, liveness, and the ledger over the network.
//!
//! A [`Pool`] is one peer's part in its pool. Reading order: [`state`] (what a peer keeps), this file (starting and
//! stopping), [`join`] (how peers come in), [`members`] and [`liveness`] (who is in and who lives, put together in the
//! [`view`]), [`voters`] (who votes), [`departure`] (who goes), [`recovery`] (when too many are lost), [`ledger`] (the
//! metadata).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use palm_backends::{Backends, IndexStore};
use palm_core::id::{PeerId, PoolId};
use palm_core::place::Policy;
use palm_core::record::{
    Consistency, DecodeError, IdentityKind, IdentityRecord, MemberRecord, MemberState, PoolRecord, Stored,
    WhenMinority, key,
};
use palm_core::register::Config;
use palm_core::s3::Refusal;
use palm_core::s3::storage_class::ClassPolicy;
use palm_core::wire::{MAX_SCAN_ENTRIES, ScanQuery};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

pub mod address;
mod beacon;
mod departure;
pub mod gossip;
mod handler;
pub mod identity;
pub mod join;
pub mod keys;
pub mod ledger;
mod liveness;
mod members;
pub mod recovery;
pub mod secret;
pub mod session;
pub mod state;
pub mod status;
pub mod view;
pub mod voters;

pub use departure::{Departed, Dismissal};
pub use handler::Homes;
pub use join::{JoinToken, JoinWish, Progress};
pub use keys::AccessKey;
pub use ledger::{Current, Decision, Ledger, LedgerError, Updated};
pub use recovery::{Recovered, RecoveryPlan};
pub use secret::SealingKey;
pub use state::PoolState;
pub use view::{MemberStatus, View};

use crate::net::PoolKey;
use crate::net::{Net, NetError};
use gossip::Gossip;
use ledger::Item;
use members::Roll;
use state::{Origin, StateError};

/// Members a pool takes unless it is created otherwise.
pub const DEFAULT_MAX_MEMBERS: u16 = 10;
/// Metadata is whole on every full member: beyond this a campus is several pools.
pub const MAX_MAX_MEMBERS: u16 = 64;
/// How long the invitation lasts that a creator is given.
const FIRST_INVITATION: Duration = Duration::from_hours(1);
/// How long a start waits for the members to be known; without a majority they may not be.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// A scan of a small family (members, keys) never takes more pages than this.
const MAX_PAGES: usize = 64;

/// Why a pool could not do it.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The ledger could not decide; a change may or may not have been made, as the ledger's error says.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// This peer's own knowledge of its pool could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A record in the ledger does not read.
    #[error("record: {0}")]
    Record(#[from] DecodeError),
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// The endpoint failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Joining failed; nothing was kept.
    #[error(transparent)]
    Join(#[from] join::JoinError),
    /// Gossip could not start.
    #[error("gossip: {0}")]
    Gossip(String),
    /// It would do harm as things stand, or makes no sense; nothing was done. In words.
    #[error("{0}")]
    Refused(String),
    /// Breaks a rule of S3's or IAM's; nothing was done.
    #[error(transparent)]
    Wrong(#[from] Refusal),
}

/// What a pool is made from: a bound endpoint that does not serve yet, and this peer's stores.
#[derive(Clone)]
pub struct Parts {
    /// The endpoint.
    pub net: Net,
    /// Keeps the pool state and the ledger.
    pub index: Arc<dyn IndexStore>,
    /// Tells how much room there is.
    pub fragments: Arc<Backends>,
    /// What this peer calls itself.
    pub name: String,
    /// What fails together with it; empty when not set.
    pub domain: String,
    /// It keeps no fragments, and gives away those it has.
    pub is_gateway: bool,
    /// How long a member may be absent before the others go on without it.
    pub grace: Duration,
}

/// What is chosen when a pool is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPool {
    /// Shown to people and announced by mDNS.
    pub name: String,
    /// Joins beyond this are refused; at most [`MAX_MAX_MEMBERS`].
    pub max_members: u16,
    /// `None`: chosen from the number of members.
    pub policy: Option<Policy>,
    /// Admit whoever asks.
    pub open: bool,
    /// What the pool promises of its objects; never changes.
    pub consistency: Consistency,
    /// What a strong pool does for readers without a majority.
    pub when_minority: WhenMinority,
    /// Storage classes with policies of their own.
    pub classes: Vec<ClassPolicy>,
}

/// What else listens at this peer, told to others by gossip.
#[derive(Debug, Clone, Copy, Default)]
pub struct Services {
    /// The S3 endpoint.
    pub s3: Option<SocketAddr>,
    /// The admin endpoint.
    pub admin: Option<SocketAddr>,
}

/// How a peer is found and finds others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// Announce and listen by mDNS.
    pub mdns: bool,
    /// Where mDNS speaks; empty means on every interface.
    pub interfaces: Vec<String>,
    /// `host:port` of peers to look at, whoever they are.
    pub peers: Vec<String>,
}

/// What the rooms of this floor share.
struct Shared {
    me: PeerId,
    name: String,
    domain: String,
    is_gateway: bool,
    grace: Duration,
    index: Arc<dyn IndexStore>,
    state: PoolState,
    pool_key: PoolKey,
    net: Net,
    ledger: Ledger,
    fragments: Arc<Backends>,
    view: View,
    roll: Roll,
    /// Whom the network has been told to accept.
    admitted: Mutex<BTreeSet<PeerId>>,
    services: RwLock<Services>,
    dismissed: watch::Sender<Option<Dismissal>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One peer's part in its pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// Makes a pool with this peer as its only member, and a first invitation to it.
    pub async fn create(parts: Parts, new: NewPool, root: Option<AccessKey>) -> Result<(Self, JoinToken), PoolError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        secret::fill_random(seed.as_mut_slice())?;
        let pool_key = PoolKey::from_seed(&seed)?;
        let state = PoolState {
            id: pool_key.pool_id(),
            seed,
            sealing_key: SealingKey::random()?,
            name: new.name.clone(),
            initial: Config { epoch: 1, voters: BTreeSet::from([parts.net.me()]), outgoing: None },
            introduced: Vec::new(),
            origin: Origin::Created {
                settings: PoolRecord {
                    name: new.name,
                    max_members: new.max_members.clamp(1, MAX_MAX_MEMBERS),
                    policy: new.policy.map(|policy| (policy.k, policy.n)),
                    open: new.open,
                    created_ms: 0,
                    consistency: new.consistency,
                    when_minority: new.when_minority,
                    classes: new.classes,
                },
                done: false,
            },
        };
        state.save(&parts.index).await?;
        let pool = Self::open(parts, state, root).await?;
        let token = pool.invite(FIRST_INVITATION).await?;
        Ok((pool, token))
    }

    /// Joins a pool: asks, waits for approval where that is needed, and keeps what the welcome says.
    pub async fn join(parts: Parts, wish: &JoinWish, progress: impl Fn(Progress)) -> Result<Self, PoolError> {
        let admission = join::ask(&parts.net, wish, progress).await?;
        let state = PoolState {
            id: wish.pool,
            seed: admission.seed,
            sealing_key: admission.sealing_key,
            name: admission.name,
            initial: admission.config,
            introduced: admission.introduced,
            origin: Origin::Joined,
        };
        state.save(&parts.index).await?;
        Self::open(parts, state, None).await
    }

    /// Opens the pool this peer belongs to. A creator writes what a crash kept it from writing.
    pub async fn open(parts: Parts, state: PoolState, root: Option<AccessKey>) -> Result<Self, PoolError> {
        let Parts { net, index, fragments, name, domain, is_gateway, grace } = parts;
        let me = net.me();
        let pool_key = PoolKey::from_seed(&state.seed)?;
        let ledger = Ledger::open(me, Arc::clone(&index), net.clone(), Some(state.initial.clone())).await?;
        // Until the roll has the pool's settings: see `members::apply`.
        ledger.set_consistency(None);
        let mut shared = Shared {
            me,
            name,
            domain,
            is_gateway,
            grace,
            index: Arc::clone(&index),
            state,
            pool_key,
            net,
            ledger,
            fragments,
            view: View::new(me),
            roll: Roll::new(),
            admitted: Mutex::default(),
            services: RwLock::default(),
            dismissed: watch::Sender::new(None),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        shared.view.set_draining(is_gateway || departure::is_draining(&index)?);
        shared.finish_creating(&index, root).await?;
        members::introduce(&shared);
        members::refresh_from_copy(&shared);
        Ok(Self(Arc::new(shared)))
    }

    /// Begins to answer other peers and to keep the view, the members and the voters true. `homes` answers for
    /// fragments. Returns once the members are known, or after a few seconds without a majority.
    pub async fn serve(
        &self,
        homes: Arc<dyn Homes>,
        services: Services,
        discovery: Discovery,
    ) -> Result<(), PoolError> {
        let shared = &self.0;
        *shared.services.write() = services;
        let members: Vec<PeerId> = shared.roll.active().into_keys().collect();
        let told = liveness::own_figures(shared).await;
        let life = shared.ledger.now_ms();
        let gossip = Gossip::start(shared.net.clone(), shared.state.id, life, &members, &told).await;
        let gossip = Arc::new(gossip.map_err(|error| PoolError::Gossip(error.to_string()))?);
        shared.net.serve(handler::handler(Arc::clone(shared), homes, gossip.inbox()));

        let stop = || shared.stop.clone();
        let tasks = &shared.tasks;
        tasks.spawn(shared.ledger.clone().keep_level(stop()));
        tasks.spawn(shared.ledger.clone().keep_collecting(stop()));
        tasks.spawn(members::keep(Arc::clone(shared), Arc::clone(&gossip), stop()));
        tasks.spawn(liveness::keep(Arc::clone(shared), gossip, stop()));
        tasks.spawn(voters::keep(shared.ledger.clone(), shared.view.clone(), shared.grace, stop()));
        tasks.spawn(beacon::keep(Arc::clone(shared), discovery, stop()));
        self.settled().await;
        Ok(())
    }

    /// Waits until the pool's settings are known and most members, this one among them, have told how much room they have:
    /// a peer that says it is ready can place what it is given.
    async fn settled(&self) {
        let view = &self.0.view;
        let mut changes = view.changes();
        let can_place = || {
            let candidates = view.candidates();
            let knows_itself = candidates.iter().any(|candidate| candidate.peer == view.me()) || view.is_draining();
            candidates.len() * 2 > view.member_count() && knows_itself
        };
        let settled = async {
            while view.pool().is_none() || !can_place() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(SETTLE_TIMEOUT, settled).await.is_err() {
            warn!("the pool's members are not known yet: no majority of its voters answers");
        }
    }

    /// Stops every task and closes the endpoint. Requests should have been drained before.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.net.close().await;
    }

    /// This peer.
    pub fn me(&self) -> PeerId {
        self.0.me
    }

    /// What this peer calls itself.
    pub fn peer_name(&self) -> &str {
        &self.0.name
    }

    /// The pool.
    pub fn id(&self) -> PoolId {
        self.0.state.id
    }

    /// The pool's name.
    pub fn name(&self) -> String {
        self.0.roll.pool().map_or_else(|| self.0.state.name.clone(), |pool| pool.name)
    }

    /// The metadata.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Who lives.
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// The endpoint.
    pub fn net(&self) -> &Net {
        &self.0.net
    }

    /// Seals the pool's secrets.
    pub fn sealing_key(&self) -> &SealingKey {
        &self.0.state.sealing_key
    }

    /// This peer's own fragments.
    pub fn fragments(&self) -> &Arc<Backends> {
        &self.0.fragments
    }

    /// Whether this peer made the pool.
    pub fn is_creator(&self) -> bool {
        self.0.state.is_creator()
    }

    /// Makes an invitation.
    pub async fn invite(&self, lasts: Duration) -> Result<JoinToken, PoolError> {
        join::invite(&self.0.ledger, self.0.state.id, self.0.me, lasts).await
    }

    /// Who waits for approval.
    pub async fn waiting(&self) -> Result<Vec<join::Waiting>, PoolError> {
        join::waiting(&self.0.ledger).await
    }

    /// Lets a waiting peer in.
    pub async fn approve(&self, peer: PeerId) -> Result<join::Answered, PoolError> {
        join::approve(&self.0.ledger, peer).await
    }

    /// Turns a waiting peer away; it may ask again.
    pub async fn refuse(&self, peer: PeerId) -> Result<join::Answered, PoolError> {
        join::refuse(&self.0.ledger, peer).await
    }

    /// A root access key from this peer's copy: may be missing where the copy is behind.
    pub fn root_key(&self) -> Option<AccessKey> {
        let registers = self.0.ledger.local_scan(&key::access_keys()).ok()?;
        registers.into_iter().find_map(|(at, current)| {
            let record = palm_core::record::AccessKeyRecord::decode(&current.value).ok()?;
            let id = std::str::from_utf8(at.get(1..)?).ok()?;
            if !record.root {
                return None;
            }
            AccessKey::open(id, &record, self.sealing_key()).ok()
        })
    }

    /// Every access key.
    pub async fn access_keys(&self) -> Result<Vec<keys::ListedKey>, PoolError> {
        keys::list(&self.0.ledger).await
    }

    /// When invitations and access keys expire.
    pub fn expiries(&self) -> Result<keys::Expiries, PoolError> {
        keys::expiries(&self.0.ledger)
    }

    /// Makes an access key.
    pub async fn create_access_key(&self, new: keys::NewKey) -> Result<AccessKey, PoolError> {
        keys::create(&self.0.ledger, self.sealing_key(), new).await
    }

    /// The present, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.0.ledger.now_ms()
    }

    /// A user or role; `None` when there is none of this name.
    pub async fn identity(&self, who: identity::Who<'_>) -> Result<Option<IdentityRecord>, PoolError> {
        identity::get(&self.0.ledger, who).await
    }

    /// The names of all users, or all roles, of an account.
    pub async fn identities(&self, account: &str, kind: IdentityKind) -> Result<Vec<String>, PoolError> {
        identity::list(&self.0.ledger, account, kind).await
    }

    /// Changes, makes or deletes a user or role, inside the ledger update.
    pub async fn change_identity<T: Send>(
        &self,
        who: identity::Who<'_>,
        change: impl Fn(&mut Option<IdentityRecord>) -> Result<T, Refusal> + Send + Sync,
    ) -> Result<T, PoolError> {
        identity::change(&self.0.ledger, who, change).await
    }

    /// Has an access key taken or not, until this is changed again; `false` where there is none, or it is a root key.
    pub async fn enable_access_key(&self, id: &str, enabled: bool) -> Result<bool, PoolError> {
        keys::enable(&self.0.ledger, id, enabled).await
    }

    /// Revokes an access key.
    pub async fn revoke_access_key(&self, id: &str) -> Result<keys::Revoked, PoolError> {
        keys::revoke(&self.0.ledger, id).await
    }

    /// Makes `root` a root key of the pool if it is not: for a creator that is started with another one.
    pub async fn ensure_root_key(&self, root: AccessKey) -> Result<AccessKey, PoolError> {
        keys::ensure_root(&self.0.ledger, self.sealing_key(), Some(root)).await
    }

    /// Sends a member away, for good: its key opens nothing any more.
    pub async fn evict(&self, peer: PeerId, reason: &str) -> Result<Departed, PoolError> {
        departure::evict(&self.0, peer, reason).await
    }

    /// Begins or ends to give this peer's fragments away. Remembered over restarts.
    pub async fn drain(&self, draining: bool) -> Result<(), PoolError> {
        departure::drain(&self.0, draining).await
    }

    /// Takes this peer out of the pool, whatever it keeps. Then [`dismissed`](Self::dismissed) answers, and it should be shut
    /// down.
    pub async fn leave(&self) -> Result<Departed, PoolError> {
        departure::leave(&self.0).await
    }

    /// Returns when this peer is not a member any more.
    pub async fn dismissed(&self) -> Dismissal {
        let mut dismissed = self.0.dismissed.subscribe();
        loop {
            if let Some(dismissal) = dismissed.borrow_and_update().clone() {
                return dismissal;
            }
            if dismissed.changed().await.is_err() {
                // The pool is gone, and with it whoever could say so.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What a recovery by this peer would mean now.
    pub async fn plan_recovery(&self) -> Result<RecoveryPlan, PoolError> {
        recovery::prepare(self).await
    }

    /// Founds the ledger anew from what is in reach: for a majority of voters that is lost for ever. May lose what
    /// [`plan_recovery`](Self::plan_recovery) says.
    pub async fn recover(&self) -> Result<Recovered, PoolError> {
        recovery::carry_out(self).await
    }

    /// Where the pool stands.
    pub async fn status(&self) -> status::Status {
        status::of(self).await
    }
}

impl Shared {
    /// Notes that this peer is not a member any more.
    fn dismiss(&self, dismissal: Dismissal) {
        self.dismissed.send_if_modified(|known| {
            let news = known.is_none();
            if news {
                error!(pool = %self.state.id, reason = %dismissal.reason, "{dismissal}");
                *known = Some(dismissal);
            }
            news
        });
    }

    /// The pool's settings: as known, otherwise strongly read.
    async fn pool_record(&self) -> Result<Option<PoolRecord>, PoolError> {
        if let Some(pool) = self.roll.pool() {
            return Ok(Some(pool));
        }
        let current = self.ledger.read_shared(&key::pool()).await?;
        Ok(current.map(|found| PoolRecord::decode(&found.value)).transpose()?)
    }

    /// Writes a new pool's first records. Each is written only where it is missing, so that doing it again after a
    /// crash changes nothing.
    async fn finish_creating(&mut self, index: &Arc<dyn IndexStore>, root: Option<AccessKey>) -> Result<(), PoolError> {
        let Origin::Created { settings, done: false } = &self.state.origin else { return Ok(()) };
        let now_ms = self.ledger.now_ms();
        let settings = PoolRecord { created_ms: now_ms, ..settings.clone() };
        let member = MemberRecord {
            name: self.name.clone(),
            state: MemberState::Active,
            joined_ms: now_ms,
            addresses: address::advertised(self.net.local_addr()).iter().map(SocketAddr::to_string).collect(),
            reason: String::new(),
        };
        put_if_absent(&self.ledger, key::pool(), settings.encode()).await?;
        put_if_absent(&self.ledger, key::member(self.me), member.encode()).await?;
        keys::ensure_root(&self.ledger, &self.state.sealing_key, root).await?;
        self.state.origin = Origin::Created { settings, done: true };
        self.state.save(index).await?;
        Ok(())
    }
}

async fn put_if_absent(ledger: &Ledger, at: Bytes, value: Bytes) -> Result<(), LedgerError> {
    ledger
        .update(at, |current| match current {
            None => Decision::Put(value.clone(), ()),
            Some(_) => Decision::Keep(()),
        })
        .await?;
    Ok(())
}

/// Every live register of a small family, strongly read.
async fn scan_all(ledger: &Ledger, prefix: &Bytes) -> Result<Vec<(Bytes, Current)>, LedgerError> {
    let mut found = Vec::new();
    let mut start = prefix.clone();
    for _ in 0..MAX_PAGES {
        let query = ScanQuery { prefix: prefix.clone(), start, delimiter: None, limit: MAX_SCAN_ENTRIES };
        let page = ledger.scan(query).await?;
        found.extend(page.items.into_iter().filter_map(|item| match item {
            Item::Register(at, current) => Some((at, current)),
            Item::Group(_) => None,
        }));
        match page.next {
            Some(next) => start = next,
            None => break,
        }
    }
    Ok(found)
}
