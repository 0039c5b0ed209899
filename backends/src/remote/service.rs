//! The services of this build, and what is known of each.
//!
//! | service | an object is stored | listed | durable because |
//! | --- | --- | --- | --- |
//! | `s3`, `gcs` | whole or not at all | by name, from any | the service says so when it answers |
//! | `azblob` | whole or not at all | by folder | the service says so when it answers |
//! | `fs` | piece by piece, then renamed | by folder | file and folder are synced here |
//! | `webdav`, `sftp` | piece by piece, then renamed | by folder | the server's word, and it may not sync |

use std::path::PathBuf;
use std::time::Duration;

use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{Configurator, Operator, OperatorUri, services};
use percent_encoding::percent_decode_str;

use crate::open::OpenError;

/// How each place is written.
pub const SCHEMES: &[&str] = &[
    #[cfg(feature = "opendal-s3")]
    "opendal+s3://BUCKET/PREFIX",
    #[cfg(feature = "opendal-fs")]
    "opendal+fs:///DIRECTORY",
    #[cfg(feature = "opendal-webdav")]
    "opendal+webdav://HOST/PATH",
    #[cfg(feature = "opendal-gcs")]
    "opendal+gcs://BUCKET/PREFIX",
    #[cfg(feature = "opendal-azblob")]
    "opendal+azblob://CONTAINER/PREFIX",
    #[cfg(feature = "opendal-sftp")]
    "opendal+sftp://HOST/PATH",
];

/// A request that says nothing for so long is given up. A chunk of 8 MiB passes in it at 140 KB/s.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Failures that a service calls temporary are tried again so often, after a pause that doubles.
const RETRIES: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Begins the value of an option that is to be read from the environment: `secret_access_key=env:NAS_SECRET`.
const FROM_ENVIRONMENT: &str = "env:";

/// What the store has to know of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// An object is seen when its last byte is stored, and not before.
    pub(super) atomic: bool,
    /// Takes an object by several requests.
    pub(super) chunks: bool,
    /// Lists in order of name, after any.
    pub(super) ordered: bool,
    /// It is a directory of this machine, to be synced here.
    pub(super) local: Option<PathBuf>,
}

/// Reaches the place, by its URL without the `opendal+` and the options.
pub(super) fn open(place: &str, options: Vec<(String, String)>) -> Result<(Operator, Service), OpenError> {
    let bad = |reason: String| OpenError::BadUrl { url: format!("opendal+{place}"), reason };
    let options: Vec<_> = options.into_iter().map(value).collect::<Result<_, _>>().map_err(&bad)?;
    let names: Vec<String> = options.iter().map(|(name, _)| name.clone()).collect();
    let uri = OperatorUri::new(place, options).map_err(|error| bad(error.to_string()))?;
    let (operator, atomic) = match uri.scheme() {
        #[cfg(feature = "opendal-s3")]
        "s3" => (operator::<services::S3Config>(&uri, &names), true),
        #[cfg(feature = "opendal-fs")]
        "fs" => (operator::<services::FsConfig>(&uri, &names), false),
        #[cfg(feature = "opendal-webdav")]
        "webdav" => (operator::<services::WebdavConfig>(&uri, &names), false),
        #[cfg(feature = "opendal-gcs")]
        "gcs" => (operator::<services::GcsConfig>(&uri, &names), true),
        #[cfg(feature = "opendal-azblob")]
        "azblob" => (operator::<services::AzblobConfig>(&uri, &names), true),
        #[cfg(feature = "opendal-sftp")]
        "sftp" => (operator::<services::SftpConfig>(&uri, &names), false),
        other => return Err(bad(format!("service {other:?} is not in this build, which has: {}", SCHEMES.join(", ")))),
    };
    let operator = operator.map_err(bad)?;
    let capability = operator.info().capability();
    let local = (uri.scheme() == "fs").then(|| PathBuf::from(operator.info().root()));
    let ordered = capability.list_with_start_after && capability.list_with_recursive;
    Ok((operator, Service { atomic, chunks: capability.write_can_multi, ordered, local }))
}

fn operator<C: Configurator + Default>(uri: &OperatorUri, names: &[String]) -> Result<Operator, String> {
    let settings = serde_json::to_value(C::default()).unwrap_or_default();
    let known: Vec<&str> = settings.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown option {unknown:?}, known are: adopt, max_bytes, {}", known.join(", ")));
    }
    opendal::install_default();
    let service = C::from_uri(uri).and_then(|config| Operator::new(config.into_builder()));
    let patient = service.map_err(|error| error.to_string())?;
    // In this order: each try has its time.
    let retry = RetryLayer::new().with_max_times(RETRIES).with_min_delay(FIRST_PAUSE).with_jitter();
    Ok(patient.layer(TimeoutLayer::new().with_timeout(TIMEOUT).with_io_timeout(TIMEOUT)).layer(retry))
}

/// The value of an option: percent-decoded, or from the environment, where secrets belong.
fn value((name, value): (String, String)) -> Result<(String, String), String> {
    if let Some(variable) = value.strip_prefix(FROM_ENVIRONMENT) {
        let found =
            std::env::var(variable).map_err(|_| format!("{name}: there is no {variable} in the environment"))?;
        return Ok((name, found));
    }
    let decoded = percent_decode_str(&value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
    Ok((name, decoded.into_owned()))
}
