//! Scaffold.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::object::Store;

/// Scaffold.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Scaffold.
    pub region: String,
    /// Scaffold.
    pub domain: Option<String>,
    /// Scaffold.
    pub host_id: String,
}

/// Scaffold.
#[derive(Debug, thiserror::Error)]
#[error("scaffold")]
pub struct ServiceError;

/// Scaffold.
pub struct Service;

/// Scaffold.
pub fn service(store: Store, options: S3Options) -> Result<Service, ServiceError> {
    drop((store, options));
    Ok(Service)
}

/// Scaffold.
pub async fn serve(listener: TcpListener, service: Service, shutdown: CancellationToken) {
    drop((listener, service));
    shutdown.cancelled().await;
}
