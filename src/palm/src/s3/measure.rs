//! What is measured of requests: how many, how they end and how long they take, by operation (the RED method), and bytes.
//!
//! An operation's series are made when it is first asked for and kept; from then on a request costs a few atomic additions.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, exponential_buckets,
};

use super::access::table;

/// From half a millisecond, doubling, to half a minute: what a small object takes on a quiet network, and a large one on a slow
/// one.
const BUCKETS: (f64, f64, usize) = (0.000_5, 2.0, 17);
/// How requests end; the last: their client went away before there was an answer.
const ENDS: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];
const ABORTED: usize = ENDS.len() - 1;
/// What has no operation of its own: preflights of browsers, pages of websites, temporary credentials, and what was refused
/// before it was known what it is.
const ASIDE: [&str; 4] = ["Preflight", "Website", "Sts", "Unknown"];
/// Their series are there from the start, so that a rate sees the first of their errors.
const COMMON: [&str; 7] =
    ["GetObject", "HeadObject", "PutObject", "DeleteObject", "ListObjectsV2", "UploadPart", "CompleteMultipartUpload"];

/// The figures of one front end. Cheap to clone.
#[derive(Clone)]
pub struct Measures(Arc<Inner>);

struct Inner {
    requests: IntCounterVec,
    durations: HistogramVec,
    first_bytes: HistogramVec,
    in_flight: IntGauge,
    received: IntCounter,
    sent: IntCounter,
    /// Of each operation, by its place.
    series: Vec<(&'static str, OnceLock<Series>)>,
}

/// The series of one operation.
struct Series {
    ends: [IntCounter; ENDS.len()],
    duration: Histogram,
    first_byte: Histogram,
}

/// Which operation a request turned out to be: among its extensions, for whoever finds out.
#[derive(Debug, Clone)]
pub struct Asking(Arc<AtomicUsize>);

impl Asking {
    /// Notes the operation, by s3s's name of it.
    pub fn is(&self, name: &str) {
        if let Some(place) = table::place(name) {
            self.0.store(ASIDE.len() + place, Ordering::Relaxed);
        }
    }

    /// Notes that it is a page of a website.
    pub fn is_website(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// Notes that temporary credentials are asked for.
    pub fn is_sts(&self) {
        self.0.store(2, Ordering::Relaxed);
    }
}

impl Measures {
    /// Figures of which none has been counted yet.
    pub fn new() -> Result<Self, Error> {
        let (start, factor, count) = BUCKETS;
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(exponential_buckets(start, factor, count)?);
            HistogramVec::new(options, &["operation"])
        };
        let requests = Opts::new("palm_s3_requests_total", "S3 requests that ended, by operation and how");
        let measures = Self(Arc::new(Inner {
            requests: IntCounterVec::new(requests, &["operation", "code_class"])?,
            durations: histogram("palm_s3_request_duration_seconds", "From a request's head to the end of its answer")?,
            first_bytes: histogram("palm_s3_time_to_first_byte_seconds", "From a request's head to its answer's")?,
            in_flight: IntGauge::new("palm_s3_requests_in_flight", "S3 requests being answered")?,
            received: IntCounter::new("palm_s3_received_bytes_total", "Bytes of requests' bodies")?,
            sent: IntCounter::new("palm_s3_sent_bytes_total", "Bytes of answers' bodies")?,
            series: ASIDE.into_iter().chain(table::names()).map(|name| (name, OnceLock::new())).collect(),
        }));
        for place in COMMON.into_iter().filter_map(table::place) {
            measures.series(ASIDE.len() + place);
        }
        Ok(measures)
    }

    /// All of them, for who shows them.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Inner { requests, durations, first_bytes, in_flight, received, sent, .. } = &*self.0;
        vec![
            Box::new(requests.clone()),
            Box::new(durations.clone()),
            Box::new(first_bytes.clone()),
            Box::new(in_flight.clone()),
            Box::new(received.clone()),
            Box::new(sent.clone()),
        ]
    }

    /// Begins to measure a request.
    pub fn begin<B>(&self, request: Request<B>) -> (Request<Counted<B>>, Watch) {
        let is_preflight = request.method() == Method::OPTIONS;
        let place = Arc::new(AtomicUsize::new(if is_preflight { 0 } else { ASIDE.len() - 1 }));
        let mut request = request.map(|inner| Counted { inner, count: self.0.received.clone(), watch: None });
        request.extensions_mut().insert(Asking(Arc::clone(&place)));
        self.0.in_flight.inc();
        (request, Watch { measures: self.clone(), place, began: Instant::now(), end: ABORTED })
    }

    fn series(&self, place: usize) -> Option<&Series> {
        let Inner { requests, durations, first_bytes, series, .. } = &*self.0;
        let (name, series) = series.get(place)?;
        Some(series.get_or_init(|| Series {
            ends: ENDS.map(|end| requests.with_label_values(&[name, end])),
            duration: durations.with_label_values(&[name]),
            first_byte: first_bytes.with_label_values(&[name]),
        }))
    }
}

/// Measures one request; dropped, it has ended.
pub struct Watch {
    measures: Measures,
    place: Arc<AtomicUsize>,
    began: Instant,
    end: usize,
}

impl Watch {
    /// The head of the answer is there; the request ends with the answer's last byte.
    pub fn answered<B>(mut self, response: Response<B>) -> Response<Counted<B>> {
        self.end = usize::from(response.status().as_u16() / 100).saturating_sub(1).min(ABORTED - 1);
        if let Some(series) = self.measures.series(self.place.load(Ordering::Relaxed)) {
            series.first_byte.observe(self.began.elapsed().as_secs_f64());
        }
        response.map(|inner| Counted { inner, count: self.measures.0.sent.clone(), watch: Some(self) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.measures.0.in_flight.dec();
        if let Some(series) = self.measures.series(self.place.load(Ordering::Relaxed)) {
            series.ends[self.end].inc();
            series.duration.observe(self.began.elapsed().as_secs_f64());
        }
    }
}

/// A body whose bytes are counted.
pub struct Counted<B> {
    inner: B,
    count: IntCounter,
    /// What ends with it.
    watch: Option<Watch>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.count.inc_by(frame.data_ref().map_or(0, |data| data.len() as u64)),
            Some(Err(_)) | None => drop(self.watch.take()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn request() -> Request<Full<Bytes>> {
        Request::new(Full::new(Bytes::from_static(b"12345")))
    }

    fn ended(measures: &Measures, operation: &str, end: &str) -> u64 {
        measures.0.requests.with_label_values(&[operation, end]).get()
    }

    /// Scenario: an upload that ends well, one that is refused, and a client that hangs up before it is answered. Danger: a
    /// request counted twice or not at all, or in flight for ever, and every rate of errors is wrong. Expectation: each is
    /// counted once, with its own operation and end, when its answer has been taken to its end.
    #[tokio::test]
    async fn every_request_ends_once() {
        let measures = Measures::new().expect("measures");
        for (status, end) in [(200, "2xx"), (403, "4xx")] {
            let (request, watch) = measures.begin(request());
            let (parts, body) = request.into_parts();
            parts.extensions.get::<Asking>().expect("noted").is("PutObject");
            body.collect().await.expect("a body");
            let response =
                Response::builder().status(status).body(Full::new(Bytes::from_static(b"abc"))).expect("response");
            let response = watch.answered(response);
            assert_eq!((ended(&measures, "PutObject", end), measures.0.in_flight.get()), (0, 1), "not taken yet");
            response.into_body().collect().await.expect("a body");
            assert_eq!((ended(&measures, "PutObject", end), measures.0.in_flight.get()), (1, 0));
        }
        drop(measures.begin(request()));
        assert_eq!((ended(&measures, "Unknown", "aborted"), measures.0.in_flight.get()), (1, 0));
        assert_eq!((measures.0.received.get(), measures.0.sent.get()), (10, 6));
        assert_eq!(measures.0.durations.with_label_values(&["PutObject"]).get_sample_count(), 2);
    }
}
