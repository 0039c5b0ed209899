//! Which members hold too much beside others.

use palm_core::place::{Fill, surplus_bytes};
use serde::{Deserialize, Serialize};

use crate::object::Store;

/// Free space from here on means that nothing bounds it: it is told in steps, and so not exactly `u64::MAX`.
const UNBOUNDED_BYTES: u64 = 1 << 62;

/// A living member, as levelling sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What it calls itself.
    pub name: String,
    /// Bytes of fragments it keeps.
    pub used_bytes: u64,
    /// Bytes it should give to others.
    pub surplus_bytes: u64,
    #[serde(skip)]
    is_me: bool,
}

impl Store {
    /// The members that live and do not drain, and how much each should give to others.
    pub fn levels(&self) -> Vec<Level> {
        let told = self.view.members().into_iter().filter(|member| member.live).filter_map(|member| {
            let told = member.told.filter(|told| !told.draining)?;
            let free = if told.free < UNBOUNDED_BYTES { told.free } else { u64::MAX };
            Some((member.name, member.peer == self.me, Fill { used: told.used, free }))
        });
        let (members, fills): (Vec<_>, Vec<_>) = told.map(|(name, is_me, fill)| ((name, is_me), fill)).unzip();
        let levels = members.into_iter().zip(&fills).zip(surplus_bytes(&fills));
        let level = |(((name, is_me), fill), surplus_bytes): (((String, bool), &Fill), u64)| Level {
            name,
            used_bytes: fill.used,
            surplus_bytes,
            is_me,
        };
        levels.map(level).collect()
    }

    /// Bytes that this peer should give to others.
    pub(super) fn own_surplus(&self) -> u64 {
        self.levels().iter().find(|level| level.is_me).map_or(0, |level| level.surplus_bytes)
    }
}
