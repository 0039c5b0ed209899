//! Small requests to one peer share frames. A lane sends all that waits as one batch, and while a few batches
//! are under way the next one fills: a lone request goes at once, and the busier the lane the larger its batches.

use std::collections::VecDeque;
use std::sync::Arc;

use palm_core::id::PeerId;
use palm_core::wire::{Frame, MAX_BATCH_CALLS, MAX_FRAME_BYTES, MAX_SMALL_FRAGMENT_BYTES, Request, Response};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::NetError;
use super::frames::{self, FrameError, FrameReader, FrameWriter};
use super::inner::Inner;
use super::peer::{InUse, Peer, read_failed, write_failed};

/// Batches of one lane under way at once. Fewer leave a link idle between answer and question, more make batches small.
const MAX_IN_FLIGHT: usize = 3;
/// Requests that wait in one lane.
const MAX_WAITING_CALLS: usize = 4096;
/// Bytes of requests that wait in one lane.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// A batch takes no further request beyond this, counting what it sends and what it is sure to be answered.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Counted for a request's fixed fields, and for those of its answer.
const CALL_BYTES: usize = 128;

/// What requests may share a frame: those that take about as long to answer, since a batch is as slow as its
/// slowest call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Answered from memory, or nearly.
    Quick,
    /// Answered after a sync.
    Durable,
    /// Answered by a small read from disk.
    Read,
}

impl Class {
    /// Which lane a request takes; `None` for those whose answers are large and gain nothing from sharing.
    pub(super) fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Ping
            | Request::Prepare { .. }
            | Request::Read { .. }
            | Request::Learn { .. }
            | Request::GetConfig
            | Request::InFlight { .. } => Some(Self::Quick),
            Request::Accept { .. }
            | Request::AdoptConfig(_)
            | Request::Raise { .. }
            | Request::PutSmall { .. }
            | Request::DeleteFragments { .. }
            | Request::Release { .. } => Some(Self::Durable),
            Request::GetSmall { .. } => Some(Self::Read),
            Request::Scan { .. }
            | Request::ScanObjects { .. }
            | Request::Compare { .. }
            | Request::CompareLocal { .. }
            | Request::SupplyLocal { .. }
            | Request::Fetch { .. }
            | Request::HoldsTombstones { .. }
            | Request::CollectTombstones { .. }
            | Request::GetFloors { .. }
            | Request::RaiseFloors { .. }
            | Request::HandOver { .. }
            | Request::Supply { .. }
            | Request::Confirm { .. }
            | Request::CatchUp
            | Request::CheckFragments { .. }
            | Request::GetHealth
            | Request::Audit
            | Request::PutFragment(_)
            | Request::GetFragment { .. } => None,
        }
    }
}

/// About how many bytes a request brings into its batch, there and back.
fn weight(request: &Request) -> usize {
    CALL_BYTES
        + match request {
            Request::Accept { key, record, .. } => key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len),
            Request::Learn { key, accepted } => key.len() + accepted.record.value.as_ref().map_or(0, bytes::Bytes::len),
            Request::Prepare { key, .. } | Request::Read { key, .. } => key.len(),
            Request::PutSmall { bytes, .. } => bytes.len(),
            Request::GetSmall { .. } => MAX_SMALL_FRAGMENT_BYTES,
            Request::DeleteFragments { ids } => ids.len() * 32,
            _ => 0,
        }
}

/// The lanes to one peer.
#[derive(Default)]
pub(super) struct Lanes {
    quick: Lane,
    durable: Lane,
    read: Lane,
}

impl Lanes {
    fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Quick => &self.quick,
            Class::Durable => &self.durable,
            Class::Read => &self.read,
        }
    }
}

#[derive(Default)]
struct Lane(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: usize,
}

/// Who waits for an answer.
type Asker = oneshot::Sender<Result<Response, NetError>>;

/// A request on its way.
struct Waiting {
    request: Request,
    weight: usize,
    deadline: Instant,
    asker: Asker,
}

impl Lane {
    /// Takes what may go in one frame. When nothing waits the batch that asked has ended.
    fn next_batch(&self) -> Vec<Waiting> {
        let mut queue = self.0.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.waiting.front() {
            let fits = batch.is_empty() || (batch.len() < MAX_BATCH_CALLS && bytes + next.weight <= MAX_BATCH_BYTES);
            if !fits {
                break;
            }
            let Some(next) = queue.waiting.pop_front() else {
                break;
            };
            queue.bytes -= next.weight;
            // An asker that has given up needs no answer.
            if !next.asker.is_closed() {
                bytes += next.weight;
                batch.push(next);
            }
        }
        if batch.is_empty() {
            queue.in_flight -= 1;
        }
        batch
    }
}

impl Inner {
    /// Asks over a lane and waits until `deadline`.
    pub(super) async fn call_by_lane(
        self: &Arc<Self>,
        peer: Arc<Peer>,
        class: Class,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, NetError> {
        let id = peer.id;
        let (asker, answer) = oneshot::channel();
        let weight = weight(&request);
        let start = {
            let mut queue = peer.lanes.lane(class).0.lock();
            if queue.waiting.len() >= MAX_WAITING_CALLS || queue.bytes + weight > MAX_WAITING_BYTES {
                return Err(NetError::Local(format!("too many requests wait for peer {id}")));
            }
            queue.bytes += weight;
            queue.waiting.push_back(Waiting { request, weight, deadline, asker });
            let start = queue.in_flight < MAX_IN_FLIGHT;
            queue.in_flight += usize::from(start);
            start
        };
        if start {
            let net = self.clone();
            self.runtime.spawn(async move { net.drive_lane(&peer, class).await });
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // Given up by us or with its whole batch: either way it may have been carried out.
            Ok(Err(_)) | Err(_) => Err(NetError::NoAnswer { peer: id, detail: "deadline passed".into() }),
        }
    }

    /// Sends batch after batch until nothing waits.
    async fn drive_lane(self: &Arc<Self>, peer: &Arc<Peer>, class: Class) {
        let lane = peer.lanes.lane(class);
        loop {
            let batch = lane.next_batch();
            let Some(until) = batch.iter().map(|waiting| waiting.deadline).max() else {
                return;
            };
            let (requests, askers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.request, waiting.asker)).unzip();
            match self.link(peer).await {
                // When all who ask have given up the batch is abandoned, lest a peer that hangs holds up the lane.
                Ok(link) => drop(timeout_at(until, exchange(peer.id, &link.occupy(), requests, askers)).await),
                Err(error) => fail(askers, &error),
            }
        }
    }

    /// Asks on a stream of its own: for requests with large answers.
    pub(super) async fn call_alone(
        self: &Arc<Self>,
        peer: Arc<Peer>,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, NetError> {
        let id = peer.id;
        let (asker, mut answer) = oneshot::channel();
        let call = async {
            let link = self.link(&peer).await?;
            exchange(id, &link.occupy(), vec![request], vec![asker]).await;
            answer.try_recv().unwrap_or_else(|_| Err(NetError::NoAnswer { peer: id, detail: "no answer".into() }))
        };
        timeout_at(deadline, call)
            .await
            .unwrap_or_else(|_| Err(NetError::NoAnswer { peer: id, detail: "deadline passed".into() }))
    }
}

/// Sends requests in one frame and hands out the answers by position.
async fn exchange(peer: PeerId, link: &InUse, requests: Vec<Request>, askers: Vec<Asker>) {
    let mut askers = askers.into_iter();
    if let Err(error) = exchange_on(peer, link, requests, &mut askers).await {
        fail(askers, &error);
    }
}

async fn exchange_on(
    peer: PeerId,
    link: &InUse,
    mut requests: Vec<Request>,
    askers: &mut std::vec::IntoIter<Asker>,
) -> Result<(), NetError> {
    let batched = requests.len() > 1;
    let message = match requests.pop() {
        Some(request) if requests.is_empty() => Frame::One(request),
        Some(last) => {
            requests.push(last);
            Frame::Batch(requests)
        }
        None => return Ok(()),
    };
    let body = frames::encode(&message)
        .map_err(|len| NetError::Local(format!("request of {len} bytes, at most {MAX_FRAME_BYTES} fit a frame")))?;
    drop(message);
    // A connection that has ended before the request was sent has not carried it out.
    let (send, receive) = link.connection.open_bi().await.map_err(|_| NetError::Unreachable(peer))?;
    let mut writer = FrameWriter::new(send).urgent();
    writer.frame(body).await.map_err(|error| write_failed(peer, &error))?;
    writer.finish();

    let mut reader = FrameReader::new(receive);
    while askers.len() > 0 {
        // A batch whose answers do not fit one frame comes in several.
        let answers = match reader.message(MAX_FRAME_BYTES).await {
            Ok(Frame::Batch(part)) if batched && !part.is_empty() && part.len() <= askers.len() => part,
            Ok(Frame::One(answer)) if !batched => vec![answer],
            Ok(_) => return Err(broken(peer, link, "answers do not match the questions")),
            Err(FrameError::Malformed(detail)) => return Err(broken(peer, link, &detail)),
            Err(FrameError::Broke(error)) => return Err(read_failed(peer, &error)),
            Err(FrameError::Ended) => {
                return Err(NetError::NoAnswer { peer, detail: "stream ended before the answer".into() });
            }
        };
        for (answer, asker) in answers.into_iter().zip(&mut *askers) {
            // Who has given up misses it.
            let _ = asker.send(Ok(answer));
        }
    }
    Ok(())
}

fn broken(peer: PeerId, link: &InUse, detail: &str) -> NetError {
    link.protocol_broken(peer, detail);
    NetError::Protocol { peer, detail: detail.into() }
}

fn fail(askers: impl IntoIterator<Item = Asker>, error: &NetError) {
    for asker in askers {
        let _ = asker.send(Err(error.clone()));
    }
}
