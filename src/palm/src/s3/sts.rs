//! Temporary credentials: `AssumeRole`, `GetSessionToken` and `GetCallerIdentity`
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html>), at the same address as S3.
//!
//! The answer is all there is: nothing is stored. See [`session`](crate::pool::session).

use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use palm_core::record::{IdentityKind, Session};
use palm_core::s3::Refusal;
use palm_core::s3::account::Account;
use palm_core::s3::calendar::iso_date;
use palm_core::s3::policy::{Attached, Context, Policy, Request, Verdict};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result};

use super::access::{Asker, Origin, Query, session_token};
use super::measure::Asking;
use super::server::{Connection, escape};
use crate::object::{ObjectError, Store};
use crate::pool::keys::AccessKey;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// The longest request that is read.
const REQUEST_MAX_BYTES: usize = 64 << 10;
/// The longest session policy (AWS).
const POLICY_MAX_BYTES: usize = 2048;
/// How long a session may last, seconds.
const LASTS: std::ops::RangeInclusive<u64> = 15 * 60..=12 * 60 * 60;
/// Unless the request says otherwise (AWS).
const ROLE_LASTS: u64 = 60 * 60;
const TOKEN_LASTS: u64 = 12 * 60 * 60;

/// Answers what is asked of STS.
pub struct Sts {
    pub store: Store,
}

#[async_trait::async_trait]
impl S3Route for Sts {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, extensions: &mut Extensions) -> bool {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        // With a query it is about a bucket whose name is in the host.
        let at_root = uri.path() == "/" && uri.query().is_none();
        let is_match = *method == Method::POST && at_root && kind.starts_with(b"application/x-www-form-urlencoded");
        if let Some(asking) = extensions.get::<Asking>().filter(|_| is_match) {
            asking.is_sts();
        }
        is_match
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let (status, answer) = match self.answer(request).await {
            Ok(answer) => (StatusCode::OK, answer),
            Err(refusal) => {
                let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
                let fault = if status.is_server_error() { "Receiver" } else { "Sender" };
                let error = format!(
                    "<Error><Type>{fault}</Type><Code>{}</Code><Message>{}</Message></Error>",
                    refusal.code,
                    escape(&refusal.message)
                );
                (status, format!("<ErrorResponse xmlns=\"{NAMESPACE}\">{error}</ErrorResponse>"))
            }
        };
        let mut response = S3Response::with_status(Body::from(answer), status);
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        Ok(response)
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::bad("ValidationError", message)
}

/// What failed on our side is told without details, which are in the log.
fn unavailable(failure: ObjectError) -> Refusal {
    match failure {
        ObjectError::Refused(refusal) => refusal,
        failure => {
            tracing::warn!(%failure, "no session could be made");
            Refusal::with_status(503, "ServiceUnavailable", "The request has failed due to a temporary failure")
        }
    }
}

/// A new session of its holder.
struct Wish {
    account: Account,
    holder: Option<(IdentityKind, String)>,
    name: String,
    lasts: u64,
    policy: Option<String>,
}

impl Sts {
    async fn answer(&self, request: S3Request<Body>) -> Result<String, Refusal> {
        let S3Request { input: mut body, headers, extensions, credentials, .. } = request;
        let body = body.store_all_limited(REQUEST_MAX_BYTES).await;
        let body = body.map_err(|_| invalid("The request is too long, or did not come whole"))?;
        let form = Query::parse(&String::from_utf8_lossy(&body));
        let origin = extensions.get::<Connection>().map(Origin::from);
        let asker =
            Asker::find(&self.store, credentials.as_ref(), session_token(&headers, &Query::default()), origin).await;
        let asker = asker.map_err(|told| {
            let status = told.status_code().map_or(403, |status| status.as_u16());
            let code = match told.code().as_str() {
                "ExpiredToken" => "ExpiredToken",
                "ServiceUnavailable" => "ServiceUnavailable",
                _ => "InvalidClientTokenId",
            };
            Refusal::with_status(status, code, "The security token included in the request is invalid")
        })?;
        match form.get("Action") {
            Some("GetCallerIdentity") => caller(&asker),
            Some("GetSessionToken") => self.session_token(&asker, &form),
            Some("AssumeRole") => self.assume_role(&asker, &form).await,
            action => Err(Refusal::bad("InvalidAction", format!("Could not find operation {}", action.unwrap_or("")))),
        }
    }

    fn session_token(&self, asker: &Asker, form: &Query) -> Result<String, Refusal> {
        if asker.session.is_some() {
            let message = "Cannot call GetSessionToken with session credentials";
            return Err(Refusal::with_status(403, "AccessDenied", message));
        }
        let account = asker.account.clone().ok_or_else(Refusal::access_denied)?;
        let lasts = lasts(form, TOKEN_LASTS)?;
        let wish = Wish { account, holder: asker.holder.clone(), name: String::new(), lasts, policy: None };
        Ok(written("GetSessionToken", &self.make(wish)?))
    }

    /// Who the role trusts may assume it; in its own account that is enough where it names them themselves, else their own
    /// policies must allow it too
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>).
    async fn assume_role(&self, asker: &Asker, form: &Query) -> Result<String, Refusal> {
        let required = |name: &'static str| form.get(name).ok_or_else(|| invalid(format!("{name} is required")));
        let (arn, name) = (required("RoleArn")?, required("RoleSessionName")?);
        let name_fits = (2..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_=,.@-".contains(&byte));
        if !name_fits {
            return Err(invalid("Invalid RoleSessionName"));
        }
        let policy = form.get("Policy").map(str::to_owned);
        if let Some(policy) = &policy {
            if policy.len() > POLICY_MAX_BYTES {
                return Err(Refusal::bad("PackedPolicyTooLarge", "The session policy is too large"));
            }
            Policy::parse(policy.as_bytes(), Attached::Identity)?;
        }
        let lasts = lasts(form, ROLE_LASTS)?;
        let denied = || {
            let who = asker.signer().map_or("anonymous", |identity| &identity.arn);
            let message = format!("User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}");
            Refusal::with_status(403, "AccessDenied", message)
        };
        let (number, role) = parse_role(arn).ok_or_else(|| invalid(format!("{arn} is invalid")))?;
        let account = self.store.account_by_number(number).await.map_err(unavailable)?.ok_or_else(denied)?;
        let record = self.store.identity(account.name(), IdentityKind::Role, role).await.map_err(unavailable)?;
        let trust = record.and_then(|record| record.trust).ok_or_else(denied)?;
        let trust = Policy::parse(trust.as_bytes(), Attached::Trust)?;

        let mut context = Context::default();
        asker.describe(&mut context);
        if let Some(external) = form.get("ExternalId") {
            context.add("sts:ExternalId", external);
        }
        context.add("sts:RoleSessionName", name);
        let action = "sts:AssumeRole";
        let request = Request { principal: &asker.principal, action, resource: arn, context: &context };
        let signer = asker.signer().ok_or_else(denied)?;
        let own = asker.policies().iter().map(|policy| policy.evaluate(&request)).max().unwrap_or(Verdict::Silent);
        let within_session = asker.session_policy().is_none_or(|policy| policy.evaluate(&request) == Verdict::Allow);
        let own_allows = own == Verdict::Allow || signer.root && own != Verdict::ExplicitDeny;
        let same_account = signer.account == account.number();
        let allowed = match trust.evaluate(&request) {
            Verdict::Allow if same_account => own != Verdict::ExplicitDeny,
            Verdict::Allow | Verdict::AllowAccount => own_allows,
            Verdict::Silent | Verdict::ExplicitDeny => false,
        };
        if !allowed || !within_session {
            return Err(denied());
        }
        let holder = Some((IdentityKind::Role, role.to_owned()));
        let assumed = format!(
            "<AssumedRoleUser><AssumedRoleId>{role}:{name}</AssumedRoleId>\
             <Arn>arn:aws:sts::{number}:assumed-role/{role}/{name}</Arn></AssumedRoleUser>"
        );
        let credentials = self.make(Wish { account, holder, name: name.to_owned(), lasts, policy })?;
        Ok(written("AssumeRole", &format!("{assumed}{credentials}")))
    }

    /// Credentials of a new session.
    fn make(&self, wish: Wish) -> Result<String, Refusal> {
        let Wish { account, holder, name, lasts, policy } = wish;
        let access_key = AccessKey::random_session_id().map_err(|error| unavailable(error.into()))?;
        let issued_ms = self.store.now_ms();
        let expires_ms = issued_ms + lasts * 1000;
        let secret = self.store.session_secret(&access_key);
        let account = account.name().to_owned();
        let session = Session { access_key, account, holder, name, issued_ms, expires_ms, policy };
        let token = self.store.seal_session(&session).map_err(unavailable)?;
        tracing::info!(access_key = session.access_key, holder = ?session.holder, expires_ms, "session made");
        Ok(format!(
            "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{}</Expiration></Credentials>",
            session.access_key,
            secret.as_str(),
            iso_date(expires_ms)
        ))
    }
}

fn caller(asker: &Asker) -> Result<String, Refusal> {
    let signer = asker.signer().ok_or_else(Refusal::access_denied)?;
    let id = asker.user_id().unwrap_or_default();
    let result = format!(
        "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
        escape(&signer.arn),
        escape(&id),
        signer.account
    );
    Ok(written("GetCallerIdentity", &result))
}

fn written(action: &str, result: &str) -> String {
    format!("<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result></{action}Response>")
}

fn lasts(form: &Query, default: u64) -> Result<u64, Refusal> {
    let asked = form.get("DurationSeconds").map_or(Ok(default), str::parse);
    asked
        .ok()
        .filter(|lasts| LASTS.contains(lasts))
        .ok_or_else(|| invalid(format!("DurationSeconds must be between {} and {}", LASTS.start(), LASTS.end())))
}

/// Account number and name of a role.
fn parse_role(arn: &str) -> Option<(&str, &str)> {
    arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_by_arn() {
        assert_eq!(parse_role("arn:aws:iam::123456789012:role/r"), Some(("123456789012", "r")));
        assert_eq!(parse_role("arn:aws:iam::123456789012:user/r"), None);
    }

    /// Scenario: clients ask for sessions of a second and of a year. Danger: credentials that never end. Expectation: 15 minutes to
    /// 12 hours, and the default where nothing is said.
    #[test]
    fn sessions_end() {
        let of = |text: &str| lasts(&Query::parse(text), ROLE_LASTS).ok();
        assert_eq!(of(""), Some(3600));
        assert_eq!(of("DurationSeconds=900"), Some(900));
        for refused in ["899", "43201", "-1", "soon"] {
            assert_eq!(of(&format!("DurationSeconds={refused}")), None);
        }
    }
}
