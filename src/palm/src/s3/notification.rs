//! Notifications of a bucket, between s3s's types and the core's
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html>), and telling of what requests
//! do.

use std::collections::BTreeSet;

use http::Extensions;
use palm_core::record::BucketRecord;
use palm_core::s3::Refusal;
use palm_core::s3::notification::{Configuration, Event, Target, set_filter};
use palm_core::s3::version::Versioning;
use s3s::dto::{
    FilterRule, FilterRuleName, GetBucketNotificationConfigurationInput, GetBucketNotificationConfigurationOutput,
    LambdaFunctionConfiguration, NotificationConfigurationFilter, PutBucketNotificationConfigurationInput,
    PutBucketNotificationConfigurationOutput, QueueConfiguration, S3KeyFilter, TopicConfiguration,
};
use s3s::{S3Request, S3Response, S3Result};

use super::{Frontend, access, error};
use crate::object::{About, Deleted, Notice};

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
    let input = request.input;
    let given = input.notification_configuration;
    if given.event_bridge_configuration.is_some() {
        return Err(error::not_implemented("There is no EventBridge here"));
    }
    let queues = given.queue_configurations.unwrap_or_default().into_iter();
    let topics = given.topic_configurations.unwrap_or_default().into_iter();
    let functions = given.lambda_function_configurations.unwrap_or_default().into_iter();
    let targets = queues
        .map(|to| read("sqs", to.queue_arn, to.id, to.events, to.filter))
        .chain(topics.map(|to| read("sns", to.topic_arn, to.id, to.events, to.filter)))
        .chain(functions.map(|to| read("lambda", to.lambda_function_arn, to.id, to.events, to.filter)));
    let configuration = targets
        .collect::<Result<Vec<Target>, Refusal>>()
        .and_then(|targets| Configuration::new(targets, |arn| frontend.store.knows_target(arn)))
        .map_err(|refusal| error::of_refusal(&refusal))?;
    // Before a target is bothered.
    frontend.store.bucket(&input.bucket).await.map_err(error::of)?;
    if !input.skip_destination_validation.unwrap_or(false) {
        let id = request.extensions.get::<RequestId>().cloned().unwrap_or_default();
        test(frontend, &configuration, &input.bucket, &id.0).await?;
    }
    frontend
        .store
        .change_bucket(&input.bucket, |record| {
            record.config.notification = configuration.clone();
            Ok(())
        })
        .await
        .map_err(error::of)?;
    Ok(S3Response::new(PutBucketNotificationConfigurationOutput::default()))
}

/// "When you configure a notification, Amazon S3 sends `s3:TestEvent`", and refuses targets that do not take it.
async fn test(frontend: &Frontend, configuration: &Configuration, bucket: &str, request_id: &str) -> S3Result<()> {
    let arns: BTreeSet<&str> = configuration.targets().iter().map(|target| target.arn.as_str()).collect();
    for arn in arns {
        if let Err(cause) = frontend.store.test_target(arn, bucket, request_id).await {
            tracing::info!(bucket, arn, cause, "target of notifications refused");
            let message = "Unable to validate the following destination configurations";
            return Err(error::invalid_argument(message));
        }
    }
    Ok(())
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
    let record = frontend.store.bucket(&request.input.bucket).await.map_err(error::of)?;
    let (mut queues, mut topics, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for target in record.config.notification.targets().iter().cloned() {
        let filter = write_filter(&target);
        let Target { id, arn, events, .. } = target;
        let (id, events) = (Some(id), events.into_iter().map(Into::into).collect());
        match service_of(&arn) {
            "sns" => topics.push(TopicConfiguration { events, filter, id, topic_arn: arn }),
            "lambda" => functions.push(LambdaFunctionConfiguration { events, filter, id, lambda_function_arn: arn }),
            _ => queues.push(QueueConfiguration { events, filter, id, queue_arn: arn }),
        }
    }
    let some = |empty: bool| (!empty).then_some(());
    Ok(S3Response::new(GetBucketNotificationConfigurationOutput {
        event_bridge_configuration: None,
        lambda_function_configurations: some(functions.is_empty()).map(|()| functions),
        queue_configurations: some(queues.is_empty()).map(|()| queues),
        topic_configurations: some(topics.is_empty()).map(|()| topics),
    }))
}

/// The third part of an ARN.
fn service_of(arn: &str) -> &str {
    arn.split(':').nth(2).unwrap_or_default()
}

fn read(
    service: &str,
    arn: String,
    id: Option<String>,
    events: Vec<s3s::dto::Event>,
    filter: Option<NotificationConfigurationFilter>,
) -> Result<Target, Refusal> {
    if service_of(&arn) != service {
        return Err(Refusal::invalid_argument("The ARN is not well formed"));
    }
    let mut target = Target {
        // As AWS does where none is given.
        id: id.unwrap_or_else(|| data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 24]>())),
        arn,
        events: events.into_iter().map(|event| event.as_ref().to_owned()).collect(),
        ..Target::default()
    };
    let rules = filter.and_then(|filter| filter.key).and_then(|key| key.filter_rules).unwrap_or_default();
    for FilterRule { name, value } in rules {
        let name = name.ok_or_else(Refusal::malformed_xml)?;
        set_filter(&mut target, name.as_str(), value.unwrap_or_default())?;
    }
    Ok(target)
}

fn write_filter(target: &Target) -> Option<NotificationConfigurationFilter> {
    let rule = |name: &'static str, value: &String| {
        let name = Some(FilterRuleName::from_static(name));
        (!value.is_empty()).then(|| FilterRule { name, value: Some(value.clone()) })
    };
    let prefix = rule(FilterRuleName::PREFIX, &target.prefix);
    let rules: Vec<FilterRule> = prefix.into_iter().chain(rule(FilterRuleName::SUFFIX, &target.suffix)).collect();
    let key = (!rules.is_empty()).then_some(S3KeyFilter { filter_rules: Some(rules) })?;
    Some(NotificationConfigurationFilter { key: Some(key) })
}

/// The id of a request; the server puts it into each request's extensions.
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

/// That a PUT is a browser's form; among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct OfForm;

/// Says that a request is about to make an event happen: to be called before the change is committed. What came of it goes
/// to the notice.
pub async fn begin(
    frontend: &Frontend,
    extensions: &Extensions,
    (bucket, key): (&str, &str),
    event: Event,
) -> S3Result<Notice> {
    let admitted = access::admitted(extensions)?;
    let record = admitted.bucket()?;
    if record.config.notification.targets().is_empty() {
        return Ok(Notice::none());
    }
    let asker = &admitted.asker;
    let principal = asker.user_id().map_or_else(|| "Anonymous".to_owned(), |id| format!("AWS:{id}"));
    let source_ip = asker.origin.map_or_else(String::new, |origin| origin.address.to_string());
    let request_id = extensions.get::<RequestId>().map_or("", |id| id.0.as_str());
    let about = About { event, bucket, key, principal: &principal, source_ip: &source_ip, request_id };
    frontend.store.begin_event(record, about).await.map_err(error::of)
}

/// The event of a deletion, by whether it names a version and whether the bucket keeps them.
pub fn of_deletion(record: &BucketRecord, names_version: bool) -> Event {
    if names_version || record.config.versioning == Versioning::Off {
        Event::RemovedDelete
    } else {
        Event::RemovedDeleteMarkerCreated
    }
}

/// A deletion has ended so.
pub fn end_deletion(frontend: &Frontend, notice: Notice, deleted: &S3Result<Deleted>) {
    match deleted {
        Ok(deleted) if deleted.found || deleted.delete_marker => {
            notice.happened(frontend.store.outcome_of_deletion(deleted));
        }
        Err(told) if told.status_code().is_none_or(|status| status.is_server_error()) => notice.unknown(),
        // There was nothing to delete.
        Ok(_) | Err(_) => notice.cancelled(),
    }
}
