//! What readers of several backends share.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;

use crate::fragment::{FragmentReader, StoreError};

/// A fragment that is in memory already, whatever store it came from.
#[derive(Debug, Clone)]
pub struct BytesReader {
    /// Which fragment.
    pub id: FragmentId,
    /// All of it.
    pub bytes: Bytes,
}

#[async_trait]
impl FragmentReader for BytesReader {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let len = self.len();
        check_range(self.id, &range, len)?;
        Ok(self.bytes.slice(range.start as usize..range.end as usize))
    }
}

/// Refuses a range that goes backwards or beyond a fragment of `len` bytes.
pub fn check_range(id: FragmentId, range: &Range<u64>, len: u64) -> Result<(), StoreError> {
    if range.start > range.end || range.end > len {
        return Err(StoreError::OutOfRange { id, range: range.clone(), len });
    }
    Ok(())
}
