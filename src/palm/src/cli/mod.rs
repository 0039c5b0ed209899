//! The command line: what can be said, and what it leads to.
//!
//! [`args`] is the grammar, [`peer`] runs a peer ([`service`]: what systemd is told of it), [`ask`] are the commands to a running one
//! ([`confirm`]: some ask back; [`task`]: some take long; [`identity`]: keys and roles; [`status`]), [`discover`] looks around,
//! [`doctor`] looks for what may go wrong, [`bench`](mod@bench) measures. [`print`](mod@print) is what all of them say.
//! Results go to stdout (one line of JSON each with `--json`), logs to stderr. Exit codes: 0 done, 1 failed, 2 wrong
//! usage or settings.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod ask;
mod backend;
mod bench;
mod confirm;
mod console;
mod data_dir;
mod discover;
mod doctor;
mod identity;
mod logging;
mod peer;
mod print;
mod rotate;
mod service;
mod status;
mod task;

use args::{Args, Ask, Command, DryRun, reach};
use peer::Start;

use crate::admin::api::{Quota, Task};
use crate::admin::client::{AskError, Reach};
use crate::admin::token::AdminToken;
use crate::config::{self, Loaded, SettingsError};
use crate::net::NetError;
use crate::pool::PoolError;

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The settings are wrong: nothing was started.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The command makes no sense as given.
    #[error("{0}")]
    Usage(String),
    /// A running peer did not do it.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The network did not.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The pool did not.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Something else, in words.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Settings(_) | Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// Wraps a failure in words on what was tried.
fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> CliError {
    move |error| CliError::Failed(format!("{what}: {error}"))
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                eprintln!("{}", serde_json::json!({ "error": error.to_string() }));
            } else {
                eprintln!("palm: {error}");
            }
            error.exit_code()
        }
    }
}

fn start(args: Args) -> Result<(), CliError> {
    let mut loaded = config::load(args.config.as_deref(), std::env::vars(), args.given());
    if let (Ok(loaded), Some(port)) = (&mut loaded, args.port()) {
        loaded.settings.quic.address.set_port(port);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed("the runtime cannot start"))?;
    let result = runtime.block_on(dispatch(args, loaded));
    // A blocking task (a name being resolved, say) must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Wrong settings stop every command but those that need none.
async fn dispatch(args: Args, loaded: Result<Loaded, SettingsError>) -> Result<(), CliError> {
    let Args { command, json, admin, admin_token, .. } = args;
    match command {
        // A peer's future is large, and there is only one.
        Command::Serve(_) => Box::pin(peer::run(loaded?.settings, Start::Serve, json)).await,
        Command::CreatePool(_) => Box::pin(peer::run(loaded?.settings, Start::Create, json)).await,
        Command::JoinPool(join) => Box::pin(peer::run(loaded?.settings, Start::Join(join.into_target()?), json)).await,
        Command::DiscoverPools { timeout } => discover::run(&loaded?.settings, timeout, json).await,
        Command::Ask(command) => obey(command, &reach(admin, admin_token, loaded?.settings.data)?, json).await,
        Command::Doctor => doctor::run(loaded, json).await,
        Command::Bench(wish) => {
            let reach = reach(admin, admin_token, loaded?.settings.data);
            Box::pin(bench::run(reach, wish, json)).await
        }
        Command::Config { print: _ } => {
            print::config(&loaded?.origins, json);
            Ok(())
        }
        Command::AdminToken => {
            let found = AdminToken::read(&loaded?.settings.data);
            let hint = "admin token: a peer makes it when it starts (--data names its directory)";
            print::admin_token(&found.map_err(failed(hint))?, json);
            Ok(())
        }
        Command::Completions { shell } => {
            print::completions(shell);
            Ok(())
        }
        Command::Man { dir } => print::manual(&dir, json),
    }
}

/// The commands that a running peer carries out.
async fn obey(command: Ask, reach: &Reach, json: bool) -> Result<(), CliError> {
    match command {
        Ask::Invite { expires } => ask::invite(reach, expires.0, json).await,
        Ask::Approve(who) => ask::approve(reach, who.peer_id, json).await,
        Ask::Refuse(who) => ask::refuse(reach, who.peer_id, json).await,
        Ask::ListMembers => ask::members(reach, json).await,
        Ask::Evict { peer, reason, yes } => ask::evict(reach, peer, reason, yes, json).await,
        Ask::Leave { force, yes } => ask::leave(reach, force, yes, json).await,
        Ask::Pool(args::Pool::Recover { i_accept_data_loss }) => ask::recover(reach, i_accept_data_loss, json).await,
        Ask::Drain { undo } => task::drain(reach, undo, json).await,
        Ask::Status { durability: true, watch: _ } => status::durability(reach, json).await,
        Ask::Status { durability: false, watch: true } => status::watch(reach, json).await,
        Ask::Status { durability: false, watch: false } => status::once(reach, json).await,
        Ask::Repair(DryRun { dry_run }) => task::run(reach, Task::Repair, dry_run, json).await,
        Ask::Scrub(DryRun { dry_run }) => task::run(reach, Task::Scrub, dry_run, json).await,
        Ask::Rebalance(DryRun { dry_run }) => task::run(reach, Task::Rebalance, dry_run, json).await,
        Ask::Gc(DryRun { dry_run }) => task::run(reach, Task::Gc, dry_run, json).await,
        Ask::Bucket(args::Bucket::Quota { bucket, bytes, objects, none }) => {
            let quota = Quota { bytes: bytes.map(|size| size.0), objects };
            let quota = (none || quota != Quota::default()).then_some(quota);
            ask::quota(reach, bucket, quota, json).await
        }
        Ask::Backend(wish) => backend::run(reach, wish, json).await,
        Ask::Key(key) => identity::key(reach, key, json).await,
        Ask::Role(role) => identity::role(reach, role, json).await,
    }
}
