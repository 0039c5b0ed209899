//! Every message between peers, with its bounds.
//!
//! A frame is a `u32` length (little-endian, at most [`MAX_FRAME_BYTES`]) and that many bytes: one protocol
//! version byte and postcard. Fragment bodies travel outside frames, on the same QUIC stream after them.
//! Golden bytes of every message are kept in the tests; `docs/format.md` has the tables.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hlc::{Ballot, Stamp};
use crate::id::{BodyId, FragmentId, PeerId, PoolId, SegmentId};
use crate::reconcile::PairHash;
use crate::record::{DecodeError, MemberState, decode_exact};
use crate::register::{Accepted, Config, Record};
use crate::repair::Health;

#[cfg(test)]
mod tests;

/// No frame is longer. Sized for the largest record (an object of 10,000 parts is 0.8 MiB) and a batch.
pub const MAX_FRAME_BYTES: usize = 8 << 20;
/// No batch holds more calls.
pub const MAX_BATCH_CALLS: usize = 512;
/// No scan answers with more entries than this.
pub const MAX_SCAN_ENTRIES: u32 = 5_000;
/// Fragments up to this travel inside frames ([`Request::PutSmall`], [`Request::GetSmall`]).
pub const MAX_SMALL_FRAGMENT_BYTES: usize = 64 << 10;
/// No message names more tombstones: with the longest keys a frame still holds them.
pub const MAX_TOMBSTONES: usize = 1_024;
/// Register keys are not longer: a family byte, a bucket (63), a key (1024), an upload id, separators.
pub const MAX_KEY_BYTES: usize = 1200;
/// No question whether ranges are confirmed holds more of them.
pub const MAX_CONFIRM_RANGES: usize = 4_096;
/// No question after fragments names more of them.
pub const MAX_CHECK_IDS: usize = 1_024;
/// The version byte of every frame.
pub const WIRE_VERSION: u8 = 1;

/// One page of an ordered range of registers, as LIST needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScanQuery {
    /// Every register key answered starts with it.
    pub prefix: Bytes,
    /// The first register key of interest (inclusive). Below `prefix` means from its start.
    pub start: Bytes,
    /// Keys that hold this after `prefix` (and before the first NUL there) are answered as one group.
    pub delimiter: Option<Bytes>,
    /// The page ends after this many live keys and groups.
    pub limit: u32,
}

/// One register, or a group of them, on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanEntry {
    /// The register key. In a group it is the first live key, the witness that the group exists.
    pub key: Bytes,
    /// Its accepted ballot.
    pub ballot: Ballot,
    /// `false` for a tombstone: it does not count towards the limit, but voters must agree on it.
    pub live: bool,
    /// For a group: how many bytes of `key` are the group's common prefix.
    pub group: Option<u32>,
}

/// A page of registers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScanPage {
    /// In key order.
    pub entries: Vec<ScanEntry>,
    /// Where the next page starts (inclusive); `None` when the range is exhausted.
    pub next: Option<Bytes>,
}

/// What a frame between members holds. A type of its own, so that batches cannot hold batches: decoding a
/// deep nest would recurse as far as a peer likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame<T> {
    /// One message.
    One(T),
    /// Several requests, or the answers to them in the same order; at most [`MAX_BATCH_CALLS`].
    Batch(Vec<T>),
}

/// What a member asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there, and in which epoch?
    Ping,

    /// Phase 1 of an update.
    Prepare {
        /// Epoch of the proposer's configuration.
        epoch: u64,
        /// Register key.
        key: Bytes,
        /// The proposer's ballot.
        ballot: Ballot,
    },
    /// Phase 2 of an update.
    Accept {
        /// Epoch of the proposer's configuration; the same as in phase 1 (R8).
        epoch: u64,
        /// Register key.
        key: Bytes,
        /// The ballot promised.
        ballot: Ballot,
        /// What to accept.
        record: Record,
    },
    /// Which ballot have you accepted for this key? The record comes along where it is not the one the
    /// asker has.
    Read {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// Register key.
        key: Bytes,
        /// The ballot of the asker's own copy.
        have: Option<Ballot>,
    },
    /// A page of registers; answered [`Response::SamePage`] when its hash is `expect`.
    Scan {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// The page.
        query: ScanQuery,
        /// Hash of the asker's own page.
        expect: Option<[u8; 32]>,
    },
    /// A record was chosen: for learners, best effort. Of a local pool's data: it was written at the sender.
    Learn {
        /// Register key.
        key: Bytes,
        /// What was chosen.
        accepted: Accepted,
    },
    /// The newest configuration you have adopted.
    GetConfig,
    /// Adopt this configuration; the sender has seen it chosen (R8), or recovers a lost majority by it.
    AdoptConfig(Config),
    /// Anti-entropy: compare fingerprints of ranges.
    Compare {
        /// First key of the range (inclusive).
        from: Bytes,
        /// End of the range (exclusive); `None` to the end.
        to: Option<Bytes>,
        /// The asker's fingerprint of it.
        fingerprint: [u8; 32],
    },
    /// The registers of these keys, whole.
    Fetch {
        /// Register keys.
        keys: Vec<Bytes>,
    },

    /// Store a fragment; its bytes follow the frame until the stream's end. Answered
    /// [`Response::Stored`] once durable.
    PutFragment(FragmentOrigin),
    /// Store a small fragment, its bytes in the frame.
    PutSmall {
        /// Where it comes from.
        origin: FragmentOrigin,
        /// At most [`MAX_SMALL_FRAGMENT_BYTES`].
        bytes: Bytes,
    },
    /// Read a range of a fragment; answered [`Response::Fragment`] and the bytes after the frame.
    GetFragment {
        /// Which.
        id: FragmentId,
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Read a whole small fragment; answered [`Response::Small`].
    GetSmall {
        /// Which.
        id: FragmentId,
    },
    /// Forget fragments of an upload that failed before any record referred to them.
    DeleteFragments {
        /// Which.
        ids: Vec<FragmentId>,
    },
    /// Nothing I know of refers to this body any more: look whether its fragments can go.
    Release {
        /// Which body.
        body: BodyId,
    },
    /// Is an upload of this body still under way at your side?
    InFlight {
        /// Which body.
        body: BodyId,
    },

    /// R7: do you durably hold these tombstones, or something newer under their keys?
    HoldsTombstones {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// Register keys and accepted ballots; at most [`MAX_TOMBSTONES`].
        tombstones: Vec<(Bytes, Ballot)>,
    },
    /// R7: every voter holds these tombstones; forget those that you hold exactly.
    CollectTombstones {
        /// Epoch of the sender's configuration, in which all voters have confirmed.
        epoch: u64,
        /// Register keys and accepted ballots; at most [`MAX_TOMBSTONES`].
        tombstones: Vec<(Bytes, Ballot)>,
    },
    /// Your collection floors, one per range of key hashes.
    GetFloors {
        /// Epoch of the asker's configuration.
        epoch: u64,
    },
    /// R8 (5): take these collection floors where they are above yours.
    RaiseFloors {
        /// Epoch of the sender's configuration.
        epoch: u64,
        /// One per range of key hashes.
        floors: Vec<Ballot>,
    },

    /// A lost majority is being recovered: hand over the registers of your copy. Answered [`Response::Registers`] in
    /// key order, empty when there are no more.
    HandOver {
        /// Epoch of the standstill; in any other this is refused.
        epoch: u64,
        /// The first key of interest (inclusive).
        from: Bytes,
    },
    /// Anti-entropy: I hold these pairs of a range; send me the records I lack. Answered [`Response::Supplied`].
    Supply {
        /// First key of the range (inclusive).
        from: Bytes,
        /// End of the range (exclusive); `None` to the end.
        to: Option<Bytes>,
        /// The pairs the asker holds.
        have: Vec<PairHash>,
    },
    /// Have you, as a voter, accepted exactly this in each of these ranges? Answered [`Response::Confirmed`].
    Confirm {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// First key (inclusive), end (exclusive), and the fingerprint asked about.
        ranges: Vec<(Bytes, Option<Bytes>, [u8; 32])>,
    },
    /// Promise, for all keys at once, to take no ballot up to this stamp (R8 (4)); answered
    /// [`Response::Raised`].
    Raise {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// The new floor; an older one changes nothing.
        floor: Stamp,
    },
    /// Bring your copy level now; answered [`Response::Done`] when it is.
    CatchUp,

    /// [`Request::Compare`], of the copies of a local pool's data.
    CompareLocal {
        /// First key of the range (inclusive).
        from: Bytes,
        /// End of the range (exclusive); `None` to the end.
        to: Option<Bytes>,
        /// The asker's fingerprint of it.
        fingerprint: [u8; 32],
    },
    /// [`Request::Supply`], of the copies of a local pool's data.
    SupplyLocal {
        /// First key of the range (inclusive).
        from: Bytes,
        /// End of the range (exclusive); `None` to the end.
        to: Option<Bytes>,
        /// The pairs the asker holds.
        have: Vec<PairHash>,
    },

    /// Do you hold these fragments? Answered [`Response::Checked`].
    CheckFragments {
        /// Which; at most [`MAX_CHECK_IDS`].
        ids: Vec<FragmentId>,
        /// Read and hash each of them now, rather than say what was last known.
        verify: bool,
    },
    /// How are the objects that you count? Answered [`Response::Health`].
    GetHealth,
    /// Count them anew, now, and see to what they need. Answered [`Response::Done`] once counted.
    Audit,

    /// [`Request::Scan`] of heads of objects, where those whose current version is a delete marker count as not there.
    ScanObjects {
        /// Epoch of the asker's configuration.
        epoch: u64,
        /// What is asked.
        query: ScanQuery,
        /// Hash of the asker's own page.
        expect: Option<[u8; 32]>,
    },
}

/// What a home says of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FragmentState {
    /// It is there, and its bytes are right as far as was last known.
    Sound,
    /// It is not there, or cannot be read.
    Missing,
    /// It is there and holds other bytes than its name says.
    Corrupt,
}

/// What a home is told about a fragment it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentOrigin {
    /// Its segment.
    pub segment: SegmentId,
    /// Which of the n.
    pub index: u8,
    /// The body it belongs to.
    pub body: BodyId,
    /// Register key of the object the body is uploaded for.
    pub object: Bytes,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done; nothing to add.
    Done,
    /// Answer to [`Request::Ping`].
    Pong {
        /// Epoch of the answerer's configuration.
        epoch: u64,
    },
    /// A promise, with what was accepted before.
    Promised {
        /// The voter's accepted record.
        accepted: Option<Accepted>,
        /// The voter's collection floor for this key (R5, R7).
        floor: Ballot,
    },
    /// Accepted and durable.
    Accepted,
    /// Not promised or not accepted: the highest ballot that stood in the way.
    Nack {
        /// For the proposer to go above.
        highest: Ballot,
    },
    /// Answer to [`Request::Read`].
    Digest {
        /// The ballot accepted, if any.
        ballot: Option<Ballot>,
        /// The record, where the asker did not have that ballot.
        record: Option<Record>,
    },
    /// The page's hash is the one expected.
    SamePage,
    /// A page.
    Page(ScanPage),
    /// Refused: the epochs differ. The answerer's configuration, which it knows to be chosen.
    WrongEpoch(Config),
    /// A configuration.
    Config(Config),
    /// The range is the same here.
    SameRange,
    /// The range differs: fingerprints of its parts, each with its first key.
    Ranges(Vec<(Bytes, [u8; 32])>),
    /// The range differs and is small: all its keys and ballots.
    Keys(Vec<(Bytes, Ballot)>),
    /// Registers, whole; absent ones are left out.
    Registers(Vec<(Bytes, Accepted)>),
    /// A fragment is durable.
    Stored {
        /// BLAKE3 of what was stored.
        id: FragmentId,
        /// How many bytes.
        len: u64,
    },
    /// A fragment's bytes follow the frame.
    Fragment {
        /// Length of the whole fragment.
        total: u64,
    },
    /// A small fragment.
    Small(Bytes),
    /// Answer to [`Request::InFlight`].
    InFlight(bool),
    /// No such fragment.
    NotFound,
    /// Refused or failed; the text is for logs.
    Failed {
        /// What kind of failure.
        reason: Failure,
        /// For logs.
        detail: String,
    },
    /// Answer to [`Request::HoldsTombstones`], in its order.
    Holds(Vec<bool>),
    /// Collection floors, one per range of key hashes.
    Floors(Vec<Ballot>),
    /// Answer to [`Request::Supply`].
    Supplied {
        /// Registers the asker lacks, in key order.
        registers: Vec<(Bytes, Accepted)>,
        /// Where the rest of the range begins; `None` when it is answered whole.
        next: Option<Bytes>,
        /// How many registers the answerer has in that rest, about.
        left: u64,
        /// Without a rest: which of the asker's pairs, by their place in the question, the answerer does not hold.
        surplus: Vec<u32>,
    },
    /// Answer to [`Request::Confirm`], in its order.
    Confirmed(Vec<bool>),
    /// Answer to [`Request::Raise`]: the floor is in force.
    Raised {
        /// The voter has promised and accepted no ballot above this stamp.
        highest: Stamp,
    },
    /// Answer to [`Request::CheckFragments`], in its order.
    Checked(Vec<FragmentState>),
    /// Answer to [`Request::GetHealth`].
    Health(Box<Health>),
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No space left for it.
    Full,
    /// The disk failed or lied.
    Storage,
    /// The answerer is not a voter, or not ready.
    NotReady,
    /// The request makes no sense.
    Malformed,
}

/// What a peer that is not a member may say, on a connection of its own kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    /// Which pool are you, and prove it.
    Describe,
    /// Admit me.
    Join {
        /// Which pool.
        pool: PoolId,
        /// The secret of an invitation.
        token: Option<[u8; 32]>,
        /// What I call myself.
        name: String,
        /// Port I listen at; my address is the one you see me at.
        port: u16,
    },
    /// Members turn me away: am I one no more?
    Standing {
        /// Which pool.
        pool: PoolId,
    },
}

/// The answer to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinResponse {
    /// The pool, and the proof that this peer speaks for it.
    Pool {
        /// Which pool.
        id: PoolId,
        /// Its name.
        name: String,
        /// Members now.
        members: u16,
        /// Members at most.
        max_members: u16,
        /// The pool's Ed25519 public key; hashes to `id`.
        public_key: [u8; 32],
        /// Ed25519 signature of the pool key over `"palm member" || peer id`: 64 bytes.
        proof: Vec<u8>,
    },
    /// Admitted. Everything a member needs.
    Welcome(Box<Welcome>),
    /// Waiting for `palm approve`; ask again.
    Pending,
    /// Refused for good.
    Refused {
        /// Why, for the person at the other end.
        reason: String,
    },
    /// Answer to [`JoinRequest::Standing`], as far as the answerer knows.
    Standing {
        /// `None`: never heard of.
        state: Option<MemberState>,
        /// Why it was sent away.
        reason: String,
    },
}

/// What a new member is given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Seed of the pool's Ed25519 key.
    pub pool_seed: [u8; 32],
    /// Seals data keys and secrets.
    pub pool_key: [u8; 32],
    /// The voters.
    pub config: Config,
    /// Every member's id and addresses.
    pub members: Vec<(PeerId, Vec<String>)>,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome").field("config", &self.config).field("members", &self.members).finish_non_exhaustive()
    }
}

/// A message's frame body: version byte and postcard. The caller writes the length before it.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "messages are plain data: postcard can express them all")]
    postcard::to_extend(message, vec![WIRE_VERSION]).expect("messages are plain data")
}

/// Reads a frame body; all bytes must be used. Bounds lists by the bytes present, so a short frame cannot
/// ask for a large allocation.
pub fn decode<T: for<'de> Deserialize<'de>>(frame: &[u8]) -> Result<T, DecodeError> {
    match frame.split_first() {
        None => Err(DecodeError::Empty),
        Some((&WIRE_VERSION, rest)) => decode_exact("message", rest),
        Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: "message", version }),
    }
}
