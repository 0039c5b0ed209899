//! TLS 1.3 between peers with raw public keys (RFC 7250): no certificates, no authorities, no names. A peer is
//! its key, both sides show theirs, and whoever dials a known peer refuses any other key.

use std::fmt;
use std::sync::Arc;

use palm_core::id::PeerId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime, alg_id};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey, public_key_to_spki};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, PeerMisbehaved,
    SignatureAlgorithm, SignatureScheme,
};

use super::{Identity, NetError};

/// The protocol of members.
const ALPN_MEMBER: &[u8] = b"palm/1";
/// The protocol of strangers: [`palm_core::wire::JoinRequest`] and nothing else.
const ALPN_JOIN: &[u8] = b"palm-join/1";

/// What a connection was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests between members.
    Member,
    /// Joining, or asking which pool this is.
    Join,
}

impl Purpose {
    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Member => ALPN_MEMBER.to_vec(),
            Self::Join => ALPN_JOIN.to_vec(),
        }
    }
}

/// Makes TLS configurations for this peer's key.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Self {
        let key = PeerKey(identity.clone());
        let spki = CertificateDer::from(key.spki().as_ref().to_vec());
        let certified = Arc::new(CertifiedKey::new(vec![spki], Arc::new(key)));
        Self { provider: Arc::new(provider()), certified }
    }

    /// For accepting: any peer that proves its key, for either purpose. Admission is decided after the handshake.
    pub(super) fn server(&self) -> Result<Arc<QuicServerConfig>, NetError> {
        let verifier = AnyPeer(Checker::new(&self.provider));
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![Purpose::Member.alpn(), Purpose::Join.alpn()];
        // A resumed session skips the verifiers, and 0-RTT data can be replayed: neither is offered.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(QuicServerConfig::try_from(config).map_err(tls_error)?))
    }

    /// For dialling: `expect` is the only key accepted; `None` takes whoever answers and learns who it is.
    pub(super) fn client(&self, purpose: Purpose, expect: Option<PeerId>) -> Result<Arc<QuicClientConfig>, NetError> {
        let verifier = PinnedPeer { expect, checker: Checker::new(&self.provider) };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![purpose.alpn()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(Arc::new(QuicClientConfig::try_from(config).map_err(tls_error)?))
    }
}

/// Who is at the other end of a connection whose handshake is complete.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match keys.as_slice() {
        [key] => peer_of_spki(key).ok(),
        _ => None,
    }
}

/// What a connection whose handshake is complete was made for.
pub(super) fn purpose_of(connection: &quinn::Connection) -> Option<Purpose> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    match data.protocol.as_deref()? {
        ALPN_MEMBER => Some(Purpose::Member),
        ALPN_JOIN => Some(Purpose::Join),
        _ => None,
    }
}

fn tls_error(error: impl fmt::Display) -> NetError {
    NetError::Local(format!("tls: {error}"))
}

/// The algorithms in use: one signature, one key exchange, and AES first, which every LAN machine of this decade has
/// in hardware.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    provider
}

/// The DER of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410) before the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn peer_of_spki(spki: &[u8]) -> Result<PeerId, Error> {
    spki.strip_prefix(&SPKI_PREFIX)
        .and_then(|key| <&[u8; 32]>::try_from(key).ok())
        .map(PeerId::from_public_key)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// What both verifiers share.
#[derive(Debug)]
struct Checker(WebPkiSupportedAlgorithms);

impl Checker {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }

    /// Who shows this key. One key, nothing beside it.
    fn identify(key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
        if !more.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        peer_of_spki(key)
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signed, &self.0)
    }
}

/// TLS 1.2 is never negotiated; a peer that signs as if it were is misbehaving.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

#[derive(Debug)]
struct PinnedPeer {
    expect: Option<PeerId>,
    checker: Checker,
}

impl ServerCertVerifier for PinnedPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Checker::identify(end_entity, intermediates)?;
        match self.expect {
            Some(expect) if expect != found => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checker.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyPeer(Checker);

impl ClientCertVerifier for AnyPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Checker::identify(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The identity as rustls wants a key.
#[derive(Debug, Clone)]
struct PeerKey(Identity);

impl PeerKey {
    fn spki(&self) -> SubjectPublicKeyInfoDer<'static> {
        public_key_to_spki(&alg_id::ED25519, self.0.public_key())
    }
}

impl SigningKey for PeerKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.spki())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for PeerKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
