//! The grammar of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use palm_core::id::PoolId;

use super::CliError;
use crate::config::{Given, Lasting, PolicySetting, Size};
use crate::pool::JoinToken;
use crate::pool::join::Coordinator;

/// Peer-Assisted Local Memory: the machines of one network as one S3-compatible object store.
#[derive(Debug, Parser)]
#[command(name = "palm", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    /// The peer's directory [default: `$XDG_DATA_HOME/palm` or `~/.local/share/palm`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Settings file; examples/palm.toml documents all of them
    #[arg(long, global = true, value_name = "FILE", env = "PALM_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON, one line each
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a peer; without any pool it makes a pool of one
    #[command(alias = "daemon")]
    Serve(Serve),
    /// Make a pool and serve it
    CreatePool(CreatePool),
    /// Show the pools on this network
    DiscoverPools {
        /// Seconds to listen
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
        timeout: u64,
    },
    /// Join a pool and serve it; without a token this waits for `palm approve`
    JoinPool(JoinPool),
    /// Make a single-use invitation to this peer's pool
    Invite {
        /// How long it lasts: 90s, 30m, 1h, 7d
        #[arg(long, default_value = "1h", value_name = "TIME")]
        expires: Lasting,
    },
    /// Let a peer in that waits
    Approve {
        /// Its id, or the beginning of it; `palm list-members` shows who waits
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        peer_id: Option<String>,
        /// All that wait
        #[arg(long)]
        all: bool,
    },
    /// Show the members of the pool, and who waits to become one
    ListMembers,
    /// Send a member away for good: its key opens nothing any more
    Evict {
        /// Its name, its id, or the beginning of it; `palm list-members` shows them
        peer: String,
        /// What it and others are told
        #[arg(long, default_value = "")]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Take this peer out of its pool for good, and stop it; its fragments are moved to others first
    Leave {
        /// At once, with its fragments, which the pool will miss
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Move this peer's fragments to others, and take no more
    Drain {
        /// Take fragments again
        #[arg(long)]
        undo: bool,
    },
    /// Show where the pool stands
    Status {
        /// How likely objects are to be lost, as modelled
        #[arg(long)]
        durability: bool,
    },
    /// Count the fragments of all objects now, and make again what is lost
    Repair(DryRun),
    /// Read and hash every fragment of this peer now
    Scrub,
    /// Move fragments from overfull members to others now
    Rebalance(DryRun),
    /// Look for garbage among this peer's fragments now
    Gc(DryRun),
    /// Mend a pool
    #[command(subcommand)]
    Pool(Pool),
    /// Manage buckets beyond what S3 can
    #[command(subcommand)]
    Bucket(Bucket),
    /// Show, add and remove the places where this peer keeps fragments
    #[command(subcommand)]
    Backend(Backend),
    /// Manage S3 access keys
    #[command(subcommand)]
    Key(Key),
    /// Manage roles, which are assumed for a while (STS)
    #[command(subcommand)]
    Role(Role),
    /// Show the settings in effect and where each comes from
    Config {
        /// Print them
        #[arg(long, required = true)]
        print: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct DryRun {
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Where a peer listens and keeps things.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Listen {
    /// S3 endpoint; port 0 picks a free one [default: 0.0.0.0:9000]
    #[arg(long, value_name = "ADDR:PORT")]
    s3: Option<SocketAddr>,
    /// Endpoint for other peers [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDR:PORT")]
    quic: Option<SocketAddr>,
    /// Port of the endpoint for other peers
    #[arg(long, value_name = "PORT", conflicts_with = "quic")]
    port: Option<u16>,
    /// Health and metrics endpoint [default: 127.0.0.1:9001]
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
    /// Where fragments are kept, as `disk:///DIRECTORY?max_bytes=500GiB`; repeated for several disks [default: in the data
    /// directory]
    #[arg(long = "backend", value_name = "URL")]
    backends: Vec<String>,
    /// Keep fragments and serve no S3
    #[arg(long, conflicts_with = "gateway_only")]
    storage_only: bool,
    /// Serve S3 and keep no fragments
    #[arg(long)]
    gateway_only: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    listen: Listen,
    /// A peer to look at besides those mDNS finds; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    peers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CreatePool {
    #[command(flatten)]
    listen: Listen,
    /// The pool's name
    #[arg(long)]
    name: Option<String>,
    /// Members it takes, up to 64
    #[arg(long, value_name = "NUMBER")]
    max_members: Option<u16>,
    /// How many fragments rebuild an object, of how many: 3-of-5, or auto
    #[arg(long, value_name = "K-of-N")]
    policy: Option<PolicySetting>,
    /// Admit whoever asks, for rooms where everyone is trusted
    #[arg(long)]
    open: bool,
    /// strong, or local: every peer works alone too, and islands merge when they meet
    #[arg(long, value_name = "KIND", value_parser = ["strong", "local"])]
    consistency: Option<String>,
    /// What readers get of a strong pool without a majority: refuse (503), or read-stale, labelled
    #[arg(long, value_name = "WHAT", value_parser = ["refuse", "read-stale"])]
    when_minority: Option<String>,
    /// A peer to look at besides those mDNS finds; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    peers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct JoinPool {
    #[command(flatten)]
    listen: Listen,
    /// The pool; `palm discover-pools` shows it, and a token carries it
    #[arg(long, required_unless_present = "token")]
    pool_id: Option<PoolId>,
    /// Any member of it; without one it is looked for by mDNS
    #[arg(long, alias = "peer", value_name = "HOST:PORT")]
    coordinator: Vec<String>,
    /// An invitation from `palm invite`
    #[arg(long, env = "PALM_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make an access key; its secret is shown this once
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// The account it belongs to, which need not exist: accounts own buckets apart from each other
        #[arg(long)]
        account: Option<String>,
        /// Whose it is: it may do what the policies of this user say; without one, all in its account
        #[arg(long)]
        user: Option<String>,
        /// A policy for the user: readonly, readwrite, writeonly, or a file
        #[arg(long, value_name = "NAME|FILE")]
        policy: Vec<String>,
        /// Its id, in place of a random one
        #[arg(long, requires = "secret_key")]
        access_key: Option<String>,
        /// Its secret, in place of a random one
        #[arg(long, requires = "access_key", env = "PALM_NEW_SECRET_KEY", hide_env_values = true)]
        secret_key: Option<String>,
        /// Not taken after this long: 12h, 30d
        #[arg(long)]
        expires: Option<Lasting>,
    },
    /// Show all access keys
    List,
    /// Do not take an access key, until it is enabled
    Disable {
        /// Its id
        access_key: String,
    },
    /// Take an access key again
    Enable {
        /// Its id
        access_key: String,
    },
    /// What users may do
    #[command(subcommand)]
    Policy(Policy),
    /// Revoke an access key
    Revoke {
        /// Its id
        access_key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Attach a policy to a user, in place of one of the same name
    Put {
        #[command(flatten)]
        who: Who,
        /// readonly, readwrite, writeonly, or a file
        policy: String,
    },
    /// Show a user's policies
    Get {
        #[command(flatten)]
        who: Who,
    },
    /// Take a policy away from a user
    Delete {
        #[command(flatten)]
        who: Who,
        /// Its name
        policy: String,
    },
}

/// A user, or a role.
#[derive(Debug, clap::Args)]
pub(super) struct Who {
    /// Name of the user
    #[arg(long, required_unless_present = "role")]
    pub(super) user: Option<String>,
    /// Name of a role instead
    #[arg(long, conflicts_with = "user")]
    pub(super) role: Option<String>,
    /// The account; without it the main one
    #[arg(long)]
    pub(super) account: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Make a role, in place of one of the same name
    Create {
        /// Its name
        name: String,
        /// What it may do: readonly, readwrite, writeonly, or a file
        #[arg(long, required = true, value_name = "NAME|FILE")]
        policy: Vec<String>,
        /// A file that says who may assume it; without one whoever in its account is allowed to
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        /// The account; without it the main one
        #[arg(long)]
        account: Option<String>,
    },
    /// Show all roles of an account
    List {
        /// The account; without it the main one
        #[arg(long)]
        account: Option<String>,
    },
    /// Delete a role: its sessions may do nothing any more
    Delete {
        /// Its name
        name: String,
        /// The account; without it the main one
        #[arg(long)]
        account: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Bucket {
    /// Show or set what a bucket may hold; setting replaces what was set before
    Quota {
        /// Its name
        bucket: String,
        /// Bytes of all versions: 500GiB
        #[arg(long, value_name = "SIZE")]
        bytes: Option<Size>,
        /// Versions, delete markers not counted
        #[arg(long, value_name = "NUMBER")]
        objects: Option<u64>,
        /// No quota any more
        #[arg(long, conflicts_with_all = ["bytes", "objects"])]
        none: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Backend {
    /// Show the backends of this peer
    List,
    /// Use one more, from now on and after restarts
    Add {
        /// Its URL, as `disk:///srv/palm`, or a directory
        url: String,
        /// Bytes contributed at most: 500GiB
        #[arg(long, value_name = "SIZE")]
        max_bytes: Option<Size>,
        /// Bytes of the disk left free for others
        #[arg(long, value_name = "SIZE")]
        reserve: Option<Size>,
        /// Bytes a second at most, reads and writes together
        #[arg(long, value_name = "SIZE")]
        bandwidth: Option<Size>,
    },
    /// Move its fragments to this peer's others, and to other peers where those are full, then do without it
    Remove {
        /// Its number or URL; `palm backend list` shows them
        backend: String,
        /// At once, with what it has: for a disk that is dead
        #[arg(long, conflicts_with = "undo")]
        force: bool,
        /// Keep it after all
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Pool {
    /// Go on from what this peer and others in reach hold, when a majority of the voters is lost for ever. Says what that
    /// may lose, and asks
    Recover {
        /// Do not ask: what was acknowledged by the lost voters alone may be lost
        #[arg(long)]
        i_accept_data_loss: bool,
    },
}

/// What to join, once the token has been read.
#[derive(Debug, Clone)]
pub(super) struct JoinTarget {
    pub(super) pool: PoolId,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) token: Option<JoinToken>,
}

impl JoinPool {
    /// Reads the token. A wrong one is a refusal, not wrong usage: it came from somebody else.
    pub(super) fn into_target(self) -> Result<JoinTarget, CliError> {
        let token: Option<JoinToken> = match &self.token {
            Some(text) => Some(text.parse().map_err(super::failed("--token"))?),
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

impl Args {
    fn listen(&self) -> Option<&Listen> {
        match &self.command {
            Command::Serve(serve) => Some(&serve.listen),
            Command::CreatePool(create) => Some(&create.listen),
            Command::JoinPool(join) => Some(&join.listen),
            _ => None,
        }
    }

    /// `--port`: replaces the port of whatever address the endpoint for other peers has otherwise.
    pub(super) fn port(&self) -> Option<u16> {
        self.listen()?.port
    }

    /// The flags that are settings.
    pub(super) fn given(&self) -> Vec<Given> {
        let mut given = Vec::new();
        let mut one = |name: &'static str, flag: &str, value: Option<String>| {
            given.extend(value.map(|value| Given { name, values: vec![value], origin: flag.to_owned() }));
        };
        one("data", "--data", self.data.as_ref().map(|data| data.display().to_string()));
        let peers: &[String] = match &self.command {
            Command::Serve(serve) => &serve.peers,
            Command::CreatePool(create) => {
                one("pool.name", "--name", create.name.clone());
                one("pool.max_members", "--max-members", create.max_members.map(|number| number.to_string()));
                one("pool.policy", "--policy", create.policy.map(|policy| policy.to_string()));
                one("pool.open", "--open", create.open.then(|| "true".to_owned()));
                one("pool.consistency", "--consistency", create.consistency.clone());
                one("pool.when_minority", "--when-minority", create.when_minority.clone());
                &create.peers
            }
            _ => &[],
        };
        let Some(listen) = self.listen() else { return given };
        one("s3.address", "--s3", listen.s3.map(|address| address.to_string()));
        one("quic.address", "--quic", listen.quic.map(|address| address.to_string()));
        one("admin.address", "--admin", listen.admin.map(|address| address.to_string()));
        one("s3.enabled", "--storage-only", listen.storage_only.then(|| "false".to_owned()));
        one("backend.enabled", "--gateway-only", listen.gateway_only.then(|| "false".to_owned()));
        let mut many = |name: &'static str, flag: &str, values: &[String]| {
            if !values.is_empty() {
                given.push(Given { name, values: values.to_vec(), origin: flag.to_owned() });
            }
        };
        match listen.backends.as_slice() {
            [_] => many("backend.url", "--backend", &listen.backends),
            several => many("backend.urls", "--backend", several),
        }
        many("discovery.peers", "--peer", peers);
        given
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    fn given(line: &str) -> Vec<(&'static str, String)> {
        parse(line).unwrap().given().into_iter().map(|given| (given.name, given.values.join(","))).collect()
    }

    /// clap finds contradictions in a grammar only when it runs; users should not be the ones to run it.
    #[test]
    fn the_grammar_has_no_contradiction() {
        Args::command().debug_assert();
    }

    /// The lines of the README and of OPERATE: each must keep meaning what it says.
    #[test]
    fn documented_lines_mean_what_they_say() {
        let line =
            "palm serve --data d --s3 127.0.0.1:0 --quic 127.0.0.1:5001 --admin 127.0.0.1:0 --peer a:1 --peer b:2";
        assert_eq!(
            given(line),
            [
                ("data", "d".to_owned()),
                ("s3.address", "127.0.0.1:0".to_owned()),
                ("quic.address", "127.0.0.1:5001".to_owned()),
                ("admin.address", "127.0.0.1:0".to_owned()),
                ("discovery.peers", "a:1,b:2".to_owned()),
            ]
        );
        assert_eq!(given("palm serve --backend disk:///a"), [("backend.url", "disk:///a".to_owned())]);
        let several = [("backend.urls", "disk:///a,disk:///b".to_owned())];
        assert_eq!(given("palm serve --backend disk:///a --backend disk:///b"), several);
        assert!(matches!(parse("palm daemon").unwrap().command, Command::Serve(_)));
        assert_eq!(
            given(
                "palm create-pool --name home --max-members 7 --port 5002 --policy 3-of-5 --open --consistency local --json"
            ),
            [
                ("pool.name", "home".to_owned()),
                ("pool.max_members", "7".to_owned()),
                ("pool.policy", "3-of-5".to_owned()),
                ("pool.open", "true".to_owned()),
                ("pool.consistency", "local".to_owned()),
            ]
        );
        assert_eq!(parse("palm create-pool --port 5002").unwrap().port(), Some(5002));
        let pool = PoolId::from_bytes([7; 16]);
        for flag in ["--coordinator", "--peer"] {
            let line = format!("palm join-pool --pool-id {pool} {flag} host:5000 --port 5003");
            let Command::JoinPool(join) = parse(&line).unwrap().command else { panic!("not a join") };
            let target = join.into_target().unwrap();
            assert_eq!((target.pool, target.coordinators), (pool, vec![Coordinator::Named("host:5000".into())]));
        }
        assert!(parse("palm key create --data d --json").unwrap().json);
        assert!(parse("palm invite --expires 1s").is_ok());
        assert!(parse("palm approve --all").is_ok() && parse("palm approve abc").is_ok());
        assert!(parse("palm evict attic --reason sold --yes").is_ok() && parse("palm leave --force").is_ok());
        assert!(parse("palm bucket quota b --bytes 5GiB --objects 7").is_ok() && parse("palm bucket quota b").is_ok());
        assert!(parse("palm bucket quota b --none --objects 7").is_err());
        assert!(parse("palm pool recover --i-accept-data-loss").is_ok());
        for line in [
            "backend list",
            "backend add /mnt/b --max-bytes 5GiB",
            "backend remove 1",
            "repair --dry-run",
            "scrub",
            "rebalance --dry-run",
            "gc --dry-run",
            "drain --undo",
            "status --durability",
        ] {
            assert!(parse(&format!("palm {line} --json")).is_ok(), "{line}");
        }
    }

    /// Usage errors are exit code 2 by clap; a token that is wrong came from somebody else and is a failure (1).
    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "palm",
            "palm dance",
            "palm serve --s3 nowhere",
            "palm approve",
            "palm approve x --all",
            "palm join-pool",
            "palm join-pool --pool-id x",
            "palm create-pool --policy 5-of-3",
            "palm create-pool --consistency eventual",
            "palm create-pool --port 1 --quic 127.0.0.1:1",
            "palm invite --expires soon",
            "palm invite --expires 0s",
            "palm config",
            "palm evict",
            "palm pool",
            "palm backend add",
            "palm backend remove 1 --force --undo",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let Command::JoinPool(join) = parse("palm join-pool --token x").unwrap().command else { panic!("not a join") };
        assert!(matches!(join.into_target(), Err(CliError::Failed(_))));
    }

    /// A token says which pool it is for; a contradiction must be told here, before anything is asked.
    #[test]
    fn a_token_names_its_pool() {
        let (mine, other) = (PoolId::from_bytes([1; 16]), PoolId::from_bytes([2; 16]));
        let token = JoinToken::new(mine, palm_core::id::PeerId::from_bytes([3; 32]), 1).unwrap();
        let join = |pool_id| JoinPool {
            listen: Listen::default(),
            pool_id,
            coordinator: Vec::new(),
            token: Some(token.to_string()),
        };
        assert_eq!(join(None).into_target().unwrap().pool, mine);
        assert_eq!(join(Some(mine)).into_target().unwrap().pool, mine);
        assert!(join(Some(other)).into_target().is_err());
    }
}
