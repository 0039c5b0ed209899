//! What is in the place: listings in order, and the count of all.

use std::sync::Arc;

use futures::TryStreamExt;
use opendal::{Entry, ErrorKind};
use palm_core::id::FragmentId;

use super::{Counters, FILES, PART, PARTS, Remote, SHARDS, path, store_error};
use crate::fragment::{FragmentStat, StoreError};

/// Entries asked for in one request at most; what S3 answers at most.
const PAGE: usize = 1000;
/// Characters of a temporary name before its ending.
const PART_DIGITS: usize = 16;

/// A folder as it was listed.
pub(super) struct Listed {
    shard: usize,
    /// Its [`Counters::changes`] before.
    changes: u64,
    /// In order.
    stats: Arc<[FragmentStat]>,
}

impl Remote {
    /// Up to `limit` fragments in order of id, after the one given.
    pub(super) async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        if self.service.ordered { self.list_ordered(after, limit).await } else { self.list_sharded(after, limit).await }
    }

    /// Of a service that lists by name, from any name on.
    async fn list_ordered(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let mut found = Vec::<FragmentStat>::new();
        self.walk(after, limit, |stat| {
            found.push(stat);
            found.len() < limit
        })
        .await?;
        Ok(found)
    }

    /// Visits fragments in order until `visit` says no.
    async fn walk(
        &self,
        after: Option<FragmentId>,
        expected: usize,
        mut visit: impl FnMut(FragmentStat) -> bool,
    ) -> Result<(), StoreError> {
        let lister = self.operator.lister_with(FILES).recursive(true).limit(expected.min(PAGE));
        let lister = match after {
            Some(after) => lister.start_after(&path(after)),
            None => lister,
        };
        let (mut lister, mut last) = (lister.await.map_err(|error| store_error(&error))?, after);
        while let Some(entry) = lister.try_next().await.map_err(|error| store_error(&error))? {
            let Some(stat) = stat_of(&entry) else { continue };
            if Some(stat.id) <= last {
                return Err(StoreError::Corrupt("the service lists out of order".to_owned()));
            }
            last = Some(stat.id);
            if !visit(stat) {
                break;
            }
        }
        Ok(())
    }

    /// Of one that lists a folder as it likes, and only as a whole: folder by folder, each put in order here. Holds the names of one
    /// folder, for the pages that follow.
    async fn list_sharded(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let first = after.map_or(0, |after| usize::from(after.as_bytes()[0]));
        let mut found = Vec::new();
        for shard in first..SHARDS {
            if self.counters.lock()[shard].fragments == 0 {
                continue;
            }
            let stats = self.shard_in_order(shard).await?;
            let rest = &stats[stats.partition_point(|stat| Some(stat.id) <= after)..];
            found.extend_from_slice(&rest[..rest.len().min(limit - found.len())]);
            if found.len() == limit {
                break;
            }
            // Others may change what is here: nobody is told of it for longer than one walk through the folder.
            self.listed.lock().take();
        }
        Ok(found)
    }

    async fn shard_in_order(&self, shard: usize) -> Result<Arc<[FragmentStat]>, StoreError> {
        let changes = self.counters.lock()[shard].changes;
        if let Some(listed) = &*self.listed.lock()
            && (listed.shard, listed.changes) == (shard, changes)
        {
            return Ok(listed.stats.clone());
        }
        let mut stats = self.shard(shard).await?;
        stats.sort_unstable_by_key(|stat| stat.id);
        let stats: Arc<[FragmentStat]> = stats.into();
        *self.listed.lock() = Some(Listed { shard, changes, stats: stats.clone() });
        Ok(stats)
    }

    async fn shard(&self, shard: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let entries = self.entries(&format!("{FILES}{shard:02x}/")).await?;
        Ok(entries.iter().filter_map(stat_of).collect())
    }

    /// Of one folder; of one that is not there, none.
    async fn entries(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        match self.operator.list(folder).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.map_err(|error| store_error(&error)),
        }
    }

    /// What is there, by first byte of the id.
    pub(super) async fn count_all(&self) -> Result<Vec<Counters>, StoreError> {
        let mut counters = vec![Counters::default(); SHARDS];
        let mut count = |stat: &FragmentStat| counters[usize::from(stat.id.as_bytes()[0])].count(None, Some(stat.len));
        if self.service.ordered {
            self.walk(None, PAGE, |stat| {
                count(&stat);
                true
            })
            .await?;
        } else {
            for folder in self.entries(FILES).await? {
                let shard = u8::from_str_radix(folder.name().trim_end_matches('/'), 16);
                if let Ok(shard) = shard {
                    self.shard(usize::from(shard)).await?.iter().for_each(&mut count);
                }
            }
        }
        Ok(counters)
    }

    /// Removes what an earlier run was writing; other names are none of ours.
    pub(super) async fn remove_parts(&self) -> Result<(), StoreError> {
        for entry in self.entries(PARTS).await? {
            let digits = entry.name().strip_suffix(PART).unwrap_or_default();
            if digits.len() == PART_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                self.operator.delete(entry.path()).await.map_err(|error| store_error(&error))?;
            }
        }
        Ok(())
    }
}

/// The fragment that an entry is; `None` for folders and names that are not ours.
fn stat_of(entry: &Entry) -> Option<FragmentStat> {
    let id: FragmentId = entry.name().parse().ok()?;
    (entry.metadata().is_file() && entry.path() == path(id))
        .then(|| FragmentStat { id, len: entry.metadata().content_length() })
}
