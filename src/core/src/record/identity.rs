//! Who may come in: access keys, the users and roles of an account, and temporary sessions.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Stored, decode_exact};
use crate::s3::Refusal;
use crate::s3::account::Account;

/// Bytes all policies of one user or role may have together, with their names
/// (AWS: 10,240 for roles, <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>).
pub const POLICIES_MAX_BYTES: usize = 32 * 1024;
/// Policies of one user or role.
pub const POLICIES_MAX: usize = 20;

/// An S3 access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRecord {
    /// The secret, sealed by the pool key.
    pub sealed_secret: Vec<u8>,
    /// What it is for, in its maker's words.
    pub description: String,
    /// Made with the pool, cannot be revoked.
    pub root: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Name of the account it belongs to. Not in version 1: all was the main account's.
    pub account: String,
    /// Whose it is: the user's policies say what it may do. `None`: the account's own, which may do anything in it.
    pub user: Option<String>,
    /// Taken at all.
    pub enabled: bool,
    /// Not taken from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

impl Stored for AccessKeyRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "access key";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<AccessKeyRecord1>(Self::KIND, rest).map(Into::into),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`AccessKeyRecord`].
#[derive(Deserialize)]
struct AccessKeyRecord1 {
    sealed_secret: Vec<u8>,
    description: String,
    root: bool,
    created_ms: u64,
}

impl From<AccessKeyRecord1> for AccessKeyRecord {
    fn from(old: AccessKeyRecord1) -> Self {
        let AccessKeyRecord1 { sealed_secret, description, root, created_ms } = old;
        let account = Account::main().name().to_owned();
        Self { sealed_secret, description, root, created_ms, account, user: None, enabled: true, expires_ms: None }
    }
}

/// What kind of identity a name is of: a user and a role may have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdentityKind {
    /// Has access keys.
    User,
    /// Is assumed for a while.
    Role,
}

/// A user or a role of an account. It exists as long as its register does; without policies it may do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Name and document of each, in order of name.
    pub policies: Vec<(String, String)>,
    /// Of roles: who may assume it, as a document.
    pub trust: Option<String>,
}

impl Stored for IdentityRecord {
    const VERSION: u8 = 1;
    const KIND: &'static str = "identity";
}

impl IdentityRecord {
    /// Attaches a policy, in place of one of the same name.
    pub fn attach(&mut self, name: &str, document: &str) -> Result<(), Refusal> {
        self.policies.retain(|(known, _)| known != name);
        self.policies.push((name.to_owned(), document.to_owned()));
        self.policies.sort();
        let bytes: usize = self.policies.iter().map(|(name, document)| name.len() + document.len()).sum();
        if self.policies.len() > POLICIES_MAX || bytes > POLICIES_MAX_BYTES {
            let message = "Maximum policy size or number exceeded";
            return Err(Refusal::with_status(409, "LimitExceeded", message));
        }
        Ok(())
    }

    /// Takes a policy away; whether there was one.
    pub fn detach(&mut self, name: &str) -> bool {
        let before = self.policies.len();
        self.policies.retain(|(known, _)| known != name);
        self.policies.len() < before
    }
}

/// What a session token says once it is opened. It is not stored: the client brings it with each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The temporary access key it belongs to.
    pub access_key: String,
    /// Name of the account.
    pub account: String,
    /// Whose session it is. `None`: the account's own.
    pub holder: Option<(IdentityKind, String)>,
    /// `RoleSessionName`; empty where no role was assumed.
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// A document that takes away from what the holder may.
    pub policy: Option<String>,
}

impl Stored for Session {
    const VERSION: u8 = 1;
    const KIND: &'static str = "session";
}
