//! What a request that makes an object asks for: its headers, tags, lock and encryption.

use palm_core::record::{Attributes, BucketRecord, Subresources};
use palm_core::s3::acl::Acl;
use palm_core::s3::lock::Lock;
use palm_core::s3::tags::Tag;
use s3s::S3Result;
use s3s::dto::ServerSideEncryption;

use super::customer_key::GivenKey;
use super::{error, lock};
use crate::object::{Cipher, NewObject};

/// What a `PutObject`, `CopyObject` or `CreateMultipartUpload` asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Headers and user metadata.
    pub attributes: Attributes,
    /// `x-amz-tagging`.
    pub tags: Option<Vec<Tag>>,
    /// `x-amz-object-lock-*`.
    pub lock: Lock,
    /// SSE-C.
    pub key: Option<GivenKey>,
}

/// Takes an [`Asked`] out of a request.
macro_rules! take_asked {
    ($input:expr) => {{
        let key = $crate::s3::customer_key::take_key!($input)?;
        let kms = $input.ssekms_key_id.is_some() || $input.ssekms_encryption_context.is_some();
        $crate::s3::asked::check_encryption($input.server_side_encryption.as_ref(), kms, key.is_some())?;
        $crate::s3::asked::Asked {
            attributes: $crate::s3::attributes::take_attributes!($input)?,
            tags: $crate::s3::tagging::of_header($input.tagging.take())?,
            lock: $crate::s3::lock::take_lock!($input)?,
            key,
        }
    }};
}
pub(super) use take_asked;

/// Encryption with PALM's own keys is true of every object. A key service there is not.
pub fn check_encryption(method: Option<&ServerSideEncryption>, kms: bool, customer_key: bool) -> S3Result<()> {
    let method = method.map(ServerSideEncryption::as_str);
    match method {
        Some(_) if customer_key => Err(error::invalid_argument(
            "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
        )),
        None | Some(ServerSideEncryption::AES256) if kms => Err(error::invalid_argument(
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
        )),
        None | Some(ServerSideEncryption::AES256) => Ok(()),
        Some(ServerSideEncryption::AWS_KMS | ServerSideEncryption::AWS_KMS_DSSE) => {
            Err(error::not_implemented("Encryption with a key service is not implemented"))
        }
        Some(_) => Err(error::invalid_argument("The encryption method specified is not supported")),
    }
}

impl Asked {
    /// The object to be made in a bucket with a list of its own, and what encrypts its bytes.
    pub fn object(self, bucket: &BucketRecord, acl: Option<Acl>, now_ms: u64) -> S3Result<(NewObject, Option<Cipher>)> {
        let lock = lock::of_new(self.lock, bucket, now_ms)?;
        let cipher = self.key.as_ref().map(GivenKey::seal).transpose()?;
        let new = NewObject {
            attributes: self.attributes,
            subresources: Subresources { acl, tags: self.tags.unwrap_or_default(), lock },
            customer_key: cipher.as_ref().map(|cipher| cipher.record().clone()),
        };
        Ok((new, cipher))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: methods of encryption, alone and together with a client's key. Danger: an upload succeeds with less than it asked
    /// for. Expectation: what PALM does is taken, what it does not do is refused, and so is asking for two at once.
    #[test]
    fn an_encryption_is_honoured_or_refused() {
        let code = |method: Option<&'static str>, kms, key| {
            let method = method.map(ServerSideEncryption::from_static);
            check_encryption(method.as_ref(), kms, key).err().map(|told| told.code().as_str().to_owned())
        };
        assert_eq!(code(None, false, true), None);
        assert_eq!(code(Some("AES256"), false, false), None);
        assert_eq!(code(Some("aws:kms"), true, false).as_deref(), Some("NotImplemented"));
        for refused in
            [code(Some("AES256"), false, true), code(Some("AES256"), true, false), code(Some("aes:kms"), false, false)]
        {
            assert_eq!(refused.as_deref(), Some("InvalidArgument"));
        }
    }
}
