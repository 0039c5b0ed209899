//! Conditions of a write, decided inside the ledger update on the record it replaces.

use palm_core::id::BodyId;
use palm_core::record::{ObjectRecord, Stored};

use super::ObjectError;
use crate::pool::Current;

/// Conditions of a write, decided inside the ledger update on the record it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteConditions {
    /// `If-None-Match: *`: only where no object is.
    pub if_absent: bool,
    /// `If-Match`: only where the object has one of these entity tags (unquoted), or any with `*`.
    pub if_match: Option<String>,
    /// `If-None-Match`: only where the object has not this entity tag (unquoted).
    pub unless: Option<String>,
    /// Only where the object still has this body: the front end has looked at it and decided on what it saw.
    pub body: Option<BodyId>,
}

impl WriteConditions {
    /// Whether the write may replace `current`. As at AWS, `If-Match` where nothing is answers
    /// [`ObjectError::NoSuchKey`].
    pub(super) fn check(&self, current: Option<&ObjectRecord>) -> Result<(), ObjectError> {
        if self.if_absent && current.is_some() {
            return Err(ObjectError::PreconditionFailed);
        }
        if let (Some(unwanted), Some(current)) = (&self.unless, current)
            && *unwanted == current.etag.to_string()
        {
            return Err(ObjectError::PreconditionFailed);
        }
        if self.body.is_some_and(|body| current.is_none_or(|current| current.body != body)) {
            return Err(ObjectError::PreconditionFailed);
        }
        let Some(wanted) = &self.if_match else { return Ok(()) };
        let current = current.ok_or(ObjectError::NoSuchKey)?;
        let etag = current.etag.to_string();
        let matches = wanted.split(',').map(|tag| tag.trim().trim_matches('"')).any(|tag| tag == "*" || tag == etag);
        if matches { Ok(()) } else { Err(ObjectError::PreconditionFailed) }
    }
}

/// The object record in a register.
pub(super) fn object_in(current: Option<&Current>) -> Result<Option<ObjectRecord>, ObjectError> {
    Ok(current.map(|current| ObjectRecord::decode(&current.value)).transpose()?)
}

#[cfg(test)]
mod tests {
    use palm_core::id::KeyId;
    use palm_core::record::{Attributes, Content, Etag, Subresources};

    use super::*;

    fn object(md5: [u8; 16], parts: u16) -> ObjectRecord {
        ObjectRecord {
            size: 0,
            etag: Etag { md5, parts },
            attributes: Attributes::default(),
            checksum: None,
            data_key: KeyId::from_bytes([0; 16]),
            body: BodyId::from_bytes([0; 16]),
            content: Content::Segments(Vec::new()),
            subresources: Subresources::default(),
            customer_key: None,
        }
    }

    /// Clients build locks on these: `If-None-Match: *` must have one winner and `If-Match` must never replace
    /// what the client has not seen. Each case is one row of AWS's page on conditional writes.
    #[test]
    fn conditions_follow_aws() {
        let object = object([0xab; 16], 3);
        let tag = "ab".repeat(16) + "-3";
        let absent = WriteConditions { if_absent: true, ..WriteConditions::default() };
        let matching = |tag: &str| WriteConditions { if_match: Some(tag.to_owned()), ..WriteConditions::default() };
        let still = |body| WriteConditions { body: Some(BodyId::from_bytes([body; 16])), ..WriteConditions::default() };

        assert!(WriteConditions::default().check(None).is_ok());
        assert!(WriteConditions::default().check(Some(&object)).is_ok());
        assert!(absent.check(None).is_ok());
        assert!(matches!(absent.check(Some(&object)), Err(ObjectError::PreconditionFailed)));
        assert!(matching(&tag).check(Some(&object)).is_ok());
        assert!(matching("*").check(Some(&object)).is_ok());
        assert!(matching(&format!("\"00\", \"{tag}\"")).check(Some(&object)).is_ok());
        assert!(matches!(matching(&"ab".repeat(16)).check(Some(&object)), Err(ObjectError::PreconditionFailed)));
        let unless = |tag: &str| WriteConditions { unless: Some(tag.to_owned()), ..WriteConditions::default() };
        assert!(unless("other").check(Some(&object)).is_ok() && unless(&tag).check(None).is_ok());
        assert!(matches!(unless(&tag).check(Some(&object)), Err(ObjectError::PreconditionFailed)));
        assert!(still(0).check(Some(&object)).is_ok());
        assert!(matches!(still(1).check(Some(&object)), Err(ObjectError::PreconditionFailed)));
        assert!(matches!(still(0).check(None), Err(ObjectError::PreconditionFailed)));
        assert!(matches!(matching("*").check(None), Err(ObjectError::NoSuchKey)));
    }
}
