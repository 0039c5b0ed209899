//! Liveness of one hot key: nobody starves while others write it all the time.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;

use super::exec::Micros;
use super::link::Weather;
use super::world::{MS, SECOND, World, peer_id};
use crate::register::{Config, Decision, Updated};

const PROPOSERS: usize = 5;
const INCREMENTS: u64 = 40;

/// Every proposer increments one counter forty times. Answers how many increments were told as done, what the counter
/// shows then, and how long the slowest one took.
fn increment_together(seed: u64) -> (u64, u64, Micros) {
    let world = World::new(seed, Weather::CALM);
    let first = Config { epoch: 1, voters: (0..PROPOSERS).map(peer_id).collect(), outgoing: None };
    let key = Bytes::from_static(b"counter");
    for _ in 0..PROPOSERS {
        world.add_node(first.clone());
    }
    let (done, last, slowest, running) = (Rc::default(), Rc::default(), Rc::default(), Rc::new(Cell::new(PROPOSERS)));
    for number in 0..PROPOSERS {
        let peer = world.peer(number).expect("up");
        let (key, running): (Bytes, Rc<Cell<usize>>) = (key.clone(), Rc::clone(&running));
        let (done, last): (Rc<Cell<u64>>, Rc<Cell<u64>>) = (Rc::clone(&done), Rc::clone(&last));
        let slowest: Rc<Cell<Micros>> = Rc::clone(&slowest);
        world.exec.spawn(0, async move {
            for _ in 0..INCREMENTS {
                let began = peer.world.exec.now();
                let updated = peer.update(&key, |current| {
                    let count = current.map_or(0, |current| super::history::Value::of(&current.value).0);
                    Decision::Put(super::history::Value(count + 1).bytes(), count + 1)
                });
                if let Ok(Updated { answer, .. }) = updated.await {
                    done.set(done.get() + 1);
                    last.set(last.get().max(answer));
                }
                slowest.set(slowest.get().max(peer.world.exec.now() - began));
            }
            running.set(running.get() - 1);
        });
    }
    world.exec.run_until(600 * SECOND, || running.get() == 0);
    world.end();
    (done.get(), last.get(), slowest.get())
}

/// Story: five proposers increment one counter, forty times each, as fast as they can. Danger: one is outrun by more writes
/// than a record lists, and is told "unknown"; or by all others until it gives up. Expectation: every one succeeds,
/// and none waits for longer than a second.
#[test]
fn five_proposers_of_one_key_all_succeed() {
    let mut slowest = 0;
    for seed in 0..200 {
        let (done, last, longest) = increment_together(seed);
        assert_eq!((done, last), (200, 200), "seed {seed}, slowest {} ms", longest / MS);
        slowest = slowest.max(longest);
    }
    println!("the slowest increment took {} ms", slowest / MS);
    assert!(slowest < SECOND, "{} ms", slowest / MS);
}
