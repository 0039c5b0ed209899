//! Fragment bodies: raw bytes on a stream of their own, after the request or response frame, as they are on disk.

use std::time::Duration;

use bytes::Bytes;
use palm_core::id::PeerId;
use palm_core::wire::{Frame, MAX_FRAME_BYTES, Response};
use quinn::WriteError;
use tokio::time::timeout;

use super::NetError;
use super::frames::{self, FrameError, FrameReader, FrameWriter};
use super::peer::{InUse, read_failed, write_failed};

/// A sender that sends nothing for this long has given up, whatever it says.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The bytes of a fragment on their way in.
pub struct FragmentSource {
    peer: PeerId,
    reader: FrameReader,
}

impl FragmentSource {
    pub(super) fn new(peer: PeerId, reader: FrameReader) -> Self {
        Self { peer, reader }
    }

    /// The next bytes; `Ok(None)` at the sender's clean end, an error when it gave up (store nothing) or sent
    /// nothing for 30 s.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        match timeout(STALL_TIMEOUT, self.reader.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(read_failed(self.peer, &error)),
            Err(_) => Err(NetError::NoAnswer { peer: self.peer, detail: "fragment upload stalled".into() }),
        }
    }
}

/// Where a home answers a fragment read.
pub struct FragmentSink {
    peer: PeerId,
    writer: FrameWriter,
}

impl FragmentSink {
    pub(super) fn new(peer: PeerId, writer: FrameWriter) -> Self {
        Self { peer, writer }
    }

    /// Sends the response frame; must come first, once.
    pub async fn respond(&mut self, response: Response) -> Result<(), NetError> {
        write_message(self.peer, &mut self.writer, &Frame::One(response)).await
    }

    /// Sends fragment bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        self.writer.bytes(bytes).await.map_err(|error| write_failed(self.peer, &error))
    }

    /// Ends it cleanly; dropping without it resets the stream.
    pub fn finish(mut self) {
        self.writer.finish();
    }
}

/// A fragment being sent to a home. Dropping it before `finish` resets the stream: the home stores nothing.
pub struct FragmentUpload {
    peer: PeerId,
    link: InUse,
    writer: FrameWriter,
    reader: FrameReader,
    refused: bool,
}

impl FragmentUpload {
    pub(super) fn new(peer: PeerId, link: InUse, writer: FrameWriter, reader: FrameReader) -> Self {
        Self { peer, link, writer, reader, refused: false }
    }

    /// Sends the next bytes; waits for flow control. After the home has answered early (it is full, say) the bytes go
    /// nowhere and [`finish`](Self::finish) tells the answer.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        if self.refused {
            return Ok(());
        }
        match self.writer.bytes(bytes).await {
            Err(WriteError::Stopped(_)) => {
                self.refused = true;
                Ok(())
            }
            outcome => outcome.map_err(|error| write_failed(self.peer, &error)),
        }
    }

    /// Whether the home wants no more: worth asking before producing the next bytes.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Ends the body and waits for the home's answer.
    pub async fn finish(mut self) -> Result<Response, NetError> {
        self.writer.finish();
        read_message(self.peer, &self.link, &mut self.reader).await
    }
}

/// A fragment being read from a home.
pub struct FragmentDownload {
    peer: PeerId,
    reader: FrameReader,
    _link: InUse,
}

impl FragmentDownload {
    pub(super) fn new(peer: PeerId, link: InUse, reader: FrameReader) -> Self {
        Self { peer, reader, _link: link }
    }

    /// Exactly `len` further bytes; an error when the home ends before.
    pub async fn read(&mut self, len: usize) -> Result<Bytes, NetError> {
        match self.reader.exact(len).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(NetError::NoAnswer { peer: self.peer, detail: "fragment ended early".into() }),
            Err(error) => Err(read_failed(self.peer, &error)),
        }
    }
}

/// Writes one message as a frame.
pub(super) async fn write_message<T: serde::Serialize>(
    peer: PeerId,
    writer: &mut FrameWriter,
    message: &T,
) -> Result<(), NetError> {
    let body = frames::encode(message)
        .map_err(|len| NetError::Local(format!("message of {len} bytes, at most {MAX_FRAME_BYTES} fit a frame")))?;
    writer.frame(body).await.map_err(|error| write_failed(peer, &error))
}

/// Reads the one response a fragment stream has.
pub(super) async fn read_message(peer: PeerId, link: &InUse, reader: &mut FrameReader) -> Result<Response, NetError> {
    match reader.message(MAX_FRAME_BYTES).await {
        Ok(Frame::One(response)) => Ok(response),
        Ok(Frame::Batch(_)) => Err(protocol(peer, link, "batch where one response belongs")),
        Err(FrameError::Malformed(detail)) => Err(protocol(peer, link, &detail)),
        Err(FrameError::Broke(error)) => Err(read_failed(peer, &error)),
        Err(FrameError::Ended) => Err(NetError::NoAnswer { peer, detail: "stream ended before the answer".into() }),
    }
}

fn protocol(peer: PeerId, link: &InUse, detail: &str) -> NetError {
    link.protocol_broken(peer, detail);
    NetError::Protocol { peer, detail: detail.into() }
}
