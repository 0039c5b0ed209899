//! `s3-bench`: measures any S3 server. `s3-bench --help` tells how.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use palm_s3_tests::load::{self, End, Mix, Plan};
use palm_s3_tests::sign::Signer;

const EXAMPLE: &str = "Example:
  s3-bench --endpoint http://127.0.0.1:9000 --endpoint http://127.0.0.1:9010 --op put --size 1KiB --clients 64";

/// Sends S3 requests from many clients and tells how fast they were answered
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
struct Arguments {
    /// URL of an S3 server; give it again for each further peer
    #[arg(long, required = true)]
    endpoint: Vec<String>,
    /// Access key
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    access_key: String,
    /// Secret key
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: String,
    /// Region that is signed for
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Bucket; made when it is not there
    #[arg(long, default_value = "s3-bench")]
    bucket: String,
    /// What every key begins with
    #[arg(long, default_value = "")]
    prefix: String,
    /// put, get, head, list, delete, mixed, or shares such as get=90,put=10
    #[arg(long, default_value = "mixed")]
    op: Mix,
    /// Object size: bytes, or a number with KiB, MiB or GiB
    #[arg(long, default_value = "1MiB", value_parser = parse_size)]
    size: usize,
    /// Concurrent clients, each with one connection
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Length of the measurement in seconds
    #[arg(long, default_value_t = 10.0, conflicts_with = "count")]
    duration: f64,
    /// Number of requests, instead of a duration
    #[arg(long)]
    count: Option<u64>,
    /// Objects put before the measurement for operations that need some
    #[arg(long, default_value_t = 256)]
    objects: u64,
    /// Take the objects of an earlier run with the same prefix, size and number
    #[arg(long)]
    reuse: bool,
    /// Threads of the client
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn parse_size(text: &str) -> Result<usize, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1), ("", 1)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .ok_or_else(|| format!("no size: {text:?}"))?;
    let number: usize = number.trim().parse().map_err(|_| format!("no size: {text:?}"))?;
    number.checked_mul(unit).ok_or_else(|| format!("too large: {text:?}"))
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let endpoints = arguments
        .endpoint
        .iter()
        .map(|url| {
            let host =
                url.strip_prefix("http://").with_context(|| format!("{url}: only http:// URLs are supported"))?;
            let host = host.trim_end_matches('/');
            Ok(if host.contains(':') { host.to_owned() } else { format!("{host}:80") })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        endpoints,
        signer: Signer::new(&arguments.access_key, &arguments.secret_key, &arguments.region),
        bucket: arguments.bucket,
        prefix: arguments.prefix,
        size: arguments.size,
        clients: arguments.clients,
        end: arguments.count.map_or(End::After(Duration::from_secs_f64(arguments.duration)), End::Count),
        mix: arguments.op,
        objects: arguments.objects,
        reuse: arguments.reuse,
    };
    let mut runtime = if arguments.threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(arguments.threads);
        builder
    };
    let report = runtime.enable_all().build()?.block_on(load::run(plan))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
