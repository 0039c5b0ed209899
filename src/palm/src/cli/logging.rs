//! Logs: to stderr, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(failed("logging cannot start"))
}
