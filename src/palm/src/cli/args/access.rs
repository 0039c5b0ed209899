//! Access keys, users and roles.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::Lasting;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
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
pub(in crate::cli) enum Policy {
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
pub(in crate::cli) struct Who {
    /// Name of the user
    #[arg(long, required_unless_present = "role")]
    pub(in crate::cli) user: Option<String>,
    /// Name of a role instead
    #[arg(long, conflicts_with = "user")]
    pub(in crate::cli) role: Option<String>,
    /// The account; without it the main one
    #[arg(long)]
    pub(in crate::cli) account: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Role {
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
