//! The two system calls that the standard library has no words for, and all the unsafe code of this crate.
#![expect(unsafe_code, reason = "foreign functions")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Bytes that an unprivileged process may still write to the file system of `path`.
pub(super) fn available(path: &CStr) -> io::Result<u64> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with NUL and `stat` is writable memory of the right type, both for the whole call.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a statvfs that answered 0 has filled the whole structure.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Asks the kernel to begin writing a range of a file to disk, and does not wait. Advice only: whether it worked is
/// learned from the sync that must follow, whose error this call leaves in place.
#[cfg(target_os = "linux")]
pub(super) fn begin_writeback(file: &File, range: &Range<u64>) {
    let (Ok(from), Ok(len)) = (range.start.try_into(), (range.end - range.start).try_into()) else {
        return;
    };
    // SAFETY: takes no pointers, and the descriptor is open as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Elsewhere the sync does it all.
#[cfg(not(target_os = "linux"))]
pub(super) fn begin_writeback(_file: &File, _range: &Range<u64>) {}
