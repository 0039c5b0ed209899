//! Strong reads: one key in one round, and pages of them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use palm_core::hlc::Ballot;
use palm_core::id::PeerId;
use palm_core::listing::{Line, Merged, merge};
use palm_core::register::{Accepted, Heard, Reading, Record};
use palm_core::wire::{Request, Response, ScanPage, ScanQuery};
use tokio::time::{Instant, timeout_at};

use super::inquiry::Inquiry;
use super::pages::{OwnPage, Shows};
use super::{Current, Item, Ledger, LedgerError, Page, READ_DEADLINE, back_off};

/// Disputed keys of a page that are settled at the same time.
const SETTLE_AT_ONCE: usize = 16;
/// Records fetched from a voter in one request.
const FETCH_AT_ONCE: usize = 256;

/// How a round of questions ended.
enum Round<T> {
    /// A quorum agreed.
    Agreed(T),
    /// Every voter answered and no quorum agrees: consensus must settle it.
    Disputed,
    /// The epoch changed: ask again.
    EpochChanged,
    /// Too few answered.
    NoQuorum {
        /// How many more are needed.
        missing: usize,
    },
}

/// Pages of a quorum, and from whom each came.
type Pages<'a> = Vec<(PeerId, Cow<'a, ScanPage>)>;

impl Ledger {
    /// A linearizable read; `None` for absent and deleted alike.
    pub async fn read(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        if self.decides(key)? {
            return self.read_locally(key);
        }
        let began = Instant::now();
        self.0.measures.read.since(began, self.read_of_quorum(key).await)
    }

    async fn read_of_quorum(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut attempts = 0;
        loop {
            let missing = match self.read_round(key).await? {
                Round::Agreed(record) => return Ok(record.and_then(Current::of)),
                Round::Disputed => {
                    let settled = timeout_at(deadline, self.settle(key)).await;
                    return settled
                        .unwrap_or_else(|_| Err(self.no_quorum(1)))
                        .map(|record| record.and_then(Current::of));
                }
                Round::EpochChanged => 1,
                Round::NoQuorum { missing } => missing,
            };
            if Instant::now() >= deadline {
                return Err(self.no_quorum(missing));
            }
            attempts += 1;
            back_off(attempts + 3).await;
        }
    }

    /// Asks voters for the key's ballot until a quorum answers the same (or all none): then the record of that
    /// ballot is chosen, and nothing newer was before the round began. Taking the highest without agreement
    /// would not do (`docs/ledger.md`, Reads).
    async fn read_round(&self, key: &Bytes) -> Result<Round<Option<Record>>, LedgerError> {
        let config = self.config();
        let epoch = config.epoch;
        let (own, ballot) = self.0.voter.copy_and_ballot(key)?;
        let have = own.as_ref().map(|accepted| accepted.ballot);
        let mut reading = Reading::new((*config).clone());
        // Counted only if this peer votes in this epoch still, after it was read.
        if self.0.voter.votes_in(epoch)
            && let Heard::Agreed(_) = reading.on_answer(self.me(), ballot)
        {
            return Ok(Round::Agreed(own.filter(|_| ballot.is_some()).map(|accepted| accepted.record)));
        }
        let mut records: HashMap<Ballot, Record> = HashMap::new();
        let ask = || Request::Read { epoch, key: key.clone(), have };
        let mut inquiry = Inquiry::new(self, &config, reading.heard().clone(), ask);
        while let Some((voter, answer)) = inquiry.next().await {
            match answer {
                Ok(Response::Digest { ballot, record }) => {
                    if let (Some(ballot), Some(record)) = (ballot, record) {
                        records.insert(ballot, record);
                    }
                    match reading.on_answer(voter, ballot) {
                        Heard::Agreed(None) => return Ok(Round::Agreed(None)),
                        Heard::Agreed(ballot) if ballot == have => {
                            return Ok(Round::Agreed(own.map(|accepted| accepted.record)));
                        }
                        Heard::Agreed(Some(ballot)) => return Ok(Round::Agreed(records.remove(&ballot))),
                        // A writer is between its accepts, or a voter was away.
                        Heard::Differ => inquiry.ask_all(),
                        Heard::TooFew => {}
                    }
                }
                Ok(Response::WrongEpoch(theirs)) => {
                    if self.settle_epoch(voter, theirs, epoch).await {
                        return Ok(Round::EpochChanged);
                    }
                    inquiry.ask_one_more();
                }
                other => {
                    tracing::debug!(voter = %voter.short(), answer = ?other.err(), "no digest");
                    inquiry.ask_one_more();
                }
            }
        }
        let missing = reading.missing();
        Ok(if missing == 0 { Round::Disputed } else { Round::NoQuorum { missing } })
    }

    /// A linearizable page: every register on it was in the answered state at some time during the call.
    /// Full unless the range ends: answers fewer than `limit` lines only with `next` `None`.
    pub async fn scan(&self, query: ScanQuery) -> Result<Page, LedgerError> {
        self.scan_of(query, Shows::All).await
    }

    /// The same of heads of objects, without those that listings hide: their current version is a delete marker.
    pub async fn scan_objects(&self, query: ScanQuery) -> Result<Page, LedgerError> {
        self.scan_of(query, Shows::Objects).await
    }

    async fn scan_of(&self, query: ScanQuery, shows: Shows) -> Result<Page, LedgerError> {
        if self.decides(&query.prefix)? {
            return self.local_page_of(query, shows).await;
        }
        let began = Instant::now();
        self.0.measures.scan.since(began, self.scan_of_quorum(query, shows).await)
    }

    async fn scan_of_quorum(&self, query: ScanQuery, shows: Shows) -> Result<Page, LedgerError> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut attempts = 0;
        let mut page = Page::default();
        let mut rest = query;
        loop {
            let missing = match self.scan_round(&rest, shows).await? {
                Round::Agreed(mut more) => {
                    rest.limit = rest.limit.saturating_sub(more.items.len() as u32);
                    page.items.append(&mut more.items);
                    page.next = more.next;
                    match &page.next {
                        // Tombstones filled the voters' pages: go on from there.
                        Some(next) if rest.limit > 0 => rest.start = next.clone(),
                        _ => return Ok(page),
                    }
                    continue;
                }
                Round::NoQuorum { missing } => missing,
                Round::Disputed | Round::EpochChanged => 1,
            };
            if Instant::now() >= deadline {
                return Err(self.no_quorum(missing));
            }
            attempts += 1;
            back_off(attempts).await;
        }
    }

    async fn scan_round(&self, query: &ScanQuery, shows: Shows) -> Result<Round<Page>, LedgerError> {
        let own = self.0.voter.page(query.clone(), shows).await?;
        let pages = match self.quorum_pages(query, shows, &own).await? {
            Round::Agreed(pages) => pages,
            Round::Disputed => return Ok(Round::Disputed),
            Round::EpochChanged => return Ok(Round::EpochChanged),
            Round::NoQuorum { missing } => return Ok(Round::NoQuorum { missing }),
        };
        let Merged { lines, mut next } = merge(query, &pages.iter().map(|(_, page)| &**page).collect::<Vec<_>>());
        let others: Vec<PeerId> = pages.iter().map(|(peer, _)| *peer).filter(|peer| *peer != self.me()).collect();
        drop(pages);
        let records = self.records_of(&lines, own.records, &others).await?;
        let mut settled = self.settle_all(&lines).await?;
        settled.retain(|_, found| found.as_ref().is_some_and(|found| shows.shows(&found.value)));
        let mut items = Vec::with_capacity(lines.len());
        for line in lines {
            if items.len() >= query.limit as usize {
                next = Some(line.key().clone());
                break;
            }
            match line {
                Line::Group(group) => items.push(Item::Group(group)),
                Line::Key(key, _) => match records.get(&key).cloned().and_then(Current::of) {
                    Some(current) => items.push(Item::Register(key, current)),
                    // It moved on before its record was fetched.
                    None => return Ok(Round::Disputed),
                },
                Line::DisputedKey(key) => {
                    if let Some(current) = settled.get(&key).cloned().flatten() {
                        items.push(match query.group_len(&key) {
                            Some(len) => Item::Group(key.slice(..len)),
                            None => Item::Register(key, current),
                        });
                    }
                }
                Line::DisputedGroup(group, witnesses) => {
                    if witnesses.iter().any(|key| settled.get(key).is_some_and(Option::is_some)) {
                        items.push(Item::Group(group));
                    } else {
                        return Ok(Round::Disputed); // all witnesses are gone: there may be others
                    }
                }
            }
        }
        items.dedup();
        Ok(Round::Agreed(Page { items, next }))
    }

    /// The pages of a quorum. Whose page has the hash of this peer's own is not sent.
    async fn quorum_pages<'a>(
        &self,
        query: &ScanQuery,
        shows: Shows,
        own: &'a OwnPage,
    ) -> Result<Round<Pages<'a>>, LedgerError> {
        let config = self.config();
        let epoch = config.epoch;
        let expect = Some(own.hash);
        let mut pages: Pages<'a> = Vec::new();
        let mut heard = BTreeSet::new();
        if own.epoch == Some(epoch) {
            heard.insert(self.me());
            pages.push((self.me(), Cow::Borrowed(&own.page)));
            if config.is_quorum(&heard) {
                return Ok(Round::Agreed(pages));
            }
        }
        let ask = || match shows {
            Shows::All => Request::Scan { epoch, query: query.clone(), expect },
            Shows::Objects => Request::ScanObjects { epoch, query: query.clone(), expect },
        };
        let mut inquiry = Inquiry::new(self, &config, heard.clone(), ask);
        while let Some((voter, answer)) = inquiry.next().await {
            match answer {
                Ok(Response::SamePage) => pages.push((voter, Cow::Borrowed(&own.page))),
                Ok(Response::Page(page)) => pages.push((voter, Cow::Owned(page))),
                Ok(Response::WrongEpoch(theirs)) => {
                    if self.settle_epoch(voter, theirs, epoch).await {
                        return Ok(Round::EpochChanged);
                    }
                    inquiry.ask_one_more();
                    continue;
                }
                other => {
                    tracing::debug!(voter = %voter.short(), answer = ?other.err(), "no page");
                    inquiry.ask_one_more();
                    continue;
                }
            }
            heard.insert(voter);
            if config.is_quorum(&heard) {
                return Ok(Round::Agreed(pages));
            }
        }
        Ok(Round::NoQuorum { missing: config.missing(&heard) })
    }

    /// The records of agreed lines: this peer's own where it has that ballot, otherwise a voter's.
    async fn records_of(
        &self,
        lines: &[Line],
        mut records: HashMap<Bytes, Accepted>,
        others: &[PeerId],
    ) -> Result<HashMap<Bytes, Record>, LedgerError> {
        let mut wanted = Vec::new();
        for line in lines {
            if let Line::Key(key, ballot) = line
                && records.get(key).is_none_or(|accepted| accepted.ballot != *ballot)
            {
                wanted.push((key.clone(), *ballot));
            }
        }
        for chunk in wanted.chunks(FETCH_AT_ONCE) {
            let keys: Vec<Bytes> = chunk.iter().map(|(key, _)| key.clone()).collect();
            for peer in others {
                if let Ok(Response::Registers(found)) = self.ask(*peer, Request::Fetch { keys: keys.clone() }).await {
                    records.extend(found);
                    break;
                }
            }
        }
        let ballots: HashMap<&Bytes, Ballot> = wanted.iter().map(|(key, ballot)| (key, *ballot)).collect();
        records.retain(|key, accepted| ballots.get(key).is_none_or(|ballot| *ballot == accepted.ballot));
        Ok(records.into_iter().map(|(key, accepted)| (key, accepted.record)).collect())
    }

    /// The keys of a page, live or not, on which the voters of a quorum differ, and where the next page starts.
    pub(super) async fn disputed_keys(&self, query: &ScanQuery) -> Result<(Vec<Bytes>, Option<Bytes>), LedgerError> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut attempts = 0;
        loop {
            let own = self.0.voter.page(query.clone(), Shows::All).await?;
            if let Round::Agreed(pages) = self.quorum_pages(query, Shows::All, &own).await? {
                let merged = merge(query, &pages.iter().map(|(_, page)| &**page).collect::<Vec<_>>());
                let disputed = merged.lines.into_iter().filter_map(|line| match line {
                    Line::DisputedKey(key) => Some(key),
                    _ => None,
                });
                return Ok((disputed.collect(), merged.next));
            }
            if Instant::now() >= deadline {
                return Err(self.no_quorum(1));
            }
            attempts += 1;
            back_off(attempts).await;
        }
    }

    /// Settles every disputed key of a page.
    async fn settle_all(&self, lines: &[Line]) -> Result<HashMap<Bytes, Option<Current>>, LedgerError> {
        let disputed = lines.iter().flat_map(|line| match line {
            Line::DisputedKey(key) => std::slice::from_ref(key),
            Line::DisputedGroup(_, keys) => keys,
            Line::Key(..) | Line::Group(_) => &[],
        });
        stream::iter(disputed.cloned().collect::<Vec<_>>())
            .map(|key| async move { Ok((key.clone(), self.settle(&key).await?.and_then(Current::of))) })
            .buffer_unordered(SETTLE_AT_ONCE)
            .try_collect()
            .await
    }
}
