//! Requests and their answers, alone and in batches.

use futures::future::join_all;
use palm_core::wire::MAX_FRAME_BYTES;

use super::*;

/// The simplest thing there is: two members, one question each way over whichever connection came about.
#[tokio::test(flavor = "multi_thread")]
async fn members_answer_each_other() {
    let (a, b) = pair();
    assert_eq!(a.ping(b.net.me()).await.unwrap(), Response::Pong { epoch: a.net.me().tag() });
    assert_eq!(b.ping(a.net.me()).await.unwrap(), Response::Pong { epoch: b.net.me().tag() });
    assert!(a.net.round_trip(b.net.me()).unwrap() < SECOND);
    assert!(a.net.link_stats(b.net.me()).unwrap().sent_bytes > 0);
}

/// Answers to a batch are told apart by position alone, and lanes run side by side: with 1,000 callers of three
/// kinds at once, an answer handed to the wrong caller must not go unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_calls_each_get_their_own_answer() {
    let (a, b) = pair();
    let to = b.net.me();
    let calls = (0..1000u32).map(|n| {
        let net = a.net.clone();
        tokio::spawn(async move {
            match n % 3 {
                0 => {
                    let answer = net.call(to, echo(n.into()), PATIENCE).await.unwrap();
                    assert_eq!(answer, Response::Pong { epoch: n.into() });
                }
                1 => {
                    let id = FragmentId::of(&n.to_le_bytes());
                    let answer = net.call(to, Request::GetSmall { id }, PATIENCE).await.unwrap();
                    assert_eq!(answer, Response::Small(Bytes::copy_from_slice(id.as_bytes())));
                }
                _ => {
                    let bytes = Bytes::from(n.to_le_bytes().repeat(n as usize % 500));
                    let id = FragmentId::of(&bytes);
                    let len = bytes.len() as u64;
                    let put = Request::PutSmall { origin: origin(0), bytes };
                    assert_eq!(net.call(to, put, PATIENCE).await.unwrap(), Response::Stored { id, len });
                }
            }
        })
    });
    for done in join_all(calls).await {
        done.unwrap();
    }
    assert_eq!(b.seen.calls.load(Ordering::SeqCst), 1000);
}

/// The answers of one batch may together be larger than a frame: the batch then comes back in several, and one answer that
/// is too large alone becomes an explanation, without harm to its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn answers_too_large_for_one_frame_come_in_several() {
    let (a, b) = pair();
    a.ping(b.net.me()).await.unwrap();
    let ask = |bytes: usize| {
        let request = Request::Read { epoch: bytes as u64, key: Bytes::new(), have: None };
        a.net.call(b.net.me(), request, PATIENCE)
    };
    // The first few fill the places under way, the rest share batches.
    let sizes = [1, 1, 1, 3 << 20, 3 << 20, MAX_FRAME_BYTES + 1, 3 << 20, 10];
    for (size, answer) in sizes.iter().zip(join_all(sizes.map(ask)).await) {
        match answer.unwrap() {
            Response::Small(bytes) => assert_eq!(bytes.len(), *size),
            Response::Failed { detail, .. } => assert!(*size > MAX_FRAME_BYTES, "{detail}"),
            other => panic!("unexpected answer {other:?}"),
        }
    }
}

/// Callers may give up at any moment. A caller that is gone, or whose deadline passes while the peer hangs, must
/// neither get a wrong answer nor keep the lane from those after it.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_do_not_hold_up_the_lane() {
    let (a, b) = pair();
    let to = b.net.me();
    a.ping(to).await.unwrap();
    *b.seen.slow.lock() = Some(PATIENCE * 3);
    let short = Duration::from_millis(200);
    let hanging = join_all((0..100).map(|n| a.net.call(to, echo(n), short))).await;
    assert!(hanging.iter().all(|answer| matches!(answer, Err(NetError::NoAnswer { .. }))), "{hanging:?}");
    *b.seen.slow.lock() = None;
    let answer = a.net.call(to, echo(7), PATIENCE).await.unwrap();
    assert_eq!(answer, Response::Pong { epoch: 7 });
}

/// Gossip arrives with its sender's name, and vanishes without a sound when there is no link.
#[tokio::test(flavor = "multi_thread")]
async fn gossip_is_delivered_or_lost() {
    let (a, b) = pair();
    a.net.gossip(PeerId::from_bytes([9; 32]), Bytes::from_static(b"to nobody"));
    a.ping(b.net.me()).await.unwrap();
    a.net.gossip(b.net.me(), Bytes::from_static(b"rumour"));
    a.net.gossip(b.net.me(), vec![0; super::super::MAX_GOSSIP_BYTES + 1].into());
    tokio::time::timeout(PATIENCE, b.seen.happened.notified()).await.unwrap();
    assert_eq!(*b.seen.gossip.lock(), vec![(a.net.me(), Bytes::from_static(b"rumour"))]);
}
