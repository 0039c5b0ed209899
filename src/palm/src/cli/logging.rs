//! Logs: to stderr, for people or for machines; and the audit log, to a file.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use super::rotate::Rotating;
use super::{CliError, failed};
use crate::config::{Log, LogFormat};

/// Begins to log. Dependencies speak from `warn` on unless the level names them; s3s not at all, since it reports
/// every client's mistake as an error (our own front end logs what is ours).
pub(super) fn start(log: &Log) -> Result<(), CliError> {
    let is_plain_level = log.level.chars().all(char::is_alphanumeric);
    let directives = if is_plain_level {
        format!("warn,s3s=off,palm={0},palm_core={0},palm_backends={0}", log.level)
    } else {
        log.level.clone()
    };
    let filter = EnvFilter::try_new(directives).map_err(failed("log.level"))?;
    let told = fmt::layer().with_writer(std::io::stderr);
    let told = match log.format {
        LogFormat::Human => told.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => told.json().flatten_event(true).boxed(),
    };
    let audit = log.audit.as_deref().map(Rotating::open).transpose().map_err(failed("log.audit"))?;
    let audit = audit.map(|file| {
        let writes = if log.audit_writes { LevelFilter::INFO } else { LevelFilter::OFF };
        let wanted = Targets::new().with_target("audit", LevelFilter::INFO).with_target("audit::s3", writes);
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        lines.with_target(false).with_writer(Arc::new(file)).with_filter(wanted)
    });
    registry().with(told.with_filter(filter)).with(audit).try_init().map_err(failed("logging cannot start"))
}
