//! What is made of the grammar itself: shell completion and the manual.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::super::args::Args;
use super::super::{CliError, failed};
use super::{say, say_json};

/// A script for a shell that completes commands.
pub(in crate::cli) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "palm", &mut script);
    say(&String::from_utf8_lossy(&script));
}

/// Writes a manual page for each command.
pub(in crate::cli) fn manual(dir: &Path, as_json: bool) -> Result<(), CliError> {
    std::fs::create_dir_all(dir).map_err(failed(dir.display()))?;
    clap_mangen::generate_to(Args::command(), dir).map_err(failed(dir.display()))?;
    if as_json {
        say_json(&json!({ "manual": dir }));
    } else {
        say(&format!("The manual is in {}: try `man {}`.", dir.display(), dir.join("palm.1").display()));
    }
    Ok(())
}
