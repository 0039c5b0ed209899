//! The policy of a browser form
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>): what its signer lets whoever has
//! the form upload.

use serde_json::Value;

use super::Refusal;
use super::calendar::parse_iso;

/// The longest policy, decoded; a form's fields are bounded by it.
pub const POLICY_MAX_BYTES: usize = 20 * 1024;

/// Fields that no condition need name: what signs, and the file itself.
const FREE_FIELDS: [&str; 5] = ["x-amz-signature", "awsaccesskeyid", "signature", "file", "policy"];
/// Nor fields that begin so: what is ignored, and checksums, which only refuse a damaged file.
const FREE_PREFIXES: [&str; 2] = ["x-ignore-", "x-amz-checksum-"];

/// A policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostPolicy {
    expires_ms: u64,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// The field is this; field names are in lower case.
    Equals { field: String, value: String },
    /// The field begins so; an empty beginning is any value.
    StartsWith { field: String, prefix: String },
    /// The file has between so many and so many bytes, both included.
    Length { least: u64, most: u64 },
}

/// What a form brings.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// The bucket it is sent to.
    pub bucket: &'a str,
    /// Its fields, without the file; names in any case. `${filename}` is already replaced.
    pub fields: &'a [(String, String)],
}

impl PostPolicy {
    /// Reads a decoded policy document.
    pub fn parse(document: &[u8]) -> Result<Self, Refusal> {
        let invalid = |what: &str| Refusal::bad("InvalidPolicyDocument", format!("Invalid Policy: {what}"));
        if document.len() > POLICY_MAX_BYTES {
            return Err(invalid("Policy is too long."));
        }
        let document: Value = serde_json::from_slice(document).map_err(|_| invalid("Invalid JSON."))?;
        let Value::Object(fields) = document else { return Err(invalid("Invalid JSON.")) };
        let (mut expires_ms, mut conditions) = (None, None);
        for (name, value) in &fields {
            match (name.as_str(), value) {
                ("expiration", Value::String(date)) => {
                    expires_ms =
                        Some(parse_iso(date).ok_or_else(|| invalid(&format!("Invalid 'expiration' value: '{date}'")))?);
                }
                ("conditions", Value::Array(list)) => {
                    let read = |value| Condition::parse_all(value).ok_or_else(|| invalid("Invalid condition."));
                    conditions = Some(list.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat());
                }
                _ => return Err(invalid(&format!("Unexpected: '{name}'"))),
            }
        }
        let expires_ms = expires_ms.ok_or_else(|| invalid("Policy missing expiration."))?;
        let conditions = conditions.ok_or_else(|| invalid("Policy missing conditions."))?;
        Ok(Self { expires_ms, conditions })
    }

    /// Whether the policy lets the form in: it is not over, each condition is met, and each field is named by one.
    pub fn check(&self, form: Form<'_>, now_ms: u64) -> Result<(), Refusal> {
        let denied =
            |what: String| Refusal::with_status(403, "AccessDenied", format!("Invalid according to Policy: {what}"));
        if now_ms >= self.expires_ms {
            return Err(denied("Policy expired.".to_owned()));
        }
        for condition in &self.conditions {
            if !condition.is_met(form) {
                return Err(denied(format!("Policy Condition failed: {condition}")));
            }
        }
        // The bucket is a field like others, even if it is only told by where the form is sent.
        for field in form.fields.iter().map(|(field, _)| field.as_str()).chain(["bucket"]) {
            let field = field.to_ascii_lowercase();
            let free =
                FREE_FIELDS.contains(&field.as_str()) || FREE_PREFIXES.iter().any(|prefix| field.starts_with(prefix));
            let named = self.conditions.iter().any(|condition| condition.field() == Some(&field));
            if !free && !named {
                return Err(denied(format!("Extra input fields: {field}")));
            }
        }
        Ok(())
    }

    /// The least and most bytes that the file may have: asked when its length is known.
    pub fn check_length(&self, bytes: u64) -> Result<(), Refusal> {
        for condition in &self.conditions {
            match condition {
                Condition::Length { least, .. } if bytes < *least => {
                    return Err(Refusal::bad(
                        "EntityTooSmall",
                        "Your proposed upload is smaller than the minimum allowed size",
                    ));
                }
                Condition::Length { most, .. } if bytes > *most => return Err(too_large()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The most bytes that the file may have, to stop reading once it has more; [`too_large`] is the answer.
    pub fn most_bytes(&self) -> Option<u64> {
        let most = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Length { most, .. } => Some(*most),
            _ => None,
        });
        most.min()
    }
}

/// A file with more bytes than its form allows.
pub fn too_large() -> Refusal {
    Refusal::bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
}

impl Condition {
    /// One item of the list: an object with one or more exact matches, or a list of three.
    fn parse_all(value: &Value) -> Option<Vec<Self>> {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let equals = fields.iter().map(|(field, value)| {
                    Some(Self::Equals { field: field.to_ascii_lowercase(), value: value.as_str()?.to_owned() })
                });
                equals.collect()
            }
            Value::Array(items) => match items.as_slice() {
                [operator, first, second] => {
                    Self::parse(operator.as_str()?, first, second).map(|condition| vec![condition])
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn parse(operator: &str, first: &Value, second: &Value) -> Option<Self> {
        if operator.eq_ignore_ascii_case("content-length-range") {
            // Tools write the numbers as texts too.
            let bytes = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
            let (least, most) = (bytes(first)?, bytes(second)?);
            return (least <= most).then_some(Self::Length { least, most });
        }
        let field = first.as_str()?.strip_prefix('$')?.to_ascii_lowercase();
        let value = second.as_str()?.to_owned();
        if operator.eq_ignore_ascii_case("eq") {
            Some(Self::Equals { field, value })
        } else if operator.eq_ignore_ascii_case("starts-with") {
            Some(Self::StartsWith { field, prefix: value })
        } else {
            None
        }
    }

    fn field(&self) -> Option<&String> {
        match self {
            Self::Equals { field, .. } | Self::StartsWith { field, .. } => Some(field),
            Self::Length { .. } => None,
        }
    }

    /// A field that is given twice must fit both times. A field that is not given is empty.
    fn is_met(&self, form: Form<'_>) -> bool {
        let Some(field) = self.field() else { return true };
        let given = form.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
        let mut values: Vec<&str> = given.map(|(_, value)| value.as_str()).collect();
        if field == "bucket" {
            // The bucket is where the form is sent; a field of that name only says so again.
            values.push(form.bucket);
        }
        if values.is_empty() {
            values.push("");
        }
        values.into_iter().all(|value| match self {
            Self::Equals { value: wanted, .. } => value == wanted,
            // "Content-Type … can be a comma-separated list": each of them must begin so.
            Self::StartsWith { prefix, .. } if field == "content-type" => {
                value.split(',').all(|one| one.trim_start().starts_with(prefix))
            }
            Self::StartsWith { prefix, .. } => value.starts_with(prefix),
            Self::Length { .. } => true,
        })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equals { field, value } => write!(f, "[\"eq\", \"${field}\", \"{value}\"]"),
            Self::StartsWith { field, prefix } => write!(f, "[\"starts-with\", \"${field}\", \"{prefix}\"]"),
            Self::Length { least, most } => write!(f, "[\"content-length-range\", {least}, {most}]"),
        }
    }
}

#[cfg(test)]
mod tests;
