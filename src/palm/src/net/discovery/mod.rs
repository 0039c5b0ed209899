//! Who is there: pools and peers on this network, by multicast DNS and by addresses the user lists.
//!
//! What is found here is hearsay. It says where to look; the identity of whoever answers there, and the pool's
//! proof, decide.

use std::net::SocketAddr;

use palm_core::id::{PeerId, PoolId};

mod mdns;
mod r#static;

pub use mdns::{Announcer, Browser, browse};
pub use r#static::resolve;

/// What a peer tells the network about itself and its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Which pool.
    pub pool_id: PoolId,
    /// Its name; what is beyond 200 bytes is cut off.
    pub pool_name: String,
    /// Members now.
    pub members: u16,
    /// Members at most.
    pub max_members: u16,
    /// Who announces.
    pub peer_id: PeerId,
    /// Where it listens for QUIC. With an unspecified address, the host's addresses are announced.
    pub listen: SocketAddr,
}

/// A peer that was found, as it described itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its pool.
    pub pool_id: PoolId,
    /// The pool's name, without control characters.
    pub pool_name: String,
    /// Members of the pool, as this one counts.
    pub members: u16,
    /// Members at most.
    pub max_members: u16,
    /// The peer.
    pub peer_id: PeerId,
    /// Where it says it listens; IPv4 first. Never empty.
    pub addresses: Vec<SocketAddr>,
}
