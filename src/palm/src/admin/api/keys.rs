//! Access keys, users and roles.

use palm_core::record::IdentityKind;
use serde::{Deserialize, Serialize};

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
