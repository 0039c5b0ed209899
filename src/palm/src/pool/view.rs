//! Who is in the pool, who is alive, and how much room each has.

use std::sync::Arc;

use palm_core::id::PeerId;
use palm_core::place::Candidate;

/// What this peer knows of the others right now: cheap to clone and to ask.
#[derive(Clone)]
pub struct View(Arc<()>);

impl View {
    /// This peer.
    pub fn me(&self) -> PeerId {
        unimplemented!()
    }
    /// Members that live, with their free space: where fragments may be put. Includes this peer.
    pub fn candidates(&self) -> Vec<Candidate> {
        unimplemented!()
    }
    /// Whether it is believed alive (this peer always is).
    pub fn is_live(&self, peer: PeerId) -> bool {
        let _ = peer;
        unimplemented!()
    }
    /// Admitted members, alive or not, this peer included.
    pub fn member_count(&self) -> usize {
        unimplemented!()
    }
    /// The pool's policy: `None` means automatic.
    pub fn policy(&self) -> Option<palm_core::place::Policy> {
        unimplemented!()
    }
}
