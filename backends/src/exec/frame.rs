//! Frames on the pipe: `header length (u32 BE), body length (u32 BE), header (JSON), body (bytes)`.

use std::io;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest header: 1,000 fragments of a listing take 90 KB.
pub(super) const HEADER_MAX_BYTES: usize = 256 << 10;
/// The most bytes of a fragment in one frame.
pub(super) const BODY_MAX_BYTES: usize = 1 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    /// An object.
    pub(super) header: Value,
    /// Bytes of a fragment; mostly none.
    pub(super) body: Bytes,
}

/// Writes a frame.
pub(super) async fn write(pipe: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let header = serde_json::to_vec(&frame.header)?;
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "frame too long");
    let header_len = u32::try_from(header.len()).map_err(|_| too_long())?;
    let body_len = u32::try_from(frame.body.len()).map_err(|_| too_long())?;
    pipe.write_all(&[header_len.to_be_bytes(), body_len.to_be_bytes()].concat()).await?;
    pipe.write_all(&header).await?;
    pipe.write_all(&frame.body).await?;
    pipe.flush().await
}

/// Reads a frame; an error where it is not one, or the pipe has ended.
pub(super) async fn read(pipe: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let (header_len, body_len) = (pipe.read_u32().await? as usize, pipe.read_u32().await? as usize);
    if header_len > HEADER_MAX_BYTES || body_len > BODY_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame longer than agreed"));
    }
    let mut header = vec![0; header_len];
    pipe.read_exact(&mut header).await?;
    let mut body = BytesMut::zeroed(body_len);
    pipe.read_exact(&mut body).await?;
    Ok(Frame { header: serde_json::from_slice(&header)?, body: body.freeze() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The protocol page shows these bytes; a plug-in written by it must be understood.
    #[tokio::test]
    async fn a_frame_is_what_the_page_says() {
        let frame = Frame { header: json!({ "call": 1 }), body: Bytes::from_static(b"xy") };
        let mut pipe = Vec::new();
        write(&mut pipe, &frame).await.unwrap();
        assert_eq!(pipe, b"\0\0\0\x0a\0\0\0\x02{\"call\":1}xy");
        assert_eq!(read(&mut pipe.as_slice()).await.unwrap(), frame);
        assert!(read(&mut &pipe[..pipe.len() - 1]).await.is_err(), "cut short");
    }

    /// Scenario: a program prints a message to its standard output, which is no frame. Danger: its letters are taken for a
    /// length, and gigabytes are waited for. Expectation: an error.
    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        assert_eq!(read(&mut &b"Starting up\n"[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let headless = [0, 0, 0, 3, 0, 0, 0, 0, b'{', b'{', b'{'];
        assert!(read(&mut &headless[..]).await.is_err());
    }
}
