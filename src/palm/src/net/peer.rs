//! What is known of one other peer: where it may be found, the links to it, and what waits to be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use palm_core::id::PeerId;
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, ReadError, WriteError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, Semaphore, SetOnce};
use tokio::time::sleep;
use tracing::warn;

use super::NetError;
use super::lanes::Lanes;

/// Addresses remembered for a peer, newest first.
pub(super) const MAX_HINTS: usize = 8;
/// Large frames of one member that are in memory at once.
const FRAME_BUDGET_BYTES: usize = 64 << 20;
/// Gossip messages to one peer that are on their way at once; more are dropped.
const MAX_GOSSIP_IN_FLIGHT: usize = 16;
/// Delay after the first failed attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest delay between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A superseded link is closed when nothing has been asked over it for this long.
const LINGER: Duration = Duration::from_secs(2);

/// Application error codes that close a connection; part of the protocol.
pub(super) mod close {
    use quinn::VarInt;

    /// The endpoint ends.
    pub(in crate::net) const GOODBYE: VarInt = VarInt::from_u32(0);
    /// The other end is not a member here; nothing it sent was read.
    pub(in crate::net) const NOT_A_MEMBER: VarInt = VarInt::from_u32(1);
    /// The other end broke the protocol.
    pub(in crate::net) const PROTOCOL: VarInt = VarInt::from_u32(2);
    /// Another connection to the same peer takes over.
    pub(in crate::net) const SUPERSEDED: VarInt = VarInt::from_u32(3);
    /// The other end is no longer a member here; what it asked before may have been carried out.
    pub(in crate::net) const EXPELLED: VarInt = VarInt::from_u32(5);
    /// Too many strangers at once.
    pub(in crate::net) const BUSY: VarInt = VarInt::from_u32(4);
}

/// An established connection to a member.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Whether this side dialled it.
    pub(super) dialled: bool,
    /// Large frames being read and answered.
    pub(super) frame_budget: Arc<Semaphore>,
    users: AtomicUsize,
    idle: Notify,
}

impl Link {
    pub(super) fn new(connection: Connection, dialled: bool) -> Arc<Self> {
        let frame_budget = Arc::new(Semaphore::new(FRAME_BUDGET_BYTES));
        Arc::new(Self { connection, dialled, frame_budget, users: AtomicUsize::new(0), idle: Notify::new() })
    }

    /// Keeps the link from being retired while a stream on it is in use.
    pub(super) fn occupy(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Waits until no stream is in use.
    async fn unoccupied(&self) {
        loop {
            let idle = self.idle.notified();
            if self.users.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Closes it because the other end broke the protocol.
    pub(super) fn protocol_broken(&self, peer: PeerId, detail: &str) {
        warn!(%peer, detail, "protocol broken, connection closed");
        self.connection.close(close::PROTOCOL, detail.as_bytes());
    }
}

/// A stream of this link is in use.
pub(super) struct InUse(Arc<Link>);

impl std::ops::Deref for InUse {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::Release) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// One round of dialling that all who need the peer wait for together.
pub(super) type Attempt = SetOnce<Result<Arc<Link>, NetError>>;

/// What someone who needs a link finds.
pub(super) enum Approach {
    /// There is one.
    Linked(Arc<Link>),
    /// Someone is dialling.
    Dialling(Arc<Attempt>),
    /// The asker is to dial, and to report by [`Peer::attempt_failed`] or [`Peer::add_link`].
    Dial(Arc<Attempt>),
    /// Not in reach as far as is known: not admitted, no address, or the last attempt failed.
    Away,
}

/// Another peer.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) lanes: Lanes,
    pub(super) gossip: Arc<Semaphore>,
    /// Rung for the keeper whenever something below changes.
    pub(super) bell: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    admitted: bool,
    hints: VecDeque<SocketAddr>,
    /// Where it last proved to be; kept however many hints are heard since.
    proven: Option<SocketAddr>,
    /// The link in use for new requests: one of the next two.
    current: Option<Arc<Link>>,
    dialled: Option<Arc<Link>>,
    accepted: Option<Arc<Link>>,
    attempt: Option<Arc<Attempt>>,
    /// Attempts failed since the last link or new hint.
    failures: u32,
    /// Whether the last link was closed because this peer is no member there.
    refused: bool,
}

impl Peer {
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            lanes: Lanes::default(),
            gossip: Arc::new(Semaphore::new(MAX_GOSSIP_IN_FLIGHT)),
            bell: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.state.lock().admitted
    }

    /// Answers whether that is news.
    pub(super) fn admit(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().admitted, true)
    }

    pub(super) fn expel(&self) {
        let mut state = self.state.lock();
        state.admitted = false;
        state.current = None;
        for link in [state.dialled.take(), state.accepted.take()].into_iter().flatten() {
            link.connection.close(close::EXPELLED, b"no longer a member of this pool");
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Notes an address, newest first. An unknown one is a reason to try again at once.
    pub(super) fn hint(&self, address: SocketAddr) {
        let mut state = self.state.lock();
        let known = state.hints.iter().position(|hint| *hint == address);
        match known {
            Some(0) => return,
            Some(position) => drop(state.hints.remove(position)),
            None => state.failures = 0,
        }
        state.hints.push_front(address);
        state.hints.truncate(MAX_HINTS);
        drop(state);
        if known.is_none() {
            self.bell.notify_one();
        }
    }

    /// Forgets an address at which another peer answered.
    pub(super) fn refute_hint(&self, address: SocketAddr) {
        let mut state = self.state.lock();
        state.hints.retain(|hint| *hint != address);
        state.proven = state.proven.filter(|proven| *proven != address);
    }

    /// Where it may be found, newest hint first.
    pub(super) fn hints(&self) -> Vec<SocketAddr> {
        let state = self.state.lock();
        let proven = state.proven.filter(|proven| !state.hints.contains(proven));
        state.hints.iter().copied().chain(proven).collect()
    }

    /// The link new requests use.
    pub(super) fn current(&self) -> Option<Arc<Link>> {
        self.state.lock().current.clone()
    }

    /// Finds a link or the way to one. Only the keeper is `patient`: once an attempt has failed everyone else
    /// is told so at once, until the keeper succeeds or a new hint comes.
    pub(super) fn approach(&self, patient: bool) -> Approach {
        let mut state = self.state.lock();
        if let Some(link) = &state.current {
            return Approach::Linked(link.clone());
        }
        if !state.admitted || (state.failures > 0 && !patient) {
            return Approach::Away;
        }
        if let Some(attempt) = &state.attempt {
            return Approach::Dialling(attempt.clone());
        }
        if state.hints.is_empty() {
            return Approach::Away;
        }
        let attempt = Arc::new(Attempt::new());
        state.attempt = Some(attempt.clone());
        Approach::Dial(attempt)
    }

    /// Ends an attempt for all who wait for it.
    pub(super) fn attempt_failed(&self, attempt: &Arc<Attempt>) {
        let mut state = self.state.lock();
        if state.attempt.as_ref().is_some_and(|current| Arc::ptr_eq(current, attempt)) {
            state.attempt = None;
            state.failures = state.failures.saturating_add(1);
        }
        drop(state);
        // It may have been answered already, by a connection that came from the other side meanwhile.
        let _ = attempt.set(Err(NetError::Unreachable(self.id)));
    }

    /// Whether it could be dialled and nobody has tried since it was last linked or hinted at.
    pub(super) fn is_new_gap(&self) -> bool {
        let state = self.state.lock();
        state.current.is_none() && state.failures == 0 && !state.hints.is_empty()
    }

    /// How long to wait before the next attempt; jittered so that many who lost the same peer at the same moment
    /// do not dial it in step.
    pub(super) fn backoff(&self, me: PeerId) -> Duration {
        let failures = self.state.lock().failures;
        let delay = BACKOFF_FIRST.saturating_mul(1 << failures.min(5)).min(BACKOFF_MAX);
        let mut jitter = SmallRng::seed_from_u64(me.tag() ^ self.id.tag() ^ u64::from(failures));
        delay.mul_f64(jitter.random_range(0.5..1.0))
    }

    /// Takes a new link into use; `false` (and it is closed) when the peer is no member. The newest link is the one
    /// known to live, so it is used from now on; a former link of the same direction is superseded (who dials
    /// again has lost it). Answers [`Added::Second`] when there is one of each direction.
    pub(super) fn add_link(&self, link: &Arc<Link>) -> Added {
        let mut state = self.state.lock();
        if !state.admitted {
            link.connection.close(close::NOT_A_MEMBER, b"not a member of this pool");
            return Added::Refused;
        }
        let slot = if link.dialled { &mut state.dialled } else { &mut state.accepted };
        if let Some(former) = slot.replace(link.clone()) {
            former.connection.close(close::SUPERSEDED, b"superseded by a newer connection");
        }
        state.current = Some(link.clone());
        state.proven = Some(link.connection.remote_address());
        state.failures = 0;
        let attempt = state.attempt.take();
        let both = state.dialled.is_some() && state.accepted.is_some();
        drop(state);
        if let Some(attempt) = attempt {
            let _ = attempt.set(Ok(link.clone()));
        }
        self.bell.notify_one();
        if both { Added::Second } else { Added::Only }
    }

    /// Forgets a link that has ended.
    pub(super) fn remove_link(&self, link: &Arc<Link>) {
        let mut state = self.state.lock();
        let is_it = |other: &Option<Arc<Link>>| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, link));
        if is_it(&state.dialled) {
            state.dialled = None;
        }
        if is_it(&state.accepted) {
            state.accepted = None;
        }
        if is_it(&state.current) {
            state.current = state.dialled.clone().or_else(|| state.accepted.clone());
        }
        // Who does not count this peer as a member (yet) closes every connection at once. That is no link lost but an
        // attempt failed, or the two would shake hands without pause.
        let refused = matches!(link.connection.close_reason(), Some(ConnectionError::ApplicationClosed(closed))
            if closed.error_code == close::NOT_A_MEMBER);
        if refused && state.current.is_none() {
            state.failures = state.failures.max(1);
            state.refused = true;
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Whether the peer has turned this one away since it was last asked.
    pub(super) fn take_refused(&self) -> bool {
        std::mem::take(&mut self.state.lock().refused)
    }

    /// When two links have both lived past the idle timeout both are sound. Then both sides settle on the one
    /// that the smaller id dialled, and the one who dialled the other closes it when it is no longer in use.
    pub(super) async fn settle(&self, me: PeerId) {
        let redundant = {
            let mut state = self.state.lock();
            let (Some(dialled), Some(accepted)) = (state.dialled.clone(), state.accepted.clone()) else {
                return;
            };
            let (keep, other) = if me < self.id { (dialled, accepted) } else { (accepted, dialled) };
            state.current = Some(keep);
            other
        };
        if redundant.dialled {
            // The other side may settle a little later than this one, and the last answer may still be on its way:
            // closing at the first quiet moment would cut both.
            loop {
                redundant.unoccupied().await;
                sleep(LINGER).await;
                if redundant.users.load(Ordering::Acquire) == 0 {
                    break;
                }
            }
            redundant.connection.close(close::SUPERSEDED, b"one connection is enough");
        }
    }
}

/// What became of a new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is the only one.
    Only,
    /// There is one of each direction now.
    Second,
    /// The peer is not admitted; the link is closed.
    Refused,
}

/// What a connection's end means for a request that was on it. Only a refusal proves that it was not read.
pub(super) fn link_lost(peer: PeerId, error: &ConnectionError) -> NetError {
    match error {
        ConnectionError::ApplicationClosed(closed) if closed.error_code == close::NOT_A_MEMBER => {
            NetError::Unreachable(peer)
        }
        _ => NetError::NoAnswer { peer, detail: error.to_string() },
    }
}

/// What a read that broke means for the request it was to answer.
pub(super) fn read_failed(peer: PeerId, error: &ReadError) -> NetError {
    match error {
        ReadError::ConnectionLost(error) => link_lost(peer, error),
        _ => NetError::NoAnswer { peer, detail: error.to_string() },
    }
}

/// What a write that broke means for the request it was part of.
pub(super) fn write_failed(peer: PeerId, error: &WriteError) -> NetError {
    match error {
        WriteError::ConnectionLost(error) => link_lost(peer, error),
        _ => NetError::NoAnswer { peer, detail: error.to_string() },
    }
}

/// Whether a handshake failed because another peer than the expected one answered.
pub(super) fn is_other_peer(error: &ConnectionError) -> bool {
    // TLS alerts are transport errors 0x100 to 0x1ff (RFC 9001, 4.8).
    const CRYPTO: std::ops::Range<u64> = 0x100..0x200;
    match error {
        ConnectionError::TransportError(error) => CRYPTO.contains(&u64::from(error.code)),
        _ => false,
    }
}
