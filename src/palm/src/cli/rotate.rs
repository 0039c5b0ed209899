//! A file that does not grow for ever: when it is full it is put aside under a number, and the oldest of those goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// A file is full before it is longer.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// Full files kept beside the one that is written, as `NAME.1`, the newest, to `NAME.8`.
const FULL_KEPT: u32 = 8;

/// The file. Its writer is `&Rotating`; every call is a line, which stays whole.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    open: Mutex<(File, u64)>,
}

impl Rotating {
    /// Goes on with the file, or makes it, for its owner's eyes alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::bounded(path, FILE_MAX_BYTES)
    }

    fn bounded(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), max_bytes, open: Mutex::new((file, len)) })
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&self) -> io::Result<File> {
        for number in (1..FULL_KEPT).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1))?;
        append(&self.path)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Write for &Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock();
        if open.1 > 0 && open.1 + line.len() as u64 > self.max_bytes {
            *open = (self.rotate()?, 0);
        }
        open.0.write_all(line)?;
        open.1 += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: an audit log is written for years. Danger: it fills the disk, or a line is lost or cut where one file ends. Expected: the
    /// newest lines are all there, whole, in a bounded number of files; and a restart goes on where it was.
    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for number in 0..100 {
            let file = Rotating::bounded(&path, 32).unwrap();
            (&file).write_all(format!("line {number:03}\n").as_bytes()).unwrap();
        }
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        let file = Rotating::bounded(&path, 32).unwrap();
        let kept: String = (1..=FULL_KEPT).rev().map(|number| read(file.aside(number))).collect();
        let lines: Vec<String> = (75..99).map(|number| format!("line {number:03}\n")).collect();
        assert_eq!(kept, lines.concat());
        assert_eq!(read(path), "line 099\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), FULL_KEPT as usize + 1);
    }
}
