//! Scaffold.

use std::net::SocketAddr;
use std::time::Duration;

use palm_core::id::{PeerId, PoolId};

use super::NetError;

/// What a peer announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Pool.
    pub pool_id: PoolId,
    /// Name.
    pub pool_name: String,
    /// Peer.
    pub peer_id: PeerId,
    /// Members.
    pub members: u16,
    /// Members at most.
    pub max_members: u16,
    /// Where the endpoint listens.
    pub listen: SocketAddr,
}

/// A peer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Pool.
    pub pool_id: PoolId,
    /// Name.
    pub pool_name: String,
    /// Peer.
    pub peer_id: PeerId,
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// Members.
    pub members: u16,
    /// Members at most.
    pub max_members: u16,
}

/// Announces.
pub struct Announcer;

impl Announcer {
    /// Begins.
    pub fn start(interfaces: &[String], announcement: Announcement) -> Result<Self, NetError> {
        let _ = (interfaces, announcement);
        unimplemented!()
    }
    /// Changes.
    pub fn update(&self, announcement: Announcement) {
        let _ = announcement;
    }
}

/// Listens.
pub struct Browser;

impl Browser {
    /// Begins.
    pub fn start(interfaces: &[String]) -> Result<Self, NetError> {
        let _ = interfaces;
        unimplemented!()
    }
    /// The next.
    pub async fn next(&mut self) -> Option<Found> {
        unimplemented!()
    }
}

/// Once.
pub async fn browse(interfaces: &[String], timeout: Duration) -> Result<Vec<Found>, NetError> {
    let _ = (interfaces, timeout);
    unimplemented!()
}
