//! Whose key signed a request
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>).

use http::HeaderMap;
use palm_core::record::{IdentityKind, Session};
use palm_core::s3::account::Account;
use palm_core::s3::policy::{Attached, Context, Identity, Policy, Principal};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::{Origin, Query};
use crate::object::Store;
use crate::pool::session::is_session_key;
use crate::s3::error;

/// The canonical id AWS gives to who did not sign.
const ANONYMOUS_ID: &str = "65a011a29cdf8ec533ec3d1ccaae921c";

/// Finds the secret of an access key.
pub struct Keys {
    pub store: Store,
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if is_session_key(access_key) {
            return Ok(SecretKey::from(self.store.session_secret(access_key).as_str()));
        }
        match self.store.access_key(access_key).await {
            Ok(Some(credentials)) => Ok(SecretKey::from(credentials.secret.as_str())),
            Ok(None) => Err(S3Error::new(S3ErrorCode::InvalidAccessKeyId)),
            Err(failure) => Err(error::of(failure)),
        }
    }
}

/// Who asks, and what was attached to them.
#[derive(Debug, Clone)]
pub struct Asker {
    /// As policies see them.
    pub principal: Principal,
    /// `None`: nobody signed.
    pub account: Option<Account>,
    /// The key that signed.
    pub access_key: Option<String>,
    /// Where the request comes from; unknown in tests without a connection.
    pub origin: Option<Origin>,
    /// The user or role; `None`: the account's root, or nobody.
    pub holder: Option<(IdentityKind, String)>,
    /// The session, when temporary credentials signed.
    pub session: Option<Session>,
    /// Policies of the user or role.
    policies: Vec<Policy>,
    /// The policy given when the session was made.
    session_policy: Option<Policy>,
}

/// The session token of a request, in a header or a presigned URL.
pub fn session_token<'a>(headers: &'a HeaderMap, query: &'a Query) -> Option<&'a str> {
    let header = headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
    header.or_else(|| query.get("X-Amz-Security-Token"))
}

impl Asker {
    pub(super) fn anonymous(origin: Option<Origin>) -> Self {
        Self {
            principal: Principal::Anonymous,
            account: None,
            access_key: None,
            origin,
            holder: None,
            session: None,
            policies: Vec::new(),
            session_policy: None,
        }
    }

    /// Who signed with these credentials.
    pub async fn find(
        store: &Store,
        credentials: Option<&Credentials>,
        token: Option<&str>,
        origin: Option<Origin>,
    ) -> S3Result<Self> {
        let Some(Credentials { access_key, .. }) = credentials else { return Ok(Self::anonymous(origin)) };
        let (account, holder, session, expires_ms) = if is_session_key(access_key) {
            let token = token.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
            let session = store.open_session(token).filter(|session| session.access_key == *access_key);
            let session = session.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidToken))?;
            (session.account.clone(), session.holder.clone(), Some(session.clone()), Some(session.expires_ms))
        } else {
            let record = store.access_key_record(access_key).await.map_err(error::of)?;
            let record = record.filter(|record| record.enabled);
            let record = record.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
            if token.is_some() {
                return Err(S3Error::new(S3ErrorCode::InvalidToken));
            }
            (record.account, record.user.map(|user| (IdentityKind::User, user)), None, record.expires_ms)
        };
        if expires_ms.is_some_and(|expires_ms| expires_ms <= store.now_ms()) {
            return Err(S3Error::new(S3ErrorCode::ExpiredToken));
        }
        let account = Account::named(&account).map_err(|refusal| error::of_refusal(&refusal))?;
        let documents = match &holder {
            None => Vec::new(),
            Some((kind, name)) => {
                let record = store.identity(account.name(), *kind, name).await.map_err(error::of)?;
                // A user that was deleted may do nothing, and neither may its keys that are still about.
                let record = record.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
                record.policies.into_iter().map(|(_, document)| document).collect()
            }
        };
        let parse = |document: &String| match Policy::parse(document.as_bytes(), Attached::Identity) {
            Ok(policy) => Ok(policy),
            // It may be the one that denies, so none counts.
            Err(refusal) => Err(S3Error::with_message(S3ErrorCode::InternalError, refusal.message)),
        };
        let policies = documents.iter().map(parse).collect::<S3Result<_>>()?;
        let session_policy = session.as_ref().and_then(|session| session.policy.as_ref()).map(parse).transpose()?;
        let principal = Principal::Identified(identity(&account, holder.as_ref(), session.as_ref()));
        let (account, access_key) = (Some(account), Some(access_key.clone()));
        Ok(Self { principal, account, access_key, origin, holder, session, policies, session_policy })
    }

    /// By which ACLs and owners know them.
    pub fn canonical_id(&self) -> String {
        self.signer().map_or(ANONYMOUS_ID, |identity| &identity.canonical_id).to_owned()
    }

    /// Who signed; `None`: nobody.
    pub fn signer(&self) -> Option<&Identity> {
        match &self.principal {
            Principal::Anonymous => None,
            Principal::Identified(identity) => Some(identity),
        }
    }

    /// As access logs name them: an account by its canonical id, others by ARN
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html>).
    pub fn log_name(&self) -> Option<&str> {
        self.signer().map(|who| if who.root { who.canonical_id.as_str() } else { who.arn.as_str() })
    }

    /// Whether they are the account of this canonical id itself.
    pub fn is_root_of(&self, canonical_id: &str) -> bool {
        self.signer().is_some_and(|identity| identity.root && identity.canonical_id == canonical_id)
    }

    /// Policies of the user or role.
    pub fn policies(&self) -> Vec<&Policy> {
        self.policies.iter().collect()
    }

    /// The policy given when the session was made.
    pub fn session_policy(&self) -> Option<&Policy> {
        self.session_policy.as_ref()
    }

    /// `aws:userid` (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#policy-vars-infotouse>).
    pub fn user_id(&self) -> Option<String> {
        let account = self.account.as_ref()?;
        Some(match (&self.holder, &self.session) {
            (Some((IdentityKind::Role, role)), Some(session)) => format!("{role}:{}", session.name),
            (Some((_, name)), _) => name.clone(),
            (None, _) => account.number(),
        })
    }

    /// Adds what policies may ask about them.
    pub fn describe(&self, context: &mut Context) {
        if let Some(origin) = self.origin {
            context.add("aws:SourceIp", origin.address.to_canonical().to_string());
        }
        context.add("aws:SecureTransport", self.origin.is_some_and(|origin| origin.secure).to_string());
        let kind = match (self.signer(), &self.holder) {
            (None, _) => "Anonymous",
            (Some(_), None) => "Account",
            (Some(_), Some((IdentityKind::User, _))) => "User",
            (Some(_), Some((IdentityKind::Role, _))) => "AssumedRole",
        };
        context.add("aws:PrincipalType", kind);
        context.add("aws:userid", self.user_id().unwrap_or_else(|| "anonymous".to_owned()));
        if let Some(Identity { account, arn, role_arn, .. }) = self.signer() {
            context.add("aws:PrincipalAccount", account.clone());
            context.add("aws:PrincipalArn", role_arn.as_ref().unwrap_or(arn).clone());
        }
        if let Some((IdentityKind::User, name)) = &self.holder {
            context.add("aws:username", name.clone());
        }
        if let Some(session) = &self.session {
            context.add("aws:TokenIssueTime", super::context::date(session.issued_ms));
        }
    }
}

fn identity(account: &Account, holder: Option<&(IdentityKind, String)>, session: Option<&Session>) -> Identity {
    let number = account.number();
    let (arn, role_arn) = match holder {
        None => (format!("arn:aws:iam::{number}:root"), None),
        Some((IdentityKind::User, name)) => (format!("arn:aws:iam::{number}:user/{name}"), None),
        Some((IdentityKind::Role, role)) => {
            let session = session.map_or("", |session| session.name.as_str());
            let arn = format!("arn:aws:sts::{number}:assumed-role/{role}/{session}");
            (arn, Some(format!("arn:aws:iam::{number}:role/{role}")))
        }
    };
    Identity { canonical_id: account.canonical_id(), account: number, arn, role_arn, root: holder.is_none() }
}
