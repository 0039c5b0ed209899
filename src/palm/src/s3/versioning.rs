//! Whether a bucket keeps versions
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/manage-versioning-examples.html>).

use palm_core::s3::Refusal;
use palm_core::s3::lock::check_versioning;
use palm_core::s3::version::Versioning;
use s3s::dto::{
    BucketVersioningStatus, GetBucketVersioningInput, GetBucketVersioningOutput, MFADelete, PutBucketVersioningInput,
    PutBucketVersioningOutput,
};
use s3s::{S3Request, S3Response, S3Result};

use super::{Frontend, error};

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let bucket = frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    let status = match bucket.config.versioning {
        Versioning::Off => None,
        Versioning::Enabled => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
        Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
    };
    Ok(S3Response::new(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() }))
}

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let PutBucketVersioningInput { bucket, versioning_configuration: asked, .. } = request.input;
    if asked.mfa_delete.is_some_and(|mfa| mfa.as_str() != MFADelete::DISABLED) {
        return Err(error::not_implemented("MFA delete is not implemented"));
    }
    let to = asked_versioning(asked.status.as_ref().map(BucketVersioningStatus::as_str))
        .map_err(|refusal| error::of_refusal(&refusal))?;
    let changed = frontend.store.change_bucket(&bucket, |record| {
        check_versioning(to, record.config.object_lock.is_some())?;
        record.config.versioning = to;
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}

/// Once versions are kept there is no way back to [`Versioning::Off`].
fn asked_versioning(status: Option<&str>) -> Result<Versioning, Refusal> {
    match status {
        Some(BucketVersioningStatus::ENABLED) => Ok(Versioning::Enabled),
        Some(BucketVersioningStatus::SUSPENDED) => Ok(Versioning::Suspended),
        None => {
            Err(Refusal::bad("IllegalVersioningConfigurationException", "The Versioning element must be specified"))
        }
        Some(_) => Err(Refusal::malformed_xml()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html>
    #[test]
    fn only_two_states_can_be_asked_for() {
        assert_eq!(asked_versioning(Some("Enabled")), Ok(Versioning::Enabled));
        assert_eq!(asked_versioning(Some("Suspended")), Ok(Versioning::Suspended));
        let code = |status| asked_versioning(status).expect_err("refused").code;
        assert_eq!(code(Some("enabled")), "MalformedXML");
        assert_eq!(code(None), "IllegalVersioningConfigurationException");
    }
}
