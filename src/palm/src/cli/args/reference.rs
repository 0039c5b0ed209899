//! docs/commands.md, made of the grammar: what people read is what the program takes.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::Args;

const PAGE: &str = "docs/commands.md";
/// Set, the test writes the page in place of comparing it.
const WRITE: &str = "PALM_WRITE_DOCS";
const HEAD: &str = "\
# Commands

One binary, `palm`. A command that needs a running peer finds it by `--data DIR`; or, at another machine, by `--admin URL` with the token
that `palm admin-token` shows there. Results go to stdout, one line of JSON with `--json`; logs, progress and errors to stderr. Exit codes:
0 done, 1 failed, 2 wrong usage or settings.

This page is made of the program's own grammar: `PALM_WRITE_DOCS=1 cargo test -p palm --lib reference` writes it anew.
";

/// All commands below one, each a chapter.
fn describe(command: &Command, path: &str, page: &mut String) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            describe(sub, &path, page);
            continue;
        }
        let _ = write!(page, "\n## `{path}`\n\n{}.", sub.get_about().map(ToString::to_string).unwrap_or_default());
        let aliases: Vec<&str> = sub.get_all_aliases().collect();
        if !aliases.is_empty() {
            let _ = write!(page, " Also `{}`.", aliases.join("`, `"));
        }
        page.push('\n');
        table(sub.get_arguments().filter(|arg| !arg.is_global_set()), page);
    }
}

fn table<'a>(args: impl Iterator<Item = &'a Arg>, page: &mut String) {
    let rows: Vec<String> = args.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).map(row).collect();
    if !rows.is_empty() {
        let _ = write!(page, "\n| argument | is |\n| --- | --- |\n{}", rows.concat());
    }
}

fn row(arg: &Arg) -> String {
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).unwrap_or_default();
    let value = value.first().map(ToString::to_string).unwrap_or_default();
    let name = match arg.get_long() {
        Some(long) => format!("--{long} {value}"),
        None => value,
    };
    let mut words = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if defaults.iter().any(|value| !value.is_empty() && !matches!(value.as_ref(), "true" | "false")) {
        let _ = write!(words, " [default: {}]", defaults.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(words, " [variable: {}]", variable.to_string_lossy());
    }
    let escaped = |text: &str| text.replace('|', "\\|");
    format!("| `{}` | {} |\n", escaped(name.trim()), escaped(&words))
}

fn page() -> String {
    let mut command = Args::command();
    command.build();
    let mut page = format!("{HEAD}\n## For all commands\n");
    table(command.get_arguments(), &mut page);
    describe(&command, "palm", &mut page);
    page
}

/// A flag is added, renamed or taken away. Danger: a page that says otherwise than the program. Expected: this fails until the page is
/// written anew.
#[test]
fn the_page_is_the_grammar() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == page(), "{PAGE} differs from the grammar: run this test with {WRITE}=1 and commit the page");
}
