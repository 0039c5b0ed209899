//! Telling by Redis, or what speaks its protocol (<https://redis.io/docs/latest/develop/reference/protocol-spec/>): a list, a stream,
//! or a channel.

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

use super::address::{Address, Stream, read_line};
use super::session::Protocol;
use super::target::{Letter, SendError};

const PORT: u16 = 6379;
/// Longest text that an answer may hold.
const ANSWER_MAX: usize = 64 * 1024;

/// `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]?list=KEY`, or `?stream=KEY`, or `?channel=NAME`.
pub(super) struct Redis {
    address: Address,
    database: Option<u16>,
    form: Form,
    key: String,
}

/// Where in Redis a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// To the end of a list.
    List,
    /// To a stream, as the field `message`.
    Stream,
    /// To those who listen to a channel now. When nobody does, it is not taken.
    Channel,
}

impl Redis {
    pub(super) fn new(mut address: Address) -> Result<Self, String> {
        let forms = [("list", Form::List), ("stream", Form::Stream), ("channel", Form::Channel)];
        let asked = forms.map(|(option, form)| address.take(option).into_iter().map(move |key| (form, key)));
        let asked: Vec<(Form, String)> = asked.into_iter().flatten().filter(|(_, key)| !key.is_empty()).collect();
        let [(form, key)] = asked.as_slice() else {
            return Err("redis targets take one of ?list=KEY, ?stream=KEY and ?channel=NAME".to_owned());
        };
        let (form, key) = (*form, key.clone());
        let database = match address.path.as_str() {
            "" => None,
            number => Some(number.parse().map_err(|_| "the path of a redis target is the number of a database")?),
        };
        address.no_more_options()?;
        Ok(Self { address, database, form, key })
    }
}

type Session = BufStream<Box<dyn Stream>>;

#[async_trait]
impl Protocol for Redis {
    type Session = Session;

    async fn open(&self) -> Result<Session, SendError> {
        let tls = self.address.scheme == "rediss";
        let mut session = BufStream::new(self.address.connect(PORT, tls).await?);
        if let Some(password) = &self.address.password {
            let user = self.address.user.as_deref().filter(|user| !user.is_empty());
            let words: Vec<&[u8]> =
                [Some("AUTH"), user, Some(password)].into_iter().flatten().map(str::as_bytes).collect();
            command(&mut session, &words).await?;
        }
        if let Some(database) = self.database {
            command(&mut session, &[b"SELECT", database.to_string().as_bytes()]).await?;
        }
        Ok(session)
    }

    async fn tell(&self, session: &mut Session, letter: &Letter) -> Result<(), SendError> {
        let (key, body) = (self.key.as_bytes(), &letter.body[..]);
        let answer = match self.form {
            Form::List => command(session, &[b"RPUSH", key, body]).await?,
            Form::Stream => command(session, &[b"XADD", key, b"*", b"message", body]).await?,
            Form::Channel => command(session, &[b"PUBLISH", key, body]).await?,
        };
        if self.form == Form::Channel && answer == ":0" {
            return Err(SendError::Refused("nobody listens to the channel".to_owned()));
        }
        Ok(())
    }
}

/// Gives a command; the first line of its answer, an error if it is one.
async fn command(session: &mut Session, words: &[&[u8]]) -> Result<String, SendError> {
    session.write_all(format!("*{}\r\n", words.len()).as_bytes()).await?;
    for word in words {
        session.write_all(format!("${}\r\n", word.len()).as_bytes()).await?;
        session.write_all(word).await?;
        session.write_all(b"\r\n").await?;
    }
    session.flush().await?;
    let answer = read_line(session).await?;
    match answer.split_at_checked(1) {
        Some((":" | "+", _)) => Ok(answer),
        Some(("-", error)) => Err(SendError::Refused(error.to_owned())),
        Some(("$", length)) => {
            let length = length.parse::<usize>().ok().filter(|length| *length <= ANSWER_MAX);
            let mut text = vec![0; length.ok_or(SendError::Nonsense("a length"))? + 2];
            session.read_exact(&mut text).await?;
            if text.ends_with(b"\r\n") { Ok(answer) } else { Err(SendError::Nonsense("a text")) }
        }
        _ => Err(SendError::Nonsense("an answer of no known kind")),
    }
}
