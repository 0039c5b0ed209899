//! The time of day where this machine is, for quiet hours.
#![expect(unsafe_code, reason = "a foreign function")]

use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// Minutes since local midnight.
pub fn local_minute() -> u16 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to memory of the right type that lives for the whole call.
    let filled = unsafe { libc::localtime_r(&raw const seconds, local.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: a tm of zeros is one, and localtime_r has filled it.
    let local = unsafe { local.assume_init() };
    u16::try_from(local.tm_hour * 60 + local.tm_min).unwrap_or(0)
}
