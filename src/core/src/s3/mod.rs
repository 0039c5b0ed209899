//! What S3 decides, as functions of what was configured, what is asked and the time: no HTTP, no XML, no ledger.
//!
//! The front end turns requests into these structs and the answers back into HTTP; whatever must hold under races runs
//! inside a ledger update, which these functions are made for: current state in, next state or a [`Refusal`] out.
//!
//! - [`policy`]: bucket and identity policies, and [`policy::decide`], the one place where access is granted.
//! - [`account`]: who owns things.
//! - [`acl`]: access control lists, object ownership and the public access block.
//! - [`cors`]: what browsers are told. [`website`]: what a website host answers.
//! - [`lifecycle`]: what expires when.
//! - [`version`]: what PUT and DELETE do to a key's versions. [`lock`]: what object lock forbids them.
//! - [`storage_class`]: how objects of a class are coded.
//! - [`tags`], [`quota`], [`name`]: limits. [`post_policy`]: what a browser form may bring.
//! - [`notification`], [`logging`]: what others are told of a request.
//! - [`pattern`] and [`calendar`]: wildcards and dates, as policies and lifecycle rules use them.

use std::borrow::Cow;

pub mod account;
pub mod acl;
pub mod calendar;
pub mod cors;
pub mod lifecycle;
pub mod lock;
pub mod logging;
pub mod name;
pub mod notification;
pub mod pattern;
pub mod policy;
pub mod post_policy;
pub mod quota;
pub mod storage_class;
pub mod tags;
pub mod version;
pub mod website;

/// What is said of XML that is none, or not as its schema wants it.
pub const MALFORMED_XML: &str =
    "The XML you provided was not well-formed or did not validate against our published schema";

/// An error as S3 answers it: code, status and message of
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// `Code` of the error document.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// `Message` of the error document, for people: AWS's own text where it is known.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with status 400.
    pub fn bad(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: 400, message: message.into() }
    }

    /// A refusal with another status.
    pub fn with_status(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status, message: message.into() }
    }

    /// 400 `InvalidArgument`.
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("InvalidArgument", message)
    }

    /// 400 `InvalidRequest`.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("InvalidRequest", message)
    }

    /// 400 `MalformedXML`: a configuration that breaks its schema.
    pub fn malformed_xml() -> Self {
        Self::bad("MalformedXML", MALFORMED_XML)
    }

    /// 403 `AccessDenied`.
    pub fn access_denied() -> Self {
        Self::with_status(403, "AccessDenied", "Access Denied")
    }
}
