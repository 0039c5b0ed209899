//! A simulated machine: a whole peer, real but for its network, disk and clock, and the clients that use it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use palm::net::{Identity, Net};
use palm::object::{CollectSettings, RepairSettings, Store, StoreParts};
use palm::pool::join::Coordinator;
use palm::pool::voters::wanted;
use palm::pool::{Discovery, JoinToken, JoinWish, NewPool, Parts, Pool, PoolState, Services};
use palm_backends::decorate::Bandwidth;
use palm_backends::{Backends, IndexStore};
use palm_core::record::{BucketConfig, Consistency, FragmentRecord, WhenMinority};
use palm_core::s3::version::Versioning;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{BUCKET, Client};
use crate::disk::Fragments;
use crate::socket::{PORT, Socket};
use crate::tidy::expectation;
use crate::world::{Phase, World, name};

/// Clients of each machine.
const CLIENTS: usize = 2;
/// A peer that could not start is started again after this.
const RESTART: Duration = Duration::from_millis(500);
/// The first machine makes the pool.
const FIRST: usize = 0;
/// How long invitations last; none is used this late.
const INVITATION: Duration = Duration::from_hours(1);

/// Voters that are away lose their votes within a run.
const GRACE: Duration = Duration::from_secs(4);

/// What is untidy is looked at again after this.
const TIDY_EVERY: Duration = Duration::from_millis(500);

/// Garbage goes at once: what is collected too early shows.
fn eager_collection(trash: Duration) -> CollectSettings {
    CollectSettings {
        grace: Duration::ZERO,
        released_grace: Duration::ZERO,
        trash,
        unreachable_grace: Duration::from_hours(24),
        walk_every: Duration::from_millis(100),
    }
}

/// And what is lost is made again at once.
const EAGER_REPAIR: RepairSettings = RepairSettings {
    grace: GRACE,
    bandwidth: Bandwidth::UNBOUNDED,
    every: Duration::from_secs(2),
    settle: Duration::from_secs(3),
};

/// What a machine does from being switched on until its power fails.
pub async fn run(machine: usize, world: Rc<World>) -> turmoil::Result {
    let peer = loop {
        match start(machine, &world).await {
            Ok(peer) => break peer,
            Err(error) => {
                tracing::info!(machine, %error, "the peer did not start");
                sleep(RESTART).await;
            }
        }
    };
    let _upkeep = peer.keep();
    let mut phase = world.phase.subscribe();
    if *phase.borrow() == Phase::Building {
        peer.see_the_pool(&world).await?;
        world.ready.set(world.ready.get() + 1);
        phase.wait_for(|phase| *phase != Phase::Building).await?;
    }
    let client = || Client::new(machine, peer.pool.clone(), peer.store.clone(), Rc::clone(&world));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn_local(client().work());
    }
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    client().end().await;
    world.idle.set(world.idle.get() + 1);
    if world.eager {
        while world.idle.get() < world.machines {
            sleep(TIDY_EVERY).await;
        }
        peer.tidy_up(machine, &world).await;
    }
    client().read_everything().await;
    world.content.set(world.content.get() + 1);
    std::future::pending().await
}

struct Peer {
    pool: Pool,
    store: Store,
}

async fn start(machine: usize, world: &World) -> anyhow::Result<Peer> {
    let socket = Socket::bind(address(machine).ip(), world.weather, SmallRng::from_rng(&mut rand::rng())).await?;
    let net = Net::bind_on(&identity(machine), Arc::new(socket))?;
    let index: Arc<dyn IndexStore> = Arc::new(world.disks[machine].clone());
    let fragments = Backends::single(Arc::new(Fragments(world.disks[machine].clone())));
    let parts = Parts {
        net: net.clone(),
        index: Arc::clone(&index),
        fragments: Arc::clone(&fragments),
        name: name(machine),
        domain: String::new(),
        is_gateway: false,
        grace: GRACE,
    };
    let started = async {
        let pool = enter(machine, parts, world).await?;
        let store = Store::new(StoreParts {
            ledger: pool.ledger().clone(),
            net: net.clone(),
            view: pool.view().clone(),
            fragments,
            index,
            sealing_key: pool.sealing_key().clone(),
            collect: if world.eager { eager_collection(world.trash) } else { CollectSettings::default() },
            repair: if world.eager { EAGER_REPAIR } else { RepairSettings::default() },
            chores: palm::object::ChoreSettings::default(),
            traffic: palm_backends::decorate::Bandwidth::UNBOUNDED,
        });
        pool.serve(Arc::new(store.home().clone()), Services::default(), Discovery::default()).await?;
        if machine == FIRST && world.tokens.borrow().len() < world.machines - 1 {
            invite_others(&pool, world).await?;
        }
        Ok(Peer { pool, store })
    };
    let started = started.await;
    if started.is_err() {
        net.close().await;
    }
    started
}

/// The pool this machine has, a new one, or the one it is invited to.
async fn enter(machine: usize, parts: Parts, world: &World) -> anyhow::Result<Pool> {
    if let Some(state) = PoolState::load(&parts.index)? {
        return Ok(Pool::open(parts, state, None).await?);
    }
    if machine == FIRST {
        let new = NewPool {
            name: "sim".to_owned(),
            max_members: 10,
            policy: world.policy,
            open: false,
            consistency: Consistency::default(),
            when_minority: WhenMinority::default(),
            classes: Vec::new(),
        };
        return Ok(Pool::create(parts, new, None).await?.0);
    }
    let mut tokens = world.tokens.subscribe();
    let token: JoinToken = tokens.wait_for(|tokens| tokens.len() >= machine).await?[machine - 1].parse()?;
    let wish = JoinWish {
        pool: token.pool,
        coordinators: vec![Coordinator::Found(address(FIRST))],
        token: Some(token),
        name: name(machine),
    };
    Ok(Pool::join(parts, &wish, |_| {}).await?)
}

async fn invite_others(pool: &Pool, world: &World) -> anyhow::Result<()> {
    while world.tokens.borrow().len() < world.machines - 1 {
        let token = pool.invite(INVITATION).await?.to_string();
        world.tokens.send_modify(|tokens| tokens.push(token));
    }
    Ok(())
}

/// A machine's key.
pub fn identity(machine: usize) -> Identity {
    Identity::from_seed(&[machine as u8 + 1; 32]).unwrap()
}

fn address(machine: usize) -> SocketAddr {
    let ip: IpAddr = turmoil::lookup(name(machine));
    SocketAddr::new(ip, PORT)
}

impl Peer {
    /// What a peer does by itself, for as long as the answer lives.
    fn keep(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (collecting, repairing, auditing) = (self.store.clone(), self.store.clone(), self.store.clone());
        tasks.spawn(async move { collecting.collect().await });
        tasks.spawn(async move { repairing.keep_repairing().await });
        tasks.spawn(async move { auditing.keep_auditing().await });
        tasks
    }

    /// Waits until this machine's disk holds what the ledger says, no less and no more.
    async fn tidy_up(&self, machine: usize, world: &World) {
        let mut last = String::new();
        // The ledger's clock stands still until all clocks have come to where the one that was ahead had been, and the trash
        // is emptied by it: that is longer than anybody waits here.
        let waits = |note: &FragmentRecord| {
            let age_ms = |since_ms| self.pool.ledger().now_ms().saturating_sub(since_ms);
            note.trashed_ms.is_some_and(|since_ms| u128::from(age_ms(since_ms)) <= world.trash.as_millis())
        };
        loop {
            let untidy = match expectation(self.pool.ledger()).await {
                Ok(expected) => expected.compare(self.pool.me(), &world.disks[machine], waits),
                Err(error) => Some(error.to_string()),
            };
            let Some(untidy) = untidy else { return };
            if untidy != last {
                world.log(&format!("machine {machine} is untidy: {untidy}"));
            }
            last = untidy;
            sleep(TIDY_EVERY).await;
        }
    }

    /// Waits until everyone is in the pool and as many vote as should; the first makes the bucket.
    async fn see_the_pool(&self, world: &World) -> anyhow::Result<()> {
        let mut changes = self.pool.view().changes();
        while self.pool.view().candidates().len() < world.machines {
            changes.changed().await?;
        }
        let mut configs = self.pool.ledger().config_changes();
        let voters = wanted(world.machines);
        configs.wait_for(|config| config.voters.len() == voters && config.outgoing.is_none()).await?;
        if self.store.bucket(BUCKET).await.is_err() && self.pool.is_creator() {
            let versioning = if world.versioned { Versioning::Enabled } else { Versioning::Off };
            let config = BucketConfig { versioning, ..BucketConfig::default() };
            self.store.create_bucket(BUCKET, "sim", config).await?;
        }
        Ok(())
    }
}
