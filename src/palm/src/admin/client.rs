//! The commands' end of the admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{api, socket};

/// How long a peer may take over a command.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer is longer.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No peer runs there.
    #[error("no peer runs in {}: {source} (start it with `palm serve`, or name its directory with --data)", .dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
        /// Why it could not be reached.
        source: std::io::Error,
    },
    /// The peer refused; in its words.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("the peer's answer does not read: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the peer did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// Asks the peer of a data directory: POST with a body, GET without.
pub async fn ask<A: DeserializeOwned>(
    dir: &Path,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<A, AskError> {
    ask_within(dir, path, body, TIMEOUT).await
}

/// The same, for what takes longer.
pub async fn ask_within<A: DeserializeOwned>(
    dir: &Path,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
    timeout: Duration,
) -> Result<A, AskError> {
    tokio::time::timeout(timeout, exchange(dir, path, body)).await.map_err(|_| AskError::Timeout(timeout))?
}

async fn exchange<A: DeserializeOwned>(
    dir: &Path,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<A, AskError> {
    let broken = |error: &dyn std::fmt::Display| AskError::Broken(error.to_string());
    let stream = socket::connect(dir).await.map_err(|source| AskError::NotRunning { dir: dir.to_owned(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let (method, bytes) = match body {
        Some(body) => (Method::POST, Bytes::from(serde_json::to_vec(body).map_err(|error| broken(&error))?)),
        None => (Method::GET, Bytes::new()),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "palm")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes))
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let answer = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
    connection.abort();
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(|error| broken(&error));
    }
    match serde_json::from_slice::<api::Failure>(&answer) {
        Ok(failure) => Err(AskError::Refused(failure.error)),
        Err(_) => Err(AskError::Broken(format!("http status {status}"))),
    }
}
