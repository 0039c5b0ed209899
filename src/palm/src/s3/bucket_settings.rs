//! The plain settings of a bucket: what is put is what is given back. Tags, default encryption, and what PALM has only
//! the answers of a bucket without for: request payment, acceleration, replication. Tools read all of them before they
//! change anything.

use palm_core::record::{BucketConfig, DefaultEncryption};
use palm_core::s3::Refusal;
use palm_core::s3::tags::On;
use s3s::dto::{
    DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput, DeleteBucketReplicationInput,
    DeleteBucketReplicationOutput, DeleteBucketTaggingInput, DeleteBucketTaggingOutput,
    GetBucketAccelerateConfigurationInput, GetBucketAccelerateConfigurationOutput, GetBucketEncryptionInput,
    GetBucketEncryptionOutput, GetBucketReplicationInput, GetBucketReplicationOutput, GetBucketRequestPaymentInput,
    GetBucketRequestPaymentOutput, GetBucketTaggingInput, GetBucketTaggingOutput, Payer, PutBucketEncryptionInput,
    PutBucketEncryptionOutput, PutBucketRequestPaymentInput, PutBucketRequestPaymentOutput, PutBucketTaggingInput,
    PutBucketTaggingOutput, ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{Frontend, error, tagging};

/// Changes a bucket's settings.
pub async fn change(
    frontend: &Frontend,
    bucket: &str,
    change: impl Fn(&mut BucketConfig) -> Result<(), Refusal> + Send + Sync,
) -> S3Result<()> {
    let changed = frontend.store.change_bucket(bucket, |record| change(&mut record.config));
    changed.await.map(drop).map_err(error::of)
}

/// A bucket's settings, as a strong read finds them.
pub async fn settings(frontend: &Frontend, bucket: &str) -> S3Result<BucketConfig> {
    Ok(frontend.store.bucket(bucket).await.map_err(error::of)?.config)
}

pub async fn put_tagging(
    frontend: &Frontend,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let tags = tagging::parse(request.input.tagging.tag_set, On::Bucket)?;
    change(frontend, &request.input.bucket, |config| {
        config.tags.clone_from(&tags);
        Ok(())
    })
    .await?;
    Ok(S3Response::new(PutBucketTaggingOutput::default()))
}

pub async fn get_tagging(
    frontend: &Frontend,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let tags = settings(frontend, &request.input.bucket).await?.tags;
    if tags.is_empty() {
        return Err(S3Error::with_message(S3ErrorCode::NoSuchTagSet, "The TagSet does not exist"));
    }
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: tagging::write(&tags) }))
}

pub async fn delete_tagging(
    frontend: &Frontend,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    change(frontend, &request.input.bucket, |config| {
        config.tags.clear();
        Ok(())
    })
    .await?;
    Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
}

/// `PutBucketEncryption` (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketEncryption.html>): everything is
/// sealed anyway, so AES256 is true whatever is put, and keys of a service that PALM does not have are refused.
pub async fn put_encryption(
    frontend: &Frontend,
    request: S3Request<PutBucketEncryptionInput>,
) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
    let rules = request.input.server_side_encryption_configuration.rules;
    let encryption = read_encryption(rules)?;
    change(frontend, &request.input.bucket, |config| {
        config.encryption = Some(encryption);
        Ok(())
    })
    .await?;
    Ok(S3Response::new(PutBucketEncryptionOutput::default()))
}

fn read_encryption(rules: Vec<ServerSideEncryptionRule>) -> S3Result<DefaultEncryption> {
    let malformed = || S3Error::new(S3ErrorCode::MalformedXML);
    let [rule] = <[_; 1]>::try_from(rules).map_err(|_| malformed())?;
    let default = rule.apply_server_side_encryption_by_default.ok_or_else(malformed)?;
    match default.sse_algorithm.as_str() {
        ServerSideEncryption::AES256 if default.kms_master_key_id.is_some() => Err(error::invalid_argument(
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms",
        )),
        ServerSideEncryption::AES256 => Ok(DefaultEncryption { bucket_key: rule.bucket_key_enabled.unwrap_or(false) }),
        ServerSideEncryption::AWS_KMS | ServerSideEncryption::AWS_KMS_DSSE => {
            Err(error::not_implemented("Server-side encryption with keys of a key service is not implemented"))
        }
        _ => Err(malformed()),
    }
}

/// `GetBucketEncryption`. AWS answers AES256 for every bucket since 2023; tools and suites still expect to be told when
/// nothing was configured, and take both.
pub async fn get_encryption(
    frontend: &Frontend,
    request: S3Request<GetBucketEncryptionInput>,
) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
    let encryption = settings(frontend, &request.input.bucket).await?.encryption;
    let encryption = encryption.ok_or_else(|| {
        let text = "The server side encryption configuration was not found";
        let mut told = S3Error::with_message(S3ErrorCode::ServerSideEncryptionConfigurationNotFoundError, text);
        // s3s says 400, AWS does not.
        told.set_status_code(http::StatusCode::NOT_FOUND);
        told
    })?;
    let by_default = ServerSideEncryptionByDefault {
        kms_master_key_id: None,
        sse_algorithm: ServerSideEncryption::from_static(ServerSideEncryption::AES256),
    };
    let rule = ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(by_default),
        blocked_encryption_types: None,
        bucket_key_enabled: Some(encryption.bucket_key),
    };
    Ok(S3Response::new(GetBucketEncryptionOutput {
        server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration { rules: vec![rule] }),
    }))
}

pub async fn delete_encryption(
    frontend: &Frontend,
    request: S3Request<DeleteBucketEncryptionInput>,
) -> S3Result<S3Response<DeleteBucketEncryptionOutput>> {
    change(frontend, &request.input.bucket, |config| {
        config.encryption = None;
        Ok(())
    })
    .await?;
    Ok(S3Response::new(DeleteBucketEncryptionOutput::default()))
}

pub async fn get_request_payment(
    frontend: &Frontend,
    request: S3Request<GetBucketRequestPaymentInput>,
) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
    settings(frontend, &request.input.bucket).await?;
    Ok(S3Response::new(GetBucketRequestPaymentOutput { payer: Some(Payer::from_static(Payer::BUCKET_OWNER)) }))
}

/// `PutBucketRequestPayment`: nobody pays, so only what is so anyway can be put.
pub async fn put_request_payment(
    frontend: &Frontend,
    request: S3Request<PutBucketRequestPaymentInput>,
) -> S3Result<S3Response<PutBucketRequestPaymentOutput>> {
    settings(frontend, &request.input.bucket).await?;
    match request.input.request_payment_configuration.payer.as_str() {
        Payer::BUCKET_OWNER => Ok(S3Response::new(PutBucketRequestPaymentOutput::default())),
        Payer::REQUESTER => Err(error::not_implemented("Requester pays is not implemented")),
        _ => Err(S3Error::new(S3ErrorCode::MalformedXML)),
    }
}

/// `GetBucketAccelerateConfiguration` of a bucket where it was never set: no status at all.
pub async fn get_accelerate(
    frontend: &Frontend,
    request: S3Request<GetBucketAccelerateConfigurationInput>,
) -> S3Result<S3Response<GetBucketAccelerateConfigurationOutput>> {
    settings(frontend, &request.input.bucket).await?;
    Ok(S3Response::new(GetBucketAccelerateConfigurationOutput::default()))
}

pub async fn get_replication(
    frontend: &Frontend,
    request: S3Request<GetBucketReplicationInput>,
) -> S3Result<S3Response<GetBucketReplicationOutput>> {
    settings(frontend, &request.input.bucket).await?;
    Err(S3Error::with_message(
        S3ErrorCode::ReplicationConfigurationNotFoundError,
        "The replication configuration was not found",
    ))
}

/// `DeleteBucketReplication`: there is none, and deleting what is not there succeeds.
pub async fn delete_replication(
    frontend: &Frontend,
    request: S3Request<DeleteBucketReplicationInput>,
) -> S3Result<S3Response<DeleteBucketReplicationOutput>> {
    settings(frontend, &request.input.bucket).await?;
    Ok(S3Response::new(DeleteBucketReplicationOutput::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(algorithm: &'static str, key: Option<&str>) -> ServerSideEncryptionRule {
        ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
                kms_master_key_id: key.map(str::to_owned),
                sse_algorithm: ServerSideEncryption::from_static(algorithm),
            }),
            blocked_encryption_types: None,
            bucket_key_enabled: Some(true),
        }
    }

    /// Scenario: a bucket's default encryption is set. Danger: a client that asked for keys of its key service is told
    /// yes. Expectation: only AES256 is taken.
    #[test]
    fn only_what_is_so_is_promised() {
        assert_eq!(read_encryption(vec![rule("AES256", None)]).expect("taken"), DefaultEncryption { bucket_key: true });
        let code = |rules| read_encryption(rules).expect_err("refused").code().as_str().to_owned();
        assert_eq!(code(vec![rule("aws:kms", Some("key"))]), "NotImplemented");
        assert_eq!(code(vec![rule("aws:kms:dsse", None)]), "NotImplemented");
        assert_eq!(code(vec![rule("AES256", Some("key"))]), "InvalidArgument");
        assert_eq!(code(vec![rule("rot13", None)]), "MalformedXML");
        assert_eq!(code(vec![]), "MalformedXML");
    }
}
