//! Telling by Kafka, or what speaks its protocol: a record, taken when all replicas in sync have it. The records of one object go to one
//! partition.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use rskafka::BackoffConfig;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;

use super::address::Address;
use super::session::Protocol;
use super::target::{Letter, SendError};

const PORT: u16 = 9092;
/// The client library tries by itself for so long. After that the event waits like any other.
const RETRIES: Duration = Duration::from_secs(5);

/// `kafka://[USER:PASSWORD@]HOST[:PORT]/TOPIC[?broker=HOST:PORT][&mechanism=plain|scram-sha-256|scram-sha-512]`.
pub(super) struct Kafka {
    brokers: Vec<String>,
    topic: String,
    sasl: Option<SaslConfig>,
}

/// What is known of the cluster.
pub(super) struct Session {
    client: Client,
    /// Of the topic, ascending.
    partitions: Vec<i32>,
    /// Those that were told something.
    open: HashMap<i32, PartitionClient>,
}

impl Kafka {
    pub(super) fn new(mut address: Address) -> Result<Self, String> {
        let (mechanisms, mut brokers) = (address.take("mechanism"), address.take("broker"));
        address.no_more_options()?;
        let Address { host, port, user, password, path: topic, .. } = address;
        let is_topic = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if topic.is_empty() || !topic.bytes().all(is_topic) {
            return Err("the path of a kafka target is a topic".to_owned());
        }
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        brokers.insert(0, format!("{host}:{}", port.unwrap_or(PORT)));
        let credentials = user.zip(password).map(|(username, password)| Credentials { username, password });
        let mechanism = match mechanisms.as_slice() {
            [] => SaslConfig::Plain,
            [one] if one == "plain" => SaslConfig::Plain,
            [one] if one == "scram-sha-256" => SaslConfig::ScramSha256,
            [one] if one == "scram-sha-512" => SaslConfig::ScramSha512,
            _ => return Err("mechanism is plain, scram-sha-256 or scram-sha-512".to_owned()),
        };
        Ok(Self { brokers, topic, sasl: credentials.map(mechanism) })
    }
}

#[async_trait]
impl Protocol for Kafka {
    type Session = Session;

    async fn open(&self) -> Result<Session, SendError> {
        let backoff = BackoffConfig { deadline: Some(RETRIES), ..BackoffConfig::default() };
        let mut builder = ClientBuilder::new(self.brokers.clone()).client_id("palm").backoff_config(backoff);
        if let Some(sasl) = self.sasl.clone() {
            builder = builder.sasl_config(sasl);
        }
        let client = builder.build().await?;
        let topics = client.list_topics().await?;
        let topic =
            topics.into_iter().find(|topic| topic.name == self.topic).filter(|topic| !topic.partitions.is_empty());
        let topic = topic.ok_or_else(|| SendError::Refused("no such topic".to_owned()))?;
        Ok(Session { client, partitions: topic.partitions.into_iter().collect(), open: HashMap::new() })
    }

    async fn tell(&self, session: &mut Session, letter: &Letter) -> Result<(), SendError> {
        let Session { client, partitions, open } = session;
        let mut hasher = DefaultHasher::new();
        letter.about.hash(&mut hasher);
        let partition = partitions[(hasher.finish() % partitions.len() as u64) as usize];
        let partition = match open.entry(partition) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(client.partition_client(&self.topic, partition, UnknownTopicHandling::Error).await?)
            }
        };
        let record = Record {
            key: Some(letter.about.clone().into_bytes()),
            value: Some(letter.body.to_vec()),
            headers: BTreeMap::new(),
            timestamp: DateTime::from_timestamp_millis(letter.time_ms.cast_signed()).unwrap_or_default(),
        };
        partition.produce(vec![record], Compression::NoCompression).await?;
        Ok(())
    }
}
