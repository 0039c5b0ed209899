//! What Prometheus reads. Figures are taken when it asks: nothing is counted twice and nothing runs in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::object::Store;
use crate::pool::Pool;

/// The name of this peer's only backend, until there are several.
const BACKEND: &str = "0";

/// The metrics of a peer. Cheap to clone.
#[derive(Clone)]
pub(super) struct Metrics(Arc<Inner>);

struct Inner {
    pool: Pool,
    store: Store,
    registry: Registry,
    peers: IntGaugeVec,
    voters: IntGauge,
    voters_reachable: IntGauge,
    can_lose: IntGauge,
    fragments: IntGaugeVec,
    fragment_bytes: IntGaugeVec,
    free_bytes: IntGaugeVec,
    free_buffer_bytes: IntGauge,
    corrupt_shards: IntCounter,
    hedged_reads: IntCounter,
    reduced_segments: IntCounter,
    collected_fragments: IntCounter,
}

impl Metrics {
    pub(super) fn new(pool: Pool, store: Store) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = vector(&registry, "palm_build_info", "Always 1; the labels tell the build", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self(Arc::new(Inner {
            peers: vector(&registry, "palm_peers", "Members of the pool by state, as this peer sees them", &["state"])?,
            voters: gauge(&registry, "palm_ledger_voters", "Voters of the ledger")?,
            voters_reachable: gauge(&registry, "palm_ledger_voters_reachable", "Voters believed alive")?,
            can_lose: gauge(
                &registry,
                "palm_pool_peers_can_lose",
                "How many more peers may be lost with all objects still readable and writable",
            )?,
            fragments: vector(&registry, "palm_backend_fragments", "Fragments kept", &["backend"])?,
            fragment_bytes: vector(&registry, "palm_backend_bytes", "Bytes of the fragments kept", &["backend"])?,
            free_bytes: vector(&registry, "palm_backend_free_bytes", "Bytes that could still be kept", &["backend"])?,
            free_buffer_bytes: gauge(
                &registry,
                "palm_buffer_free_bytes",
                "Bytes of bodies that may still be buffered before requests are answered 503 SlowDown",
            )?,
            corrupt_shards: counter(&registry, "palm_corrupt_shards_total", "Shards that did not fit their stripe")?,
            hedged_reads: counter(
                &registry,
                "palm_hedged_reads_total",
                "Reads sent to a second home as the first was slow",
            )?,
            reduced_segments: counter(
                &registry,
                "palm_reduced_segments_total",
                "Segments written with fewer fragments than meant",
            )?,
            collected_fragments: counter(
                &registry,
                "palm_collected_fragments_total",
                "Fragments deleted because nothing refers to them",
            )?,
            pool,
            store,
            registry,
        })))
    }

    /// All figures now, in Prometheus's text format.
    pub(super) async fn text(&self) -> Result<String, prometheus::Error> {
        let metrics = &*self.0;
        let status = metrics.pool.status().await;
        metrics.peers.with_label_values(&["live"]).set(count(status.members_live));
        metrics.peers.with_label_values(&["absent"]).set(count(status.members - status.members_live));
        metrics.voters.set(count(status.voters));
        metrics.voters_reachable.set(count(status.voters_live));
        metrics.can_lose.set(count(status.can_lose));
        metrics.fragments.with_label_values(&[BACKEND]).set(bytes(status.fragments_here));
        metrics.fragment_bytes.with_label_values(&[BACKEND]).set(bytes(status.bytes_here));
        metrics.free_bytes.with_label_values(&[BACKEND]).set(bytes(status.free_here.unwrap_or(u64::MAX)));
        metrics.free_buffer_bytes.set(bytes(metrics.store.free_buffer_bytes()));
        let counts = metrics.store.counters();
        raise(&metrics.corrupt_shards, &counts.corrupt_shards);
        raise(&metrics.hedged_reads, &counts.hedged_reads);
        raise(&metrics.reduced_segments, &counts.reduced_segments);
        raise(&metrics.collected_fragments, &counts.collected_fragments);
        TextEncoder::new().encode_to_string(&metrics.registry.gather())
    }
}

/// Raises a counter to what was counted elsewhere.
fn raise(counter: &IntCounter, counted: &AtomicU64) {
    counter.inc_by(counted.load(Ordering::Relaxed).saturating_sub(counter.get()));
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn vector(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    let vector = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(vector.clone()))?;
    Ok(vector)
}
