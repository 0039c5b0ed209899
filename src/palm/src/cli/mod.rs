//! The command line: what can be said, and what it leads to.
//!
//! [`args`] is the grammar, [`peer`] runs a peer, [`ask`] are the commands to a running one ([`confirm`]: some ask back; [`task`]: some
//! take long; [`identity`]: keys and roles), [`discover`] looks around.
//! Results go to stdout (one line of JSON each with `--json`), logs to stderr. Exit codes: 0 done, 1 failed, 2 wrong
//! usage or settings.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod ask;
mod backend;
mod confirm;
mod data_dir;
mod discover;
mod identity;
mod logging;
mod peer;
mod print;
mod task;

use args::{Args, Command, DryRun};

use crate::admin::api::{Quota, Task};
use crate::admin::client::AskError;
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
    let mut loaded = config::load(args.config.as_deref(), std::env::vars(), args.given())?;
    if let Some(port) = args.port() {
        loaded.settings.quic.address.set_port(port);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed("the runtime cannot start"))?;
    let result = runtime.block_on(dispatch(args, loaded));
    // A blocking task (a name being resolved, say) must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn dispatch(args: Args, loaded: Loaded) -> Result<(), CliError> {
    let json = args.json;
    let settings = loaded.settings;
    match args.command {
        // A peer's future is large, and there is only one.
        Command::Serve(_) => Box::pin(peer::run(settings, peer::Start::Serve, json)).await,
        Command::CreatePool(_) => Box::pin(peer::run(settings, peer::Start::Create, json)).await,
        Command::JoinPool(join) => Box::pin(peer::run(settings, peer::Start::Join(join.into_target()?), json)).await,
        Command::DiscoverPools { timeout } => discover::run(&settings, timeout, json).await,
        Command::Invite { expires } => ask::invite(&settings.data, expires.0, json).await,
        Command::Approve { peer_id, all: _ } => ask::approve(&settings.data, peer_id, json).await,
        Command::ListMembers => ask::members(&settings.data, json).await,
        Command::Evict { peer, reason, yes } => ask::evict(&settings.data, peer, reason, yes, json).await,
        Command::Leave { force, yes } => ask::leave(&settings.data, force, yes, json).await,
        Command::Pool(args::Pool::Recover { i_accept_data_loss }) => {
            ask::recover(&settings.data, i_accept_data_loss, json).await
        }
        Command::Drain { undo } => task::drain(&settings.data, undo, json).await,
        Command::Status { durability: false } => ask::status(&settings.data, json).await,
        Command::Status { durability: true } => ask::durability(&settings.data, json).await,
        Command::Repair(DryRun { dry_run }) => task::run(&settings.data, Task::Repair, dry_run, json).await,
        Command::Scrub => task::run(&settings.data, Task::Scrub, false, json).await,
        Command::Rebalance(DryRun { dry_run }) => task::run(&settings.data, Task::Rebalance, dry_run, json).await,
        Command::Gc(DryRun { dry_run }) => task::run(&settings.data, Task::Gc, dry_run, json).await,
        Command::Bucket(args::Bucket::Quota { bucket, bytes, objects, none }) => {
            let quota = Quota { bytes: bytes.map(|size| size.0), objects };
            let quota = (none || quota != Quota::default()).then_some(quota);
            ask::quota(&settings.data, bucket, quota, json).await
        }
        Command::Backend(wish) => backend::run(&settings.data, wish, json).await,
        Command::Key(key) => identity::key(&settings.data, key, json).await,
        Command::Role(role) => identity::role(&settings.data, role, json).await,
        Command::Config { print: _ } => {
            print::config(&loaded.origins, json);
            Ok(())
        }
    }
}
