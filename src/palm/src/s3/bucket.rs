//! Buckets.

use palm_core::record::{BucketConfig, BucketRecord};
use s3s::dto::{
    Bucket, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::list::{decode_token, encode_token};
use super::{Frontend, error, owner_of, timestamp};
use crate::object::{ListQuery, Listed};

/// Buckets one `ListBuckets` answer holds at most (AWS's limit).
const LIST_BUCKETS_MAX: u32 = 10_000;
/// Buckets asked of the object layer at once.
const LIST_BUCKETS_PAGE: u32 = 1_000;

/// AWS's name for the region without a name, whose location is empty.
const NAMELESS_REGION: &str = "us-east-1";

pub async fn create(
    frontend: &Frontend,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let owner = super::asker(&request)?.canonical_id();
    let bucket = &request.input.bucket;
    check_reserved(bucket)?;
    // A location is a pool's name, or whatever region a client believes in: one peer serves one pool, so
    // either is accepted.
    frontend.store.create_bucket(bucket, &owner, BucketConfig::default()).await.map_err(error::of)?;
    let location = Some(format!("/{bucket}"));
    Ok(S3Response::new(CreateBucketOutput { location, ..CreateBucketOutput::default() }))
}

/// Names AWS keeps for itself, beyond the form that s3s checks
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn check_reserved(bucket: &str) -> S3Result<()> {
    let reserved = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| bucket.starts_with(prefix))
        || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|suffix| bucket.ends_with(suffix));
    if reserved { Err(s3_error!(InvalidBucketName, "the name {bucket} is reserved by S3")) } else { Ok(()) }
}

pub async fn head(frontend: &Frontend, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
    frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    let bucket_region = Some(frontend.region.clone());
    Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    frontend.store.delete_bucket(&request.input.bucket).await.map_err(error::of)?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

pub async fn location(
    frontend: &Frontend,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    let named = frontend.region != NAMELESS_REGION;
    let location_constraint = named.then(|| BucketLocationConstraint::from(frontend.region.clone()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}

pub async fn list(
    frontend: &Frontend,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let owner = owner_of(&super::asker(&request)?.canonical_id());
    let ListBucketsInput { continuation_token, max_buckets, prefix, .. } = request.input;
    let max = match max_buckets {
        None => LIST_BUCKETS_MAX,
        Some(asked) => u32::try_from(asked)
            .ok()
            .filter(|asked| (1..=LIST_BUCKETS_MAX).contains(asked))
            .ok_or_else(|| error::invalid_argument("max-buckets must be an integer between 1 and 10000"))?,
    };
    let mut start = continuation_token.as_deref().map(decode_token).transpose()?;
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut stale = false;
    loop {
        let room = max - u32::try_from(buckets.len()).unwrap_or(max);
        let query = ListQuery {
            prefix: prefix.clone().unwrap_or_default(),
            start: start.take().unwrap_or_default(),
            delimiter: None,
            limit: room.min(LIST_BUCKETS_PAGE),
        };
        let page = frontend.store.list_buckets(query).await.map_err(error::of)?;
        buckets.extend(page.items.into_iter().filter_map(|item| match item {
            Listed::Key(name, record) => Some(entry(name, &record)),
            Listed::Group(_) => None,
        }));
        stale |= page.stale;
        start = page.next;
        if start.is_none() || buckets.len() >= max as usize {
            break;
        }
    }
    let output = ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token: start.as_deref().map(encode_token),
        owner: Some(owner),
        prefix,
    };
    Ok(super::answer(output, stale))
}

fn entry(name: String, record: &BucketRecord) -> Bucket {
    Bucket { creation_date: Some(timestamp(record.created_ms)), name: Some(name), ..Bucket::default() }
}
