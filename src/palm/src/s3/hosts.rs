//! What a request's host name says: a bucket, a bucket's website, or nothing
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html>).

use std::net::IpAddr;

use palm_core::s3::name::check_bucket;
use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

use crate::config::CustomDomains;

/// The host names this peer answers to.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    domains: Vec<String>,
    website_domains: Vec<String>,
    custom: CustomDomains,
}

/// Where a request is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The bucket, if any, is in the path.
    Path,
    /// To this bucket; the path is the key.
    Bucket(String),
    /// To the website of this bucket, or to the domain of websites itself.
    Website(Option<String>),
}

impl Place {
    /// Whether a path under it names an object.
    pub fn names_object(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        match self {
            Self::Path => path.split_once('/').is_some_and(|(_, key)| !key.is_empty()),
            Self::Bucket(_) | Self::Website(_) => !path.is_empty(),
        }
    }
}

/// Not a domain, or two that overlap.
#[derive(Debug, thiserror::Error)]
#[error("not a domain, or named twice: {0:?}")]
pub struct BadDomain(String);

impl Hosts {
    /// Hosts by their domains. One may lie within another: the longest that fits is taken.
    pub fn new(domains: &[String], websites: &[String], custom: CustomDomains) -> Result<Self, BadDomain> {
        let mut seen: Vec<String> = Vec::new();
        for domain in domains.iter().chain(websites) {
            let lower = domain.to_ascii_lowercase();
            let label = |label: &str| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            if !lower.split('.').all(label) || lower.parse::<IpAddr>().is_ok() || seen.contains(&lower) {
                return Err(BadDomain(domain.clone()));
            }
            seen.push(lower);
        }
        let website_domains = seen.split_off(domains.len());
        Ok(Self { domains: seen, website_domains, custom })
    }

    /// Where a request with this `Host` is addressed to.
    pub fn place(&self, host: &str) -> Place {
        let host = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let within = |domain: &String| {
            let rest = host.strip_suffix(domain.as_str())?;
            let bucket = if rest.is_empty() { None } else { Some(rest.strip_suffix('.')?) };
            Some((domain.len(), bucket.map(str::to_owned)))
        };
        let of = |domains: &[String]| domains.iter().filter_map(within).max_by_key(|(length, _)| *length);
        let (bucket, website) = (of(&self.domains), of(&self.website_domains));
        let longer = |length: usize| bucket.as_ref().is_none_or(|(other, _)| *other < length);
        match website {
            Some((length, website)) if longer(length) => return Place::Website(website),
            _ => {}
        }
        if let Some((_, bucket)) = bucket {
            return bucket.map_or(Place::Path, Place::Bucket);
        }
        // `localhost` and addresses are how people reach a peer, never buckets.
        let named = host.contains('.') && check_bucket(&host).is_ok();
        match self.custom {
            CustomDomains::S3 if named => Place::Bucket(host),
            CustomDomains::Website if named => Place::Website(Some(host)),
            _ => Place::Path,
        }
    }
}

/// `host`, of `host:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match self.place(host) {
            Place::Bucket(bucket) => VirtualHost::new(host).with_bucket(bucket),
            // A website's request is served as path-style ones, which have no host: see `website`.
            Place::Path | Place::Website(_) => VirtualHost::new(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(custom: CustomDomains) -> Hosts {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let domains = texts(&["example.org", "S3.example.org", "localhost"]);
        Hosts::new(&domains, &texts(&["web.example.org"]), custom).expect("domains")
    }

    /// Scenario: one domain lies within another, names come in any case and with ports. Danger: a request reaches another
    /// bucket than its URL says. Expectation: the longest domain decides, and what is left of it is the bucket.
    #[test]
    fn the_longest_domain_decides() {
        let hosts = hosts(CustomDomains::Off);
        let bucket = |name: &str| Place::Bucket(name.to_owned());
        let website = |name: &str| Place::Website(Some(name.to_owned()));
        let table = [
            ("example.org", Place::Path),
            ("s3.example.org:9000", Place::Path),
            ("photos.s3.example.org", bucket("photos")),
            ("PHOTOS.S3.Example.ORG:80", bucket("photos")),
            ("a.b.s3.example.org", bucket("a.b")),
            ("photos.example.org", bucket("photos")),
            ("photos.localhost:9000", bucket("photos")),
            ("photos.web.example.org", website("photos")),
            ("web.example.org", Place::Website(None)),
            ("notexample.org", Place::Path),
            ("localhost", Place::Path),
            ("127.0.0.1:9000", Place::Path),
            ("[::1]:9000", Place::Path),
            ("", Place::Path),
        ];
        for (host, place) in table {
            assert_eq!(hosts.place(host), place, "{host}");
        }
    }

    #[test]
    fn other_names_are_buckets_only_where_that_is_wanted() {
        assert_eq!(hosts(CustomDomains::Off).place("www.photos.net"), Place::Path);
        assert_eq!(hosts(CustomDomains::S3).place("www.photos.net:80"), Place::Bucket("www.photos.net".into()));
        let website = Place::Website(Some("www.photos.net".into()));
        assert_eq!(hosts(CustomDomains::Website).place("www.photos.net"), website);
        for host in ["peer1", "10.0.0.1:9000", "[::1]", "a..b", "-a.b"] {
            assert_eq!(hosts(CustomDomains::S3).place(host), Place::Path, "{host}");
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for domain in ["", "a..b", "a:80", "exa_mple.org", "127.0.0.1"] {
            assert!(Hosts::new(&[domain.to_owned()], &[], CustomDomains::Off).is_err(), "{domain}");
        }
        let twice = ["a.b".to_owned()];
        assert!(Hosts::new(&twice, &twice, CustomDomains::Off).is_err());
    }
}
