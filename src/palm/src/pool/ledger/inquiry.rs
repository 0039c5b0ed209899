//! Asking voters: the nearest first, the others when an answer is slow, missing or of no help.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use palm_core::id::PeerId;
use palm_core::register::Config;
use palm_core::wire::{Request, Response};

use super::Ledger;
use crate::net::NetError;

/// A quorum's answers are awaited this long before all other voters are asked too. Several times a LAN round
/// trip with a busy peer, and short against what a person notices.
const HEDGE: Duration = Duration::from_millis(25);

/// One question to the voters of a configuration.
pub(super) struct Inquiry<'a> {
    ledger: &'a Ledger,
    request: Box<dyn Fn() -> Request + Send + Sync + 'a>,
    rest: VecDeque<PeerId>,
    asked: FuturesUnordered<BoxFuture<'a, (PeerId, Result<Response, NetError>)>>,
    hedge: Pin<Box<tokio::time::Sleep>>,
}

impl<'a> Inquiry<'a> {
    /// Asks the nearest voters at once: as many as make a quorum with those who have answered already.
    pub(super) fn new(
        ledger: &'a Ledger,
        config: &Config,
        mut answered: BTreeSet<PeerId>,
        request: impl Fn() -> Request + Send + Sync + 'a,
    ) -> Self {
        let mut inquiry = Self {
            ledger,
            request: Box::new(request),
            rest: ledger.nearest_first(config).into_iter().filter(|peer| !answered.contains(peer)).collect(),
            asked: FuturesUnordered::new(),
            hedge: Box::pin(tokio::time::sleep(HEDGE)),
        };
        while !config.is_quorum(&answered) {
            match inquiry.ask_one_more() {
                Some(peer) => answered.insert(peer),
                None => break,
            };
        }
        inquiry
    }

    /// Asks the next voter, if one is left: for an answer that did not help.
    pub(super) fn ask_one_more(&mut self) -> Option<PeerId> {
        let peer = self.rest.pop_front()?;
        let (ledger, request) = (self.ledger, (self.request)());
        self.asked.push(Box::pin(async move { (peer, ledger.ask(peer, request).await) }));
        Some(peer)
    }

    /// Asks everyone who is left.
    pub(super) fn ask_all(&mut self) {
        while self.ask_one_more().is_some() {}
    }

    /// The next answer; `None` when every voter has answered or failed to.
    pub(super) async fn next(&mut self) -> Option<(PeerId, Result<Response, NetError>)> {
        loop {
            if self.asked.is_empty() {
                self.ask_one_more()?;
            }
            tokio::select! {
                answer = self.asked.next() => return answer,
                () = &mut self.hedge, if !self.rest.is_empty() => self.ask_all(),
            }
        }
    }
}

impl Ledger {
    /// The voters: this peer first, then connected ones by round-trip time, then the others.
    pub(super) fn nearest_first(&self, config: &Config) -> Vec<PeerId> {
        let me = self.me();
        let mut voters: Vec<PeerId> = config.electorate().into_iter().collect();
        voters.sort_by_cached_key(|peer| {
            let distance = if *peer == me { None } else { Some(self.0.net.round_trip(*peer).unwrap_or(Duration::MAX)) };
            // Voters about as near share the load: the order among them differs from peer to peer.
            (distance.map(|distance| distance.as_millis()), peer.tag() ^ me.tag())
        });
        voters
    }
}
