//! What a client says about an object besides its bytes: read from requests, given back in answers.

use std::collections::HashMap;

use palm_core::record::Attributes;
use palm_core::s3::storage_class::CLASSES;
pub use palm_core::s3::storage_class::STANDARD;
use palm_core::s3::website;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;

/// Bytes that the names and values of an object's user metadata may take together (AWS's limit).
const USER_METADATA_MAX_BYTES: usize = 2 << 10;

/// Takes the attributes out of a `PutObject`, `CopyObject` or `CreateMultipartUpload` request.
macro_rules! take_attributes {
    ($input:expr) => {
        $crate::s3::attributes::checked(
            palm_core::record::Attributes {
                content_type: $input.content_type.take(),
                content_encoding: $input.content_encoding.take(),
                content_language: $input.content_language.take(),
                content_disposition: $input.content_disposition.take(),
                cache_control: $input.cache_control.take(),
                expires: $input.expires.take(),
                website_redirect: $input.website_redirect_location.take(),
                storage_class: $input.storage_class.take().map(|class| class.as_str().to_owned()),
                user: Vec::new(),
            },
            $input.metadata.take().unwrap_or_default(),
        )
    };
}
pub(super) use take_attributes;

/// Sets an object's properties in the answer to `GetObject` or `HeadObject`.
macro_rules! set_attributes {
    ($output:expr, $attributes:expr) => {{
        let attributes = $attributes;
        $output.content_type =
            Some(attributes.content_type.unwrap_or_else(|| $crate::s3::attributes::DEFAULT_CONTENT_TYPE.to_owned()));
        $output.content_encoding = attributes.content_encoding;
        $output.content_language = attributes.content_language;
        $output.content_disposition = attributes.content_disposition;
        $output.cache_control = attributes.cache_control;
        $output.expires = attributes.expires;
        $output.website_redirect_location = attributes.website_redirect;
        $output.storage_class = attributes.storage_class.map(Into::into);
        $output.metadata = (!attributes.user.is_empty()).then(|| attributes.user.into_iter().collect());
    }};
}
pub(super) use set_attributes;

/// What AWS says of an object that came without a content type.
pub const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Bounds and normalises attributes; see [`take_attributes`].
pub fn checked(mut attributes: Attributes, user: HashMap<String, String>) -> S3Result<Attributes> {
    let bytes: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > USER_METADATA_MAX_BYTES {
        return Err(S3Error::new(S3ErrorCode::MetadataTooLarge));
    }
    if let Some(location) = &attributes.website_redirect {
        website::check_object_redirect(location).map_err(|refusal| error::of_refusal(&refusal))?;
    }
    attributes.user = user.into_iter().collect();
    // A map has no order; a record has, so that equal attributes are equal bytes.
    attributes.user.sort_unstable();
    attributes.content_encoding = attributes.content_encoding.and_then(without_aws_chunked);
    attributes.storage_class = match attributes.storage_class {
        Some(class) if class == STANDARD => None,
        Some(class) if !CLASSES.contains(&class.as_str()) => {
            return Err(S3Error::new(S3ErrorCode::InvalidStorageClass));
        }
        class => class,
    };
    Ok(attributes)
}

/// `aws-chunked` names the framing of one upload, not the object.
fn without_aws_chunked(encoding: String) -> Option<String> {
    let is_framing = |token: &&str| !token.eq_ignore_ascii_case("aws-chunked");
    if encoding.split(',').map(str::trim).all(|token| is_framing(&token)) {
        return Some(encoding);
    }
    let rest: Vec<&str> = encoding.split(',').map(str::trim).filter(is_framing).collect();
    (!rest.is_empty()).then(|| rest.join(", "))
}

/// The attributes of a copy made without replacing them: the source's, but for what AWS never copies.
pub fn inherited(source: &Attributes, asked: Attributes) -> Attributes {
    Attributes { storage_class: asked.storage_class, website_redirect: asked.website_redirect, ..source.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encoding: &str) -> Option<String> {
        let attributes = Attributes { content_encoding: Some(encoding.to_owned()), ..Attributes::default() };
        checked(attributes, HashMap::new()).expect("valid").content_encoding
    }

    #[test]
    fn the_framing_is_not_part_of_the_encoding() {
        assert_eq!(encoded("gzip").as_deref(), Some("gzip"));
        assert_eq!(encoded("aws-chunked"), None);
        assert_eq!(encoded("aws-chunked,gzip").as_deref(), Some("gzip"));
        assert_eq!(encoded("deflate, AWS-Chunked, gzip").as_deref(), Some("deflate, gzip"));
    }

    /// Scenario: user metadata at AWS's limit and one byte beyond. Danger: records grow without bound in
    /// every voter's index. Expectation: 2 KiB pass, one more is `MetadataTooLarge`.
    #[test]
    fn user_metadata_is_bounded() {
        let of = |bytes| checked(Attributes::default(), HashMap::from([("k".to_owned(), "v".repeat(bytes - 1))]));
        assert!(of(USER_METADATA_MAX_BYTES).is_ok());
        let refused = of(USER_METADATA_MAX_BYTES + 1).expect_err("too large");
        assert_eq!(refused.code().as_str(), "MetadataTooLarge");
    }

    #[test]
    fn classes_are_known_or_refused() {
        let of = |class: &str| {
            let attributes = Attributes { storage_class: Some(class.to_owned()), ..Attributes::default() };
            checked(attributes, HashMap::new()).map(|attributes| attributes.storage_class)
        };
        assert_eq!(of("STANDARD").expect("known"), None);
        assert_eq!(of("STANDARD_IA").expect("known").as_deref(), Some("STANDARD_IA"));
        assert_eq!(of("GLACIER").expect_err("archive").code().as_str(), "InvalidStorageClass");
    }
}
