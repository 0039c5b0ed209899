//! What can be set, and what holds when it is not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use palm_backends::decorate::{Bandwidth, QuietHours};
use palm_core::record::{Consistency, WhenMinority};
use serde::{Deserialize, Serialize};

use super::{ClassSetting, CustomDomains, Hours, Lasting, PolicySetting, Size, TargetSetting};
use crate::pool::DEFAULT_MAX_MEMBERS;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where this peer keeps its key, its index and, unless `backend.url` says otherwise, its fragments.
    pub data: PathBuf,
    /// What it calls itself; empty means the host's name.
    pub name: String,
    /// The S3 endpoint.
    pub s3: S3,
    /// The endpoint other peers speak to.
    pub quic: Quic,
    /// Health, metrics and service discovery, without authentication, commands with the admin token, and the console with an access
    /// key: local by default.
    pub admin: Admin,
    /// How peers find each other.
    pub discovery: Discovery,
    /// Where fragments are kept.
    pub backend: Backend,
    /// How fast fragments go from peer to peer.
    pub traffic: Traffic,
    /// How the pool deals with its members.
    pub members: Members,
    /// How lost fragments are made again.
    pub repair: Repair,
    /// How the fragments kept here are re-read.
    pub scrub: Scrub,
    /// When garbage goes.
    pub collection: Collection,
    /// How lifecycle rules are carried out.
    pub lifecycle: Lifecycle,
    /// Who can be told of events.
    pub notify: Notify,
    /// Access logs of buckets.
    pub access_log: AccessLog,
    /// Logging, to stderr.
    pub log: Log,
    /// The pool, when one is made.
    pub pool: NewPool,
}

/// The S3 endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Whether there is one; without it this peer only stores.
    pub enabled: bool,
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// Domains under which buckets are host names (`bucket.domain`). Path style works always.
    pub domains: Vec<String>,
    /// Domains under which the websites of buckets are host names (`bucket.website-domain`).
    pub website_domains: Vec<String>,
    /// What a host name under none of them means: nothing, the bucket of that name, or its website.
    pub custom_domains: CustomDomains,
    /// Where it listens for TLS, with the certificate and the key below.
    pub tls_address: Option<SocketAddr>,
    /// The certificate chain, PEM; read again when it changes.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The region clients are told of; any region is accepted in a signature.
    pub region: String,
}

/// The endpoint other peers speak to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quic {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
}

/// The admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
}

/// How peers find each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Announce and listen by mDNS.
    pub mdns: bool,
    /// Interfaces where mDNS speaks; none means all.
    pub interfaces: Vec<String>,
    /// `host:port` of peers to look at besides.
    pub peers: Vec<String>,
}

/// Where fragments are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Whether this peer keeps fragments; otherwise it is a gateway, and gives away what it has.
    pub enabled: bool,
    /// `disk:///DIRECTORY` or another backend's URL; none means `fragments` in the data directory.
    pub url: Option<String>,
    /// Several of them, each on a disk of its own. Not beside `url`.
    pub urls: Vec<String>,
    /// Bytes contributed at most.
    pub max_bytes: Option<Size>,
    /// Bytes of the disk left free for others.
    pub reserve: Option<Size>,
    /// What fails together with it (a host, a room); none means the peer by itself.
    pub domain: String,
}

/// How fast fragments go from this peer to others and come from them, together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Bytes a second at most; none means no limit.
    pub bandwidth: Option<Size>,
    /// Hours with another limit.
    pub quiet: Option<Hours>,
    /// That one.
    pub quiet_bandwidth: Option<Size>,
}

impl Traffic {
    /// The bound they are.
    pub fn bound(&self) -> Bandwidth {
        bound(self.bandwidth, self.quiet, self.quiet_bandwidth)
    }
}

impl Repair {
    /// The bound of what repairs move.
    pub fn bound(&self) -> Bandwidth {
        bound(self.bandwidth, self.quiet, self.quiet_bandwidth)
    }
}

fn bound(usual: Option<Size>, quiet: Option<Hours>, quiet_bandwidth: Option<Size>) -> Bandwidth {
    let quiet = quiet.zip(quiet_bandwidth);
    Bandwidth {
        bytes_per_second: usual.map(|size| size.0),
        quiet: quiet.map(|(Hours(from, until), size)| QuietHours { from, until, bytes_per_second: size.0 }),
    }
}

/// How the pool deals with its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// A voter absent for longer gives its vote to another member.
    pub grace: Lasting,
}

/// How lost fragments are made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repair {
    /// Bytes of fragments that this peer reads and writes for repairs at most, each second; none means no limit of its own.
    pub bandwidth: Option<Size>,
    /// Hours with another limit.
    pub quiet: Option<Hours>,
    /// That one.
    pub quiet_bandwidth: Option<Size>,
    /// How often the objects are counted and looked after when nothing happens.
    pub every: Lasting,
    /// How long the pool has to have been as it is before old objects are coded anew for it, or fragments moved to level
    /// its members.
    pub settle: Lasting,
}

/// How the fragments kept here are re-read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Within this time each fragment is read and hashed once.
    pub period: Lasting,
}

/// When garbage goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collection {
    /// Fragments younger than this are left alone.
    pub grace: Lasting,
    /// Fragments whose object was replaced or deleted are left alone this long, for readers that are still at it.
    pub released: Lasting,
    /// How long garbage stays in the trash before a second look, and is deleted.
    pub trash: Lasting,
    /// How often all fragments are looked at.
    pub every: Lasting,
}

/// How lifecycle rules are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifecycle {
    /// How long a day of theirs is: shorter for tests only.
    pub day: Lasting,
}

/// Who can be told of events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notify {
    /// Targets of bucket notifications, each `NAME=URL`.
    pub targets: Vec<TargetSetting>,
}

/// Access logs of buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// How often they are delivered.
    pub every: Lasting,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,palm::pool=debug`.
    pub level: String,
    /// The audit log: a file with a line of JSON for each administrative act; none means no audit log.
    pub audit: Option<PathBuf>,
    /// Whether it has a line for each S3 request that may change something, too.
    pub audit_writes: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The pool, when one is made. Later changes here change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewPool {
    /// Its name; empty means the peer's.
    pub name: String,
    /// Members it takes at most, up to 64.
    pub max_members: u16,
    /// `auto` or `k-of-n`.
    pub policy: PolicySetting,
    /// Admit whoever asks.
    pub open: bool,
    /// Whether objects are linearizable, or every peer answers by itself and islands merge.
    pub consistency: Consistency,
    /// What a strong pool does for readers without a majority of its voters.
    pub when_minority: WhenMinority,
    /// `CLASS=k-of-n`: storage classes with policies of their own.
    pub storage_classes: Vec<ClassSetting>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: default_data(),
            name: String::new(),
            s3: S3::default(),
            quic: Quic::default(),
            admin: Admin::default(),
            discovery: Discovery::default(),
            backend: Backend::default(),
            traffic: Traffic::default(),
            members: Members::default(),
            repair: Repair::default(),
            scrub: Scrub::default(),
            collection: Collection::default(),
            lifecycle: Lifecycle::default(),
            notify: Notify::default(),
            access_log: AccessLog::default(),
            log: Log::default(),
            pool: NewPool::default(),
        }
    }
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            enabled: true,
            address: ([0, 0, 0, 0], 9000).into(),
            domains: Vec::new(),
            website_domains: Vec::new(),
            custom_domains: CustomDomains::default(),
            tls_address: None,
            tls_certificate: None,
            tls_key: None,
            region: "us-east-1".into(),
        }
    }
}

impl S3 {
    /// Where TLS listens, its certificate and its key; [`Settings`] are refused with one of the three alone.
    pub fn tls(&self) -> Option<(SocketAddr, &Path, &Path)> {
        Some((self.tls_address?, self.tls_certificate.as_deref()?, self.tls_key.as_deref()?))
    }
}

impl Default for Quic {
    fn default() -> Self {
        Self { address: ([0, 0, 0, 0], 5000).into() }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: ([127, 0, 0, 1], 9001).into() }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self { mdns: true, interfaces: Vec::new(), peers: Vec::new() }
    }
}

impl Default for Backend {
    fn default() -> Self {
        let (url, urls, max_bytes, reserve, domain) = (None, Vec::new(), None, None, String::new());
        Self { enabled: true, url, urls, max_bytes, reserve, domain }
    }
}

impl Default for Members {
    fn default() -> Self {
        Self { grace: Lasting(Duration::from_mins(15)) }
    }
}

impl Default for Repair {
    fn default() -> Self {
        let (every, settle) = (Lasting(Duration::from_mins(10)), Lasting(Duration::from_mins(10)));
        Self { bandwidth: None, quiet: None, quiet_bandwidth: None, every, settle }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self { period: Lasting(Duration::from_hours(30 * 24)) }
    }
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            grace: Lasting(Duration::from_hours(1)),
            released: Lasting(Duration::from_mins(5)),
            trash: Lasting(Duration::from_hours(1)),
            every: Lasting(Duration::from_hours(1)),
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { day: Lasting(Duration::from_hours(24)) }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { every: Lasting(Duration::from_mins(5)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into(), audit: None, audit_writes: false }
    }
}

impl Default for NewPool {
    fn default() -> Self {
        Self {
            name: String::new(),
            max_members: DEFAULT_MAX_MEMBERS,
            policy: PolicySetting::default(),
            open: false,
            consistency: Consistency::default(),
            when_minority: WhenMinority::default(),
            storage_classes: Vec::new(),
        }
    }
}

/// `$XDG_DATA_HOME/palm`, otherwise `~/.local/share/palm`, otherwise `palm-data` here.
fn default_data() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("palm-data"), |data| data.join("palm"))
}
