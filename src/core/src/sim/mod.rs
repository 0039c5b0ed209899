//! The ledger in simulation: many peers' machines in one thread, in virtual time, under one seed.
//!
//! Each peer drives the real machines of [`crate::register`] and [`crate::listing`] in a small shell that does what
//! `palm::pool::ledger` does. Around them: [`link`]s that lose, double, delay and reorder, [`disk`]s that lose what
//! was not synced, clocks that are off and jump, crashes at any step ([`exec`] drops a task where it waits), and
//! voters that change. Clients ([`workload`]) write down what they see ([`history`]); [`check`] judges it.
//!
//! [`run`] runs one seed. The same seed gives the same history, byte by byte. [`fault`] plants what the rules
//! forbid, to show that it would be seen.

mod catchup;
mod check;
mod client;
#[cfg(test)]
mod directed;
mod disk;
mod exec;
#[cfg(test)]
mod fairness;
pub mod fault;
mod history;
mod linear;
mod link;
#[cfg(test)]
mod mutation;
mod nemesis;
mod peer;
mod proposer;
mod reader;
mod scenario;
mod upkeep;
mod workload;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use client::{Client, Shared};
use exec::Micros;
pub use history::Stats;
use history::{Op, Outcome, Seen, Value, name_of};
use link::Weather;
use scenario::Scenario;
use world::{MS, SECOND, World};

/// Clients that have not finished by then are cut short.
const ACTIVE_LIMIT: Micros = 30 * SECOND;
/// After healing, every key must take an update within this time.
const LIVENESS_LIMIT: Micros = 30 * SECOND;

/// A violation, for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The seed that shows it.
    pub seed: u64,
    /// What is wrong.
    pub wrong: String,
    /// Everything that happened.
    pub history: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nseed {}: {}", self.history, self.seed, self.wrong)
    }
}

/// Runs a seed and judges its history.
///
/// # Errors
/// The violation found, with the whole history: the seed is run once more to write it down.
pub fn run(seed: u64) -> Result<Stats, Box<Violation>> {
    match run_quietly(seed) {
        Ok(stats) => Ok(stats),
        Err(wrong) => Err(Box::new(Violation { seed, wrong, history: transcript(seed) })),
    }
}

/// The same without a history: for looking through many seeds.
pub fn run_quietly(seed: u64) -> Result<Stats, String> {
    play(seed, false).1
}

/// Plants a fault and looks for the first seed that shows it.
pub fn hunt(fault: fault::Fault, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    fault::plant(Some(fault));
    let caught = seeds.into_iter().find_map(|seed| Some((seed, run_quietly(seed).err()?)));
    fault::plant(None);
    caught
}

/// Everything that happens under a seed, to read.
pub fn transcript(seed: u64) -> String {
    play(seed, true).0
}

fn play(seed: u64, verbose: bool) -> (String, Result<Stats, String>) {
    let scenario = Scenario::of(seed);
    fault::set_history_writes(scenario.history_writes);
    let world = World::new(seed, scenario.weather);
    world.history.borrow_mut().verbose = verbose;
    world.log(|| format!("{scenario:?}"));
    let judged = live(&world, &scenario);
    let text = world.history.borrow().text().to_owned();
    let mut stats = world.stats.borrow().clone();
    stats.seeds = 1;
    world.end();
    fault::set_history_writes(crate::register::HISTORY_WRITES);
    let judged = judged.map(|(registers, pages)| {
        stats.registers_checked = registers;
        stats.pages_checked = pages;
        stats
    });
    (text, judged)
}

fn live(world: &Rc<World>, scenario: &Scenario) -> Result<(u64, u64), String> {
    world.level_ms.set(scenario.level_ms);
    scenario.populate(world);
    let shared = Rc::new(Shared::default());
    shared.budget.set(scenario.operations);
    let running = Rc::new(Cell::new(scenario.clients));
    for number in 0..scenario.clients {
        let client =
            Client { number, world: Rc::clone(world), shared: Rc::clone(&shared), versions: RefCell::default() };
        let (running, taste) = (Rc::clone(&running), scenario.taste);
        world.exec.spawn(0, async move {
            workload::live(client, taste).await;
            running.set(running.get() - 1);
        });
    }
    let calm = Rc::new(Cell::new(false));
    nemesis::unleash(world, scenario, &calm);
    world.exec.run_until(ACTIVE_LIMIT, || running.get() == 0);

    world.log(|| "everything heals".to_owned());
    calm.set(true);
    world.level_ms.set(1_000);
    shared.budget.set(0);
    world.links.borrow_mut().mend();
    world.links.borrow_mut().weather = Weather::CALM;
    for node in world.nodes.borrow().clone() {
        if !node.retired.get() && node.life.borrow().is_none() {
            world.start(&node);
        }
    }
    let last = Rc::new(RefCell::new(BTreeMap::new()));
    let starving = Rc::new(RefCell::new(vec!["everything".to_owned()]));
    let client =
        Client { number: 99, world: Rc::clone(world), shared: Rc::clone(&shared), versions: RefCell::default() };
    let (found, left, keys) = (Rc::clone(&last), Rc::clone(&starving), workload::objects(&scenario.taste));
    world.exec.spawn(0, async move { look_at_everything(client, keys, &found, &left).await });
    let deadline = world.exec.now() + LIVENESS_LIMIT + 10 * SECOND;
    world.exec.run_until(deadline, || starving.borrow().is_empty());
    if let Some(name) = starving.borrow().first() {
        return Err(format!("after healing, {name} took no update within {} s", LIVENESS_LIMIT / SECOND));
    }
    let history = world.history.borrow();
    let counts = check::check(&history)?;
    let last = last.borrow();
    workload::judge(&shared, &history.entries, |key: &Bytes| last.get(key).copied())?;
    Ok(counts)
}

/// After healing: reads every register and lists at every peer, then changes every register.
async fn look_at_everything(
    client: Client,
    keys: Vec<Bytes>,
    last: &RefCell<BTreeMap<Bytes, Option<Value>>>,
    starving: &RefCell<Vec<String>>,
) {
    let world = Rc::clone(&client.world);
    // Peers that were away hear of the voters of today first.
    world.exec.sleep(5 * SECOND).await;
    *starving.borrow_mut() = keys.iter().map(|key| name_of(key)).collect();
    let parts: Vec<Bytes> = client.shared.parts.borrow().values().cloned().collect();
    let began = world.exec.now();
    for peer in world.up() {
        for key in &keys {
            if let Outcome::Ok(Seen { state, .. }) = client.run(peer.clone(), key, Op::Read).await {
                last.borrow_mut().insert(key.clone(), state);
            }
        }
        client.list(&peer, &workload::listed(), false, 2).await;
    }
    if let Some(peer) = world.pick(&world.up()) {
        for part in &parts {
            if let Outcome::Ok(Seen { state, .. }) = client.run(peer.clone(), part, Op::Read).await {
                last.borrow_mut().insert(part.clone(), state);
            }
        }
    }
    for key in &keys {
        while world.exec.now() < began + LIVENESS_LIMIT {
            let Some(peer) = world.pick(&world.up()) else { return };
            let value = client.shared.fresh(0);
            if let Outcome::Ok(Seen { wrote: true, .. }) = client.run(peer, key, Op::Put(value)).await {
                starving.borrow_mut().retain(|name| *name != name_of(key));
                break;
            }
            world.exec.sleep(100 * MS).await;
        }
    }
}
