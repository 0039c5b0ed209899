//! The machine: directory, secrets, limits, disks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Resource, geteuid, getrlimit};

use super::Check;
use crate::admin::token::TOKEN_FILE;
use crate::admin::words::size;
use crate::config::Settings;
use crate::net::identity::IDENTITY_FILE;

/// Fewer open files than this are few for a database and the connections of a busy S3 endpoint.
const FEW_DESCRIPTORS: u64 = 4096;
/// A write is acknowledged after several syncs: slower ones are felt.
const SLOW_SYNC: Duration = Duration::from_millis(20);
const SYNCS: usize = 9;
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// Less room than this is nearly none.
const LITTLE_ROOM: u64 = 1 << 30;
const PROBE_FILE: &str = ".palm-doctor";

/// The peer's directory: there, ours, and closed to others.
pub(super) fn directory(dir: &Path) -> Check {
    const NAME: &str = "directory";
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(NAME, format!("{shown} is not there yet: the first start makes it"));
        }
        Err(error) => return Check::fail(NAME, format!("{shown}: {error}"), "name another with --data"),
    };
    let (mode, owner, me) = (metadata.permissions().mode() & 0o777, metadata.uid(), geteuid().as_raw());
    if !metadata.is_dir() {
        Check::fail(NAME, format!("{shown} is no directory"), "name another with --data")
    } else if owner != me {
        let mend = "run palm as the user that owns it";
        Check::warn(NAME, format!("{shown} belongs to user {owner}, and this is user {me}"), mend)
    } else if mode & 0o077 != 0 {
        Check::warn(NAME, format!("{shown} has mode {mode:o}: others can look into it"), format!("chmod 700 {shown}"))
    } else {
        Check::ok(NAME, format!("{shown}, closed to others"))
    }
}

/// The files that make whoever reads them this peer.
pub(super) fn secrets(dir: &Path) -> Check {
    const NAME: &str = "secrets";
    let mut found = 0;
    for file in [IDENTITY_FILE, TOKEN_FILE] {
        let path = dir.join(file);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let found = format!("{} has mode {mode:o}: others can read it", path.display());
            return Check::fail(NAME, found, format!("chmod 600 {}", path.display()));
        }
        found += 1;
    }
    match found {
        0 => Check::ok(NAME, "none yet: the first start makes them"),
        _ => Check::ok(NAME, "only the owner can read them"),
    }
}

/// How many files a process may have open.
pub(super) fn descriptors() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FEW_DESCRIPTORS => {
            let mend = format!("ulimit -n {}, or LimitNOFILE= in the systemd unit", FEW_DESCRIPTORS * 16);
            Check::warn(NAME, format!("{limit} at most in this shell"), mend)
        }
        Some(limit) => Check::ok(NAME, format!("{limit} at most")),
        None => Check::ok(NAME, "no limit"),
    }
}

/// Every place where this peer keeps or will keep something, two on one disk once.
pub(super) async fn disks(settings: &Settings) -> Vec<Check> {
    let urls = settings.backend.url.iter().chain(&settings.backend.urls);
    let dirs = urls.filter_map(|url| url.strip_prefix("disk://")).map(|rest| rest.split('?').next().unwrap_or(rest));
    let mut places: Vec<(u64, PathBuf)> = Vec::new();
    for place in std::iter::once(settings.data.clone()).chain(dirs.map(PathBuf::from)) {
        let Some(there) = place.ancestors().find(|dir| dir.is_dir()) else { continue };
        let Ok(device) = fs::metadata(there).map(|metadata| metadata.dev()) else { continue };
        if places.iter().all(|&(known, _)| known != device) {
            places.push((device, there.to_owned()));
        }
    }
    let looks = places.into_iter().map(|(_, place)| tokio::task::spawn_blocking(move || [sync(&place), room(&place)]));
    futures::future::join_all(looks).await.into_iter().flatten().flatten().collect()
}

/// How long a small write takes to be on the disk for good, the median of some.
fn sync(place: &Path) -> Check {
    const NAME: &str = "disk sync";
    let shown = place.display();
    match time_sync(place) {
        Err(error) => Check::fail(
            NAME,
            format!("{shown} takes no file: {error}"),
            "free the disk, or name another with --data or --backend",
        ),
        Ok(took) if took > SLOW_SYNC => {
            let mend =
                "every write waits for this: an SSD, or a disk with a write cache that survives power loss, is faster";
            Check::warn(NAME, format!("{shown}: {:.1} ms", took.as_secs_f64() * 1e3), mend)
        }
        Ok(took) => Check::ok(NAME, format!("{shown}: {:.1} ms", took.as_secs_f64() * 1e3)),
    }
}

fn time_sync(place: &Path) -> io::Result<Duration> {
    let path = place.join(format!("{PROBE_FILE}-{}", std::process::id()));
    let measured = (|| {
        let mut file = File::create_new(&path)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let started = Instant::now();
            file.write_all(&BLOCK)?;
            file.sync_all()?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        Ok(times[SYNCS / 2])
    })();
    match fs::remove_file(&path) {
        Err(error) if measured.is_ok() => Err(error),
        _ => measured,
    }
}

fn room(place: &Path) -> Check {
    const NAME: &str = "disk room";
    let shown = place.display();
    match rustix::fs::statvfs(place) {
        Err(error) => Check::fail(NAME, format!("{shown}: {error}"), "name another with --data or --backend"),
        Ok(stat) => match stat.f_bavail.saturating_mul(stat.f_frsize) {
            free @ 0..LITTLE_ROOM => {
                let mend = "free some, or name another disk with --backend: a full one takes no more fragments";
                Check::warn(NAME, format!("{shown}: {} free", size(free)), mend)
            }
            free => Check::ok(NAME, format!("{shown}: {} free", size(free))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// A directory that others may enter, and a key that they may read. Danger: a peer whose name anybody can take. Expected: told,
    /// with the command that mends it; and nothing to tell once it is run.
    #[test]
    fn open_secrets_are_told() {
        let root = tempfile::tempdir().unwrap();
        let (dir, key) = (root.path().join("data"), root.path().join("data").join(IDENTITY_FILE));
        let verdicts = |dir: &Path| (directory(dir).verdict, secrets(dir).verdict);
        assert_eq!(verdicts(&dir), (Verdict::Ok, Verdict::Ok), "nothing is there yet");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&key, "x").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(verdicts(&dir), (Verdict::Warn, Verdict::Fail));
        assert_eq!(secrets(&dir).mend.unwrap(), format!("chmod 600 {}", key.display()));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(verdicts(&dir), (Verdict::Ok, Verdict::Ok));
    }

    /// A disk is measured by writing to it. Danger: what was written stays, once for every look.
    #[test]
    fn a_measured_disk_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(time_sync(dir.path()).unwrap() < Duration::from_secs(60));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(sync(&dir.path().join("nowhere")).verdict, Verdict::Fail);
        assert_ne!(room(dir.path()).verdict, Verdict::Fail);
    }
}
