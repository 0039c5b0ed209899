//! What a voter says of ranges for LIST: pages, and registers whole.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use palm_backends::{IndexStore, Next, Space};
use palm_core::listing::{Go, PageBuilder};
use palm_core::record::{HeadRecord, Stored};
use palm_core::register::Accepted;
use palm_core::wire::{self, MAX_SCAN_ENTRIES, Response, ScanPage, ScanQuery};

use super::LedgerError;
use super::voter::{Voter, storage_failed};
use crate::blocking::spawn_blocking;

/// No fetch is answered with more registers than this.
pub(super) const MAX_FETCH_KEYS: usize = 512;

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

/// Which live registers a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    All,
    /// Heads of objects, but those that listings hide count as if they were not there.
    Objects,
}

impl Shows {
    /// Whether a live value is on the page.
    pub(super) fn shows(self, value: &[u8]) -> bool {
        self == Self::All || !HeadRecord::is_hidden(value)
    }
}

/// Builds a page from one space of the index; `keep` sees the stored bytes of every live key on it.
pub(super) fn build_page(
    index: &dyn IndexStore,
    space: Space,
    (query, shows): (&ScanQuery, Shows),
    mut keep: impl FnMut(&[u8], &[u8]) -> Result<(), LedgerError>,
) -> Result<ScanPage, LedgerError> {
    let mut builder = PageBuilder::new(query);
    let mut broken: Option<LedgerError> = None;
    index.scan(space, query.first(), &mut |key, value| {
        let visited = Accepted::head(value).map_err(LedgerError::from).and_then(|(ballot, held)| {
            let live = held.is_some_and(|held| shows.shows(held));
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
    spawn_blocking(work).await.unwrap_or_else(|error| Err(LedgerError::Storage(error.to_string())))
}

impl Voter {
    /// A page of this peer's own copy, whether it votes or follows.
    pub(super) async fn page(&self, query: ScanQuery, shows: Shows) -> Result<OwnPage, LedgerError> {
        let config = self.config();
        let (index, space) = (Arc::clone(self.index()), self.space());
        let mut own = blocking(move || {
            let mut records = HashMap::new();
            let page = build_page(index.as_ref(), space, (&query, shows), |key, value| {
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
    pub(super) async fn scan(
        &self,
        epoch: u64,
        mut query: ScanQuery,
        shows: Shows,
        expect: Option<[u8; 32]>,
    ) -> Response {
        if let Some(refusal) = self.refusal(&self.config(), epoch) {
            return refusal;
        }
        query.limit = query.limit.min(MAX_SCAN_ENTRIES);
        let index = Arc::clone(self.index());
        let page = move || build_page(index.as_ref(), Space::Accepted, (&query, shows), |_, _| Ok(()));
        let page = blocking(page).await;
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
}
