//! The S3 front end, as the console is handed it: the rooms of both know nothing of each other.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use time::OffsetDateTime;

use crate::admin::console::{S3, SharedObject};
use crate::s3::{Link, Service};

/// The S3 front end.
pub(super) struct ForConsole {
    pub(super) service: Service,
    pub(super) region: String,
}

#[async_trait::async_trait]
impl S3 for ForConsole {
    async fn call(&self, request: Request, access_key: &str, from: SocketAddr) -> Response {
        self.service.answer_for(access_key, from, request).await.map(Body::new)
    }

    fn link(&self, host: &str, object: &SharedObject, lasts: Duration, key: (&str, &str)) -> String {
        let SharedObject { bucket, key: name, version } = object;
        let at = OffsetDateTime::now_utc();
        Link { host, region: &self.region, bucket, key: name, version: version.as_deref(), at, lasts }.sign(key)
    }
}
