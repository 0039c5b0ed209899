//! How the peer was lately: what its metrics said every few seconds, for the charts.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::{Console, Parts};

/// Between samples.
const EVERY: Duration = Duration::from_secs(5);
/// Samples kept: half an hour.
const KEPT: usize = 360;

/// The last samples, in order.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

/// Counts since the start of the process, as they were at a time.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Sample {
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    /// Requests answered.
    requests: f64,
    /// Of those, by 5xx.
    failed: f64,
    /// Bytes of bodies from clients.
    received: f64,
    /// Bytes of bodies to clients.
    sent: f64,
    /// Seconds that all answers took.
    seconds: f64,
}

impl Sample {
    /// Takes the figures from a page of metrics, adding up over labels.
    fn read(page: &str, at_ms: u64) -> Self {
        let mut sample = Self { at_ms, ..Self::default() };
        for line in page.lines().filter(|line| line.starts_with("palm_s3_")) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            match series.split('{').next().unwrap_or_default() {
                "palm_s3_requests_total" => {
                    sample.requests += value;
                    sample.failed += if series.contains("=\"5xx\"") { value } else { 0.0 };
                }
                "palm_s3_received_bytes_total" => sample.received += value,
                "palm_s3_sent_bytes_total" => sample.sent += value,
                "palm_s3_request_duration_seconds_sum" => sample.seconds += value,
                _ => {}
            }
        }
        sample
    }
}

/// Takes samples until dropped.
pub(super) async fn keep(parts: &Parts) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match parts.admin.request_figures() {
            Ok(page) => {
                let mut samples = parts.history.0.lock();
                if samples.len() >= KEPT {
                    samples.pop_front();
                }
                samples.push_back(Sample::read(&page, parts.admin.store.now_ms()));
            }
            Err(error) => debug!(%error, "no sample for the charts"),
        }
    }
}

pub(super) async fn show(State(console): State<Console>) -> Json<Vec<Sample>> {
    Json(console.0.history.0.lock().iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metrics page has a series for each operation and outcome. Expected: the charts get their sums, and nothing of
    /// series that only begin alike.
    #[test]
    fn samples_add_up_over_labels() {
        let page = "# TYPE palm_s3_requests_total counter\n\
            palm_s3_requests_total{code_class=\"2xx\",operation=\"GetObject\"} 40\n\
            palm_s3_requests_total{code_class=\"5xx\",operation=\"PutObject\"} 2\n\
            palm_s3_requests_in_flight 7\n\
            palm_s3_received_bytes_total 1e3\n\
            palm_s3_request_duration_seconds_sum{operation=\"GetObject\"} 0.5\n\
            palm_s3_request_duration_seconds_bucket{operation=\"GetObject\",le=\"1\"} 40\n";
        let sample = Sample::read(page, 9);
        assert_eq!((sample.requests, sample.failed, sample.received), (42.0, 2.0, 1000.0));
        assert_eq!((sample.sent, sample.seconds, sample.at_ms), (0.0, 0.5, 9));
    }
}
