//! The pool itself: its settings, members, invitations, and the keys that seal what buckets hold.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Stored, decode_exact};
use crate::id::PeerId;
use crate::s3::storage_class::ClassPolicy;

/// What a pool promises of its buckets and objects. Members, keys and settings are strong in every pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Linearizable; nothing is answered without a majority of the voters.
    #[default]
    Strong,
    /// Every peer answers by itself; what islands wrote is merged when they meet ([`crate::merge`]).
    Local,
}

/// What a strong pool does for readers while the majority of its voters is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenMinority {
    /// Answers 503.
    #[default]
    Refuse,
    /// Answers what the peer knows, labelled as stale.
    ReadStale,
}

/// A pool's settings, chosen when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Shown to people and announced by mDNS.
    pub name: String,
    /// Joins beyond this are refused.
    pub max_members: u16,
    /// `None`: chosen from the number of members ([`crate::place::Policy::auto`]).
    pub policy: Option<(u8, u8)>,
    /// Admit joiners at once, without token or approval.
    pub open: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Never changes: the two kinds keep their data in different places.
    pub consistency: Consistency,
    /// For strong pools.
    pub when_minority: WhenMinority,
    /// Storage classes with policies of their own. Not in version 2.
    pub classes: Vec<ClassPolicy>,
}

impl Stored for PoolRecord {
    const VERSION: u8 = 3;
    const KIND: &'static str = "pool";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<PoolRecordV1>(Self::KIND, rest).map(Self::from),
            2 => decode_exact::<PoolRecordV2>(Self::KIND, rest).map(Self::from),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// [`PoolRecord`] as version 1 had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in PoolRecord")]
pub struct PoolRecordV1 {
    pub name: String,
    pub max_members: u16,
    pub policy: Option<(u8, u8)>,
    pub open: bool,
    pub created_ms: u64,
}

impl From<PoolRecordV1> for PoolRecord {
    fn from(old: PoolRecordV1) -> Self {
        let PoolRecordV1 { name, max_members, policy, open, created_ms } = old;
        let (consistency, when_minority, classes) = Default::default();
        Self { name, max_members, policy, open, created_ms, consistency, when_minority, classes }
    }
}

/// [`PoolRecord`] as version 2 had it.
#[derive(Deserialize)]
struct PoolRecordV2 {
    name: String,
    max_members: u16,
    policy: Option<(u8, u8)>,
    open: bool,
    created_ms: u64,
    consistency: Consistency,
    when_minority: WhenMinority,
}

impl From<PoolRecordV2> for PoolRecord {
    fn from(old: PoolRecordV2) -> Self {
        let PoolRecordV2 { name, max_members, policy, open, created_ms, consistency, when_minority } = old;
        Self { name, max_members, policy, open, created_ms, consistency, when_minority, classes: Vec::new() }
    }
}

/// Where a member stands. Absence is not here: it is observed, never recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Admitted.
    Active,
    /// Sent away; its connections are refused.
    Evicted,
    /// Gone of its own accord; its connections are refused. Not in version 1.
    Left,
}

impl MemberState {
    /// Whether it is not a member any more, for good: its key opens nothing.
    pub fn is_dismissed(self) -> bool {
        self != Self::Active
    }
}

/// A peer admitted to the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Host name or what its owner called it.
    pub name: String,
    /// Where it stands.
    pub state: MemberState,
    /// When it was admitted; the oldest members are the first voters.
    pub joined_ms: u64,
    /// `host:port` it was last known at. A hint: identity decides.
    pub addresses: Vec<String>,
    /// Why it was sent away, in the words of whoever did it. Not in version 1.
    pub reason: String,
}

impl Stored for MemberRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "member";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((2, rest)) => decode_exact(Self::KIND, rest),
            Some((1, rest)) => decode_exact::<MemberRecord1>(Self::KIND, rest).map(Into::into),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`MemberRecord`].
#[derive(Deserialize)]
struct MemberRecord1 {
    name: String,
    state: MemberState,
    joined_ms: u64,
    addresses: Vec<String>,
}

impl From<MemberRecord1> for MemberRecord {
    fn from(old: MemberRecord1) -> Self {
        let MemberRecord1 { name, state, joined_ms, addresses } = old;
        Self { name, state, joined_ms, addresses, reason: String::new() }
    }
}

/// A single-use invitation, found under the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Refused from then on, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Who used it. The same peer may present it again (its first answer may have been lost).
    pub used_by: Option<PeerId>,
}
stored!(TokenRecord, 1, "token");

/// A peer that asks to be admitted and has no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequestRecord {
    /// What it calls itself.
    pub name: String,
    /// Where it asked from.
    pub address: String,
    /// When, milliseconds since the Unix epoch.
    pub requested_ms: u64,
    /// Set by `palm approve` on any member.
    pub approved: bool,
}
stored!(JoinRequestRecord, 1, "join request");

/// A bucket's data key, sealed by the pool key. Never deleted while anything may be sealed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKeyRecord {
    /// 32 bytes, sealed by the pool key.
    pub sealed: Vec<u8>,
}
stored!(DataKeyRecord, 1, "data key");
