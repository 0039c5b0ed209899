//! Who can be told: the targets that settings name, and what each way of telling them promises.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;

use super::address::Address;
use super::kafka::Kafka;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::redis::Redis;
use super::session::Kept;
use super::webhook::Webhook;

/// Longest name of a target.
const NAME_MAX: usize = 64;
/// A target that has not answered by then has not taken the message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// `BUCKET/KEY` of what it is about: where order is kept by keys, it is kept for each object.
    pub about: String,
    /// When it happened, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// JSON.
    pub body: Bytes,
}

/// A way to tell somebody. What was sent may be sent again: a target must expect a message twice.
#[async_trait]
pub(super) trait Target: Send + Sync {
    /// Sends a message. `Ok` only when the other side has said that it has it, in the words of its own protocol. May be dropped at any
    /// point; then nobody knows, and it is sent again.
    async fn send(&self, letter: &Letter) -> Result<(), SendError>;
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nobody there, or the conversation broke off.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// TLS cannot be spoken at all.
    #[error("tls: {0}")]
    Tls(String),
    /// The same of a conversation by HTTP.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The same of one with Kafka.
    #[error("kafka: {0}")]
    Kafka(#[from] rskafka::client::error::Error),
    /// It said no, by HTTP.
    #[error("answered {0}")]
    Status(StatusCode),
    /// It said no, in these words.
    #[error("refused: {0}")]
    Refused(String),
    /// It said what its protocol does not know.
    #[error("not an answer of its protocol: {0}")]
    Nonsense(&'static str),
    /// It said nothing.
    #[error("no answer within {} s", SEND_TIMEOUT.as_secs())]
    Silent,
}

/// A target of notifications: `NAME=URL` in the settings, where the URL's scheme says how it is told.
#[derive(Clone)]
pub struct NotifyTarget {
    name: String,
    target: Arc<dyn Target>,
}

impl NotifyTarget {
    /// What ARNs call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message; `Ok` when it was taken.
    pub(super) async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        timeout(SEND_TIMEOUT, self.target.send(letter)).await.unwrap_or(Err(SendError::Silent))
    }
}

impl FromStr for NotifyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the text itself in what is said: it may hold a password.
        let (name, url) = text.split_once('=').ok_or("not NAME=URL")?;
        let valid = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !valid {
            return Err(format!("not a name of letters, digits, - and _: {name:?}"));
        }
        let address: Address = url.parse()?;
        let target: Arc<dyn Target> = match address.scheme.as_str() {
            "http" | "https" => Arc::new(Webhook::new(&address, url)?),
            "kafka" => Arc::new(Kept::new(Kafka::new(address)?)),
            "mqtt" | "mqtts" => Arc::new(Kept::new(Mqtt::new(address)?)),
            "nats" | "nats+tls" => Arc::new(Kept::new(Nats::new(address)?)),
            "redis" | "rediss" => Arc::new(Kept::new(Redis::new(address)?)),
            other => {
                return Err(format!("events cannot be told by {other:?}: http, https, kafka, mqtt, nats or redis"));
            }
        };
        Ok(Self { name: name.to_owned(), target })
    }
}

impl fmt::Display for NotifyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Without what is secret.
impl fmt::Debug for NotifyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NotifyTarget").field(&self.name).finish()
    }
}

/// The name in an ARN of a queue, topic or function: `arn:palm:sqs::NAME:webhook` (the last part may be any word), or the last
/// part of AWS's (`arn:aws:sqs:REGION:ACCOUNT:NAME`).
pub(super) fn name_in(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        ["arn", "palm" | "minio", "sqs" | "sns" | "lambda", _, name, _]
        | ["arn", _, "sqs" | "sns", _, _, name]
        | ["arn", _, "lambda", _, _, "function", name] => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn arns_name_targets() {
        assert_eq!(name_in("arn:palm:sqs::audit:webhook"), Some("audit"));
        assert_eq!(name_in("arn:aws:sqs:us-east-1:123456789012:audit"), Some("audit"));
        assert_eq!(name_in("arn:aws:sns:us-east-1:123456789012:audit"), Some("audit"));
        assert_eq!(name_in("arn:aws:lambda:us-east-1:123456789012:function:audit"), Some("audit"));
        for other in ["", "audit", "arn:aws:s3:::audit", "arn:aws:sqs:audit", "arn:aws:lambda:r:1:layer:audit"] {
            assert_eq!(name_in(other), None, "{other}");
        }
    }

    /// Scenario: settings name targets of each kind, and such as make no sense. Danger: what is wrong is found out when the
    /// first event is lost, or a password is written to the log. Expectation: the first are taken, the others refused at once, and none
    /// shows more than its name.
    #[test]
    fn targets_are_names_and_urls() {
        for url in [
            "https://user:secret@hooks.example/palm?x=1",
            "http://[::1]:8080",
            "redis://user:secret@host/0?list=events",
            "redis://host?channel=events",
            "rediss://:secret@host:6380?stream=events",
            "nats://secret@host/palm.events",
            "nats+tls://user:secret@host:4222/palm.events?jetstream=true",
            "mqtt://user:secret@host/palm/events",
            "mqtts://host/palm/events",
            "kafka://user:secret@host:9092/events?broker=other:9092",
        ] {
            let target: NotifyTarget = format!("audit={url}").parse().expect(url);
            let shown = (target.name().to_owned(), target.to_string(), format!("{target:?}"));
            assert_eq!(shown, ("audit".into(), "audit".into(), "NotifyTarget(\"audit\")".into()));
        }
        for wrong in [
            "audit",
            "=http://a",
            "a b=http://a",
            "a=ftp://a",
            "a=http://",
            "a=/path",
            "a=redis://host",
            "a=redis://host?list=a&channel=b",
            "a=redis://host/first?list=a",
            "a=redis://host?list=a&size=3",
            "a=nats://host",
            "a=nats://host/two%20words",
            "a=nats://host/all.*",
            "a=nats://host/a?jetstream=perhaps",
            "a=mqtt://host/",
            "a=mqtt://host/%23",
            "a=kafka://host",
            "a=kafka://host/a/b",
            "a=kafka://host/a?mechanism=magic",
            "a=https://user:secret@ho st/",
        ] {
            let error = wrong.parse::<NotifyTarget>().expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
    }

    /// Scenario: something else listens where a broker should, or a broker has gone mad: it answers nonsense, without end or with lengths
    /// beyond all bounds, and hangs up. Danger: a panic, memory without bound, or an event that counts as told. Expectation: an
    /// error, at once, in every protocol.
    #[tokio::test]
    async fn nonsense_is_no_acknowledgement() {
        let nonsense: [&[u8]; 9] = [
            b"",
            b"\r\n",
            b"$99999999999999999999\r\n",
            b"$60000\r\nshort\r\n",
            b"-ERR no\r\n",
            b"INFO {}\r\nPONG\r\nHMSG a 1 2 9999999999\r\n",
            b"INFO not json\r\n",
            b"\x20\x02\x00\x00\x40\xff\xff\xff\xff",
            "x".repeat(100 << 10).leak().as_bytes(),
        ];
        let letter = Letter { about: "bucket/key".into(), time_ms: 0, body: "{}".into() };
        for answer in nonsense {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
            let place = listener.local_addr().expect("address");
            let broker = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // Who is told nonsense may hang up first.
                    let _ = stream.write_all(answer).await;
                }
            });
            for url in [
                format!("redis://{place}?list=a"),
                format!("nats://{place}/a"),
                format!("nats://{place}/a?jetstream=true"),
                format!("mqtt://{place}/a"),
                format!("http://{place}/a"),
            ] {
                let target: NotifyTarget = format!("name={url}").parse().expect("target");
                let sent = target.send(&letter).await;
                assert!(!matches!(sent, Ok(()) | Err(SendError::Silent)), "{url}: {sent:?} to {answer:?}");
            }
            broker.abort();
        }
    }
}
