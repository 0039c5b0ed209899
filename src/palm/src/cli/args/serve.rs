//! How a peer is started: where it listens, and how it comes to its pool.

use std::net::SocketAddr;

use palm_core::id::PoolId;

use crate::cli::{CliError, failed};
use crate::config::PolicySetting;
use crate::pool::JoinToken;
use crate::pool::join::Coordinator;

/// Where a peer listens and keeps things.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct Listen {
    /// S3 endpoint; port 0 picks a free one [default: 0.0.0.0:9000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) s3: Option<SocketAddr>,
    /// Endpoint for other peers [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) quic: Option<SocketAddr>,
    /// Port of the endpoint for other peers
    #[arg(long, value_name = "PORT", conflicts_with = "quic")]
    pub(super) port: Option<u16>,
    /// Where fragments are kept, as `disk:///DIRECTORY?max_bytes=500GiB`; repeated for several disks [default: in the data
    /// directory]
    #[arg(long = "backend", value_name = "URL")]
    pub(super) backends: Vec<String>,
    /// Keep fragments and serve no S3
    #[arg(long, conflicts_with = "gateway_only")]
    pub(super) storage_only: bool,
    /// Serve S3 and keep no fragments
    #[arg(long)]
    pub(super) gateway_only: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Serve {
    #[command(flatten)]
    pub(super) listen: Listen,
    /// A peer to look at besides those mDNS finds; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub(super) peers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreatePool {
    #[command(flatten)]
    pub(super) listen: Listen,
    /// The pool's name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Members it takes, up to 64
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_members: Option<u16>,
    /// How many fragments rebuild an object, of how many: 3-of-5, or auto
    #[arg(long, value_name = "K-of-N")]
    pub(super) policy: Option<PolicySetting>,
    /// Admit whoever asks, for rooms where everyone is trusted
    #[arg(long)]
    pub(super) open: bool,
    /// strong, or local: every peer works alone too, and islands merge when they meet
    #[arg(long, value_name = "KIND", value_parser = ["strong", "local"])]
    pub(super) consistency: Option<String>,
    /// What readers get of a strong pool without a majority: refuse (503), or read-stale, labelled
    #[arg(long, value_name = "WHAT", value_parser = ["refuse", "read-stale"])]
    pub(super) when_minority: Option<String>,
    /// A peer to look at besides those mDNS finds; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub(super) peers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JoinPool {
    #[command(flatten)]
    pub(super) listen: Listen,
    /// The pool; `palm discover-pools` shows it, and a token carries it
    #[arg(long, required_unless_present = "token")]
    pub(super) pool_id: Option<PoolId>,
    /// Any member of it; without one it is looked for by mDNS
    #[arg(long, alias = "peer", value_name = "HOST:PORT")]
    pub(super) coordinator: Vec<String>,
    /// An invitation from `palm invite`
    #[arg(long, env = "PALM_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
}

/// What to join, once the token has been read.
#[derive(Debug, Clone)]
pub(in crate::cli) struct JoinTarget {
    pub(in crate::cli) pool: PoolId,
    pub(in crate::cli) coordinators: Vec<Coordinator>,
    pub(in crate::cli) token: Option<JoinToken>,
}

impl JoinPool {
    /// Reads the token. A wrong one is a refusal, not wrong usage: it came from somebody else.
    pub(in crate::cli) fn into_target(self) -> Result<JoinTarget, CliError> {
        let token: Option<JoinToken> = match &self.token {
            Some(text) => Some(text.parse().map_err(failed("--token"))?),
            None => None,
        };
        let pool = match (self.pool_id, &token) {
            (Some(pool), Some(token)) if token.pool != pool => {
                let detail = format!("the token invites to pool {}, not to {pool}", token.pool);
                return Err(CliError::Failed(detail));
            }
            (Some(pool), _) => pool,
            (None, Some(token)) => token.pool,
            (None, None) => return Err(CliError::Usage("--pool-id or --token is needed".into())),
        };
        let coordinators = self.coordinator.into_iter().map(Coordinator::Named).collect();
        Ok(JoinTarget { pool, coordinators, token })
    }
}
