//! Tags of objects and buckets
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).

use std::collections::BTreeSet;

use super::Refusal;

/// Name and value.
pub type Tag = (String, String);

/// The most tags of an object.
pub const OBJECT_TAGS_MAX: usize = 10;
/// The most tags of a bucket.
pub const BUCKET_TAGS_MAX: usize = 50;
/// Longest name, in UTF-16 units as AWS counts.
const NAME_MAX: usize = 128;
/// Longest value, in UTF-16 units.
const VALUE_MAX: usize = 256;
/// Longest `x-amz-tagging`: ten tags, each character of which is percent-encoded.
const HEADER_MAX: usize = OBJECT_TAGS_MAX * (NAME_MAX + VALUE_MAX) * 9 + 2 * OBJECT_TAGS_MAX;

/// What tags are put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// An object or one of its versions.
    Object,
    /// A bucket.
    Bucket,
}

/// Validates tags; they keep their order.
pub fn validate(tags: Vec<Tag>, on: On) -> Result<Vec<Tag>, Refusal> {
    // AWS says `BadRequest` of both, public suites want the other for objects.
    let (most, code, message) = match on {
        On::Object => (OBJECT_TAGS_MAX, "InvalidTag", "Object tags cannot be greater than 10"),
        On::Bucket => (BUCKET_TAGS_MAX, "BadRequest", "Bucket tag count cannot be greater than 50"),
    };
    if tags.len() > most {
        return Err(Refusal::bad(code, message));
    }
    let mut names = BTreeSet::new();
    for (name, value) in &tags {
        if name.is_empty() || units(name) > NAME_MAX || !name.chars().all(is_allowed) {
            return Err(Refusal::bad("InvalidTag", "The TagKey you have provided is invalid"));
        }
        if units(value) > VALUE_MAX || !value.chars().all(is_allowed) {
            return Err(Refusal::bad("InvalidTag", "The TagValue you have provided is invalid"));
        }
        if name.to_ascii_lowercase().starts_with("aws:") {
            return Err(Refusal::bad("InvalidTag", "System tags cannot be added/updated by requester"));
        }
        if !names.insert(name) {
            return Err(Refusal::bad("InvalidTag", "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(tags)
}

/// Reads `x-amz-tagging`: `name=value&name=value`, encoded as a query.
pub fn parse_header(header: &str) -> Result<Vec<Tag>, Refusal> {
    let invalid = || {
        let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without \
                       tag name duplicates.";
        Refusal::invalid_argument(message)
    };
    if header.len() > HEADER_MAX {
        return Err(invalid());
    }
    let mut tags = Vec::new();
    for pair in header.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.is_empty() {
            return Err(invalid());
        }
        tags.push((decode(name).ok_or_else(invalid)?, decode(value).ok_or_else(invalid)?));
        if tags.len() > OBJECT_TAGS_MAX {
            return validate(tags, On::Object);
        }
    }
    let names: BTreeSet<&String> = tags.iter().map(|(name, _)| name).collect();
    if names.len() < tags.len() {
        return Err(invalid());
    }
    validate(tags, On::Object)
}

/// What a copy's tags are (`x-amz-tagging-directive`).
pub fn of_copy(directive: Option<&str>, source: Vec<Tag>, given: Option<Vec<Tag>>) -> Result<Vec<Tag>, Refusal> {
    match directive {
        None | Some("COPY") => Ok(source),
        Some("REPLACE") => Ok(given.unwrap_or_default()),
        Some(_) => Err(Refusal::invalid_argument("Unknown tagging directive.")),
    }
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// "The allowed characters are letters, whitespace, and numbers, plus + - = . _ : / @."
fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c)
}

/// `application/x-www-form-urlencoded`: `+` is a blank.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
