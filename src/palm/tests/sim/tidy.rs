//! What should be on the disks when all is quiet: the fragments that objects in the ledger are made of, where it says that they
//! are, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use palm::pool::ledger::Item;
use palm::pool::{Current, Ledger, LedgerError};
use palm_core::id::{BodyId, FragmentId, PeerId, SegmentId};
use palm_core::record::{
    Content, FragmentRecord, HeadRecord, MovedRecord, ObjectRecord, PageRecord, PartRecord, Segment, Stored, key,
};
use palm_core::wire::ScanQuery;

use crate::client::BUCKET;
use crate::disk::Disk;

/// What the ledger says of the disks.
pub struct Expectation {
    /// Fragments that must be there, and where.
    fragments: BTreeSet<(PeerId, FragmentId)>,
    /// Uploads nobody has ended: whatever is of them may be there.
    uploads: BTreeSet<BodyId>,
}

/// What the ledger says now.
pub async fn expectation(ledger: &Ledger) -> Result<Expectation, LedgerError> {
    let mut moved: BTreeMap<SegmentId, Segment> = BTreeMap::new();
    for (_, current) in all(ledger, key::all_moved()).await? {
        let MovedRecord { segment, .. } = MovedRecord::decode(&current.value).unwrap();
        moved.insert(segment.id, segment);
    }
    let mut segments: Vec<Segment> = Vec::new();
    for object in versions(ledger).await? {
        match object.content {
            Content::Segments(of_body) => segments.extend(of_body),
            Content::Parts(parts) => {
                for part in parts {
                    let part = ledger.read(&key::part(object.body, part.number, part.attempt)).await?;
                    segments.extend(PartRecord::decode(&part.unwrap().value).unwrap().segments);
                }
            }
        }
    }
    let prefix = key::uploads(BUCKET);
    let uploads = all(ledger, prefix.clone()).await?;
    Ok(Expectation {
        fragments: segments
            .into_iter()
            // Copies share segments.
            .map(|segment| moved.get(&segment.id).cloned().unwrap_or(segment))
            .flat_map(|segment| segment.fragments)
            .map(|placed| (placed.home, placed.id))
            .collect(),
        uploads: uploads.iter().map(|(register, _)| key::parse_upload(&register[prefix.len()..]).unwrap().1).collect(),
    })
}

/// Every version that a head names.
async fn versions(ledger: &Ledger) -> Result<Vec<ObjectRecord>, LedgerError> {
    let mut found = Vec::new();
    for (at, current) in all(ledger, key::objects(BUCKET)).await? {
        let head = HeadRecord::of(&current).unwrap();
        found.extend(head.null_object().map(|(_, object)| object.clone()));
        let mut lines = head.recent;
        for page in head.pages {
            let page = ledger.read(&key::page(&at, page.id)).await?;
            lines.extend(page.into_iter().flat_map(|page| PageRecord::decode(&page.value).unwrap().lines));
        }
        for line in lines {
            let version = ledger.read(&key::version(&at, line.id)).await?;
            found.extend(version.map(|version| ObjectRecord::decode(&version.value).unwrap()));
        }
    }
    Ok(found)
}

async fn all(ledger: &Ledger, prefix: Bytes) -> Result<Vec<(Bytes, Current)>, LedgerError> {
    let mut found = Vec::new();
    let mut start = Some(prefix.clone());
    while let Some(from) = start {
        let page = ledger.scan(ScanQuery { prefix: prefix.clone(), start: from, delimiter: None, limit: 100 }).await?;
        found.extend(page.items.into_iter().filter_map(|item| match item {
            Item::Register(register, current) => Some((register, current)),
            Item::Group(_) => None,
        }));
        start = page.next;
    }
    Ok(found)
}

impl Expectation {
    /// In what a machine's disk differs. A fragment whose note a power loss took is not there: it is stored anew where it is
    /// wanted, and reported by scrubbing where it is not. What `waits` in the trash is where it should be.
    pub fn compare(&self, peer: PeerId, disk: &Disk, waits: impl Fn(&FragmentRecord) -> bool) -> Option<String> {
        let notes = disk.notes();
        let here: BTreeSet<FragmentId> =
            self.fragments.iter().filter(|(home, _)| *home == peer).map(|(_, id)| *id).collect();
        let missing: Vec<_> = here.iter().filter(|id| !notes.contains_key(id)).collect();
        let surplus: Vec<_> = notes
            .iter()
            .filter(|(id, note)| !here.contains(id) && !self.uploads.contains(&note.body) && !waits(note))
            .collect();
        let first = surplus.first().map(|(id, note)| format!("{id} of body {}", note.body));
        let untidy = !missing.is_empty() || !surplus.is_empty();
        untidy.then(|| format!("{} missing {:?}, {} surplus {first:?}", missing.len(), missing.first(), surplus.len()))
    }
}
