//! Whether a store may still write.

use std::fmt::Display;
use std::sync::OnceLock;

use crate::fragment::StoreError;

/// Remembers the first failed sync of a store.
///
/// After a failed fsync the kernel may have dropped the dirty pages and will report the next sync as fine
/// (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). So nobody can say what is on
/// disk, and retrying would acknowledge what is not there. Only opening the store again reads the truth.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: OnceLock<String>,
}

impl Health {
    /// Refuses when a sync failed before. To be asked before anything is written.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    /// Stops all writing from now on, and answers the error to hand out.
    pub(crate) fn poison(&self, what: &str, error: &dyn Display) -> StoreError {
        let reason = self.failed.get_or_init(|| {
            tracing::error!(what, %error, "sync failed, this store takes no writes until it is opened again");
            format!("{what}: {error}")
        });
        StoreError::Poisoned(reason.clone())
    }
}
