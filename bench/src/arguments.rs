//! What a run is asked for on a command line.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::load::{End, Mix, Plan};
use crate::sign::Signer;

/// Arguments of `palm bench` and `s3-bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// URL of an S3 server; give it again for each further peer
    #[arg(long, value_name = "URL")]
    pub endpoint: Vec<String>,
    /// Access key
    #[arg(long, env = "AWS_ACCESS_KEY_ID", requires = "secret_key", value_name = "KEY")]
    pub access_key: Option<String>,
    /// Secret key
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "KEY")]
    pub secret_key: Option<String>,
    /// Region that is signed for
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Bucket; made when it is not there, and kept with what was put
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
    #[arg(long, default_value_t = 16, value_name = "NUMBER")]
    clients: usize,
    /// Length of the measurement in seconds
    #[arg(long, default_value_t = 10.0, conflicts_with = "count", value_name = "SECONDS")]
    duration: f64,
    /// Number of requests, instead of a duration
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Objects put before the measurement for operations that need some
    #[arg(long, default_value_t = 256, value_name = "NUMBER")]
    objects: u64,
    /// Take the objects of an earlier run with the same prefix, size and number
    #[arg(long)]
    reuse: bool,
}

impl Arguments {
    /// The run they ask for.
    pub fn plan(self) -> anyhow::Result<Plan> {
        let (Some(access_key), Some(secret_key)) = (&self.access_key, &self.secret_key) else {
            bail!("--access-key and --secret-key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, are needed");
        };
        if self.endpoint.is_empty() {
            bail!("--endpoint is needed");
        }
        let duration = Duration::try_from_secs_f64(self.duration).context("--duration")?;
        Ok(Plan {
            endpoints: self.endpoint.iter().map(|url| host(url)).collect::<anyhow::Result<_>>()?,
            signer: Signer::new(access_key, secret_key, &self.region),
            bucket: self.bucket,
            prefix: self.prefix,
            size: self.size,
            clients: self.clients,
            end: self.count.map_or(End::After(duration), End::Count),
            mix: self.op,
            objects: self.objects,
            reuse: self.reuse,
        })
    }
}

/// `host:port` of a URL.
fn host(url: &str) -> anyhow::Result<String> {
    let host = url.strip_prefix("http://").with_context(|| format!("{url}: only http:// URLs are supported"))?;
    let host = host.trim_end_matches('/');
    Ok(if host.contains(':') { host.to_owned() } else { format!("{host}:80") })
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
