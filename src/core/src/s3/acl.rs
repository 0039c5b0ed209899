//! Access control lists (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html>), object ownership
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html>) and the public access block
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::policy::Principal;

/// The most grants of one list.
pub const GRANTS_MAX: usize = 100;

const GROUPS: &str = "http://acs.amazonaws.com/groups/";

/// Who is granted something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grantee {
    /// An account.
    CanonicalId(String),
    /// Everybody, signed or not.
    AllUsers,
    /// Everybody with any access key.
    AuthenticatedUsers,
    /// Who writes access logs.
    LogDelivery,
}

impl Grantee {
    /// The group of this URI.
    pub fn group(uri: &str) -> Result<Self, Refusal> {
        match uri.strip_prefix(GROUPS) {
            Some("global/AllUsers") => Ok(Self::AllUsers),
            Some("global/AuthenticatedUsers") => Ok(Self::AuthenticatedUsers),
            Some("s3/LogDelivery") => Ok(Self::LogDelivery),
            _ => Err(Refusal::invalid_argument("Invalid group uri")),
        }
    }

    /// The URI of a group.
    pub fn uri(&self) -> Option<String> {
        let name = match self {
            Self::CanonicalId(_) => return None,
            Self::AllUsers => "global/AllUsers",
            Self::AuthenticatedUsers => "global/AuthenticatedUsers",
            Self::LogDelivery => "s3/LogDelivery",
        };
        Some(format!("{GROUPS}{name}"))
    }

    /// Whether granting to it is granting to the public.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::AllUsers | Self::AuthenticatedUsers)
    }
}

/// What is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// A bucket's listing, an object's bytes.
    Read,
    /// Making objects in a bucket; means nothing on an object.
    Write,
    /// The ACL.
    ReadAcp,
    /// Changing the ACL.
    WriteAcp,
    /// All of them.
    FullControl,
}

impl Permission {
    /// By its name in XML.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "READ" => Self::Read,
            "WRITE" => Self::Write,
            "READ_ACP" => Self::ReadAcp,
            "WRITE_ACP" => Self::WriteAcp,
            "FULL_CONTROL" => Self::FullControl,
            _ => return Err(malformed()),
        })
    }

    /// Its name in XML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::ReadAcp => "READ_ACP",
            Self::WriteAcp => "WRITE_ACP",
            Self::FullControl => "FULL_CONTROL",
        }
    }

    fn includes(self, wanted: Self) -> bool {
        self == Self::FullControl || self == wanted
    }
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub grantee: Grantee,
    /// What.
    pub permission: Permission,
}

/// The list of a bucket or object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Canonical id of the account that owns it. It may always read and change the list itself.
    pub owner: String,
    /// In the order they were given.
    pub grants: Vec<Grant>,
}

/// Why a request is granted something by a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Granted {
    /// It is not.
    Nothing,
    /// Its account is: its users need an identity policy too.
    ToAccount,
    /// A group it is in is.
    ToGroup,
}

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

impl Acl {
    /// The list made when a request names none: everything to the owner.
    pub fn private(owner: impl Into<String>) -> Self {
        let owner = owner.into();
        let grants = vec![Grant { grantee: Grantee::CanonicalId(owner.clone()), permission: Permission::FullControl }];
        Self { owner, grants }
    }

    /// The list a canned name stands for
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl>). `bucket_owner` is the
    /// canonical id of the bucket's; the two canned lists about it mean `private` on a bucket.
    pub fn canned(name: &str, owner: &str, bucket_owner: &str, of: Of) -> Result<Self, Refusal> {
        let mut acl = Self::private(owner);
        let mut grant = |grantee, permission| acl.grants.push(Grant { grantee, permission });
        let other_owner =
            (of == Of::Object && owner != bucket_owner).then(|| Grantee::CanonicalId(bucket_owner.to_owned()));
        match (name, other_owner) {
            ("public-read", _) => grant(Grantee::AllUsers, Permission::Read),
            ("public-read-write", _) => {
                grant(Grantee::AllUsers, Permission::Read);
                grant(Grantee::AllUsers, Permission::Write);
            }
            ("authenticated-read", _) => grant(Grantee::AuthenticatedUsers, Permission::Read),
            ("log-delivery-write", _) if of == Of::Bucket => {
                grant(Grantee::LogDelivery, Permission::Write);
                grant(Grantee::LogDelivery, Permission::ReadAcp);
            }
            ("bucket-owner-read", Some(bucket_owner)) => grant(bucket_owner, Permission::Read),
            ("bucket-owner-full-control", Some(bucket_owner)) => grant(bucket_owner, Permission::FullControl),
            // `aws-exec-read` is for an Amazon service that does not exist here.
            ("private" | "bucket-owner-read" | "bucket-owner-full-control" | "aws-exec-read", _) => {}
            _ => return Err(Refusal::invalid_argument("")),
        }
        Ok(acl)
    }

    /// Checks a list that a client wrote itself, for something owned by `owner`.
    pub fn validated(self, owner: &str) -> Result<Self, Refusal> {
        if self.owner != owner {
            return Err(Refusal::access_denied());
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(malformed());
        }
        Ok(self)
    }

    /// What the list gives a requester.
    pub fn grants(&self, principal: &Principal, wanted: Permission) -> Granted {
        let given = self.grants.iter().filter(|grant| grant.permission.includes(wanted));
        let to_requester = given.map(|grant| match (&grant.grantee, principal) {
            (Grantee::AllUsers, _) | (Grantee::AuthenticatedUsers, Principal::Identified(_)) => Granted::ToGroup,
            (Grantee::CanonicalId(id), Principal::Identified(identity)) if *id == identity.canonical_id => {
                Granted::ToAccount
            }
            _ => Granted::Nothing,
        });
        let owns = matches!(principal, Principal::Identified(identity) if identity.canonical_id == self.owner);
        // "The resource owner is always able to read and write the ACL."
        let as_owner = owns && matches!(wanted, Permission::ReadAcp | Permission::WriteAcp);
        let as_owner = if as_owner { Granted::ToAccount } else { Granted::Nothing };
        to_requester.max().unwrap_or(Granted::Nothing).max(as_owner)
    }

    /// Whether it grants anything to the public.
    pub fn is_public(&self) -> bool {
        self.grants.iter().any(|grant| grant.grantee.is_public())
    }

    /// The list without what it grants to the public, as `IgnorePublicAcls` has it.
    pub fn without_public(&self) -> Self {
        let grants = self.grants.iter().filter(|grant| !grant.grantee.is_public()).cloned().collect();
        Self { owner: self.owner.clone(), grants }
    }

    /// The accounts it names, for who must check that they exist (`InvalidArgument`, "Invalid id").
    pub fn accounts(&self) -> BTreeSet<&str> {
        let named = self.grants.iter().filter_map(|grant| match &grant.grantee {
            Grantee::CanonicalId(id) => Some(id.as_str()),
            _ => None,
        });
        named.chain([self.owner.as_str()]).collect()
    }

    /// Whether it is one that a bucket with ACLs disabled takes: private, or full control to the bucket's owner.
    fn is_void(&self, bucket_owner: &str) -> bool {
        let harmless = |grant: &Grant| match &grant.grantee {
            Grantee::CanonicalId(id) => *id == bucket_owner && grant.permission == Permission::FullControl,
            _ => false,
        };
        self.owner == bucket_owner && self.grants.iter().all(harmless)
    }
}

fn malformed() -> Refusal {
    let message = "The XML you provided was not well-formed or did not validate against our published schema";
    Refusal::bad("MalformedACLError", message)
}

/// Who owns what is uploaded to a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ownership {
    /// The bucket's owner; ACLs are disabled. The default of new buckets.
    #[default]
    BucketOwnerEnforced,
    /// The bucket's owner when it is given full control, else the uploader.
    BucketOwnerPreferred,
    /// The uploader.
    ObjectWriter,
}

impl Ownership {
    /// By its name in XML and headers.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "BucketOwnerEnforced" => Ok(Self::BucketOwnerEnforced),
            "BucketOwnerPreferred" => Ok(Self::BucketOwnerPreferred),
            "ObjectWriter" => Ok(Self::ObjectWriter),
            _ => Err(Refusal::malformed_xml()),
        }
    }

    /// Its name in XML and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::ObjectWriter => "ObjectWriter",
        }
    }

    /// The canonical id of the owner of an upload. `full_control`: the upload's canned list is
    /// `bucket-owner-full-control`.
    pub fn owner_of_upload<'a>(self, writer: Option<&'a str>, bucket_owner: &'a str, full_control: bool) -> &'a str {
        match self {
            Self::BucketOwnerEnforced => bucket_owner,
            Self::BucketOwnerPreferred if full_control => bucket_owner,
            // What nobody signed belongs to the bucket's owner: there is no other account.
            Self::BucketOwnerPreferred | Self::ObjectWriter => writer.unwrap_or(bucket_owner),
        }
    }

    /// Whether a bucket whose own list is this one may be switched to this setting.
    pub fn check_change(self, bucket: &Acl) -> Result<(), Refusal> {
        if self != Self::BucketOwnerEnforced || bucket.is_void(&bucket.owner) {
            return Ok(());
        }
        let message = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting";
        Err(Refusal::bad("InvalidBucketAclWithObjectOwnership", message))
    }
}

/// The four switches; all are on for new buckets of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "AWS's four switches")]
pub struct PublicAccessBlock {
    /// Refuse public ACLs.
    pub block_public_acls: bool,
    /// Do as if public ACLs granted nothing to the public.
    pub ignore_public_acls: bool,
    /// Refuse public policies.
    pub block_public_policy: bool,
    /// Let only the owner's account use a bucket with a public policy.
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// Whether a bucket policy may be put.
    pub fn check_policy(self, is_public: bool) -> Result<(), Refusal> {
        if self.block_public_policy && is_public { Err(Refusal::access_denied()) } else { Ok(()) }
    }
}

/// How a request says which list it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording<'a> {
    /// By a canned name.
    Canned(&'a str),
    /// By grant headers or a document.
    Written,
}

/// Whether a request may bring this list. Where ACLs are disabled an object still takes `bucket-owner-full-control`,
/// which clients were told to send for years, and what says the same; a bucket takes none.
pub fn check_acl(
    acl: &Acl,
    (of, wording): (Of, Wording<'_>),
    bucket_owner: &str,
    ownership: Ownership,
    block: PublicAccessBlock,
) -> Result<(), Refusal> {
    let harmless = of == Of::Object
        && match wording {
            Wording::Canned(name) => name == "bucket-owner-full-control",
            Wording::Written => acl.is_void(bucket_owner),
        };
    if ownership == Ownership::BucketOwnerEnforced && !harmless {
        return Err(Refusal::bad("AccessControlListNotSupported", "The bucket does not allow ACLs"));
    }
    if block.block_public_acls && acl.is_public() {
        return Err(Refusal::access_denied());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
