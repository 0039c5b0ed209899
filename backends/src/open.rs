//! Stores by URL.
//!
//! | URL | store | options |
//! | --- | --- | --- |
//! | `disk:///srv/palm` | a directory of this machine | `max_bytes`, `reserve` (fragments only) |
//! | `exec:///path/to/program` | whatever the program keeps them in (fragments only) | the program's own |
//! | `rocksdb:///srv/palm` | one RocksDB in a directory, for fragments | `max_bytes`, `reserve` |
//! | `opendal+s3://bucket/prefix`, `opendal+fs:///dir`, … | a place that `OpenDAL` reaches, for fragments ([`remote`](crate::remote)) | `max_bytes`, `adopt`, and the service's own |
//! | `memory:` | this process, as long as it lives | `max_bytes` (fragments only) |
//!
//! Besides its own options every backend of fragments takes:
//!
//! | option | is |
//! | --- | --- |
//! | `bandwidth=50MB` | bytes a second at most, reads and writes together |
//! | `quiet=23:00-07:00`, `quiet_bandwidth=5MB` | another bound in these hours, by this machine's clock |
//! | `cache=64MiB` | small fragments are kept in memory, up to so many bytes |
//! | `domain=shelf` | what it fails together with, where that is not just its peer's ([`domain`]) |
//!
//! Sizes are bytes, or carry a unit: `max_bytes=500GiB`, `reserve=2GB`.
#![cfg_attr(
    not(all(feature = "disk", feature = "memory")),
    allow(dead_code, unused_variables, reason = "each backend uses some parts of a URL")
)]

use std::path::PathBuf;
use std::sync::Arc;

use crate::decorate::{Bandwidth, Cached, QuietHours, Throttle, local_minute, parse_hours};
use crate::fragment::{FragmentStore, StoreError};
use crate::index::IndexStore;

mod place;

pub use place::{MAX_DOMAIN_BYTES, domain, is_domain, place};
pub(crate) use place::{own_directory, without_options};

/// Why a store was not opened. Nothing was changed, except that a new directory may have been made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no backend of this build.
    #[error("unknown backend {scheme:?} in {url:?}, known are: {known}")]
    UnknownScheme {
        /// What was asked for.
        url: String,
        /// Its part before the colon.
        scheme: String,
        /// What could have been.
        known: String,
    },
    /// The URL is not one that its backend understands.
    #[error("backend {url:?}: {reason}")]
    BadUrl {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another store, here or in another process, has the directory open.
    #[error("{} is in use by another store: one directory serves one peer", .0.display())]
    InUse(PathBuf),
    /// A directory that held a store before is not there, or is empty.
    #[error("{} is not there, or is empty; is its disk mounted? (a new disk takes another directory)", .0.display())]
    Absent(PathBuf),
    /// The directory is another peer's.
    #[error(
        "{} holds the fragments of peer {owner}: a directory serves one peer. Take another one; or remove {} if that peer is gone for good",
        .dir.display(), .file.display()
    )]
    Foreign {
        /// Which directory.
        dir: PathBuf,
        /// What says so.
        file: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// The directory holds fragments, and nothing says whose.
    #[error("{} holds fragments, and nothing says which peer's: take an empty directory", .0.display())]
    Strange(PathBuf),
    /// The directory holds something else, or a version that this build does not know.
    #[error("{} holds {found:?}, expected {expected:?}", .dir.display())]
    Format {
        /// Which directory.
        dir: PathBuf,
        /// What its lock file says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The schemes of this build, with how they are written.
const KNOWN: &[&str] = &[
    #[cfg(feature = "disk")]
    "disk:///DIRECTORY",
    #[cfg(feature = "memory")]
    "memory:",
    #[cfg(feature = "rocksdb")]
    "rocksdb:///DIRECTORY",
    #[cfg(feature = "exec")]
    "exec:///PROGRAM",
];

/// Opens a fragment store, and makes it where there is none. Blocks while a log is read.
pub fn fragments(url: &str) -> Result<Arc<dyn FragmentStore>, OpenError> {
    open_fragments(url, false)
}

/// Opens a fragment store that was made before: one that is not there is [`OpenError::Absent`] and never made anew, or a
/// disk that is not mounted would be taken for one that lost everything. Blocks while a log is read.
pub fn known_fragments(url: &str) -> Result<Arc<dyn FragmentStore>, OpenError> {
    open_fragments(url, true)
}

/// Whether the place of a fragment store takes a small file; the store itself is not asked. Blocks.
pub fn takes_writes(url: &str) -> bool {
    let tried = Url::parse(url).and_then(|url| match url.scheme {
        #[cfg(feature = "disk")]
        "disk" => crate::disk::DiskFragments::try_writing(&url.directory()?),
        _ => Ok(()),
    });
    tried.is_ok()
}

/// Takes away the mark of an empty place that has one, so that another peer may have it. A directory of this machine has none.
#[cfg_attr(not(feature = "_opendal"), allow(unused_variables, clippy::unused_async, reason = "nothing to ask for it"))]
pub(crate) async fn give_up(url: &str) -> Result<(), OpenError> {
    #[cfg(feature = "_opendal")]
    if url.starts_with(OPENDAL) {
        let url = Url::parse(url)?;
        let Remote { address, options, .. } = url.remote(Decorations::of(&url)?.1)?;
        return crate::remote::RemoteFragments::give_up(&address, options).await;
    }
    Ok(())
}

fn open_fragments(url: &str, known: bool) -> Result<Arc<dyn FragmentStore>, OpenError> {
    let url = Url::parse(url)?;
    let (decorations, options) = Decorations::of(&url)?;
    Ok(decorations.around(open_plain(&url, options, known)?))
}

fn open_plain(url: &Url<'_>, options: Options<'_>, known: bool) -> Result<Arc<dyn FragmentStore>, OpenError> {
    match url.scheme {
        #[cfg(feature = "disk")]
        "disk" => {
            let (dir, bounds) = (url.directory()?, url.bounds(options)?);
            if known {
                crate::disk::DiskFragments::expect(&dir)?;
            }
            Ok(Arc::new(crate::disk::DiskFragments::open(&dir, bounds)?))
        }
        #[cfg(feature = "memory")]
        "memory" => {
            let mut max_bytes = u64::MAX;
            for (name, value) in options {
                match name {
                    "max_bytes" => max_bytes = url.size(name, value)?,
                    _ => return Err(url.unknown_option(name, "max_bytes")),
                }
            }
            url.no_path()?;
            Ok(Arc::new(crate::memory::MemoryFragments::new(max_bytes)))
        }
        #[cfg(feature = "rocksdb")]
        "rocksdb" => {
            let (dir, bounds) = (url.directory()?, url.bounds(options)?);
            if known {
                crate::rocks::RocksFragments::expect(&dir)?;
            }
            Ok(Arc::new(crate::rocks::RocksFragments::open(&dir, bounds)?))
        }
        #[cfg(feature = "_opendal")]
        _ if url.scheme.starts_with(OPENDAL) => url.open_remote(options, known),
        #[cfg(feature = "exec")]
        "exec" => {
            let mut run = crate::exec::ExecOptions::new(url.directory()?);
            run.options.extend(options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
            Ok(Arc::new(crate::exec::ExecFragments::lazy(run)))
        }
        _ => Err(url.unknown_scheme()),
    }
}

/// Begins the scheme of a place that `OpenDAL` reaches.
#[cfg(feature = "_opendal")]
const OPENDAL: &str = "opendal+";

/// What the URL of such a place says.
#[cfg(feature = "_opendal")]
struct Remote {
    /// Without the `opendal+`.
    address: String,
    adopt: bool,
    max_bytes: Option<u64>,
    /// Those of its service.
    options: Vec<(String, String)>,
}

/// Options as written: names and values.
type Options<'a> = Vec<(&'a str, &'a str)>;

/// What a URL asks to have around its store.
#[derive(Debug, Default)]
struct Decorations {
    bytes_per_second: Option<u64>,
    /// First and last minute of the day.
    quiet: Option<(u16, u16)>,
    quiet_bytes_per_second: Option<u64>,
    cache_bytes: Option<u64>,
}

impl Decorations {
    /// Takes them, and the domain, out of a URL's options; the rest is the backend's.
    fn of<'a>(url: &Url<'a>) -> Result<(Self, Options<'a>), OpenError> {
        let (mut asked, mut rest) = (Self::default(), Vec::new());
        for (name, value) in url.options()? {
            match name {
                "bandwidth" => asked.bytes_per_second = Some(url.size(name, value)?),
                "quiet_bandwidth" => asked.quiet_bytes_per_second = Some(url.size(name, value)?),
                "cache" => asked.cache_bytes = Some(url.size(name, value)?),
                "quiet" => {
                    let hours =
                        parse_hours(value).ok_or_else(|| url.bad(format!("quiet={value} is not like 23:00-07:00")))?;
                    asked.quiet = Some(hours);
                }
                "domain" if is_domain(value) => {}
                "domain" => return Err(url.bad(format!("domain={value:?} is not a name such as attic/shelf"))),
                _ => rest.push((name, value)),
            }
        }
        if asked.quiet.is_some() != asked.quiet_bytes_per_second.is_some() {
            return Err(url.bad("quiet and quiet_bandwidth belong together"));
        }
        Ok((asked, rest))
    }

    fn around(self, mut store: Arc<dyn FragmentStore>) -> Arc<dyn FragmentStore> {
        let quiet = self.quiet.zip(self.quiet_bytes_per_second);
        let quiet = quiet.map(|((from, until), bytes_per_second)| QuietHours { from, until, bytes_per_second });
        let bandwidth = Bandwidth { bytes_per_second: self.bytes_per_second, quiet };
        if bandwidth.bytes_per_second.is_some() || bandwidth.quiet.is_some() {
            store = Arc::new(Throttle::new(store, bandwidth, local_minute));
        }
        if let Some(bytes) = self.cache_bytes {
            store = Arc::new(Cached::new(store, bytes));
        }
        store
    }
}

/// Opens an index. Blocks while a log is read.
pub fn index(url: &str) -> Result<Arc<dyn IndexStore>, OpenError> {
    let url = Url::parse(url)?;
    if let Some(&(name, _)) = url.options()?.first() {
        return Err(url.unknown_option(name, "none"));
    }
    match url.scheme {
        #[cfg(feature = "disk")]
        "disk" => Ok(Arc::new(crate::disk::DiskIndex::open(&url.directory()?)?)),
        #[cfg(feature = "memory")]
        "memory" => {
            url.no_path()?;
            Ok(Arc::new(crate::memory::MemoryIndex::new()))
        }
        _ => Err(url.unknown_scheme()),
    }
}

/// The parts of a store's URL, as written.
struct Url<'a> {
    text: &'a str,
    scheme: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, OpenError> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let url = Self { text, scheme, path, query };
        if !text.contains(':') {
            return Err(url.unknown_scheme());
        }
        Ok(url)
    }

    /// Without its options: they may have secrets, and errors go to logs.
    fn bad(&self, reason: impl Into<String>) -> OpenError {
        OpenError::BadUrl { url: without_options(self.text).to_owned(), reason: reason.into() }
    }

    fn unknown_scheme(&self) -> OpenError {
        #[cfg(feature = "_opendal")]
        let known = [KNOWN, crate::remote::SCHEMES].concat().join(", ");
        #[cfg(not(feature = "_opendal"))]
        let known = KNOWN.join(", ");
        OpenError::UnknownScheme { url: without_options(self.text).to_owned(), scheme: self.scheme.to_owned(), known }
    }

    fn unknown_option(&self, name: &str, known: &str) -> OpenError {
        self.bad(format!("unknown option {name:?}, known are: {known}"))
    }

    fn options(&self) -> Result<Options<'a>, OpenError> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| pair.split_once('=').ok_or_else(|| self.bad(format!("option {pair:?} has no value"))))
            .collect()
    }

    /// The options of a store in a directory.
    #[cfg(feature = "disk")]
    fn bounds(&self, options: Options<'_>) -> Result<crate::disk::DiskOptions, OpenError> {
        let mut bounds = crate::disk::DiskOptions::default();
        for (name, value) in options {
            match name {
                "max_bytes" => bounds.max_bytes = self.size(name, value)?,
                "reserve" => bounds.reserve_bytes = self.size(name, value)?,
                _ => return Err(self.unknown_option(name, "max_bytes, reserve")),
            }
        }
        Ok(bounds)
    }

    /// A place that is reached by a service. Its bound is kept here, as no service knows of it.
    #[cfg(feature = "_opendal")]
    fn open_remote(&self, options: Options<'_>, known: bool) -> Result<Arc<dyn FragmentStore>, OpenError> {
        use crate::remote::{Found, RemoteFragments};

        let Remote { address, adopt, max_bytes, options } = self.remote(options)?;
        let found = match (known, adopt) {
            // What was there once is never made anew, whatever the options still say.
            (true, _) => Found::Expected,
            (false, true) => Found::Adopted,
            (false, false) => Found::Refused,
        };
        let store: Arc<dyn FragmentStore> = Arc::new(RemoteFragments::open_blocking(&address, options, found)?);
        Ok(match max_bytes {
            Some(max_bytes) => Arc::new(crate::decorate::Quota::new(store, max_bytes, 0)),
            None => store,
        })
    }

    #[cfg(feature = "_opendal")]
    fn remote(&self, options: Options<'_>) -> Result<Remote, OpenError> {
        let address = format!("{}:{}", self.scheme.trim_start_matches(OPENDAL), self.path);
        let mut remote = Remote { address, adopt: false, max_bytes: None, options: Vec::new() };
        for (name, value) in options {
            match (name, value) {
                ("max_bytes", _) => remote.max_bytes = Some(self.size(name, value)?),
                ("adopt", "true") => remote.adopt = true,
                ("adopt", "false") => {}
                ("adopt", _) => return Err(self.bad(format!("adopt={value} is neither true nor false"))),
                _ => remote.options.push((name.to_owned(), value.to_owned())),
            }
        }
        Ok(remote)
    }

    fn size(&self, name: &str, value: &str) -> Result<u64, OpenError> {
        parse_size(value).ok_or_else(|| self.bad(format!("{name}={value} is not a size such as 500GiB or 1000000")))
    }

    /// The directory of a `scheme:///path`. The path is taken as it is written, without percent-decoding.
    fn directory(&self) -> Result<PathBuf, OpenError> {
        match self.path.strip_prefix("//") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(PathBuf::from(path)),
            _ => Err(self.bad(format!("expected an absolute directory, as in {}:///srv/palm", self.scheme))),
        }
    }

    fn no_path(&self) -> Result<(), OpenError> {
        if self.path.trim_matches('/').is_empty() { Ok(()) } else { Err(self.bad("takes no path")) }
    }
}

/// Bytes, as a number with or without a unit.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> String {
        match fragments(url) {
            Ok(_) => panic!("{url} opened"),
            Err(error) => error.to_string(),
        }
    }

    /// A typo in a configuration must stop the start with words that lead to the right spelling; a backend opened
    /// with an option ignored would fill a disk it was told not to.
    #[test]
    fn wrong_urls_name_what_is_known() {
        assert!(message("disc:///srv").contains("disk:///DIRECTORY"));
        assert!(message("/srv/palm").contains("known are"));
        assert!(message("disk://relative").contains("absolute directory"));
        assert!(message("disk:///").contains("absolute directory"));
        assert!(message("memory:?max=3").contains("max_bytes"));
        assert!(message("memory:?max_bytes=3XB").contains("500GiB"));
        assert!(message("memory:?max_bytes=99999999TiB").contains("not a size"));
        assert!(message("memory:?max_bytes").contains("no value"));
        assert!(message("memory:path").contains("takes no path"));
        assert!(message("memory:?quiet=11pm-7am&quiet_bandwidth=1MB").contains("23:00-07:00"));
        assert!(message("memory:?quiet=23:00-07:00").contains("belong together"));
        assert!(message("memory:?domain=").contains("attic/shelf"));
        assert!(fragments("memory:?max_bytes=10MiB").is_ok());
        assert!(fragments("memory:?cache=1MiB&bandwidth=5MB&quiet=23:00-07:00&quiet_bandwidth=1MB&domain=nas").is_ok());
        assert!(index("memory:").is_ok());
        assert!(index("memory:?max_bytes=1").is_err());
    }

    #[test]
    fn sizes_carry_units() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("12KiB"), Some(12 << 10));
        assert_eq!(parse_size("3TB"), Some(3_000_000_000_000));
        assert_eq!(parse_size("GiB"), None);
        assert_eq!(parse_size("-1"), None);
        assert_eq!(parse_size("1.5GiB"), None);
    }
}
