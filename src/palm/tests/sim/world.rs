//! One simulation: machines, the network between them, a nemesis, and what is recorded of it all.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use palm_core::place::Policy;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use turmoil::Sim;

use crate::disk::Disk;
use crate::history::{Action, History, Op, Outcome, Value};
use crate::nemesis::Nemesis;
use crate::socket::{BUFFER_PACKETS, Weather};
use crate::{os, peer};

/// The pool must stand within this (virtual) time.
const BUILDING_LIMIT: Duration = Duration::from_secs(60);
/// So long things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
/// Once everything is mended every peer must answer everything within this time.
const CALM_LIMIT: Duration = Duration::from_secs(120);
/// The slowest packet of an ordinary network.
const SLOWEST_PACKET_MS: u64 = 8;

/// Panics of any task of this process: tokio would keep them to itself.
pub static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What clients do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Wait until the pool stands.
    Building,
    /// Read and write.
    Chaos,
    /// Read everything once more.
    Calm,
}

/// What all machines share, and no peer knows of.
pub struct World {
    pub machines: usize,
    pub weather: Weather,
    /// Whether garbage is collected, and what is lost repaired, at once.
    pub eager: bool,
    /// The bucket keeps versions.
    pub versioned: bool,
    /// How long it is in the trash then.
    pub trash: Duration,
    /// Of the pool; none is as wide as the pool allows.
    pub policy: Option<Policy>,
    pub disks: Vec<Disk>,
    pub phase: watch::Sender<Phase>,
    /// Invitations, handed over by the people who run the machines.
    pub tokens: watch::Sender<Vec<String>>,
    /// Machines whose peer sees the whole pool.
    pub ready: Cell<usize>,
    /// Machines whose clients have ended.
    pub idle: Cell<usize>,
    /// Machines that are tidy and have read everything at the end.
    pub content: Cell<usize>,
    history: RefCell<History>,
    /// Which write an entity tag stands for.
    etags: RefCell<BTreeMap<String, Value>>,
    last_value: Cell<Value>,
    violation: RefCell<Option<String>>,
    log: RefCell<Vec<String>>,
    now: Cell<Duration>,
}

/// A machine's name in the network.
pub fn name(machine: usize) -> String {
    format!("machine-{machine}")
}

impl World {
    fn new(machines: usize, dice: &mut SmallRng) -> Self {
        let weather = [
            Weather { lost: 0.0, twice: 0.0 },
            Weather { lost: 0.005, twice: 0.005 },
            Weather { lost: 0.03, twice: 0.01 },
        ][dice.random_range(0..3)];
        Self {
            machines,
            weather,
            eager: dice.random_bool(0.5),
            versioned: dice.random_bool(0.5),
            trash: [Duration::ZERO, Duration::from_millis(400), Duration::from_secs(2)][dice.random_range(0..3)],
            // Narrower than the pool, so that fragments have somewhere to go.
            policy: [None, Some(Policy { k: 2, n: 3 })][usize::from(machines > 3 && dice.random_bool(0.7))],
            disks: (0..machines).map(|_| Disk::new(SmallRng::from_rng(dice))).collect(),
            phase: watch::Sender::new(Phase::Building),
            tokens: watch::Sender::default(),
            ready: Cell::default(),
            idle: Cell::default(),
            content: Cell::default(),
            history: RefCell::default(),
            etags: RefCell::default(),
            last_value: Cell::default(),
            violation: RefCell::default(),
            log: RefCell::default(),
            now: Cell::default(),
        }
    }

    /// Notes what happens: the same seed must give the same log.
    pub fn log(&self, line: &str) {
        let line = format!("{:>7} {line}", self.now.get().as_millis());
        tracing::info!("{line}");
        self.log.borrow_mut().push(line);
    }

    /// What must never happen has happened.
    pub fn violated(&self, what: String) {
        self.log(&what);
        self.violation.borrow_mut().get_or_insert(what);
    }

    /// A value never written before.
    pub fn new_value(&self) -> Value {
        self.last_value.set(self.last_value.get() + 1);
        self.last_value.get()
    }

    /// From now on an object may have this tag.
    pub fn expect_tag(&self, etag: String, value: Value) {
        self.etags.borrow_mut().insert(etag, value);
    }

    /// The write an object's tag stands for; a tag nobody made is a violation.
    pub fn value_of(&self, etag: &str) -> Option<Value> {
        let value = self.etags.borrow().get(etag).copied();
        if value.is_none() {
            self.violated(format!("an object nobody wrote: {etag}"));
        }
        value
    }

    pub fn call(&self, register: &str, action: Action, machine: usize) -> Op {
        let what = format!("{action:?}");
        let op = self.history.borrow_mut().call(register, action);
        self.log(&format!("op {op} at {machine}: {register} {what}"));
        op
    }

    pub fn answer(&self, op: Op, outcome: Outcome) {
        self.log(&format!("op {op}: {outcome:?}"));
        self.history.borrow_mut().answer(op, outcome);
    }

    pub fn fail(&self, op: Op, why: &str) {
        self.log(&format!("op {op} failed: {why}"));
        self.history.borrow_mut().fail(op);
    }

    pub fn leave_unknown(&self, op: Op, why: &str) {
        self.log(&format!("op {op} unknown: {why}"));
    }
}

/// How a simulation ended.
pub struct Report {
    /// What must not happen and did.
    pub violation: Option<String>,
    /// One line of figures.
    pub figures: String,
    /// All that happened, line by line.
    pub log: Vec<String>,
}

/// Simulates a pool from its making to its end. On a thread of its own, of which everything random is the seed's.
pub fn run(seed: u64) -> Report {
    os::simulate(seed);
    let mut dice = SmallRng::seed_from_u64(seed);
    let machines = dice.random_range(3..=5);
    let world = Rc::new(World::new(machines, &mut dice));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + os::DAWN)
        .tick_duration(os::STEP)
        .simulation_duration(Duration::from_hours(24))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis(dice.random_range(1..=SLOWEST_PACKET_MS)))
        .udp_capacity(BUFFER_PACKETS)
        .build();
    for machine in 0..machines {
        let shared = Rc::clone(&world);
        sim.host(name(machine), move || peer::run(machine, Rc::clone(&shared)));
        step(&mut sim, &world);
    }
    let mut nemesis = Nemesis::new(SmallRng::from_rng(&mut dice), machines);

    if go_on(&mut sim, &world, BUILDING_LIMIT, |_| world.ready.get() == machines) {
        world.log("the pool stands");
        world.phase.send_replace(Phase::Chaos);
        let until = sim.elapsed() + CHAOS;
        while sim.elapsed() < until && world.violation.borrow().is_none() {
            nemesis.act(&mut sim, &world);
            step(&mut sim, &world);
        }
        nemesis.relent(&mut sim, &world);
        world.log("calm");
        world.phase.send_replace(Phase::Calm);
        if !go_on(&mut sim, &world, CALM_LIMIT, |_| world.content.get() == machines) {
            world.violated(format!("{} of {machines} peers content after {CALM_LIMIT:?}", world.content.get()));
        }
    } else {
        world.violated(format!("{} of {machines} peers in the pool after {BUILDING_LIMIT:?}", world.ready.get()));
    }
    if PANICS.load(Ordering::SeqCst) > 0 {
        world.violated("a task panicked".to_owned());
    }
    if world.violation.borrow().is_none()
        && let Err(told) = world.history.borrow().check()
    {
        world.violated(told);
    }
    report(seed, &sim, &world, &nemesis)
}

fn step(sim: &mut Sim<'_>, world: &World) {
    world.now.set(sim.elapsed());
    if let Err(error) = sim.step() {
        world.violated(format!("a machine stopped by itself: {error}"));
    }
}

/// Lets time pass until `done`; `false` if it is not within `limit`.
fn go_on(sim: &mut Sim<'_>, world: &World, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
    let until = sim.elapsed() + limit;
    while !done(world) {
        if sim.elapsed() >= until || world.violation.borrow().is_some() {
            return false;
        }
        step(sim, world);
    }
    true
}

fn report(seed: u64, sim: &Sim<'_>, world: &World, nemesis: &Nemesis) -> Report {
    let log = world.log.take();
    let [operations, answered, failed, unknown] = world.history.borrow().counts();
    let figures = format!(
        "seed {seed}: {} machines, {:.1} s, {operations} operations ({answered} answered, {failed} failed, {unknown} \
         unknown), {:?}, eager {}, versioned {}, {:?}, {:?}, log {}",
        world.machines,
        sim.elapsed().as_secs_f64(),
        world.weather,
        world.eager,
        world.versioned,
        world.policy,
        nemesis.deeds,
        blake3::hash(log.join("\n").as_bytes()).to_hex().get(..16).unwrap_or_default(),
    );
    Report { violation: world.violation.take(), figures, log }
}
