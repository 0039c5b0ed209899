//! Directories: made durable, and opened by one store at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fragment::StoreError;
use crate::open::OpenError;

/// Holds the lock and says what is in the directory.
const LOCK_FILE: &str = "palm.lock";
/// Longest text of a lock file that is read back.
const LOCK_TEXT_BYTES: u64 = 128;

/// The exclusive lock on a store's directory, an `flock`: the kernel drops it with the process.
#[derive(Debug)]
pub(crate) struct DirLock {
    path: PathBuf,
    /// Device and inode.
    place: (u64, u64),
    file: File,
}

impl DirLock {
    /// Whether a store was made in this directory.
    pub(crate) fn is_in(dir: &Path) -> bool {
        dir.join(LOCK_FILE).is_file()
    }

    /// Refuses when the directory is no longer the one that was opened. What it held stays readable and even
    /// writable through files that are open, so a write that succeeds proves nothing.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.place => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => {
                let dir = self.path.parent().unwrap_or(&self.path);
                Err(StoreError::Gone(format!("{} is not there any more", dir.display())))
            }
        }
    }

    /// Makes the directory where needed and locks it. `format` is one line that names what is kept there and its
    /// version; a directory that says something else is refused rather than misread.
    pub(crate) fn acquire(dir: &Path, format: &str) -> Result<Self, OpenError> {
        create_dir(dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut found = String::new();
        (&file).take(LOCK_TEXT_BYTES).read_to_string(&mut found)?;
        if found.is_empty() {
            file.write_all(format.as_bytes())?;
            file.sync_all()?;
            sync_dir(dir)?;
        } else if found != format {
            let (found, expected) = (found.trim().to_owned(), format.trim().to_owned());
            return Err(OpenError::Format { dir: dir.to_owned(), found, expected });
        }
        let found = file.metadata()?;
        Ok(Self { path, place: (found.dev(), found.ino()), file })
    }
}

impl Drop for DirLock {
    /// Said, not left to the closing of the file: a child that another thread forks (a plug-in being started) has a
    /// copy of it until it runs its own program, and would keep the directory in use for that long.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "a lock was not given back");
        }
    }
}

/// Makes a directory and its parents where needed, each entry durable.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_dir(parent)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Scenario: a store is closed and opened again while another thread starts a plug-in, whose process has a copy
    /// of every open file until it runs its program. Danger: the store is "in use" by nobody. Expectation: it opens.
    #[test]
    fn a_copy_of_the_file_does_not_keep_the_lock() {
        let dir = TempDir::new().unwrap();
        let lock = DirLock::acquire(dir.path(), "x\n").unwrap();
        let _as_a_child_has_it = lock.file.try_clone().unwrap();
        assert!(matches!(DirLock::acquire(dir.path(), "x\n"), Err(OpenError::InUse(_))));
        drop(lock);
        DirLock::acquire(dir.path(), "x\n").unwrap();
    }
}
