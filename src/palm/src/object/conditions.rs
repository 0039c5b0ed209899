//! Conditions of a write, decided inside the ledger update on the record it replaces.

use palm_core::hlc::Stamp;
use palm_core::record::Etag;

use super::ObjectError;

/// Conditions of a write, decided inside the ledger update on the record it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteConditions {
    /// `If-None-Match: *`: only where no object is.
    pub if_absent: bool,
    /// `If-Match`: only where the object has one of these entity tags (unquoted), or any with `*`.
    pub if_match: Option<String>,
    /// `If-None-Match`: only where the object has not this entity tag (unquoted).
    pub unless: Option<String>,
    /// Only where the current version is still the one made at this stamp: the front end has looked at it and decided on what it
    /// saw.
    pub unchanged: Option<Stamp>,
}

impl WriteConditions {
    /// Whether the write may replace the object with this entity tag. As at AWS, `If-Match` where nothing is, or a delete
    /// marker, answers [`ObjectError::NoSuchKey`].
    pub(super) fn check(&self, current: Option<Etag>, made: Stamp) -> Result<(), ObjectError> {
        if self.if_absent && current.is_some() {
            return Err(ObjectError::PreconditionFailed);
        }
        if let (Some(unwanted), Some(current)) = (&self.unless, current)
            && *unwanted == current.to_string()
        {
            return Err(ObjectError::PreconditionFailed);
        }
        if self.unchanged.is_some_and(|stamp| current.is_none() || stamp != made) {
            return Err(ObjectError::PreconditionFailed);
        }
        let Some(wanted) = &self.if_match else { return Ok(()) };
        let current = current.ok_or(ObjectError::NoSuchKey)?;
        let etag = current.to_string();
        let matches = wanted.split(',').map(|tag| tag.trim().trim_matches('"')).any(|tag| tag == "*" || tag == etag);
        if matches { Ok(()) } else { Err(ObjectError::PreconditionFailed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients build locks on these: `If-None-Match: *` must have one winner and `If-Match` must never replace
    /// what the client has not seen. Each case is one row of AWS's page on conditional writes.
    #[test]
    fn conditions_follow_aws() {
        let object = Etag { md5: [0xab; 16], parts: 3 };
        let tag = "ab".repeat(16) + "-3";
        let absent = WriteConditions { if_absent: true, ..WriteConditions::default() };
        let matching = |tag: &str| WriteConditions { if_match: Some(tag.to_owned()), ..WriteConditions::default() };
        let still = |stamp| WriteConditions { unchanged: Some(Stamp(stamp)), ..WriteConditions::default() };
        let now = Stamp(9);

        assert!(WriteConditions::default().check(None, now).is_ok());
        assert!(WriteConditions::default().check(Some(object), now).is_ok());
        assert!(absent.check(None, now).is_ok());
        assert!(matches!(absent.check(Some(object), now), Err(ObjectError::PreconditionFailed)));
        assert!(matching(&tag).check(Some(object), now).is_ok());
        assert!(matching("*").check(Some(object), now).is_ok());
        assert!(matching(&format!("\"00\", \"{tag}\"")).check(Some(object), now).is_ok());
        assert!(matches!(matching(&"ab".repeat(16)).check(Some(object), now), Err(ObjectError::PreconditionFailed)));
        let unless = |tag: &str| WriteConditions { unless: Some(tag.to_owned()), ..WriteConditions::default() };
        assert!(unless("other").check(Some(object), now).is_ok() && unless(&tag).check(None, now).is_ok());
        assert!(matches!(unless(&tag).check(Some(object), now), Err(ObjectError::PreconditionFailed)));
        assert!(still(9).check(Some(object), now).is_ok());
        assert!(matches!(still(8).check(Some(object), now), Err(ObjectError::PreconditionFailed)));
        assert!(matches!(still(9).check(None, now), Err(ObjectError::PreconditionFailed)));
        assert!(matches!(matching("*").check(None, now), Err(ObjectError::NoSuchKey)));
    }
}
