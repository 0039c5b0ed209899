//! Asking twice before something that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use super::CliError;

/// Puts a question and wants `expected` typed. Where nobody can be asked, `flag` has to have been given instead.
pub(super) fn confirm(question: &str, expected: &str, flag: &str) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage(format!("nobody to ask here: {flag} says that it is meant")));
    }
    // To stderr: stdout is for results.
    let mut out = std::io::stderr().lock();
    let mut typed = String::new();
    let asked = write!(out, "{question} ").and_then(|()| out.flush()).and_then(|()| stdin.lock().read_line(&mut typed));
    asked.map_err(super::failed("confirmation"))?;
    if typed.trim() == expected { Ok(()) } else { Err(CliError::Failed("nothing was done".into())) }
}
