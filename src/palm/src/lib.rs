//! # palm: the peer
//!
//! The tokio shell around [`palm_core`]'s decisions. Dependencies run one way, and a test walks the walls:
//! `net <- pool <- object <- {s3, admin} <- cli <- main`.

pub mod admin;
mod blocking;
pub mod cli;
pub mod config;
pub mod net;
pub mod object;
pub mod pool;
pub mod s3;
