//! Where a target is, by the URL in the settings, and connections to it.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use http::Uri;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::SendError;

/// Longest line that a target may answer; what NATS tells of itself takes a few hundred bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A URL, in its parts; what was percent-encoded in them is decoded.
#[derive(Clone)]
pub(super) struct Address {
    /// Lower case.
    pub scheme: String,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// When it names one.
    pub port: Option<u16>,
    /// What stands before the host.
    pub user: Option<String>,
    /// What stands after the user.
    pub password: Option<String>,
    /// Without the first slash.
    pub path: String,
    /// The query's.
    options: BTreeMap<String, Vec<String>>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the URL itself: it may hold a password.
        let wrong = || "not a URL such as https://host:port/path".to_owned();
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| wrong());
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let authority = url.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        let (user, password) = match authority.as_str().rsplit_once('@') {
            Some((names, _)) => match names.split_once(':') {
                Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
                None => (Some(decoded(names)?), None),
            },
            None => (None, None),
        };
        let mut options = BTreeMap::<String, Vec<String>>::new();
        for option in url.query().unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            options.entry(decoded(name)?).or_default().push(decoded(value)?);
        }
        Ok(Self {
            scheme: url.scheme_str().ok_or_else(wrong)?.to_ascii_lowercase(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16(),
            user,
            password,
            path: decoded(url.path().trim_start_matches('/'))?,
            options,
        })
    }
}

impl Address {
    /// The values of an option, which is taken out: what is left in the end is unknown.
    pub(super) fn take(&mut self, option: &str) -> Vec<String> {
        self.options.remove(option).unwrap_or_default()
    }

    /// Refuses options that nobody asked for.
    pub(super) fn no_more_options(&self) -> Result<(), String> {
        let unknown = self.options.keys().next();
        unknown.map_or(Ok(()), |name| Err(format!("{} targets have no option {name:?}", self.scheme)))
    }

    /// A TCP connection.
    pub(super) async fn dial(&self, default_port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port.unwrap_or(default_port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Goes on in TLS, with whom the system trusts (`SSL_CERT_FILE` names others).
    pub(super) async fn secure(&self, stream: TcpStream) -> Result<Box<dyn Stream>, SendError> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| SendError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(tls_config().map_err(SendError::Tls)?);
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// A connection, in TLS or not.
    pub(super) async fn connect(&self, default_port: u16, tls: bool) -> Result<Box<dyn Stream>, SendError> {
        let stream = self.dial(default_port).await?;
        if tls { self.secure(stream).await } else { Ok(Box::new(stream)) }
    }
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The next line, without its end.
pub(super) async fn read_line<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
) -> Result<String, SendError> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    String::from_utf8(line)
        .map(|line| line.trim_end_matches('\r').to_owned())
        .map_err(|_| SendError::Nonsense("a line"))
}

/// Whom the system trusts, read once.
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
