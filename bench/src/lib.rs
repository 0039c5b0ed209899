//! # s3-bench: a lean load generator for any S3 server
//!
//! On a small machine the client's CPU is taken from the servers under test, so this one does little per request: each client keeps
//! one connection, bodies are made once and sent unsigned (`UNSIGNED-PAYLOAD`), answers are counted and thrown away.
//!
//! Read in this order: [`arguments`] is what can be asked, [`load`] plans and runs, [`http`] is one connection, [`sign`] is Signature Version 4, [`report`] counts.

pub mod arguments;
pub mod http;
pub mod load;
pub mod report;
pub mod sign;

pub use arguments::Arguments;
