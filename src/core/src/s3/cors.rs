//! Cross-origin resource sharing (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManageCorsUsing.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html>).
//!
//! It lets nobody in: it only tells browsers which pages may see an answer that the requester gets anyway.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// The most rules of one configuration.
pub const RULES_MAX: usize = 100;

/// Longest rule id, in characters.
const ID_MAX: usize = 255;

/// Methods a rule can name.
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

/// What a preflight that nothing allows is told.
const FORBIDDEN: &str = "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, \
                         request method / Access-Control-Request-Method or Access-Control-Request-Headers are not \
                         whitelisted by the resource's CORS spec.";

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// For people.
    pub id: Option<String>,
    /// With at most one `*` each.
    pub allowed_origins: Vec<String>,
    /// Upper case.
    pub allowed_methods: Vec<String>,
    /// With at most one `*` each; compared without regard to case.
    pub allowed_headers: Vec<String>,
    /// What pages may read of an answer.
    pub expose_headers: Vec<String>,
    /// How long a browser may keep the answer to a preflight.
    pub max_age_seconds: Option<u32>,
}

/// A bucket's rules; the first that fits is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    rules: Vec<Rule>,
}

/// A header of an answer.
pub type Header = (&'static str, String);

impl Configuration {
    /// Validates rules as `PutBucketCors` does (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CORSRule.html>).
    pub fn new(rules: Vec<Rule>) -> Result<Self, Refusal> {
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(Refusal::malformed_xml());
        }
        rules.iter().try_for_each(Rule::check)?;
        Ok(Self { rules })
    }

    /// The rules, as they were put.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The headers for an answer to a request with an `Origin`; none when no rule fits.
    pub fn answer(&self, origin: &str, method: &str) -> Vec<Header> {
        let rule = self.rules.iter().find(|rule| rule.fits(origin, method, &[]));
        rule.map_or_else(Vec::new, |rule| rule.headers(origin, &[]))
    }

    /// The headers for the answer to a preflight. `headers`: the value of `Access-Control-Request-Headers`, if any.
    pub fn answer_preflight(&self, origin: &str, method: &str, headers: Option<&str>) -> Result<Vec<Header>, Refusal> {
        let asked = headers.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        let asked: Vec<String> = asked.map(str::to_ascii_lowercase).collect();
        let rule = self.rules.iter().find(|rule| rule.fits(origin, method, &asked));
        rule.map(|rule| rule.headers(origin, &asked))
            .ok_or_else(|| Refusal::with_status(403, "AccessForbidden", FORBIDDEN))
    }
}

/// What the preflight of a bucket without a configuration is told.
pub fn disabled() -> Refusal {
    Refusal::with_status(403, "AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
}

/// What a preflight must have: an origin and a method that a rule could name.
pub fn check_preflight(origin: Option<&str>, method: Option<&str>) -> Result<(), Refusal> {
    if origin.is_none_or(str::is_empty) {
        let message = "Insufficient information. Origin request header needed.";
        return Err(Refusal::bad("BadRequest", message));
    }
    match method {
        Some(method) if METHODS.contains(&method) => Ok(()),
        method => {
            let method = method.unwrap_or("null");
            Err(Refusal::bad("BadRequest", format!("Invalid Access-Control-Request-Method: {method}")))
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), Refusal> {
        if self.id.as_ref().is_some_and(|id| id.chars().count() > ID_MAX) {
            return Err(Refusal::invalid_argument(
                "The ID specified in the rule must not be longer than 255 characters.",
            ));
        }
        if self.allowed_origins.is_empty() || self.allowed_methods.is_empty() {
            return Err(Refusal::malformed_xml());
        }
        if let Some(method) = self.allowed_methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            let message = format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}");
            return Err(Refusal::invalid_request(message));
        }
        let wild = |texts: &[String]| texts.iter().find(|text| text.matches('*').count() > 1).cloned();
        if let Some(origin) = wild(&self.allowed_origins) {
            let message = format!("AllowedOrigin \"{origin}\" can not have more than one wildcard.");
            return Err(Refusal::invalid_request(message));
        }
        if let Some(header) = wild(&self.allowed_headers) {
            let message = format!("AllowedHeader \"{header}\" can not have more than one wildcard.");
            return Err(Refusal::invalid_request(message));
        }
        let named = |name: &&String| name.contains('*') || !is_header_name(name);
        if let Some(header) = self.expose_headers.iter().find(named) {
            let message = format!(
                "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
            );
            return Err(Refusal::invalid_request(message));
        }
        Ok(())
    }

    fn fits(&self, origin: &str, method: &str, asked: &[String]) -> bool {
        let allows =
            |name: &String| self.allowed_headers.iter().any(|pattern| wild(&pattern.to_ascii_lowercase(), name));
        self.allowed_origins.iter().any(|pattern| wild(pattern, origin))
            && self.allowed_methods.iter().any(|allowed| allowed == method)
            && asked.iter().all(allows)
    }

    /// An origin allowed by a lone `*` is not named, so that caches may keep the answer for all; any other is, and then
    /// credentials may be sent.
    fn headers(&self, origin: &str, asked: &[String]) -> Vec<Header> {
        let anyone =
            self.allowed_origins.iter().find(|pattern| wild(pattern, origin)).is_some_and(|pattern| pattern == "*");
        let mut headers = vec![
            ("access-control-allow-origin", if anyone { "*".to_owned() } else { origin.to_owned() }),
            ("access-control-allow-methods", self.allowed_methods.join(", ")),
        ];
        if !asked.is_empty() {
            headers.push(("access-control-allow-headers", asked.join(", ")));
        }
        if !self.expose_headers.is_empty() {
            headers.push(("access-control-expose-headers", self.expose_headers.join(", ")));
        }
        if let Some(seconds) = self.max_age_seconds {
            headers.push(("access-control-max-age", seconds.to_string()));
        }
        if !anyone {
            headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        headers.push(("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method".to_owned()));
        headers
    }
}

/// Here `?` is a character like others.
fn wild(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

/// RFC 9110: a token.
fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

#[cfg(test)]
mod tests;
