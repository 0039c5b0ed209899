//! What the commands and the peer say to each other over the admin socket: JSON, and the same JSON that `--json`
//! prints.

use serde::{Deserialize, Serialize};

mod backends;
mod keys;
mod status;
mod tasks;

pub use backends::*;
pub use keys::*;
pub use status::*;
pub use tasks::*;

pub use crate::pool::status::Status;
pub use crate::pool::{Recovered, RecoveryPlan};
pub use palm_core::durability::Estimate;
pub use palm_core::repair::Health;
pub use palm_core::s3::quota::{Quota, Usage};

/// Asks for an invitation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteRequest {
    /// How long it lasts.
    pub expires_seconds: u64,
}

/// An invitation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invited {
    /// The token: a secret.
    pub join_token: String,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// The pool.
    pub pool_id: String,
    /// Where this peer can be asked to join.
    pub addresses: Vec<String>,
}

/// Asks what a bucket may hold, or sets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuotaRequest {
    /// Which.
    pub bucket: String,
    /// What it may hold from now on; none only asks.
    pub quota: Option<Quota>,
}

/// What a bucket may hold and holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BucketQuota {
    /// Which.
    pub bucket: String,
    /// What it may hold.
    pub quota: Quota,
    /// What it holds; counted only where it has a quota.
    pub usage: Option<Usage>,
}

/// Asks to approve or to refuse one peer, or all that wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applicants {
    /// Which; none means all.
    pub peer_id: Option<String>,
}

/// Who was approved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approved {
    /// Peer ids.
    pub approved: Vec<String>,
}

/// Who was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refused {
    /// Peer ids.
    pub refused: Vec<String>,
}

/// The members of the pool, and who waits to become one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Members {
    /// In order of admission.
    pub members: Vec<Member>,
    /// Who waits for approval; missing without a majority of voters.
    pub waiting: Vec<Waiting>,
}

/// A member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Which.
    pub peer_id: String,
    /// What it calls itself.
    pub name: String,
    /// Whether it is believed alive.
    pub state: MemberState,
    /// For how long the peer that answers has not seen it, seconds; 0 while it lives.
    pub absent_seconds: u64,
    /// Whether it votes on metadata.
    pub voter: bool,
    /// Whether it keeps no fragments, by its settings.
    #[serde(default)]
    pub gateway: bool,
    /// Whether it is the peer that answers.
    pub this_peer: bool,
    /// When it was admitted, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// Where it was last known.
    pub addresses: Vec<String>,
    /// Its S3 endpoint.
    pub s3: Option<String>,
    /// Bytes it stores.
    pub used_bytes: Option<u64>,
    /// Bytes it could still store; absent when nothing bounds it.
    pub free_bytes: Option<u64>,
    /// What fails together with it.
    pub domain: Option<String>,
    /// Its program version.
    pub version: Option<String>,
    /// Round-trip time to it, microseconds.
    pub round_trip_us: Option<u64>,
}

/// Whether a member is believed alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Live,
    /// It does not.
    Absent,
}

/// Asks for one member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindMember {
    /// Its name, its id, or the beginning of it.
    pub peer: String,
}

/// Asks to send a member away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvictRequest {
    /// Which.
    pub peer_id: String,
    /// What it is told; may be empty.
    pub reason: String,
}

/// A member was sent away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evicted {
    /// Which.
    pub evicted: String,
    /// The voters have not yet come to go on without it; they will.
    pub votes_still: bool,
}

/// Asks this peer to leave its pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// Even though it keeps fragments.
    pub force: bool,
}

/// This peer has left its pool and stops.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Left {
    /// Its id, which opens nothing there any more.
    pub left: String,
    /// The pool.
    pub pool_id: String,
}

/// Asks for something that needs no more words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Empty {}

/// A peer that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Which.
    pub peer_id: String,
    /// What it calls itself.
    pub name: String,
    /// Where it asked from.
    pub address: String,
    /// When, milliseconds since the Unix epoch.
    pub requested_ms: u64,
}

/// A command failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Why, for people.
    pub error: String,
}

/// Paths of the commands.
pub mod path {
    /// POST [`InviteRequest`](super::InviteRequest), answers [`Invited`](super::Invited).
    pub const INVITE: &str = "/v1/invite";
    /// POST [`Applicants`](super::Applicants), answers [`Approved`](super::Approved).
    pub const APPROVE: &str = "/v1/approve";
    /// POST [`Applicants`](super::Applicants), answers [`Refused`](super::Refused).
    pub const REFUSE: &str = "/v1/refuse";
    /// POST [`FindMember`](super::FindMember), answers [`Member`](super::Member).
    pub const FIND: &str = "/v1/members/find";
    /// POST [`EvictRequest`](super::EvictRequest), answers [`Evicted`](super::Evicted).
    pub const EVICT: &str = "/v1/members/evict";
    /// POST [`LeaveRequest`](super::LeaveRequest), answers [`Left`](super::Left).
    pub const LEAVE: &str = "/v1/leave";
    /// GET, answers [`RecoveryPlan`](super::RecoveryPlan); POST [`Empty`](super::Empty), answers
    /// [`Recovered`](super::Recovered).
    pub const RECOVER: &str = "/v1/recover";
    /// GET, answers [`Members`](super::Members).
    pub const MEMBERS: &str = "/v1/members";
    /// GET, answers [`StatusReport`](super::StatusReport).
    pub const STATUS: &str = "/v1/status";
    /// GET, answers [`Estimate`](super::Estimate).
    pub const DURABILITY: &str = "/v1/durability";
    /// POST [`QuotaRequest`](super::QuotaRequest), answers [`BucketQuota`](super::BucketQuota).
    pub const QUOTA: &str = "/v1/buckets/quota";
    /// POST [`StartTask`](super::StartTask), answers [`TaskState`](super::TaskState).
    pub const TASKS: &str = "/v1/tasks";
    /// POST [`Task`](super::Task), answers the [`TaskState`](super::TaskState) of the last of its kind.
    pub const TASK: &str = "/v1/tasks/state";
    /// The same, of the last that only said what would be done.
    pub const PLAN: &str = "/v1/tasks/plan";
    /// POST [`Empty`](super::Empty): this peer takes fragments again. Answers [`Empty`](super::Empty).
    pub const UNDRAIN: &str = "/v1/drain/undo";
    /// GET, answers [`Backends`](super::Backends); POST [`AddBackend`](super::AddBackend), answers [`Backend`](super::Backend).
    pub const BACKENDS: &str = "/v1/backends";
    /// POST [`RemoveBackend`](super::RemoveBackend), answers the [`Backend`](super::Backend) as it was.
    pub const BACKEND_REMOVE: &str = "/v1/backends/remove";
    /// GET, answers [`Keys`](super::Keys); POST [`CreateKey`](super::CreateKey), answers
    /// [`CreatedKey`](super::CreatedKey).
    pub const KEYS: &str = "/v1/keys";
    /// POST [`RevokeKey`](super::RevokeKey), answers [`Revoked`](super::Revoked).
    pub const REVOKE: &str = "/v1/keys/revoke";
    /// POST [`EnableKey`](super::EnableKey), answers [`Empty`](super::Empty).
    pub const ENABLE: &str = "/v1/keys/enable";
    /// POST [`Identity`](super::Identity), answers [`IdentityState`](super::IdentityState).
    pub const IDENTITY: &str = "/v1/identity";
    /// POST [`Identities`](super::Identities), answers [`Names`](super::Names).
    pub const IDENTITIES: &str = "/v1/identities";
    /// POST [`PutPolicy`](super::PutPolicy), answers [`Empty`](super::Empty).
    pub const POLICY_PUT: &str = "/v1/identity/policy";
    /// POST [`DeletePolicy`](super::DeletePolicy), answers [`Empty`](super::Empty).
    pub const POLICY_DELETE: &str = "/v1/identity/policy/delete";
    /// POST [`PutRole`](super::PutRole), answers [`Empty`](super::Empty).
    pub const ROLE_PUT: &str = "/v1/role";
    /// POST [`Identity`](super::Identity), answers [`Empty`](super::Empty).
    pub const IDENTITY_DELETE: &str = "/v1/identity/delete";
}
