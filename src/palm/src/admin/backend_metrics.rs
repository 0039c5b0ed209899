//! How the backends of this peer do: the figures of their [`Meters`], in Prometheus's shapes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use palm_backends::decorate::{Meter, Meters, Operation, TOOK_MICROS};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::pool::Pool;

const OPERATIONS: &str = "palm_backend_operations_total";

/// Reads the meters of all backends when it is asked.
pub(super) struct BackendMetrics {
    pool: Pool,
    desc: Desc,
}

impl BackendMetrics {
    pub(super) fn new(pool: &Pool) -> Result<Self, prometheus::Error> {
        let labels = ["backend", "operation", "outcome"].map(str::to_owned).to_vec();
        let desc = Desc::new(OPERATIONS.to_owned(), "Operations of backends".to_owned(), labels, HashMap::new())?;
        Ok(Self { pool: pool.clone(), desc })
    }
}

impl Collector for BackendMetrics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let backends: Vec<_> = self.pool.fragments().iter().collect();
        let of_all = |metric: fn(&str, &Meters, Operation) -> Vec<Metric>| -> Vec<Metric> {
            let one = |operation| {
                backends.iter().flat_map(move |one| metric(&one.number().to_string(), one.meters(), operation))
            };
            Operation::ALL.into_iter().flat_map(one).collect()
        };
        vec![
            family(OPERATIONS, &self.desc.help, MetricType::COUNTER, of_all(operations)),
            family(
                "palm_backend_transfer_bytes_total",
                "Bytes of fragments that they moved",
                MetricType::COUNTER,
                of_all(bytes),
            ),
            family("palm_backend_operation_seconds", "How long they took", MetricType::HISTOGRAM, of_all(seconds)),
        ]
    }
}

fn operations(backend: &str, meters: &Meters, operation: Operation) -> Vec<Metric> {
    let meter = meters.of(operation);
    let failures = read(&meter.failures);
    let outcomes = [("ok", read(&meter.operations).saturating_sub(failures)), ("error", failures)];
    let outcomes = outcomes.into_iter();
    outcomes.map(|(outcome, count)| counted(&labels(backend, operation, Some(outcome)), count)).collect()
}

fn bytes(backend: &str, meters: &Meters, operation: Operation) -> Vec<Metric> {
    match operation {
        Operation::Put | Operation::Read => {
            vec![counted(&labels(backend, operation, None), read(&meters.of(operation).bytes))]
        }
        Operation::Stat | Operation::Delete | Operation::List => Vec::new(),
    }
}

fn seconds(backend: &str, meters: &Meters, operation: Operation) -> Vec<Metric> {
    let Meter { micros, took, .. } = meters.of(operation);
    let (mut buckets, mut sum) = (Vec::with_capacity(TOOK_MICROS.len()), 0);
    for (bound, count) in TOOK_MICROS.iter().zip(took) {
        sum += read(count);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(sum);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(took.iter().map(read).sum());
    histogram.set_sample_sum(read(micros) as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_label(labels(backend, operation, None));
    metric.set_histogram(histogram);
    vec![metric]
}

fn read(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

fn labels(backend: &str, operation: Operation, outcome: Option<&str>) -> Vec<LabelPair> {
    let named = [("backend", Some(backend)), ("operation", Some(operation.name())), ("outcome", outcome)];
    let label = |(name, value): (&str, Option<&str>)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value?.to_owned());
        Some(label)
    };
    named.into_iter().filter_map(label).collect()
}

fn counted(labels: &[LabelPair], value: u64) -> Metric {
    let (mut metric, mut counter) = (Metric::default(), Counter::default());
    counter.set_value(value as f64);
    metric.set_label(labels.to_vec());
    metric.set_counter(counter);
    metric
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
