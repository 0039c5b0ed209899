//! Website hosting (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/WebsiteHosting.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/how-to-page-redirect.html>): what a request to a website host
//! is answered with.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// The most routing rules.
pub const RULES_MAX: usize = 50;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Protocol {
    /// By its name in XML.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(Refusal::invalid_request(
                "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.",
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A bucket's website.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Website {
    /// `RedirectAllRequestsTo`.
    RedirectAll {
        /// Where to.
        host: String,
        /// As the request's when absent.
        protocol: Option<Protocol>,
    },
    /// Served from the bucket.
    Serve {
        /// `IndexDocument/Suffix`.
        index: String,
        /// `ErrorDocument/Key`.
        error: Option<String>,
        /// In order; the first that fits is taken.
        rules: Vec<Rule>,
    },
}

/// One routing rule: where to send what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// `KeyPrefixEquals`.
    pub key_prefix: Option<String>,
    /// `HttpErrorCodeReturnedEquals`: applied once the answer would be this error.
    pub error_code: Option<u16>,
    /// `Protocol`.
    pub protocol: Option<Protocol>,
    /// `HostName`.
    pub host: Option<String>,
    /// `ReplaceKeyPrefixWith`: takes the place of the rule's prefix.
    pub replace_prefix: Option<String>,
    /// `ReplaceKeyWith`: takes the place of the key.
    pub replace_key: Option<String>,
    /// `HttpRedirectCode`; 301 when absent.
    pub code: Option<u16>,
}

/// A request to a website host.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The path without its first `/`, decoded.
    pub key: &'a str,
    /// `Host`.
    pub host: &'a str,
    /// How it came.
    pub protocol: Protocol,
}

/// What to do first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Read this key; when that fails, ask [`Website::after_failure`].
    Serve(String),
    /// Answer with `Location`.
    Redirect(Redirect),
}

/// A redirection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301 to 308.
    pub code: u16,
    /// `Location`.
    pub location: String,
}

/// What to do when the key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// Answer with `Location`.
    Redirect(Redirect),
    /// Answer the error's status with this object's bytes; if it cannot be read either, with the error itself.
    ErrorDocument(String),
    /// Answer the error itself, as HTML.
    Error,
}

impl Website {
    /// Validates as `PutBucketWebsite` does.
    pub fn validated(self) -> Result<Self, Refusal> {
        match &self {
            Self::RedirectAll { host, .. } if host.is_empty() => Err(Refusal::malformed_xml()),
            Self::RedirectAll { .. } => Ok(self),
            Self::Serve { index, .. } if index.is_empty() || index.contains('/') => {
                Err(Refusal::invalid_argument("The IndexDocument Suffix is not well formed"))
            }
            Self::Serve { error, .. } if error.as_ref().is_some_and(String::is_empty) => {
                Err(Refusal::invalid_argument("The ErrorDocument Key is not well formed"))
            }
            Self::Serve { rules, .. } if rules.len() > RULES_MAX => Err(Refusal::invalid_request(format!(
                "{} routing rules provided, the number of routing rules in a website configuration is limited to {RULES_MAX}.",
                rules.len()
            ))),
            Self::Serve { rules, .. } => rules.iter().try_for_each(Rule::check).map(|()| self),
        }
    }

    /// What to do with a visit.
    pub fn route(&self, visit: Visit<'_>) -> Route {
        match self {
            Self::RedirectAll { host, protocol } => {
                let protocol = protocol.unwrap_or(visit.protocol);
                Route::Redirect(Redirect { code: 301, location: location(protocol, host, visit.key) })
            }
            Self::Serve { index, rules, .. } => {
                let rule = rules.iter().find(|rule| rule.error_code.is_none() && rule.fits(visit.key));
                match rule {
                    Some(rule) => Route::Redirect(rule.redirect(visit)),
                    None if visit.key.is_empty() || visit.key.ends_with('/') => {
                        Route::Serve(format!("{}{index}", visit.key))
                    }
                    None => Route::Serve(visit.key.to_owned()),
                }
            }
        }
    }

    /// The key whose existence turns a 404 into a redirection to the same path with a `/`: the index document of the
    /// folder by that name.
    pub fn folder_index(&self, visit: Visit<'_>) -> Option<String> {
        match self {
            Self::Serve { index, .. } if !visit.key.is_empty() && !visit.key.ends_with('/') => {
                Some(format!("{}/{index}", visit.key))
            }
            _ => None,
        }
    }

    /// The redirection for a path that is a folder with an index document.
    pub fn to_folder(visit: Visit<'_>) -> Redirect {
        Redirect { code: 302, location: format!("/{}/", encode_path(visit.key)) }
    }

    /// What to do when the key could not be read, with this status (403, 404, …).
    pub fn after_failure(&self, visit: Visit<'_>, status: u16) -> Fallback {
        let Self::Serve { error, rules, .. } = self else { return Fallback::Error };
        if let Some(rule) = rules.iter().find(|rule| rule.error_code == Some(status) && rule.fits(visit.key)) {
            return Fallback::Redirect(rule.redirect(visit));
        }
        // "The error document is for 4xx errors."
        match error {
            Some(key) if (400..500).contains(&status) => Fallback::ErrorDocument(key.clone()),
            _ => Fallback::Error,
        }
    }
}

/// The redirection of an object put with `x-amz-website-redirect-location`.
pub fn object_redirect(location: &str) -> Redirect {
    Redirect { code: 301, location: location.to_owned() }
}

/// Whether a `x-amz-website-redirect-location` may be put.
pub fn check_object_redirect(location: &str) -> Result<(), Refusal> {
    let known = ["/", "http://", "https://"].iter().any(|prefix| location.starts_with(prefix));
    // An answer's header: a line break would begin another.
    let printable = location.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !known {
        let message = "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.";
        return Err(Refusal::bad("InvalidRedirectLocation", message));
    }
    if location.len() > 2048 || !printable {
        let message = "The length of website redirect location cannot exceed 2,048 characters.";
        return Err(Refusal::bad("InvalidRedirectLocation", message));
    }
    Ok(())
}

impl Rule {
    fn check(&self) -> Result<(), Refusal> {
        let redirects = self.protocol.is_some()
            || self.host.is_some()
            || self.replace_prefix.is_some()
            || self.replace_key.is_some()
            || self.code.is_some();
        if !redirects {
            return Err(Refusal::malformed_xml());
        }
        if self.replace_key.is_some() && self.replace_prefix.is_some() {
            return Err(Refusal::invalid_request("You can only define ReplaceKeyPrefix or ReplaceKey but not both."));
        }
        if self.error_code.is_some_and(|code| !(400..600).contains(&code)) {
            return Err(Refusal::invalid_request(
                "The provided HTTP error code is not valid. Valid codes are 4XX or 5XX.",
            ));
        }
        if self.code.is_some_and(|code| !(301..=308).contains(&code)) {
            return Err(Refusal::invalid_request(
                "The provided HTTP redirect code is not valid. Valid codes are 3XX except 300.",
            ));
        }
        // They become a header.
        let printable = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.host.as_ref().is_some_and(|host| host.is_empty() || host.contains('/') || !printable(host)) {
            return Err(Refusal::invalid_request("The provided host name is not valid."));
        }
        Ok(())
    }

    fn fits(&self, key: &str) -> bool {
        self.key_prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
    }

    fn redirect(&self, visit: Visit<'_>) -> Redirect {
        let key = match (&self.replace_key, &self.replace_prefix) {
            (Some(key), _) => key.clone(),
            (None, Some(replacement)) => {
                let prefix = self.key_prefix.as_deref().unwrap_or_default();
                format!("{replacement}{}", visit.key.strip_prefix(prefix).unwrap_or(visit.key))
            }
            (None, None) => visit.key.to_owned(),
        };
        let host = self.host.as_deref().unwrap_or(visit.host);
        let location = location(self.protocol.unwrap_or(visit.protocol), host, &key);
        Redirect { code: self.code.unwrap_or(301), location }
    }
}

fn location(protocol: Protocol, host: &str, key: &str) -> String {
    format!("{}://{host}/{}", protocol.name(), encode_path(key))
}

/// Percent-encodes what cannot stand in a path; above all line breaks, which would begin another header.
fn encode_path(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    path
}

#[cfg(test)]
mod tests;
