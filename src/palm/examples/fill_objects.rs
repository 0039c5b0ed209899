//! A million objects in seconds, for measuring listings: `fill_objects --bucket NAME --keys N --folders M DATA_DIR...`,
//! with the peers stopped.
//!
//! Writes the same registers into every index given, as if each peer had accepted them long ago: `folder/key`, each an
//! object of one segment in five fragments, as a PUT of a small object leaves it. The fragments do not exist, so the
//! peers must be started with a `repair.every` longer than the measurement.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use palm_backends::disk::DiskIndex;
use palm_backends::{Durability, IndexStore, Space, Write};
use palm_core::hlc::{Ballot, Stamp};
use palm_core::id::{BodyId, FragmentId, KeyId, PeerId, RequestId, SegmentId};
use palm_core::record::{
    Attributes, Content, Etag, HeadRecord, ObjectRecord, Placed, Segment, Stored, Subresources, key,
};
use palm_core::register::{Accepted, Record};
use palm_core::s3::version::{Kind, Null};

/// Objects of one commit.
const BATCH: u32 = 2_000;
/// When all of them were written, milliseconds since the Unix epoch: not ahead of any clock.
const WRITTEN_MS: u64 = 1_700_000_000_000;
const FRAGMENTS: u8 = 5;
const BYTES: u64 = 4_096;

/// Fills the indexes of stopped peers with objects that are only listed, never read
#[derive(Debug, Parser)]
struct Arguments {
    /// The bucket, which must exist
    #[arg(long)]
    bucket: String,
    /// How many objects
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// How many folders they are in
    #[arg(long, default_value_t = 100_000)]
    folders: u32,
    /// The data directories of all peers of the pool
    #[arg(required = true)]
    peers: Vec<PathBuf>,
}

fn object(number: u32) -> Accepted {
    let random = |salt: u8| *blake3::hash(&[&number.to_le_bytes()[..], &[salt]].concat()).as_bytes();
    let half = |salt: u8| -> [u8; 16] { std::array::from_fn(|at| random(salt)[at]) };
    let fragments = (0..FRAGMENTS).map(|index| Placed {
        index,
        home: PeerId::from_bytes(random(index)),
        id: FragmentId::from_bytes(random(index + FRAGMENTS)),
    });
    let segment =
        Segment { id: SegmentId::from_bytes(half(20)), len: BYTES, k: 3, n: FRAGMENTS, fragments: fragments.collect() };
    let record = ObjectRecord {
        size: BYTES,
        etag: Etag { md5: half(21), parts: 0 },
        attributes: Attributes { content_type: Some("text/plain".to_owned()), ..Attributes::default() },
        checksum: None,
        data_key: KeyId::from_bytes(half(22)),
        body: BodyId::from_bytes(half(23)),
        content: Content::Segments(vec![segment]),
        subresources: Subresources::default(),
        customer_key: None,
    };
    let stamp = Stamp::from_millis(WRITTEN_MS);
    let head = HeadRecord { null: Some(Null { stamp, kind: Kind::Object(record) }), ..HeadRecord::default() };
    let ballot = Ballot { stamp, peer: u64::from(FRAGMENTS), nonce: number };
    Accepted { ballot, record: Record::write(None, RequestId(number.into()), ballot, Some(head.encode())) }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { bucket, keys, folders, peers } = Arguments::parse();
    let each = keys.div_ceil(folders.max(1)).max(1);
    let name = |number: u32| key::object(&bucket, &format!("folder-{:06}/key-{number:08}", number / each));
    let indexes = peers.iter().map(|peer| {
        let dir = peer.join("index");
        DiskIndex::open(&dir).with_context(|| dir.display().to_string())
    });
    let indexes: Vec<DiskIndex> = indexes.collect::<anyhow::Result<_>>()?;
    for from in (0..keys).step_by(BATCH as usize) {
        let batch = (from..keys.min(from + BATCH))
            .map(|number| Write::Put(Space::Accepted, name(number), object(number).encode()));
        let batch: Vec<Write> = batch.collect();
        for index in &indexes {
            index.commit(batch.clone(), Durability::Buffered).await?;
        }
    }
    // A last one that is synced brings all before it to the disk.
    for index in &indexes {
        index.commit(vec![Write::Put(Space::Accepted, name(0), object(0).encode())], Durability::Synced).await?;
    }
    println!("{{\"keys\":{keys},\"folders\":{}}}", keys.div_ceil(each));
    Ok(())
}
