//! Object ownership (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html>) and the public access
//! block (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>) of a bucket.

use palm_core::s3::acl::{Acl, Ownership, PublicAccessBlock};
use s3s::dto::{
    DeleteBucketOwnershipControlsInput, DeleteBucketOwnershipControlsOutput, DeletePublicAccessBlockInput,
    DeletePublicAccessBlockOutput, GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput,
    GetPublicAccessBlockInput, GetPublicAccessBlockOutput, ObjectOwnership, OwnershipControls, OwnershipControlsRule,
    PublicAccessBlockConfiguration, PutBucketOwnershipControlsInput, PutBucketOwnershipControlsOutput,
    PutPublicAccessBlockInput, PutPublicAccessBlockOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{Frontend, access, error};

#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn get(
    _: &Frontend,
    request: S3Request<GetBucketOwnershipControlsInput>,
) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
    let ownership = access::bucket(&request.extensions)?.config.ownership;
    let ownership = ownership.ok_or_else(|| S3Error::new(S3ErrorCode::OwnershipControlsNotFoundError))?;
    let rule = OwnershipControlsRule { object_ownership: ObjectOwnership::from_static(ownership.name()) };
    let ownership_controls = Some(OwnershipControls { rules: vec![rule] });
    Ok(S3Response::new(GetBucketOwnershipControlsOutput { ownership_controls }))
}

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketOwnershipControlsInput>,
) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
    let PutBucketOwnershipControlsInput { bucket, ownership_controls, .. } = request.input;
    let [rule] = ownership_controls.rules.as_slice() else { return Err(S3Error::new(S3ErrorCode::MalformedXML)) };
    let ownership = Ownership::parse(rule.object_ownership.as_str()).map_err(|refusal| error::of_refusal(&refusal))?;
    let changed = frontend.store.change_bucket(&bucket, |record| {
        let acl = record.config.acl.clone().unwrap_or_else(|| Acl::private(&record.owner));
        ownership.check_change(&acl)?;
        record.config.ownership = Some(ownership);
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutBucketOwnershipControlsOutput::default()))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketOwnershipControlsInput>,
) -> S3Result<S3Response<DeleteBucketOwnershipControlsOutput>> {
    let changed = frontend.store.change_bucket(&request.input.bucket, |record| {
        record.config.ownership = None;
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(DeleteBucketOwnershipControlsOutput::default()))
}

#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn get_block(
    _: &Frontend,
    request: S3Request<GetPublicAccessBlockInput>,
) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
    let block = access::bucket(&request.extensions)?.config.public_access_block;
    let block = block.ok_or_else(|| {
        let mut none = S3Error::with_message(
            S3ErrorCode::Custom("NoSuchPublicAccessBlockConfiguration".into()),
            "The public access block configuration was not found",
        );
        none.set_status_code(http::StatusCode::NOT_FOUND);
        none
    })?;
    let configuration = PublicAccessBlockConfiguration {
        block_public_acls: Some(block.block_public_acls),
        ignore_public_acls: Some(block.ignore_public_acls),
        block_public_policy: Some(block.block_public_policy),
        restrict_public_buckets: Some(block.restrict_public_buckets),
    };
    Ok(S3Response::new(GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) }))
}

pub async fn put_block(
    frontend: &Frontend,
    request: S3Request<PutPublicAccessBlockInput>,
) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
    let PutPublicAccessBlockInput { bucket, public_access_block_configuration: asked, .. } = request.input;
    let block = PublicAccessBlock {
        block_public_acls: asked.block_public_acls.unwrap_or_default(),
        ignore_public_acls: asked.ignore_public_acls.unwrap_or_default(),
        block_public_policy: asked.block_public_policy.unwrap_or_default(),
        restrict_public_buckets: asked.restrict_public_buckets.unwrap_or_default(),
    };
    let changed = frontend.store.change_bucket(&bucket, |record| {
        record.config.public_access_block = Some(block);
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutPublicAccessBlockOutput::default()))
}

pub async fn delete_block(
    frontend: &Frontend,
    request: S3Request<DeletePublicAccessBlockInput>,
) -> S3Result<S3Response<DeletePublicAccessBlockOutput>> {
    let changed = frontend.store.change_bucket(&request.input.bucket, |record| {
        record.config.public_access_block = None;
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(DeletePublicAccessBlockOutput::default()))
}
