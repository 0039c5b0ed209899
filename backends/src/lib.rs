//! # palm-backends: where fragments and the index are kept
//!
//! Two traits. A [`FragmentStore`] keeps immutable, content-addressed fragments; an [`IndexStore`] keeps
//! ordered keys with atomic batches. A backend knows neither peers nor buckets. Each backend is one module
//! and one cargo feature, opened by URL in [`open`]; all pass one suite, the feature `conformance`. A peer's fragment
//! stores together are its [`Backends`] ([`set`]).
//!
//! Reading order: [`fragment`] and [`index`] (the contracts), [`memory`] (the shortest implementation),
//! [`disk`] (the real one), `remote` (other stores, by `OpenDAL`), [`set`], `conformance`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod decorate;
#[cfg(feature = "disk")]
pub mod disk;
#[cfg(feature = "exec")]
pub mod exec;
pub mod fragment;
pub mod index;
#[cfg(feature = "memory")]
pub mod memory;
pub mod open;
pub mod reader;
#[cfg(feature = "_opendal")]
pub mod remote;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod set;

pub use fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
pub use index::{Durability, IndexStore, Next, Space, Strain, Write};
pub use open::OpenError;
pub use set::{Backend, BackendState, Backends};
