//! The admin socket's file. Paths of Unix sockets are short by law of the kernel (107 bytes on Linux); data
//! directories are not.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The socket's name in a data directory.
pub const SOCKET_FILE: &str = "admin.sock";
/// Longest path that fits `sockaddr_un` everywhere: macOS has 104 bytes, of which one ends it.
const MAX_PATH_BYTES: usize = 103;

/// The socket in `dir` by a path that is short enough. The file keeps such a path valid.
fn short_path(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = dir.join(SOCKET_FILE);
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return Ok((path, None));
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let open = File::open(dir)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(SOCKET_FILE);
        Ok((short, Some(open)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let detail = format!(
            "{} is longer than the {MAX_PATH_BYTES} bytes a unix socket's path may have; choose a shorter --data",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, detail))
    }
}

/// Listens in a data directory that this process has to itself. A file left by a crash is replaced.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (path, _open) = short_path(dir)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the peer that has this data directory.
pub async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (path, _open) = short_path(dir)?;
    UnixStream::connect(&path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory deep in a tree: the socket's path is longer than the kernel takes. Commands must reach the
    /// peer all the same, nobody else may open it, and a socket left by a crash must not keep the next start out.
    #[tokio::test]
    async fn sockets_work_in_deep_directories_and_after_crashes() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(80)).join("e".repeat(80));
        std::fs::create_dir_all(&deep).unwrap();
        for dir in [root.path(), deep.as_path()] {
            drop(listen(dir).unwrap());
            let listener = listen(dir).unwrap();
            let mode = std::fs::metadata(dir.join(SOCKET_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let (accepted, connected) = tokio::join!(listener.accept(), connect(dir));
            accepted.unwrap();
            connected.unwrap();
        }
        assert!(connect(Path::new("/nowhere")).await.is_err());
    }
}
