//! The commands' end of the admin socket, and of the admin endpoint elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{api, socket};

/// How long a peer may take over a command.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer is longer.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How a command reaches its peer.
#[derive(Debug, Clone)]
pub enum Reach {
    /// By the socket in its data directory.
    Socket(PathBuf),
    /// By its admin endpoint.
    Http {
        /// `host:port`.
        host: String,
        /// What the peer asks for before it obeys.
        token: String,
    },
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No peer runs there.
    #[error("no peer is running in {0}: start one with `palm serve --data {0}`, or name the directory of another with --data", .dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
    },
    /// A peer may run there, and its socket cannot be opened.
    #[error("the peer in {} cannot be asked: {source}{}", .dir.display(), hint(.source))]
    Closed {
        /// The data directory.
        dir: PathBuf,
        /// Why its socket cannot be opened.
        source: std::io::Error,
    },
    /// Nothing answers at an admin endpoint.
    #[error("no peer answers at {host}: {source} (`admin.address` is local unless it is set otherwise)")]
    Unreachable {
        /// Where.
        host: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The peer refused; in its words.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("the peer's answer does not read: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the peer did not answer within {} s: `palm status` tells whether it can, its log what it does", .0.as_secs())]
    Timeout(Duration),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => " (run this as the user that the peer runs as)",
        _ => "",
    }
}

/// Asks a peer: POST with a body, GET without.
pub async fn ask<A: DeserializeOwned>(
    reach: &Reach,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<A, AskError> {
    ask_within(reach, path, body, TIMEOUT).await
}

/// The same, for what takes longer.
pub async fn ask_within<A: DeserializeOwned>(
    reach: &Reach,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
    timeout: Duration,
) -> Result<A, AskError> {
    let asked = async {
        match reach {
            Reach::Socket(dir) => {
                let stream = socket::connect(dir).await.map_err(|source| not_there(dir, source))?;
                exchange(stream, request("palm", None, path, body)?).await
            }
            Reach::Http { host, token } => {
                let stream = TcpStream::connect(host).await;
                let stream = stream.map_err(|source| AskError::Unreachable { host: host.clone(), source })?;
                exchange(stream, request(host, Some(token), path, body)?).await
            }
        }
    };
    tokio::time::timeout(timeout, asked).await.map_err(|_| AskError::Timeout(timeout))?
}

/// A socket that is missing, or that nobody listens at, is a peer that does not run.
fn not_there(dir: &Path, source: std::io::Error) -> AskError {
    let dir = dir.to_owned();
    match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => AskError::NotRunning { dir },
        _ => AskError::Closed { dir, source },
    }
}

fn broken(error: impl std::fmt::Display) -> AskError {
    AskError::Broken(error.to_string())
}

fn request(
    host: &str,
    token: Option<&String>,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<Request<Full<Bytes>>, AskError> {
    let (method, bytes) = match body {
        Some(body) => (Method::POST, Bytes::from(serde_json::to_vec(body).map_err(broken)?)),
        None => (Method::GET, Bytes::new()),
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = token
        .into_iter()
        .fold(request, |request, token| request.header(header::AUTHORIZATION, format!("Bearer {token}")));
    request.body(Full::new(bytes)).map_err(broken)
}

async fn exchange<A: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<A, AskError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let answer = body.collect().await.map_err(broken)?.to_bytes();
    connection.abort();
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(broken);
    }
    match serde_json::from_slice::<api::Failure>(&answer) {
        Ok(failure) => Err(AskError::Refused(failure.error)),
        Err(_) => Err(AskError::Broken(format!("http status {status}"))),
    }
}
