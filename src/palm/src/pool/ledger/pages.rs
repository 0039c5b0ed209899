//! What a voter says of ranges: pages for LIST, comparisons for catch-up, registers for both.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use palm_backends::{IndexStore, Next, Space};
use palm_core::hlc::Ballot;
use palm_core::listing::{Go, PageBuilder};
use palm_core::reconcile::{Answer, Fingerprint, answer};
use palm_core::record::Stored;
use palm_core::register::Accepted;
use palm_core::wire::{self, MAX_SCAN_ENTRIES, Response, ScanPage, ScanQuery};

use super::LedgerError;
use super::voter::{Voter, storage_failed};

/// No fetch is answered with more registers than this.
const MAX_FETCH_KEYS: usize = 512;

/// This peer's own page, with the records on it.
pub(super) struct OwnPage {
    pub(super) page: ScanPage,
    pub(super) hash: [u8; 32],
    /// The epoch in which it counts as a voter's page; `None` for a learner's.
    pub(super) epoch: Option<u64>,
    /// Live ones, by key.
    pub(super) records: HashMap<Bytes, Accepted>,
}

fn hash_of(page: &ScanPage) -> [u8; 32] {
    *blake3::hash(&wire::encode(page)).as_bytes()
}

/// Builds a page from one space of the index; `keep` sees the stored bytes of every live key on it.
fn build_page(
    index: &dyn IndexStore,
    space: Space,
    query: &ScanQuery,
    mut keep: impl FnMut(&[u8], &[u8]) -> Result<(), LedgerError>,
) -> Result<ScanPage, LedgerError> {
    let mut builder = PageBuilder::new(query);
    let mut broken: Option<LedgerError> = None;
    index.scan(space, query.first(), &mut |key, value| {
        let visited = Accepted::head(value).map_err(LedgerError::from).and_then(|(ballot, live)| {
            let (taken, go) = builder.visit(key, ballot, live);
            if taken && live && query.group_len(key).is_none() {
                keep(key, value)?;
            }
            Ok(go)
        });
        match visited {
            Ok(Go::On) => Next::Continue,
            Ok(Go::To(key)) => Next::Seek(key),
            Ok(Go::Stop) => Next::Stop,
            Err(error) => {
                broken = Some(error);
                Next::Stop
            }
        }
    })?;
    broken.map_or(Ok(builder.finish()), Err)
}

/// Runs a scan where it may take its time.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(LedgerError::Storage(error.to_string())))
}

impl Voter {
    /// A page of this peer's own copy, whether it votes or follows.
    pub(super) async fn page(&self, query: ScanQuery) -> Result<OwnPage, LedgerError> {
        let config = self.config();
        let (index, space) = (Arc::clone(self.index()), self.space());
        let mut own = blocking(move || {
            let mut records = HashMap::new();
            let page = build_page(index.as_ref(), space, &query, |key, value| {
                records.insert(Bytes::copy_from_slice(key), Accepted::decode(value)?);
                Ok(())
            })?;
            Ok(OwnPage { hash: hash_of(&page), page, records, epoch: None })
        })
        .await?;
        own.epoch = self.votes_in(config.epoch).then_some(config.epoch);
        Ok(own)
    }

    /// Answers another's question for a page.
    pub(super) async fn scan(&self, epoch: u64, mut query: ScanQuery, expect: Option<[u8; 32]>) -> Response {
        if let Some(refusal) = self.refusal(&self.config(), epoch) {
            return refusal;
        }
        query.limit = query.limit.min(MAX_SCAN_ENTRIES);
        let index = Arc::clone(self.index());
        let page = blocking(move || build_page(index.as_ref(), Space::Accepted, &query, |_, _| Ok(()))).await;
        match page {
            Ok(page) if expect == Some(hash_of(&page)) => Response::SamePage,
            Ok(page) => Response::Page(page),
            Err(error) => storage_failed(&error),
        }
    }

    /// The registers of some keys, whole.
    pub(super) fn fetch(&self, keys: &[Bytes]) -> Response {
        let found: Result<Vec<_>, LedgerError> = keys
            .iter()
            .take(MAX_FETCH_KEYS)
            .filter_map(|key| match self.copy(key) {
                Ok(copy) => copy.map(|accepted| Ok((key.clone(), accepted))),
                Err(error) => Some(Err(error)),
            })
            .collect();
        found.map_or_else(|error| storage_failed(&error), Response::Registers)
    }

    /// Keys and ballots of this peer's copy in a range.
    pub(super) async fn pairs(&self, from: Bytes, to: Option<Bytes>) -> Result<Vec<(Bytes, Ballot)>, LedgerError> {
        let (index, space) = (Arc::clone(self.index()), self.space());
        blocking(move || {
            let mut pairs = Vec::new();
            let mut broken = None;
            index.scan(space, &from, &mut |key, value| {
                if to.as_ref().is_some_and(|to| key >= &to[..]) {
                    return Next::Stop;
                }
                match Accepted::head(value) {
                    Ok((ballot, _)) => pairs.push((Bytes::copy_from_slice(key), ballot)),
                    Err(error) => {
                        broken = Some(error);
                        return Next::Stop;
                    }
                }
                Next::Continue
            })?;
            broken.map_or(Ok(pairs), |error| Err(error.into()))
        })
        .await
    }

    /// Fingerprint of everything, kept up to date once it has been computed.
    pub(super) async fn whole_digest(&self) -> Result<[u8; 32], LedgerError> {
        if let Some(sum) = self.with_sum(|sum| *sum) {
            return Ok(sum.digest());
        }
        // Changes during the walk may or may not be in it: then the next comparison finds a difference that is
        // none, and walks once more.
        let sum = Fingerprint::of(&self.pairs(Bytes::new(), None).await?);
        self.with_sum(|kept| *kept = Some(sum));
        Ok(sum.digest())
    }

    /// Forgets the kept fingerprint.
    pub(super) fn recount(&self) {
        self.with_sum(|sum| *sum = None);
    }

    /// Answers a comparison of ranges.
    pub(super) async fn compare(&self, from: Bytes, to: Option<Bytes>, digest: [u8; 32]) -> Response {
        let answered = async {
            if from.is_empty() && to.is_none() && self.whole_digest().await? == digest {
                return Ok(Response::SameRange);
            }
            let pairs = self.pairs(from.clone(), to).await?;
            Ok(match answer(&from, pairs, digest) {
                Answer::Same => Response::SameRange,
                Answer::Parts(parts) => Response::Ranges(parts),
                Answer::Pairs(pairs) => Response::Keys(pairs),
            })
        };
        answered.await.unwrap_or_else(|error: LedgerError| storage_failed(&error))
    }
}
