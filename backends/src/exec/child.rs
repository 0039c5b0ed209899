//! One life of the program: calls go to its standard input, answers come from its standard output in any order.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, BufWriter};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

use super::frame::{self, Frame};
use crate::fragment::StoreError;

/// Frames that may wait for the program to take them.
const QUEUED_FRAMES: usize = 64;
/// Longest line of its standard error that goes to our log.
const LOG_LINE_BYTES: usize = 1_000;

/// The answer to a call: the header's `ok`, and the body.
type Answer = Result<(Value, Bytes), StoreError>;

/// Calls that wait for their answers; `None` once the program is gone.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A running program. It is killed when the last handle is dropped.
pub(super) struct Life {
    frames: mpsc::Sender<Frame>,
    calls: AtomicU64,
    shared: Arc<Shared>,
}

struct Shared {
    program: String,
    waiting: Waiting,
    /// Told to have the program killed.
    end: Notify,
}

#[derive(Deserialize)]
struct Header {
    call: u64,
    ok: Option<Value>,
    error: Option<String>,
    #[serde(default)]
    message: String,
}

impl Life {
    /// Starts the program.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe of the program is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let shared = Arc::new(Shared {
            program: program.display().to_string(),
            waiting: Mutex::new(Some(HashMap::new())),
            end: Notify::new(),
        });
        let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
        tokio::spawn(Arc::clone(&shared).live(child, stdin, stdout, queued));
        tokio::spawn(log(shared.program.clone(), stderr));
        Ok(Self { frames, calls: AtomicU64::new(1), shared })
    }

    /// Whether it can still be asked.
    pub(super) fn is_over(&self) -> bool {
        self.shared.waiting.lock().is_none()
    }

    /// Has it killed: it hangs, or answers nonsense.
    pub(super) fn end(&self) {
        self.shared.end.notify_one();
    }

    /// Asks and waits for the answer. A call that takes too long ends this life.
    pub(super) async fn call(&self, verb: &str, header: Value, body: Bytes, patience: Duration) -> Answer {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match self.shared.waiting.lock().as_mut() {
            Some(waiting) => drop(waiting.insert(number, answer)),
            None => return Err(gone()),
        }
        let forget = Forget { shared: &self.shared, number };
        let asking = async {
            self.frames.send(Frame { header: addressed(header, number, verb), body }).await.map_err(|_| gone())?;
            answered.await.unwrap_or_else(|_| Err(gone()))
        };
        let Ok(answer) = timeout(patience, asking).await else {
            warn!(program = self.shared.program, verb, "backend's program does not answer; it is killed");
            self.end();
            return Err(gone());
        };
        drop(forget);
        answer
    }

    /// Tells without waiting; what does not fit in the queue is not told.
    pub(super) fn tell(&self, verb: &str, header: Value) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let _full = self.frames.try_send(Frame { header: addressed(header, number, verb), body: Bytes::new() });
    }
}

fn addressed(mut header: Value, number: u64, verb: &str) -> Value {
    if let Value::Object(fields) = &mut header {
        fields.insert("call".to_owned(), json!(number));
        fields.insert("do".to_owned(), json!(verb));
    }
    header
}

/// A call whose caller has gone waits for nothing any more.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.shared.waiting.lock().as_mut() {
            waiting.remove(&self.number);
        }
    }
}

impl Shared {
    /// Carries frames until either side ends, then answers all that wait.
    async fn live(
        self: Arc<Self>,
        mut child: Child,
        stdin: ChildStdin,
        stdout: ChildStdout,
        queue: mpsc::Receiver<Frame>,
    ) {
        let cause = tokio::select! {
            cause = send(stdin, queue) => cause,
            cause = self.receive(stdout) => cause,
            () = self.end.notified() => "it was ended".to_owned(),
        };
        // Before anybody is answered, so that the next life finds the last one's files released.
        let killed = child.kill().await;
        info!(program = self.program, cause, ?killed, "backend's program has ended");
        drop(self.waiting.lock().take());
    }

    async fn receive(&self, stdout: ChildStdout) -> String {
        let mut pipe = BufReader::with_capacity(128 << 10, stdout);
        loop {
            let frame = match frame::read(&mut pipe).await {
                Ok(frame) => frame,
                Err(error) => return error.to_string(),
            };
            let Ok(Header { call, ok, error, message }) = serde_json::from_value(frame.header) else {
                return "it answered without a call's number".to_owned();
            };
            let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&call));
            // Answers to who has gone, and to what was told only, are dropped.
            if let Some(caller) = waiting {
                let _gone = caller.send(match (ok, error) {
                    (Some(ok), None) => Ok((ok, frame.body)),
                    (_, error) => Err(refused(error.as_deref().unwrap_or("io"), message)),
                });
            }
        }
    }
}

async fn send(stdin: ChildStdin, mut queue: mpsc::Receiver<Frame>) -> String {
    let mut pipe = BufWriter::new(stdin);
    while let Some(frame) = queue.recv().await {
        if let Err(error) = frame::write(&mut pipe, &frame).await {
            return error.to_string();
        }
    }
    "nobody asks it any more".to_owned()
}

async fn log(program: String, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    // A line without an end must not fill the memory.
    while let Ok(read) = (&mut lines).take_line(&mut line).await {
        if read == 0 {
            return;
        }
        info!(program, "{}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

trait TakeLine {
    async fn take_line(self, line: &mut Vec<u8>) -> io::Result<usize>;
}

impl TakeLine for &mut BufReader<ChildStderr> {
    /// A line, or as much of it as is logged at once.
    async fn take_line(self, line: &mut Vec<u8>) -> io::Result<usize> {
        use tokio::io::AsyncReadExt;
        self.take(LOG_LINE_BYTES as u64).read_until(b'\n', line).await
    }
}

/// An error by its name on the wire.
fn refused(name: &str, message: String) -> StoreError {
    match name {
        "not_found" => StoreError::NotFound(palm_core::id::FragmentId::from_bytes([0; 32])),
        "full" => StoreError::Full,
        "gone" => StoreError::Gone(message),
        "corrupt" => StoreError::Corrupt(message),
        _ => StoreError::Io(io::Error::other(message)),
    }
}

fn gone() -> StoreError {
    StoreError::Io(io::Error::new(io::ErrorKind::BrokenPipe, "the backend's program is not running"))
}
