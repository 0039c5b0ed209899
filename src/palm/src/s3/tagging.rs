//! Tags of objects (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).

use http::Extensions;
use palm_core::s3::notification::Event;
use palm_core::s3::tags::{self, On, Tag as Pair};
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutObjectTaggingInput, PutObjectTaggingOutput, Tag, TaggingDirective,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::object::{version_name, version_text};
use super::{Frontend, access, answer, error, notification};
use crate::object::Object;

/// Tags as XML has them; validated.
pub fn parse(tags: Vec<Tag>, on: On) -> S3Result<Vec<Pair>> {
    let malformed = || S3Error::new(S3ErrorCode::MalformedXML);
    let pair = |tag: Tag| Some((tag.key?, tag.value?));
    let pairs = tags.into_iter().map(pair).collect::<Option<_>>().ok_or_else(malformed)?;
    tags::validate(pairs, on).map_err(|refusal| error::of_refusal(&refusal))
}

/// Tags for XML.
pub fn write(tags: &[Pair]) -> Vec<Tag> {
    tags.iter().map(|(name, value)| Tag { key: Some(name.clone()), value: Some(value.clone()) }).collect()
}

/// The tags in `x-amz-tagging`, if it was given.
pub fn of_header(header: Option<String>) -> S3Result<Option<Vec<Pair>>> {
    header.map(|header| tags::parse_header(&header).map_err(|refusal| error::of_refusal(&refusal))).transpose()
}

/// The tags of a copy.
pub fn of_copy(directive: Option<&TaggingDirective>, source: &[Pair], given: Option<Vec<Pair>>) -> S3Result<Vec<Pair>> {
    let directive = directive.map(TaggingDirective::as_str);
    tags::of_copy(directive, source.to_vec(), given).map_err(|refusal| error::of_refusal(&refusal))
}

/// `x-amz-tagging-count`: absent where there is none.
pub fn count(object: &Object) -> Option<i32> {
    i32::try_from(object.record.subresources.tags.len()).ok().filter(|&count| count > 0)
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    let version = version_name(input.version_id.as_deref())?;
    let object = access::head(&frontend.store, &request.extensions, (&input.bucket, &input.key, version)).await?;
    let tag_set = write(&object.record.subresources.tags);
    Ok(answer(GetObjectTaggingOutput { tag_set, version_id: version_text(&object) }, object.stale))
}

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = request.input;
    let tags = parse(input.tagging.tag_set, On::Object)?;
    let place = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let object = change((frontend, &request.extensions), place, &tags, Event::TaggingPut).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id: version_text(&object) }))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    let place = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let object = change((frontend, &request.extensions), place, &[], Event::TaggingDelete).await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id: version_text(&object) }))
}

async fn change(
    (frontend, extensions): (&Frontend, &Extensions),
    (bucket, key, version): (&str, &str, Option<&str>),
    tags: &[Pair],
    event: Event,
) -> S3Result<Object> {
    let version = version_name(version)?;
    let notice = notification::begin(frontend, extensions, (bucket, key), event).await?;
    let changed = frontend.store.change_object(bucket, key, version, |object| {
        object.subresources.tags = tags.to_vec();
        Ok(())
    });
    let changed = changed.await;
    notice.end(&changed);
    changed.map_err(error::of)
}
