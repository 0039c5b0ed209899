use super::*;

fn target(id: &str, events: &[&str], prefix: &str, suffix: &str) -> Target {
    Target {
        id: id.to_owned(),
        arn: "arn:palm:sqs::1:webhook".to_owned(),
        events: events.iter().map(|&event| event.to_owned()).collect(),
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
    }
}

fn configuration(targets: Vec<Target>) -> Result<Configuration, Refusal> {
    Configuration::new(targets, |arn| arn.starts_with("arn:palm:"))
}

#[test]
fn events_go_where_their_names_and_keys_fit() {
    let images = target("images", &["s3:ObjectCreated:*"], "images/", ".jpg");
    let removed = target("removed", &["s3:ObjectRemoved:Delete"], "", "");
    let configuration = configuration(vec![images, removed]).expect("valid");
    let ids = |event, key| configuration.targets_of(event, key).map(|target| target.id.as_str()).collect::<Vec<_>>();
    assert_eq!(ids(Event::CreatedPut, "images/a.jpg"), ["images"]);
    assert_eq!(ids(Event::CreatedCompleteMultipartUpload, "images/.jpg"), ["images"]);
    assert_eq!(ids(Event::CreatedPut, "images/a.png"), Vec::<&str>::new());
    assert_eq!(ids(Event::CreatedPut, "a.jpg"), Vec::<&str>::new());
    assert_eq!(ids(Event::RemovedDelete, "x"), ["removed"]);
    assert_eq!(ids(Event::RemovedDeleteMarkerCreated, "x"), Vec::<&str>::new());
}

/// Every event that PALM makes can be asked for, by its name and by its family's.
#[test]
fn all_events_have_names_that_configurations_take() {
    let events = [
        Event::CreatedPut,
        Event::CreatedPost,
        Event::CreatedCopy,
        Event::CreatedCompleteMultipartUpload,
        Event::RemovedDelete,
        Event::RemovedDeleteMarkerCreated,
        Event::ExpirationDelete,
        Event::ExpirationDeleteMarkerCreated,
        Event::TaggingPut,
        Event::TaggingDelete,
        Event::AclPut,
    ];
    for event in events {
        assert!(NAMES.contains(&event.name()), "{event:?}");
        let configuration = configuration(vec![target("1", &[event.name()], "", "")]).expect("valid");
        assert_eq!(configuration.targets_of(event, "k").count(), 1);
    }
}

#[test]
fn wrong_configurations_are_refused() {
    let refused = |targets: Vec<Target>| configuration(targets).expect_err("wrong").message.into_owned();
    let put = &["s3:ObjectCreated:Put"][..];
    assert!(refused(vec![target("1", &["s3:ObjectCreated"], "", "")]).contains("event is not supported"));
    let elsewhere = Target { arn: "arn:aws:sqs:us-east-1:1:q".to_owned(), ..target("1", put, "", "") };
    assert!(refused(vec![elsewhere]).contains("Unable to validate"));
    assert!(refused(vec![target("1", put, "a", ""), target("1", put, "b", "")]).contains("unique"));
    assert!(
        refused(vec![target("1", put, "a", ""), target("2", &["s3:ObjectCreated:*"], "ab", "")]).contains("overlap")
    );
    assert!(configuration(vec![target("1", put, "a", ".x"), target("2", put, "a", ".y")]).is_ok());
    assert!(configuration(vec![target("1", put, "a", ""), target("2", put, "b", "")]).is_ok());
    assert_eq!(configuration(vec![target("1", &[], "", "")]).expect_err("no event").code, "MalformedXML");
    assert!(configuration(vec![]).is_ok(), "notifications are switched off so");
    let mut filtered = target("1", put, "", "");
    assert_eq!(set_filter(&mut filtered, "Prefix", "a".to_owned()), Ok(()));
    assert!(set_filter(&mut filtered, "prefix", "b".to_owned()).is_err());
    assert!(set_filter(&mut filtered, "infix", "b".to_owned()).is_err());
}

/// The structure of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>.
#[test]
fn messages_have_the_documented_structure() {
    let message = Message {
        event: Event::CreatedPut,
        time_ms: 0,
        region: "us-west-2",
        principal: "AIDAJDPLRKLG7UEXAMPLE",
        source_ip: "127.0.0.1",
        request_id: "C3D13FE58DE4C810",
        host_id: "FMyUVURIY8",
        configuration_id: "testConfigRule",
        bucket: "amzn-s3-demo-bucket",
        bucket_owner: "A3NL1KOZZKExample",
        key: "red flower/ä+.jpg",
        size: 1024,
        etag: "d41d8cd98f00b204e9800998ecf8427e",
        version_id: Some("096fKKXTRTtl3on89fVO.nfljtsv6qko"),
        sequencer: 0x0055_AED6_DCD9_0281,
    };
    let expected = json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": { "principalId": "AIDAJDPLRKLG7UEXAMPLE" },
        "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {
                "name": "amzn-s3-demo-bucket",
                "ownerIdentity": { "principalId": "A3NL1KOZZKExample" },
                "arn": "arn:aws:s3:::amzn-s3-demo-bucket"
            },
            "object": {
                "key": "red+flower/%C3%A4%2B.jpg",
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                "sequencer": "0055AED6DCD90281"
            }
        }
    }] });
    assert_eq!(message.json(), expected);
    let removed = Message { event: Event::RemovedDelete, version_id: None, ..message }.json();
    assert_eq!(removed["Records"][0]["s3"]["object"].get("size"), None);
    assert_eq!(test_message("b", 0, "r", "h")["Event"], "s3:TestEvent");
}
