//! The lives of the program: started when it is asked, again after it ended, and less and less often while it keeps
//! failing.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

use super::child::Life;
use super::{ExecOptions, PROTOCOL, nonsense};
use crate::fragment::StoreError;
use crate::open::OpenError;

/// Pause after the first failure; doubled after each that follows.
const PAUSE: Duration = Duration::from_millis(100);
/// No longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A life this long was none of a series of failures.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// Starts the program as often as needed.
pub(super) struct Supervisor {
    options: ExecOptions,
    state: tokio::sync::Mutex<State>,
    /// The life that can be asked, for who must not wait.
    current: Mutex<Option<(u64, Arc<Life>)>>,
}

#[derive(Default)]
struct State {
    lives: u64,
    failures: u32,
    begun: Option<Instant>,
}

#[derive(Deserialize)]
struct Hello {
    protocol: u32,
}

impl Supervisor {
    pub(super) fn new(options: ExecOptions) -> Self {
        Self { options, state: tokio::sync::Mutex::default(), current: Mutex::default() }
    }

    /// Starts it now.
    pub(super) async fn start(&self) -> Result<(), OpenError> {
        match self.life().await {
            Ok(_) => Ok(()),
            Err(error) => Err(OpenError::BadUrl {
                url: format!("exec://{}", self.options.program.display()),
                reason: error.to_string(),
            }),
        }
    }

    /// Asks, in whatever life.
    pub(super) async fn call(&self, verb: &str, header: Value, body: Bytes) -> Result<(Value, Bytes), StoreError> {
        let (_, life) = self.life().await?;
        life.call(verb, header, body, self.options.timeout).await
    }

    /// Begins an upload; answers the life it belongs to.
    pub(super) async fn begin(&self, header: Value) -> Result<(u64, Value), StoreError> {
        let (number, life) = self.life().await?;
        let (answer, _) = life.call("begin", header, Bytes::new(), self.options.timeout).await?;
        Ok((number, answer))
    }

    /// Asks, if that life still lasts.
    pub(super) async fn call_in(
        &self,
        number: u64,
        verb: &str,
        header: Value,
        body: Bytes,
    ) -> Result<(Value, Bytes), StoreError> {
        let life = self.running(number).ok_or_else(restarted)?;
        life.call(verb, header, body, self.options.timeout).await
    }

    /// Tells, if that life still lasts.
    pub(super) fn tell(&self, number: u64, verb: &str, header: &Value) {
        if let Some(life) = self.running(number) {
            life.tell(verb, header.clone());
        }
    }

    fn running(&self, number: u64) -> Option<Arc<Life>> {
        let current = self.current.lock();
        current.as_ref().filter(|(current, life)| *current == number && !life.is_over()).map(|(_, life)| life.clone())
    }

    /// The program, running.
    async fn life(&self) -> Result<(u64, Arc<Life>), StoreError> {
        let alive = |current: &Option<(u64, Arc<Life>)>| current.clone().filter(|(_, life)| !life.is_over());
        if let Some(found) = alive(&self.current.lock()) {
            return Ok(found);
        }
        // One at a time; the others find what it started.
        let mut state = self.state.lock().await;
        if let Some(found) = alive(&self.current.lock()) {
            return Ok(found);
        }
        if let Some(begun) = state.begun {
            if begun.elapsed() > WELL_AFTER {
                state.failures = 0;
            }
            let pause = PAUSE.saturating_mul(1 << state.failures.min(16)).min(PAUSE_MAX);
            if state.lives > 0 && state.failures > 0 && begun.elapsed() < pause {
                let program = self.options.program.display();
                return Err(StoreError::Gone(format!(
                    "{program} failed {} times; it is tried again soon",
                    state.failures
                )));
            }
        }
        state.begun = Some(Instant::now());
        // Taken back when it has shown itself to be well, by the time it has lived.
        state.failures += 1;
        let life = Life::start(&self.options.program).map_err(|error| {
            StoreError::Gone(format!("{} cannot be started: {error}", self.options.program.display()))
        })?;
        let header = json!({ "protocol": PROTOCOL, "options": self.options.options });
        let (hello, _) = life.call("hello", header, Bytes::new(), self.options.timeout).await?;
        let Hello { protocol } =
            serde_json::from_value(hello).map_err(|error| nonsense("hello", &error.to_string()))?;
        if protocol != PROTOCOL {
            return Err(nonsense("hello", &format!("it speaks protocol {protocol}, not {PROTOCOL}")));
        }
        state.lives += 1;
        let life = Arc::new(life);
        *self.current.lock() = Some((state.lives, Arc::clone(&life)));
        Ok((state.lives, life))
    }
}

fn restarted() -> StoreError {
    StoreError::Io(std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the backend's program ended during the upload"))
}
