//! The `palm` command.

fn main() -> std::process::ExitCode {
    palm::cli::run()
}
