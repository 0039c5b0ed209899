//! Telling by HTTP: each message is sent by POST, and taken when the answer's status is 2xx.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// A target that has not answered by then has not taken the message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Where messages are sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Webhook {
    tls: bool,
    host: String,
    port: u16,
    /// `Host`.
    authority: HeaderValue,
    /// Path and query.
    path: Uri,
    /// From the URL's `user:password@`.
    authorization: Option<HeaderValue>,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nobody there.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// TLS cannot be spoken at all.
    #[error("tls: {0}")]
    Tls(String),
    /// The conversation broke off.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// It said no.
    #[error("answered {0}")]
    Refused(StatusCode),
    /// It said nothing.
    #[error("no answer within {} s", SEND_TIMEOUT.as_secs())]
    Silent,
}

/// Without what is secret.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({:?} {})", self.authority, self.path)
    }
}

impl FromStr for Webhook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the URL itself: it may hold a password.
        let wrong = || "not a URL such as https://host:port/path".to_owned();
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("only http:// and https:// can be told of events".to_owned()),
        };
        let authority = url.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let authorization = user.map(|user| format!("Basic {}", BASE64.encode(user.as_bytes())));
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: HeaderValue::try_from(place).map_err(|_| wrong())?,
            path: path.parse().map_err(|_| wrong())?,
            authorization: authorization.map(HeaderValue::try_from).transpose().map_err(|_| wrong())?,
        })
    }
}

impl Webhook {
    /// Sends a message; `Ok` when it was taken.
    pub(super) async fn send(&self, message: Bytes) -> Result<(), SendError> {
        timeout(SEND_TIMEOUT, self.exchange(message)).await.unwrap_or(Err(SendError::Silent))
    }

    async fn exchange(&self, message: Bytes) -> Result<(), SendError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        if !self.tls {
            return self.post(stream, message).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|error| SendError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(tls_config().map_err(SendError::Tls)?);
        self.post(connector.connect(name, stream).await?, message).await
    }

    async fn post<I>(&self, stream: I, message: Bytes) -> Result<(), SendError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("PALM/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let status = sender.send_request(request).await?.status();
        if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
    }
}

/// Trusts whom the system trusts (`SSL_CERT_FILE` names others), read once.
fn tls_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let make = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    };
    CONFIG.get_or_init(make).clone()
}
