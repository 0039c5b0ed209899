use super::*;
use crate::s3::policy::Identity;

const OWNER: &str = "owner";

fn who(id: &str) -> Principal {
    let arn = format!("arn:aws:iam::123456789012:user/{id}");
    Principal::Identified(Identity {
        account: "123456789012".to_owned(),
        canonical_id: id.to_owned(),
        arn,
        role_arn: None,
        root: false,
    })
}

/// The table of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl>: what each canned
/// list gives a stranger, somebody signed in, and the bucket's owner, on an object that another account uploads.
#[test]
fn canned_lists_grant_what_the_table_says() {
    use Permission::{FullControl, Read, ReadAcp, Write};
    let cases: &[(&str, Of, Principal, &[Permission])] = &[
        ("private", Of::Object, Principal::Anonymous, &[]),
        ("private", Of::Object, who(OWNER), &[]),
        ("public-read", Of::Object, Principal::Anonymous, &[Read]),
        ("public-read", Of::Bucket, who("third"), &[Read]),
        ("public-read-write", Of::Bucket, Principal::Anonymous, &[Read, Write]),
        ("authenticated-read", Of::Object, Principal::Anonymous, &[]),
        ("authenticated-read", Of::Object, who("third"), &[Read]),
        ("bucket-owner-read", Of::Object, who(OWNER), &[Read]),
        ("bucket-owner-full-control", Of::Object, who(OWNER), &[Read, Write, ReadAcp, FullControl]),
        ("bucket-owner-full-control", Of::Object, who("third"), &[]),
        ("aws-exec-read", Of::Object, who("third"), &[]),
    ];
    for (name, of, principal, expected) in cases {
        let acl = Acl::canned(name, "writer", OWNER, *of).expect(name);
        for permission in [Read, Write, ReadAcp, FullControl] {
            let granted = acl.grants(principal, permission) > Granted::Nothing;
            assert_eq!(granted, expected.contains(&permission), "{name} {of:?} {permission:?}");
        }
    }
    assert_eq!(Acl::canned("public", "writer", OWNER, Of::Object).expect_err("no such list").code, "InvalidArgument");
    assert!(Acl::canned("log-delivery-write", OWNER, OWNER, Of::Object).is_err(), "for buckets only");
}

/// Scenario: an owner takes every grant away from itself. Danger: nobody can ever change the list again. Expectation:
/// "The resource owner is always able to read and write the ACL."
#[test]
fn an_owner_never_loses_the_list_itself() {
    let acl = Acl { owner: OWNER.to_owned(), grants: vec![] };
    assert_eq!(acl.grants(&who(OWNER), Permission::Read), Granted::Nothing);
    assert_eq!(acl.grants(&who(OWNER), Permission::WriteAcp), Granted::ToAccount);
    assert_eq!(acl.grants(&who("third"), Permission::WriteAcp), Granted::Nothing);
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html>: with ACLs disabled "requests to
/// set ACLs or update ACLs fail", but for the list that says what holds anyway.
#[test]
fn disabled_lists_are_refused_and_harmless_ones_taken() {
    let enforced = |name, of| {
        let acl = Acl::canned(name, OWNER, OWNER, of).expect(name);
        let block = PublicAccessBlock::default();
        let wording = (of, Wording::Canned(name));
        check_acl(&acl, wording, OWNER, Ownership::BucketOwnerEnforced, block).map_err(|refusal| refusal.code)
    };
    assert_eq!(enforced("bucket-owner-full-control", Of::Object), Ok(()));
    assert_eq!(enforced("private", Of::Object), Err("AccessControlListNotSupported"));
    assert_eq!(enforced("public-read", Of::Object), Err("AccessControlListNotSupported"));
    assert_eq!(enforced("private", Of::Bucket), Err("AccessControlListNotSupported"));
    let written = (Of::Object, Wording::Written);
    let acl = Acl::private(OWNER);
    assert_eq!(check_acl(&acl, written, OWNER, Ownership::BucketOwnerEnforced, PublicAccessBlock::default()), Ok(()));
    let shared = Acl::canned("public-read", OWNER, OWNER, Of::Bucket).expect("canned");
    let change = Ownership::BucketOwnerEnforced.check_change(&shared).expect_err("the list would be void");
    assert_eq!(change.code, "InvalidBucketAclWithObjectOwnership");
}

#[test]
fn public_lists_are_blocked_or_ignored() {
    let acl = Acl::canned("public-read", OWNER, OWNER, Of::Object).expect("canned");
    let block = PublicAccessBlock { block_public_acls: true, ..PublicAccessBlock::default() };
    let wording = (Of::Object, Wording::Canned("public-read"));
    let refused = check_acl(&acl, wording, OWNER, Ownership::ObjectWriter, block).expect_err("blocked");
    assert_eq!((refused.status, refused.code), (403, "AccessDenied"));
    assert_eq!(acl.without_public().grants(&Principal::Anonymous, Permission::Read), Granted::Nothing);
    assert_eq!(acl.without_public().grants(&who(OWNER), Permission::Read), Granted::ToAccount);
}

#[test]
fn uploads_belong_to_whom_ownership_says() {
    let owner = |ownership: Ownership, full| ownership.owner_of_upload(Some("writer"), OWNER, full).to_owned();
    assert_eq!(owner(Ownership::BucketOwnerEnforced, false), OWNER);
    assert_eq!(owner(Ownership::BucketOwnerPreferred, false), "writer");
    assert_eq!(owner(Ownership::BucketOwnerPreferred, true), OWNER);
    assert_eq!(owner(Ownership::ObjectWriter, true), "writer");
    assert_eq!(Ownership::ObjectWriter.owner_of_upload(None, OWNER, false), OWNER);
}

#[test]
fn groups_and_permissions_have_aws_names() {
    for grantee in [Grantee::AllUsers, Grantee::AuthenticatedUsers, Grantee::LogDelivery] {
        let uri = grantee.uri().expect("a group");
        assert_eq!(Grantee::group(&uri), Ok(grantee));
    }
    assert_eq!(Grantee::group("http://example.com").expect_err("unknown").code, "InvalidArgument");
    for name in ["READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"] {
        assert_eq!(Permission::parse(name).map(Permission::name), Ok(name));
    }
    assert_eq!(Permission::parse("read").expect_err("case counts").code, "MalformedACLError");
}
