//! Lifecycle rules of a bucket, between s3s's types and the core's, and the headers that announce what they will do
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html>).

use palm_core::s3::Refusal;
use palm_core::s3::calendar::DAY_MS;
use palm_core::s3::lifecycle::{
    Configuration, Days, Expiration, Filter, Form, Noncurrent, NoncurrentTransition, Rule, Standing, Transition,
    Version, When, fill_ids,
};
use palm_core::s3::tags::{On, validate as validate_tags};
use s3s::dto::{
    AbortIncompleteMultipartUpload, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput, ExpirationStatus,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, LifecycleExpiration, LifecycleRule,
    LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, NoncurrentVersionTransition,
    PutBucketLifecycleConfigurationInput, PutBucketLifecycleConfigurationOutput, Tag, Timestamp,
    Transition as DtoTransition, TransitionDefaultMinimumObjectSize, TransitionStorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use time::OffsetDateTime;

use super::{Frontend, error, timestamp};
use crate::object::Object;

const VARIES_BY_CLASS: &str = TransitionDefaultMinimumObjectSize::VARIES_BY_STORAGE_CLASS;
const ALL_CLASSES: &str = TransitionDefaultMinimumObjectSize::ALL_STORAGE_CLASSES_128K;

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let input = request.input;
    let given = input.lifecycle_configuration.ok_or_else(|| S3Error::new(S3ErrorCode::MalformedXML))?;
    let mut configuration = read(given.rules).map_err(|refusal| error::of_refusal(&refusal))?;
    configuration.minimum_varies_by_class = match input.transition_default_minimum_object_size.as_ref() {
        None => false,
        Some(size) if size.as_str() == VARIES_BY_CLASS => true,
        Some(size) if size.as_str() == ALL_CLASSES => false,
        Some(_) => return Err(error::invalid_argument("Invalid x-amz-transition-default-minimum-object-size")),
    };
    let minimum = minimum_of(&configuration);
    frontend
        .store
        .change_bucket(&input.bucket, |record| {
            record.config.lifecycle = Some(configuration.clone());
            Ok(())
        })
        .await
        .map_err(error::of)?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput { transition_default_minimum_object_size: Some(minimum) }))
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let record = frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    let configuration = record.config.lifecycle.ok_or_else(|| {
        let message = "The lifecycle configuration does not exist";
        error::of_refusal(&Refusal::with_status(404, "NoSuchLifecycleConfiguration", message))
    })?;
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
        transition_default_minimum_object_size: Some(minimum_of(&configuration)),
        rules: Some(configuration.rules().iter().cloned().map(write_rule).collect()),
    }))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    frontend
        .store
        .change_bucket(&request.input.bucket, |record| {
            record.config.lifecycle = None;
            Ok(())
        })
        .await
        .map_err(error::of)?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
}

/// `x-amz-expiration` of an object that is the current version of its key; `None` where no rule will expire it. In days of
/// the calendar, also where tests run the rules by shorter ones. From this peer's copy of the bucket: it is a notice.
pub fn expiration_header(frontend: &Frontend, bucket: &str, key: &str, object: &Object) -> Option<String> {
    let configuration = frontend.store.peek_bucket(bucket)?.config.lifecycle?;
    let version = Version {
        key,
        size: object.record.size,
        tags: &object.record.subresources.tags,
        modified_ms: object.modified_ms(),
        delete_marker: false,
        standing: Standing::Current { only: true },
    };
    configuration.expiration_header(&version, Days::default())
}

/// `x-amz-abort-date` and `x-amz-abort-rule-id` of an upload; `None` where no rule will abort it.
pub fn abort_headers(frontend: &Frontend, bucket: &str, key: &str, begun_ms: u64) -> Option<(Timestamp, String)> {
    let configuration = frontend.store.peek_bucket(bucket)?.config.lifecycle?;
    let (due_ms, rule) = configuration.abort_date(key, begun_ms, Days::default())?;
    Some((timestamp(due_ms), rule.id.clone()))
}

fn minimum_of(configuration: &Configuration) -> TransitionDefaultMinimumObjectSize {
    let size = if configuration.minimum_varies_by_class { VARIES_BY_CLASS } else { ALL_CLASSES };
    TransitionDefaultMinimumObjectSize::from_static(size)
}

fn read(rules: Vec<LifecycleRule>) -> Result<Configuration, Refusal> {
    let mut rules: Vec<Rule> = rules.into_iter().map(read_rule).collect::<Result<_, _>>()?;
    // As AWS does: 24 random bytes as text. Nobody has to guess them.
    fill_ids(&mut rules, |_| data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 24]>()));
    Configuration::new(rules)
}

fn read_rule(rule: LifecycleRule) -> Result<Rule, Refusal> {
    let enabled = match rule.status.as_str() {
        ExpirationStatus::ENABLED => true,
        ExpirationStatus::DISABLED => false,
        _ => return Err(Refusal::malformed_xml()),
    };
    let filter = match (rule.filter, rule.prefix) {
        (Some(filter), None) => read_filter(filter)?,
        (None, Some(prefix)) => Filter { prefix: Some(prefix), form: Form::Prefix, ..Filter::default() },
        // Neither would be every object, by omission.
        (Some(_), Some(_)) | (None, None) => return Err(Refusal::malformed_xml()),
    };
    let noncurrent = rule.noncurrent_version_expiration.map(|expiration| {
        let NoncurrentVersionExpiration { newer_noncurrent_versions, noncurrent_days } = expiration;
        let days = count(noncurrent_days.ok_or_else(Refusal::malformed_xml)?)?;
        Ok(Noncurrent { days, keep_newer: newer_noncurrent_versions.map(count).transpose()? })
    });
    let abort_days = rule.abort_incomplete_multipart_upload.map(|abort| {
        let AbortIncompleteMultipartUpload { days_after_initiation } = abort;
        days_after_initiation.ok_or_else(Refusal::malformed_xml).and_then(count)
    });
    let noncurrent_transitions = rule.noncurrent_version_transitions.unwrap_or_default();
    Ok(Rule {
        id: rule.id.unwrap_or_default(),
        enabled,
        filter,
        expiration: rule.expiration.map(read_expiration).transpose()?,
        noncurrent: noncurrent.transpose()?,
        abort_days: abort_days.transpose()?,
        transitions: rule.transitions.unwrap_or_default().into_iter().map(read_transition).collect::<Result<_, _>>()?,
        noncurrent_transitions: noncurrent_transitions
            .into_iter()
            .map(read_noncurrent_transition)
            .collect::<Result<_, _>>()?,
    })
}

/// `Filter` holds one element at most; several go into an `And` of at least two.
fn read_filter(filter: LifecycleRuleFilter) -> Result<Filter, Refusal> {
    let LifecycleRuleFilter { and, object_size_greater_than, object_size_less_than, prefix, tag } = filter;
    let alone = [prefix.is_some(), tag.is_some(), object_size_greater_than.is_some(), object_size_less_than.is_some()];
    let elements = alone.into_iter().filter(|given| *given).count();
    let (form, tags, prefix, larger, smaller) = match and {
        None if elements <= 1 => {
            (Form::Filter, tag.into_iter().collect(), prefix, object_size_greater_than, object_size_less_than)
        }
        Some(and) if elements == 0 => {
            let LifecycleRuleAndOperator { object_size_greater_than, object_size_less_than, prefix, tags } = and;
            (Form::And, tags.unwrap_or_default(), prefix, object_size_greater_than, object_size_less_than)
        }
        _ => return Err(Refusal::malformed_xml()),
    };
    let tags = tags.into_iter().map(|Tag { key, value }| Some((key?, value?))).collect::<Option<Vec<_>>>();
    let tags = tags.ok_or_else(Refusal::malformed_xml)?;
    let names: std::collections::BTreeSet<&String> = tags.iter().map(|(name, _)| name).collect();
    if names.len() < tags.len() {
        return Err(Refusal::invalid_request("Duplicate Tag Keys are not allowed."));
    }
    Ok(Filter {
        prefix,
        tags: validate_tags(tags, On::Object)?,
        larger_than: larger.map(size).transpose()?,
        smaller_than: smaller.map(size).transpose()?,
        form,
    })
}

fn read_expiration(expiration: LifecycleExpiration) -> Result<Expiration, Refusal> {
    let LifecycleExpiration { date, days, expired_object_delete_marker } = expiration;
    match (date, days, expired_object_delete_marker.unwrap_or(false)) {
        (Some(date), None, false) => Ok(Expiration::Date(millis(date))),
        (None, Some(days), false) => Ok(Expiration::Days(count(days)?)),
        (None, None, true) => Ok(Expiration::ExpiredDeleteMarker),
        _ => Err(Refusal::malformed_xml()),
    }
}

fn read_transition(transition: DtoTransition) -> Result<Transition, Refusal> {
    let when = match (transition.days, transition.date) {
        (Some(days), None) => When::Days(count(days)?),
        (None, Some(date)) => When::Date(millis(date)),
        _ => return Err(Refusal::malformed_xml()),
    };
    Ok(Transition { when, class: class(transition.storage_class)? })
}

fn read_noncurrent_transition(transition: NoncurrentVersionTransition) -> Result<NoncurrentTransition, Refusal> {
    let NoncurrentVersionTransition { newer_noncurrent_versions, noncurrent_days, storage_class } = transition;
    Ok(NoncurrentTransition {
        days: count(noncurrent_days.ok_or_else(Refusal::malformed_xml)?)?,
        keep_newer: newer_noncurrent_versions.map(count).transpose()?,
        class: class(storage_class)?,
    })
}

fn class(class: Option<TransitionStorageClass>) -> Result<String, Refusal> {
    class.map(|class| class.as_str().to_owned()).ok_or_else(Refusal::malformed_xml)
}

fn count(number: i32) -> Result<u32, Refusal> {
    u32::try_from(number).map_err(|_| Refusal::invalid_argument("Days and versions are counted in positive integers"))
}

fn size(bytes: i64) -> Result<u64, Refusal> {
    u64::try_from(bytes).map_err(|_| Refusal::invalid_argument("Sizes of objects are not negative"))
}

fn millis(date: Timestamp) -> u64 {
    let nanos = OffsetDateTime::from(date).unix_timestamp_nanos();
    let millis = u64::try_from(nanos / 1_000_000).ok().filter(|_| nanos % 1_000_000 == 0);
    // A part of a millisecond is no midnight either, nor is there one before 1970.
    millis.unwrap_or(DAY_MS + 1)
}

fn write_rule(rule: Rule) -> LifecycleRule {
    let Rule { id, enabled, filter, expiration, noncurrent, abort_days, transitions, noncurrent_transitions } = rule;
    let (filter, prefix) = write_filter(filter);
    let status = if enabled { ExpirationStatus::ENABLED } else { ExpirationStatus::DISABLED };
    LifecycleRule {
        id: Some(id),
        status: ExpirationStatus::from_static(status),
        filter,
        prefix,
        expiration: expiration.map(|expiration| match expiration {
            Expiration::Days(days) => {
                LifecycleExpiration { days: Some(signed(days)), ..LifecycleExpiration::default() }
            }
            Expiration::Date(date) => {
                LifecycleExpiration { date: Some(timestamp(date)), ..LifecycleExpiration::default() }
            }
            Expiration::ExpiredDeleteMarker => {
                LifecycleExpiration { expired_object_delete_marker: Some(true), ..LifecycleExpiration::default() }
            }
        }),
        noncurrent_version_expiration: noncurrent.map(|Noncurrent { days, keep_newer }| NoncurrentVersionExpiration {
            noncurrent_days: Some(signed(days)),
            newer_noncurrent_versions: keep_newer.map(signed),
        }),
        abort_incomplete_multipart_upload: abort_days
            .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(signed(days)) }),
        transitions: some_list(transitions, |Transition { when, class }| {
            let (days, date) = match when {
                When::Days(days) => (Some(signed(days)), None),
                When::Date(date) => (None, Some(timestamp(date))),
            };
            DtoTransition { days, date, storage_class: Some(class.into()) }
        }),
        noncurrent_version_transitions: some_list(
            noncurrent_transitions,
            |NoncurrentTransition { days, keep_newer, class }| NoncurrentVersionTransition {
                newer_noncurrent_versions: keep_newer.map(signed),
                noncurrent_days: Some(signed(days)),
                storage_class: Some(class.into()),
            },
        ),
    }
}

fn write_filter(filter: Filter) -> (Option<LifecycleRuleFilter>, Option<String>) {
    let Filter { prefix, tags, larger_than, smaller_than, form } = filter;
    let mut tags = tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) });
    let (object_size_greater_than, object_size_less_than) =
        (larger_than.map(super::signed), smaller_than.map(super::signed));
    let filter = match form {
        Form::Prefix => return (None, prefix),
        Form::Filter => {
            LifecycleRuleFilter { and: None, object_size_greater_than, object_size_less_than, prefix, tag: tags.next() }
        }
        Form::And => {
            let tags = some_list(tags.collect(), std::convert::identity);
            let and = LifecycleRuleAndOperator { object_size_greater_than, object_size_less_than, prefix, tags };
            LifecycleRuleFilter { and: Some(and), ..LifecycleRuleFilter::default() }
        }
    };
    (Some(filter), None)
}

/// A list that is left out where it is empty.
fn some_list<T, U>(items: Vec<T>, write: impl Fn(T) -> U) -> Option<Vec<U>> {
    (!items.is_empty()).then(|| items.into_iter().map(write).collect())
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
