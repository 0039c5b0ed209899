//! Whether a fragment is there and right; and what is found wrong, handed to repair.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hasher;
use futures::{StreamExt, stream};
use palm_backends::{BackendState, FragmentStore as _, StoreError};
use palm_core::id::{BodyId, FragmentId, SegmentId};
use palm_core::record::FragmentRecord;
use palm_core::wire::FragmentState;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tracing::{info, warn};

use super::Home;
use crate::blocking::spawn_blocking;

/// Fragments of one question that wait for the disk at once.
const LOOKED_UP: usize = 16;
/// Fragments read and hashed at once, whoever wants it: a disk has other work.
const VERIFIED: usize = 2;
/// A fragment is read in pieces of this to be hashed.
const PIECE_BYTES: u64 = 256 << 10;
/// Damaged fragments that wait for repair to hear of them. What does not fit, the audit finds.
const MAX_WAITING: usize = 1024;

/// A fragment here that is wrong or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The segment it is of.
    pub segment: SegmentId,
    /// Its body.
    pub body: BodyId,
    /// Register key of an object that the body was uploaded for.
    pub object: Vec<u8>,
}

/// How a home's fragments are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HomeFigures {
    /// Known to be corrupt or missing now.
    pub damaged: u64,
    /// Found so since this peer started.
    pub corrupt_found_total: u64,
    /// Checked in this round of scrubbing, and all there are.
    pub scrubbed: (u64, u64),
    /// When the last round ended, milliseconds since the Unix epoch; 0 before the first.
    pub last_round_ms: u64,
    /// Fragments without a note, found by the last round: nobody can say what they belong to.
    pub orphans: u64,
    /// What is wrong with which backend, in words.
    pub ills: Vec<String>,
}

/// What was found damaged.
pub(in crate::object) struct Damage {
    found: AtomicU64,
    tell: mpsc::Sender<Damaged>,
    told: Mutex<mpsc::Receiver<Damaged>>,
    verifying: Semaphore,
}

impl Default for Damage {
    fn default() -> Self {
        let (tell, told) = mpsc::channel(MAX_WAITING);
        Self { found: AtomicU64::new(0), tell, told: Mutex::new(told), verifying: Semaphore::new(VERIFIED) }
    }
}

impl Home {
    /// Waits for the next fragment found wrong or missing.
    pub async fn damaged(&self) -> Damaged {
        let next = self.0.damage.told.lock().await.recv().await;
        match next {
            Some(damaged) => damaged,
            // Never: the sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// How the fragments here are.
    pub async fn figures(&self) -> HomeFigures {
        let mut ills = Vec::new();
        for backend in self.0.backends.iter() {
            match backend.state().await {
                BackendState::Well => {}
                state => ills.push(format!("{}: {state}", backend.place())),
            }
        }
        let all = self.usage().await.unwrap_or_default().fragments;
        let scrub = &self.0.scrub;
        HomeFigures {
            damaged: self.count_corrupt().unwrap_or_default(),
            corrupt_found_total: self.0.damage.found.load(Ordering::Relaxed),
            scrubbed: (scrub.done.load(Ordering::Relaxed).min(all), all),
            last_round_ms: scrub.last_round_ms.load(Ordering::Relaxed),
            orphans: scrub.orphans.load(Ordering::Relaxed),
            ills,
        }
    }

    /// How some fragments are, in their order: read and hashed now, or as was last known.
    pub(super) async fn check(&self, ids: Vec<FragmentId>, verify: bool) -> Vec<FragmentState> {
        if !verify {
            return self.last_known(ids).await;
        }
        let checks = ids.into_iter().map(|id| {
            let home = self.clone();
            async move { home.verify(id).await }
        });
        stream::iter(checks).buffered(LOOKED_UP).collect().await
    }

    /// Asked about every fragment of the pool now and then: one trip for the notes, and one to each backend.
    async fn last_known(&self, ids: Vec<FragmentId>) -> Vec<FragmentState> {
        let (home, asked) = (self.clone(), ids.clone());
        let read = spawn_blocking(move || asked.into_iter().map(|id| home.record(id).ok().flatten()).collect());
        let notes: Vec<Option<FragmentRecord>> = read.await.unwrap_or_else(|_| vec![None; ids.len()]);
        let lengths = self.lengths(ids.iter().copied().zip(&notes)).await;
        let state = |(id, note): (&FragmentId, &Option<FragmentRecord>)| match (note, lengths.get(id)) {
            (Some(note), Some(len)) if *len != note.len => FragmentState::Missing,
            (Some(note), Some(_)) if note.corrupt => FragmentState::Corrupt,
            (Some(_), Some(_)) => FragmentState::Sound,
            _ => FragmentState::Missing,
        };
        ids.iter().zip(&notes).map(state).collect()
    }

    /// The lengths of fragments that are noted, as far as a backend in reach has them: the noted one, or else another.
    async fn lengths(
        &self,
        noted: impl Iterator<Item = (FragmentId, &Option<FragmentRecord>)>,
    ) -> HashMap<FragmentId, u64> {
        let backends = &self.0.backends;
        let mut at_backend: BTreeMap<u16, Vec<FragmentId>> = BTreeMap::new();
        for (id, note) in noted.filter_map(|(id, note)| Some((id, note.as_ref()?))) {
            at_backend.entry(backends.only().map_or(note.backend, |only| only.number())).or_default().push(id);
        }
        let mut lengths = HashMap::new();
        for (number, ids) in at_backend {
            let found = match backends.get(number) {
                Some(backend) => backend.stats(ids.clone()).await.unwrap_or_default(),
                None => Vec::new(),
            };
            lengths.extend(found.into_iter().flatten().map(|stat| (stat.id, stat.len)));
            if backends.only().is_none() {
                for id in ids {
                    if !lengths.contains_key(&id)
                        && let Ok(Some(stat)) = self.stat(id).await
                    {
                        lengths.insert(id, stat.len);
                    }
                }
            }
        }
        lengths
    }

    /// Reads and hashes a fragment. Its note is marked where it is wrong, unmarked where it is right; repair hears of it.
    pub(in crate::object) async fn verify(&self, id: FragmentId) -> FragmentState {
        let Ok(Some(note)) = self.record(id) else { return FragmentState::Missing };
        let (state, cause) = match self.is_right(id, note.len).await {
            Ok(true) => {
                if note.corrupt {
                    let right = FragmentRecord { corrupt: false, ..note.clone() };
                    let unmarked = self.renote_if(id, &note, &right).await;
                    info!(fragment = %id, ?unmarked, "fragment noted as corrupt reads right again");
                }
                return FragmentState::Sound;
            }
            Ok(false) => (FragmentState::Corrupt, "holds other bytes than its name says".to_owned()),
            // The disk is away as a whole, and may be back with all its fragments.
            Err(StoreError::Gone(_)) => return FragmentState::Missing,
            Err(error @ StoreError::Corrupt(_)) => (FragmentState::Corrupt, error.to_string()),
            Err(error) => (FragmentState::Missing, error.to_string()),
        };
        if let Err(error) = self.found_wrong(id, &note, &cause).await {
            warn!(fragment = %id, %error, "fragment cannot be noted as corrupt");
        }
        state
    }

    pub(super) async fn found_wrong(
        &self,
        id: FragmentId,
        note: &FragmentRecord,
        cause: &str,
    ) -> Result<(), StoreError> {
        // Stored again or deleted since it was read: then nothing is wrong.
        if !self.renote_if(id, note, &FragmentRecord { corrupt: true, ..note.clone() }).await? {
            return Ok(());
        }
        if !note.corrupt {
            self.0.damage.found.fetch_add(1, Ordering::Relaxed);
            warn!(fragment = %id, segment = %note.segment, cause, "fragment is wrong or missing");
        }
        let FragmentRecord { segment, body, ref object, .. } = *note;
        // Where repair is that far behind, the audit finds it.
        let _heard = self.0.damage.tell.try_send(Damaged { segment, body, object: object.clone() });
        Ok(())
    }

    /// Whether the bytes of a fragment are those of its name.
    async fn is_right(&self, id: FragmentId, len: u64) -> Result<bool, StoreError> {
        let _permit = self.0.damage.verifying.acquire().await;
        let reader = self.open_quietly(id).await?;
        if reader.len() != len {
            return Ok(false);
        }
        let mut hasher = Hasher::new();
        let mut at = 0;
        while at < len {
            let next = (at + PIECE_BYTES).min(len);
            hasher.update(&reader.read(at..next).await?);
            at = next;
        }
        Ok(FragmentId::from_bytes(*hasher.finalize().as_bytes()) == id)
    }
}
