//! The versions of one key, and what PUT and DELETE do to them
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html>).
//!
//! One register per key, the [`Head`], says which versions there are and in which order; it holds the null version
//! itself, a line for each of the newest versions, and names of [`Page`]s with lines of older ones. What a version *is*
//! (where its bytes are, tags, lock) is in a register of its own. `docs/s3-decisions.md` has the reasons, the
//! alternatives refused, and how a crash at each step is survived.
//!
//! `T` is what is stored of the null version, `S` the line of a version in a listing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::hlc::Stamp;

mod pages;
pub use pages::{Move, PAGE_LINES, PAGES_MAX, Page, PageRef, RECENT_MAX, SEAL_AT};

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Versioning {
    /// Never did.
    #[default]
    Off,
    /// Each PUT and DELETE makes one.
    Enabled,
    /// Those there are stay; PUT and DELETE work on the null version.
    Suspended,
}

/// A version's id: when it was begun, and a random number. Text: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// Later versions have later stamps: drawn after a strong read of the head, above all that it holds.
    pub stamp: Stamp,
    /// Drawn at random.
    pub nonce: u64,
}

impl VersionId {
    /// The one that no version has: no clock says zero.
    pub const NOBODYS: Self = Self { stamp: Stamp(0), nonce: 0 };
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.stamp.0, self.nonce)
    }
}

/// How a request names a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `null`: what was put while the bucket kept no versions.
    Null,
    /// By id.
    Id(VersionId),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl FromStr for Name {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text == "null" {
            return Ok(Self::Null);
        }
        let part = |digits: Option<&str>| {
            // Upper case would be a second name of the same version.
            let digits =
                digits.filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))?;
            u64::from_str_radix(digits, 16).ok()
        };
        let id = || {
            let (stamp, nonce) = (part(text.get(..16))?, part(text.get(16..).filter(|rest| rest.len() == 16))?);
            Some(Self::Id(VersionId { stamp: Stamp(stamp), nonce }))
        };
        id().ok_or_else(|| Refusal::invalid_argument("Invalid version id specified"))
    }
}

/// An object, or the marker that a DELETE leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind<O> {
    /// An object.
    Object(O),
    /// Who names no version finds nothing.
    DeleteMarker,
}

/// One version in the head or a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<S> {
    /// Its id.
    pub id: VersionId,
    /// What a listing says of it.
    pub kind: Kind<S>,
}

/// The null version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Null<T> {
    /// Where it stands among the others.
    pub stamp: Stamp,
    /// All of it.
    pub kind: Kind<T>,
}

/// The register of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head<T, S> {
    /// The null version, always here and nowhere else.
    pub null: Option<Null<T>>,
    /// The newest versions, newest first. Empty only when there are no pages.
    pub recent: Vec<Line<S>>,
    /// Older versions, newest first.
    pub pages: Vec<PageRef>,
    /// A page being made or taken back.
    pub moving: Option<Move>,
}

/// The version shown to who names none.
#[derive(Debug, PartialEq, Eq)]
pub enum Current<'a, T, S> {
    /// The null version.
    Null(&'a Null<T>),
    /// A version with an id.
    Version(&'a Line<S>),
}

/// What a request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T, S> {
    /// The head from now on; `None`: a tombstone, as nothing is left.
    pub head: Option<Head<T, S>>,
    /// `x-amz-version-id`; `None` in buckets that never had versions.
    pub version: Option<Name>,
    /// `x-amz-delete-marker`: a marker was made, or deleted.
    pub delete_marker: bool,
    /// The null object that is gone; its body is garbage.
    pub freed: Option<T>,
}

/// Why a request was not carried out on this head. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The client is told.
    Refused(Refusal),
    /// The move under way ([`Head::moving`]) must be finished first; anybody may.
    Finish,
    /// This page must be taken back first ([`Head::begin_return`]), as nothing recent would be left.
    TakeBack(u64),
    /// The version's line is in this page, if anywhere: it is removed there.
    InPage(u64),
    /// A newer version came meanwhile: it must be written under a newer id.
    Overtaken,
}

impl<T, S> Default for Head<T, S> {
    fn default() -> Self {
        Self { null: None, recent: Vec::new(), pages: Vec::new(), moving: None }
    }
}

impl<T: Clone, S: Clone> Head<T, S> {
    /// What who names no version is shown.
    pub fn current(&self) -> Option<Current<'_, T, S>> {
        match (&self.null, self.recent.first()) {
            (Some(null), Some(line)) if null.stamp < line.id.stamp => Some(Current::Version(line)),
            (None, Some(line)) => Some(Current::Version(line)),
            (Some(null), _) => Some(Current::Null(null)),
            (None, None) => None,
        }
    }

    /// Whether a listing of objects shows the key: its current version is no marker.
    pub fn is_shown(&self) -> bool {
        match self.current() {
            Some(Current::Null(null)) => matches!(null.kind, Kind::Object(_)),
            Some(Current::Version(line)) => matches!(line.kind, Kind::Object(_)),
            None => false,
        }
    }

    /// Whether there is no version: nothing that a register should hold.
    pub fn is_empty(&self) -> bool {
        self.null.is_none() && self.recent.is_empty() && self.pages.is_empty()
    }

    /// The stamp that a new version's id must be above when it is drawn.
    pub fn latest(&self) -> Stamp {
        match self.current() {
            Some(Current::Null(null)) => null.stamp,
            Some(Current::Version(line)) => line.id.stamp,
            None => Stamp(0),
        }
    }

    /// Puts the null version, which takes the place of the one there was: PUT in a bucket without versioning or with
    /// versioning suspended. What it replaces is gone, so `check` (object lock) is asked about it.
    pub fn put_null(
        mut self,
        kind: Kind<T>,
        now: Stamp,
        versioning: Versioning,
        check: impl FnOnce(&T) -> Result<(), Refusal>,
    ) -> Result<Done<T, S>, Stop> {
        let freed = self.take_null(check)?;
        // Its place is not part of its name, so it can be on top whatever the clocks say.
        let stamp = now.max(Stamp(self.latest().0 + 1));
        let delete_marker = matches!(kind, Kind::DeleteMarker);
        self.null = Some(Null { stamp, kind });
        let version = (versioning != Versioning::Off).then_some(Name::Null);
        Ok(Done { head: Some(self), version, delete_marker, freed })
    }

    /// Adds a version: PUT (after its own register is written) and DELETE (a marker) in a bucket with versioning. It becomes
    /// the current one.
    pub fn add_version(mut self, line: Line<S>) -> Result<Done<T, S>, Stop> {
        let (version, delete_marker) = (Some(Name::Id(line.id)), matches!(line.kind, Kind::DeleteMarker));
        if self.recent.iter().any(|known| known.id == line.id) {
            // A retry of what was done.
            return Ok(Done { head: Some(self), version, delete_marker, freed: None });
        }
        if line.id.stamp <= self.latest() {
            return Err(Stop::Overtaken);
        }
        if self.pages.len() >= PAGES_MAX {
            return Err(Stop::Refused(too_many()));
        }
        if self.recent.len() >= RECENT_MAX {
            return Err(Stop::Finish);
        }
        self.recent.insert(0, line);
        Ok(Done { head: Some(self), version, delete_marker, freed: None })
    }

    /// DELETE without a version in a bucket that never had versions: the object is gone; none is no error.
    pub fn delete(mut self, check: impl FnOnce(&T) -> Result<(), Refusal>) -> Result<Done<T, S>, Stop> {
        let freed = self.take_null(check)?;
        Ok(Done { head: self.unless_empty(), version: None, delete_marker: false, freed })
    }

    /// DELETE of one version: it is gone for good; none is no error. For one with an id, object lock is asked and the
    /// version's own register is emptied first, so that nobody reads what no listing has.
    pub fn delete_version(
        mut self,
        name: Name,
        check: impl FnOnce(&T) -> Result<(), Refusal>,
    ) -> Result<Done<T, S>, Stop> {
        let mut done = Done { head: None, version: Some(name), delete_marker: false, freed: None };
        match name {
            Name::Null => {
                done.delete_marker = matches!(&self.null, Some(Null { kind: Kind::DeleteMarker, .. }));
                done.freed = self.take_null(check)?;
            }
            Name::Id(id) => {
                if let Some(place) = self.recent.iter().position(|line| line.id == id) {
                    if place >= self.movable() {
                        return Err(Stop::Finish);
                    }
                    // What is recent must not run out while there is anything older.
                    match (self.movable(), self.moving, self.pages.first()) {
                        (1, Some(_), _) => return Err(Stop::Finish),
                        (1, None, Some(page)) => return Err(Stop::TakeBack(page.id)),
                        _ => {}
                    }
                    done.delete_marker = matches!(self.recent.remove(place).kind, Kind::DeleteMarker);
                } else if let Some(page) = self.page_of(id) {
                    return Err(Stop::InPage(page));
                }
            }
        }
        done.head = self.unless_empty();
        Ok(done)
    }

    fn take_null(&mut self, check: impl FnOnce(&T) -> Result<(), Refusal>) -> Result<Option<T>, Stop> {
        if let Some(Null { kind: Kind::Object(object), .. }) = &self.null {
            check(object).map_err(Stop::Refused)?;
        }
        Ok(match self.null.take() {
            Some(Null { kind: Kind::Object(object), .. }) => Some(object),
            _ => None,
        })
    }

    fn unless_empty(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }
}

/// What GET and HEAD answer when the version they find is a marker: 404 when they named none, else 405
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html>). Both with `x-amz-delete-marker: true`.
pub fn is_marker(named: bool) -> Refusal {
    if named {
        let message = "The specified method is not allowed against this resource.";
        Refusal::with_status(405, "MethodNotAllowed", message)
    } else {
        Refusal::with_status(404, "NoSuchKey", "The specified key does not exist.")
    }
}

/// What a version that is named and not there answers.
pub fn no_such_version() -> Refusal {
    Refusal::with_status(404, "NoSuchVersion", "The specified version does not exist.")
}

/// "You might have one or more objects in the bucket for which there are millions of versions"
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshooting-versioning.html>).
fn too_many() -> Refusal {
    Refusal::with_status(503, "SlowDown", "There are too many versions of this key.")
}

#[cfg(test)]
mod tests;
