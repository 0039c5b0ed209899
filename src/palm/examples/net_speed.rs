//! How fast peers talk: `cargo run --release -p palm --example net_speed [SECONDS]`.
//!
//! Two peers in one process, over loopback: small calls with 64 askers at once, the delay of a lone call, and
//! fragments of 32 MiB in both directions. Both ends share the cores, as peers of a test pool do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use palm::net::{FragmentSink, FragmentSource, Handler, Identity, Net, NetError};
use palm_core::hlc::Ballot;
use palm_core::id::{BodyId, FragmentId, PeerId, SegmentId};
use palm_core::wire::{FragmentOrigin, JoinRequest, JoinResponse, Request, Response};

const ASKERS: usize = 64;
const FRAGMENT_BYTES: usize = 32 << 20;
const WRITE_BYTES: usize = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

struct Echo {
    fragment: Bytes,
}

#[async_trait]
impl Handler for Echo {
    async fn call(&self, _: PeerId, request: Request) -> Response {
        match request {
            Request::Prepare { epoch, .. } => Response::Pong { epoch },
            Request::PutSmall { bytes, .. } => {
                Response::Stored { id: FragmentId::from_bytes([0; 32]), len: bytes.len() as u64 }
            }
            _ => Response::Done,
        }
    }

    async fn put_fragment(&self, _: PeerId, _: FragmentOrigin, mut body: FragmentSource) -> Response {
        let mut len = 0;
        while let Ok(Some(bytes)) = body.next().await {
            len += bytes.len() as u64;
        }
        Response::Stored { id: FragmentId::from_bytes([0; 32]), len }
    }

    async fn get_fragment(&self, _: PeerId, _: FragmentId, _: u64, len: u64, mut out: FragmentSink) {
        if out.respond(Response::Fragment { total: len }).await.is_err() {
            return;
        }
        for at in (0..FRAGMENT_BYTES).step_by(WRITE_BYTES) {
            if out.write(self.fragment.slice(at..at + WRITE_BYTES)).await.is_err() {
                return;
            }
        }
        out.finish();
    }

    fn gossip(&self, _: PeerId, _: Bytes) {}

    async fn join(&self, _: PeerId, _: SocketAddr, _: JoinRequest) -> JoinResponse {
        JoinResponse::Pending
    }
}

fn peer(seed: u8, fragment: &Bytes) -> Result<Net, NetError> {
    let net = Net::bind(&Identity::from_seed(&[seed; 32])?, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    net.serve(Arc::new(Echo { fragment: fragment.clone() }));
    Ok(net)
}

fn prepare(epoch: u64) -> Request {
    Request::Prepare { epoch, key: Bytes::from_static(b"o/bucket/some/object/key"), ballot: Ballot::ZERO }
}

fn put_small(bytes: &Bytes) -> Request {
    Request::PutSmall { origin: origin(), bytes: bytes.clone() }
}

fn origin() -> FragmentOrigin {
    FragmentOrigin {
        segment: SegmentId::from_bytes([1; 16]),
        index: 0,
        body: BodyId::from_bytes([2; 16]),
        object: Bytes::from_static(b"o/bucket/some/object/key"),
    }
}

/// Calls per second of many askers at once.
async fn calls(
    name: &str,
    net: &Net,
    to: PeerId,
    time: Duration,
    request: impl Fn(u64) -> Request + Clone + Send + 'static,
) {
    let count = Arc::new(AtomicU64::new(0));
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let askers = (0..ASKERS).map(|_| {
        let (net, count, request) = (net.clone(), count.clone(), request.clone());
        tokio::spawn(async move {
            while begun.elapsed() < time {
                let n = count.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = net.call(to, request(n), TIMEOUT).await {
                    return eprintln!("{error}");
                }
            }
        })
    });
    join_all(askers).await;
    let count = count.load(Ordering::Relaxed) as f64;
    let (rate, per_cpu) = (count / begun.elapsed().as_secs_f64(), count / (cpu_seconds() - cpu));
    println!("{name}: {rate:.0}/s with {ASKERS} askers, {per_cpu:.0} per CPU second");
}

#[tokio::main]
async fn main() -> Result<(), NetError> {
    let time = Duration::from_secs(std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3));
    let fragment = Bytes::from(vec![7; FRAGMENT_BYTES]);
    let (a, b) = (peer(1, &fragment)?, peer(2, &fragment)?);
    a.admit(b.me());
    b.admit(a.me());
    a.hint(b.me(), b.local_addr());
    let to = b.me();

    let mut delays = Vec::new();
    for n in 0..2_000 {
        let begun = Instant::now();
        a.call(to, prepare(n), TIMEOUT).await?;
        delays.push(begun.elapsed());
    }
    delays.sort();
    println!("a lone call: median {:?}, 99% {:?}", delays[1_000], delays[1_980]);

    calls("prepare", &a, to, time, prepare).await;
    let small = fragment.slice(..512);
    calls("put of 512 bytes", &a, to, time, move |_| put_small(&small)).await;

    for streams in [1, 4] {
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let count = Arc::new(AtomicU64::new(0));
        let uploads = (0..streams).map(|_| async {
            while begun.elapsed() < time {
                let mut upload = a.put_fragment(to, origin()).await?;
                for at in (0..FRAGMENT_BYTES).step_by(WRITE_BYTES) {
                    upload.write(fragment.slice(at..at + WRITE_BYTES)).await?;
                }
                upload.finish().await?;
                count.fetch_add(FRAGMENT_BYTES as u64, Ordering::Relaxed);
            }
            Ok::<_, NetError>(())
        });
        join_all(uploads).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        report("put", streams, &count, begun, cpu);

        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let count = Arc::new(AtomicU64::new(0));
        let downloads = (0..streams).map(|_| async {
            while begun.elapsed() < time {
                let get = a.get_fragment(to, FragmentId::from_bytes([0; 32]), 0, FRAGMENT_BYTES as u64).await?;
                let Ok(mut download) = get else { break };
                for _ in 0..FRAGMENT_BYTES / WRITE_BYTES {
                    download.read(WRITE_BYTES).await?;
                }
                count.fetch_add(FRAGMENT_BYTES as u64, Ordering::Relaxed);
            }
            Ok::<_, NetError>(())
        });
        join_all(downloads).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        report("get", streams, &count, begun, cpu);
    }
    println!("{:?}", a.link_stats(to));
    a.close().await;
    b.close().await;
    Ok(())
}

fn report(name: &str, streams: usize, bytes: &AtomicU64, begun: Instant, cpu: f64) {
    let megabytes = bytes.load(Ordering::Relaxed) as f64 / 1e6;
    let rate = megabytes / begun.elapsed().as_secs_f64();
    // On a busy machine the second figure is the one that can be compared.
    println!("{name}, {streams} streams: {rate:.0} MB/s, {:.0} MB per CPU second", megabytes / (cpu_seconds() - cpu));
}

/// CPU time of this process so far, by the clock ticks of `/proc`.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_SECOND
}
