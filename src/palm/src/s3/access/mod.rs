//! Who may do what. s3s verifies signatures (`SigV4` in headers, in presigned URLs, in forms and over streaming chunks) and
//! clock skew; it compares in constant time and refuses `x-amz-*` headers outside the signature, which is what stops a
//! presigned PUT from being turned into a copy. Everything after that is here:
//!
//! - `principal`: whose key signed the request, and what policies come with it: the [`Asker`].
//! - `table`: which [`Operation`](palm_core::s3::policy::operation::Operation) a request is.
//! - `context`: what policies may ask about a request.
//! - `gate`: s3s calls it before each operation. It reads what has a say, and asks [`palm_core::s3::policy::decide`].
//! - [`Admitted`]: what the gate found, left in the request's extensions, so that nothing is read twice.
//! - `unsupported`: headers that ask for what PALM lacks.

use std::net::IpAddr;

use http::Extensions;
use palm_core::record::BucketRecord;
use palm_core::s3::version::Name;
use s3s::auth::Credentials;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;
use super::server::Connection;
use crate::object::{Object, Store};

mod admitted;
mod context;
mod gate;
mod principal;
mod query;
pub(super) mod table;
mod unsupported;

pub use admitted::{Admitted, ownership};
pub use context::{SIGV4, header};
pub(super) use gate::Gate;
pub(super) use principal::Keys;
pub use principal::{Asker, session_token};
pub use query::Query;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The address at the other end of the connection.
    pub address: IpAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
}

impl From<&Connection> for Origin {
    fn from(connection: &Connection) -> Self {
        Self { address: connection.peer.ip(), secure: connection.tls.is_some() }
    }
}

/// Who signed a request that s3s sees without a signature, since the front end has verified another. Among the request's
/// extensions, where no client can put anything.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Whose.
    pub credentials: Credentials,
    /// How they signed: what `s3:authType` says.
    pub by: &'static str,
    /// In which version: what `s3:signatureversion` says.
    pub version: &'static str,
}

/// What the gate found out about a request.
pub fn admitted(extensions: &Extensions) -> S3Result<&Admitted> {
    let admitted = extensions.get::<std::sync::Arc<Admitted>>();
    // The gate lets nothing pass without it; were something to come all the same, it is refused.
    admitted.map(AsRef::as_ref).ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
}

/// The settings of the bucket a request is about, as the gate read them.
pub fn bucket(extensions: &Extensions) -> S3Result<&BucketRecord> {
    admitted(extensions)?.bucket()
}

/// The object a request reads: the one the gate decided about where it looked at it, so that what is judged is what is
/// served.
pub async fn head(
    store: &Store,
    extensions: &Extensions,
    (bucket, key, version): (&str, &str, Option<Name>),
) -> S3Result<Object> {
    match admitted(extensions)?.take_object(version) {
        Some(found) => found.map_err(error::of),
        None => store.head(bucket, key, version).await.map_err(error::of),
    }
}

/// The source of a copy, in the same way.
pub async fn source(
    store: &Store,
    extensions: &Extensions,
    (bucket, key, version): (&str, &str, Option<Name>),
) -> S3Result<Object> {
    match admitted(extensions)?.take_source(bucket, key, version) {
        Some(found) => found.map_err(error::of),
        None => store.head(bucket, key, version).await.map_err(error::of),
    }
}
