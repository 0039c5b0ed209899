//! Settings: one struct, from defaults, one file, `PALM_*` variables and flags, each over the one before.
//!
//! `examples/palm.toml` documents every setting. A variable's name is the setting's in capitals, `PALM_` before it and
//! `__` between its parts: `PALM_S3__ADDRESS`. Lists are separated by commas. A setting that does not exist stops the
//! start and names the nearest one that does: silently ignoring `max_byte` would fill a disk. Variables that only
//! begin alike (a build script's `PALM_TOOLS`) are let be. `PALM_LOG` is short for `PALM_LOG__LEVEL`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use palm_core::place::Policy;
use palm_core::record::{Consistency, WhenMinority};
use palm_core::s3::storage_class::ClassPolicy;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::NotifyTarget;
use crate::pool::{DEFAULT_MAX_MEMBERS, MAX_MAX_MEMBERS};
use crate::s3::CustomDomains;

mod lasting;
mod names;

pub use lasting::Lasting;

use names::{NAMES, line_of, nearest, nearest_among, unknown_in_file};

/// Prefix of the variables.
const PREFIX: &str = "PALM_";
/// Variables with this prefix that are not settings: secrets, and where the file is.
const NOT_SETTINGS: &[&str] = &["PALM_ACCESS_KEY", "PALM_SECRET_KEY", "PALM_CONFIG", "PALM_TOKEN"];
/// Short for the variable that one wants most often.
const LOG_VARIABLE: &str = "PALM_LOG";
/// A variable this near to a setting's is taken for it, mistyped.
const MISTYPED: usize = 2;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where this peer keeps its key, its index and, unless `backend.url` says otherwise, its fragments.
    pub data: PathBuf,
    /// What it calls itself; empty means the host's name.
    pub name: String,
    /// The S3 endpoint.
    pub s3: S3,
    /// The endpoint other peers speak to.
    pub quic: Quic,
    /// Health, metrics and service discovery, without authentication: local by default.
    pub admin: Admin,
    /// How peers find each other.
    pub discovery: Discovery,
    /// Where fragments are kept.
    pub backend: Backend,
    /// How the pool deals with its members.
    pub members: Members,
    /// How lost fragments are made again.
    pub repair: Repair,
    /// How the fragments kept here are re-read.
    pub scrub: Scrub,
    /// When garbage goes.
    pub collection: Collection,
    /// How lifecycle rules are carried out.
    pub lifecycle: Lifecycle,
    /// Who can be told of events.
    pub notify: Notify,
    /// Access logs of buckets.
    pub access_log: AccessLog,
    /// Logging, to stderr.
    pub log: Log,
    /// The pool, when one is made.
    pub pool: NewPool,
}

/// The S3 endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// Domains under which buckets are host names (`bucket.domain`). Path style works always.
    pub domains: Vec<String>,
    /// Domains under which the websites of buckets are host names (`bucket.website-domain`).
    pub website_domains: Vec<String>,
    /// What a host name under none of them means: nothing, the bucket of that name, or its website.
    pub custom_domains: CustomDomains,
    /// Where it listens for TLS, with the certificate and the key below.
    pub tls_address: Option<SocketAddr>,
    /// The certificate chain, PEM; read again when it changes.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The region clients are told of; any region is accepted in a signature.
    pub region: String,
}

/// The endpoint other peers speak to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quic {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
}

/// The admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
}

/// How peers find each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Announce and listen by mDNS.
    pub mdns: bool,
    /// Interfaces where mDNS speaks; none means all.
    pub interfaces: Vec<String>,
    /// `host:port` of peers to look at besides.
    pub peers: Vec<String>,
}

/// Where fragments are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// `disk:///DIRECTORY` or another backend's URL; none means `fragments` in the data directory.
    pub url: Option<String>,
    /// Several of them, each on a disk of its own. Not beside `url`.
    pub urls: Vec<String>,
    /// Bytes contributed at most.
    pub max_bytes: Option<Size>,
    /// Bytes of the disk left free for others.
    pub reserve: Option<Size>,
    /// What fails together with it (a host, a room); none means the peer by itself.
    pub domain: String,
}

/// How the pool deals with its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// A voter absent for longer gives its vote to another member.
    pub grace: Lasting,
}

/// How lost fragments are made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repair {
    /// Bytes of fragments that this peer reads and writes for repairs at most, each second; none means no limit of its own.
    pub bandwidth: Option<Size>,
    /// How often the objects are counted and looked after when nothing happens.
    pub every: Lasting,
    /// How long the pool has to have been as it is before old objects are coded anew for it, or fragments moved to level
    /// its members.
    pub settle: Lasting,
}

/// How the fragments kept here are re-read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Within this time each fragment is read and hashed once.
    pub period: Lasting,
}

/// When garbage goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collection {
    /// Fragments younger than this are left alone.
    pub grace: Lasting,
    /// Fragments whose object was replaced or deleted are left alone this long, for readers that are still at it.
    pub released: Lasting,
    /// How long garbage stays in the trash before a second look, and is deleted.
    pub trash: Lasting,
    /// How often all fragments are looked at.
    pub every: Lasting,
}

/// How lifecycle rules are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifecycle {
    /// How long a day of theirs is: shorter for tests only.
    pub day: Lasting,
}

/// Who can be told of events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notify {
    /// Targets of bucket notifications, each `NAME=URL`.
    pub targets: Vec<NotifyTarget>,
}

/// Access logs of buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// How often they are delivered.
    pub every: Lasting,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,palm::pool=debug`.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The pool, when one is made. Later changes here change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewPool {
    /// Its name; empty means the peer's.
    pub name: String,
    /// Members it takes at most, up to 64.
    pub max_members: u16,
    /// `auto` or `k-of-n`.
    pub policy: PolicySetting,
    /// Admit whoever asks.
    pub open: bool,
    /// Whether objects are linearizable, or every peer answers by itself and islands merge.
    pub consistency: Consistency,
    /// What a strong pool does for readers without a majority of its voters.
    pub when_minority: WhenMinority,
    /// `CLASS=k-of-n`: storage classes with policies of their own.
    pub storage_classes: Vec<ClassSetting>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: default_data(),
            name: String::new(),
            s3: S3::default(),
            quic: Quic::default(),
            admin: Admin::default(),
            discovery: Discovery::default(),
            backend: Backend::default(),
            members: Members::default(),
            repair: Repair::default(),
            scrub: Scrub::default(),
            collection: Collection::default(),
            lifecycle: Lifecycle::default(),
            notify: Notify::default(),
            access_log: AccessLog::default(),
            log: Log::default(),
            pool: NewPool::default(),
        }
    }
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            address: ([0, 0, 0, 0], 9000).into(),
            domains: Vec::new(),
            website_domains: Vec::new(),
            custom_domains: CustomDomains::default(),
            tls_address: None,
            tls_certificate: None,
            tls_key: None,
            region: "us-east-1".into(),
        }
    }
}

impl S3 {
    /// Where TLS listens, its certificate and its key; [`Settings`] are refused with one of the three alone.
    pub fn tls(&self) -> Option<(SocketAddr, &Path, &Path)> {
        Some((self.tls_address?, self.tls_certificate.as_deref()?, self.tls_key.as_deref()?))
    }
}

impl Default for Quic {
    fn default() -> Self {
        Self { address: ([0, 0, 0, 0], 5000).into() }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: ([127, 0, 0, 1], 9001).into() }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self { mdns: true, interfaces: Vec::new(), peers: Vec::new() }
    }
}

impl Default for Members {
    fn default() -> Self {
        Self { grace: Lasting(Duration::from_mins(15)) }
    }
}

impl Default for Repair {
    fn default() -> Self {
        let (every, settle) = (Lasting(Duration::from_mins(10)), Lasting(Duration::from_mins(10)));
        Self { bandwidth: None, every, settle }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self { period: Lasting(Duration::from_hours(30 * 24)) }
    }
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            grace: Lasting(Duration::from_hours(1)),
            released: Lasting(Duration::from_mins(5)),
            trash: Lasting(Duration::from_hours(1)),
            every: Lasting(Duration::from_hours(1)),
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { day: Lasting(Duration::from_hours(24)) }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { every: Lasting(Duration::from_mins(5)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into() }
    }
}

impl Default for NewPool {
    fn default() -> Self {
        Self {
            name: String::new(),
            max_members: DEFAULT_MAX_MEMBERS,
            policy: PolicySetting::default(),
            open: false,
            consistency: Consistency::default(),
            when_minority: WhenMinority::default(),
            storage_classes: Vec::new(),
        }
    }
}

/// `$XDG_DATA_HOME/palm`, otherwise `~/.local/share/palm`, otherwise `palm-data` here.
fn default_data() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("palm-data"), |data| data.join("palm"))
}

/// A number of bytes; written as a number or with a unit, `500GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let factor: Option<u64> = match unit.trim_start() {
            "" | "B" => Some(1),
            "kB" | "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "TB" => Some(1_000_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            "TiB" => Some(1 << 40),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| format!("not a size such as 500GiB: {text:?}"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// `auto`, or any k of n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicySetting(pub Option<Policy>);

impl std::str::FromStr for PolicySetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(None)),
            _ => text.parse().map(|policy| Self(Some(policy))).map_err(|error| format!("{error} (or auto)")),
        }
    }
}

impl fmt::Display for PolicySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("auto"),
            Some(policy) => policy.fmt(f),
        }
    }
}

impl Serialize for PolicySetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PolicySetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A storage class and its policy, `STANDARD_IA=3-of-5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassSetting(pub ClassPolicy);

impl Serialize for ClassSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClassSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why the settings cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {source}", .file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {detail}", .file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// What the parser says, with line and column.
        detail: String,
    },
    /// No such setting.
    #[error("{place}: unknown setting {name}; did you mean {nearest}?")]
    Unknown {
        /// File and line, or variable.
        place: String,
        /// What was written.
        name: String,
        /// What may have been meant, in the same spelling.
        nearest: String,
    },
    /// The value does not fit.
    #[error("{place}: {detail}")]
    Value {
        /// File and line, variable or flag.
        place: String,
        /// What is wrong.
        detail: String,
    },
}

/// One setting given from outside the file: its name, its text, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As in the file: `s3.address`.
    pub name: &'static str,
    /// One text, or several for a list.
    pub values: Vec<String>,
    /// For people: `--s3`, `PALM_S3__ADDRESS`.
    pub origin: String,
}

/// Settings, and where each comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// For each setting: its name, its value as TOML, and where it comes from.
    pub origins: Vec<(&'static str, String, String)>,
}

/// Given settings as a source of the crate `config`.
#[derive(Debug, Clone)]
struct Layer(Vec<Given>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let value = |given: &Given| {
            let text = |text: &String| Value::new(Some(&given.origin), ValueKind::String(text.clone()));
            match given.values.as_slice() {
                [one] if !names::is_list(given.name) => text(one),
                many => Value::new(Some(&given.origin), ValueKind::Array(many.iter().map(text).collect())),
            }
        };
        Ok(self.0.iter().map(|given| (given.name.to_owned(), value(given))).collect())
    }
}

/// Puts the settings together: defaults, the file, variables, flags.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: Vec<Given>,
) -> Result<Loaded, SettingsError> {
    let defaults = Config::try_from(&Settings::default()).map_err(|error| value_error(&error, None, None))?;
    let mut builder = Config::builder().add_source(defaults);
    let mut written = None;
    if let Some(path) = file {
        let text =
            std::fs::read_to_string(path).map_err(|source| SettingsError::Read { file: path.to_owned(), source })?;
        builder = builder.add_source(file_layer(path, &text)?);
        written = Some((path, text));
    }
    let written = written.as_ref().map(|(path, text)| (*path, text.as_str()));
    let config = builder
        .add_source(Layer(from_variables(variables)?))
        .add_source(Layer(flags))
        .build()
        .map_err(|error| value_error(&error, None, written))?;
    let settings: Settings =
        config.clone().try_deserialize().map_err(|error| value_error(&error, Some(&config.cache), written))?;
    let loaded = Loaded { origins: origins(&config.cache, &settings), settings };
    check(&loaded)?;
    Ok(loaded)
}

/// The file as a layer, once its names are known to be right.
fn file_layer(path: &Path, text: &str) -> Result<Config, SettingsError> {
    let syntax = |detail: String| SettingsError::Syntax { file: path.to_owned(), detail };
    if let Some((name, line)) = unknown_in_file(text).map_err(syntax)? {
        return Err(SettingsError::Unknown {
            place: format!("{}:{line}", path.display()),
            nearest: nearest(&name).to_owned(),
            name,
        });
    }
    let source = ::config::File::from_str(text, ::config::FileFormat::Toml);
    let parsed = Config::builder().add_source(source).build().map_err(|error| syntax(error.to_string()))?;
    // The crate knows files it opened itself only, and would not say which file a value is from.
    let origin = path.display().to_string();
    let mut layer = Config::builder();
    for &(name, _) in NAMES {
        if let Some(value) = value_at(&parsed.cache, name) {
            layer = layer.add_source(Single(name, with_origin(value.clone(), &origin)));
        }
    }
    layer.build().map_err(|error| syntax(error.to_string()))
}

/// The value of a setting, with its origin (which deserializing it would lose).
fn value_at<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(root, |at, part| match &at.kind {
        ValueKind::Table(table) => table.get(part),
        _ => None,
    })
}

/// One value as a source.
#[derive(Debug, Clone)]
struct Single(&'static str, Value);

impl Source for Single {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok([(self.0.to_owned(), self.1.clone())].into_iter().collect())
    }
}

fn with_origin(value: Value, origin: &String) -> Value {
    let kind = match value.kind {
        ValueKind::Array(items) => ValueKind::Array(items.into_iter().map(|item| with_origin(item, origin)).collect()),
        kind => kind,
    };
    Value::new(Some(origin), kind)
}

/// The settings among the variables.
fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Given>, SettingsError> {
    let mut given = Vec::new();
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if NOT_SETTINGS.contains(&variable.as_str()) {
            continue;
        }
        let wanted = match variable.as_str() {
            LOG_VARIABLE => "log.level".to_owned(),
            _ => rest.to_ascii_lowercase().replace("__", "."),
        };
        let Some(&(name, _)) = NAMES.iter().find(|(name, _)| *name == wanted) else {
            let spelled = NAMES.iter().map(|(name, _)| variable_of(name));
            let known: Vec<String> = spelled.chain(NOT_SETTINGS.iter().map(|&name| name.to_owned())).collect();
            let nearest = nearest_among(&variable, &mut known.iter().map(String::as_str)).to_owned();
            if rest.contains("__") || names::distance(&variable, &nearest) <= MISTYPED {
                return Err(SettingsError::Unknown { place: "environment".into(), nearest, name: variable });
            }
            continue;
        };
        let values = if names::is_list(name) {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        } else {
            vec![text]
        };
        given.push(Given { name, values, origin: variable });
    }
    Ok(given)
}

/// The variable that sets a setting.
fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "__"))
}

/// Where each effective value comes from.
fn origins(root: &Value, settings: &Settings) -> Vec<(&'static str, String, String)> {
    let effective = toml::Table::try_from(settings).unwrap_or_default();
    let shown = |name: &str| {
        let (table, key) = name.split_once('.').unwrap_or(("", name));
        let found = if table.is_empty() { effective.get(key) } else { effective.get(table).and_then(|t| t.get(key)) };
        // TOML has no word for "not set"; such settings are left out by its serializer.
        found.map_or_else(|| "(not set)".to_owned(), ToString::to_string)
    };
    NAMES
        .iter()
        .map(|&(name, _)| {
            let origin = value_at(root, name).and_then(|value| value.origin().map(str::to_owned));
            (name, shown(name), origin.unwrap_or_else(|| "default".to_owned()))
        })
        .collect()
}

/// What no type can say.
fn check(loaded: &Loaded) -> Result<(), SettingsError> {
    let wrong = |name: &str, detail: String| {
        let place = loaded.origins.iter().find(|(known, _, _)| *known == name).map(|(_, _, origin)| origin.clone());
        Err(SettingsError::Value { place: place.unwrap_or_default(), detail: format!("{name}: {detail}") })
    };
    let settings = &loaded.settings;
    if !(1..=MAX_MAX_MEMBERS).contains(&settings.pool.max_members) {
        return wrong(
            "pool.max_members",
            format!("{} is not within 1 to {MAX_MAX_MEMBERS}", settings.pool.max_members),
        );
    }
    if let Err(error) = settings.log.level.parse::<tracing_subscriber::EnvFilter>() {
        return wrong("log.level", error.to_string());
    }
    let backend = &settings.backend;
    let named = if backend.url.is_some() { "backend.url" } else { "backend.urls" };
    if backend.url.is_some() && !backend.urls.is_empty() {
        return wrong("backend.urls", "with backend.url beside it: name all backends in one of them".into());
    }
    let has_url = backend.url.is_some() || !backend.urls.is_empty();
    if has_url && (backend.max_bytes.is_some() || backend.reserve.is_some()) {
        let detail = "a url carries its own, as in disk:///srv/palm?max_bytes=500GiB&reserve=2GB";
        return wrong(named, format!("with max_bytes or reserve beside it: {detail}"));
    }
    let tls = &settings.s3;
    if tls.tls().is_none() && (tls.tls_address.is_some() || tls.tls_certificate.is_some() || tls.tls_key.is_some()) {
        return wrong("s3.tls_address", "TLS needs s3.tls_address, s3.tls_certificate and s3.tls_key together".into());
    }
    if settings.data.as_os_str().is_empty() {
        return wrong("data", "is empty".into());
    }
    Ok(())
}

/// An error of the crate `config`, with the place of the value it is about.
fn value_error(error: &ConfigError, root: Option<&Value>, written: Option<(&Path, &str)>) -> SettingsError {
    let (name, detail) = match error {
        ConfigError::At { key, error, .. } => (key.as_deref(), error.to_string()),
        ConfigError::Type { key, unexpected, expected, .. } => {
            (key.as_deref(), format!("expected {expected}, found {unexpected}"))
        }
        other => (None, other.to_string()),
    };
    let Some(name) = name else { return SettingsError::Value { place: "settings".into(), detail } };
    // An error inside a list names its item: `discovery.peers[0]`.
    let setting = name.split('[').next().unwrap_or(name);
    let origin = root.and_then(|root| value_at(root, setting)?.origin()).unwrap_or("settings");
    let line =
        written.filter(|(path, _)| path.display().to_string() == origin).and_then(|(_, text)| line_of(text, setting));
    let place = line.map_or_else(|| origin.to_owned(), |line| format!("{origin}:{line}"));
    SettingsError::Value { place, detail: format!("{name}: {detail}") }
}

#[cfg(test)]
mod tests;
