//! How links come about, end, and come back.

use std::time::Instant;

use super::*;

/// An address says nothing about who is there. When another peer answers at a member's address (DHCP gave it away,
/// or someone lies) not a byte of the request may reach it.
#[tokio::test(flavor = "multi_thread")]
async fn another_peer_at_the_address_is_refused() {
    let (a, impostor) = (TestPeer::start(1), TestPeer::start(3));
    let member = identity(2).peer_id();
    impostor.knows(&a);
    a.net.admit(member);
    a.net.hint(member, impostor.net.local_addr());
    let answer = a.ping(member).await;
    assert!(matches!(answer, Err(NetError::Unreachable(peer)) if peer == member), "{answer:?}");
    assert_eq!(impostor.seen.calls.load(Ordering::SeqCst), 0);

    // The right peer elsewhere is found beside the wrong hint.
    let right = TestPeer::start(2);
    right.net.admit(a.net.me());
    a.net.hint(member, right.net.local_addr());
    a.net.hint(member, impostor.net.local_addr());
    a.ping(member).await.unwrap();
}

/// Calls to a dead peer come in storms. The first may look for it, no longer than an attempt takes; those after it must
/// fail at once, or every request of the pool would wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_fails_fast() {
    let a = TestPeer::start(1);
    let dead = identity(2).peer_id();
    a.net.admit(dead);
    // A bound socket that never answers: nothing listens behind it.
    let silent = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    a.net.hint(dead, silent.local_addr().unwrap());

    let begun = Instant::now();
    assert!(matches!(a.ping(dead).await, Err(NetError::Unreachable(_))));
    // An attempt takes a second; without that bound a handshake lasts until the idle timeout.
    assert!(begun.elapsed() < SECOND * 3, "{:?}", begun.elapsed());
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        assert!(matches!(a.ping(dead).await, Err(NetError::Unreachable(_))));
        waited += begun.elapsed();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Twenty attempts would take twenty seconds.
    assert!(waited < SECOND * 4, "{waited:?}");
    assert!(matches!(a.ping(identity(9).peer_id()).await, Err(NetError::Unreachable(_))), "never heard of");
}

/// A peer restarts at another address. With a hint, calls must work again without waiting for anything to time out.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_is_found_at_its_new_address() {
    let (a, b) = pair();
    let id = b.net.me();
    a.ping(id).await.unwrap();
    b.net.close().await;
    eventually("the old link is gone", || !a.net.is_connected(id)).await;
    let again = TestPeer::start(2);
    assert_ne!(again.net.local_addr(), b.net.local_addr());
    again.net.admit(a.net.me());
    assert!(matches!(a.ping(id).await, Err(NetError::Unreachable(_))));
    a.net.hint(id, again.net.local_addr());
    let begun = Instant::now();
    // An attempt at the old address may be under way.
    while a.ping(id).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() < SECOND * 3, "{:?}", begun.elapsed());
}

/// A peer that restarts and knows the others dials them itself: nobody needs a hint.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_reports_itself() {
    let (a, b) = pair();
    let id = b.net.me();
    a.ping(id).await.unwrap();
    b.net.close().await;
    let again = TestPeer::start(2);
    again.knows(&a);
    eventually("the new link is up", || a.net.remote_addr(id) == Some(again.net.local_addr())).await;
    a.ping(id).await.unwrap();
}

/// A peer crashes and is started again at the same address, with no chance to say goodbye. Its new life must disown the old
/// connection at the first packet, instead of leaving the others to wait until it times out.
#[test]
fn a_crashed_peer_is_back_before_its_old_link_times_out() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let crashing = runtime();
    let b = crashing.block_on(async { TestPeer::start(2) });
    runtime().block_on(async {
        let a = TestPeer::start(1);
        a.knows(&b);
        b.net.admit(a.net.me());
        a.ping(b.net.me()).await.unwrap();
        crashing.shutdown_background();
        let (id, address) = (b.net.me(), b.net.local_addr());
        drop(b);
        let again = rebind(2, address).await;
        again.net.admit(a.net.me());
        let begun = Instant::now();
        while a.net.call(id, Request::Ping, SECOND * 10).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(begun.elapsed() < super::super::transport::IDLE_TIMEOUT / 2, "{:?}", begun.elapsed());
    });
}

/// Starts a peer at an address whose socket is about to be free.
async fn rebind(seed: u8, address: SocketAddr) -> TestPeer {
    eventually("the address is free", || std::net::UdpSocket::bind(address).is_ok()).await;
    TestPeer::start_at(seed, address)
}

/// Eviction must bite at once: the link closes, and what the evicted one asks is not answered any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_expelled_peer_is_cut_off() {
    let (a, b) = pair();
    b.ping(a.net.me()).await.unwrap();
    a.net.expel(b.net.me());
    eventually("the expelled sees its link end", || !b.net.is_connected(a.net.me())).await;
    let answered = a.seen.calls.load(Ordering::SeqCst);
    // It may still dial, since it does not know; it is turned away every time.
    for _ in 0..10 {
        assert!(matches!(b.ping(a.net.me()).await, Err(NetError::Unreachable(_))));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(a.seen.calls.load(Ordering::SeqCst), answered);
    assert!(matches!(a.ping(b.net.me()).await, Err(NetError::Unreachable(_))));
}

/// Both ends dial at the same moment, again and again. Whatever comes of it, no call may fail, and in the end one
/// connection is left.
#[tokio::test(flavor = "multi_thread")]
async fn dialling_each_other_at_once_loses_nothing() {
    let (a, b) = pair();
    for _ in 0..200 {
        let (x, y) = tokio::join!(a.ping(b.net.me()), b.ping(a.net.me()));
        x.unwrap();
        y.unwrap();
    }
    for end in [&a, &b] {
        eventually("one connection is left", || end.net.0.endpoint.open_connections() == 1).await;
    }
    a.ping(b.net.me()).await.unwrap();
    assert_eq!(b.net.0.endpoint.open_connections(), 1);
}

/// Members keep links up without being asked, so that the first request after a quiet time does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn links_come_up_by_themselves() {
    let (a, b) = pair();
    eventually("both are linked", || a.net.is_connected(b.net.me()) && b.net.is_connected(a.net.me())).await;
    assert_eq!(a.net.connected_peers(), vec![b.net.me()]);
}
