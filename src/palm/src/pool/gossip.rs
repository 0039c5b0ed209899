//! Liveness and per-peer state by gossip (chitchat: scuttlebutt and a phi-accrual failure detector) over PALM's
//! own QUIC connections.
//!
//! chitchat names nodes by socket address. Ours are made up from peer ids, so that identity decides who speaks
//! and a peer that moves keeps its name; the real addresses are among the values gossiped. Messages come only from
//! admitted members, since `net` lets no other connection reach the handler.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig, NodeState,
    Serializable, spawn_chitchat,
};
use palm_backends::open::{MAX_DOMAIN_BYTES, is_domain};
use palm_core::id::{PeerId, PoolId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tracing::debug;

use crate::net::Net;

/// How often each peer gossips with up to three others.
const INTERVAL: Duration = Duration::from_millis(500);
/// A peer is suspected after this many times its usual interval between heartbeats: 4 s at [`INTERVAL`].
const PHI: f64 = 8.0;
/// Intervals longer than this are pauses and say nothing about the usual one.
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// Heartbeats the usual interval is computed from.
const WINDOW: usize = 100;
/// What is known of an absent peer is kept this long.
const REMEMBER: Duration = Duration::from_hours(24);
/// Messages waiting to be taken in; when it is full new ones are lost, as gossip may be.
const INBOX: usize = 256;
/// The port of every made-up address. It means nothing.
const PORT: u16 = 1;

/// The made-up address of a peer: `fd` (locally assigned IPv6) and the first 15 bytes of its id.
pub fn synthetic_address(peer: PeerId) -> SocketAddr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..].copy_from_slice(&peer.as_bytes()[..15]);
    SocketAddr::new(Ipv6Addr::from(octets).into(), PORT)
}

/// What a peer tells the others of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Where its QUIC endpoint is reached.
    pub quic: Vec<SocketAddr>,
    /// Its S3 endpoint.
    pub s3: Option<SocketAddr>,
    /// Its admin endpoint.
    pub admin: Option<SocketAddr>,
    /// Bytes it could still store.
    pub free: u64,
    /// Bytes it stores.
    pub used: u64,
    /// What fails together with it; empty when not set.
    pub domain: String,
    /// Its program version.
    pub version: String,
    /// `voter` or `learner`.
    pub role: String,
    /// It serves requests of S3 clients: repairs go slower.
    pub busy: bool,
    /// It takes no more fragments and gives away those it has.
    pub draining: bool,
    /// It keeps no fragments at all; it drains, too, for as long as it has some.
    pub gateway: bool,
    /// Its backends that work.
    pub disks: u8,
    /// How many of them fail apart: those of one domain count once.
    pub disks_apart: u8,
    /// What its backends fail together with, each once: for those that are not simply in its own domain.
    pub disk_domains: Vec<String>,
}

/// Values no longer than this are read; a longer one is as good as missing.
const MAX_VALUE_BYTES: usize = 1024;
/// A peer tells of no more domains of its backends: they fit a value.
pub(super) const MAX_DISK_DOMAINS: usize = MAX_VALUE_BYTES / (MAX_DOMAIN_BYTES + 1);

impl Told {
    fn entries(&self) -> [(&'static str, String); 14] {
        let address = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
        let quic: Vec<String> = self.quic.iter().map(SocketAddr::to_string).collect();
        [
            ("quic", quic.join(",")),
            ("s3", address(self.s3)),
            ("admin", address(self.admin)),
            ("free", self.free.to_string()),
            ("used", self.used.to_string()),
            ("domain", self.domain.clone()),
            ("version", self.version.clone()),
            ("role", self.role.clone()),
            ("busy", self.busy.to_string()),
            ("draining", self.draining.to_string()),
            ("gateway", self.gateway.to_string()),
            ("disks", self.disks.to_string()),
            ("disks-apart", self.disks_apart.to_string()),
            ("disk-domains", self.disk_domains.join(",")),
        ]
    }

    /// Reads what a peer told. `None` until its free space is known: a node may be known by name only.
    fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let get = |name: &str| get(name).filter(|value| value.len() <= MAX_VALUE_BYTES).unwrap_or_default();
        Some(Self {
            quic: get("quic").split(',').filter_map(|address| address.parse().ok()).collect(),
            s3: get("s3").parse().ok(),
            admin: get("admin").parse().ok(),
            free: get("free").parse().ok()?,
            used: get("used").parse().unwrap_or(0),
            domain: get("domain").to_owned(),
            version: get("version").to_owned(),
            role: get("role").to_owned(),
            // Older peers do not tell these: they have one backend and never drain.
            busy: get("busy").parse().unwrap_or(false),
            draining: get("draining").parse().unwrap_or(false),
            gateway: get("gateway").parse().unwrap_or(false),
            disks: get("disks").parse().unwrap_or(1),
            disks_apart: get("disks-apart").parse().unwrap_or(1),
            disk_domains: get("disk-domains").split(',').filter(|one| is_domain(one)).map(str::to_owned).collect(),
        })
    }
}

/// What gossip says of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Whether its heartbeats keep coming.
    pub live: bool,
    /// What it last told.
    pub told: Option<Told>,
}

/// Who stands behind the made-up addresses.
#[derive(Default)]
struct Book(RwLock<HashMap<SocketAddr, PeerId>>);

/// The running gossip of one peer.
pub(super) struct Gossip {
    handle: ChitchatHandle,
    inbox: Inbox,
    book: Arc<Book>,
}

/// Where the network hands in what others gossip. Cheap to clone.
#[derive(Clone)]
pub(super) struct Inbox(mpsc::Sender<(PeerId, Bytes)>);

impl Inbox {
    /// Takes a message; lost when the inbox is full.
    pub(super) fn deliver(&self, from: PeerId, message: Bytes) {
        if self.0.try_send((from, message)).is_err() {
            debug!(peer = %from, "gossip message lost");
        }
    }
}

impl Gossip {
    /// Begins to gossip with `members`. `life` must be higher than in every earlier life of this peer.
    pub(super) async fn start(
        net: Net,
        pool: PoolId,
        life: u64,
        members: &[PeerId],
        told: &Told,
    ) -> anyhow::Result<Self> {
        let me = net.me();
        let book = Arc::new(Book::default());
        let (sender, receiver) = mpsc::channel(INBOX);
        let transport = PeerTransport { net, book: Arc::clone(&book), inbox: Mutex::new(Some(receiver)) };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.to_string(), life, synthetic_address(me)),
            cluster_id: pool.to_string(),
            gossip_interval: INTERVAL,
            listen_addr: synthetic_address(me),
            seed_nodes: members
                .iter()
                .filter(|&&member| member != me)
                .map(|&member| synthetic_address(member).to_string())
                .collect(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI,
                sampling_window_size: WINDOW,
                max_interval: MAX_INTERVAL,
                initial_interval: INTERVAL,
                dead_node_grace_period: REMEMBER,
            },
            marked_for_deletion_grace_period: REMEMBER,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let initial = told.entries().map(|(name, value)| (name.to_owned(), value)).into();
        book.learn(members);
        let handle = spawn_chitchat(config, initial, &transport).await?;
        Ok(Self { handle, inbox: Inbox(sender), book })
    }

    /// Where messages are handed in.
    pub(super) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// From now on these are the members: messages can be sent to them.
    pub(super) fn set_members(&self, members: &[PeerId]) {
        self.book.learn(members);
    }

    /// Gossips with a member now, as when it has just been admitted.
    pub(super) fn greet(&self, peer: PeerId) {
        // Fails only after shutdown, when greeting is pointless.
        let _ = self.handle.gossip(synthetic_address(peer));
    }

    /// Changes what this peer tells; unchanged values cost nothing.
    pub(super) async fn tell(&self, told: &Told) {
        let entries = told.entries();
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for (name, value) in &entries {
                    if state.get(name) != Some(value.as_str()) {
                        state.set(*name, value);
                    }
                }
            })
            .await;
    }

    /// What gossip says of every peer it has heard of.
    pub(super) async fn heard(&self) -> HashMap<PeerId, Heard> {
        self.handle
            .with_chitchat(|chitchat| {
                let live: std::collections::HashSet<ChitchatId> = chitchat.live_nodes().cloned().collect();
                let mut latest: HashMap<PeerId, (u64, Heard)> = HashMap::new();
                for (id, state) in chitchat.node_states() {
                    let Some(peer) = identify(id) else { continue };
                    let heard = Heard { live: live.contains(id), told: read(state) };
                    match latest.get(&peer) {
                        // An earlier life of the same peer.
                        Some((life, _)) if *life > id.generation_id => {}
                        _ => {
                            latest.insert(peer, (id.generation_id, heard));
                        }
                    }
                }
                latest.into_iter().map(|(peer, (_, heard))| (peer, heard)).collect()
            })
            .await
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        // Fails only when it has ended already.
        let _ = self.handle.initiate_shutdown();
    }
}

/// The peer a node is, if its address is the one made from its name.
fn identify(id: &ChitchatId) -> Option<PeerId> {
    let peer: PeerId = id.node_id.parse().ok()?;
    (synthetic_address(peer) == id.gossip_advertise_addr).then_some(peer)
}

fn read(state: &NodeState) -> Option<Told> {
    Told::read(|name| state.get(name))
}

impl Book {
    fn learn(&self, members: &[PeerId]) {
        *self.0.write() = members.iter().map(|&member| (synthetic_address(member), member)).collect();
    }

    fn find(&self, address: SocketAddr) -> Option<PeerId> {
        self.0.read().get(&address).copied()
    }
}

/// chitchat's network: gossip messages of `net`.
struct PeerTransport {
    net: Net,
    book: Arc<Book>,
    inbox: Mutex<Option<mpsc::Receiver<(PeerId, Bytes)>>>,
}

#[async_trait]
impl Transport for PeerTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.inbox.lock().take().ok_or_else(|| anyhow::anyhow!("gossip is open already"))?;
        Ok(Box::new(PeerSocket { net: self.net.clone(), book: Arc::clone(&self.book), inbox }))
    }
}

struct PeerSocket {
    net: Net,
    book: Arc<Book>,
    inbox: mpsc::Receiver<(PeerId, Bytes)>,
}

#[async_trait]
impl Socket for PeerSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        // An error would mean that the transport is broken for good; an unknown address is only a peer that is not
        // a member any more.
        if let Some(peer) = self.book.find(to) {
            self.net.gossip(peer, message.serialize_to_vec().into());
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, message) =
                self.inbox.recv().await.ok_or_else(|| anyhow::anyhow!("the network has shut down"))?;
            match ChitchatMessage::deserialize(&mut &message[..]) {
                Ok(message) => return Ok((synthetic_address(from), message)),
                Err(error) => debug!(peer = %from, %error, "gossip message is malformed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// chitchat knows nodes by address only. Two peers sharing one would be taken for one another, and a node that
    /// claims another's address must not speak for it.
    #[test]
    fn made_up_addresses_follow_identity() {
        let (one, two) = (PeerId::from_public_key(&[1; 32]), PeerId::from_public_key(&[2; 32]));
        assert_ne!(synthetic_address(one), synthetic_address(two));
        assert_eq!(synthetic_address(one), synthetic_address(one));
        assert!(synthetic_address(one).to_string().starts_with("[fd"));
        assert_eq!(synthetic_address(one).to_string().parse(), Ok(synthetic_address(one)), "seeds travel as text");
        let honest = ChitchatId::new(one.to_string(), 1, synthetic_address(one));
        assert_eq!(identify(&honest), Some(one));
        let impostor = ChitchatId::new(one.to_string(), 1, synthetic_address(two));
        assert_eq!(identify(&impostor), None);
    }

    /// What a peer tells must come back as it was, and nonsense from another must neither be believed nor hurt.
    #[test]
    fn what_is_told_reads_back() {
        let told = Told {
            quic: vec!["10.0.0.7:5000".parse().unwrap(), "[fd00::7]:5000".parse().unwrap()],
            s3: Some("10.0.0.7:9000".parse().unwrap()),
            admin: None,
            free: 7 << 40,
            used: 5,
            domain: "rack 1".into(),
            version: "0.1.0".into(),
            role: "voter".into(),
            busy: true,
            draining: true,
            gateway: true,
            disks: 3,
            disks_apart: 2,
            disk_domains: vec!["attic/nas".into(), "shelf".into()],
        };
        let entries: HashMap<_, _> = told.entries().into();
        assert_eq!(Told::read(|name| entries.get(name).map(String::as_str)), Some(told));
        assert_eq!(Told::read(|_| None), None);
        let odd = Told::read(|name| Some(if name == "free" { "12" } else { "nonsense" })).unwrap();
        assert_eq!((odd.free, odd.quic.len(), odd.s3), (12, 0, None));
        assert_eq!((odd.busy, odd.draining, odd.disks), (false, false, 1), "as of a peer that does not tell");
        let older = Told::read(|name| (name == "free").then_some("12")).unwrap();
        assert_eq!((older.disks_apart, older.disk_domains), (1, Vec::new()));
        let longest = Told { disk_domains: vec!["d".repeat(MAX_DOMAIN_BYTES); MAX_DISK_DOMAINS], ..Told::default() };
        let entries: HashMap<_, _> = longest.entries().into();
        assert_eq!(Told::read(|name| entries.get(name).map(String::as_str)), Some(longest));
    }
}
