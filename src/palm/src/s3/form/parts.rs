//! The parts of a form: fields, then the file, which is not held but passed on
//! (<https://www.rfc-editor.org/rfc/rfc7578>).

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::{Body, S3Error, S3ErrorCode, S3Result};
use s3s_multipart::{Boundary, Error, Multipart, Part, parse_content_disposition};

use super::{Form, missing};
use crate::s3::error;

/// Fields of a form together, without the file (AWS allows 20 KB).
const FIELDS_MAX_BYTES: usize = 64 << 10;
/// Fields of a form.
const FIELDS_MAX: usize = 100;
/// The headers of one part.
const PART_HEAD_MAX_BYTES: usize = 8 << 10;
/// What stands around the boundary that ends a form: two line ends and two times two dashes.
const CLOSING_BYTES: u64 = 8;

type Stream = BoxStream<'static, Result<Bytes, Error>>;

/// The file of a form.
pub struct File {
    /// What its sender calls it; may be a path.
    pub name: String,
    /// Bytes: what the form's own length leaves for it.
    pub length: u64,
    /// Fails where the form does not end after the file.
    pub body: Body,
}

/// Reads the fields, and the file up to its first byte.
pub async fn read(headers: &HeaderMap, body: Body) -> S3Result<(Form, File)> {
    let boundary = boundary(headers).ok_or_else(|| malformed(&Error::InvalidBoundary))?;
    let total = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let total = total.ok_or_else(|| S3Error::new(S3ErrorCode::MissingContentLength))?;
    let stream: Stream = body.map_err(Error::stream_read_failed).boxed();
    let mut parser = Multipart::new(stream, &boundary, PART_HEAD_MAX_BYTES);
    let (mut fields, mut bytes) = (Vec::new(), 0);
    while let Some(mut part) = parser.next_part().await.map_err(|cause| malformed(&cause))? {
        let (name, file_name) = names(&mut part).await?;
        if name != "file" {
            let value = value(part, &mut bytes).await?;
            fields.push((name, value));
            if fields.len() > FIELDS_MAX {
                return Err(too_large());
            }
            continue;
        }
        let stream = part.take_data_stream().map_err(|cause| malformed(&cause))?.into_final();
        let around = stream.multipart_consumed() + boundary.len() as u64 + CLOSING_BYTES;
        let length = total.checked_sub(around).ok_or_else(|| S3Error::new(S3ErrorCode::IncompleteBody))?;
        let body = Body::http_body_unsync(StreamBody::new(stream.map_ok(Frame::data)));
        return Ok((Form { fields }, File { name: file_name, length, body }));
    }
    // What is missing besides tells more than that the file is.
    if fields.iter().all(|(name, _)| name != "key") {
        return Err(missing("key"));
    }
    Err(error::invalid_argument("POST requires exactly one file upload per request."))
}

/// The boundary that the content type names.
fn boundary(headers: &HeaderMap) -> Option<Boundary> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let parameters = kind.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    Boundary::new(value.trim().trim_matches('"').as_bytes()).ok()
}

/// A part's name in lower case, and the name of its file.
async fn names(part: &mut Part<'_, Stream>) -> S3Result<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| malformed(&Error::InvalidFormat));
    let mut names = None;
    while let Some(header) = part.next_header().await.map_err(|cause| malformed(&cause))? {
        if !header.name.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if let Some(found) = parse_content_disposition(header.value)
            && let Some(name) = found.name
        {
            names = Some((text(name)?.to_ascii_lowercase(), text(found.file_name.unwrap_or_default())?));
        }
    }
    names.ok_or_else(|| malformed(&Error::InvalidFormat))
}

/// A field's value; `bytes` counts those of all fields.
async fn value(mut part: Part<'_, Stream>, bytes: &mut usize) -> S3Result<String> {
    let mut value = Vec::new();
    while let Some(data) = part.next_data().await.map_err(|cause| malformed(&cause))? {
        *bytes += data.len();
        if *bytes > FIELDS_MAX_BYTES {
            return Err(too_large());
        }
        value.extend_from_slice(&data);
    }
    String::from_utf8(value).map_err(|_| malformed(&Error::InvalidFormat))
}

fn malformed(cause: &Error) -> S3Error {
    tracing::debug!(%cause, "form not understood");
    match cause {
        Error::StreamReadFailed(_) | Error::IncompleteStream => S3Error::new(S3ErrorCode::IncompleteBody),
        _ => S3Error::with_message(
            S3ErrorCode::MalformedPOSTRequest,
            "The body of your POST request is not well-formed multipart/form-data.",
        ),
    }
}

fn too_large() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::MaxPostPreDataLengthExceededError,
        "Your POST request fields preceeding the upload file was too large.",
    )
}
