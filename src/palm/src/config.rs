//! Settings: one struct, from defaults, one file, `PALM_*` variables and flags, each over the one before.
//!
//! `examples/palm.toml` documents every setting. A variable's name is the setting's in capitals, `PALM_` before it and
//! `__` between its parts: `PALM_S3__ADDRESS`. Lists are separated by commas. A setting that does not exist stops the
//! start and names the nearest one that does: silently ignoring `max_byte` would fill a disk. Variables that only
//! begin alike (a build script's `PALM_TOOLS`) are let be. `PALM_LOG` is short for `PALM_LOG__LEVEL`.

use std::path::{Path, PathBuf};

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};

use crate::pool::MAX_MAX_MEMBERS;

mod lasting;
mod names;
mod settings;
mod values;

pub use lasting::Lasting;
pub use settings::*;
pub use values::{ClassSetting, CustomDomains, Hours, PolicySetting, Size, TargetSetting};

use names::{NAMES, line_of, nearest, nearest_among, unknown_in_file};

/// Prefix of the variables.
const PREFIX: &str = "PALM_";
/// Variables with this prefix that are not settings: secrets, and where the file is.
const NOT_SETTINGS: &[&str] = &["PALM_ACCESS_KEY", "PALM_SECRET_KEY", "PALM_CONFIG", "PALM_TOKEN", "PALM_ADMIN_TOKEN"];
/// Short for the variable that one wants most often.
const LOG_VARIABLE: &str = "PALM_LOG";
/// A variable this near to a setting's is taken for it, mistyped.
const MISTYPED: usize = 2;

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
    let loaded = Loaded { origins: origins(&config.cache, &settings, written), settings };
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
fn origins(root: &Value, settings: &Settings, written: Option<(&Path, &str)>) -> Vec<(&'static str, String, String)> {
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
            let origin = value_at(root, name).and_then(Value::origin);
            (name, shown(name), origin.map_or_else(|| "default".to_owned(), |origin| place(origin, name, written)))
        })
        .collect()
}

/// An origin, with the line of the setting where that is the file.
fn place(origin: &str, setting: &str, written: Option<(&Path, &str)>) -> String {
    let file = written.filter(|(path, _)| path.display().to_string() == origin);
    let line = file.and_then(|(_, text)| line_of(text, setting));
    line.map_or_else(|| origin.to_owned(), |line| format!("{origin}:{line}"))
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
    for (name, quiet, bound) in [
        ("traffic.quiet", settings.traffic.quiet, settings.traffic.quiet_bandwidth),
        ("repair.quiet", settings.repair.quiet, settings.repair.quiet_bandwidth),
    ] {
        if quiet.is_some() != bound.is_some() {
            return wrong(name, "quiet and quiet_bandwidth belong together".into());
        }
    }
    if !settings.s3.enabled && !settings.backend.enabled {
        return wrong("s3.enabled", "is off, and backend.enabled too: nothing is left to do".into());
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
    let place = place(origin, setting, written);
    SettingsError::Value { place, detail: format!("{name}: {detail}") }
}

#[cfg(test)]
mod tests;
