//! Telling by MQTT 3.1.1 with quality of service 1, which every broker speaks
//! (<https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>). A broker takes a message also while nobody listens; whether it
//! keeps it for those who will is up to their subscriptions.

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

use super::address::{Address, Stream};
use super::session::Protocol;
use super::target::{Letter, SendError};

const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
/// Longest packet that is listened to; all that are expected are shorter.
const PACKET_MAX: usize = 64 * 1024;
/// The protocol's own bound, in four times seven bits.
const LENGTH_MAX: usize = (1 << 28) - 1;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
/// With quality of service 1.
const PUBLISH: u8 = 0x32;
const PUBACK: u8 = 0x40;
const CLEAN_SESSION: u8 = 0x02;
const WITH_PASSWORD: u8 = 0x40;
const WITH_USER: u8 = 0x80;

/// `mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC`, `mqtts://` for TLS.
pub(super) struct Mqtt {
    address: Address,
}

/// One connection, and the number of the last message.
pub(super) struct Session {
    stream: BufStream<Box<dyn Stream>>,
    last: u16,
}

impl Mqtt {
    pub(super) fn new(address: Address) -> Result<Self, String> {
        let topic = &address.path;
        if topic.is_empty() || topic.len() > usize::from(u16::MAX) || topic.contains(['#', '+', '\0']) {
            return Err("the path of an mqtt target is a topic without wildcards, such as palm/events".to_owned());
        }
        address.no_more_options()?;
        Ok(Self { address })
    }

    /// Section 3.1: what a connection begins with.
    fn hello(&self) -> BytesMut {
        let Address { user, password, .. } = &self.address;
        let mut flags = CLEAN_SESSION;
        // A password needs a user, by the protocol.
        let user = user.as_deref().or(password.as_ref().map(|_| ""));
        flags |= if user.is_some() { WITH_USER } else { 0 };
        flags |= if password.is_some() { WITH_PASSWORD } else { 0 };
        let mut body = BytesMut::new();
        put_text(&mut body, "MQTT");
        body.put_u8(4);
        body.put_u8(flags);
        // No keep-alive: an idle connection that was ended is opened again.
        body.put_u16(0);
        put_text(&mut body, &format!("palm-{:016x}", rand::random::<u64>()));
        for text in [user, password.as_deref()].into_iter().flatten() {
            put_text(&mut body, text);
        }
        body
    }
}

#[async_trait]
impl Protocol for Mqtt {
    type Session = Session;

    async fn open(&self) -> Result<Session, SendError> {
        let tls = self.address.scheme == "mqtts";
        let stream = self.address.connect(if tls { TLS_PORT } else { PORT }, tls).await?;
        let mut session = Session { stream: BufStream::new(stream), last: 0 };
        session.write(CONNECT, &self.hello()).await?;
        match session.read().await? {
            (CONNACK, body) if body.len() == 2 && body[1] == 0 => Ok(session),
            (CONNACK, body) => Err(SendError::Refused(format!("connection, return code {:?}", body.last()))),
            _ => Err(SendError::Nonsense("no CONNACK")),
        }
    }

    async fn tell(&self, session: &mut Session, letter: &Letter) -> Result<(), SendError> {
        session.last = session.last.checked_add(1).unwrap_or(1);
        let mut body = BytesMut::new();
        put_text(&mut body, &self.address.path);
        body.put_u16(session.last);
        body.put_slice(&letter.body);
        session.write(PUBLISH, &body).await?;
        loop {
            match session.read().await? {
                (PUBACK, id) if id == session.last.to_be_bytes() => return Ok(()),
                (PUBACK, _) => return Err(SendError::Nonsense("PUBACK of another message")),
                _ => {}
            }
        }
    }
}

impl Session {
    async fn write(&mut self, kind: u8, body: &[u8]) -> Result<(), SendError> {
        if body.len() > LENGTH_MAX {
            return Err(SendError::Refused("longer than a packet can be".to_owned()));
        }
        self.stream.write_u8(kind).await?;
        let mut rest = body.len();
        loop {
            let (low, more) = ((rest % 128) as u8, rest >= 128);
            self.stream.write_u8(if more { low | 128 } else { low }).await?;
            rest /= 128;
            if !more {
                break;
            }
        }
        self.stream.write_all(body).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next packet: kind and body.
    async fn read(&mut self) -> Result<(u8, Vec<u8>), SendError> {
        let kind = self.stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        if length > PACKET_MAX {
            return Err(SendError::Nonsense("a long packet"));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}

/// Section 1.5.3: a length of two bytes, and UTF-8. What does not fit is cut, and then refused by the broker.
fn put_text(to: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    to.put_u16(length);
    to.put_slice(&text.as_bytes()[..usize::from(length)]);
}
