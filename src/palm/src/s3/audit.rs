//! The audit log's lines about requests that may change something: events of the target `audit::s3`, written where
//! `log.audit_writes` is set.

use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use tracing::{Level, enabled, info};

use super::access::Signer;
use super::server::Connection;

/// A request that may change something, until it is answered.
pub struct Act {
    method: Method,
    path: String,
    access_key: Option<String>,
    from: Option<std::net::IpAddr>,
}

impl Act {
    /// Notes a request; `None` for one that only reads, or where nobody wants to know.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if reads || !enabled!(target: "audit::s3", Level::INFO) {
            return None;
        }
        let inside = request.extensions().get::<Signer>().map(|signer| signer.credentials.access_key.clone());
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let signed = header.and_then(|value| value.split_once("Credential=")).map(|(_, rest)| rest);
        let presigned = || request.uri().query().and_then(|query| query.split_once("X-Amz-Credential="));
        let credential = signed.or_else(|| presigned().map(|(_, rest)| rest));
        Some(Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            access_key: inside.or_else(|| Some(credential?.split(['/', '%', '&']).next()?.to_owned())),
            from: request.extensions().get::<Connection>().map(|connection| connection.peer.ip()),
        })
    }

    /// Writes how it was answered. The access key is as the client named it: of a 403 it may not have been his.
    pub fn answered(self, request_id: &str, status: StatusCode, code: Option<&str>) {
        let Self { method, path, access_key, from } = self;
        let from = from.map(tracing::field::display);
        let status = status.as_u16();
        info!(target: "audit::s3", request_id, %method, path, access_key, from, status, code, "s3");
    }
}
