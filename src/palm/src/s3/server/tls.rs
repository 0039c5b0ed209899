//! TLS of the S3 endpoint: a certificate and its key from files, read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::IntGauge;
use prometheus::core::Collector;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::der::Decode as _;

/// How often the files are looked at. What renews certificates does so weeks ahead, and can send SIGHUP.
const RELOAD_EVERY: Duration = Duration::from_mins(1);
/// Chains are a few kilobytes; more is not one.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is no PEM of what it should hold.
    #[error("no PEM certificate or key in {path:?}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The chain is empty, the key is of another certificate or of no kind we know.
    #[error("certificate and key cannot be used together")]
    Unusable(#[from] rustls::Error),
    /// The first certificate is none.
    #[error("not an X.509 certificate")]
    Certificate(#[from] x509_cert::der::Error),
    /// The metric cannot be made.
    #[error(transparent)]
    Measure(#[from] prometheus::Error),
}

/// Accepts TLS connections; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl Tls {
    /// Reads both files, which must fit each other. TLS 1.2 and 1.3; HTTP/1.1 is what is spoken.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let read = read(certificate, key, &provider)?;
        let expiry = IntGauge::new(
            "palm_tls_certificate_expiry_timestamp_seconds",
            "When the certificate shown to S3 clients stops being valid",
        )?;
        expiry.set(expires(&read)?);
        let certificate = Arc::new(Certificate {
            expiry,
            chain: certificate.to_owned(),
            key: key.to_owned(),
            provider: Arc::clone(&provider),
            shown: RwLock::new(Arc::new(read)),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// Reads the files again whenever they may have changed: each minute, and at SIGHUP. Does not end by itself.
    pub async fn keep_fresh(self) {
        let mut hangups = signal(SignalKind::hangup()).ok();
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hangup => {}
                () = tokio::time::sleep(RELOAD_EVERY) => {}
            }
            let certificate = Arc::clone(&self.certificate);
            let _ = tokio::task::spawn_blocking(move || certificate.reload()).await;
        }
    }

    /// When the certificate that is shown expires, as a metric.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.certificate.expiry.clone())
    }

    /// Shakes hands.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

/// The certificate that is shown, and where it comes from.
#[derive(Debug)]
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: RwLock<Arc<CertifiedKey>>,
    expiry: IntGauge,
}

impl Certificate {
    /// Shows what the files hold now. Half a renewal, or a wrong one, leaves what is shown.
    fn reload(&self) {
        let fresh = read(&self.chain, &self.key, &self.provider).and_then(|fresh| Ok((expires(&fresh)?, fresh)));
        match fresh {
            Ok((_, fresh)) if fresh.cert == self.shown.read().cert => {}
            Ok((expires, fresh)) => {
                self.expiry.set(expires);
                *self.shown.write() = Arc::new(fresh);
                tracing::info!(certificate = %self.chain.display(), "certificate reloaded");
            }
            Err(error) => tracing::warn!(%error, "certificate not reloaded; the old one is shown still"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read()))
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path, source| TlsError::Pem { path: path.to_owned(), source };
    let chain = CertificateDer::pem_slice_iter(&load(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|source| pem(certificate, source))?;
    let private = PrivateKeyDer::from_pem_slice(&load(key)?).map_err(|source| pem(key, source))?;
    Ok(CertifiedKey::from_der(chain, private, provider)?)
}

/// When the first of a chain stops being valid, seconds since the Unix epoch.
fn expires(chain: &CertifiedKey) -> Result<i64, TlsError> {
    let leaf = x509_cert::Certificate::from_der(chain.end_entity_cert()?)?;
    let seconds = leaf.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    Ok(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn load(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        if std::fs::metadata(path)?.len() > FILE_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any certificate"));
        }
        std::fs::read(path)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
