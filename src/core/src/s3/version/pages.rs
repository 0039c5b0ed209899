//! Lines of older versions, in registers of their own, so that the head stays small however many versions a key has.
//!
//! A page has one random id for all its life. A line is in force where the head says: in `recent`, or in a page that
//! `pages` names. To move lines, the head first says so ([`Move`]), which freezes them; then the page is written or frozen;
//! then the head takes or gives them in one update. Whoever meets a move finishes it, and each step does nothing the second
//! time. A writer that comes too late writes a page that no head names: garbage, never a version that comes back.

use serde::{Deserialize, Serialize};

use super::{Head, Line, Stop, VersionId};

/// Lines of a full page.
pub const PAGE_LINES: usize = 128;
/// With so many recent lines, the oldest [`PAGE_LINES`] are moved to a page.
pub const SEAL_AT: usize = 160;
/// More recent lines than this a head never has: a PUT must finish the move first.
pub const RECENT_MAX: usize = 512;

/// More pages a key never has: a million versions.
pub const PAGES_MAX: usize = 8192;

/// A page as the head names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Drawn at random; names the page's register.
    pub id: u64,
    /// The newest version it was made with.
    pub newest: VersionId,
    /// The oldest.
    pub oldest: VersionId,
}

/// A page's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<S> {
    /// Newest first.
    pub lines: Vec<Line<S>>,
    /// No line may be removed here any more: the head is taking them back.
    pub frozen: bool,
}

/// Lines on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Move {
    /// The oldest [`PAGE_LINES`] recent lines to this new page; they are frozen.
    Seal(u64),
    /// The lines of this page back to `recent`; or none, when it is empty.
    Return(u64),
}

impl<T: Clone, S: Clone> Head<T, S> {
    /// How many recent lines may be changed: those below are frozen.
    pub(super) fn movable(&self) -> usize {
        match self.moving {
            Some(Move::Seal(_)) => self.recent.len().saturating_sub(PAGE_LINES),
            _ => self.recent.len(),
        }
    }

    /// The page that a version's line is in, if it is in any.
    pub fn page_of(&self, id: VersionId) -> Option<u64> {
        let holds = |page: &&PageRef| page.oldest <= id && id <= page.newest;
        self.pages.iter().find(holds).map(|page| page.id)
    }

    /// Begins a move of the oldest lines to a page of this random id, when it is time and none is under way.
    pub fn begin_seal(mut self, page: u64) -> Option<Self> {
        let due = self.recent.len() >= SEAL_AT && self.moving.is_none();
        self.moving = Some(Move::Seal(page));
        due.then_some(self)
    }

    /// The page to be written for the move under way, unless its register has ever been.
    pub fn page_to_seal(&self) -> Option<(u64, Page<S>)> {
        match self.moving {
            Some(Move::Seal(page)) => {
                Some((page, Page { lines: self.recent[self.movable()..].to_vec(), frozen: false }))
            }
            _ => None,
        }
    }

    /// Ends the move to a page, once it is written; `None` when somebody else has.
    pub fn end_seal(mut self, page: u64) -> Option<Self> {
        if self.moving != Some(Move::Seal(page)) {
            return None;
        }
        let sealed = self.recent.split_off(self.movable());
        let (newest, oldest) = (sealed.first()?.id, sealed.last()?.id);
        self.pages.insert(0, PageRef { id: page, newest, oldest });
        self.moving = None;
        Some(self)
    }

    /// Begins to take a page back: the newest, when nothing recent would be left, or any that was seen empty (a page
    /// gets no new lines, so it stays so).
    pub fn begin_return(mut self, page: u64, seen_empty: bool) -> Option<Self> {
        let place = self.pages.iter().position(|known| known.id == page)?;
        let may = self.moving.is_none() && (place == 0 || seen_empty);
        self.moving = Some(Move::Return(page));
        may.then_some(self)
    }

    /// Ends the taking back of a page with the lines it was frozen with; `None` when somebody else has.
    pub fn end_return(mut self, page: u64, lines: Vec<Line<S>>) -> Option<Self> {
        if self.moving != Some(Move::Return(page)) {
            return None;
        }
        self.moving = None;
        self.pages.retain(|known| known.id != page);
        self.recent.extend(lines);
        Some(self)
    }
}

impl<S: Clone> Page<S> {
    /// The page frozen for the move under way.
    pub fn freeze(self) -> Self {
        Self { frozen: true, ..self }
    }

    /// The page without a line, and the line, if it was there.
    pub fn remove(mut self, id: VersionId) -> Result<(Self, Option<Line<S>>), Stop> {
        let place = self.lines.iter().position(|line| line.id == id);
        if self.frozen && place.is_some() {
            return Err(Stop::Finish);
        }
        let removed = place.map(|place| self.lines.remove(place));
        Ok((self, removed))
    }
}
