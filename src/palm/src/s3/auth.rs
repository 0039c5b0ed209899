//! Who may come in: signatures by the pool's access keys, and nothing a client asks for that PALM would
//! have to ignore.
//!
//! s3s verifies signatures (`SigV4` in headers, in presigned URLs and over streaming chunks) and clock skew;
//! it compares in constant time and refuses `x-amz-*` headers outside the signature, which is what stops a
//! presigned PUT from being turned into a copy. `server::config` sets the limits.

use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;
use super::senseless::Admission;
use super::server::Signer;
use crate::object::Store;

/// Finds the secret of an access key.
pub(super) struct Keys {
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.store.access_key(access_key).await {
            Ok(Some(credentials)) => Ok(SecretKey::from(credentials.secret.as_str())),
            Ok(None) => Err(S3Error::new(S3ErrorCode::InvalidAccessKeyId)),
            Err(failure) => Err(error::of(failure)),
        }
    }
}

/// Lets signed requests in, if they ask only for what PALM has.
pub(super) struct Gate {
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let signer = context.extensions_mut().get::<Signer>().cloned();
        if context.credentials().is_none() && signer.is_none() {
            return Err(S3Error::new(S3ErrorCode::AccessDenied));
        }
        if let Some(key) = context.s3_path().get_object_key() {
            super::check_key(key)?;
        }
        refuse_unsupported(context.headers())?;
        if let Some(bucket) = context.s3_path().get_bucket_name() {
            expect_owner(&self.store, bucket, context.headers(), EXPECTED_OWNER).await?;
        }
        if let Some(admission) = context.extensions_mut().get::<Admission>().cloned() {
            admission.grant(context.credentials());
        }
        Ok(())
    }
}

/// Names the owner a client expects a bucket to have.
const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";
/// The same for the bucket a copy reads from.
pub(super) const EXPECTED_SOURCE_OWNER: &str = "x-amz-source-expected-bucket-owner";

/// Refuses a request whose client expects another owner: a safety catch must hold or be refused, never be
/// ignored. Costs nothing where the header is not given.
pub(super) async fn expect_owner(store: &Store, bucket: &str, headers: &HeaderMap, name: &str) -> S3Result<()> {
    let Some(expected) = headers.get(name) else {
        return Ok(());
    };
    let record = store.bucket(bucket).await.map_err(error::of)?;
    if expected.as_bytes() == record.owner.as_bytes() { Ok(()) } else { Err(S3Error::new(S3ErrorCode::AccessDenied)) }
}

/// Headers that ask for something, and the values PALM can honour: everything else under these names is 501
/// rather than silently dropped. A name that ends in `-` stands for all that start with it.
const HONOURED: [(&str, &[&str]); 13] = [
    // The pool's keys own everything alike, so these all say the same.
    ("x-amz-acl", &["private", "bucket-owner-read", "bucket-owner-full-control"]),
    ("x-amz-object-ownership", &["BucketOwnerEnforced"]),
    ("x-amz-grant-", &[]),
    ("x-amz-tagging", &[""]),
    // All data is sealed, so AES256 is true of every object.
    ("x-amz-server-side-encryption", &["AES256"]),
    ("x-amz-server-side-encryption-", &[]),
    ("x-amz-copy-source-server-side-encryption-", &[]),
    ("x-amz-bucket-object-lock-enabled", &["false"]),
    ("x-amz-object-lock-", &[]),
    ("x-amz-write-offset-bytes", &[]),
    ("x-amz-rename-source", &[]),
    ("x-amz-mfa", &[]),
    ("x-amz-security-token", &[]),
];

fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") {
            continue;
        }
        let rule = HONOURED.iter().find(|(rule, _)| match rule.strip_suffix('-') {
            Some(_) => name.starts_with(rule),
            None => name == *rule,
        });
        let honoured =
            rule.is_none_or(|(_, values)| values.iter().any(|honoured| honoured.as_bytes() == value.as_bytes()));
        if !honoured {
            return Err(error::not_implemented(format!(
                "A header you provided implies functionality that is not implemented: {name}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn refused(name: &'static str, value: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        match refuse_unsupported(&headers) {
            Ok(()) => false,
            Err(told) => {
                assert_eq!(told.code().as_str(), "NotImplemented");
                true
            }
        }
    }

    /// Scenario: clients ask for encryption keys, grants, locks and tags. Danger: an upload succeeds without
    /// the protection it asked for. Expectation: 501 for what PALM cannot honour, silence for the rest.
    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let honoured = [
            ("x-amz-acl", "private"),
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-bucket-object-lock-enabled", "false"),
            ("x-amz-tagging-directive", "COPY"),
            ("x-amz-meta-acl", "public-read"),
            ("x-amz-date", "20261122T000000Z"),
            ("content-type", "text/plain"),
        ];
        for (name, value) in honoured {
            assert!(!refused(name, value), "{name}: {value}");
        }
        let unsupported = [
            ("x-amz-acl", "public-read"),
            ("x-amz-grant-read", "uri=\"all\""),
            ("x-amz-tagging", "a=b"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
            ("x-amz-copy-source-server-side-encryption-customer-key", "key"),
            ("x-amz-object-lock-mode", "COMPLIANCE"),
            ("x-amz-security-token", "session"),
        ];
        for (name, value) in unsupported {
            assert!(refused(name, value), "{name}: {value}");
        }
    }
}
