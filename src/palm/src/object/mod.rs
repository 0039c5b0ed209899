//! The object layer: buckets, objects and uploads over the ledger and the homes. It never sees s3s.
//!
//! Everything is a method of [`Store`]. A good order to read:
//!
//! - `store`: what a store is made of; keys, ids, bodies in flight.
//! - `put`: a body is cut (`body`), hashed (`digest`), sealed and sent. One stripe goes the short way
//!   (`whole`), longer bodies stream segment by segment (`write`); `draft` cleans up after failures,
//!   `rebuild` makes up for homes that fail under way, `homes` speaks to them.
//! - `commit`: the update that makes it visible, as the null version or a new one; `head`: how versions are read and changed;
//!   `moves`: how their lines go to pages and back; `versions`: how they are listed.
//! - `get`: stripes of the range, each from the quickest k homes (`fetch`), and from others where it does not
//!   open (`recover`).
//! - `customer`: keys that clients keep.
//! - `bucket`, `delete`, `list`, `copy`, `multipart`, `complete`: the other operations, each with its
//!   races explained at its top.
//! - `identity`: whose an access key is.
//! - `home`: what this peer does as a home; `scrub`: how it finds rot; `collect`: how garbage goes.
//! - `emptying`: how a backend goes that is to be removed.
//! - `placement`: where segments are now; `repair`: how they are made whole again; `audit`: who counts them and finds what
//!   needs it.
//! - `chores`: what happens without a client waiting: `lifecycle`, `events`, `access_log`, `quota`.
//!
//! Every change of state is one ledger update. What an operation checks (conditions, the upload's state) is
//! checked inside it; what spans two registers (an object and its bucket, a body and its sharers) is kept right by
//! the order of writes and reads, written down where it matters.

mod access_log;
mod audit;
mod body;
mod bucket;
mod budget;
mod chores;
mod collect;
mod commit;
mod complete;
mod conditions;
mod copy;
mod customer;
mod delete;
mod digest;
mod draft;
mod emptying;
mod error;
mod events;
mod fetch;
mod get;
mod head;
mod home;
mod homes;
mod identity;
mod lifecycle;
mod list;
mod moves;
mod multipart;
mod placement;
mod put;
mod quota;
mod rebuild;
mod recover;
mod repair;
mod scrub;
mod store;
mod suspects;
mod versions;
mod whole;
mod write;

pub use access_log::LogLine;
pub use audit::{Findings, Level, PoolHealth};
pub use body::{BodyError, ByteStream, Incoming, MAX_BODY_BYTES, Rejection, Verify};
pub use chores::ChoreSettings;
pub use collect::{Amount, Because, CollectSettings, GcReport};
pub use complete::{CompletedPart, Completion};
pub use conditions::WriteConditions;
pub use customer::{CLIENT_KEY_BYTES, Cipher, ClientKey};
pub use delete::{Deleted, Deletion};
pub use digest::{Digested, Digests, whole_checksum};
pub use emptying::Stuck;
pub use error::ObjectError;
pub use events::{About, EVENTS_MAX, EventFigures, Notice, NotifyTarget};
pub use home::{Damaged, Home, HomeFigures};
pub use identity::Credentials;
pub use list::{ListPage, ListQuery, Listed, ListedObject, after_group, after_key};
pub use multipart::{MAX_PARTS, NewUpload, PartInfo};
pub use repair::{Figures as RepairFigures, RepairSettings};
pub use scrub::Scrubbed;
pub use store::{Counters, NewObject, Object, Store, StoreParts};
pub use versions::{ListedVersion, VersionsPage, VersionsQuery};
