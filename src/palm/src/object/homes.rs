//! Talking to homes: this peer's own without QUIC, the others over it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use palm_backends::StoreError;
use palm_backends::decorate::Pace;
use palm_core::code::Shape;
use palm_core::id::{FragmentId, PeerId, SegmentId};
use palm_core::place::{self, Candidate, Plan, Policy};
use palm_core::wire::{Failure, FragmentOrigin, MAX_SMALL_FRAGMENT_BYTES, Request, Response};

use super::home::HomeUpload;
use super::{ObjectError, Store};
use crate::net::{FragmentUpload, NetError};
use crate::pool::Homes as _;

/// A home answers a small fragment within this, or it counts as failed. Long, for a disk under load: what
/// keeps requests quick is the hedge, which comes much earlier.
const SMALL_TIMEOUT: Duration = Duration::from_secs(8);

/// Why a home did not take or give a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HomeError {
    /// It has no room.
    #[error("home is full")]
    Full,
    /// It does not have the fragment.
    #[error("home does not have the fragment")]
    NotFound,
    /// Anything else; the text is for logs.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for HomeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::NotFound(_) => Self::NotFound,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<NetError> for HomeError {
    fn from(error: NetError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Response> for HomeError {
    /// An answer that is not the one hoped for.
    fn from(response: Response) -> Self {
        match response {
            Response::NotFound => Self::NotFound,
            Response::Failed { reason: Failure::Full, .. } => Self::Full,
            Response::Failed { detail, .. } => Self::Failed(detail),
            _ => Self::Failed("unexpected answer".to_owned()),
        }
    }
}

impl Store {
    /// Asks a home, which may be this peer.
    pub(super) async fn ask(&self, home: PeerId, request: Request, timeout: Duration) -> Result<Response, NetError> {
        if home == self.me {
            Ok(self.home.call(self.me, request).await)
        } else {
            self.net.call(home, request, timeout).await
        }
    }

    /// Stores a fragment that is in memory; answers the id the home computed. Small ones share frames with
    /// other requests to the same home.
    pub(super) async fn store_fragment(
        &self,
        home: PeerId,
        origin: FragmentOrigin,
        bytes: Bytes,
    ) -> Result<FragmentId, HomeError> {
        if home == self.me {
            return Ok(self.home.put(self.me, &origin, bytes).await?.id);
        }
        self.traffic.take(bytes.len() as u64).await;
        let response = if bytes.len() <= MAX_SMALL_FRAGMENT_BYTES {
            self.net.call(home, Request::PutSmall { origin, bytes }, SMALL_TIMEOUT).await?
        } else {
            let mut upload = self.net.put_fragment(home, origin).await?;
            upload.write(bytes).await?;
            upload.finish().await?
        };
        stored(response)
    }

    /// Begins to store a fragment.
    pub(super) async fn begin_fragment(&self, home: PeerId, origin: FragmentOrigin) -> Result<Upload, HomeError> {
        if home == self.me {
            return Ok(Upload::Local(self.home.begin(self.me, origin).await?));
        }
        Ok(Upload::Remote(self.net.put_fragment(home, origin).await?, Arc::clone(&self.traffic)))
    }

    /// The whole of a small fragment.
    pub(super) async fn small_fragment(&self, home: PeerId, id: FragmentId) -> Result<Bytes, HomeError> {
        if home == self.me {
            return Ok(self.home.get(id).await?);
        }
        match self.net.call(home, Request::GetSmall { id }, SMALL_TIMEOUT).await? {
            Response::Small(bytes) => {
                self.traffic.take(bytes.len() as u64).await;
                Ok(bytes)
            }
            other => Err(other.into()),
        }
    }

    /// Where the fragments of a segment of about `len` bytes go, and who else could take them. Peers that just
    /// failed are left out as long as the policy can be met without them; in a local pool, as long as any peer is left:
    /// there a write goes to whoever is in reach, and narrower than a policy set by hand if it must. The policy of a storage
    /// class gives way too: what it is to be coded as soon as peers are enough, repair sees to.
    pub(super) fn plan(&self, segment: SegmentId, len: u64, class: Option<&str>) -> Result<Planned, ObjectError> {
        let local = self.ledger.is_local();
        let (wanted, automatic) = match (self.view.class_policy(class), self.view.policy()) {
            (Some(policy), _) => (policy, true),
            (None, Some(policy)) => (policy, local),
            (None, None) => (self.view.wanted_policy(), true),
        };
        let need_bytes = Shape::new(wanted, len)?.fragment_len();
        let (mut candidates, suspects) = self.suspects.split(self.view.candidates());
        let planned = |plan, candidates| Planned { segment, wanted, plan, candidates, need_bytes };
        if !suspects.is_empty() {
            if let Ok(plan) = place::plan(segment, wanted, local, &candidates, need_bytes) {
                return Ok(planned(plan, candidates));
            }
            candidates.extend(suspects);
        }
        let plan = place::plan(segment, wanted, automatic, &candidates, need_bytes)?;
        Ok(planned(plan, candidates))
    }
}

/// A plan, and what it takes to change it when a home fails.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) segment: SegmentId,
    wanted: Policy,
    pub(super) plan: Plan,
    candidates: Vec<Candidate>,
    need_bytes: u64,
}

impl Planned {
    /// A plan that is made already, for a segment that is to be coded anew under it.
    pub(super) fn new(segment: SegmentId, plan: Plan, candidates: Vec<Candidate>, need_bytes: u64) -> Self {
        Self { segment, wanted: plan.policy, plan, candidates, need_bytes }
    }

    /// Whether a segment stored as so many fragments has fewer than the pool means it to have.
    pub(super) fn is_reduced(&self, fragments: usize) -> bool {
        fragments < usize::from(self.wanted.n)
    }

    /// Gives fragment `index` to another home than the `failed` ones, if there is one.
    pub(super) fn reassign(&mut self, index: u8, failed: &[PeerId]) -> Option<PeerId> {
        let home = place::alternate(self.segment, &self.plan, failed, &self.candidates, self.need_bytes)?;
        self.plan.homes[usize::from(index)] = home;
        Some(home)
    }
}

/// A fragment being stored at a home. Dropping it abandons the fragment.
pub(super) enum Upload {
    Local(HomeUpload),
    Remote(FragmentUpload, Arc<Pace>),
}

impl Upload {
    /// Appends; waits for the home.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), HomeError> {
        match self {
            Self::Local(upload) => Ok(upload.write(bytes).await?),
            Self::Remote(upload, traffic) => {
                traffic.take(bytes.len() as u64).await;
                Ok(upload.write(bytes).await?)
            }
        }
    }

    /// Waits until it is durable; answers the id the home computed.
    pub(super) async fn finish(self) -> Result<FragmentId, HomeError> {
        match self {
            Self::Local(upload) => Ok(upload.finish().await?.id),
            Self::Remote(upload, _) => stored(upload.finish().await?),
        }
    }
}

fn stored(response: Response) -> Result<FragmentId, HomeError> {
    match response {
        Response::Stored { id, .. } => Ok(id),
        other => Err(other.into()),
    }
}
