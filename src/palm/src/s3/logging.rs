//! Where a bucket's access log goes, between s3s's types and the core's
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLogging.html>).

use palm_core::record::Logging;
use palm_core::s3::Refusal;
use palm_core::s3::acl::{Grant, Grantee, Permission};
use s3s::dto::{
    BucketLoggingStatus, BucketLogsPermission, GetBucketLoggingInput, GetBucketLoggingOutput, Grantee as DtoGrantee,
    LoggingEnabled, PartitionDateSource, PartitionedPrefix, PutBucketLoggingInput, PutBucketLoggingOutput,
    SimplePrefix, TargetGrant, TargetObjectKeyFormat, Type,
};
use s3s::{S3Request, S3Response, S3Result};

use super::{Frontend, error};
use crate::object::ObjectError;

/// Most grants on a log's objects, and the longest prefix of their keys, in bytes: 1,024 less what follows it.
const GRANTS_MAX: usize = 100;
const PREFIX_MAX: usize = 800;

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketLoggingInput>,
) -> S3Result<S3Response<PutBucketLoggingOutput>> {
    let PutBucketLoggingInput { bucket, bucket_logging_status, .. } = request.input;
    let BucketLoggingStatus { logging_enabled } = bucket_logging_status;
    let logging = logging_enabled.map(read).transpose().map_err(|refusal| error::of_refusal(&refusal))?;
    if let Some(logging) = &logging {
        let source = frontend.store.bucket(&bucket).await.map_err(error::of)?;
        let usable = match frontend.store.bucket(&logging.bucket).await {
            Ok(target) => target.owner == source.owner,
            Err(ObjectError::NoSuchBucket) => false,
            Err(failure) => return Err(error::of(failure)),
        };
        if !usable {
            let message = "The target bucket for logging does not exist, is not owned by you, or does not have the \
                           appropriate grants for the log-delivery group.";
            return Err(error::of_refusal(&Refusal::bad("InvalidTargetBucketForLogging", message)));
        }
    }
    frontend
        .store
        .change_bucket(&bucket, |record| {
            record.config.logging.clone_from(&logging);
            Ok(())
        })
        .await
        .map_err(error::of)?;
    Ok(S3Response::new(PutBucketLoggingOutput::default()))
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketLoggingInput>,
) -> S3Result<S3Response<GetBucketLoggingOutput>> {
    let record = frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    Ok(S3Response::new(GetBucketLoggingOutput { logging_enabled: record.config.logging.map(write) }))
}

fn read(given: LoggingEnabled) -> Result<Logging, Refusal> {
    let LoggingEnabled { target_bucket, target_grants, target_object_key_format, target_prefix } = given;
    if target_prefix.len() > PREFIX_MAX {
        return Err(Refusal::invalid_argument(format!("TargetPrefix is longer than {PREFIX_MAX} bytes")));
    }
    let grants = target_grants.unwrap_or_default();
    if grants.len() > GRANTS_MAX {
        return Err(Refusal::malformed_xml());
    }
    let partitioned_by_event_time = match target_object_key_format {
        None | Some(TargetObjectKeyFormat { partitioned_prefix: None, simple_prefix: Some(_) }) => None,
        Some(TargetObjectKeyFormat { partitioned_prefix: Some(partitioned), simple_prefix: None }) => {
            match partitioned.partition_date_source.as_ref().map(PartitionDateSource::as_str) {
                Some(PartitionDateSource::EVENT_TIME) => Some(true),
                Some(PartitionDateSource::DELIVERY_TIME) | None => Some(false),
                Some(_) => return Err(Refusal::malformed_xml()),
            }
        }
        Some(_) => return Err(Refusal::malformed_xml()),
    };
    Ok(Logging {
        bucket: target_bucket,
        prefix: target_prefix,
        grants: grants.into_iter().map(read_grant).collect::<Result<_, _>>()?,
        partitioned_by_event_time,
    })
}

fn read_grant(grant: TargetGrant) -> Result<Grant, Refusal> {
    let TargetGrant { grantee, permission } = grant;
    let (grantee, permission) = grantee.zip(permission).ok_or_else(Refusal::malformed_xml)?;
    let grantee = match grantee {
        DtoGrantee { uri: Some(uri), .. } => Grantee::group(&uri)?,
        DtoGrantee { id: Some(id), .. } => Grantee::CanonicalId(id),
        _ => {
            let message = "The e-mail address you provided does not match any account on record.";
            return Err(Refusal::bad("UnresolvableGrantByEmailAddress", message));
        }
    };
    let permission = match permission.as_str() {
        BucketLogsPermission::FULL_CONTROL => Permission::FullControl,
        BucketLogsPermission::READ => Permission::Read,
        BucketLogsPermission::WRITE => Permission::Write,
        _ => return Err(Refusal::malformed_xml()),
    };
    Ok(Grant { grantee, permission })
}

fn write(logging: Logging) -> LoggingEnabled {
    let Logging { bucket, prefix, grants, partitioned_by_event_time } = logging;
    let format = partitioned_by_event_time.map(|by_event| {
        let source = if by_event { PartitionDateSource::EVENT_TIME } else { PartitionDateSource::DELIVERY_TIME };
        let partition_date_source = Some(PartitionDateSource::from_static(source));
        TargetObjectKeyFormat {
            partitioned_prefix: Some(PartitionedPrefix { partition_date_source }),
            simple_prefix: None,
        }
    });
    LoggingEnabled {
        target_bucket: bucket,
        target_prefix: prefix,
        target_grants: (!grants.is_empty()).then(|| grants.into_iter().map(write_grant).collect()),
        target_object_key_format: Some(format.unwrap_or(TargetObjectKeyFormat {
            partitioned_prefix: None,
            simple_prefix: Some(SimplePrefix::default()),
        })),
    }
}

fn write_grant(grant: Grant) -> TargetGrant {
    let Grant { grantee, permission } = grant;
    let uri = grantee.uri();
    let (id, kind) = match grantee {
        Grantee::CanonicalId(id) => (Some(id), Type::CANONICAL_USER),
        _ => (None, Type::GROUP),
    };
    let type_ = Type::from_static(kind);
    TargetGrant {
        grantee: Some(DtoGrantee { display_name: None, email_address: None, id, type_, uri }),
        permission: Some(BucketLogsPermission::from(permission.name().to_owned())),
    }
}
