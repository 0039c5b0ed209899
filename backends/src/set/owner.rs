//! Whose a directory of fragments is: `palm.owner` in it names the peer, so that no other one takes it while that is not
//! running (while it runs, the lock says no).

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::open::{self, OpenError};

/// One line: the owner's name.
const OWNER_FILE: &str = "palm.owner";
/// Longest one that is read back.
const OWNER_BYTES: u64 = 256;

/// Whether the place of this URL says that it is `owner`'s; `false` where it says nothing. An error when it is another's.
pub(super) fn is(url: &str, owner: &str) -> Result<bool, OpenError> {
    let Some(dir) = open::own_directory(url) else { return Ok(false) };
    match read(&dir)? {
        None => Ok(false),
        Some(found) if found == owner => Ok(true),
        Some(found) => Err(OpenError::Foreign { file: dir.join(OWNER_FILE), owner: found, dir }),
    }
}

/// Writes the owner's name, durably, into a place that is open and nobody's.
pub(super) fn claim(url: &str, owner: &str) -> Result<(), OpenError> {
    let Some(dir) = open::own_directory(url) else { return Ok(()) };
    if is(url, owner)? {
        return Ok(());
    }
    let mut file = File::create(dir.join(OWNER_FILE))?;
    writeln!(file, "{owner}")?;
    file.sync_all()?;
    Ok(File::open(&dir)?.sync_all()?)
}

/// Takes the name away: the place is nobody's.
pub(super) fn release(url: &str) -> io::Result<()> {
    let Some(dir) = open::own_directory(url) else { return Ok(()) };
    match fs::remove_file(dir.join(OWNER_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(&dir)?.sync_all()),
    }
}

fn read(dir: &Path) -> io::Result<Option<String>> {
    let file = match File::open(dir.join(OWNER_FILE)) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(OWNER_BYTES).read_to_string(&mut text)?;
    // A crash may have left an empty file.
    Ok(Some(text.trim().to_owned()).filter(|owner| !owner.is_empty()))
}
