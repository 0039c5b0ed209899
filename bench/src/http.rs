//! One HTTP/1.1 connection: writes a request, counts the answer's bytes, stays open for the next.
//!
//! Written by hand because a benchmark's client must cost next to nothing; it understands what S3 servers answer (a length, chunks, or
//! the end of the connection) and refuses the rest.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const READ_BUFFER_BYTES: usize = 256 * 1024;
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// Of each body this much is kept, so that an error's code or a listing's end can be read.
const KEPT_BYTES: usize = 64 * 1024;
const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// Why there is no answer. The connection is not usable afterwards.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The socket failed or ended early.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// What came is not HTTP/1.1 as we understand it.
    #[error("not understood: {0}")]
    Protocol(&'static str),
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
}

/// An answer, its body counted.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Length of the body.
    pub body_bytes: u64,
    /// The start of the body.
    pub kept: Vec<u8>,
    /// From the first byte sent to the first byte received.
    pub first_byte: Duration,
    keep_alive: bool,
}

impl Answer {
    /// The S3 error code in the body, when there is one.
    pub fn code(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.kept).ok()?;
        text.split_once("<Code>")?.1.split_once("</Code>").map(|(code, _)| code)
    }
}

enum Length {
    Exactly(u64),
    Chunked,
    UntilClose,
}

/// A client's connection to one endpoint; opens itself when needed.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were received and not yet used.
    start: usize,
    end: usize,
}

impl Connection {
    /// For `host:port`. Connects at the first request.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None, buffer: vec![0; READ_BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Sends one request and reads its answer to the end. After an error the next call connects anew.
    pub async fn exchange(&mut self, head: &str, body: &[u8], limit: Duration) -> Result<Answer, HttpError> {
        let is_head = head.starts_with("HEAD ");
        let outcome = match tokio::time::timeout(limit, self.converse(head, body, is_head)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HttpError::Timeout),
        };
        if !matches!(&outcome, Ok(answer) if answer.keep_alive) {
            self.stream = None;
        }
        outcome
    }

    async fn converse(&mut self, head: &str, body: &[u8], is_head: bool) -> Result<Answer, HttpError> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
            (self.start, self.end) = (0, 0);
        }
        let sent = Instant::now();
        let stream = self.stream.as_mut().ok_or(HttpError::Protocol("no connection"))?;
        if body.len() < READ_BUFFER_BYTES {
            // One segment on the wire and one call for small requests.
            let mut whole = Vec::with_capacity(head.len() + body.len());
            whole.extend_from_slice(head.as_bytes());
            whole.extend_from_slice(body);
            stream.write_all(&whole).await?;
        } else {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
        }
        let (status, length, keep_alive) = self.read_head(is_head).await?;
        let mut answer = Answer { status, body_bytes: 0, kept: Vec::new(), first_byte: sent.elapsed(), keep_alive };
        match length {
            Length::Exactly(bytes) => self.read_exactly(bytes, &mut answer).await?,
            Length::Chunked => self.read_chunks(&mut answer).await?,
            Length::UntilClose => self.read_to_close(&mut answer).await?,
        }
        Ok(answer)
    }

    async fn read_head(&mut self, is_head: bool) -> Result<(u16, Length, bool), HttpError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response
                .parse(&self.buffer[self.start..self.end])
                .map_err(|_| HttpError::Protocol("answer without a proper head"))?;
            if let httparse::Status::Complete(used) = parsed {
                let status = response.code.unwrap_or(0);
                if (100..200).contains(&status) {
                    self.start += used;
                    continue;
                }
                let named = |name: &str| {
                    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
                    std::str::from_utf8(header.value).ok()
                };
                let keep_alive = !named("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                let length = if is_head || status == 204 || status == 304 {
                    Length::Exactly(0)
                } else if named("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
                    Length::Chunked
                } else if let Some(value) = named("content-length") {
                    Length::Exactly(value.parse().map_err(|_| HttpError::Protocol("content-length is no number"))?)
                } else {
                    Length::UntilClose
                };
                self.start += used;
                let keep_alive = keep_alive && !matches!(length, Length::UntilClose);
                return Ok((status, length, keep_alive));
            }
            if self.end - self.start > MAX_HEAD_BYTES {
                return Err(HttpError::Protocol("head too long"));
            }
            self.fill().await?;
        }
    }

    /// Receives more; used bytes make room first.
    async fn fill(&mut self) -> Result<(), HttpError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let stream = self.stream.as_mut().ok_or(HttpError::Protocol("no connection"))?;
        let received = stream.read(&mut self.buffer[self.end..]).await?;
        if received == 0 {
            return Err(HttpError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end += received;
        Ok(())
    }

    /// Counts `count` received bytes as body.
    fn take(&mut self, count: usize, answer: &mut Answer) {
        let room = KEPT_BYTES.saturating_sub(answer.kept.len()).min(count);
        answer.kept.extend_from_slice(&self.buffer[self.start..self.start + room]);
        answer.body_bytes += count as u64;
        self.start += count;
    }

    async fn read_exactly(&mut self, mut bytes: u64, answer: &mut Answer) -> Result<(), HttpError> {
        while bytes > 0 {
            if self.start == self.end {
                self.fill().await?;
            }
            let here = (self.end - self.start).min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.take(here, answer);
            bytes -= here as u64;
        }
        Ok(())
    }

    async fn read_chunks(&mut self, answer: &mut Answer) -> Result<(), HttpError> {
        loop {
            let line = self.read_line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| HttpError::Protocol("chunk size is no number"))?;
            if size == 0 {
                while !self.read_line().await?.is_empty() {}
                return Ok(());
            }
            self.read_exactly(size, answer).await?;
            if !self.read_line().await?.is_empty() {
                return Err(HttpError::Protocol("chunk without an end"));
            }
        }
    }

    async fn read_line(&mut self) -> Result<String, HttpError> {
        loop {
            let received = &self.buffer[self.start..self.end];
            if let Some(length) = received.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&received[..length]).into_owned();
                self.start += length + 2;
                return Ok(line);
            }
            if received.len() > MAX_CHUNK_LINE_BYTES {
                return Err(HttpError::Protocol("line too long"));
            }
            self.fill().await?;
        }
    }

    async fn read_to_close(&mut self, answer: &mut Answer) -> Result<(), HttpError> {
        loop {
            self.take(self.end - self.start, answer);
            match self.fill().await {
                Ok(()) => {}
                Err(HttpError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answer_to(replies: &'static [&'static [u8]]) -> Vec<Result<Answer, HttpError>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            for reply in replies {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                // In two pieces: a head or a chunk line may be cut anywhere.
                let (left, right) = reply.split_at(reply.len() / 2);
                stream.write_all(left).await.expect("a reader");
                tokio::task::yield_now().await;
                stream.write_all(right).await.expect("a reader");
            }
        });
        let mut connection = Connection::new(&address);
        let mut answers = Vec::new();
        for _ in replies {
            answers.push(connection.exchange("GET / HTTP/1.1\r\n\r\n", b"", Duration::from_secs(5)).await);
        }
        server.await.expect("the server ends");
        answers
    }

    /// Answers with a length, in chunks and with nothing, one after the other on one connection. Danger: a byte too many or too few
    /// makes the next answer unreadable. Expected: each is counted whole.
    #[tokio::test]
    async fn every_framing_is_read_to_its_end() {
        let answers = answer_to(&[
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 38\r\n\r\n<Error><Code>NoSuchKey</Code> </Error>",
        ])
        .await;
        let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
        let seen: Vec<_> = answers.iter().map(|answer| (answer.status, answer.body_bytes)).collect();
        assert_eq!(seen, [(200, 5), (200, 5), (204, 0), (404, 38)]);
        assert_eq!(answers[3].code(), Some("NoSuchKey"));
    }

    /// The server ends in the middle of a body. Expected: an error, never a short success.
    #[tokio::test]
    async fn a_short_body_is_an_error() {
        let answers = answer_to(&[b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello"]).await;
        assert!(matches!(answers[0], Err(HttpError::Io(_))));
    }
}
