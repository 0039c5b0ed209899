//! The grammar of the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::CliError;
use crate::admin::client::Reach;
use crate::config::{Given, Lasting, Size};

mod access;
mod serve;

pub(super) use access::{Key, Policy, Role, Who};
pub(super) use serve::{CreatePool, JoinPool, JoinTarget, Listen, Serve};

/// Heads the flags that every command takes.
const FOR_ALL: &str = "For all commands";

/// Peer-Assisted Local Memory: the machines of one network as one S3-compatible object store.
#[derive(Debug, Parser)]
#[command(name = "palm", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    /// The peer's directory [default: `$XDG_DATA_HOME/palm` or `~/.local/share/palm`]
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Settings file; examples/palm.toml documents all of them
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "FILE", env = "PALM_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Where the admin endpoint of a started peer listens, ADDR:PORT [default: 127.0.0.1:9001]; for other commands the URL of the
    /// peer that they ask, in place of the one in --data
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "ADDR:PORT|URL")]
    pub(super) admin: Option<String>,
    /// What the peer at --admin URL asks for; `palm admin-token` shows it there
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "TOKEN", env = "PALM_ADMIN_TOKEN", hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    /// Print JSON, one line each
    #[arg(long, global = true, help_heading = FOR_ALL)]
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
    #[command(flatten)]
    Ask(Ask),
    /// Look for what may keep a peer from working here, and say what to mend
    Doctor,
    /// Measure PALM, or any other S3 server; without --endpoint this peer, with a key for the occasion
    Bench(palm_bench::Arguments),
    /// Show the settings in effect and where each comes from
    Config {
        /// Print them
        #[arg(long, required = true)]
        print: bool,
    },
    /// Show the token that lets commands reach this peer from elsewhere, by --admin URL
    AdminToken,
    /// Print a script that completes commands in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// Where to, for example /usr/local/share/man/man1
        dir: PathBuf,
    },
}

/// What a running peer is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Make a single-use invitation to this peer's pool
    Invite {
        /// How long it lasts: 90s, 30m, 1h, 7d
        #[arg(long, default_value = "1h", value_name = "TIME")]
        expires: Lasting,
    },
    /// Let a peer in that waits
    Approve(Applicants),
    /// Turn a peer away that waits; it may ask again
    Refuse(Applicants),
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
        /// Again every two seconds, until Ctrl-C
        #[arg(long, conflicts_with = "durability")]
        watch: bool,
    },
    /// Count the fragments of all objects now, and make again what is lost
    Repair(DryRun),
    /// Read and hash every fragment of this peer now
    Scrub(DryRun),
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
}

#[derive(Debug, clap::Args)]
pub(super) struct Applicants {
    /// Its id, or the beginning of it; `palm list-members` shows who waits
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(super) peer_id: Option<String>,
    /// All that wait
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DryRun {
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
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
        /// What it fails together with, as disks of one enclosure do; otherwise it is in this peer's domain
        #[arg(long, value_name = "NAME", value_parser = domain)]
        domain: Option<String>,
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

fn domain(name: &str) -> Result<String, String> {
    let is_one = palm_backends::open::is_domain(name);
    is_one.then(|| name.to_owned()).ok_or_else(|| "expected a name such as shelf, or attic/shelf".to_owned())
}

/// The peer that a command asks: the one of `data`, or with `--admin URL` another.
pub(super) fn reach(admin: Option<String>, token: Option<String>, data: PathBuf) -> Result<Reach, CliError> {
    let Some(url) = admin else { return Ok(Reach::Socket(data)) };
    let Some(host) = url.strip_prefix("http://").map(|host| host.trim_end_matches('/').to_owned()) else {
        return Err(CliError::Usage(format!(
            "--admin {url}: commands take the URL of a peer's admin endpoint, such as http://127.0.0.1:9001 (to reach one at another \
             machine in secret: ssh -L 9001:127.0.0.1:9001 MACHINE)"
        )));
    };
    let hint =
        "--admin-token, or PALM_ADMIN_TOKEN, is needed with --admin URL: `palm admin-token` shows it at that peer";
    let token = token.ok_or_else(|| CliError::Usage(hint.to_owned()))?;
    Ok(Reach::Http { host, token })
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
        one("admin.address", "--admin", self.admin.clone());
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
mod reference;
#[cfg(test)]
mod tests;
