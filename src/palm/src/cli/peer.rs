//! Running a peer: from settings to a served endpoint, and back down.
//!
//! Up: directory, identity, stores, endpoints (so that a port in use is told before anything is made), pool, object
//! store, pool served, S3 and administration, and then the ready line. Down, on SIGTERM or SIGINT or when it is no member
//! any more: S3 drains, then administration, then the pool. A second signal ends it at once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palm_backends::{Backends, IndexStore};
use palm_core::id::PeerId;
use palm_core::record::MemberState;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::args::JoinTarget;
use super::console::ForConsole;
use super::data_dir::DataDir;
use super::discover::Lookout;
use super::{CliError, failed, logging, print, service};
use crate::admin::token::AdminToken;
use crate::admin::{Admin, socket};
use crate::config::{self, Settings};
use crate::net::{Identity, Net};
use crate::object::{ChoreSettings, CollectSettings, RepairSettings, Store, StoreParts};
use crate::pool::{
    AccessKey, Discovery, JoinToken, JoinWish, NewPool, Parts, Pool, PoolState, Progress, Services, address,
};
use crate::s3::{self, Tls};

/// Sets the root key of a pool that is made here.
const ACCESS_KEY_VARIABLE: &str = "PALM_ACCESS_KEY";
const SECRET_KEY_VARIABLE: &str = "PALM_SECRET_KEY";

/// How a peer comes to its pool.
pub(super) enum Start {
    /// The pool it has, or a new one of its own.
    Serve,
    /// A new one.
    Create,
    /// Another's.
    Join(JoinTarget),
}

/// The line of `--json` when a peer serves.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    event: &'static str,
    pub(super) peer_id: String,
    pub(super) pool_id: String,
    pub(super) pool: String,
    pub(super) quic: String,
    pub(super) s3: String,
    pub(super) admin: String,
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<String>,
    pub(super) join_token: Option<String>,
}

/// What listens, before anything is answered.
struct Listeners {
    net: Net,
    s3: Option<TcpListener>,
    tls: Option<(TcpListener, Tls)>,
    admin: TcpListener,
}

impl Listeners {
    async fn bind(identity: &Identity, settings: &Settings) -> Result<Self, CliError> {
        let quic = settings.quic.address;
        let listen = async |what: &str, address: SocketAddr, setting: &str| {
            TcpListener::bind(address).await.map_err(|error| cannot_listen(what, address, &error, setting))
        };
        Ok(Self {
            net: Net::bind(identity, quic).map_err(|error| cannot_listen("quic", quic, &error, "--quic"))?,
            s3: if settings.s3.enabled { Some(listen("s3", settings.s3.address, "--s3").await?) } else { None },
            tls: match settings.s3.tls().filter(|_| settings.s3.enabled) {
                Some((address, certificate, key)) => {
                    let tls = Tls::load(certificate, key).map_err(failed("s3.tls_certificate"))?;
                    Some((listen("s3 tls", address, "s3.tls_address").await?, tls))
                }
                None => None,
            },
            admin: listen("admin", settings.admin.address, "--admin").await?,
        })
    }
}

fn cannot_listen(what: &str, address: SocketAddr, error: &dyn std::fmt::Display, setting: &str) -> CliError {
    CliError::Failed(format!("{what} endpoint {address}: {error}: choose another with {setting}, or end what uses it"))
}

/// Runs a peer until it is told to stop.
pub(super) async fn run(settings: Settings, start: Start, json: bool) -> Result<(), CliError> {
    logging::start(&settings.log)?;
    let mut signals = Signals::new()?;
    let root = root_key_from_environment()?;
    let dir = DataDir::take(&settings.data)?;
    let identity = Identity::load_or_create(dir.path())?;
    let admin_token = AdminToken::load_or_create(dir.path()).map_err(failed("admin token"))?;
    let (index, fragments) = open_stores(dir.path(), &settings.backend, identity.peer_id()).await?;
    let state = PoolState::load(&index).map_err(failed(dir.path().display()))?;
    let listeners = Listeners::bind(&identity, &settings).await?;
    let parts = Parts {
        net: listeners.net.clone(),
        index: Arc::clone(&index),
        fragments: Arc::clone(&fragments),
        name: peer_name(&settings),
        domain: settings.backend.domain.clone(),
        is_gateway: !settings.backend.enabled,
        grace: settings.members.grace.0,
    };

    let entered = tokio::select! {
        entered = enter(parts, state, start, &settings, root.clone(), json) => entered,
        () = signals.next() => Err(CliError::Failed("stopped before it was in a pool".into())),
    };
    let (pool, token) = match entered {
        Ok(entered) => entered,
        Err(error) => {
            listeners.net.close().await;
            return Err(error);
        }
    };
    let store = Store::new(StoreParts {
        ledger: pool.ledger().clone(),
        net: pool.net().clone(),
        view: pool.view().clone(),
        fragments: Arc::clone(&fragments),
        index,
        sealing_key: pool.sealing_key().clone(),
        collect: collect_settings(&settings),
        repair: repair_settings(&settings),
        chores: chore_settings(&settings)?,
        traffic: settings.traffic.bound(),
    });

    let services = Services {
        s3: listeners.s3.as_ref().and_then(|s3| s3.local_addr().ok()),
        admin: listeners.admin.local_addr().ok(),
    };
    let discovery = Discovery {
        mdns: settings.discovery.mdns,
        interfaces: settings.discovery.interfaces.clone(),
        peers: settings.discovery.peers.clone(),
    };
    pool.serve(Arc::new(store.clone()), services, discovery).await?;

    let options = s3::S3Options {
        region: settings.s3.region.clone(),
        domains: settings.s3.domains.clone(),
        website_domains: settings.s3.website_domains.clone(),
        custom_domains: settings.s3.custom_domains,
        host_id: pool.me().to_string(),
    };
    let region = options.region.clone();
    let service = s3::service(store.clone(), options).map_err(failed("s3"))?;
    let console = Arc::new(ForConsole { service: service.clone(), region });
    let stop_s3 = CancellationToken::new();
    let mut serving = JoinSet::new();
    if let Some(listener) = listeners.s3 {
        serving.spawn(s3::serve(listener, None, service.clone(), stop_s3.clone()));
    }
    let collectors = service.collectors(listeners.tls.as_ref().map(|(_, tls)| tls));
    let mut upkeep = upkeep(&store, fragments, settings.scrub.period.0);
    if let Some((listener, tls)) = listeners.tls {
        serving.spawn(s3::serve(listener, Some(tls.clone()), service, stop_s3.clone()));
        upkeep.spawn(tls.keep_fresh());
    }

    let admin = Admin::new(pool.clone(), store.clone(), settings.scrub.period.0, admin_token).showing(collectors);
    let admin = admin.map_err(failed("metrics"))?;
    let stop_admin = CancellationToken::new();
    let socket = socket::listen(dir.path()).map_err(failed("admin socket"))?;
    let commands = tokio::spawn(admin.clone().serve_commands(socket, stop_admin.clone()));
    let http = tokio::spawn(admin.serve_http(listeners.admin, (console, services.s3), stop_admin.clone()));

    let root_key = root_key(&pool, root);
    let ready = ready(&pool, services, root_key, token);
    info!(peer_id = %ready.peer_id, pool_id = %ready.pool_id, pool = %ready.pool, s3 = %ready.s3, "ready");
    print::ready(&ready, dir.path(), json);
    service::ready(&ready.pool);
    upkeep.spawn(service::keep_alive());
    let progress = tokio::spawn(print::catching_up(pool.ledger().catch_up()));

    let dismissal = tokio::select! {
        () = signals.next() => None,
        dismissal = pool.dismissed() => Some(dismissal),
    };
    progress.abort();
    service::stopping();
    info!("stopping: requests under way are finished first; a second signal ends it at once");
    let down = async {
        stop_s3.cancel();
        while let Some(ended) = serving.join_next().await {
            log_panic("s3", ended);
        }
        drop(upkeep);
        store.flush_log().await;
        stop_admin.cancel();
        log_panic("admin commands", commands.await);
        log_panic("admin http", http.await);
        pool.shutdown().await;
    };
    tokio::select! {
        () = down => {}
        () = signals.next() => return Err(CliError::Failed("stopped by a second signal".into())),
    }
    info!("stopped");
    match dismissal {
        Some(dismissal) if dismissal.state == MemberState::Evicted => Err(CliError::Failed(format!(
            "{dismissal} {} ({}); its key opens nothing there any more. To join anew, take another data directory than {}",
            ready.pool,
            ready.pool_id,
            dir.path().display()
        ))),
        _ => Ok(()),
    }
}

/// What a peer does for its fragments for as long as it runs; dropped, it ends.
fn upkeep(store: &Store, fragments: Arc<Backends>, scrub_period: Duration) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (collecting, repairing, auditing, home) = (store.clone(), store.clone(), store.clone(), store.home().clone());
    tasks.spawn(async move { collecting.collect().await });
    tasks.spawn(async move { repairing.keep_repairing().await });
    tasks.spawn(async move { auditing.keep_auditing().await });
    let (expiring, telling, logging, counting) = (store.clone(), store.clone(), store.clone(), store.clone());
    tasks.spawn(async move { counting.keep_counting().await });
    tasks.spawn(async move { logging.keep_logging().await });
    tasks.spawn(async move { telling.keep_telling().await });
    tasks.spawn(async move { expiring.keep_lifecycle().await });
    tasks.spawn(async move { home.keep_scrubbing(scrub_period).await });
    tasks.spawn(async move { fragments.watch().await });
    let emptying = store.clone();
    tasks.spawn(async move { emptying.keep_emptying().await });
    tasks
}

fn log_panic<T>(what: &str, ended: Result<T, tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "{what} ended badly");
    }
}

/// Comes into the pool; answers the first invitation where the pool is new.
async fn enter(
    parts: Parts,
    state: Option<PoolState>,
    start: Start,
    settings: &Settings,
    root: Option<AccessKey>,
    json: bool,
) -> Result<(Pool, Option<JoinToken>), CliError> {
    match (state, start) {
        (Some(state), Start::Create) => Err(CliError::Failed(format!(
            "{} belongs to pool {} ({}) already; `palm serve` starts it",
            settings.data.display(),
            state.name,
            state.id
        ))),
        (Some(state), Start::Join(target)) if target.pool != state.id => Err(CliError::Failed(format!(
            "{} belongs to pool {} ({}) already, and a peer has one pool",
            settings.data.display(),
            state.name,
            state.id
        ))),
        (Some(state), Start::Serve | Start::Join(_)) => Ok((Pool::open(parts, state, root).await?, None)),
        (None, Start::Join(target)) => {
            if root.is_some() {
                warn!("{ACCESS_KEY_VARIABLE} is passed over: a joining peer takes the pool's keys");
            }
            Ok((join(parts, target, settings, json).await?, None))
        }
        (None, Start::Serve | Start::Create) => {
            let name = match settings.pool.name.as_str() {
                "" => parts.name.clone(),
                name => name.to_owned(),
            };
            let new = NewPool {
                name,
                max_members: settings.pool.max_members,
                policy: settings.pool.policy.0,
                open: settings.pool.open,
                consistency: settings.pool.consistency,
                when_minority: settings.pool.when_minority,
                classes: settings.pool.storage_classes.iter().map(|class| class.0.clone()).collect(),
            };
            let (pool, token) = Pool::create(parts, new, root).await?;
            Ok((pool, Some(token)))
        }
    }
}

async fn join(parts: Parts, target: JoinTarget, settings: &Settings, json: bool) -> Result<Pool, CliError> {
    let JoinTarget { pool, mut coordinators, token } = target;
    if coordinators.is_empty() {
        let lookout = Lookout::of(settings)?;
        let inviter = token.as_ref().map(|token| token.inviter);
        coordinators = lookout.coordinators(pool, inviter).await?;
    }
    let me = parts.net.me();
    let wish = JoinWish { pool, coordinators, token, name: parts.name.clone() };
    Ok(Pool::join(parts, &wish, |Progress::WaitingForApproval| print::waiting(me, pool, json)).await?)
}

fn collect_settings(settings: &Settings) -> CollectSettings {
    let config::Collection { grace, released, trash, every } = &settings.collection;
    CollectSettings {
        grace: grace.0,
        released_grace: released.0,
        trash: trash.0,
        walk_every: every.0,
        ..CollectSettings::default()
    }
}

fn repair_settings(settings: &Settings) -> RepairSettings {
    let config::Repair { every, settle, .. } = &settings.repair;
    RepairSettings {
        grace: settings.members.grace.0,
        bandwidth: settings.repair.bound(),
        every: every.0,
        settle: settle.0,
    }
}

fn chore_settings(settings: &Settings) -> Result<ChoreSettings, CliError> {
    let targets = settings.notify.targets.iter().map(|target| target.0.parse());
    let targets = targets.collect::<Result<_, String>>();
    Ok(ChoreSettings {
        day: settings.lifecycle.day.0,
        targets: targets.map_err(|error| CliError::Usage(format!("notify.targets: {error}")))?,
        region: settings.s3.region.clone(),
        log_every: settings.access_log.every.0,
    })
}

/// This peer's stores: the index, and the fragments.
type Stores = (Arc<dyn IndexStore>, Arc<Backends>);

/// Opens the index in the peer's directory, and the fragments where the settings say.
async fn open_stores(dir: &Path, backend: &config::Backend, me: PeerId) -> Result<Stores, CliError> {
    let index = palm_backends::open::index(&format!("disk://{}", dir.join("index").display()));
    let index = index.map_err(failed("index"))?;
    let mut urls: Vec<String> = backend.urls.iter().chain(&backend.url).cloned().collect();
    if urls.is_empty() {
        let options = [
            backend.max_bytes.map(|size| format!("max_bytes={}", size.0)),
            backend.reserve.map(|size| format!("reserve={}", size.0)),
        ];
        let options: Vec<String> = options.into_iter().flatten().collect();
        urls.push(format!("disk://{}?{}", dir.join("fragments").display(), options.join("&")));
    }
    if !backend.enabled {
        // A gateway makes no store; one that it had before it was one is emptied.
        urls = Backends::known(urls, &*index).map_err(failed("backend"))?;
    }
    let fragments = Backends::open(&urls, Arc::clone(&index), &me.to_string()).await.map_err(failed("backend"))?;
    Ok((index, fragments))
}

/// The root key from the environment: both of its variables or none.
fn root_key_from_environment() -> Result<Option<AccessKey>, CliError> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (read(ACCESS_KEY_VARIABLE), read(SECRET_KEY_VARIABLE)) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let key = AccessKey::given(&id, &secret);
            key.map(Some)
                .map_err(|error| CliError::Usage(format!("{ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}: {error}")))
        }
        _ => Err(CliError::Usage(format!("{ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE} go together"))),
    }
}

/// The root key to show: only the peer that made the pool shows one. Given another than the pool has, that peer
/// makes it one of the pool's, as soon as the pool has a majority.
fn root_key(pool: &Pool, given: Option<AccessKey>) -> Option<AccessKey> {
    if !pool.is_creator() {
        return None;
    }
    let kept = pool.root_key();
    match given {
        Some(given) if kept.as_ref() != Some(&given) => {
            let (pool, key) = (pool.clone(), given.clone());
            tokio::spawn(async move {
                if let Err(error) = pool.ensure_root_key(key).await {
                    warn!(%error, "the root key from the environment could not be recorded; start again to retry");
                }
            });
            Some(given)
        }
        _ => kept,
    }
}

fn ready(pool: &Pool, services: Services, root: Option<AccessKey>, token: Option<JoinToken>) -> Ready {
    let url = |listen: Option<SocketAddr>| match listen {
        Some(listen) => format!("http://{}", address::local(listen)),
        None => String::new(),
    };
    let (access_key, secret_key) = root.map(|root| (root.id, root.secret.to_string())).unzip();
    Ready {
        event: "ready",
        peer_id: pool.me().to_string(),
        pool_id: pool.id().to_string(),
        pool: pool.name(),
        quic: reachable(pool.net().local_addr()).to_string(),
        s3: url(services.s3),
        admin: url(services.admin),
        access_key,
        secret_key,
        join_token: token.map(|token| token.to_string()),
    }
}

/// The address to tell someone at another machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    address::advertised(listen).first().copied().unwrap_or(listen)
}

fn peer_name(settings: &Settings) -> String {
    if !settings.name.is_empty() {
        return settings.name.clone();
    }
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let host = host.ok().or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match host.trim() {
        "" => "peer".to_owned(),
        host => host.to_owned(),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(failed("signals"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
