//! What systemd is told of a peer (`Type=notify`): that it serves, that it stops, and, with `WatchdogSec=`, that it still
//! lives. Without systemd nobody listens, and nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// The peer serves.
pub(super) fn ready(pool: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("Serving pool {pool}"))]);
}

/// The peer finishes its requests and ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Finishing requests")]);
}

/// Says that the peer lives, twice as often as systemd wants to hear it, from among its other tasks: when they are stuck, so
/// is this, and systemd starts the peer again.
pub(super) async fn keep_alive() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut beats = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd could not be told");
    }
}
