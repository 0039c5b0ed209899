//! Buckets.

use http::HeaderMap;
use palm_core::record::{BucketConfig, BucketRecord, ObjectLock};
use palm_core::s3::acl::Ownership;
use palm_core::s3::tags::On;
use palm_core::s3::version::Versioning;
use s3s::dto::{
    Bucket, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::bucket_settings::settings;
use super::list::{decode_token, encode_token};
use super::{Frontend, access, acl, error, tagging, timestamp};
use crate::object::{ListQuery, Listed, ObjectError};

/// Buckets one `ListBuckets` answer holds at most (AWS's limit).
const LIST_BUCKETS_MAX: u32 = 10_000;
/// Buckets asked of the object layer at once.
const LIST_BUCKETS_PAGE: u32 = 1_000;

/// Longest location that is taken.
const LOCATION_MAX_BYTES: usize = 64;

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
    // either is accepted, and given back.
    let mut config = config(frontend, &owner, &request.headers).await?;
    let asked = request.input.create_bucket_configuration.unwrap_or_default();
    config.tags = tagging::parse(asked.tags.unwrap_or_default(), On::Bucket)?;
    config.location = asked.location_constraint.map(|location| location.as_str().to_owned());
    if config.location.as_ref().is_some_and(|location| location.len() > LOCATION_MAX_BYTES) {
        return Err(s3_error!(InvalidLocationConstraint));
    }
    if request.input.object_lock_enabled_for_bucket == Some(true) {
        config.versioning = Versioning::Enabled;
        config.object_lock = Some(ObjectLock::default());
    }
    // In the region without a name an owner may make a bucket again that is to be nothing special: the answer is that of the
    // first time, and nothing changes
    // (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html>, BucketAlreadyOwnedByYou).
    let again = frontend.region == NAMELESS_REGION && config == BucketConfig::default();
    match frontend.store.create_bucket(bucket, &owner, config).await {
        Err(ObjectError::BucketExists { owned: true }) if again => {}
        made => made.map_err(error::of)?,
    }
    let location = Some(format!("/{bucket}"));
    Ok(S3Response::new(CreateBucketOutput { location, ..CreateBucketOutput::default() }))
}

/// What a bucket is from the start, as the headers have it.
async fn config(frontend: &Frontend, owner: &str, headers: &HeaderMap) -> S3Result<BucketConfig> {
    let named = access::header(headers, "x-amz-object-ownership").map(Ownership::parse).transpose();
    let named = named.map_err(|_| error::invalid_argument("Invalid x-amz-object-ownership header"))?;
    let mut config = BucketConfig { ownership: named, ..BucketConfig::default() };
    config.acl = acl::of_new_bucket(&frontend.store, owner, &config, headers).await?;
    Ok(config)
}

/// Names AWS keeps for itself, beyond the form that s3s checks
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn check_reserved(bucket: &str) -> S3Result<()> {
    let reserved = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| bucket.starts_with(prefix))
        || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|suffix| bucket.ends_with(suffix));
    if reserved {
        return Err(s3_error!(InvalidBucketName, "the name {bucket} is reserved by S3"));
    }
    // As a host name each of its labels would be invalid.
    let is_host = bucket.split('.').all(|label| !label.starts_with('-') && !label.ends_with('-'));
    if is_host { Ok(()) } else { Err(s3_error!(InvalidBucketName)) }
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
    let given = settings(frontend, &request.input.bucket).await?.location;
    let named = Some(frontend.region.clone()).filter(|region| region != NAMELESS_REGION);
    let location_constraint = given.or(named).map(BucketLocationConstraint::from);
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}

pub async fn list(
    frontend: &Frontend,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let asker = super::asker(&request)?.canonical_id();
    let owner = acl::owner(&frontend.store, &asker);
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
            Listed::Key(name, record) if record.owner == asker => Some(entry(name, &record)),
            Listed::Key(..) | Listed::Group(_) => None,
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
