//! Those who are no members, and members that misbehave.

use quinn::ConnectionError;

use super::super::peer::close;
use super::super::tls::{Purpose, Tls};
use super::super::transport;
use super::*;

/// A connection with no endpoint of ours behind it, to say what `Net` never would.
async fn raw(seed: u8, purpose: Purpose, to: SocketAddr) -> quinn::Connection {
    let identity = identity(seed);
    let endpoint = transport::endpoint(&identity, transport::socket(ANY_PORT.parse().unwrap()).unwrap()).unwrap();
    let config = transport::client_config(&Tls::new(&identity), purpose, None).unwrap();
    endpoint.connect_with(config, to, "palm").unwrap().await.unwrap()
}

fn closed_with(error: &ConnectionError) -> quinn::VarInt {
    match error {
        ConnectionError::ApplicationClosed(closed) => closed.error_code,
        other => panic!("not closed by the application: {other}"),
    }
}

/// A stranger speaks the members' protocol. It is turned away with a reason, and nothing it sent is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_turned_away_unread() {
    let a = TestPeer::start(1);
    let connection = raw(66, Purpose::Member, a.net.local_addr()).await;
    if let Ok((mut send, _receive)) = connection.open_bi().await {
        let body = palm_core::wire::encode(&Frame::One(Request::Ping));
        let _ = send.write_all(&(body.len() as u32).to_le_bytes()).await;
        let _ = send.write_all(&body).await;
        let _ = send.finish();
    }
    let error = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(closed_with(&error), close::NOT_A_MEMBER);
    assert_eq!(a.seen.calls.load(Ordering::SeqCst), 0);

    // The same through the front door: the caller learns that its request was not carried out.
    let stranger = TestPeer::start(67);
    stranger.knows(&a);
    assert!(matches!(stranger.ping(a.net.me()).await, Err(NetError::Unreachable(_))));
    assert_eq!(a.seen.calls.load(Ordering::SeqCst), 0);
}

/// A joiner knows an address and nothing else. It must learn whom it talks to, from the handshake and not from
/// what is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_learns_who_answers() {
    let (a, joiner) = (TestPeer::start(1), TestPeer::start(2));
    let (who, response) =
        joiner.net.join_call(a.net.local_addr(), None, JoinRequest::Describe, PATIENCE).await.unwrap();
    assert_eq!(who, a.net.me());
    assert!(matches!(response, JoinResponse::Pool { name, .. } if name == joiner.net.me().to_string()));

    let silent = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let nobody = joiner.net.join_call(silent.local_addr().unwrap(), None, JoinRequest::Describe, SECOND).await;
    assert!(matches!(nobody, Err(NetError::Local(_))), "{nobody:?}");
}

/// The strangers' door must not lead into the house: member requests there are malformed, long ones are not read, and
/// visits are few at a time.
#[tokio::test(flavor = "multi_thread")]
async fn the_strangers_door_leads_nowhere() {
    let a = TestPeer::start(1);
    let long = vec![0; 8 << 10];
    let scan = palm_core::wire::encode(&Frame::One(Request::Fetch { keys: vec![Bytes::from_static(b"k"); 9] }));
    for body in [long, scan] {
        let connection = raw(66, Purpose::Join, a.net.local_addr()).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&(body.len() as u32).to_le_bytes()).await.unwrap();
        let _ = send.write_all(&body).await;
        let error = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert_eq!(closed_with(&error), close::PROTOCOL);
    }
    assert_eq!(a.seen.calls.load(Ordering::SeqCst), 0);

    let mut visits = Vec::new();
    for _ in 0..super::super::inner::MAX_STRANGERS {
        let connection = raw(66, Purpose::Join, a.net.local_addr()).await;
        visits.push((connection.open_bi().await.unwrap(), connection));
    }
    eventually("all places are taken", || a.net.0.strangers.available_permits() == 0).await;
    let turned_away = raw(66, Purpose::Join, a.net.local_addr()).await;
    let error = tokio::time::timeout(PATIENCE, turned_away.closed()).await.unwrap();
    assert_eq!(closed_with(&error), close::BUSY);
}

/// A member whose memory is broken, or who has been taken over, sends garbage. The connection closes with a reason, nothing
/// panics, no length is believed, and the next connection is served as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_member_closes_the_connection() {
    let a = TestPeer::start(1);
    a.net.admit(identity(2).peer_id());
    let mut streamed = palm_core::wire::encode(&Frame::Batch(vec![Request::Ping, Request::PutFragment(origin(0))]));
    streamed.splice(0..0, (streamed.len() as u32).to_le_bytes());
    let mut empty_batch = palm_core::wire::encode(&Frame::<Request>::Batch(vec![]));
    empty_batch.splice(0..0, (empty_batch.len() as u32).to_le_bytes());
    let garbage: [&[u8]; 7] = [
        &[0xff; 64],                                    // a length of 4 GiB
        &[1, 0, 128, 0, 1],                             // one byte over the limit
        &[0, 0, 0, 0],                                  // an empty frame
        &[3, 0, 0, 0, 1, 200, 9],                       // no such request
        &[8, 0, 0, 0, 1, 0, 255, 255, 255, 255, 15, 1], // a batch that claims four thousand million calls
        &streamed,
        &empty_batch,
    ];
    for bytes in garbage {
        let connection = raw(2, Purpose::Member, a.net.local_addr()).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let error = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert_eq!(closed_with(&error), close::PROTOCOL, "{bytes:?}");
    }
    assert_eq!(a.seen.calls.load(Ordering::SeqCst), 0);

    let b = TestPeer::start(2);
    b.knows(&a);
    b.ping(a.net.me()).await.unwrap();
}

/// A frame cut short by a reset is an asker that gave up: no reason to close the connection others use.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_request_harms_no_other() {
    let a = TestPeer::start(1);
    a.net.admit(identity(2).peer_id());
    let connection = raw(2, Purpose::Member, a.net.local_addr()).await;
    let (mut abandoned, _receive) = connection.open_bi().await.unwrap();
    abandoned.write_all(&[100, 0, 0, 0, 1]).await.unwrap();
    abandoned.reset(quinn::VarInt::from_u32(1)).unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let body = palm_core::wire::encode(&Frame::One(Request::Ping));
    send.write_all(&(body.len() as u32).to_le_bytes()).await.unwrap();
    send.write_all(&body).await.unwrap();
    send.finish().unwrap();
    let answer = tokio::time::timeout(PATIENCE, receive.read_to_end(100)).await.unwrap().unwrap();
    let expected = Response::Pong { epoch: identity(2).peer_id().tag() };
    assert_eq!(palm_core::wire::decode::<Frame<Response>>(&answer[4..]).unwrap(), Frame::One(expected));
}
