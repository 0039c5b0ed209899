//! Voters that change (R8) and a majority that is lost, over real QUIC: drivers that compete, voters that return, a ledger
//! founded anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use palm::pool::ledger::{Ledger, LedgerError};
use palm_core::hlc::Ballot;
use palm_core::id::{PeerId, RequestId};
use palm_core::register::{Config, Record};
use palm_core::wire::{Request, Response};

use crate::ledger::{Peer, introduce, key, names, pool, put};

fn ids(peers: &[Peer]) -> Vec<PeerId> {
    peers.iter().map(Peer::id).collect()
}

/// Drives towards a target until it is reached, or `done` says that somebody else's was.
async fn drive(ledger: &Ledger, target: &BTreeSet<PeerId>, done: &AtomicBool) {
    for _ in 0..400 {
        match ledger.change_voters(target).await {
            Ok(true) => done.store(true, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => assert!(!matches!(error, LedgerError::Storage(_)), "{error}"),
        }
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
    panic!("no target was ever reached");
}

/// Drives to a target alone. A step for which a voter's disk was too slow is taken again, as members do.
pub async fn reach(ledger: &Ledger, target: &BTreeSet<PeerId>) {
    drive(ledger, target, &AtomicBool::new(false)).await;
}

/// The peer once more, with the disk it had.
async fn restarted(peer: &Peer) -> Peer {
    peer.net.close().await;
    Peer::start(peer.seed, Arc::clone(&peer.index), &peer.ledger.config()).await
}

/// Story: three voters each think that other peers should vote, and drive at once, while clients write. Danger: two
/// configurations chosen in one epoch, or two disjoint quorums, and a write acknowledged by one of them is lost (R8).
/// Expected: one of the targets is reached, all peers end in one configuration, and every acknowledged write is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_with_different_targets_agree_on_one_configuration() {
    let peers = pool(5, 3).await;
    let all = ids(&peers);
    let targets: [BTreeSet<PeerId>; 3] =
        [all[..4].iter().copied().collect(), all[1..4].iter().copied().collect(), [all[0], all[2], all[4]].into()];
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let writers: Vec<_> = peers
        .iter()
        .enumerate()
        .map(|(who, peer)| {
            let (ledger, stop) = (peer.ledger.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("w/{who}/{turn:05}");
                    if put(&ledger, &key(&name), "x").await.is_ok() {
                        acknowledged.push(name);
                    }
                }
                acknowledged
            })
        })
        .collect();
    let drivers = peers.iter().zip(&targets).map(|(peer, target)| drive(&peer.ledger, target, &done));
    futures::future::join_all(drivers).await;
    // Whoever was in the middle of a step may have left a joint phase: anybody finishes it.
    while let Some(peer) = peers.iter().find(|peer| peer.ledger.config().outgoing.is_some()) {
        let voters = peer.ledger.config().voters.clone();
        reach(&peer.ledger, &voters).await;
        for peer in &peers {
            peer.ledger.level_once(0).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    acknowledged.sort();
    let mut configs = BTreeSet::new();
    for peer in &peers {
        let listed = names(&peer.ledger, "w/").await;
        assert!(acknowledged.iter().all(|name| listed.binary_search(name).is_ok()), "lost at {}", peer.id());
        configs.insert((peer.ledger.config().epoch, format!("{:?}", peer.ledger.config().voters)));
    }
    assert_eq!(configs.len(), 1, "{configs:?}");
    assert!(acknowledged.len() > 20, "only {} writes", acknowledged.len());
}

/// Story: a voter is away, another takes its place, and it returns with its old disk and its old epoch. Danger: it
/// answers as the voter it was, from an acceptor that missed writes. Expected: it adopts the new epoch from the first
/// exchange and follows from what it has; made a voter again, it starts empty and is brought level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_voter_returns_as_a_learner() {
    let mut peers = pool(4, 3).await;
    let all = ids(&peers);
    put(&peers[0].ledger, &key("before"), "1").await.unwrap();
    // Two of three are a quorum: the write stands before the third has it.
    heard(&peers[2].ledger, &key("before"), "1").await;
    peers[2].net.close().await;
    let target: BTreeSet<PeerId> = [all[0], all[1], all[3]].into();
    reach(&peers[0].ledger, &target).await;
    put(&peers[0].ledger, &key("during"), "2").await.unwrap();

    peers[2] = restarted(&peers[2]).await;
    assert!(peers[2].ledger.config().is_voter(&all[2]), "it knows no better yet");
    introduce(&peers);
    assert_eq!(peers[2].ledger.read(&key("during")).await.unwrap().unwrap().value, "2");
    assert_eq!(peers[2].ledger.config().voters, target);
    assert_eq!(peers[2].ledger.peek(&key("before")).unwrap().value, "1", "what it accepted is its copy now");
    let late = Request::Prepare { epoch: 1, key: key("before"), ballot: Ballot { peer: 1, ..Ballot::ZERO } };
    let answer = peers[2].ledger.handle(all[0], late).await;
    assert!(matches!(answer, Response::WrongEpoch(_)), "{answer:?}");

    let target: BTreeSet<PeerId> = [all[1], all[2], all[3]].into();
    reach(&peers[1].ledger, &target).await;
    peers[1].net.close().await;
    assert_eq!(
        names(&peers[2].ledger, "").await.into_iter().filter(|name| name != "C").collect::<Vec<_>>(),
        ["before", "during"]
    );
}

/// Story: a fourth voter dies while it is being made one, for ever. Danger: the joint phase cannot be finished without it, and
/// no voter can ever be replaced again. Expected: the change is given up, nothing written meanwhile is lost, and another
/// driver that still believes in the change does no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_dies_is_given_up() {
    let peers = pool(5, 3).await;
    let all = ids(&peers);
    put(&peers[0].ledger, &key("before"), "1").await.unwrap();
    peers[3].net.close().await;
    let target: BTreeSet<PeerId> = all[..4].iter().copied().collect();
    peers[0].ledger.change_voters(&target).await.expect_err("the joiner is dead");
    let joint = (*peers[0].ledger.config()).clone();
    assert_eq!(joint.outgoing, Some(all[..3].iter().copied().collect()));
    put(&peers[1].ledger, &key("during"), "2").await.unwrap();

    peers[0].ledger.move_voters(&joint, all[..3].iter().copied().collect()).await.unwrap();
    peers[1].ledger.move_voters(&joint, target).await.expect_err("a step from a configuration that is over");
    for peer in &peers[..3] {
        assert_eq!(peer.ledger.read(&key("during")).await.unwrap().unwrap().value, "2");
        assert_eq!((peer.ledger.config().voters.len(), peer.ledger.config().outgoing.clone()), (3, None));
    }
    let target: BTreeSet<PeerId> = [all[1], all[2], all[4]].into();
    reach(&peers[1].ledger, &target).await;
    peers[0].net.close().await;
    assert_eq!(peers[4].ledger.read(&key("before")).await.unwrap().unwrap().value, "1");
}

/// Story: two of three voters are destroyed; a learner is left beside the third. Danger: what only the learner had heard
/// of is lost with them, a write is taken by an old quorum after the recovery, or the new ballots fall below old ones.
/// Expected: one peer votes, with everything either of the two held at its old version; the old voters, back from a
/// backup, are in the new epoch after one exchange, and messages of the old epoch are refused everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_majority_is_founded_anew() {
    let mut peers = pool(4, 3).await;
    let all = ids(&peers);
    let (survivor, learner) = (2, 3);
    put(&peers[0].ledger, &key("a"), "old").await.unwrap();
    put(&peers[0].ledger, &key("b"), "1").await.unwrap();
    peers[survivor].net.close().await;
    // Missed by the survivor, heard of by the learner.
    put(&peers[0].ledger, &key("a"), "new").await.unwrap();
    put(&peers[1].ledger, &key("c"), "2").await.unwrap();
    let version = peers[0].ledger.read(&key("a")).await.unwrap().unwrap().version;
    heard(&peers[learner].ledger, &key("a"), "new").await;
    heard(&peers[learner].ledger, &key("c"), "2").await;
    for lost in [0, 1] {
        peers[lost].net.close().await;
    }
    peers[survivor] = restarted(&peers[survivor]).await;
    introduce(&peers[survivor..]);
    let members: BTreeSet<PeerId> = all.iter().copied().collect();
    peers[survivor].ledger.set_members(members.clone());

    let survey = peers[survivor].ledger.survey().await.unwrap();
    assert!(!survey.has_quorum());
    assert_eq!((survey.lost().len(), survey.reachable.len()), (2, 2));
    put(&peers[survivor].ledger, &key("d"), "refused").await.expect_err("no majority");
    peers[survivor].ledger.recover(&survey).await.unwrap();
    for peer in &peers[survivor..] {
        assert_eq!(peer.ledger.config().voters, [all[survivor]].into());
        let a = peer.ledger.read(&key("a")).await.unwrap().unwrap();
        assert_eq!((&a.value[..], a.version), (&b"new"[..], version), "R1: versions are what they were");
        assert_eq!(peer.ledger.read(&key("c")).await.unwrap().unwrap().value, "2");
        put(&peer.ledger, &key("d"), "3").await.unwrap();
    }

    // The old majority turns up again, with nobody else in reach: an accept of its epoch reaches the survivor late.
    for old in [0, 1] {
        peers[old] = restarted(&peers[old]).await;
    }
    let late = Record::write(None, RequestId(1), Ballot::ZERO, Some(key("late")));
    let late = Request::Accept { epoch: 1, key: key("a"), ballot: version, record: late };
    for peer in &peers[survivor..] {
        let answer = peer.ledger.handle(all[0], late.clone()).await;
        assert!(matches!(answer, Response::WrongEpoch(_)), "{answer:?}");
    }
    introduce(&peers);
    for old in [0, 1] {
        peers[old].ledger.level_once(0).await.unwrap();
        assert_eq!(peers[old].ledger.config().epoch, peers[survivor].ledger.config().epoch);
        assert_eq!(peers[old].ledger.read(&key("d")).await.unwrap().unwrap().value, "3");
    }
    // And they vote again when they are asked to.
    reach(&peers[survivor].ledger, &all[..3].iter().copied().collect()).await;
    peers[survivor].net.close().await;
    put(&peers[0].ledger, &key("e"), "4").await.unwrap();
    assert_eq!(peers[1].ledger.read(&key("a")).await.unwrap().unwrap().value, "new");
}

/// Waits until a learner has been told.
async fn heard(ledger: &Ledger, at: &Bytes, value: &str) {
    let mut changes = ledger.watch();
    let told = async {
        while ledger.peek(at).is_none_or(|current| current.value != value) {
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.recv()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the learner is told");
}

/// Story: a recovery is broken off after its fence, and another peer begins one. Expected: the pool stands still in
/// between, the first can do no more harm, and the second ends it with everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_broken_off_is_done_again() {
    let mut peers = pool(3, 3).await;
    let all = ids(&peers);
    put(&peers[0].ledger, &key("a"), "1").await.unwrap();
    peers.remove(0).net.close().await;
    let fence = peers[0].ledger.config().standstill(1);
    for peer in &peers {
        let adopted = peer.ledger.handle(all[1], Request::AdoptConfig(fence.clone())).await;
        assert_eq!(adopted, Response::Done);
        peer.ledger.read(&key("a")).await.expect_err("nobody votes");
    }
    let survey = peers[1].ledger.survey().await.unwrap();
    assert!(!survey.has_quorum() && survey.newest == fence);
    peers[1].ledger.recover(&survey).await.unwrap();
    assert_eq!(peers[0].ledger.read(&key("a")).await.unwrap().unwrap().value, "1");
    let stale = peers[0].ledger.handle(all[2], Request::HandOver { epoch: fence.epoch, from: Bytes::new() }).await;
    assert!(matches!(stale, Response::WrongEpoch(Config { .. })), "{stale:?}");
}
