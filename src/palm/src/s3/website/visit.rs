//! A visit to a website host: what the core's rules say, carried out by anonymous requests of our own, so that access,
//! ranges and conditions are those of `GetObject`. Errors are pages.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, LOCATION, RANGE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use palm_core::s3::website::{self, Fallback, Protocol, Redirect, Route, Visit, Website};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use s3s::{Body, S3Error, S3ErrorCode};

use super::none;
use crate::s3::error;
use crate::s3::server::{Connection, Service, error_response, escape};

/// Where an object put with one redirects to.
const REDIRECT_LOCATION: HeaderName = HeaderName::from_static("x-amz-website-redirect-location");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-amz-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-amz-error-message");

/// Answers a request to the website of `bucket`.
pub async fn visit(service: &Service, bucket: Option<&str>, parts: Parts, id: &str) -> Response<Body> {
    match Visitor::begin(service, bucket, parts, id).await {
        Ok((visitor, website)) => visitor.visit(&website).await,
        Err(told) => Failure::of(&told).page(id, "", None),
    }
}

/// A visit under way.
struct Visitor<'a> {
    service: &'a Service,
    bucket: &'a str,
    parts: Parts,
    key: String,
    host: String,
    protocol: Protocol,
    id: &'a str,
}

/// What became of a visit that found nothing to show.
struct Failure {
    status: StatusCode,
    code: String,
    message: String,
}

impl<'a> Visitor<'a> {
    async fn begin(
        service: &'a Service,
        bucket: Option<&'a str>,
        parts: Parts,
        id: &'a str,
    ) -> Result<(Self, Website), S3Error> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(S3Error::new(S3ErrorCode::MethodNotAllowed));
        }
        let bucket = bucket.ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchBucket))?;
        let settings = service.buckets().settings(bucket).await.map_err(error::of)?;
        let website = settings.website.ok_or_else(none)?;
        let path = parts.uri.path();
        let key = percent_decode_str(path.strip_prefix('/').unwrap_or(path)).decode_utf8();
        let key = key.map_err(|_| S3Error::new(S3ErrorCode::InvalidURI))?.into_owned();
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        let is_tls = parts.extensions.get::<Connection>().is_some_and(|connection| connection.tls.is_some());
        let protocol = if is_tls { Protocol::Https } else { Protocol::Http };
        Ok((Self { service, bucket, parts, key, host, protocol, id }, website))
    }

    async fn visit(&self, website: &Website) -> Response<Body> {
        let visit = Visit { key: &self.key, host: &self.host, protocol: self.protocol };
        let key = match website.route(visit) {
            Route::Redirect(to) => return redirect(&to),
            Route::Serve(key) => key,
        };
        let answer = self.fetch(self.parts.method.clone(), &key, true).await;
        if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
            let to = answer.headers().get(REDIRECT_LOCATION).and_then(|to| to.to_str().ok());
            return match to.map(website::object_redirect) {
                Some(to) => redirect(&to),
                None => answer,
            };
        }
        let failure = Failure::read(&answer);
        // Without the right to list, what is missing is forbidden.
        if matches!(failure.status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN)
            && let Some(index) = website.folder_index(visit)
            && self.fetch(Method::HEAD, &index, false).await.status().is_success()
        {
            return redirect(&Website::to_folder(visit));
        }
        match website.after_failure(visit, failure.status.as_u16()) {
            Fallback::Redirect(to) => redirect(&to),
            Fallback::Error => failure.page(self.id, &key, None),
            Fallback::ErrorDocument(document) => {
                let answer = self.fetch(self.parts.method.clone(), &document, false).await;
                if answer.status().is_success() {
                    failure.head(answer)
                } else {
                    failure.page(self.id, &key, Some(&Failure::read(&answer)))
                }
            }
        }
    }

    /// Reads an object as anybody would, with the visitor's conditions and range or without.
    async fn fetch(&self, method: Method, key: &str, conditional: bool) -> Response<Body> {
        let path = format!("/{}/{}", self.bucket, utf8_percent_encode(key, NON_ALPHANUMERIC));
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = match path.parse() {
            Ok(uri) => uri,
            // It is longer than any key.
            Err(_) => return error_response(S3Error::new(S3ErrorCode::KeyTooLongError)),
        };
        *request.headers_mut() = self.headers(conditional);
        *request.extensions_mut() = self.parts.extensions.clone();
        self.service.take(request).await
    }

    /// The visitor's headers without what addresses, signs or brings a body: a website knows no one.
    fn headers(&self, conditional: bool) -> HeaderMap {
        let asks = |name: &HeaderName| {
            let conditions = *name == RANGE || name.as_str().starts_with("if-");
            let ours = name.as_str().starts_with("x-amz-") || name.as_str() == "authorization";
            !ours && ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) && (conditional || !conditions)
        };
        let headers = self.parts.headers.iter().filter(|(name, _)| asks(name));
        headers.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fn redirect(to: &Redirect) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(to.code).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    if let Ok(location) = HeaderValue::from_bytes(to.location.as_bytes()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

impl Failure {
    fn of(told: &S3Error) -> Self {
        Self {
            status: told.status_code().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: told.code().as_str().to_owned(),
            message: told.message().or_else(|| told.code().default_message()).unwrap_or_default().to_owned(),
        }
    }

    /// What an answer of s3s says. The answer to a HEAD says only its status.
    fn read(answer: &Response<Body>) -> Self {
        let xml = answer.body().bytes().unwrap_or_default();
        let xml = std::str::from_utf8(&xml).unwrap_or_default();
        let text = |start: &str, end: &str| Some(xml.split_once(start)?.1.split_once(end)?.0.to_owned());
        let bare = Self::of(&S3Error::new(match answer.status() {
            StatusCode::FORBIDDEN => S3ErrorCode::AccessDenied,
            StatusCode::PRECONDITION_FAILED => S3ErrorCode::PreconditionFailed,
            StatusCode::RANGE_NOT_SATISFIABLE => S3ErrorCode::InvalidRange,
            status if status.is_server_error() => S3ErrorCode::InternalError,
            _ => S3ErrorCode::NoSuchKey,
        }));
        Self {
            status: answer.status(),
            code: text("<Code>", "</Code>").unwrap_or(bare.code),
            message: text("<Message>", "</Message>").unwrap_or(bare.message),
        }
    }

    /// Gives an answer the status and the headers of a failure.
    fn head(&self, mut answer: Response<Body>) -> Response<Body> {
        *answer.status_mut() = self.status;
        for (name, text) in [(ERROR_CODE, &self.code), (ERROR_MESSAGE, &self.message)] {
            if let Ok(text) = HeaderValue::try_from(text) {
                answer.headers_mut().insert(name, text);
            }
        }
        answer
    }

    /// The page that tells of it; `document` is what failed about the error document.
    fn page(&self, id: &str, key: &str, document: Option<&Self>) -> Response<Body> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let title = format!("{} {reason}", self.status.as_u16());
        let list = |failure: &Self, more: &str| {
            format!("<ul>\n<li>Code: {}</li>\n<li>Message: {}</li>\n{more}</ul>\n", failure.code, failure.message)
        };
        let key = if key.is_empty() { String::new() } else { format!("<li>Key: {}</li>\n", escape(key)) };
        let own = list(self, &format!("{key}<li>RequestId: {id}</li>\n"));
        let more = document.map_or_else(String::new, |failure| {
            let text = "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n";
            format!("{text}{}", list(failure, ""))
        });
        let page = format!(
            "<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{own}{more}<hr/>\n</body>\n</html>\n"
        );
        let mut response = Response::new(Body::from(page));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
        self.head(response)
    }
}
