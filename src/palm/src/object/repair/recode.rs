//! Coding a segment anew, for a pool that has grown.

use std::sync::Arc;

use palm_core::code::{STRIPE_BYTES, Shape};
use palm_core::id::PeerId;
use palm_core::place::{self, Candidate, Plan, Policy};
use tracing::{debug, info};

use super::read::StripeReader;
use super::{Outcome, Task};
use crate::blocking::spawn_blocking;
use crate::object::body::Stripe;
use crate::object::homes::Planned;
use crate::object::placement::Change;
use crate::object::whole::Whole;
use crate::object::write::SegmentWriter;
use crate::object::{ObjectError, Store};

impl Store {
    /// Seals a segment again under another policy, as a write of the same bytes would, and enters it.
    pub(super) async fn recode(
        &self,
        task: Task,
        policy: Policy,
        homes: Vec<PeerId>,
        candidates: Vec<Candidate>,
    ) -> Result<Outcome, ObjectError> {
        let Task { whose, recorded, seen, readable, draft } = &task;
        let key = self.data_key(recorded.data_key).await?;
        let (old, new) = (task.shape()?, Shape::new(policy, seen.len)?);
        debug!(segment = %seen.id, before = %old.policy(), %policy, "coding anew");
        let plan = Plan { policy, exposed: place::is_exposed(policy, &homes), homes };
        let planned = Planned::new(seen.id, plan, candidates, new.fragment_len());
        let mut reader = StripeReader::new(self, readable.clone(), old, key.secret(seen.id));
        let none: Arc<[u8]> = Arc::new([]);
        let segment = if seen.len <= STRIPE_BYTES as u64 {
            let stripe = Stripe::from(reader.next(&none).await?.plaintext);
            let sealed = spawn_blocking(move || Whole::seal(planned, &key, None, &stripe)).await??;
            sealed.store(draft).await?
        } else {
            let mut writer = SegmentWriter::new(draft, planned, &key, None)?;
            for _ in 0..old.stripes() {
                writer.write(Arc::new(Stripe::from(reader.next(&none).await?.plaintext))).await?;
            }
            writer.finish().await?.await??
        };
        self.pace.wrote(segment.fragments.len() as u64 * new.fragment_len()).await;
        let entered = self.enter_move(whose, &recorded.segment, seen, &Change::Recoded(segment)).await;
        if !matches!(entered, Ok(false)) {
            // Entered, or perhaps.
            draft.keep();
        }
        if !entered? {
            return Ok(Outcome::Idle);
        }
        info!(segment = %seen.id, before = %old.policy(), now = %policy, "segment coded anew");
        Ok(Outcome::Repaired)
    }
}
