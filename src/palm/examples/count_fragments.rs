//! What is really on the disks of a pool: `count_fragments PEER_ID=DATA_DIR[,FRAGMENTS_DIR…] …`, with the peers stopped.
//!
//! Reads the newest copy of every record over all the indexes given, works out where each fragment should be, then
//! reads and hashes every one of them. One line of JSON says what it found. Nothing here asks PALM: this is what
//! repair, scrub and collection are judged by, so it shares with them only the byte formats (`docs/format.md`).
//!
//! A peer whose directory is not given has lost everything. Without `FRAGMENTS_DIR` the fragments are in `DATA_DIR/fragments`.
//! Pools of local consistency keep their records elsewhere and are not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Parser;
use palm_backends::disk::{DiskFragments, DiskIndex, DiskOptions};
use palm_backends::{FragmentStore, IndexStore, Next, Space, StoreError};
use palm_core::code::{Coder, Shape};
use palm_core::hlc::Ballot;
use palm_core::id::{BodyId, FragmentId, PeerId, SegmentId};
use palm_core::place::Policy;
use palm_core::record::{Content, HeadRecord, MovedRecord, ObjectRecord, PartRecord, Placed, Segment, Stored, key};
use palm_core::register::{Accepted, Current};
use serde::Serialize;
use serde_json::json;

/// Wrong fragments listed; all are counted.
const MAX_WRONG: usize = 100;
/// Fragments of one page of a listing.
const PAGE: usize = 4_096;

/// Counts and verifies the fragments in the directories of stopped peers
#[derive(Debug, Parser)]
struct Arguments {
    /// Where each segment is, as a line of JSON in this file
    #[arg(long, value_name = "FILE")]
    placements: Option<PathBuf>,
    /// A peer, its data directory and, where they are elsewhere, the directories of its fragments
    #[arg(required = true, value_name = "PEER_ID=DATA_DIR[,FRAGMENTS_DIR...]")]
    peers: Vec<PeerDirs>,
}

/// Where a peer keeps things.
#[derive(Debug, Clone)]
struct PeerDirs {
    peer: PeerId,
    data: PathBuf,
    fragments: Vec<PathBuf>,
}

impl FromStr for PeerDirs {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (peer, dirs) = text.split_once('=').context("expected PEER_ID=DATA_DIR")?;
        let mut dirs = dirs.split(',').map(PathBuf::from);
        let data = dirs.next().unwrap_or_default();
        let mut fragments: Vec<PathBuf> = dirs.collect();
        if fragments.is_empty() {
            fragments.push(data.join("fragments"));
        }
        Ok(Self { peer: peer.parse()?, data, fragments })
    }
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Objects; copies that share a body are several.
    objects: u64,
    /// Segments of objects and of open uploads, each once.
    segments: u64,
    /// Their plaintext.
    plaintext_bytes: u64,
    /// Segments by policy, then by how many of their fragments are where they should be and hash to their names.
    verified: BTreeMap<String, BTreeMap<usize, Tally>>,
    /// Fragments that are not, the first [`MAX_WRONG`].
    wrong: Vec<Wrong>,
    /// All of them.
    wrong_total: u64,
    /// Segments whose fragments hash to their names and are not of one code: some were made of wrong bytes.
    incoherent: Vec<String>,
    /// Bytes of n fragments of each segment.
    expected_bytes: u64,
    /// Bytes of the fragments verified.
    verified_bytes: u64,
    /// The most fragments that one segment has in one store.
    most_in_one_store: usize,
    /// Every directory of fragments.
    stores: Vec<StoreReport>,
}

/// Some segments.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Tally {
    segments: u64,
    /// Bytes of one fragment of each: what losing one costs.
    fragment_bytes: u64,
}

/// A fragment that is not as it should be.
#[derive(Debug, Serialize)]
struct Wrong {
    segment: String,
    index: u8,
    home: String,
    fragment: String,
    found: &'static str,
}

/// What one directory holds.
#[derive(Debug, Serialize)]
struct StoreReport {
    peer: String,
    dir: PathBuf,
    fragments: u64,
    bytes: u64,
    /// Those that no segment has here.
    surplus_fragments: u64,
    surplus_bytes: u64,
}

/// A directory of fragments, open.
struct Disk {
    peer: PeerId,
    dir: PathBuf,
    store: Arc<dyn FragmentStore>,
}

/// The newest copy of each register of the data, tombstones left out.
type Registers = BTreeMap<Bytes, Bytes>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut placements: Box<dyn Write> = match &arguments.placements {
        Some(path) => Box::new(BufWriter::new(File::create(path)?)),
        None => Box::new(io::sink()),
    };
    let report = count(&arguments.peers, &mut placements).await?;
    placements.flush()?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn count(peers: &[PeerDirs], placements: &mut dyn Write) -> anyhow::Result<Report> {
    let registers = newest(peers)?;
    let (objects, segments) = live(&registers)?;
    let disks = open_disks(peers)?;
    let mut report = Report { objects, ..Report::default() };
    let mut placed: BTreeSet<(PeerId, FragmentId)> = BTreeSet::new();
    for segment in segments.values() {
        placed.extend(segment.fragments.iter().map(|fragment| (fragment.home, fragment.id)));
        report.add(segment, &disks).await?;
        writeln!(placements, "{}", json(segment))?;
    }
    for disk in &disks {
        report.stores.push(survey(disk, &mut placed).await?);
    }
    Ok(report)
}

/// A segment and its homes, for those who mean to do it harm.
fn json(segment: &Segment) -> serde_json::Value {
    let fragments = segment.fragments.iter();
    let fragments = fragments.map(|placed| json!({ "home": placed.home.to_string(), "id": placed.id.to_string() }));
    json!({ "id": segment.id.to_string(), "k": segment.k, "n": segment.n, "fragments": fragments.collect::<Vec<_>>() })
}

/// Opens a directory only if it is there: counting must not make what it looks for.
fn existing(dir: &Path) -> anyhow::Result<&Path> {
    if !dir.is_dir() {
        bail!("no directory {}", dir.display());
    }
    Ok(dir)
}

/// The newest copy of each record over all indexes: the highest ballot wins, as in the ledger.
fn newest(peers: &[PeerDirs]) -> anyhow::Result<Registers> {
    let mut newest: BTreeMap<Bytes, Accepted> = BTreeMap::new();
    for peer in peers {
        let index = DiskIndex::open(existing(&peer.data.join("index"))?)
            .with_context(|| format!("index of {}", peer.data.display()))?;
        for space in [Space::Accepted, Space::Followed] {
            let mut outcome = Ok(());
            index.scan(space, &[], &mut |key, value| {
                match Accepted::decode(value) {
                    Ok(found) if newest.get(key).is_none_or(|known| known.ballot < found.ballot) => {
                        newest.insert(Bytes::copy_from_slice(key), found);
                    }
                    Ok(_) => {}
                    Err(error) => outcome = Err(error),
                }
                if outcome.is_ok() { Next::Continue } else { Next::Stop }
            })?;
            outcome.with_context(|| format!("{} of {}", space.name(), peer.data.display()))?;
        }
    }
    Ok(newest.into_iter().filter_map(|(key, accepted)| Some((key, accepted.record.value?))).collect())
}

/// How many objects there are, and each of their segments and of those of open uploads as it is placed now.
fn live(registers: &Registers) -> anyhow::Result<(u64, BTreeMap<SegmentId, Segment>)> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut objects = 0;
    for object in versions(registers)? {
        objects += 1;
        match object.content {
            Content::Segments(whole) => segments.extend(whole),
            Content::Parts(parts) => {
                for part in parts {
                    let register = key::part(object.body, part.number, part.attempt);
                    let value = registers.get(&register).with_context(|| format!("{register:?} is missing"))?;
                    segments.extend(PartRecord::decode(value)?.segments);
                }
            }
        }
    }
    for (register, _) in family(registers, b"u") {
        // The upload's id is the text after the last NUL.
        let id = register.rsplit(|&byte| byte == 0).next().and_then(|id| std::str::from_utf8(id).ok());
        let upload: BodyId = id.unwrap_or_default().parse()?;
        let mut parts: BTreeMap<u16, &Bytes> = BTreeMap::new();
        // Attempts come in order: the last one of each number stays.
        for (register, value) in family(registers, &key::parts(upload)) {
            let (number, _) = key::parse_part(register).context("malformed part register")?;
            parts.insert(number, value);
        }
        for value in parts.into_values() {
            segments.extend(PartRecord::decode(value)?.segments);
        }
    }
    let mut placed = BTreeMap::new();
    for segment in segments {
        let now = match registers.get(&key::moved(segment.id)) {
            Some(moved) => MovedRecord::decode(moved)?.segment,
            None => segment,
        };
        placed.insert(now.id, now);
    }
    Ok((objects, placed))
}

/// All versions that are objects: null versions, which are in the heads, and those with ids.
fn versions(registers: &Registers) -> anyhow::Result<Vec<ObjectRecord>> {
    let mut found = Vec::new();
    for (register, value) in family(registers, &key::all_objects()) {
        let current = Current { version: Ballot::ZERO, value: value.clone() };
        let head = HeadRecord::of(&current).with_context(|| format!("{register:?}"))?;
        found.extend(head.null_object().map(|(_, object)| object.clone()));
    }
    for (register, value) in family(registers, &key::all_versions()) {
        found.push(ObjectRecord::decode(value).with_context(|| format!("{register:?}"))?);
    }
    Ok(found)
}

/// The registers whose keys begin with `prefix`.
fn family<'a>(registers: &'a Registers, prefix: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
    let from = Bytes::copy_from_slice(prefix);
    registers.range(from..).take_while(move |(key, _)| key.starts_with(prefix))
}

fn open_disks(peers: &[PeerDirs]) -> anyhow::Result<Vec<Disk>> {
    let dirs = peers.iter().flat_map(|peer| peer.fragments.iter().map(|dir| (peer.peer, dir)));
    dirs.map(|(peer, dir)| {
        let store = DiskFragments::open(existing(dir)?, DiskOptions::default())
            .with_context(|| format!("fragments in {}", dir.display()))?;
        Ok(Disk { peer, dir: dir.clone(), store: Arc::new(store) })
    })
    .collect()
}

impl Report {
    /// Reads and hashes the fragments of a segment.
    async fn add(&mut self, segment: &Segment, disks: &[Disk]) -> anyhow::Result<()> {
        let policy = Policy::new(segment.k, segment.n)?;
        let shape = Shape::new(policy, segment.len)?;
        let fragment_len = shape.fragment_len();
        let mut in_store: BTreeMap<&Path, usize> = BTreeMap::new();
        let mut found: BTreeMap<u8, Bytes> = BTreeMap::new();
        for fragment in &segment.fragments {
            match find(fragment, fragment_len, disks).await {
                Ok((dir, bytes)) => {
                    found.insert(fragment.index, bytes);
                    *in_store.entry(dir).or_default() += 1;
                }
                Err(found) => self.note(segment, fragment, found),
            }
        }
        if !coherent(shape, &found)? {
            self.incoherent.push(segment.id.to_string());
        }
        self.segments += 1;
        self.plaintext_bytes += segment.len;
        self.expected_bytes += fragment_len * u64::from(segment.n);
        self.verified_bytes += fragment_len * found.len() as u64;
        self.most_in_one_store = self.most_in_one_store.max(in_store.into_values().max().unwrap_or(0));
        let tally = self.verified.entry(policy.to_string()).or_default().entry(found.len()).or_default();
        tally.segments += 1;
        tally.fragment_bytes += fragment_len;
        Ok(())
    }

    fn note(&mut self, segment: &Segment, fragment: &Placed, found: &'static str) {
        self.wrong_total += 1;
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(Wrong {
                segment: segment.id.to_string(),
                index: fragment.index,
                home: fragment.home.to_string(),
                fragment: fragment.id.to_string(),
                found,
            });
        }
    }
}

/// Whether the fragments found are of one code: from the first k of them follow the others.
fn coherent(shape: Shape, found: &BTreeMap<u8, Bytes>) -> anyhow::Result<bool> {
    let (k, mut coder) = (usize::from(shape.policy().k), Coder::new(shape.policy())?);
    if found.len() <= k {
        return Ok(true);
    }
    let others: Vec<u8> = found.keys().skip(k).copied().collect();
    for stripe in 0..shape.stripes() {
        let range = shape.fragment_range(stripe..stripe + 1);
        let shard = |bytes: &Bytes| bytes.slice(range.start as usize..range.end as usize);
        let first: Vec<(u8, Bytes)> = found.iter().take(k).map(|(&index, bytes)| (index, shard(bytes))).collect();
        let follow = coder.rebuild(shape.stripe_len(stripe), &first, &others)?;
        if follow.iter().zip(&others).any(|(shard_that_follows, index)| *shard_that_follows != shard(&found[index])) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directory of its home that has the fragment, whole and right, and its bytes; or what was found instead.
async fn find<'a>(fragment: &Placed, len: u64, disks: &'a [Disk]) -> Result<(&'a Path, Bytes), &'static str> {
    let mut found = "home not given";
    for disk in disks.iter().filter(|disk| disk.peer == fragment.home) {
        match disk.store.get(fragment.id).await {
            Ok(bytes) if bytes.len() as u64 == len && FragmentId::of(&bytes) == fragment.id => {
                return Ok((&disk.dir, bytes));
            }
            Err(StoreError::NotFound(_)) if found == "corrupt" => {}
            Err(StoreError::NotFound(_)) => found = "missing",
            Ok(_) | Err(_) => found = "corrupt",
        }
    }
    Err(found)
}

/// What a directory holds. Takes what it finds out of `placed`: a second copy at the same home is surplus.
async fn survey(disk: &Disk, placed: &mut BTreeSet<(PeerId, FragmentId)>) -> anyhow::Result<StoreReport> {
    let (mut fragments, mut bytes, mut surplus_fragments, mut surplus_bytes) = (0, 0, 0, 0);
    let mut after = None;
    loop {
        let page = disk.store.list(after, PAGE).await.with_context(|| format!("listing {}", disk.dir.display()))?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for stat in page {
            fragments += 1;
            bytes += stat.len;
            if !placed.remove(&(disk.peer, stat.id)) {
                surplus_fragments += 1;
                surplus_bytes += stat.len;
            }
        }
    }
    let (peer, dir) = (disk.peer.to_string(), disk.dir.clone());
    Ok(StoreReport { peer, dir, fragments, bytes, surplus_fragments, surplus_bytes })
}

#[cfg(test)]
mod tests {
    use palm_backends::{Durability, Write as Change};
    use palm_core::hlc::Stamp;
    use palm_core::id::{KeyId, RequestId};
    use palm_core::record::{Attributes, Etag, Subresources};
    use palm_core::register::Record;

    use super::*;

    const LEN: u64 = 300_000;

    /// A pool of peers by hand: directories, each peer numbered from 0.
    struct Disks(tempfile::TempDir);

    impl Disks {
        fn peer(number: u8) -> PeerId {
            PeerId::from_bytes([number; 32])
        }

        fn dirs(&self, number: u8) -> PeerDirs {
            format!("{}={}", Self::peer(number), self.0.path().join(number.to_string()).display()).parse().unwrap()
        }

        fn make(&self, number: u8) -> PeerDirs {
            let dirs = self.dirs(number);
            std::fs::create_dir_all(dirs.data.join("index")).unwrap();
            std::fs::create_dir_all(&dirs.fragments[0]).unwrap();
            dirs
        }

        /// A fragment of a segment of [`LEN`] bytes under 1-of-2, stored at a peer.
        async fn store(&self, number: u8, index: u8, fill: u8) -> Placed {
            let len = Shape::new(Policy::new(1, 2).unwrap(), LEN).unwrap().fragment_len();
            let store = DiskFragments::open(&self.make(number).fragments[0], DiskOptions::default()).unwrap();
            let stat = store.put(vec![fill; len as usize].into()).await.unwrap();
            Placed { index, home: Self::peer(number), id: stat.id }
        }

        async fn accept(&self, number: u8, space: Space, millis: u64, register: Bytes, value: Option<Bytes>) {
            let ballot = Ballot { stamp: Stamp::from_millis(millis), ..Ballot::ZERO };
            let accepted = Accepted { ballot, record: Record::write(None, RequestId(millis), ballot, value) };
            let index = DiskIndex::open(&self.make(number).data.join("index")).unwrap();
            let write = Change::Put(space, register, accepted.encode());
            index.commit(vec![write], Durability::Buffered).await.unwrap();
        }

        async fn count(&self, numbers: &[u8]) -> Report {
            let dirs: Vec<PeerDirs> = numbers.iter().map(|&number| self.dirs(number)).collect();
            count(&dirs, &mut io::sink()).await.unwrap()
        }
    }

    fn segment(fragments: &[&Placed]) -> Segment {
        let fragments = fragments.iter().map(|&placed| placed.clone()).collect();
        Segment { id: SegmentId::from_bytes([9; 16]), len: LEN, k: 1, n: 2, fragments }
    }

    fn object(segment: Segment) -> Bytes {
        let record = ObjectRecord {
            size: LEN,
            etag: Etag { md5: [0; 16], parts: 0 },
            attributes: Attributes::default(),
            checksum: None,
            data_key: KeyId::from_bytes([1; 16]),
            body: BodyId::from_bytes([2; 16]),
            content: Content::Segments(vec![segment]),
            subresources: Subresources::default(),
            customer_key: None,
        };
        record.encode()
    }

    fn tally(report: &Report) -> Tally {
        Tally { segments: 1, fragment_bytes: report.expected_bytes / 2 }
    }

    /// One object 1-of-2 at peers 0 and 1, moved from 1 to 2 since; an older record of it lies at a follower, and a deleted
    /// object's record too. Expected: the newest placement counts, the fragment left behind at 1 is surplus, and damage,
    /// loss and the absence of a whole home are each told for what they are.
    #[tokio::test]
    async fn the_newest_placement_is_what_counts() {
        let disks = Disks(tempfile::tempdir().unwrap());
        // Under 1-of-2 the second fragment is the first: 7 at peer 2 makes two of a segment that are of no code.
        let (a, b, c) = (disks.store(0, 0, 1).await, disks.store(1, 1, 1).await, disks.store(2, 1, 7).await);
        let (register, gone) = (key::object("b", "k"), key::object("b", "gone"));
        disks.accept(0, Space::Followed, 1, register.clone(), Some(object(segment(&[&b])))).await;
        disks.accept(1, Space::Accepted, 2, register.clone(), Some(object(segment(&[&a, &b])))).await;
        disks.accept(0, Space::Followed, 1, gone.clone(), Some(object(segment(&[&b])))).await;
        disks.accept(1, Space::Accepted, 2, gone, None).await;
        disks.make(2);

        let report = disks.count(&[0, 1, 2]).await;
        assert_eq!((report.objects, report.segments, report.plaintext_bytes), (1, 1, LEN));
        assert_eq!(report.incoherent, Vec::<String>::new());
        let complete = BTreeMap::from([(2, tally(&report))]);
        assert_eq!(report.verified["1-of-2"], complete);
        assert_eq!((report.expected_bytes, report.most_in_one_store), (report.verified_bytes, 1));
        assert_eq!(report.stores.iter().map(|store| store.surplus_fragments).collect::<Vec<_>>(), [0, 0, 1]);

        let moved =
            MovedRecord { body: BodyId::from_bytes([2; 16]), object: register.to_vec(), segment: segment(&[&a, &c]) };
        disks.accept(2, Space::Accepted, 3, key::moved(moved.segment.id), Some(moved.encode())).await;
        let report = disks.count(&[0, 1, 2]).await;
        assert_eq!(report.verified["1-of-2"], complete);
        assert_eq!(report.stores.iter().map(|store| store.surplus_fragments).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(report.stores[1].surplus_bytes, report.expected_bytes / 2);
        assert_eq!(report.incoherent, [moved.segment.id.to_string()]);

        let file = disks.dirs(0).fragments[0].join("files").join(&a.id.to_string()[..2]).join(a.id.to_string());
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[77] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        std::fs::remove_dir_all(disks.dirs(2).fragments[0].join("files")).unwrap();
        let report = disks.count(&[0, 1, 2]).await;
        assert_eq!(report.verified["1-of-2"], BTreeMap::from([(0, tally(&report))]));
        assert_eq!(report.wrong.iter().map(|wrong| wrong.found).collect::<Vec<_>>(), ["corrupt", "missing"]);
        let report = disks.count(&[2]).await;
        assert_eq!((report.segments, report.objects), (0, 0), "the record was at the others");
        let report = disks.count(&[1, 2]).await;
        assert_eq!((report.wrong_total, report.wrong[0].found), (2, "home not given"));
    }

    #[test]
    fn a_peer_is_named_with_its_directories() {
        let peer = Disks::peer(7);
        let one: PeerDirs = format!("{peer}=/a").parse().unwrap();
        assert_eq!((one.peer, one.fragments), (peer, vec![PathBuf::from("/a/fragments")]));
        let two: PeerDirs = format!("{peer}=/a,/b,/c").parse().unwrap();
        assert_eq!((two.data, two.fragments), ("/a".into(), vec!["/b".into(), "/c".into()]));
        assert!("x=/a".parse::<PeerDirs>().is_err() && "/a".parse::<PeerDirs>().is_err());
    }
}
