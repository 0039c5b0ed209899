//! The peer's directory: private, and held by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{CliError, failed};

/// The file whose lock says that the directory is in use. The system lets go of it when the process ends, however
/// that happens.
const LOCK_FILE: &str = "palm.lock";

/// A directory that this process has to itself, for as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Takes the directory, and makes it where it is missing.
    pub(super) fn take(path: &Path) -> Result<Self, CliError> {
        let path = std::path::absolute(path).map_err(failed(path.display()))?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(path.display()))?;
        let at = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&at)
            .map_err(failed(at.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(CliError::Failed(format!(
                "{} is in use by another peer; one directory serves one peer (--data names another)",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(at.display())(error)),
        }
    }

    /// Where it is, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    /// Said, not left to the closing of the file: a child that is being forked has a copy of it until it runs its
    /// own program. Should it fail, the closing does it.
    fn drop(&mut self) {
        let _unlocked = self.lock.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Two processes with one identity and one index would tear both. The second must be refused while the first
    /// lives, and let in when it is gone.
    #[test]
    fn one_directory_serves_one_peer() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        let first = DataDir::take(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let message = DataDir::take(&dir).unwrap_err().to_string();
        assert!(message.contains("in use"), "{message}");
        drop(first);
        assert!(DataDir::take(&dir).is_ok());
    }
}
