//! Multicast DNS (RFC 6762) and DNS-SD (RFC 6763): `_palm._udp.local.`

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use palm_core::id::{PeerId, PoolId};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::{Announcement, Found};
use crate::net::NetError;

/// The service type; part of the protocol.
const SERVICE: &str = "_palm._udp.local.";
/// Version of the TXT record. Others are ignored.
const VERSION: &str = "1";
/// A TXT entry holds 255 bytes with its key.
const MAX_NAME_BYTES: usize = 200;
/// Peers one search answers with.
const MAX_FOUND: usize = 256;
/// Addresses taken of one peer.
const MAX_ADDRESSES: usize = 8;
/// Pause before a lost subscription is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// A responder and querier with a thread of its own, which ends with it.
struct Daemon(ServiceDaemon);

impl Daemon {
    /// On the interfaces with these names or addresses; on all when the list is empty. With a list, no mDNS packet is
    /// sent anywhere else. (The kernel still tells every interface's network, once, that it joins and leaves the
    /// multicast group: the crate joins everywhere before it can be told.)
    fn start(interfaces: &[String]) -> Result<Self, NetError> {
        let daemon = Self(ServiceDaemon::new().map_err(failed)?);
        if !interfaces.is_empty() {
            // The daemon sends nothing unasked and takes commands in order, so this comes before any packet.
            daemon.0.disable_interface(IfKind::All).map_err(failed)?;
            daemon.0.enable_interface(interfaces.iter().map(|name| kind(name)).collect::<Vec<_>>()).map_err(failed)?;
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What was queued before (a goodbye) is still sent.
        if let Err(error) = self.0.shutdown() {
            debug!(%error, "mdns shutdown");
        }
    }
}

/// Keeps an announcement up; takes it back when dropped.
pub struct Announcer {
    daemon: Daemon,
    instance: String,
}

impl Announcer {
    /// Announces on the interfaces with these names or addresses; on all when the list is empty.
    pub fn start(interfaces: &[String], announcement: Announcement) -> Result<Self, NetError> {
        let daemon = Daemon::start(interfaces)?;
        let instance = instance(announcement.pool_id, announcement.peer_id);
        daemon.0.register(service(&instance, announcement)?).map_err(failed)?;
        Ok(Self { daemon, instance })
    }

    /// Announces anew, say because the number of members has changed. Pool and peer stay the same.
    pub fn update(&self, announcement: Announcement) {
        let service = service(&self.instance, announcement);
        if let Err(error) = service.and_then(|service| self.daemon.0.register(service).map_err(failed)) {
            warn!(%error, "mdns announcement not updated");
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.0.unregister(&format!("{}.{SERVICE}", self.instance)) {
            debug!(%error, "mdns goodbye");
        }
    }
}

/// Peers as they announce themselves, this one included.
pub struct Browser {
    daemon: Daemon,
    events: Receiver<ServiceEvent>,
}

impl Browser {
    /// Listens for peers of all pools on the interfaces with these names or addresses; on all when the list is empty.
    pub fn start(interfaces: &[String]) -> Result<Self, NetError> {
        let daemon = Daemon::start(interfaces)?;
        let events = daemon.0.browse(SERVICE).map_err(failed)?;
        Ok(Self { daemon, events })
    }

    /// The next peer that announced itself or changed; `None` when mDNS has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Found> {
        loop {
            match self.events.recv_async().await {
                Ok(ServiceEvent::ServiceResolved(service)) => {
                    if let Some(found) = found(&service) {
                        return Some(found);
                    }
                    debug!(service = %service.fullname, "announcement makes no sense");
                }
                Ok(_) => {}
                // The daemon drops who falls behind: a flood of announcements must cost no memory.
                Err(_) => {
                    sleep(RENEW_AFTER).await;
                    match self.daemon.0.browse(SERVICE) {
                        Ok(events) => self.events = events,
                        Err(error) => {
                            warn!(%error, "mdns has ended");
                            return None;
                        }
                    }
                }
            }
        }
    }
}

/// Everyone who announces within `timeout`, each once with its latest words, in order of pool and peer.
pub async fn browse(interfaces: &[String], timeout: Duration) -> Result<Vec<Found>, NetError> {
    let until = Instant::now() + timeout;
    let mut browser = Browser::start(interfaces)?;
    let mut all = BTreeMap::new();
    while let Ok(Some(found)) = timeout_at(until, browser.next()).await {
        if all.len() < MAX_FOUND || all.contains_key(&(found.pool_id, found.peer_id)) {
            all.insert((found.pool_id, found.peer_id), found);
        }
    }
    Ok(all.into_values().collect())
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn failed(error: mdns_sd::Error) -> NetError {
    NetError::Local(format!("mdns: {error}"))
}

/// An interface as the settings name it.
fn kind(name: &str) -> IfKind {
    name.parse::<IpAddr>().map_or_else(|_| IfKind::Name(name.into()), IfKind::Addr)
}

/// The instance name: at most 63 bytes, and nobody else's.
fn instance(pool: PoolId, peer: PeerId) -> String {
    let mut peer = peer.to_string();
    peer.truncate(24);
    format!("{pool}-{peer}")
}

fn service(instance: &str, announcement: Announcement) -> Result<ServiceInfo, NetError> {
    let mut name = announcement.pool_name;
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    let text = [
        ("v", VERSION.to_string()),
        ("pool", announcement.pool_id.to_string()),
        ("name", name),
        ("peer", announcement.peer_id.to_string()),
        ("members", announcement.members.to_string()),
        ("max", announcement.max_members.to_string()),
    ];
    let host = format!("palm-{}.local.", announcement.peer_id.short());
    let listen = announcement.listen;
    let info = if listen.ip().is_unspecified() {
        let mut info =
            ServiceInfo::new(SERVICE, instance, &host, (), listen.port(), &text[..]).map(ServiceInfo::enable_addr_auto);
        if let Ok(info) = &mut info
            && listen.is_ipv4()
        {
            info.set_interfaces(vec![IfKind::IPv4]);
        }
        info
    } else {
        ServiceInfo::new(SERVICE, instance, &host, listen.ip(), listen.port(), &text[..])
    };
    let mut info = info.map_err(failed)?;
    // The names are made of key hashes, so nobody else has them by accident; probing would only cost a second,
    // and let a liar rename us.
    info.set_requires_probe(false);
    Ok(info)
}

/// What a peer said, as far as it makes sense: it may be anyone's bytes.
fn found(service: &ResolvedService) -> Option<Found> {
    let text = |key| service.get_property_val_str(key);
    if text("v") != Some(VERSION) || service.port == 0 {
        return None;
    }
    let mut addresses: Vec<_> = service
        .addresses
        .iter()
        .map(ScopedIp::to_ip_addr)
        .filter(is_dialable)
        .map(|ip| SocketAddr::new(ip, service.port))
        .collect();
    addresses.sort();
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return None;
    }
    Some(Found {
        pool_id: text("pool")?.parse().ok()?,
        pool_name: text("name")?.chars().filter(|char| !char.is_control()).collect(),
        members: text("members")?.parse().ok()?,
        max_members: text("max")?.parse().ok()?,
        peer_id: text("peer")?.parse().ok()?,
        addresses,
    })
}

/// Whether an address means the same to whoever dials it: IPv6 link-local ones do not, without their interface.
fn is_dialable(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn loopback() -> Vec<String> {
        vec!["lo".into()]
    }

    fn announcement(pool: u8, peer: u8, members: u16) -> Announcement {
        Announcement {
            pool_id: PoolId::from_public_key(&[pool; 32]),
            pool_name: format!("pool {pool}, \u{1b}[31m it says"),
            members,
            max_members: 10,
            peer_id: PeerId::from_public_key(&[peer; 32]),
            listen: ([127, 0, 0, 1], 5000 + u16::from(peer)).into(),
        }
    }

    async fn until(browser: &mut Browser, wanted: impl Fn(&Found) -> bool) -> Found {
        let search = async {
            loop {
                let found = browser.next().await.unwrap();
                if wanted(&found) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), search).await.expect("never announced")
    }

    /// Looks around until exactly these peers of a pool are found.
    async fn browse_until(pool: PoolId, peers: &[u8]) -> Vec<Found> {
        let wanted: BTreeSet<_> = peers.iter().map(|peer| PeerId::from_public_key(&[*peer; 32])).collect();
        let search = async {
            loop {
                let mut found = browse(&loopback(), Duration::from_secs(3)).await.unwrap();
                found.retain(|found| found.pool_id == pool);
                if found.len() == wanted.len() && found.iter().all(|found| wanted.contains(&found.peer_id)) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), search).await;
        found.unwrap_or_else(|_| panic!("never exactly {peers:?}"))
    }

    /// Two peers on one host announce themselves; a third process looks around. It must find both, with the addresses
    /// they gave, and a changed member count must reach those who listen on.
    #[tokio::test(flavor = "multi_thread")]
    async fn announced_peers_are_found_on_loopback() {
        // A pool of this process alone: other tests and peers of this machine announce too.
        let pool = u8::try_from(std::process::id() % 200).unwrap() + 50;
        let announcer = Announcer::start(&loopback(), announcement(pool, 1, 1)).unwrap();
        // The second listens everywhere and may announce its loopback address only.
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 5002));
        let other =
            Announcer::start(&loopback(), Announcement { listen: anywhere, ..announcement(pool, 2, 1) }).unwrap();

        let id = PoolId::from_public_key(&[pool; 32]);
        for found in browse_until(id, &[1, 2]).await {
            let port = if found.peer_id == PeerId::from_public_key(&[1; 32]) { 5001 } else { 5002 };
            assert_eq!(found.addresses, vec![SocketAddr::from(([127, 0, 0, 1], port))]);
            assert_eq!(found.pool_name, format!("pool {pool}, [31m it says"), "control characters are no one's name");
        }

        let mut browser = Browser::start(&loopback()).unwrap();
        until(&mut browser, |found| found.pool_id == id && found.members == 1).await;
        announcer.update(announcement(pool, 1, 7));
        let changed = until(&mut browser, |found| found.pool_id == id && found.members == 7).await;
        assert_eq!(changed.peer_id, PeerId::from_public_key(&[1; 32]));

        // Who leaves says so, and is not found any more. A search that overtakes the goodbye may be answered still.
        drop(other);
        browse_until(id, &[1]).await;
    }

    /// A name longer than a TXT entry can hold must not keep the pool from being announced.
    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let mut long = announcement(1, 1, 1);
        long.pool_name = "ä".repeat(200);
        let info = service("instance", long).unwrap();
        assert_eq!(info.get_property_val_str("name"), Some("ä".repeat(100).as_str()));
    }
}
