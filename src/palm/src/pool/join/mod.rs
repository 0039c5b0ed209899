//! How a peer comes into the pool: by a token, by approval, or, in an open pool, by asking.
//!
//! [`token`] is the text of an invitation, [`server`] a member's side, [`client`] the newcomer's, [`standing`]
//! how one learns that it is in no more, [`limit`] what a stranger may cost.

mod client;
mod limit;
mod server;
mod standing;
mod token;

pub use client::{Coordinator, JoinError, JoinWish, Progress};
pub use limit::Limiter;
pub use server::{Answered, Waiting};
pub use token::{JoinToken, TokenError};

pub(super) use client::ask;
pub(super) use server::{Doorkeeper, approve, invite, refuse, waiting};
pub(super) use standing::ask_standing;
