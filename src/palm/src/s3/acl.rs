//! Access control lists (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html>): between their core form
//! and headers and XML.

use http::{Extensions, HeaderMap};
use palm_core::record::{BucketConfig, BucketRecord};
use palm_core::s3::account::Account;
use palm_core::s3::acl::{Acl, Grant, Grantee, Of, Ownership, Permission, Wording, check_acl};
use palm_core::s3::notification::Event;
use s3s::dto::{
    AccessControlPolicy, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput, GetObjectAclOutput,
    Grant as GrantDto, Grantee as GranteeDto, Owner, Permission as PermissionDto, PutBucketAclInput,
    PutBucketAclOutput, PutObjectAclInput, PutObjectAclOutput, Type,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::{self, header, ownership};
use super::object::version_name;
use super::{Frontend, error, notification};
use crate::object::Store;

const CANNED: &str = "x-amz-acl";
/// Headers that grant, in the order in which their grants are listed.
const GRANTS: [(&str, Permission); 5] = [
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
    ("x-amz-grant-full-control", Permission::FullControl),
];

/// How a request's headers ask for a list.
enum Asked<'a> {
    /// Not at all.
    Nothing,
    /// By a canned name.
    Canned(&'a str),
    /// By grants.
    Grants(Vec<Grant>),
}

async fn asked<'a>(store: &Store, headers: &'a HeaderMap) -> S3Result<Asked<'a>> {
    let mut grants = Vec::new();
    for (name, permission) in GRANTS {
        for (kind, value) in header(headers, name).into_iter().flat_map(grantees) {
            let grantee = grantee(store, kind, value).await?;
            grants.push(Grant { grantee, permission });
        }
    }
    match (header(headers, CANNED), grants) {
        (None, grants) if grants.is_empty() => Ok(Asked::Nothing),
        (None, grants) => Ok(Asked::Grants(grants)),
        (Some(name), grants) if grants.is_empty() => Ok(Asked::Canned(name)),
        (Some(_), _) => Err(error::invalid_request("Specifying both Canned ACLs and Header Grants is not allowed")),
    }
}

/// The parts of a grant header: `id="…", uri="…"`.
fn grantees(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = header.split(',').map(|part| part.trim().split_once('=').unwrap_or((part, "")));
    parts.map(|(kind, value)| (kind.trim(), value.trim().trim_matches('"')))
}

async fn grantee(store: &Store, kind: &str, value: &str) -> S3Result<Grantee> {
    match kind {
        "id" => match store.find_account(value).await.map_err(error::of)? {
            Some(_) => Ok(Grantee::CanonicalId(value.to_owned())),
            None => Err(error::invalid_argument("Invalid id")),
        },
        "uri" => Grantee::group(value).map_err(|refusal| error::of_refusal(&refusal)),
        // An account has no address but its name, which may be one.
        "emailAddress" => {
            let id = Account::named(value).map(|account| account.canonical_id()).unwrap_or_default();
            match store.find_account(&id).await.map_err(error::of)? {
                Some(_) => Ok(Grantee::CanonicalId(id)),
                None => Err(S3Error::new(S3ErrorCode::UnresolvableGrantByEmailAddress)),
            }
        }
        _ => Err(error::invalid_argument("Argument format not recognized")),
    }
}

/// The list of an object to come, whose request has these headers (or form fields under the headers' names). `None`: it
/// belongs to the bucket's owner, who alone may do anything with it.
pub async fn of_new_object(frontend: &Frontend, extensions: &Extensions, headers: &HeaderMap) -> S3Result<Option<Acl>> {
    let (asker, bucket) = (&access::admitted(extensions)?.asker, access::bucket(extensions)?);
    let asked = asked(&frontend.store, headers).await?;
    let ownership = ownership(bucket);
    let full_control = matches!(asked, Asked::Canned("bucket-owner-full-control"));
    let writer = asker.signer().map(|identity| identity.canonical_id.as_str());
    let owner = ownership.owner_of_upload(writer, &bucket.owner, full_control);
    let acl = build(asked, owner, bucket, Of::Object)?;
    let acl = acl.unwrap_or_else(|| Acl::private(owner));
    let implied = ownership == Ownership::BucketOwnerEnforced || acl == Acl::private(&bucket.owner);
    Ok((!implied).then_some(acl))
}

/// The list of a bucket to come.
pub async fn of_new_bucket(
    store: &Store,
    owner: &str,
    config: &BucketConfig,
    headers: &HeaderMap,
) -> S3Result<Option<Acl>> {
    let acl = match asked(store, headers).await? {
        Asked::Nothing => return Ok(None),
        Asked::Canned(name) => Acl::canned(name, owner, owner, Of::Bucket),
        Asked::Grants(grants) => Acl { owner: owner.to_owned(), grants }.validated(owner),
    };
    let acl = acl.map_err(|refusal| error::of_refusal(&refusal))?;
    let checked = config.ownership.map_or(Ok(()), |ownership| ownership.check_change(&acl));
    checked.map_err(|refusal| error::of_refusal(&refusal))?;
    Ok((acl != Acl::private(owner)).then_some(acl))
}

/// The list asked for, if it may be.
fn build(asked: Asked<'_>, owner: &str, bucket: &BucketRecord, of: Of) -> S3Result<Option<Acl>> {
    let (acl, wording) = match asked {
        Asked::Nothing => return Ok(None),
        Asked::Canned(name) => (Acl::canned(name, owner, &bucket.owner, of), Wording::Canned(name)),
        Asked::Grants(grants) => (Acl { owner: owner.to_owned(), grants }.validated(owner), Wording::Written),
    };
    let block = bucket.config.public_access_block.unwrap_or_default();
    let checked = acl.and_then(|acl| {
        check_acl(&acl, (of, wording), &bucket.owner, ownership(bucket), block)?;
        Ok(acl)
    });
    checked.map(Some).map_err(|refusal| error::of_refusal(&refusal))
}

/// The list of something that is there, as a request's headers or body have it.
async fn wanted(
    frontend: &Frontend,
    (headers, body): (&HeaderMap, Option<AccessControlPolicy>),
    (owner, bucket, of): (&str, &BucketRecord, Of),
) -> S3Result<Acl> {
    let asked = asked(&frontend.store, headers).await?;
    let asked = match (asked, body) {
        (Asked::Nothing, None) => {
            let message = "Your request was missing a required header";
            return Err(S3Error::with_message(S3ErrorCode::MissingSecurityHeader, message));
        }
        (Asked::Nothing, Some(body)) => Asked::Grants(read(&frontend.store, body, owner).await?),
        (asked, None) => asked,
        (_, Some(_)) => return Err(S3Error::new(S3ErrorCode::UnexpectedContent)),
    };
    build(asked, owner, bucket, of)?.ok_or_else(|| S3Error::new(S3ErrorCode::MalformedACLError))
}

/// The grants of a document for something owned by `owner`.
async fn read(store: &Store, document: AccessControlPolicy, owner: &str) -> S3Result<Vec<Grant>> {
    let malformed = || S3Error::new(S3ErrorCode::MalformedACLError);
    let claimed = document.owner.and_then(|owner| owner.id).ok_or_else(malformed)?;
    if claimed != owner {
        return Err(S3Error::new(S3ErrorCode::AccessDenied));
    }
    let mut grants = Vec::new();
    for grant in document.grants.unwrap_or_default() {
        let permission = grant.permission.ok_or_else(malformed)?;
        let permission = Permission::parse(permission.as_str()).map_err(|refusal| error::of_refusal(&refusal))?;
        let GranteeDto { id, uri, email_address, type_, .. } = grant.grantee.ok_or_else(malformed)?;
        let (kind, value) = match type_.as_str() {
            Type::CANONICAL_USER => ("id", id),
            Type::GROUP => ("uri", uri),
            Type::AMAZON_CUSTOMER_BY_EMAIL => ("emailAddress", email_address),
            _ => return Err(malformed()),
        };
        grants.push(Grant { grantee: grantee(store, kind, &value.ok_or_else(malformed)?).await?, permission });
    }
    Ok(grants)
}

/// An account as the owner of something, with the name people know it by.
pub fn owner(store: &Store, id: &str) -> Owner {
    let account = store.account_of(id);
    Owner { display_name: account.map(|account| account.name().to_owned()), id: Some(id.to_owned()) }
}

fn written(store: &Store, acl: &Acl) -> (Owner, Vec<GrantDto>) {
    let grants = acl.grants.iter().map(|Grant { grantee, permission }| {
        let (kind, named) = match grantee {
            Grantee::CanonicalId(id) => (Type::CANONICAL_USER, owner(store, id)),
            _ => (Type::GROUP, Owner::default()),
        };
        let Owner { display_name, id } = named;
        let type_ = Type::from_static(kind);
        let grantee = GranteeDto { display_name, email_address: None, id, type_, uri: grantee.uri() };
        GrantDto { grantee: Some(grantee), permission: Some(PermissionDto::from_static(permission.name())) }
    });
    (owner(store, &acl.owner), grants.collect())
}

#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn get_bucket(
    frontend: &Frontend,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let bucket = access::bucket(&request.extensions)?;
    // Where lists do not count the answer is what counts.
    let acl = bucket.config.acl.clone().filter(|_| ownership(bucket) != Ownership::BucketOwnerEnforced);
    let (owner, grants) = written(&frontend.store, &acl.unwrap_or_else(|| Acl::private(&bucket.owner)));
    Ok(S3Response::new(GetBucketAclOutput { grants: Some(grants), owner: Some(owner) }))
}

pub async fn put_bucket(
    frontend: &Frontend,
    request: S3Request<PutBucketAclInput>,
) -> S3Result<S3Response<PutBucketAclOutput>> {
    let bucket = access::bucket(&request.extensions)?;
    let (name, body) = (request.input.bucket, request.input.access_control_policy);
    let acl = wanted(frontend, (&request.headers, body), (&bucket.owner, bucket, Of::Bucket)).await?;
    let changed = frontend.store.change_bucket(&name, |record| {
        // What decided above may have changed since.
        let block = record.config.public_access_block.unwrap_or_default();
        check_acl(&acl, (Of::Bucket, Wording::Written), &record.owner, ownership(record), block)?;
        record.config.acl = Some(acl.clone());
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

pub async fn get_object(
    frontend: &Frontend,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let GetObjectAclInput { bucket, key, version_id, .. } = request.input;
    let version = version_name(version_id.as_deref())?;
    let object = access::head(&frontend.store, &request.extensions, (&bucket, &key, version)).await?;
    let record = access::bucket(&request.extensions)?;
    let acl = object.record.subresources.acl.filter(|_| ownership(record) != Ownership::BucketOwnerEnforced);
    let (owner, grants) = written(&frontend.store, &acl.unwrap_or_else(|| Acl::private(&record.owner)));
    Ok(S3Response::new(GetObjectAclOutput { grants: Some(grants), owner: Some(owner), request_charged: None }))
}

pub async fn put_object(
    frontend: &Frontend,
    request: S3Request<PutObjectAclInput>,
) -> S3Result<S3Response<PutObjectAclOutput>> {
    let PutObjectAclInput { bucket: name, key, version_id, access_control_policy, .. } = request.input;
    let version = version_name(version_id.as_deref())?;
    let object = access::head(&frontend.store, &request.extensions, (&name, &key, version)).await?;
    let bucket = access::bucket(&request.extensions)?;
    let owner = object.record.subresources.acl.map_or_else(|| bucket.owner.clone(), |acl| acl.owner);
    let of = (owner.as_str(), bucket, Of::Object);
    let acl = wanted(frontend, (&request.headers, access_control_policy), of).await?;
    let notice = notification::begin(frontend, &request.extensions, (&name, &key), Event::AclPut).await?;
    let changed = frontend.store.change_object(&name, &key, version, |record| {
        // Another account's object may have taken its place since.
        let owner_now = record.subresources.acl.as_ref().map_or(&bucket.owner, |acl| &acl.owner);
        if *owner_now != acl.owner {
            return Err(palm_core::s3::Refusal::access_denied());
        }
        record.subresources.acl = Some(acl.clone());
        Ok(())
    });
    let changed = changed.await;
    notice.end(&changed);
    changed.map_err(error::of)?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: grant headers as SDKs and people write them. Danger: one of two grantees is lost. Expectation: each part by its
    /// kind, with or without quotes.
    #[test]
    fn grant_headers_are_lists() {
        let parts: Vec<_> = grantees("id=\"a\", uri=http://x/y ,emailAddress = \"a@b\"").collect();
        assert_eq!(parts, [("id", "a"), ("uri", "http://x/y"), ("emailAddress", "a@b")]);
        assert_eq!(grantees("nonsense").collect::<Vec<_>>(), [("nonsense", "")]);
    }
}
