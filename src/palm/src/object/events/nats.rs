//! Telling by NATS (<https://docs.nats.io/reference/reference-protocols/nats-protocol>): to those who listen to a subject, or to a stream
//! of `JetStream` that keeps it.

use std::str::SplitAsciiWhitespace;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

use super::address::{Address, Stream, read_line};
use super::session::Protocol;
use super::target::{Letter, SendError};

const PORT: u16 = 4222;
/// Longest answer to a message.
const ANSWER_MAX: usize = 64 * 1024;

/// `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]/SUBJECT[?jetstream=true]`.
pub(super) struct Nats {
    address: Address,
    /// Wait until a stream has stored the message.
    stored: bool,
}

/// One conversation: a connection that listens to answers below one subject of its own.
pub(super) struct Session {
    stream: BufStream<Box<dyn Stream>>,
    inbox: String,
    sent: u64,
}

impl Nats {
    pub(super) fn new(mut address: Address) -> Result<Self, String> {
        let subject = &address.path;
        let is_subject = subject.split('.').all(|token| {
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte))
        });
        if !is_subject {
            return Err("the path of a nats target is a subject without wildcards, such as palm.events".to_owned());
        }
        let stored = match address.take("jetstream").as_slice() {
            [] => false,
            [asked] => asked.parse().map_err(|_| "jetstream is true or false")?,
            _ => return Err("jetstream is true or false".to_owned()),
        };
        address.no_more_options()?;
        Ok(Self { address, stored })
    }

    fn connect(&self) -> Value {
        let mut asked = json!({
            "verbose": false, "pedantic": false, "name": "palm", "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
            // So that the server says when nobody listens.
            "protocol": 1, "headers": true, "no_responders": true,
        });
        match (&self.address.user, &self.address.password) {
            (Some(user), Some(password)) => (asked["user"], asked["pass"]) = (json!(user), json!(password)),
            (Some(token), None) => asked["auth_token"] = json!(token),
            (None, _) => {}
        }
        asked
    }
}

#[async_trait]
impl Protocol for Nats {
    type Session = Session;

    async fn open(&self) -> Result<Session, SendError> {
        // The server speaks first, and TLS begins after that.
        let mut plain = BufStream::new(self.address.dial(PORT).await?);
        let info = read_line(&mut plain).await?;
        let info = info.strip_prefix("INFO ").and_then(|info| serde_json::from_str::<Value>(info).ok());
        let info = info.ok_or(SendError::Nonsense("no INFO"))?;
        let tls = self.address.scheme == "nats+tls" || info["tls_required"] == true;
        let stream = plain.into_inner();
        let stream: Box<dyn Stream> = if tls { self.address.secure(stream).await? } else { Box::new(stream) };
        let mut session = Session {
            stream: BufStream::new(stream),
            inbox: format!("_INBOX.{:016x}", rand::random::<u64>()),
            sent: 0,
        };
        let hello = format!("CONNECT {}\r\nSUB {}.* 1\r\nPING\r\n", self.connect(), session.inbox);
        session.stream.write_all(hello.as_bytes()).await?;
        session.stream.flush().await?;
        while session.next().await? != Heard::Pong {}
        Ok(session)
    }

    async fn tell(&self, session: &mut Session, letter: &Letter) -> Result<(), SendError> {
        session.sent += 1;
        let answers = format!("{}.{}", session.inbox, session.sent);
        let head = format!("PUB {} {answers} {}\r\n", self.address.path, letter.body.len());
        session.stream.write_all(head.as_bytes()).await?;
        session.stream.write_all(&letter.body).await?;
        session.stream.write_all(b"\r\nPING\r\n").await?;
        session.stream.flush().await?;
        loop {
            match session.next().await? {
                // The server works in order: it has the message, and knows somebody who listens.
                Heard::Pong if !self.stored => return Ok(()),
                Heard::Nobody(subject) if subject == answers => {
                    let what =
                        if self.stored { "no stream keeps the subject" } else { "nobody listens to the subject" };
                    return Err(SendError::Refused(what.to_owned()));
                }
                Heard::Answer(subject, answer) if self.stored && subject == answers => {
                    // https://docs.nats.io/reference/reference-protocols/nats_api_reference
                    let answer: Value = serde_json::from_slice(&answer).map_err(|_| SendError::Nonsense("no JSON"))?;
                    return match (&answer["error"], &answer["seq"]) {
                        (Value::Null, Value::Number(_)) => Ok(()),
                        (error, _) => Err(SendError::Refused(error.to_string())),
                    };
                }
                _ => {}
            }
        }
    }
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Pong,
    /// Somebody answered, under this subject.
    Answer(String, Vec<u8>),
    /// There is nobody to answer under this subject.
    Nobody(String),
    /// Nothing of interest.
    Other,
}

impl Session {
    async fn next(&mut self) -> Result<Heard, SendError> {
        let line = read_line(&mut self.stream).await?;
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("PONG") => Ok(Heard::Pong),
            Some("PING") => {
                self.stream.write_all(b"PONG\r\n").await?;
                self.stream.flush().await?;
                Ok(Heard::Other)
            }
            Some("MSG") => {
                let (subject, body) = self.read(words).await?;
                Ok(Heard::Answer(subject, body))
            }
            Some("HMSG") => {
                let (subject, body) = self.read(words).await?;
                let nobody = body.starts_with(b"NATS/1.0 503");
                Ok(if nobody { Heard::Nobody(subject) } else { Heard::Other })
            }
            Some("-ERR") => Err(SendError::Refused(line)),
            Some("+OK" | "INFO") => Ok(Heard::Other),
            _ => Err(SendError::Nonsense("an unknown word")),
        }
    }

    /// The rest of a message, whose first line begins with its subject and ends with its length.
    async fn read(&mut self, mut words: SplitAsciiWhitespace<'_>) -> Result<(String, Vec<u8>), SendError> {
        let subject = words.next().unwrap_or_default().to_owned();
        let length = words.last().and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|length| *length <= ANSWER_MAX).ok_or(SendError::Nonsense("a length"))?;
        let mut body = vec![0; length + 2];
        self.stream.read_exact(&mut body).await?;
        body.truncate(length);
        Ok((subject, body))
    }
}
