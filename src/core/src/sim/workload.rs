//! What clients do: objects, listings, uploads and buckets, by the protocols of `palm::object`.

use std::rc::Rc;

use bytes::Bytes;

use super::client::Client;
use super::history::{Op, Outcome, Seen, Value};
use super::peer::Peer;
use super::world::{MS, World};
use crate::id::BodyId;
use crate::record::key;

/// The bucket whose objects need no confirmation: nobody deletes it.
const STABLE: &str = "s";
/// The bucket that comes and goes.
const FLEETING: &str = "f";
/// Object names: some in one group, one after it.
const NAMES: [&str; 4] = ["a", "d/1", "d/2", "e"];

/// What a seed's clients like to do, as shares of a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Taste {
    /// Objects used.
    pub keys: u64,
    /// Deletes.
    pub deletes: u64,
    /// Conditional puts.
    pub conditional: u64,
    /// Reads.
    pub reads: u64,
    /// Listings.
    pub lists: u64,
    /// Uploads completed or aborted.
    pub uploads: u64,
    /// Bucket operations and confirmed puts.
    pub buckets: u64,
    /// Longest pause between two operations, in milliseconds.
    pub pause_ms: u64,
}

/// All registers clients write objects to.
pub fn objects(taste: &Taste) -> Vec<Bytes> {
    let mut keys: Vec<Bytes> = NAMES.iter().take(taste.keys as usize).map(|name| key::object(STABLE, name)).collect();
    if taste.buckets > 0 {
        keys.push(key::object(FLEETING, NAMES[0]));
        keys.push(key::bucket(FLEETING));
    }
    keys
}

/// The prefix of the objects that are listed.
pub fn listed() -> Bytes {
    key::objects(STABLE)
}

/// A peer for the next operation: mostly one that is up.
async fn somewhere(world: &Rc<World>, number: usize) -> Option<Peer> {
    let up = world.up();
    let home = up.iter().find(|peer| peer.node.number == number % up.len().max(1)).cloned();
    match home {
        Some(home) if world.chance(600) => Some(home),
        _ => {
            let anyone = world.pick(&up);
            if anyone.is_none() {
                world.exec.sleep(50 * MS).await;
            }
            anyone
        }
    }
}

/// Runs a client until the common budget is used up.
pub async fn live(client: Client, taste: Taste) {
    let world = Rc::clone(&client.world);
    let names: Vec<Bytes> = NAMES.iter().take(taste.keys as usize).map(|name| key::object(STABLE, name)).collect();
    // The last thing it saw of each register is what it will make conditions on.
    let mut known: Option<(Bytes, Value)> = None;
    while client.shared.budget.get() > 0 {
        client.shared.budget.set(client.shared.budget.get() - 1);
        world.exec.sleep(world.draw(0..taste.pause_ms * MS + 1)).await;
        let Some(peer) = somewhere(&world, client.number).await else { continue };
        let Some(register) = world.pick(&names) else { return };
        let mut roll = world.draw(0..1000);
        let mut falls = |share: u64| {
            let hit = roll < share;
            roll = roll.saturating_sub(share);
            hit && share > 0
        };
        if falls(taste.deletes) {
            let op = match &known {
                Some((of, value)) if *of == register && world.chance(300) => Op::DeleteOnly(*value),
                _ => Op::Delete,
            };
            client.run(peer, &register, op).await;
        } else if falls(taste.conditional) {
            let value = client.shared.fresh(0);
            let op = match &known {
                Some((of, expected)) if *of == register => Op::Replace(*expected, value),
                _ => Op::Create(value),
            };
            let outcome = client.run(peer, &register, op).await;
            known = remember(&register, op, &outcome).or(known);
        } else if falls(taste.reads) {
            let outcome = client.run(peer, &register, Op::Read).await;
            known = remember(&register, Op::Read, &outcome).or(known);
        } else if falls(taste.lists) {
            let limit = world.draw(1..4) as u32;
            client.list(&peer, &listed(), world.chance(400), limit).await;
        } else if falls(taste.uploads) {
            upload(&client, peer, &register).await;
        } else if falls(taste.buckets) {
            fleeting(&client, peer).await;
        } else {
            let op = Op::Put(client.shared.fresh(0));
            let outcome = client.run(peer, &register, op).await;
            known = remember(&register, op, &outcome).or(known);
        }
    }
}

fn remember(register: &Bytes, op: Op, outcome: &Outcome<Seen>) -> Option<(Bytes, Value)> {
    let Outcome::Ok(seen) = outcome else { return None };
    let after = if seen.wrote { op.effect(seen.state).flatten() } else { seen.state };
    after.map(|value| (register.clone(), value))
}

/// An upload from beginning to end, as `object/complete.rs`: the part first, then the upload marked, then the object,
/// then the upload dropped. Sometimes it is aborted instead, or completed by two at once.
async fn upload(client: &Client, peer: Peer, object: &Bytes) {
    let (world, shared) = (Rc::clone(&client.world), Rc::clone(&client.shared));
    let value = shared.fresh(Value::MULTIPART);
    let id = BodyId::from_bytes(u128::from(value.0).to_be_bytes());
    let (bucket, name) = key::parse_object(object).unwrap_or((STABLE, NAMES[0]));
    let register = key::upload(bucket, name, id);
    let part = key::part(id, 1, value.0);
    let (open, marked) = (shared.fresh(0), shared.fresh(Value::MARK));
    let ok = |outcome: Outcome<Seen>| matches!(outcome, Outcome::Ok(seen) if seen.wrote);
    if !ok(client.run(peer.clone(), &register, Op::Create(open)).await)
        || !ok(client.run(peer.clone(), &part, Op::Create(shared.fresh(0))).await)
    {
        return;
    }
    shared.parts.borrow_mut().insert(value, part);
    if world.chance(250) {
        // Another client aborts at the same time; one of the two must lose.
        let rival = Client {
            number: client.number,
            world: Rc::clone(&world),
            shared: Rc::clone(&shared),
            versions: std::cell::RefCell::default(),
        };
        let (register, at) = (register.clone(), somewhere(&world, client.number + 1).await.unwrap_or(peer.clone()));
        world.exec.clone().spawn(0, async move {
            if let Outcome::Ok(Seen { wrote: true, .. }) = rival.run(at, &register, Op::DeleteUnmarked).await {
                rival.shared.aborted.borrow_mut().push(value);
            }
        });
    }
    match client.run(peer.clone(), &register, Op::Touch(marked)).await {
        Outcome::Ok(Seen { wrote: true, .. }) => {}
        _ => return,
    }
    if ok(client.run(peer.clone(), object, Op::Put(value)).await) {
        client.run(peer, &register, Op::DeleteOnly(marked)).await;
    }
}

/// An operation on the bucket that comes and goes, by the protocol of `object/bucket.rs`.
async fn fleeting(client: &Client, peer: Peer) {
    let (world, shared) = (Rc::clone(&client.world), Rc::clone(&client.shared));
    let bucket = key::bucket(FLEETING);
    let object = key::object(FLEETING, NAMES[0]);
    match world.draw(0..10) {
        0..3 => {
            client.run(peer, &bucket, Op::Create(shared.fresh(0))).await;
        }
        3..6 => {
            let mark = shared.fresh(Value::MARK);
            let Outcome::Ok(Seen { wrote: true, .. }) = client.run(peer.clone(), &bucket, Op::Touch(mark)).await else {
                return;
            };
            match client.list(&peer, &key::objects(FLEETING), false, 1).await {
                Outcome::Ok(items) if items.is_empty() => {
                    client.run(peer, &bucket, Op::DeleteOnly(mark)).await;
                }
                _ => {
                    client.run(peer, &bucket, Op::Replace(mark, shared.fresh(0))).await;
                }
            }
        }
        6..8 => {
            client.run(peer, &object, Op::Delete).await;
        }
        _ => {
            let value = shared.fresh(0);
            let put = client.run(peer.clone(), &object, Op::Put(value)).await;
            if !matches!(put, Outcome::Ok(_)) {
                return;
            }
            // Confirm: the bucket outlived the write, or is brought back from its mark, or the write is undone.
            let lifted = match client.run(peer.clone(), &bucket, Op::Read).await {
                Outcome::Ok(Seen { state: Some(state), .. }) if !state.has(Value::MARK) => true,
                Outcome::Ok(_) => match client.run(peer.clone(), &bucket, Op::Lift(shared.fresh(0))).await {
                    Outcome::Ok(seen) => seen.state.is_some(),
                    _ => return,
                },
                _ => return,
            };
            if lifted {
                shared.confirmed.borrow_mut().push((object, value));
            } else {
                client.run(peer, &object, Op::DeleteOnly(value)).await;
            }
        }
    }
}

/// What must hold between registers at the end, where `last` is what a strong read answers.
pub fn judge(
    shared: &super::client::Shared,
    entries: &[super::history::Entry],
    last: impl Fn(&Bytes) -> Option<Option<Value>>,
) -> Result<(), String> {
    let observed = |value: Value| {
        entries.iter().any(|entry| matches!(&entry.outcome, Outcome::Ok(seen) if seen.state == Some(value)))
    };
    for value in shared.aborted.borrow().iter() {
        if observed(*value) {
            return Err(format!("{value:?} of an aborted upload became an object"));
        }
    }
    for (value, part) in shared.parts.borrow().iter() {
        if observed(*value) && last(part) == Some(None) {
            return Err(format!("{value:?} points to a part that is not there"));
        }
    }
    let bucket = key::bucket(FLEETING);
    for (object, value) in shared.confirmed.borrow().iter() {
        if last(object) == Some(Some(*value)) && last(&bucket) == Some(None) {
            return Err(format!("confirmed {value:?} is in a bucket that is gone"));
        }
    }
    Ok(())
}
