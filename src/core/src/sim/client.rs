//! One client: operations at peers, written down as it sees them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::exec::{Mailbox, Micros, Sender};
use super::history::{Entry, Listing, Op, Outcome, Seen, Value, name_of};
use super::peer::Peer;
use super::proposer::Failed;
use super::world::World;
use crate::hlc::Ballot;
use crate::listing::{Item, Page};
use crate::register::Decision;
use crate::wire::ScanQuery;

/// What clients agree on outside the registers.
#[derive(Default)]
pub struct Shared {
    values: Cell<u64>,
    /// Which part each value of a completed upload points to.
    pub parts: RefCell<BTreeMap<Value, Bytes>>,
    /// Uploads known to be aborted, by the value their object would have.
    pub aborted: RefCell<Vec<Value>>,
    /// Objects whose put was confirmed in its bucket: register and value.
    pub confirmed: RefCell<Vec<(Bytes, Value)>>,
    /// Operations clients may still begin.
    pub budget: Cell<u64>,
}

impl Shared {
    /// A value nobody wrote before.
    pub fn fresh(&self, marks: u64) -> Value {
        self.values.set(self.values.get() + 1);
        Value(self.values.get() << 2 | marks)
    }
}

/// A client.
pub struct Client {
    /// Its number.
    pub number: usize,
    /// Where it is.
    pub world: Rc<World>,
    /// What it shares with the others.
    pub shared: Rc<Shared>,
    /// The version of each value it knows: what `If-Match` compares.
    pub versions: RefCell<BTreeMap<(Bytes, Value), Ballot>>,
}

/// Tells the end of an operation, also when its peer dies first.
struct Ending<T>(Sender<Outcome<T>>, bool);

impl<T> Ending<T> {
    fn tell(mut self, outcome: Outcome<T>) {
        self.1 = true;
        self.0.send(outcome);
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.send(Outcome::Unknown);
        }
    }
}

impl Client {
    /// Runs something at a peer; its death is an unknown outcome.
    async fn at<T: 'static, F: Future<Output = Result<T, Failed>> + 'static>(
        &self,
        peer: Peer,
        work: impl FnOnce(Peer) -> F + 'static,
    ) -> Outcome<T> {
        let mailbox = Mailbox::new(&self.world.exec);
        let ending = Ending(mailbox.sender(), false);
        let owner = peer.life.owner;
        self.world.exec.spawn(owner, async move {
            let outcome = match work(peer).await {
                Ok(value) => Outcome::Ok(value),
                Err(Failed::Nothing) => Outcome::Failed,
                Err(Failed::Unknown) => Outcome::Unknown,
            };
            ending.tell(outcome);
        });
        mailbox.recv(Micros::MAX).await.unwrap_or(Outcome::Unknown)
    }

    /// An operation on one register.
    pub async fn run(&self, peer: Peer, key: &Bytes, op: Op) -> Outcome<Seen> {
        let place = {
            let mut history = self.world.history.borrow_mut();
            let called = history.event();
            history.entries.push(Entry { key: key.clone(), op, called, returned: None, outcome: Outcome::Unknown });
            history.entries.len() - 1
        };
        let (number, client) = (peer.node.number, self.number);
        self.world.log(|| format!("client {client} at peer {number}: {op:?} {}", name_of(key)));
        let known = match op {
            Op::Replace(expected, _) | Op::DeleteOnly(expected) => {
                self.versions.borrow().get(&(key.clone(), expected)).map(|version| (expected, *version))
            }
            _ => None,
        };
        let register = key.clone();
        let outcome = self.at(peer, move |peer| async move { perform(&peer, &register, op, known).await }).await;
        if let Outcome::Ok(seen) = &outcome {
            let after = if seen.wrote { op.effect(seen.state).flatten() } else { seen.state };
            if let Some(value) = after {
                self.versions.borrow_mut().insert((key.clone(), value), seen.version);
            }
        }
        self.world.log(|| format!("client {client} at peer {number}: {op:?} {} -> {outcome:?}", name_of(key)));
        let mut history = self.world.history.borrow_mut();
        let returned = history.event();
        history.entries[place].returned = Some(returned);
        history.entries[place].outcome = outcome.clone();
        let word = match &outcome {
            Outcome::Ok(seen) if seen.wrote || op == Op::Read => "ok",
            Outcome::Ok(_) => "refused",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        };
        *self.world.stats.borrow_mut().operations.entry((op.name(), word)).or_default() += 1;
        outcome
    }

    /// A listing, page by page.
    pub async fn list(&self, peer: &Peer, prefix: &Bytes, grouped: bool, limit: u32) -> Outcome<Vec<Item>> {
        let mut start = prefix.clone();
        let mut all = Vec::new();
        loop {
            let query = ScanQuery {
                prefix: prefix.clone(),
                start: start.clone(),
                delimiter: grouped.then(|| Bytes::from_static(b"/")),
                limit,
            };
            let place = {
                let mut history = self.world.history.borrow_mut();
                let called = history.event();
                history.listings.push(Listing {
                    prefix: prefix.clone(),
                    start: start.clone(),
                    grouped,
                    limit: limit as usize,
                    called,
                    returned: None,
                    outcome: Outcome::Unknown,
                });
                history.listings.len() - 1
            };
            let outcome = self.at(peer.clone(), move |peer| async move { peer.scan(&query).await }).await;
            let (client, number) = (self.number, peer.node.number);
            self.world
                .log(|| format!("client {client} at peer {number}: list from {} -> {outcome:?}", name_of(&start)));
            let mut history = self.world.history.borrow_mut();
            history.listings[place].returned = Some(history.event());
            let word = if matches!(outcome, Outcome::Ok(_)) { "ok" } else { "failed" };
            *self.world.stats.borrow_mut().operations.entry(("list", word)).or_default() += 1;
            let Outcome::Ok(Page { items, next }) = outcome else { return Outcome::Failed };
            history.listings[place].outcome = Outcome::Ok((items.clone(), next.clone()));
            all.extend(items);
            match next {
                Some(next) => start = next,
                None => return Outcome::Ok(all),
            }
        }
    }
}

/// What a peer does for it.
async fn perform(peer: &Peer, key: &Bytes, op: Op, known: Option<(Value, Ballot)>) -> Result<Seen, Failed> {
    if op == Op::Read {
        let current = peer.read(key).await?;
        let version = current.as_ref().map_or(Ballot::ZERO, |current| current.version);
        return Ok(Seen { state: current.map(|current| Value::of(&current.value)), version, wrote: false });
    }
    let updated = peer.update(key, |current| {
        let state = current.map(|current| Value::of(&current.value));
        // `If-Match` compares versions (R1); a client that knows none names the value.
        let state_to_match = match (known, current) {
            (Some((expected, version)), Some(current)) if current.version == version => Some(expected),
            (Some((expected, _)), Some(_)) if state == Some(expected) => Some(Value(0)),
            _ => state,
        };
        match op.effect(state_to_match) {
            Some(Some(value)) => Decision::Put(value.bytes(), (state, true)),
            Some(None) => Decision::Delete((state, true)),
            None => Decision::Keep((state, false)),
        }
    });
    let updated = updated.await?;
    let (state, wrote) = updated.answer;
    Ok(Seen { state, version: updated.version, wrote })
}
