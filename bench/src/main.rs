//! `s3-bench`: measures any S3 server. `s3-bench --help` tells how.

use std::process::ExitCode;

use clap::Parser;
use palm_bench::Arguments;

const EXAMPLE: &str = "Example:
  s3-bench --endpoint http://127.0.0.1:9000 --endpoint http://127.0.0.1:9010 --op put --size 1KiB --clients 64";

/// Sends S3 requests from many clients and tells how fast they were answered
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    /// Threads of the client
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let CommandLine { arguments, threads, json } = CommandLine::parse();
    let plan = arguments.plan()?;
    let mut runtime = if threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    let report = runtime.enable_all().build()?.block_on(palm_bench::load::run(plan))?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
