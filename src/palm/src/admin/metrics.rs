//! What Prometheus reads. Figures are taken when it asks: nothing is counted twice and nothing runs in between. What a peer
//! counts is its own share, so that sums over peers are the pool's.

use std::sync::atomic::{AtomicU64, Ordering};

use palm_backends::{BackendState, FragmentStore as _};
use palm_core::repair::{Health, Redundancy};
use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::backend_metrics::BackendMetrics;
use crate::object::Store;
use crate::pool::Pool;

/// All figures of a peer now, in Prometheus's text format.
pub(super) async fn text(pool: &Pool, store: &Store) -> Result<String, Error> {
    let page = Page(Registry::new());
    let build = page.gauges("palm_build_info", "Always 1; the labels tell the build", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let health = store.health().await;
    pool_figures(&page, pool, &health).await?;
    backend_figures(&page, pool).await?;
    request_figures(&page, store)?;
    object_figures(&page, store, &health).await?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

async fn pool_figures(page: &Page, pool: &Pool, health: &Health) -> Result<(), Error> {
    let status = pool.status().await;
    let status = if health.can_lose < u8::MAX { status.counted(health.can_lose.into()) } else { status };
    let peers = page.gauges("palm_peers", "Members of the pool by state, as this peer sees them", &["state"])?;
    peers.with_label_values(&["live"]).set(int(status.members_live));
    peers.with_label_values(&["absent"]).set(int(status.members - status.members_live));
    page.gauge("palm_ledger_voters", "Voters of the ledger", status.voters)?;
    page.gauge("palm_ledger_voters_reachable", "Voters believed alive", status.voters_live)?;
    page.gauge(
        "palm_pool_peers_can_lose",
        "How many more peers may be lost with the objects that this peer counts still readable and writable; the least over all \
         peers holds for the pool",
        status.can_lose,
    )?;
    page.gauge("palm_peer_draining", "1 while this peer gives its fragments away", u64::from(pool.view().is_draining()))
}

async fn backend_figures(page: &Page, pool: &Pool) -> Result<(), Error> {
    let label = &["backend"];
    let fragments = page.gauges("palm_backend_fragments", "Fragments kept", label)?;
    let bytes = page.gauges("palm_backend_bytes", "Bytes of the fragments kept", label)?;
    let free = page.gauges("palm_backend_free_bytes", "Bytes that could still be kept", label)?;
    let state = page.gauges("palm_backend_state", "1 for the state that the backend is in", &["backend", "state"])?;
    let mut ills = 0_u64;
    for backend in pool.fragments().iter() {
        let name = backend.number().to_string();
        if let Ok(usage) = backend.usage().await {
            fragments.with_label_values(&[&name]).set(int(usage.fragments));
            bytes.with_label_values(&[&name]).set(int(usage.bytes));
            free.with_label_values(&[&name]).set(int(usage.free));
        }
        let found = match backend.state().await {
            BackendState::Well => "well",
            BackendState::Full => "full",
            BackendState::ReadOnly(_) => "read-only",
            BackendState::Failed(_) => "failed",
        };
        ills += u64::from(found != "well");
        for possible in ["well", "full", "read-only", "failed"] {
            state.with_label_values(&[&name, possible]).set(i64::from(possible == found));
        }
    }
    page.0.register(Box::new(BackendMetrics::new(pool)?))?;
    page.gauge("palm_backend_ills", "Backends that are not well", ills)
}

fn request_figures(page: &Page, store: &Store) -> Result<(), Error> {
    page.gauge(
        "palm_buffer_free_bytes",
        "Bytes of bodies that may still be buffered before requests are answered 503 SlowDown",
        store.free_buffer_bytes(),
    )?;
    let counts = store.counters();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.counter("palm_corrupt_shards_total", "Shards that did not fit their stripe", of(&counts.corrupt_shards))?;
    page.counter(
        "palm_hedged_reads_total",
        "Reads sent to a second home as the first was slow",
        of(&counts.hedged_reads),
    )?;
    page.counter(
        "palm_reduced_segments_total",
        "Segments written with fewer fragments than meant",
        of(&counts.reduced_segments),
    )?;
    page.counter(
        "palm_collected_fragments_total",
        "Fragments deleted because nothing refers to them",
        of(&counts.collected_fragments),
    )?;
    let lifecycle = page.counters("palm_lifecycle_actions_total", "What lifecycle rules did here", &["action"])?;
    lifecycle.with_label_values(&["expire"]).inc_by(of(&counts.expired_objects));
    lifecycle.with_label_values(&["abort"]).inc_by(of(&counts.aborted_uploads));
    let events = store.event_figures();
    page.gauge("palm_events_waiting", "Events of the pool that are still to be told", events.waiting)?;
    let told = page.counters("palm_events_total", "Messages to targets of notifications", &["outcome"])?;
    told.with_label_values(&["taken"]).inc_by(events.told);
    told.with_label_values(&["not-taken"]).inc_by(events.failed);
    told.with_label_values(&["dropped"]).inc_by(events.dropped);
    let (delivered, dropped) = store.access_log_figures();
    let lines = page.counters("palm_access_log_lines_total", "Lines of access logs", &["outcome"])?;
    lines.with_label_values(&["delivered"]).inc_by(delivered);
    lines.with_label_values(&["dropped"]).inc_by(dropped);
    Ok(())
}

async fn object_figures(page: &Page, store: &Store, health: &Health) -> Result<(), Error> {
    let (repairs, home) = (store.repair_figures(), store.home().figures().await);
    let label = &["redundancy"];
    let objects = page.gauges("palm_objects", "Objects that this peer counts, by redundancy", label)?;
    let bytes = page.gauges("palm_object_bytes", "Plaintext bytes of these objects", label)?;
    for (redundancy, tally) in Redundancy::ALL.into_iter().zip(health.objects) {
        let name = redundancy_name(redundancy);
        objects.with_label_values(&[name]).set(int(tally.objects));
        bytes.with_label_values(&[name]).set(int(tally.bytes));
    }
    page.gauge("palm_objects_exposed", "Of these, objects that a single disk holds enough of", health.exposed)?;
    page.gauge(
        "palm_objects_counted_timestamp_seconds",
        "When this peer's last count ended; 0 before the first",
        health.counted_ms / 1000,
    )?;
    page.gauge("palm_segments_to_mend", "Segments found to need repair by the last count", health.segments_to_mend)?;

    page.gauge("palm_repair_queue", "Segments that wait for repair or are being repaired here", repairs.queued)?;
    page.gauge("palm_repair_queue_bytes", "Plaintext bytes of these segments", repairs.queued_bytes)?;
    let eta = repairs.queued_bytes.checked_div(repairs.bytes_per_second).unwrap_or(0);
    page.gauge("palm_repair_eta_seconds", "Until the queue is empty at the pace of the last minute", eta)?;
    page.counter("palm_repaired_segments_total", "Segments repaired", repairs.repaired)?;
    let moved = page.counters("palm_repair_bytes_total", "Bytes of fragments moved by repairs", &["direction"])?;
    moved.with_label_values(&["read"]).inc_by(repairs.read_bytes);
    moved.with_label_values(&["written"]).inc_by(repairs.written_bytes);

    page.gauge("palm_corrupt_fragments", "Fragments here known to be corrupt or missing", home.damaged)?;
    page.counter("palm_corrupt_fragments_total", "Fragments found corrupt or missing", home.corrupt_found_total)?;
    let (checked, all) = home.scrubbed;
    page.gauge("palm_scrub_fragments_checked", "Fragments read and hashed in this round", checked)?;
    page.gauge("palm_scrub_fragments", "Fragments that this round is to read", all)?;
    page.gauge("palm_scrub_orphans", "Fragments without a note, found by the last round", home.orphans)?;
    page.gauge(
        "palm_scrub_last_round_timestamp_seconds",
        "When the last whole round ended; 0 before the first",
        home.last_round_ms / 1000,
    )?;
    page.gauge("palm_gc_trash_bytes", "Bytes of fragments in the trash", health.trash_bytes)
}

fn redundancy_name(redundancy: Redundancy) -> &'static str {
    match redundancy {
        Redundancy::Unreadable => "unreadable",
        Redundancy::None => "none",
        Redundancy::Reduced => "reduced",
        Redundancy::Full => "full",
    }
}

/// The answer to one scrape.
struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, value: impl TryInto<i64>) -> Result<(), Error> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(int(value));
        self.0.register(Box::new(gauge))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }
}

fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
