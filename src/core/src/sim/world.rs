//! The world: peers, links, time. Messages travel here; peers crash and come back here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, Write};
use super::exec::{Exec, Micros, Sender};
use super::history::{History, Stats};
use super::link::{Links, Weather};
use super::peer::{Life, Peer};
use crate::hlc::{Ballot, Stamp};
use crate::id::PeerId;
use crate::register::{Accepted, Config, Record};
use crate::wire::{ScanPage, ScanQuery};

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000_000;
/// A voter that has not answered by then counts as silent, as in the real shell.
const CALL_TIMEOUT: Micros = 1_500 * MS;
/// What clocks show when the world begins: high enough that one may be set back by hours.
const EPOCH_MS: u64 = 100_000_000;

/// A question to a peer: the ledger's part of [`crate::wire::Request`], and what the collection of tombstones asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Phase 1.
    Prepare { epoch: u64, key: Bytes, ballot: Ballot },
    /// Phase 2.
    Accept { epoch: u64, key: Bytes, ballot: Ballot, record: Record },
    /// The accepted ballot, and the record unless the asker has that ballot.
    Read { epoch: u64, key: Bytes, have: Option<Ballot> },
    /// A page.
    Scan { epoch: u64, query: ScanQuery },
    /// Registers, whole.
    Fetch { keys: Vec<Bytes> },
    /// A chosen record, for learners.
    Learn { key: Bytes, accepted: Accepted },
    /// Keys and ballots of a copy.
    Pairs,
    /// The adopted configuration.
    GetConfig,
    /// A chosen configuration.
    Adopt(Config),
    /// R7: whether the voter durably holds at least this tombstone.
    Holds { epoch: u64, key: Bytes, tombstone: Ballot },
    /// R7: forget this tombstone.
    Collect { epoch: u64, key: Bytes, tombstone: Ballot },
    /// R8 (5): the collection floors.
    Floors { epoch: u64 },
    /// R8 (5): floors for a joiner.
    RaiseFloors { epoch: u64, floors: Vec<(usize, Ballot)> },
    /// R8 (4): a promise for all keys at once; asks for the highest stamp ever taken.
    Raise { epoch: u64, floor: Stamp },
    /// Which of these are accepted at exactly this ballot (R6).
    Confirm { epoch: u64, pairs: Vec<(Bytes, Ballot)> },
    /// To a joiner: catch up now.
    CatchUp,
    /// A planted fault's raw copy (R8).
    Overwrite(Vec<(Bytes, Accepted)>),
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Promised; what was accepted, and the collection floor.
    Promised(Option<Accepted>, Ballot),
    /// Accepted, durably.
    Accepted,
    /// Refused, and what is in the way.
    Nack(Ballot),
    /// Another epoch.
    WrongEpoch(Config),
    /// The accepted ballot, and the record if wanted.
    Digest(Option<Ballot>, Option<Record>),
    /// A page.
    Page(ScanPage),
    /// Registers.
    Registers(Vec<(Bytes, Accepted)>),
    /// Keys and ballots.
    Pairs(Vec<(Bytes, Ballot)>),
    /// The adopted configuration.
    Config(Config),
    /// Floors by range.
    Floors(Vec<(usize, Ballot)>),
    /// Promised for all keys; the highest stamp ever taken.
    Raised(Stamp),
    /// Which of the pairs asked for are held.
    Confirmed(Vec<bool>),
    /// Done.
    Done,
    /// Not so, or not a voter.
    No,
}

/// An answer and whose; `None` for silence.
pub type Letter = (PeerId, Option<Reply>);

/// A machine: what outlives its crashes.
pub struct Node {
    /// Its id.
    pub id: PeerId,
    /// Its number.
    pub number: usize,
    /// Its disk.
    pub disk: RefCell<Disk>,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: Cell<i64>,
    /// Its life, while it is up.
    pub life: RefCell<Option<Rc<Life>>>,
    /// The configuration it was admitted with.
    pub initial: Config,
    /// Whether it is gone for ever.
    pub retired: Cell<bool>,
}

/// Everything.
pub struct World {
    /// Time and tasks.
    pub exec: Rc<Exec>,
    rng: RefCell<SmallRng>,
    /// All machines there ever were.
    pub nodes: RefCell<Vec<Rc<Node>>>,
    /// What is between them.
    pub links: RefCell<Links>,
    /// What clients did and saw.
    pub history: RefCell<History>,
    /// Longest pause between two comparisons of a peer's copy with another's, in milliseconds.
    pub level_ms: Cell<u64>,
    /// What happened, counted.
    pub stats: RefCell<Stats>,
}

/// The id of a machine by number.
pub fn peer_id(number: usize) -> PeerId {
    PeerId::from_bytes([number as u8 + 1; 32])
}

fn number_of(id: &PeerId) -> usize {
    usize::from(id.as_bytes()[0]) - 1
}

impl World {
    /// An empty world under a seed.
    pub fn new(seed: u64, weather: Weather) -> Rc<Self> {
        Rc::new(Self {
            exec: Rc::new(Exec::default()),
            rng: RefCell::new(SmallRng::seed_from_u64(seed)),
            nodes: RefCell::default(),
            links: RefCell::new(Links::new(weather)),
            history: RefCell::default(),
            level_ms: Cell::new(3_000),
            stats: RefCell::default(),
        })
    }

    /// A number of the range, by the seed.
    pub fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.rng.borrow_mut().random_range(range)
    }

    /// True this often of a thousand.
    pub fn chance(&self, per_thousand: u64) -> bool {
        self.draw(0..1000) < per_thousand
    }

    /// One of these.
    pub fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.draw(0..from.len() as u64) as usize].clone()) }
    }

    /// Adds a machine and starts it.
    pub fn add_node(self: &Rc<Self>, initial: Config) -> Rc<Node> {
        let number = self.nodes.borrow().len();
        let mut disk = Disk::default();
        let id = disk.write(vec![Write::Config(initial.clone())], false);
        disk.synced(id);
        let node = Rc::new(Node {
            id: peer_id(number),
            number,
            disk: RefCell::new(disk),
            skew_ms: Cell::new(0),
            life: RefCell::new(None),
            initial,
            retired: Cell::new(false),
        });
        self.nodes.borrow_mut().push(Rc::clone(&node));
        self.start(&node);
        node
    }

    /// Starts a machine that is down.
    pub fn start(self: &Rc<Self>, node: &Rc<Node>) {
        let nonce = self.draw(0..1 << 32) as u32;
        let life = Life::open(&self.exec, node, nonce);
        *node.life.borrow_mut() = Some(Rc::new(life));
        self.log(|| format!("peer {} starts", node.number));
        if let Some(peer) = self.peer(node.number) {
            let owner = peer.life.owner;
            self.exec.spawn(owner, async move { peer.keep_level().await });
        }
    }

    /// Stops a machine where it stands; some of what was on its way to the disk is there.
    pub fn crash(&self, node: &Rc<Node>) {
        let Some(life) = node.life.borrow_mut().take() else { return };
        self.exec.kill(life.owner);
        let under_way = node.disk.borrow().under_way() as u64;
        let kept = self.draw(0..under_way + 1) as usize;
        node.disk.borrow_mut().crash(kept);
        self.stats.borrow_mut().crashes += 1;
        self.log(|| format!("peer {} crashes", node.number));
    }

    /// A peer that is up.
    pub fn peer(self: &Rc<Self>, number: usize) -> Option<Peer> {
        let node = Rc::clone(self.nodes.borrow().get(number)?);
        let life = Rc::clone(node.life.borrow().as_ref()?);
        Some(Peer { world: Rc::clone(self), node, life })
    }

    /// All peers that are up.
    pub fn up(self: &Rc<Self>) -> Vec<Peer> {
        let count = self.nodes.borrow().len();
        (0..count).filter_map(|number| self.peer(number)).collect()
    }

    /// What a machine's wall clock shows.
    pub fn wall_ms(&self, node: &Node) -> u64 {
        (EPOCH_MS + self.exec.now() / MS).saturating_add_signed(node.skew_ms.get())
    }

    /// Sends a question; the answers, and silence after the timeout, go to `answers`.
    pub fn call(self: &Rc<Self>, from: usize, to: PeerId, ask: &Ask, answers: &Sender<Letter>) {
        let target = number_of(&to);
        let silence = answers.clone();
        self.exec.after(CALL_TIMEOUT, move || silence.send((to, None)));
        for delay in self.travel(from, target) {
            let (world, ask, answers) = (Rc::clone(self), ask.clone(), answers.clone());
            self.exec.after(delay, move || {
                let Some(peer) = world.peer(target) else { return };
                let owner = peer.life.owner;
                world.exec.clone().spawn(owner, async move {
                    let reply = peer.handle(ask).await;
                    for delay in world.travel(target, from) {
                        let (answers, reply) = (answers.clone(), reply.clone());
                        world.exec.after(delay, move || answers.send((to, Some(reply))));
                    }
                });
            });
        }
    }

    fn travel(&self, from: usize, to: usize) -> Vec<Micros> {
        let delays = self.links.borrow().delays(&mut self.rng.borrow_mut(), from, to);
        let mut stats = self.stats.borrow_mut();
        stats.messages += 1;
        stats.lost += u64::from(delays.is_empty());
        stats.doubled += u64::from(delays.len() > 1);
        delays
    }

    /// Notes an event in the readable history.
    pub fn log(&self, text: impl FnOnce() -> String) {
        self.history.borrow_mut().note(self.exec.now(), text);
    }

    /// Lets go of everything; tasks and the world hold each other.
    pub fn end(&self) {
        self.exec.clear();
        self.nodes.borrow_mut().clear();
    }
}
