//! Browser forms (<https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>): a form is a PUT whose headers
//! come in fields, signed by its policy.
//!
//! s3s has an operation for forms that loses most of the fields on the way. So forms are read here: the signature over
//! the policy is verified, the policy is enforced on every field, and what is left is an ordinary `PutObject` that
//! carries its [`Signer`] instead of a signature, and so meets every rule that a PUT meets: access, ACL, tags,
//! lock, encryption, checksums. A form without a policy is an anonymous request.

use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderName, LOCATION, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use palm_core::s3::post_policy::{self, PostPolicy};
use palm_core::s3::tags::On;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::auth::{Credentials, S3Auth};
use s3s::xml::{Deserialize, Deserializer};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, dto};
use time::OffsetDateTime;

use super::access::{SIGV4, Signer};
use super::hosts::Place;
use super::notification::OfForm;
use super::server::{Connection, Service, escape};
use super::{error, tagging};

mod parts;

/// Fields that become headers of the PUT under their own names. Nothing else does: a field could otherwise turn the
/// PUT into a copy.
const HEADERS: [&str; 10] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "x-amz-security-token",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];
/// And fields that begin so.
const HEADER_PREFIXES: [&str; 6] = [
    "x-amz-checksum-",
    "x-amz-grant-",
    "x-amz-meta-",
    "x-amz-object-lock-",
    "x-amz-sdk-checksum-",
    "x-amz-server-side-encryption",
];
/// What stands for itself anywhere in a URL (RFC 3986, section 2.3) and what is written otherwise.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same within the path of an object's URL.
const IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The bucket that a form is sent to; `None` for a request that is no form.
pub fn target<B>(request: &Request<B>, place: &Place, bucket: Option<&str>) -> Option<S3Result<String>> {
    let kind = request.headers().get(CONTENT_TYPE)?.as_bytes();
    let is_form = kind.get(..19).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/form-data"));
    if request.method() != Method::POST || !is_form {
        return None;
    }
    let path = request.uri().path().trim_matches('/');
    let is_bucket = match place {
        Place::Bucket(_) => path.is_empty(),
        Place::Path | Place::Website(_) => !path.is_empty() && !path.contains('/'),
    };
    let bucket = bucket.filter(|_| is_bucket).map(str::to_owned);
    Some(bucket.ok_or_else(|| S3Error::new(S3ErrorCode::MethodNotAllowed)))
}

/// Takes in a form that was sent to `bucket`.
pub async fn receive(service: &Service, bucket: &str, request: Request<Body>) -> S3Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let (mut form, file) = parts::read(&head.headers, body).await?;
    form.name_file(&file.name)?;
    let signer = form.verify(service.keys()).await?;
    let now_ms = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    form.check_policy(bucket, file.length, u64::try_from(now_ms).unwrap_or_default())?;

    let origin = origin(&head.headers, head.extensions.get::<Connection>());
    let mut put = Request::new(Body::empty());
    *put.method_mut() = Method::PUT;
    *put.uri_mut() = path(bucket, form.key()).parse().map_err(|_| S3Error::new(S3ErrorCode::InvalidURI))?;
    *put.headers_mut() = form.headers()?;
    put.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(file.length));
    // Policies of buckets may ask for these.
    for name in [REFERER, USER_AGENT] {
        if let Some(value) = head.headers.get(&name) {
            put.headers_mut().insert(name, value.clone());
        }
    }
    *put.extensions_mut() = head.extensions;
    put.extensions_mut().insert(OfForm);
    if let Some(signer) = signer {
        put.extensions_mut().insert(signer);
    }
    *put.body_mut() = file.body;
    let answer = service.dispatch(put).await;
    if answer.status() == StatusCode::OK { Ok(form.answer(bucket, &origin, answer)) } else { Ok(answer) }
}

/// The fields of a form but the file, in the order they came; names in lower case.
struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    /// The first field of this name.
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> S3Result<&str> {
        self.field(name).ok_or_else(|| missing(name))
    }

    fn key(&self) -> &str {
        self.field("key").unwrap_or_default()
    }

    /// Replaces `${filename}` in the key, and looks at the key.
    fn name_file(&mut self, name: &str) -> S3Result<()> {
        // Some browsers send the whole path.
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        for (field, value) in &mut self.fields {
            if field == "key" {
                *value = value.replace("${filename}", name);
            }
        }
        super::check_key(self.required("key")?)
    }

    /// Verifies the signature over the policy, of either version: AWS takes both in forms, and clients that make forms by
    /// hand still use the older. `None`: the form is not signed at all.
    async fn verify(&self, keys: &dyn S3Auth) -> S3Result<Option<Signer>> {
        let signs = ["policy", "signature", "x-amz-signature", "awsaccesskeyid", "x-amz-credential"];
        if signs.iter().all(|name| self.field(name).is_none()) {
            return Ok(None);
        }
        let policy = self.required("policy")?;
        let (access_key, secret, version, is_genuine) = if let Some(signature) = self.field("x-amz-signature") {
            let scope = Scope::read(self)?;
            let secret = keys.get_secret_key(scope.access_key).await?;
            let is_genuine = scope.verify(secret.expose(), policy, signature);
            (scope.access_key, secret, SIGV4, is_genuine)
        } else {
            let signature = self.required("signature")?;
            let access_key = self.required("awsaccesskeyid")?;
            let secret = keys.get_secret_key(access_key).await?;
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
            let tag = BASE64.decode(signature.as_bytes()).unwrap_or_default();
            let is_genuine = hmac::verify(&key, policy.as_bytes(), &tag).is_ok();
            (access_key, secret, "AWS", is_genuine)
        };
        if !is_genuine {
            return Err(S3Error::new(S3ErrorCode::SignatureDoesNotMatch));
        }
        let credentials = Credentials { access_key: access_key.to_owned(), secret_key: secret };
        Ok(Some(Signer { credentials, by: "POST", version }))
    }

    /// Enforces the policy, if there is one.
    fn check_policy(&self, bucket: &str, length: u64, now_ms: u64) -> S3Result<()> {
        let Some(policy) = self.field("policy") else { return Ok(()) };
        let decoded = BASE64.decode(policy.as_bytes());
        let decoded = decoded.map_err(|_| {
            let text = "Invalid Policy: the policy is not base64.";
            S3Error::with_message(S3ErrorCode::InvalidPolicyDocument, text)
        })?;
        let judge = || {
            let policy = PostPolicy::parse(&decoded)?;
            policy.check(post_policy::Form { bucket, fields: &self.fields }, now_ms)?;
            policy.check_length(length)
        };
        judge().map_err(|refusal| error::of_refusal(&refusal))
    }

    /// The headers of the PUT that the form asks for.
    fn headers(&self) -> S3Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.fields {
            let (name, value) = match name.as_str() {
                "acl" => ("x-amz-acl", value.clone()),
                "tagging" => ("x-amz-tagging", read_tagging(value)?),
                name if HEADERS.contains(&name) => (name, value.clone()),
                name if HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => (name, value.clone()),
                _ => continue,
            };
            let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let (name, value) = header.ok_or_else(|| error::invalid_argument(format!("Invalid form field: {name}")))?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// Turns the answer to the PUT into what the form wants to see: a redirection, a document, or only a status.
    fn answer(&self, bucket: &str, origin: &str, answer: Response<Body>) -> Response<Body> {
        let (mut head, _) = answer.into_parts();
        let key = self.key();
        let tag = head.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(CONTENT_TYPE);
        let to = self.field("success_action_redirect").or_else(|| self.field("redirect"));
        let location = if let Some(to) = to.and_then(|to| redirection(to, bucket, key, &tag)) {
            head.status = StatusCode::SEE_OTHER;
            to
        } else {
            head.status = match self.field("success_action_status") {
                Some("200") => StatusCode::OK,
                Some("201") => StatusCode::CREATED,
                _ => StatusCode::NO_CONTENT,
            };
            format!("{origin}{}", path(bucket, key))
        };
        let body = if head.status == StatusCode::CREATED {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            Body::from(format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location><Bucket>{}</Bucket>\
                 <Key>{}</Key><ETag>{}</ETag></PostResponse>",
                escape(&location),
                escape(bucket),
                escape(key),
                escape(&tag),
            ))
        } else {
            Body::empty()
        };
        if let Ok(location) = HeaderValue::try_from(location) {
            head.headers.insert(LOCATION, location);
        }
        Response::from_parts(head, body)
    }
}

/// What a signature of version 4 is made for: a key, and a day, region and service.
struct Scope<'a> {
    access_key: &'a str,
    terms: [&'a str; 4],
}

impl<'a> Scope<'a> {
    fn read(form: &'a Form) -> S3Result<Self> {
        if form.required("x-amz-algorithm")? != SIGV4 {
            return Err(error::invalid_argument("Only the AWS4-HMAC-SHA256 algorithm is supported"));
        }
        let (credential, date) = (form.required("x-amz-credential")?, form.required("x-amz-date")?);
        let terms: Vec<&str> = credential.split('/').collect();
        match terms.as_slice() {
            [access_key, day, region, "s3", "aws4_request"] if !day.is_empty() && date.starts_with(day) => {
                Ok(Self { access_key, terms: [day, region, "s3", "aws4_request"] })
            }
            _ => Err(error::invalid_argument("The x-amz-credential field is not of this service or day")),
        }
    }

    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html>
    fn verify(&self, secret: &str, policy: &str, signature: &str) -> bool {
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let first = key(format!("AWS4{secret}").as_bytes());
        let signing = self.terms.iter().fold(first, |last, term| key(hmac::sign(&last, term.as_bytes()).as_ref()));
        let tag = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).unwrap_or_default();
        hmac::verify(&signing, policy.as_bytes(), &tag).is_ok()
    }
}

fn missing(field: &str) -> S3Error {
    error::invalid_argument(format!(
        "Bucket POST must contain a field named '{field}'.  If it is specified, please check the order of the fields."
    ))
}

/// The `tagging` field is the XML of `PutObjectTagging`; a PUT takes tags as a query.
fn read_tagging(xml: &str) -> S3Result<String> {
    let mut reader = Deserializer::new(xml.as_bytes());
    let tagging = dto::Tagging::deserialize(&mut reader).map_err(|_| S3Error::new(S3ErrorCode::MalformedXML))?;
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let tags = tagging::parse(tagging.tag_set, On::Object)?;
    Ok(tags.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&"))
}

/// An object's path, in path style.
fn path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", utf8_percent_encode(key, IN_PATH))
}

/// What a client calls this peer: scheme and host.
fn origin(headers: &HeaderMap, from: Option<&Connection>) -> String {
    let scheme = if from.is_some_and(|from| from.tls.is_some()) { "https" } else { "http" };
    headers.get(HOST).and_then(|host| host.to_str().ok()).map_or_else(String::new, |host| format!("{scheme}://{host}"))
}

/// Where a browser goes after a successful upload; `None` for what is no URL, which AWS passes over too.
fn redirection(to: &str, bucket: &str, key: &str, tag: &str) -> Option<String> {
    let uri: Uri = to.parse().ok()?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return None;
    }
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let joint = if uri.query().is_some() { '&' } else { '?' };
    Some(format!("{to}{joint}bucket={}&key={}&etag={}", encode(bucket), encode(key), encode(tag)))
}

#[cfg(test)]
mod tests;
