//! A bucket's website: how it is configured. [`visit`] serves it.

use palm_core::s3::Refusal;
use palm_core::s3::website::{Protocol, Rule, Website};
use s3s::dto::{
    self, Condition, DeleteBucketWebsiteInput, DeleteBucketWebsiteOutput, ErrorDocument, GetBucketWebsiteInput,
    GetBucketWebsiteOutput, IndexDocument, PutBucketWebsiteInput, PutBucketWebsiteOutput, Redirect,
    RedirectAllRequestsTo, RoutingRule, WebsiteConfiguration,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::bucket_settings::{change, settings};
use super::{Frontend, error};

pub mod visit;

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketWebsiteInput>,
) -> S3Result<S3Response<PutBucketWebsiteOutput>> {
    let website = read(request.input.website_configuration).map_err(|refusal| error::of_refusal(&refusal))?;
    change(frontend, &request.input.bucket, |config| {
        config.website = Some(website.clone());
        Ok(())
    })
    .await?;
    Ok(S3Response::new(PutBucketWebsiteOutput::default()))
}

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetBucketWebsiteInput>,
) -> S3Result<S3Response<GetBucketWebsiteOutput>> {
    let website = settings(frontend, &request.input.bucket).await?.website;
    let website = website.ok_or_else(none)?;
    Ok(S3Response::new(write(website)))
}

/// What is told of a bucket that is not a website.
fn none() -> S3Error {
    let text = "The specified bucket does not have a website configuration";
    S3Error::with_message(S3ErrorCode::NoSuchWebsiteConfiguration, text)
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketWebsiteInput>,
) -> S3Result<S3Response<DeleteBucketWebsiteOutput>> {
    change(frontend, &request.input.bucket, |config| {
        config.website = None;
        Ok(())
    })
    .await?;
    Ok(S3Response::new(DeleteBucketWebsiteOutput::default()))
}

fn read(given: WebsiteConfiguration) -> Result<Website, Refusal> {
    let WebsiteConfiguration { error_document, index_document, redirect_all_requests_to, routing_rules } = given;
    let website = match (redirect_all_requests_to, index_document) {
        (Some(to), None) if error_document.is_none() && routing_rules.is_none() => {
            Website::RedirectAll { host: to.host_name, protocol: read_protocol(to.protocol)? }
        }
        (Some(_), _) => {
            let text = "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.";
            return Err(Refusal::invalid_argument(text));
        }
        (None, None) => {
            let text = "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty";
            return Err(Refusal::invalid_argument(text));
        }
        (None, Some(index)) => Website::Serve {
            index: index.suffix,
            error: error_document.map(|document| document.key),
            rules: routing_rules.unwrap_or_default().into_iter().map(read_rule).collect::<Result<_, _>>()?,
        },
    };
    website.validated()
}

fn read_protocol(protocol: Option<dto::Protocol>) -> Result<Option<Protocol>, Refusal> {
    protocol.map(|protocol| Protocol::parse(protocol.as_str())).transpose()
}

fn read_rule(rule: RoutingRule) -> Result<Rule, Refusal> {
    // What is no number is no valid code either, and refused as such.
    let code = |text: Option<String>| text.map(|text| text.parse().unwrap_or_default());
    let condition = rule.condition.unwrap_or_default();
    Ok(Rule {
        key_prefix: condition.key_prefix_equals,
        error_code: code(condition.http_error_code_returned_equals),
        protocol: read_protocol(rule.redirect.protocol)?,
        host: rule.redirect.host_name,
        replace_prefix: rule.redirect.replace_key_prefix_with,
        replace_key: rule.redirect.replace_key_with,
        code: code(rule.redirect.http_redirect_code),
    })
}

fn write(website: Website) -> GetBucketWebsiteOutput {
    match website {
        Website::RedirectAll { host, protocol } => {
            let to = RedirectAllRequestsTo { host_name: host, protocol: protocol.map(write_protocol) };
            GetBucketWebsiteOutput { redirect_all_requests_to: Some(to), ..GetBucketWebsiteOutput::default() }
        }
        Website::Serve { index, error, rules } => GetBucketWebsiteOutput {
            index_document: Some(IndexDocument { suffix: index }),
            error_document: error.map(|key| ErrorDocument { key }),
            routing_rules: (!rules.is_empty()).then(|| rules.into_iter().map(write_rule).collect()),
            redirect_all_requests_to: None,
        },
    }
}

fn write_protocol(protocol: Protocol) -> dto::Protocol {
    dto::Protocol::from_static(match protocol {
        Protocol::Http => dto::Protocol::HTTP,
        Protocol::Https => dto::Protocol::HTTPS,
    })
}

fn write_rule(rule: Rule) -> RoutingRule {
    let Rule { key_prefix, error_code, protocol, host, replace_prefix, replace_key, code } = rule;
    let condition = Condition {
        http_error_code_returned_equals: error_code.map(|code| code.to_string()),
        key_prefix_equals: key_prefix,
    };
    let redirect = Redirect {
        host_name: host,
        http_redirect_code: code.map(|code| code.to_string()),
        protocol: protocol.map(write_protocol),
        replace_key_prefix_with: replace_prefix,
        replace_key_with: replace_key,
    };
    RoutingRule { condition: (condition != Condition::default()).then_some(condition), redirect }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(rules: Option<Vec<RoutingRule>>) -> WebsiteConfiguration {
        WebsiteConfiguration {
            index_document: Some(IndexDocument { suffix: "index.html".into() }),
            error_document: Some(ErrorDocument { key: "error.html".into() }),
            redirect_all_requests_to: None,
            routing_rules: rules,
        }
    }

    /// Scenario: Terraform puts a website and reads it back. Danger: a difference, which it "repairs" for ever.
    /// Expectation: what was put is what is got.
    #[test]
    fn what_is_put_is_got() {
        let rule = RoutingRule {
            condition: Some(Condition {
                http_error_code_returned_equals: Some("404".into()),
                key_prefix_equals: Some("docs/".into()),
            }),
            redirect: Redirect {
                host_name: Some("example.org".into()),
                http_redirect_code: Some("302".into()),
                protocol: Some(dto::Protocol::from_static("https")),
                replace_key_prefix_with: Some("documents/".into()),
                replace_key_with: None,
            },
        };
        let put = serve(Some(vec![rule]));
        let got = write(read(put.clone()).expect("valid"));
        assert_eq!((got.index_document, got.error_document), (put.index_document, put.error_document));
        assert_eq!((got.routing_rules, got.redirect_all_requests_to), (put.routing_rules, None));
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let code = |given| read(given).expect_err("refused").code;
        assert_eq!(code(WebsiteConfiguration::default()), "InvalidArgument");
        let to = RedirectAllRequestsTo { host_name: "example.org".into(), protocol: None };
        assert_eq!(code(WebsiteConfiguration { redirect_all_requests_to: Some(to), ..serve(None) }), "InvalidArgument");
        let redirect = Redirect { http_redirect_code: Some("many".into()), ..Redirect::default() };
        assert_eq!(code(serve(Some(vec![RoutingRule { condition: None, redirect }]))), "InvalidRequest");
    }
}
