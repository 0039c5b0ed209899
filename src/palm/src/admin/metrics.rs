//! What Prometheus reads. Figures are taken when it asks: nothing is counted twice and nothing runs in between. What a peer
//! counts is its own share, so that sums over peers are the pool's. What can only be measured as it happens (how long requests take)
//! is counted where it happens, and shown here.

use std::sync::atomic::{AtomicU64, Ordering};

use palm_backends::{BackendState, FragmentStore as _};
use palm_core::repair::{Health, Redundancy};
use prometheus::{Error, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::backend_metrics::BackendMetrics;
use crate::object::Store;
use crate::pool::Pool;

/// All figures of a peer now, in Prometheus's text format; `others` are those of who is not known here.
pub(super) async fn text(pool: &Pool, store: &Store, others: &Registry) -> Result<String, Error> {
    let page = Page(Registry::new());
    let build = page.gauges("palm_build_info", "Always 1; the labels tell the build", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let health = store.health().await;
    pool_figures(&page, pool, &health).await?;
    link_figures(&page, pool)?;
    ledger_figures(&page, pool)?;
    expiry_figures(&page, pool)?;
    index_figures(&page, store)?;
    process_figures(&page)?;
    backend_figures(&page, pool).await?;
    request_figures(&page, store)?;
    object_figures(&page, store, &health).await?;
    let mut families = page.0.gather();
    families.extend(others.gather());
    TextEncoder::new().encode_to_string(&families)
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

/// Connections to the other members. Their counters begin anew with each connection, as counters may.
fn link_figures(page: &Page, pool: &Pool) -> Result<(), Error> {
    let label = &["to"];
    let round_trips = GaugeVec::new(Opts::new("palm_link_round_trip_seconds", "Round-trip time to a member"), label)?;
    page.0.register(Box::new(round_trips.clone()))?;
    let packets = page.counters("palm_link_packets_total", "QUIC packets sent to a member", label)?;
    let lost = page.counters("palm_link_packets_lost_total", "Of these, those deemed lost and sent again", label)?;
    let bytes = page.counters("palm_link_bytes_total", "UDP payload to and from a member", &["to", "direction"])?;
    let members = pool.view().members();
    for member in &members {
        let Some(link) = pool.net().link_stats(member.peer) else { continue };
        let is_namesake = members.iter().any(|other| other.name == member.name && other.peer != member.peer);
        let to = if is_namesake { &format!("{} {}", member.name, member.peer.short()) } else { &member.name };
        round_trips.with_label_values(&[to]).set(link.round_trip.as_secs_f64());
        packets.with_label_values(&[to]).inc_by(link.sent_packets);
        lost.with_label_values(&[to]).inc_by(link.lost_packets);
        bytes.with_label_values(&[to.as_str(), "sent"]).inc_by(link.sent_bytes);
        bytes.with_label_values(&[to.as_str(), "received"]).inc_by(link.received_bytes);
    }
    Ok(())
}

fn ledger_figures(page: &Page, pool: &Pool) -> Result<(), Error> {
    let catch_up = *pool.ledger().catch_up().borrow();
    let left = catch_up.map_or(0, |catch_up| catch_up.total.saturating_sub(catch_up.records));
    page.gauge("palm_ledger_catch_up_records", "Records that this peer's copy still has to be brought", left)?;
    pool.ledger().collectors().into_iter().try_for_each(|collector| page.0.register(collector))
}

fn expiry_figures(page: &Page, pool: &Pool) -> Result<(), Error> {
    let expiries = pool.expiries().unwrap_or_default();
    let seconds = |ms: Option<u64>| ms.unwrap_or(0) / 1000;
    page.gauge("palm_join_tokens", "Invitations that can still be used", expiries.invitations)?;
    page.gauge(
        "palm_join_token_expiry_timestamp_seconds",
        "When the last of them expires; 0 where there is none",
        seconds(expiries.last_invitation_ms),
    )?;
    page.gauge(
        "palm_access_key_expiry_timestamp_seconds",
        "When the next access key expires; 0 where none does",
        seconds(expiries.next_access_key_ms),
    )
}

fn index_figures(page: &Page, store: &Store) -> Result<(), Error> {
    let strain = store.index_strain();
    page.gauge("palm_index_bytes", "Bytes of the index on disk", store.index_bytes())?;
    page.gauge("palm_index_write_stopped", "1 while RocksDB lets nobody write", u64::from(strain.stopped))?;
    page.gauge(
        "palm_index_write_slowed_bytes",
        "Bytes per second RocksDB slows writers to; 0: it does not",
        strain.slowed_to,
    )?;
    page.gauge("palm_index_pending_compaction_bytes", "Bytes that RocksDB has still to merge", strain.pending_bytes)
}

/// CPU, memory, descriptors and start of this process, under the names that all exporters share.
#[cfg(target_os = "linux")]
fn process_figures(page: &Page) -> Result<(), Error> {
    page.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
}

#[cfg(not(target_os = "linux"))]
fn process_figures(_: &Page) -> Result<(), Error> {
    Ok(())
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
    page.gauge("palm_buffer_bytes", "Bytes of bodies that are buffered", store.buffer_bytes())?;
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
    page.gauge(
        "palm_incomplete_upload_bytes",
        "Bytes of parts of uploads not completed yet, found by the last count",
        store.incomplete_upload_bytes(),
    )?;
    page.gauge("palm_segments_to_mend", "Segments found to need repair by the last count", health.segments_to_mend)?;

    page.gauge("palm_repair_queue", "Segments that wait for repair or are being repaired here", repairs.queued)?;
    page.gauge("palm_repair_queue_bytes", "Plaintext bytes of these segments", repairs.queued_bytes)?;
    page.gauge(
        "palm_repair_queue_age_seconds",
        "For how long the oldest of these has waited since this peer started",
        repairs.oldest.as_secs(),
    )?;
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
