//! What simulated peers get from the operating system: randomness from the seed, and a time of day that is virtual and off
//! by each machine's own skew.
//!
//! Two libc functions are replaced in this test program, for the thread that simulates; everything asks them in the end:
//! hash maps, tokio's choice among ready branches, ids, `SystemTime::now`. That keeps seams out of the product and
//! catches dependencies too. Only TLS keeps its own randomness, since AWS-LC has a generator of its own. Its messages have
//! the same lengths whatever it draws; but a packet that comes after its keys are gone (a handshake's, repeated to a peer that
//! was restarted meanwhile) looks random, and QUIC drops it for one reason or another, with or without a word. About one
//! seed in twenty depends on that.

#![expect(unsafe_code, reason = "these stand in for two C functions")]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::time::Duration;

/// Virtual time per step of the simulation. Machine number n is switched on after n steps, which is how the clock tells
/// whose it is.
pub const STEP: Duration = Duration::from_millis(1);
/// Machines in a simulation, at most.
pub const MAX_MACHINES: usize = 8;
/// The time of day when a simulation begins: November 2026.
pub const DAWN: Duration = Duration::from_secs(1_795_000_000);

thread_local! {
    /// State of the generator; `None` on threads that do not simulate.
    static RANDOMNESS: Cell<Option<u64>> = const { Cell::new(None) };
    /// Milliseconds by which each machine's clock is ahead.
    static SKEWS_MS: Cell<[i64; MAX_MACHINES]> = const { Cell::new([0; MAX_MACHINES]) };
}

/// From now on this thread's randomness follows from the seed and its time of day is virtual.
pub fn simulate(seed: u64) {
    RANDOMNESS.set(Some(seed));
}

/// Sets a machine's clock ahead, or back.
pub fn skew(machine: usize, ahead_ms: i64) {
    let mut skews = SKEWS_MS.get();
    skews[machine] = ahead_ms;
    SKEWS_MS.set(skews);
}

/// The next random number (`SplitMix64`); `None` on threads that do not simulate.
fn next() -> Option<u64> {
    let state = RANDOMNESS.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOMNESS.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// The time of day on the machine that runs now.
fn time_of_day() -> Duration {
    let Some(elapsed) = turmoil::sim_elapsed() else { return DAWN };
    let steps_before = elapsed.saturating_sub(turmoil::elapsed()).as_millis() / STEP.as_millis();
    let ahead_ms = SKEWS_MS.get()[steps_before as usize % MAX_MACHINES];
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    if ahead_ms < 0 { (DAWN + elapsed).saturating_sub(off) } else { DAWN + elapsed + off }
}

/// Stands in for `getrandom(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    if RANDOMNESS.get().is_none() {
        // SAFETY: the caller's own arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as isize };
    }
    for at in 0..len {
        let byte = next().unwrap_or_default() as u8;
        // SAFETY: the caller promises `len` bytes at `buffer`.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    len.cast_signed()
}

/// Stands in for `clock_gettime(2)`: the time of day is simulated, other clocks are not.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if clock != libc::CLOCK_REALTIME || RANDOMNESS.get().is_none() {
        // SAFETY: the caller's own arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    }
    let now = time_of_day();
    let now = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: c_long::from(now.subsec_nanos()) };
    // SAFETY: the caller promises room for a timespec.
    unsafe { time.write(now) };
    0
}
