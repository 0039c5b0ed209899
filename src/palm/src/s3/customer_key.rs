//! SSE-C in requests: keys that clients send along
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html>).
//!
//! AWS refuses these keys over plain HTTP. PALM takes them: whether there is TLS, and where it ends, is up to who runs it.

use data_encoding::BASE64;
use palm_core::record::CustomerKey;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::ServerSideEncryption;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;
use crate::object::{CLIENT_KEY_BYTES, Cipher, ClientKey, Object};

/// The only algorithm.
pub const ALGORITHM: &str = "AES256";

/// A client's key, and the MD5 by which answers name it.
#[derive(Debug, Clone)]
pub struct GivenKey {
    key: ClientKey,
    /// As it was given: base64.
    pub md5: String,
}

/// Takes the client's key out of a request; with `source` that of a copy's source.
macro_rules! take_key {
    ($input:expr) => {
        $crate::s3::customer_key::parse(
            $input.sse_customer_algorithm.take(),
            $input.sse_customer_key.take(),
            $input.sse_customer_key_md5.take(),
        )
    };
    ($input:expr, source) => {
        $crate::s3::customer_key::parse(
            $input.copy_source_sse_customer_algorithm.take(),
            $input.copy_source_sse_customer_key.take(),
            $input.copy_source_sse_customer_key_md5.take(),
        )
    };
}
pub(super) use take_key;

/// Says in an answer how the object is encrypted: with the client's key, or, as all data is sealed, by PALM.
macro_rules! set_encryption {
    ($output:expr, $key:expr) => {{
        let key: Option<&$crate::s3::customer_key::GivenKey> = $key;
        match key {
            Some(key) => {
                $output.sse_customer_algorithm = Some($crate::s3::customer_key::ALGORITHM.to_owned());
                $output.sse_customer_key_md5 = Some(key.md5.clone());
            }
            None => $output.server_side_encryption = Some($crate::s3::customer_key::sealed()),
        }
    }};
}
pub(super) use set_encryption;

/// `x-amz-server-side-encryption` of all that clients do not encrypt themselves.
pub fn sealed() -> ServerSideEncryption {
    ServerSideEncryption::from_static(ServerSideEncryption::AES256)
}

/// The same of an object, where the request brings no key to name.
pub fn encryption_of(object: &Object) -> Option<ServerSideEncryption> {
    object.record.customer_key.is_none().then(sealed)
}

/// Reads the three headers of a key, of which all or none are given; see [`take_key`].
pub fn parse(algorithm: Option<String>, key: Option<String>, md5: Option<String>) -> S3Result<Option<GivenKey>> {
    if algorithm.is_none() && key.is_none() && md5.is_none() {
        return Ok(None);
    }
    let must = "Requests specifying Server Side Encryption with Customer provided keys must provide";
    let algorithm =
        algorithm.ok_or_else(|| error::invalid_argument(format!("{must} a valid encryption algorithm.")))?;
    if algorithm != ALGORITHM {
        return Err(S3Error::new(S3ErrorCode::InvalidEncryptionAlgorithmError));
    }
    let key = key.ok_or_else(|| error::invalid_argument(format!("{must} an appropriate secret key.")))?;
    let md5 =
        md5.ok_or_else(|| error::invalid_argument(format!("{must} the client calculated MD5 of the secret key.")))?;
    let bytes: [u8; CLIENT_KEY_BYTES] = BASE64
        .decode(key.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| error::invalid_argument("The secret key was invalid for the specified algorithm."))?;
    if BASE64.encode(&Md5::checksum(&bytes)) != md5 {
        let text = "The calculated MD5 hash of the key did not match the hash that was provided.";
        return Err(error::invalid_argument(text));
    }
    Ok(Some(GivenKey { key: ClientKey::new(bytes), md5 }))
}

impl GivenKey {
    /// For an object or upload to be made.
    pub fn seal(&self) -> S3Result<Cipher> {
        self.key.seal().map_err(error::of)
    }
}

/// What decrypts an object, or encrypts an upload's parts: the request must bring the key it was made with, and none where it was
/// made without. A wrong key is 400, as no key: AWS answers 403 for it, public suites want 400.
pub fn open(record: Option<&CustomerKey>, given: Option<&GivenKey>) -> S3Result<Option<Cipher>> {
    match (record, given) {
        (None, None) => Ok(None),
        (Some(record), Some(given)) => given.key.open(record).map(Some).ok_or_else(|| {
            error::invalid_request("The provided encryption parameters did not match the ones used originally.")
        }),
        (Some(_), None) => Err(error::invalid_request(
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to \
             retrieve the object.",
        )),
        (None, Some(_)) => Err(error::invalid_request("The encryption parameters are not applicable to this object.")),
    }
}

/// What decrypts the parts to come of an upload: as [`open`], in the words of uploads.
pub fn open_upload(record: Option<&CustomerKey>, given: Option<&GivenKey>) -> S3Result<Option<Cipher>> {
    match (record, given) {
        (Some(_), None) => Err(error::invalid_request(
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate \
             encryption parameters.",
        )),
        (None, Some(_)) => Err(error::invalid_request(
            "The multipart upload initiate did not request encryption. Subsequent part requests must not include \
             encryption parameters.",
        )),
        _ => open(record, given),
    }
}
