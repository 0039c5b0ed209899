//! Conditions of a write, decided inside the ledger update on the record it replaces.

use palm_core::record::Etag;

use super::ObjectError;

/// Conditions of a write, decided inside the ledger update on the record it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteConditions {
    /// `If-None-Match: *`: only where no object is.
    pub if_absent: bool,
    /// `If-Match`: only where the object has one of these entity tags (unquoted), or any with `*`.
    pub if_match: Option<String>,
}

impl WriteConditions {
    /// Whether the write may replace the object with this entity tag. As at AWS, `If-Match` where nothing is, or a delete
    /// marker, answers [`ObjectError::NoSuchKey`].
    pub(super) fn check(&self, current: Option<Etag>) -> Result<(), ObjectError> {
        if self.if_absent && current.is_some() {
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
        let absent = WriteConditions { if_absent: true, if_match: None };
        let matching = |tag: &str| WriteConditions { if_absent: false, if_match: Some(tag.to_owned()) };

        assert!(WriteConditions::default().check(None).is_ok());
        assert!(WriteConditions::default().check(Some(object)).is_ok());
        assert!(absent.check(None).is_ok());
        assert!(matches!(absent.check(Some(object)), Err(ObjectError::PreconditionFailed)));
        assert!(matching(&tag).check(Some(object)).is_ok());
        assert!(matching("*").check(Some(object)).is_ok());
        assert!(matching(&format!("\"00\", \"{tag}\"")).check(Some(object)).is_ok());
        assert!(matches!(matching(&"ab".repeat(16)).check(Some(object)), Err(ObjectError::PreconditionFailed)));
        assert!(matches!(matching("*").check(None), Err(ObjectError::NoSuchKey)));
    }
}
