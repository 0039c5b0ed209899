//! Moved segments whose bodies are gone: their registers go too.
//!
//! The homes of a garbage body delete the registers of its segments with its fragments, at the second look. What they miss, a
//! repair that committed after them say, is found here, once nothing of the body is left. Deleting one of a body in use
//! would send its readers to homes that have collected its fragments since, so the questions are those of a body.

use bytes::Bytes;
use palm_core::id::PeerId;
use palm_core::record::{MovedRecord, Stored, key};
use palm_core::repair;
use palm_core::wire::ScanQuery;
use tracing::{debug, warn};

use super::super::{ObjectError, Store};
use super::PAUSE;
use super::judge::{Found, Suspect, Verdict};
use super::report::Walk;
use crate::pool::Decision;
use crate::pool::ledger::Item;

/// Registers looked at between two pauses.
const PAGE: u32 = 256;

impl Store {
    /// Looks at the moved segments that this peer sees to, and deletes the registers that no body in use explains.
    pub(super) async fn sweep_moved(&self, walk: &Walk) -> Result<(), ObjectError> {
        let prefix = key::all_moved();
        let mut start = Some(prefix.clone());
        while let Some(from) = start {
            let query = ScanQuery { prefix: prefix.clone(), start: from, delimiter: None, limit: PAGE };
            let page = self.ledger.local_page(query).await?;
            if page.items.is_empty() {
                break;
            }
            let members = self.view.members();
            let live: Vec<PeerId> = members.iter().filter(|member| member.live).map(|member| member.peer).collect();
            for item in page.items {
                let Item::Register(register, current) = item else { continue };
                let moved = match MovedRecord::decode(&current.value) {
                    Ok(moved) => moved,
                    Err(error) => {
                        warn!(%error, "register of a moved segment does not read; it stays");
                        continue;
                    }
                };
                let stored_ms = current.version.stamp.millis();
                if repair::owner(&moved.segment, &live) == Some(self.me)
                    && let Err(error) = self.examine_moved(register, &moved, stored_ms, walk).await
                {
                    debug!(segment = %moved.segment.id, %error, "collection could not decide; the register stays");
                }
            }
            start = page.next;
            walk.rest(PAUSE).await;
        }
        Ok(())
    }

    async fn examine_moved(
        &self,
        register: Bytes,
        moved: &MovedRecord,
        stored_ms: u64,
        walk: &Walk,
    ) -> Result<(), ObjectError> {
        if !self.home.fragments_of(moved.body)?.is_empty() {
            return Ok(());
        }
        let suspect = Suspect {
            body: moved.body,
            objects: [Bytes::copy_from_slice(&moved.object)].into(),
            // Who repaired it may do so again: then the register is found again.
            writers: [].into(),
            youngest_ms: stored_ms,
        };
        if !matches!(self.judge(&suspect, Found::Walking).await?, Verdict::Garbage) {
            return Ok(());
        }
        if !walk.is_dry() {
            let body = moved.body;
            let gone = self.ledger.update(register, |current| {
                match current.map(|current| MovedRecord::decode(&current.value)) {
                    Some(Ok(now)) if now.body == body => Decision::Delete(()),
                    _ => Decision::Keep(()),
                }
            });
            gone.await?;
            debug!(segment = %moved.segment.id, %body, "register of a moved segment collected");
        }
        walk.moved();
        Ok(())
    }
}
