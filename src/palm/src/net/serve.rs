//! Answering: members over their links, strangers in a small room of their own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use palm_core::id::PeerId;
use palm_core::wire::{Failure, Frame, JoinRequest, MAX_BATCH_CALLS, MAX_FRAME_BYTES, Request, Response};
use quinn::{Connection, Incoming, RecvStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, info};

use super::Handler;
use super::fragment::{FragmentSink, FragmentSource};
use super::frames::{self, FrameError, FrameReader, FrameWriter};
use super::inner::{Inner, MAX_HANDSHAKES, MAX_STRANGERS};
use super::peer::{InUse, Link, Peer, close};
use super::tls::{Purpose, peer_of, purpose_of};
use super::transport::raise_limits;

/// A handshake that others began takes no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// With fewer free places than this, callers must first prove their address: forged floods get no further.
const CALM_HANDSHAKES: usize = MAX_HANDSHAKES / 2;
/// A stranger's whole visit.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests of one visit.
const MAX_VISIT_REQUESTS: usize = 4;
/// A stranger's frame.
const MAX_JOIN_REQUEST_BYTES: usize = 4 << 10;
/// A request frame must have come this long after its stream began.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer must have been taken off our hands in this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames up to this do not count against a member's frame budget.
const SMALL_FRAME_BYTES: usize = 64 << 10;
/// Gossip messages are not longer.
pub(super) const MAX_GOSSIP_BYTES: usize = 64 << 10;
/// A gossip message that takes longer is stale.
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(5);

/// Greets whoever dials.
pub(super) async fn accept(net: Arc<Inner>) {
    while let Some(incoming) = net.endpoint.accept().await {
        if net.handshakes.available_permits() < CALM_HANDSHAKES && incoming.may_retry() {
            // Fails only where it may not be asked.
            let _ = incoming.retry();
            continue;
        }
        match net.handshakes.clone().try_acquire_owned() {
            Ok(permit) => net.spawn(greet(net.clone(), incoming, permit)),
            Err(_) => incoming.refuse(),
        }
    }
}

/// Completes a handshake and decides what the connection may do.
async fn greet(net: Arc<Inner>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let Ok(connecting) = incoming.accept() else {
        return;
    };
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%address, %error, "handshake failed"),
        Err(_) => return debug!(%address, "handshake timed out"),
    };
    drop(permit);
    let (Some(from), Some(purpose)) = (peer_of(&connection), purpose_of(&connection)) else {
        return connection.close(close::PROTOCOL, b"no identity or no protocol");
    };
    match purpose {
        Purpose::Member => {
            let Some(peer) = net.peer(from).filter(|peer| peer.is_admitted()) else {
                info!(peer = %from, %address, "refused: not a member");
                return connection.close(close::NOT_A_MEMBER, b"not a member of this pool");
            };
            raise_limits(&connection);
            // One socket dials and listens, so this is also where the peer can be dialled.
            peer.hint(connection.remote_address());
            net.established(&peer, connection, false);
        }
        Purpose::Join => match net.strangers.clone().try_acquire_owned() {
            Ok(_place) => {
                if timeout(VISIT_TIMEOUT, receive_stranger(&net, from, &connection)).await.is_err() {
                    debug!(peer = %from, %address, "visit took too long");
                }
                connection.close(close::GOODBYE, b"goodbye");
            }
            Err(_) => connection.close(close::BUSY, format!("{MAX_STRANGERS} others are joining").as_bytes()),
        },
    }
}

/// Answers a stranger's few requests, one after the other.
async fn receive_stranger(net: &Inner, from: PeerId, connection: &Connection) {
    let handler = net.handler.wait().await;
    for _ in 0..MAX_VISIT_REQUESTS {
        let Ok((send, receive)) = connection.accept_bi().await else {
            return;
        };
        let request = match FrameReader::new(receive).message::<JoinRequest>(MAX_JOIN_REQUEST_BYTES).await {
            Ok(request) => request,
            Err(error) => {
                info!(peer = %from, %error, "refused: malformed join request");
                return connection.close(close::PROTOCOL, error.to_string().as_bytes());
            }
        };
        let response = handler.join(from, connection.remote_address(), request).await;
        let Ok(body) = frames::encode(&response) else {
            return;
        };
        let mut writer = FrameWriter::new(send);
        if writer.frame(body).await.is_err() {
            return;
        }
        writer.finish();
    }
    // The stranger closes when it has read the last answer.
    connection.closed().await;
}

/// Answers what comes over a link until it ends.
pub(super) async fn serve_link(net: Arc<Inner>, peer: Arc<Peer>, link: Arc<Link>) {
    let handler = tokio::select! {
        handler = net.handler.wait() => handler.clone(),
        _ = link.connection.closed() => return peer.remove_link(&link),
    };
    let ended = loop {
        tokio::select! {
            stream = link.connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    let (peer, link, handler) = (peer.id, link.occupy(), handler.clone());
                    net.runtime.spawn(async move {
                        let request = Asked { peer, link: &link, handler: &handler };
                        request.answer(FrameReader::new(receive), FrameWriter::new(send)).await;
                    });
                }
                Err(error) => break error,
            },
            stream = link.connection.accept_uni() => match stream {
                Ok(receive) => drop(net.runtime.spawn(hear_gossip(peer.id, receive, handler.clone()))),
                Err(error) => break error,
            },
        }
    };
    debug!(peer = %peer.id, error = %ended, "connection ended");
    peer.remove_link(&link);
}

async fn hear_gossip(from: PeerId, mut stream: RecvStream, handler: Arc<dyn Handler>) {
    if let Ok(Ok(message)) = timeout(GOSSIP_TIMEOUT, stream.read_to_end(MAX_GOSSIP_BYTES)).await {
        handler.gossip(from, message.into());
    }
}

/// A stream on which a member asks something.
struct Asked<'a> {
    peer: PeerId,
    link: &'a InUse,
    handler: &'a Arc<dyn Handler>,
}

impl Asked<'_> {
    async fn answer(&self, mut reader: FrameReader, writer: FrameWriter) {
        let (request, _room) = match timeout(REQUEST_TIMEOUT, self.request(&mut reader)).await {
            Ok(Ok(request)) => request,
            Ok(Err(FrameError::Malformed(detail))) => {
                return self.link.protocol_broken(self.peer, &detail);
            }
            Ok(Err(error)) => return debug!(peer = %self.peer, %error, "request did not arrive"),
            Err(_) => return debug!(peer = %self.peer, "request took too long to arrive"),
        };
        match request {
            Frame::One(Request::GetFragment { id, offset, len }) => {
                let sink = FragmentSink::new(self.peer, writer);
                self.handler.get_fragment(self.peer, id, offset, len, sink).await;
            }
            Frame::One(Request::PutFragment(origin)) => {
                let source = FragmentSource::new(self.peer, reader);
                let response = self.handler.put_fragment(self.peer, origin, source).await;
                send(writer, vec![answer_body(&response)]).await;
            }
            Frame::Batch(calls) => {
                if calls.is_empty() || calls.len() > MAX_BATCH_CALLS || !calls.iter().all(is_plain) {
                    return self.link.protocol_broken(self.peer, "batch of the wrong size or kind");
                }
                let answers = join_all(calls.into_iter().map(|call| self.handler.call(self.peer, call))).await;
                let mut bodies = Vec::with_capacity(1);
                batch_bodies(&answers, &mut bodies);
                send(writer, bodies).await;
            }
            Frame::One(request) => {
                let response = self.handler.call(self.peer, request).await;
                send(writer, vec![answer_body(&response)]).await;
            }
        }
    }

    /// Reads the request. A large one first needs room in the member's frame budget, held until it is answered.
    async fn request(
        &self,
        reader: &mut FrameReader,
    ) -> Result<(Frame<Request>, Option<OwnedSemaphorePermit>), FrameError> {
        let len = reader.frame_len(MAX_FRAME_BYTES).await?;
        let room = match u32::try_from(len) {
            // The budget is never closed, so acquiring it cannot fail.
            Ok(bytes) if len > SMALL_FRAME_BYTES => self.link.frame_budget.clone().acquire_many_owned(bytes).await.ok(),
            _ => None,
        };
        let body = reader.frame_body(len).await?;
        Ok((frames::decode(&body)?, room))
    }
}

/// Whether a request may be part of a batch.
fn is_plain(request: &Request) -> bool {
    !matches!(request, Request::PutFragment(_) | Request::GetFragment { .. })
}

async fn send(writer: FrameWriter, bodies: Vec<Bytes>) {
    let mut writer = writer.urgent();
    let write = async {
        for body in bodies {
            writer.frame(body).await?;
        }
        writer.finish();
        Ok::<_, quinn::WriteError>(())
    };
    // An asker that has gone, or takes no answer, misses it.
    let _ = timeout(ANSWER_TIMEOUT, write).await;
}

/// A response's frame; one that does not fit is answered by saying so.
fn answer_body(response: &Response) -> Bytes {
    frames::encode(&Frame::One(response)).or_else(|len| frames::encode(&Frame::One(too_large(len)))).unwrap_or_default()
}

/// The frames of a batch's answers: one, unless they are too large together.
fn batch_bodies(answers: &[Response], bodies: &mut Vec<Bytes>) {
    match (frames::encode(&Frame::Batch(answers.iter().collect())), answers) {
        (Ok(body), _) => bodies.push(body),
        (Err(len), [_]) => bodies.extend(frames::encode(&Frame::Batch(vec![too_large(len)]))),
        (Err(_), _) => {
            let (first, second) = answers.split_at(answers.len() / 2);
            batch_bodies(first, bodies);
            batch_bodies(second, bodies);
        }
    }
}

fn too_large(len: usize) -> Response {
    Response::Failed {
        reason: Failure::Malformed,
        detail: format!("answer of {len} bytes, at most {MAX_FRAME_BYTES} fit a frame"),
    }
}
