//! Connections: who is accepted, over TCP or TLS, and for how long.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use s3s::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;

use super::tls::Tls;
use super::{Connection, Service};
use crate::s3::guard::Draining;
use crate::s3::measure::Counted;

/// Connections served at once by one listener; more wait in its backlog.
const CONNECTIONS_MAX: usize = 4_096;
/// A request's head must be complete within this, counted from the end of the request before: it bounds slow
/// heads and idle connections alike.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// A TLS handshake must be complete within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for this long is cut off. Long, because a pipe behind a download may
/// well pause.
const TAKE_STALL_TIMEOUT: Duration = Duration::from_mins(5);
/// Requests under way get this long to end once shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused a connection (it is out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Request line and headers together: 2 KiB of user metadata, a long presigned URL and room.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// Serves connections until `shutdown`, then lets the requests under way end (for a bounded time) and
/// returns. With `tls`, every connection begins with a handshake.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, service: Service, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    refused(&cause).await;
                    continue;
                }
            };
            // Answers are written whole; waiting for more to send only delays them.
            if let Err(cause) = stream.set_nodelay(true) {
                tracing::debug!(%cause, "connection gone before it was served");
                continue;
            }
            let connection = accepted(stream, peer, tls.clone(), service.clone(), graceful.watcher());
            let cut = cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        let open = CONNECTIONS_MAX - slots.available_permits();
        tracing::warn!(open, "requests still under way are cut");
        cut.cancel();
    }
}

/// A connection the system refused: the client's own doing is passed over, ours is waited out.
async fn refused(cause: &io::Error) {
    if matches!(cause.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%cause, "cannot accept connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves one connection, after its handshake if it needs one.
async fn accepted(stream: TcpStream, peer: SocketAddr, tls: Option<Tls>, service: Service, watcher: Watcher) {
    let Some(tls) = tls else {
        return serve_connection(stream, Connection { peer, tls: None }, service, watcher).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let version = stream.get_ref().1.protocol_version();
            serve_connection(stream, Connection { peer, tls: version }, service, watcher).await;
        }
        Ok(Err(cause)) => tracing::debug!(%cause, %peer, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

/// Serves one connection, over TCP or whatever is layered on it.
async fn serve_connection<I>(stream: I, connection: Connection, service: Service, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(HEAD_MAX_BYTES);
    let (coming, going) = (Arc::clone(&service.touch), Arc::clone(&service.touch));
    let stream = InspectWriter::new(InspectReader::new(stream, move |_| coming()), move |_| going());
    let stream = TokioIo::new(Draining::new(stream, TAKE_STALL_TIMEOUT));
    let served = builder.serve_connection(stream, Connected { service, connection });
    if let Err(cause) = watcher.watch(served).await {
        tracing::debug!(%cause, "connection ended early");
    }
}

/// The service, for one connection: each request is told how it came.
struct Connected {
    service: Service,
    connection: Connection,
}

impl hyper::service::Service<Request<Incoming>> for Connected {
    type Response = Response<Counted<Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let service = self.service.clone();
        request.extensions_mut().insert(self.connection);
        let (request, watch) = service.measures.begin(request);
        Box::pin(async move { Ok(watch.answered(service.handle(request).await)) })
    }
}
