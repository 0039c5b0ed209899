//! Backends of the peer that is asked.

use serde::{Deserialize, Serialize};

/// All backends of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// In order of number.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// By which it is called, here and in the metrics.
    pub number: u16,
    /// Its URL without options.
    pub url: String,
    /// What it fails together with; missing where that is its peer's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `well`, `full`, `read-only` or `failed`.
    pub state: String,
    /// What is wrong with it, in words.
    pub ill: Option<String>,
    /// It is being emptied, to be removed.
    pub leaving: bool,
    /// What holds that up, in words.
    pub stuck: Option<String>,
    /// Fragments kept; missing where it does not tell.
    pub fragments: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Bytes that it could still take; missing where nothing bounds it.
    pub free_bytes: Option<u64>,
}

/// Asks to add a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddBackend {
    /// With its options.
    pub url: String,
}

/// Asks to remove a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveBackend {
    /// Its number or its URL.
    pub backend: String,
    /// How.
    pub how: Removal,
}

/// How a backend is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// Once it is empty: its fragments are moved first.
    Emptied,
    /// At once, with what it has.
    Forced,
    /// Not any more.
    Undone,
}
