//! Cross-origin resource sharing: the bucket's rules, preflights, and the headers of answers.
//!
//! A browser asks before it sends (`OPTIONS`, without any signature) and reads an answer only if its headers say that it
//! may. Both are decided here, around s3s, which knows neither. It lets nobody in: the answer is the same without.

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response};
use palm_core::s3::cors::{self, Configuration, Header, Rule};
use s3s::dto::{
    CORSRule, DeleteBucketCorsInput, DeleteBucketCorsOutput, GetBucketCorsInput, GetBucketCorsOutput,
    PutBucketCorsInput, PutBucketCorsOutput,
};
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::bucket_settings::{change, settings};
use super::server::Buckets;
use super::{Frontend, error};

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketCorsInput>,
) -> S3Result<S3Response<PutBucketCorsOutput>> {
    let rules = request.input.cors_configuration.cors_rules.into_iter().map(read_rule).collect::<S3Result<_>>()?;
    let rules = Configuration::new(rules).map_err(|refusal| error::of_refusal(&refusal))?;
    change(frontend, &request.input.bucket, |config| {
        config.cors = Some(rules.clone());
        Ok(())
    })
    .await?;
    Ok(S3Response::new(PutBucketCorsOutput::default()))
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketCorsInput>,
) -> S3Result<S3Response<GetBucketCorsOutput>> {
    let rules = settings(frontend, &request.input.bucket).await?.cors;
    let rules = rules.ok_or_else(|| {
        S3Error::with_message(S3ErrorCode::NoSuchCORSConfiguration, "The CORS configuration does not exist")
    })?;
    let cors_rules = Some(rules.rules().iter().map(write_rule).collect());
    Ok(S3Response::new(GetBucketCorsOutput { cors_rules }))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketCorsInput>,
) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
    change(frontend, &request.input.bucket, |config| {
        config.cors = None;
        Ok(())
    })
    .await?;
    Ok(S3Response::new(DeleteBucketCorsOutput::default()))
}

fn read_rule(rule: CORSRule) -> S3Result<Rule> {
    let CORSRule { allowed_headers, allowed_methods, allowed_origins, expose_headers, id, max_age_seconds } = rule;
    let seconds = max_age_seconds.map(u32::try_from).transpose();
    Ok(Rule {
        id,
        allowed_origins,
        allowed_methods,
        allowed_headers: allowed_headers.unwrap_or_default(),
        expose_headers: expose_headers.unwrap_or_default(),
        max_age_seconds: seconds.map_err(|_| S3Error::new(S3ErrorCode::MalformedXML))?,
    })
}

fn write_rule(rule: &Rule) -> CORSRule {
    let some = |texts: &Vec<String>| Some(texts.clone()).filter(|texts| !texts.is_empty());
    CORSRule {
        allowed_headers: some(&rule.allowed_headers),
        allowed_methods: rule.allowed_methods.clone(),
        allowed_origins: rule.allowed_origins.clone(),
        expose_headers: some(&rule.expose_headers),
        id: rule.id.clone(),
        max_age_seconds: rule.max_age_seconds.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
    }
}

/// Answers a preflight (<https://docs.aws.amazon.com/AmazonS3/latest/API/RESTOPTIONSobject.html>).
pub async fn preflight(buckets: &dyn Buckets, bucket: Option<&str>, headers: &HeaderMap) -> S3Result<Response<Body>> {
    let (origin, method) = (text(headers, &ORIGIN), text(headers, &ACCESS_CONTROL_REQUEST_METHOD));
    let of_refusal = |refusal| error::of_refusal(&refusal);
    cors::check_preflight(origin, method).map_err(of_refusal)?;
    let bucket = bucket.ok_or_else(|| S3Error::new(S3ErrorCode::MethodNotAllowed))?;
    let rules = buckets.settings(bucket).await.map_err(error::of)?.cors;
    let rules = rules.ok_or_else(|| of_refusal(cors::disabled()))?;
    let asked = text(headers, &ACCESS_CONTROL_REQUEST_HEADERS);
    let answer = rules.answer_preflight(origin.unwrap_or_default(), method.unwrap_or_default(), asked);
    let mut response = Response::new(Body::empty());
    add(response.headers_mut(), answer.map_err(of_refusal)?);
    Ok(response)
}

/// What a browser that is not of the same origin asks, beside its request.
#[derive(Debug)]
pub struct Crossing {
    origin: String,
    method: String,
}

impl Crossing {
    /// Reads the headers; `None` for a request without an `Origin`. A request that names another method than its own is
    /// answered for that one: no browser sends such, so it only helps those who look by hand.
    pub fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let origin = text(headers, &ORIGIN)?.to_owned();
        let method = text(headers, &ACCESS_CONTROL_REQUEST_METHOD).unwrap_or(method.as_str()).to_owned();
        Some(Self { origin, method })
    }

    /// The headers for the answer, whatever it is: a page may read an error too. What cannot be found out adds none.
    pub async fn headers(&self, buckets: &dyn Buckets, bucket: &str) -> Vec<Header> {
        match buckets.settings(bucket).await {
            Ok(config) => config.cors.map_or_else(Vec::new, |rules| rules.answer(&self.origin, &self.method)),
            Err(_) => Vec::new(),
        }
    }
}

/// Adds headers to an answer's.
pub fn add(headers: &mut HeaderMap, more: Vec<Header>) {
    for (name, value) in more {
        // What a rule says comes from a client: what cannot stand in a header is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
