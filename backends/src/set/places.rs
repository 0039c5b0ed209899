//! What the index keeps of the places of backends.
//!
//! | space | key | value |
//! | --- | --- | --- |
//! | [`Space::Meta`] | `backend/`, [place](fn@open::place) | its number, u16 big-endian |
//! | | `backend-url/`, the same | the URL with which it was added to a running peer |
//! | | `backend-leaving/`, the same | empty: it is being emptied, to be removed |
//! | | `backend-removed/`, the same | empty: it was removed, whatever the settings say |
//!
//! A number is never given to another place, so that an old note cannot point at what it does not mean. An `exec:` of which
//! earlier versions kept these by its program alone takes them over ([`move_programs`]).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::fragment::StoreError;
use crate::index::{IndexStore, Next, Space, Write};
use crate::open;

const NUMBER: &[u8] = b"backend/";
const URL: &[u8] = b"backend-url/";
const LEAVING: &[u8] = b"backend-leaving/";
const REMOVED: &[u8] = b"backend-removed/";

/// What is kept of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u16,
    /// With its options, where it was added to a running peer.
    pub(super) url: Option<String>,
    pub(super) is_leaving: bool,
    pub(super) is_removed: bool,
}

/// All that ever were, by [place](fn@open::place).
pub(super) type Places = BTreeMap<String, Place>;

/// Reads what is kept.
pub(super) fn load(index: &dyn IndexStore) -> Result<Places, StoreError> {
    let mut places = Places::new();
    for (place, number) in scan(index, NUMBER)? {
        let number = number.as_ref().try_into().map_err(|_| corrupt("number of a backend"))?;
        let number = u16::from_be_bytes(number);
        places.insert(place, Place { number, url: None, is_leaving: false, is_removed: false });
    }
    for (place, url) in scan(index, URL)? {
        if let Some(found) = places.get_mut(&place) {
            found.url = Some(String::from_utf8(url.to_vec()).map_err(|_| corrupt("URL of a backend"))?);
        }
    }
    for (place, _) in scan(index, LEAVING)? {
        places.entry(place).and_modify(|found| found.is_leaving = true);
    }
    for (place, _) in scan(index, REMOVED)? {
        places.entry(place).and_modify(|found| found.is_removed = true);
    }
    Ok(places)
}

/// Puts what is kept of a program under the place it has with its options, and answers how to keep it there: to earlier versions a
/// program was one place whatever its options, and could be named but once. The settings come first, as they did then.
pub(super) fn move_programs(places: &mut Places, settings: &[String]) -> Vec<Write> {
    let added: Vec<String> = places.values().filter_map(|place| place.url.clone()).collect();
    let urls: Vec<&String> = settings.iter().chain(&added).collect();
    let mut writes = Vec::new();
    for url in &urls {
        let (place, former) = (open::place(url), open::without_options(url));
        let is_named = places.contains_key(&*place) || urls.iter().any(|other| open::place(other) == former);
        if is_named {
            continue;
        }
        let Some(mut found) = places.remove(former) else { continue };
        // Where the settings name it, theirs are the options.
        found.url = found.url.filter(|added| open::place(added) == place);
        writes.extend([NUMBER, URL, LEAVING, REMOVED].map(|space| Write::Delete(Space::Meta, key(space, former))));
        writes.extend(used(&place, found.number, found.url.as_deref()));
        if found.is_removed {
            writes.extend(removed(&place));
        } else if found.is_leaving {
            writes.extend(leaving(&place, true));
        }
        places.insert(place.into_owned(), found);
    }
    writes
}

/// The number of the next place; `None` when there are no more.
pub(super) fn next_number(places: &Places) -> Option<u16> {
    places.values().map(|place| place.number).max().map_or(Some(0), |last| last.checked_add(1))
}

/// A place is in use under this number; `url` where no settings name it.
pub(super) fn used(place: &str, number: u16, url: Option<&str>) -> Vec<Write> {
    let mut writes = vec![
        Write::Put(Space::Meta, key(NUMBER, place), Bytes::copy_from_slice(&number.to_be_bytes())),
        Write::Delete(Space::Meta, key(REMOVED, place)),
    ];
    writes.extend(url.map(|url| Write::Put(Space::Meta, key(URL, place), Bytes::copy_from_slice(url.as_bytes()))));
    writes
}

/// A place is being emptied, or is not any more.
pub(super) fn leaving(place: &str, is_leaving: bool) -> Vec<Write> {
    let key = key(LEAVING, place);
    vec![if is_leaving { Write::Put(Space::Meta, key, Bytes::new()) } else { Write::Delete(Space::Meta, key) }]
}

/// A place is not used any more.
pub(super) fn removed(place: &str) -> Vec<Write> {
    vec![
        Write::Put(Space::Meta, key(REMOVED, place), Bytes::new()),
        Write::Delete(Space::Meta, key(URL, place)),
        Write::Delete(Space::Meta, key(LEAVING, place)),
    ]
}

fn key(prefix: &[u8], place: &str) -> Bytes {
    [prefix, place.as_bytes()].concat().into()
}

fn scan(index: &dyn IndexStore, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, StoreError> {
    let (mut found, mut is_wrong) = (Vec::new(), false);
    index.scan(Space::Meta, prefix, &mut |key, value| {
        let Some(place) = key.strip_prefix(prefix) else { return Next::Stop };
        match std::str::from_utf8(place) {
            Ok(place) => found.push((place.to_owned(), Bytes::copy_from_slice(value))),
            Err(_) => is_wrong = true,
        }
        Next::Continue
    })?;
    if is_wrong { Err(corrupt("place of a backend")) } else { Ok(found) }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}
