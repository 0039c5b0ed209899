//! Strong reads and pages, as `pool/ledger/read.rs` does them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::exec::Micros;
use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::proposer::{Failed, Inquiry, Retry, Setback};
use super::world::{Ask, MS, Reply};
use crate::hlc::Ballot;
use crate::id::PeerId;
use crate::listing::{Item, Line, Merged, Page, merge};
use crate::register::{Config, Current, Heard, Reading, Record};
use crate::wire::{ScanPage, ScanQuery};

/// As in the real shell: a read or page that has found no quorum by then is given up.
const READ_DEADLINE: Micros = 2_500 * MS;

/// How a round of questions ended.
enum Round<T> {
    Agreed(T),
    Disputed,
    Again,
}

impl Peer {
    /// A linearizable read.
    pub async fn read(&self, key: &Bytes) -> Result<Option<Current>, Failed> {
        let deadline = self.world.exec.now() + READ_DEADLINE;
        let mut retry = Retry::new(self, deadline);
        loop {
            match self.read_round(key).await {
                Round::Agreed(record) => return Ok(record.and_then(Current::of)),
                Round::Disputed => return Ok(self.settle(key, deadline).await?.and_then(Current::of)),
                Round::Again => {}
            }
            if !retry.pause(Setback::NoQuorum).await {
                return Err(Failed::Nothing);
            }
        }
    }

    async fn read_round(&self, key: &Bytes) -> Round<Option<Record>> {
        let config = self.config();
        let (own, ballot) = self.copy(key);
        let have = own.as_ref().map(|accepted| accepted.ballot);
        let mut reading = Reading::new((*config).clone());
        let mut answered = BTreeSet::new();
        let mut records: BTreeMap<Ballot, Record> = own.into_iter().map(|own| (own.ballot, own.record)).collect();
        let agreed = |ballot: Option<Ballot>, records: &mut BTreeMap<Ballot, Record>| {
            if is_planted(Fault::ReadServesAnyCopy) && ballot.is_some() {
                return Round::Agreed(records.pop_first().map(|(_, record)| record));
            }
            Round::Agreed(ballot.and_then(|ballot| records.remove(&ballot)))
        };
        let learner_votes = is_planted(Fault::LearnerVotes);
        if config.is_voter(&self.me()) {
            answered.insert(self.me());
            if let Heard::Agreed(ballot) = reading.on_answer(self.me(), ballot) {
                return agreed(ballot, &mut records);
            }
        } else if learner_votes && have.is_some() {
            // Counted in the place of a voter that is not asked then.
            let stand_in = config.electorate().into_iter().next().unwrap_or(self.me());
            answered.insert(stand_in);
            if let Heard::Agreed(ballot) = reading.on_answer(stand_in, have) {
                return agreed(ballot, &mut records);
            }
        }
        let ask = Ask::Read { epoch: config.epoch, key: key.clone(), have };
        let mut inquiry = Inquiry::new(self, &config, answered, ask);
        while let Some((voter, reply)) = inquiry.next().await {
            match reply {
                Some(Reply::Digest(ballot, record)) => {
                    if let (Some(ballot), Some(record)) = (ballot, record) {
                        records.insert(ballot, record);
                    }
                    match reading.on_answer(voter, ballot) {
                        Heard::Agreed(ballot) => return agreed(ballot, &mut records),
                        Heard::Differ if is_planted(Fault::ReadTakesMaximum) => {
                            return Round::Agreed(records.pop_last().map(|(_, record)| record));
                        }
                        Heard::Differ => inquiry.ask_all(),
                        Heard::TooFew => {}
                    }
                }
                Some(Reply::WrongEpoch(theirs)) => {
                    self.settle_epoch(voter, theirs).await;
                    return Round::Again;
                }
                _ => {
                    inquiry.ask_one_more();
                }
            }
        }
        if reading.missing() == 0 { Round::Disputed } else { Round::Again }
    }

    /// A linearizable page.
    pub async fn scan(&self, query: &ScanQuery) -> Result<Page, Failed> {
        let deadline = self.world.exec.now() + READ_DEADLINE;
        let mut retry = Retry::new(self, deadline);
        let mut page = Page::default();
        let mut rest = query.clone();
        loop {
            if let Round::Agreed(mut more) = self.scan_round(&rest, deadline).await? {
                rest.limit = rest.limit.saturating_sub(more.items.len() as u32);
                page.items.append(&mut more.items);
                page.next = more.next;
                match &page.next {
                    // Tombstones filled the voters' pages: go on from there.
                    Some(next) if rest.limit > 0 => rest.start = next.clone(),
                    _ => return Ok(page),
                }
            } else if !retry.pause(Setback::NoQuorum).await {
                return Err(Failed::Nothing);
            }
        }
    }

    async fn scan_round(&self, query: &ScanQuery, deadline: Micros) -> Result<Round<Page>, Failed> {
        let config = self.config();
        let own_records = self.copy_all();
        let own = self.own_page(query, config.epoch);
        let Some(pages) = self.quorum_pages(query, &config, &own).await else { return Ok(Round::Again) };
        let borrowed: Vec<&ScanPage> = pages.iter().map(|(_, page)| &**page).collect();
        let Merged { lines, mut next } = merge(query, &borrowed);
        let mut records: BTreeMap<Bytes, (Ballot, Record)> =
            own_records.into_iter().map(|(key, own)| (key, (own.ballot, own.record))).collect();
        self.fetch_missing(&lines, &mut records, &pages).await;
        let mut items = Vec::new();
        for line in lines {
            if items.len() >= query.limit as usize {
                next = Some(line.key().clone());
                break;
            }
            match line {
                Line::Group(group) => items.push(Item::Group(group)),
                Line::Key(key, ballot) => match records.get(&key).filter(|(known, _)| *known == ballot) {
                    Some((_, record)) => {
                        items.extend(Current::of(record.clone()).map(|current| Item::Register(key, current)));
                    }
                    // It moved on before its record was fetched.
                    None => return Ok(Round::Disputed),
                },
                Line::DisputedKey(_) if is_planted(Fault::ListSkipsDisputed) => {}
                Line::DisputedKey(key) => {
                    let record = if is_planted(Fault::ListTakesMaximum) {
                        self.highest_copy(&key, &pages).await
                    } else {
                        self.settle(&key, deadline).await?
                    };
                    if let Some(current) = record.and_then(Current::of) {
                        items.push(match query.group_len(&key) {
                            Some(len) => Item::Group(key.slice(..len)),
                            None => Item::Register(key, current),
                        });
                    }
                }
                Line::DisputedGroup(group, witnesses) => {
                    let mut live = false;
                    for key in &witnesses {
                        live |= self.settle(key, deadline).await?.and_then(Current::of).is_some();
                    }
                    if !live {
                        return Ok(Round::Disputed); // all witnesses are gone: there may be others
                    }
                    items.push(Item::Group(group));
                }
            }
        }
        items.dedup();
        Ok(Round::Agreed(Page { items, next }))
    }

    /// The pages of a quorum; `None` when too few answered or the epoch changed.
    pub async fn quorum_pages<'a>(
        &self,
        query: &ScanQuery,
        config: &Config,
        own: &'a (ScanPage, bool),
    ) -> Option<Vec<(PeerId, Cow<'a, ScanPage>)>> {
        let mut pages = Vec::new();
        let mut heard = BTreeSet::new();
        if own.1 {
            heard.insert(self.me());
            pages.push((self.me(), Cow::Borrowed(&own.0)));
            if config.is_quorum(&heard) {
                return Some(pages);
            }
        }
        let ask = Ask::Scan { epoch: config.epoch, query: query.clone() };
        let mut inquiry = Inquiry::new(self, config, heard.clone(), ask);
        while let Some((voter, reply)) = inquiry.next().await {
            match reply {
                Some(Reply::Page(page)) => {
                    if heard.insert(voter) {
                        pages.push((voter, Cow::Owned(page)));
                    }
                }
                Some(Reply::WrongEpoch(theirs)) => {
                    self.settle_epoch(voter, theirs).await;
                    return None;
                }
                _ => {
                    inquiry.ask_one_more();
                }
            }
            if config.is_quorum(&heard) {
                return Some(pages);
            }
        }
        None
    }

    /// Fetches the records of agreed lines that this peer has not at that ballot.
    async fn fetch_missing(
        &self,
        lines: &[Line],
        records: &mut BTreeMap<Bytes, (Ballot, Record)>,
        pages: &[(PeerId, Cow<'_, ScanPage>)],
    ) {
        let keys: Vec<Bytes> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Key(key, ballot) if records.get(key).is_none_or(|(known, _)| known != ballot) => {
                    Some(key.clone())
                }
                _ => None,
            })
            .collect();
        if keys.is_empty() {
            return;
        }
        for (voter, _) in pages.iter().filter(|(voter, _)| *voter != self.me()) {
            if let Some(Reply::Registers(found)) = self.ask(*voter, &Ask::Fetch { keys: keys.clone() }).await {
                records.extend(found.into_iter().map(|(key, copy)| (key, (copy.ballot, copy.record))));
                return;
            }
        }
    }

    /// A planted fault: the highest copy of a disputed key among the voters asked.
    async fn highest_copy(&self, key: &Bytes, pages: &[(PeerId, Cow<'_, ScanPage>)]) -> Option<Record> {
        let mut highest = self.copy(key).0.filter(|_| self.is_voter());
        for (voter, _) in pages {
            if let Some(Reply::Registers(found)) = self.ask(*voter, &Ask::Fetch { keys: vec![key.clone()] }).await {
                highest = found.into_iter().map(|(_, copy)| copy).chain(highest).max_by_key(|copy| copy.ballot);
            }
        }
        highest.map(|copy| copy.record)
    }
}
