//! Object lock: that of buckets, and retention and legal hold of versions
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>).

use http::Extensions;
use palm_core::record::{BucketRecord, ObjectLock};
use palm_core::s3::lock::{
    Asking, DefaultRetention, Lock, Mode, Retention, check_enable, missing_configuration, no_lock, retention_of_headers,
};
use palm_core::s3::{Refusal, version::Name};
use s3s::dto::{
    self, GetObjectLegalHoldInput, GetObjectLegalHoldOutput, GetObjectLockConfigurationInput,
    GetObjectLockConfigurationOutput, GetObjectRetentionInput, GetObjectRetentionOutput, ObjectLockConfiguration,
    ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode,
    ObjectLockRule, PutObjectLegalHoldInput, PutObjectLegalHoldOutput, PutObjectLockConfigurationInput,
    PutObjectLockConfigurationOutput, PutObjectRetentionInput, PutObjectRetentionOutput,
};
use s3s::{S3Request, S3Response, S3Result};
use time::OffsetDateTime;

use super::object::version_name;
use super::{Frontend, access, answer, error, timestamp};
use crate::object::Object;

/// Takes the lock a version is to have out of the headers of a request that makes one.
macro_rules! take_lock {
    ($input:expr) => {
        $crate::s3::lock::of_headers(
            $input.object_lock_mode.take().as_ref().map(s3s::dto::ObjectLockMode::as_str),
            $input.object_lock_retain_until_date.take(),
            $input.object_lock_legal_hold_status.take().as_ref().map(s3s::dto::ObjectLockLegalHoldStatus::as_str),
        )
    };
}
pub(super) use take_lock;

/// Sets a version's lock in an answer to `GetObject` or `HeadObject`.
macro_rules! set_lock {
    ($output:expr, $lock:expr) => {{
        let lock: &palm_core::s3::lock::Lock = $lock;
        if let Some(retention) = lock.retention {
            $output.object_lock_mode = Some(s3s::dto::ObjectLockMode::from_static(retention.mode.name()));
            $output.object_lock_retain_until_date = Some($crate::s3::timestamp(retention.until_ms));
        }
        $output.object_lock_legal_hold_status = lock.legal_hold.map($crate::s3::lock::hold_status);
    }};
}
pub(super) use set_lock;

fn refuse(refusal: Refusal) -> s3s::S3Error {
    error::of(refusal.into())
}

/// Milliseconds since the epoch; what lies before it is long over.
fn millis(date: dto::Timestamp) -> u64 {
    u64::try_from(OffsetDateTime::from(date).unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// See [`take_lock`].
pub fn of_headers(mode: Option<&str>, until: Option<dto::Timestamp>, hold: Option<&str>) -> S3Result<Lock> {
    let retention = retention_of_headers(mode, until.map(millis)).map_err(refuse)?;
    let legal_hold = match hold {
        None => None,
        Some(ObjectLockLegalHoldStatus::OFF) => Some(false),
        Some(ObjectLockLegalHoldStatus::ON) => Some(true),
        Some(_) => return Err(error::invalid_argument("Legal Hold must be either of 'ON' or 'OFF'")),
    };
    Ok(Lock { retention, legal_hold })
}

/// The lock of a version that is made in a bucket now.
pub fn of_new(asked: Lock, bucket: &BucketRecord, now_ms: u64) -> S3Result<Lock> {
    Lock::for_new(asked, bucket.config.object_lock.map(|lock| lock.default), now_ms).map_err(refuse)
}

/// As XML and headers have it.
pub fn hold_status(on: bool) -> ObjectLockLegalHoldStatus {
    let name = if on { ObjectLockLegalHoldStatus::ON } else { ObjectLockLegalHoldStatus::OFF };
    ObjectLockLegalHoldStatus::from_static(name)
}

/// Who asks, and when. That the asker may bypass has been decided by the gate, which asks for the permission where the header
/// says `true`.
pub fn asking(frontend: &Frontend, bypass: Option<bool>) -> Asking {
    Asking { now_ms: frontend.store.now_ms(), bypass: bypass == Some(true) }
}

/// Refuses what asks for a lock in a bucket without.
fn check_enabled(extensions: &Extensions) -> S3Result<()> {
    let lock = access::bucket(extensions)?.config.object_lock;
    lock.map(drop).ok_or_else(|| refuse(missing_configuration()))
}

#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn get_configuration(
    _: &Frontend,
    request: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    let Some(lock) = access::bucket(&request.extensions)?.config.object_lock else {
        let message = "Object Lock configuration does not exist for this bucket";
        return Err(refuse(Refusal::with_status(404, "ObjectLockConfigurationNotFoundError", message)));
    };
    let rule = lock.default.map(|default| ObjectLockRule {
        default_retention: Some(dto::DefaultRetention {
            days: i32::try_from(default.days).ok(),
            mode: Some(ObjectLockRetentionMode::from_static(default.mode.name())),
            years: None,
        }),
    });
    let object_lock_enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
    let configuration = ObjectLockConfiguration { object_lock_enabled, rule };
    Ok(S3Response::new(GetObjectLockConfigurationOutput { object_lock_configuration: Some(configuration) }))
}

pub async fn put_configuration(
    frontend: &Frontend,
    request: S3Request<PutObjectLockConfigurationInput>,
) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
    let input = request.input;
    let lock = parse_configuration(input.object_lock_configuration)?;
    let changed = frontend.store.change_bucket(&input.bucket, |record| {
        check_enable(record.config.versioning)?;
        record.config.object_lock = Some(lock);
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
}

fn parse_configuration(configuration: Option<ObjectLockConfiguration>) -> S3Result<ObjectLock> {
    let malformed = || refuse(Refusal::malformed_xml());
    let configuration = configuration.ok_or_else(malformed)?;
    let enabled = configuration.object_lock_enabled.as_ref().map(ObjectLockEnabled::as_str);
    if enabled != Some(ObjectLockEnabled::ENABLED) {
        return Err(malformed());
    }
    let Some(rule) = configuration.rule else { return Ok(ObjectLock::default()) };
    let given = rule.default_retention.ok_or_else(malformed)?;
    let mode = Mode::parse(given.mode.as_ref().ok_or_else(malformed)?.as_str()).map_err(refuse)?;
    // Below zero is as wrong as zero.
    let period = |number: Option<i32>| number.map(|number| u32::try_from(number).unwrap_or(0));
    let default = DefaultRetention::new(mode, period(given.days), period(given.years)).map_err(refuse)?;
    Ok(ObjectLock { default: Some(default) })
}

/// An object of a bucket with lock, for reading its lock.
async fn locked(
    (frontend, extensions): (&Frontend, &Extensions),
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> S3Result<Object> {
    let version = version_name(version)?;
    check_enabled(extensions)?;
    frontend.store.head(bucket, key, version).await.map_err(error::of)
}

/// Changes the lock of a version in a bucket with lock, inside the ledger update.
async fn change(
    (frontend, extensions): (&Frontend, &Extensions),
    (bucket, key, version): (&str, &str, Option<Name>),
    change: impl Fn(&Lock) -> Result<Lock, Refusal> + Send + Sync,
) -> S3Result<()> {
    check_enabled(extensions)?;
    let changed = frontend.store.change_object(bucket, key, version, |object| {
        object.subresources.lock = change(&object.subresources.lock)?;
        Ok(())
    });
    changed.await.map(drop).map_err(error::of)
}

pub async fn get_retention(
    frontend: &Frontend,
    request: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    let input = request.input;
    let object =
        locked((frontend, &request.extensions), &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let retention = object.record.subresources.lock.retention.ok_or_else(|| refuse(no_lock()))?;
    let retention = ObjectLockRetention {
        mode: Some(ObjectLockRetentionMode::from_static(retention.mode.name())),
        retain_until_date: Some(timestamp(retention.until_ms)),
    };
    Ok(answer(GetObjectRetentionOutput { retention: Some(retention) }, object.stale))
}

pub async fn put_retention(
    frontend: &Frontend,
    request: S3Request<PutObjectRetentionInput>,
) -> S3Result<S3Response<PutObjectRetentionOutput>> {
    let input = request.input;
    let version = version_name(input.version_id.as_deref())?;
    let retention = parse_retention(input.retention)?;
    let asking = asking(frontend, input.bypass_governance_retention);
    let place = (input.bucket.as_str(), input.key.as_str(), version);
    change((frontend, &request.extensions), place, |lock| lock.with_retention(retention, asking)).await?;
    Ok(S3Response::new(PutObjectRetentionOutput::default()))
}

/// An empty `Retention` takes a retention away.
fn parse_retention(given: Option<ObjectLockRetention>) -> S3Result<Option<Retention>> {
    let malformed = || refuse(Refusal::malformed_xml());
    let given = given.ok_or_else(malformed)?;
    match (given.mode, given.retain_until_date) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let mode = Mode::parse(mode.as_str()).map_err(refuse)?;
            Ok(Some(Retention { mode, until_ms: millis(until) }))
        }
        _ => Err(malformed()),
    }
}

pub async fn get_legal_hold(
    frontend: &Frontend,
    request: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    let input = request.input;
    let object =
        locked((frontend, &request.extensions), &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let on = object.record.subresources.lock.legal_hold.ok_or_else(|| refuse(no_lock()))?;
    let legal_hold = ObjectLockLegalHold { status: Some(hold_status(on)) };
    Ok(answer(GetObjectLegalHoldOutput { legal_hold: Some(legal_hold) }, object.stale))
}

pub async fn put_legal_hold(
    frontend: &Frontend,
    request: S3Request<PutObjectLegalHoldInput>,
) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
    let input = request.input;
    let version = version_name(input.version_id.as_deref())?;
    let status = input.legal_hold.and_then(|hold| hold.status);
    let on = match status.as_ref().map(ObjectLockLegalHoldStatus::as_str) {
        Some(ObjectLockLegalHoldStatus::ON) => true,
        Some(ObjectLockLegalHoldStatus::OFF) => false,
        _ => return Err(refuse(Refusal::malformed_xml())),
    };
    let place = (input.bucket.as_str(), input.key.as_str(), version);
    change((frontend, &request.extensions), place, |lock| Ok(lock.with_legal_hold(on))).await?;
    Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
}
