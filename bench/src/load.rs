//! The load: what to send, by how many clients, for how long.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;

use crate::http::{Answer, Connection, HttpError};
use crate::report::{Line, Report, Tally};
use crate::sign::{Signer, Target, UNSIGNED_PAYLOAD};

const REQUEST_LIMIT: Duration = Duration::from_secs(120);
const LIST_PAGE: u32 = 1000;
/// RFC 3986's unreserved characters stay as they are, as Signature Version 4 asks.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new object.
    Put,
    /// A whole object.
    Get,
    /// Its headers.
    Head,
    /// A page of 1,000 keys from a random place.
    List,
    /// One of the objects put before.
    Delete,
}

impl Op {
    const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What to send, in shares of a hundred.
#[derive(Debug, Clone)]
pub struct Mix(Vec<(Op, u64)>);

impl std::str::FromStr for Mix {
    type Err = String;

    /// `put`, `get`, `head`, `list`, `delete`, `mixed` (get 60, put 30, head 5, list 5), or shares of your own: `get=90,put=10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text == "mixed" { "get=60,put=30,head=5,list=5" } else { text };
        let mut shares = Vec::new();
        for item in text.split(',') {
            let (name, share) = item.split_once('=').unwrap_or((item, "100"));
            let op = Op::ALL.into_iter().find(|op| op.name() == name);
            let op = op.ok_or_else(|| format!("no operation {name:?}: put, get, head, list, delete or mixed"))?;
            shares.push((op, share.parse().map_err(|_| format!("no share: {share:?}"))?));
        }
        if shares.iter().map(|(_, share)| share).sum::<u64>() == 100 {
            Ok(Self(shares))
        } else {
            Err("the shares must add up to 100".to_owned())
        }
    }
}

impl Mix {
    fn pick(&self, random: u64) -> Op {
        let mut left = random % 100;
        for (op, share) in &self.0 {
            if left < *share {
                return *op;
            }
            left -= share;
        }
        self.0[0].0
    }

    fn reads(&self) -> bool {
        self.0.iter().any(|(op, _)| *op != Op::Put)
    }
}

/// When to end.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// After a time.
    After(Duration),
    /// After so many requests of all clients together.
    Count(u64),
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `host:port` of each; client i speaks to endpoint i modulo their number.
    pub endpoints: Vec<String>,
    /// Key and region.
    pub signer: Signer,
    /// Made when it is not there.
    pub bucket: String,
    /// Before every key.
    pub prefix: String,
    /// Object size in bytes.
    pub size: usize,
    /// Concurrent clients, one connection each.
    pub clients: usize,
    /// When to end.
    pub end: End,
    /// What to send.
    pub mix: Mix,
    /// Objects that are put before the measurement, for the operations that need some.
    pub objects: u64,
    /// The objects are there from an earlier run with the same prefix and number.
    pub reuse: bool,
}

/// Runs the plan: set-up, then the measured part.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    if plan.endpoints.is_empty() || plan.clients == 0 {
        bail!("at least one endpoint and one client are needed");
    }
    let plan = Arc::new(plan);
    let body: Arc<[u8]> = incompressible(plan.size).into();
    make_bucket(&plan).await?;
    if plan.mix.reads() && !plan.reuse {
        let filled = run_clients(&plan, &body, Phase::Fill).await?;
        if filled.iter().any(|(_, tally)| !tally.errors.is_empty()) {
            bail!("objects could not be put before the measurement: {:?}", filled[0].1.errors);
        }
    }
    let started = Instant::now();
    let tallies = run_clients(&plan, &body, Phase::Measure).await?;
    let elapsed = started.elapsed();
    let lines = tallies.iter().map(|(op, tally)| Line::of(op.name(), tally, elapsed)).collect();
    Ok(Report { size: plan.size as u64, clients: plan.clients, seconds: elapsed.as_secs_f64(), lines })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fill,
    Measure,
}

/// Runs all clients to the end of the phase; the tallies of the operations that were used.
async fn run_clients(plan: &Arc<Plan>, body: &Arc<[u8]>, phase: Phase) -> anyhow::Result<Vec<(Op, Tally)>> {
    let next = Arc::new(AtomicU64::new(0));
    let deadline = match (phase, plan.end) {
        (Phase::Measure, End::After(time)) => Some(Instant::now() + time),
        _ => None,
    };
    let count = match (phase, plan.end) {
        (Phase::Fill, _) => plan.objects,
        (Phase::Measure, End::Count(count)) => count,
        (Phase::Measure, End::After(_)) => u64::MAX,
    };
    let workers: Vec<_> = (0..plan.clients)
        .map(|index| {
            let (plan, body, next) = (Arc::clone(plan), Arc::clone(body), Arc::clone(&next));
            tokio::spawn(async move {
                let mut client = Client::new(&plan, index, body);
                let mut tallies = vec![Tally::default(); Op::ALL.len()];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return tallies;
                    }
                    let op = if phase == Phase::Fill { Op::Put } else { plan.mix.pick(client.random()) };
                    let key = match (phase, op) {
                        (Phase::Measure, Op::Put) => format!("{}new-{index}-{number:010}", plan.prefix),
                        (Phase::Fill, _) => plan.key(number),
                        (Phase::Measure, _) => plan.key(client.random() % plan.objects.max(1)),
                    };
                    client.send(op, &key, &mut tallies[op as usize]).await;
                }
            })
        })
        .collect();
    let mut totals = vec![Tally::default(); Op::ALL.len()];
    for worker in workers {
        for (total, tally) in totals.iter_mut().zip(worker.await.context("a client ended early")?) {
            total.merge(tally);
        }
    }
    Ok(Op::ALL.into_iter().zip(totals).filter(|(_, tally)| tally.done > 0 || !tally.errors.is_empty()).collect())
}

impl Plan {
    fn key(&self, number: u64) -> String {
        format!("{}object-{number:010}", self.prefix)
    }
}

/// Makes the bucket; one that is there already is as good.
async fn make_bucket(plan: &Plan) -> anyhow::Result<()> {
    let mut client = Client::new(plan, 0, Arc::from([]));
    let answer = client.request("PUT", &format!("/{}", escape(&plan.bucket)), "", false).await?;
    match (answer.status, answer.code()) {
        (200, _) | (_, Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")) => Ok(()),
        (status, code) => bail!("bucket {} cannot be made: {status} {}", plan.bucket, code.unwrap_or_default()),
    }
}

/// One client: a connection, a signer, a body.
struct Client {
    bucket: String,
    prefix: String,
    host: String,
    connection: Connection,
    signer: Signer,
    body: Arc<[u8]>,
    random: u64,
}

impl Client {
    fn new(plan: &Plan, index: usize, body: Arc<[u8]>) -> Self {
        let host = plan.endpoints[index % plan.endpoints.len()].clone();
        Self {
            bucket: escape(&plan.bucket),
            prefix: escape(&plan.prefix),
            connection: Connection::new(&host),
            host,
            signer: plan.signer.clone(),
            body,
            random: 0x9e37_79b9_7f4a_7c15 ^ ((index as u64 + 1) << 17),
        }
    }

    /// Xorshift: which key comes next needs no better source, and the same plan sends the same keys.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    async fn send(&mut self, op: Op, key: &str, tally: &mut Tally) {
        let path = format!("/{}/{}", self.bucket, key.split('/').map(escape).collect::<Vec<_>>().join("/"));
        let started = Instant::now();
        let outcome = match op {
            Op::Put => self.request("PUT", &path, "", true).await,
            Op::Get => self.request("GET", &path, "", false).await,
            Op::Head => self.request("HEAD", &path, "", false).await,
            Op::Delete => self.request("DELETE", &path, "", false).await,
            Op::List => {
                let query =
                    format!("list-type=2&max-keys={LIST_PAGE}&prefix={}&start-after={}", self.prefix, escape(key));
                self.request("GET", &format!("/{}", self.bucket), &query, false).await
            }
        };
        let problem = match &outcome {
            Err(HttpError::Timeout) => "timeout".to_owned(),
            Err(HttpError::Io(error)) => format!("{:?}", error.kind()),
            Err(HttpError::Protocol(what)) => (*what).to_owned(),
            Ok(answer) if answer.status >= 300 => {
                answer.code().map_or_else(|| answer.status.to_string(), |code| format!("{} {code}", answer.status))
            }
            Ok(answer) if op == Op::Get && answer.body_bytes != self.body.len() as u64 => "wrong length".to_owned(),
            Ok(answer) => {
                tally.done += 1;
                tally.bytes += if op == Op::Put { self.body.len() as u64 } else { answer.body_bytes };
                tally.durations.record(started.elapsed());
                tally.first_bytes.record(answer.first_byte);
                return;
            }
        };
        *tally.errors.entry(problem).or_default() += 1;
    }

    async fn request(&mut self, method: &str, path: &str, query: &str, with_body: bool) -> Result<Answer, HttpError> {
        let mut head = String::with_capacity(512);
        let mark = if query.is_empty() { "" } else { "?" };
        let _ = write!(head, "{method} {path}{mark}{query} HTTP/1.1\r\nhost: {}\r\n", self.host);
        let target = Target { method, host: &self.host, path, query, payload_hash: UNSIGNED_PAYLOAD };
        self.signer.write_headers(&mut head, &target, OffsetDateTime::now_utc());
        let body: &[u8] = if with_body { &self.body } else { &[] };
        let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
        self.connection.exchange(&head, body, REQUEST_LIMIT).await
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Bytes that no compression shortens, the same in every run.
fn incompressible(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares are kept in the long run, and nonsense is refused. Danger: a benchmark that measures another mix than it says.
    #[test]
    fn a_mix_is_what_it_says() {
        let mix: Mix = "get=90,put=10".parse().expect("a mix");
        let gets = (0..100).filter(|random| mix.pick(*random) == Op::Get).count();
        assert_eq!(gets, 90);
        for wrong in ["", "fetch", "get=50", "get=50,put=x"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
        assert!("mixed".parse::<Mix>().expect("a mix").reads());
        assert!(!"put".parse::<Mix>().expect("a mix").reads());
    }
}
