//! What the commands and the peer say to each other over the admin socket: JSON, and the same JSON that `--json`
//! prints.

use palm_core::record::IdentityKind;
use serde::{Deserialize, Serialize};

mod backends;

pub use backends::*;

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

/// Asks to approve one peer, or all that wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApproveRequest {
    /// Which; none means all.
    pub peer_id: Option<String>,
}

/// Who was approved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approved {
    /// Peer ids.
    pub approved: Vec<String>,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// Asks for a new access key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateKey {
    /// What it is for.
    pub description: String,
    /// Name of the account; none: the pool's main one.
    #[serde(default)]
    pub account: Option<String>,
    /// Whose it is; none: the account's own, which may do anything in it.
    #[serde(default)]
    pub user: Option<String>,
    /// Policies to attach to the user.
    #[serde(default)]
    pub policies: Vec<Policy>,
    /// Its id; none: a random one.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Its secret.
    #[serde(default)]
    pub secret_key: Option<String>,
    /// Not taken from then on, milliseconds since the Unix epoch.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// A policy of a user or role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// By which it is replaced or taken away.
    pub name: String,
    /// The document.
    pub document: String,
}

/// A user or role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the account; none: the main one.
    pub account: Option<String>,
    /// What it is.
    pub kind: IdentityKind,
    /// Its name.
    pub name: String,
}

/// What a user or role may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityState {
    /// In order of name.
    pub policies: Vec<Policy>,
    /// Of a role: who may assume it.
    pub trust: Option<String>,
}

/// Asks for all users or roles of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identities {
    /// Name of the account; none: the main one.
    pub account: Option<String>,
    /// Which.
    pub kind: IdentityKind,
}

/// Names, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Names {
    /// The names.
    pub names: Vec<String>,
}

/// Attaches a policy to who is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutPolicy {
    /// To whom.
    pub who: Identity,
    /// What.
    pub policy: Policy,
}

/// Takes a policy away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeletePolicy {
    /// From whom.
    pub who: Identity,
    /// Its name.
    pub policy: String,
}

/// Makes a role, in place of one of the same name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutRole {
    /// Name of the account; none: the main one.
    pub account: Option<String>,
    /// Its name.
    pub name: String,
    /// What it may.
    pub policies: Vec<Policy>,
    /// Who may assume it; none: who may do so in its account.
    pub trust: Option<String>,
}

/// A new access key. The secret is told this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The access key id.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
    /// Name of its account, which is its display name too.
    pub account: String,
    /// 12 digits.
    pub account_number: String,
    /// By which ACLs know the account.
    pub canonical_id: String,
}

/// All access keys, without secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys {
    /// In order of id.
    pub keys: Vec<Key>,
}

/// An access key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// The access key id.
    pub access_key: String,
    /// What it is for.
    pub description: String,
    /// Made with the pool, cannot be revoked.
    pub root: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Name of its account.
    pub account: String,
    /// 12 digits.
    pub account_number: String,
    /// By which ACLs know the account.
    pub canonical_id: String,
    /// Whose it is; none: the account's own.
    pub user: Option<String>,
    /// Taken at all.
    pub enabled: bool,
    /// Not taken from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// Asks to revoke an access key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeKey {
    /// The access key id.
    pub access_key: String,
}

/// Asks to have a key taken or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnableKey {
    /// The access key id.
    pub access_key: String,
    /// Taken or not.
    pub enabled: bool,
}

/// A key was revoked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revoked {
    /// Its id.
    pub revoked: String,
}

/// The pool, in figures and in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// Members, voters and policy.
    #[serde(flatten)]
    pub status: Status,
    /// What the living members found counting, added up.
    pub health: Health,
    /// How old the oldest of their counts is, seconds. `None`: some member has not counted yet.
    pub counted_seconds: Option<u64>,
    /// Names of living members that did not tell what they found.
    pub silent: Vec<String>,
    /// Seconds until the repair queues are empty, at the pace of the last minute. `None`: they are, or nothing moves.
    pub repair_eta_seconds: Option<u64>,
    /// Members that give their fragments away.
    pub draining: Vec<Draining>,
    /// The words, the most urgent first.
    pub words: Vec<String>,
}

/// A member that gives its fragments away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// What it calls itself.
    pub name: String,
    /// Which.
    pub peer_id: String,
    /// Bytes that it still keeps.
    pub used_bytes: u64,
}

/// What takes longer than an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// All peers count their objects, and repair what needs it.
    Repair,
    /// This peer reads and hashes all its fragments.
    Scrub,
    /// All peers count, and the overfull ones give to others.
    Rebalance,
    /// This peer looks for garbage among its fragments.
    Gc,
    /// This peer gives its fragments away.
    Drain,
    /// The backends that are to be removed are emptied.
    EmptyBackends,
}

/// Asks to begin a task, or to join the one of its kind that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTask {
    /// Which.
    pub task: Task,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Which.
    pub task: Task,
    /// Only saying what would be done.
    pub dry_run: bool,
    /// What it does now, in a few words.
    pub doing: String,
    /// How much of `total` is done.
    pub done: u64,
    /// 0 where nobody knows.
    pub total: u64,
    /// How it ended, once it has.
    pub end: Option<TaskEnd>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskEnd {
    /// Well.
    Done(Outcome),
    /// Without success, and why.
    Failed(String),
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// In words.
    pub words: Vec<String>,
    /// In figures: other ones for each task.
    #[serde(flatten)]
    pub figures: serde_json::Map<String, serde_json::Value>,
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
    /// POST [`ApproveRequest`](super::ApproveRequest), answers [`Approved`](super::Approved).
    pub const APPROVE: &str = "/v1/approve";
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
