//! The pause of a proposer that lost a race.

use std::time::Duration;

use crate::hlc::Ballot;

/// What a rival's attempt is given to finish, from its ballot on: about two rounds and a sync on a LAN.
const ROUND_MS: u64 = 8;
/// The window from which a newcomer draws its pause.
const WINDOW_MS: u64 = 32;
/// An update this old draws from half the window, one twice as old from a third, and so on.
const AGE_STEP_MS: u64 = 50;
/// The longest pause of one that cannot reach a quorum: nobody is in the way, and asking in vain costs everyone.
const LONGEST_MS: u64 = 100;

/// How long to wait before the next attempt. `attempts` were made (at least one); the update's first ballot is `age_ms`
/// old; `rival` is the highest ballot that stood in the way, `None` when too few answered; `draw` is random.
///
/// The rival is let finish: interrupting it costs both. Then the longest-waiting should come first, so the
/// window shrinks with age. Doubling it with every attempt, the usual way, does the opposite: whoever
/// lost waits longest, and a key under constant writes was once outrun by more than a record's history holds.
pub fn backoff(attempts: u32, age_ms: u64, rival: Option<Ballot>, now_ms: u64, draw: u32) -> Duration {
    let share = |window_us: u64| (window_us * u64::from(draw)) >> 32;
    let micros = match rival {
        None => {
            let bound = (2 << attempts.min(8)).min(LONGEST_MS) * 1_000;
            bound / 2 + share(bound)
        }
        Some(rival) => {
            // A clock ahead of ours must not make us wait for it: its ballot counts as just given.
            let running_ms = now_ms.saturating_sub(rival.stamp.millis());
            let window_ms = WINDOW_MS * AGE_STEP_MS / (AGE_STEP_MS + age_ms);
            ROUND_MS.saturating_sub(running_ms) * 1_000 + share(window_ms.max(2) * 1_000)
        }
    };
    Duration::from_micros(micros)
}
