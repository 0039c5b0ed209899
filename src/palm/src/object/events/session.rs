//! Conversations that are kept for the next message: with brokers, where opening one takes longer than telling.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::debug;

use super::target::{Letter, SendError, Target};

/// Sessions that lie idle at most, of one target.
const IDLE_MAX: usize = 8;
/// A session that lay idle has so long to answer, before a new one is tried.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// How to talk to a broker.
#[async_trait]
pub(super) trait Protocol: Send + Sync {
    /// One conversation.
    type Session: Send;

    /// Begins one: connected, signed in, ready.
    async fn open(&self) -> Result<Self::Session, SendError>;

    /// Sends one message, and waits until it is taken. After an error the session is of no more use.
    async fn tell(&self, session: &mut Self::Session, letter: &Letter) -> Result<(), SendError>;
}

/// A target by a protocol, and its idle sessions.
pub(super) struct Kept<P: Protocol> {
    protocol: P,
    idle: Mutex<Vec<P::Session>>,
}

impl<P: Protocol> Kept<P> {
    pub(super) fn new(protocol: P) -> Self {
        Self { protocol, idle: Mutex::default() }
    }

    fn keep(&self, session: P::Session) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(session);
        }
    }
}

#[async_trait]
impl<P: Protocol> Target for Kept<P> {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        let idle = self.idle.lock().pop();
        if let Some(mut session) = idle {
            match timeout(IDLE_TIMEOUT, self.protocol.tell(&mut session, letter)).await {
                Ok(Ok(())) => {
                    self.keep(session);
                    return Ok(());
                }
                // The broker was restarted, or has ended what lay idle: then the others are no better.
                failed => {
                    debug!(?failed, "idle session gone");
                    self.idle.lock().clear();
                }
            }
        }
        let mut session = self.protocol.open().await?;
        self.protocol.tell(&mut session, letter).await?;
        self.keep(session);
        Ok(())
    }
}
