//! Users and roles: one register each, with all their policies.

use palm_core::record::{IdentityKind, IdentityRecord, Stored, key};
use palm_core::s3::Refusal;
use palm_core::s3::account::Account;
use palm_core::s3::policy::{Attached, Policy};

use super::ledger::{Decision, Ledger};
use super::{PoolError, scan_all};

/// Characters of a user's, role's or policy's name (AWS: 64 of users and roles, 128 of policies).
const NAME_MAX: usize = 128;

/// Account, kind and name of a user or role.
pub type Who<'a> = (&'a str, IdentityKind, &'a str);

/// Whether a user, role or policy may have this name
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names>).
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let valid = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte));
    if valid { Ok(()) } else { Err(Refusal::bad("ValidationError", "The specified value for a name is invalid")) }
}

/// Attaches a policy, once it is one.
pub fn attach(record: &mut IdentityRecord, name: &str, document: &str) -> Result<(), Refusal> {
    check_name(name)?;
    Policy::parse(document.as_bytes(), Attached::Identity)?;
    record.attach(name, document)
}

/// The trust of a role that was given none: its account's, whose users still need a policy of their own.
pub fn trust_in(account: &Account) -> String {
    let principal = format!("arn:aws:iam::{}:root", account.number());
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Principal": { "AWS": principal }, "Action": "sts:AssumeRole" }],
    })
    .to_string()
}

/// A user or role, strongly read.
pub async fn get(ledger: &Ledger, (account, kind, name): Who<'_>) -> Result<Option<IdentityRecord>, PoolError> {
    let current = ledger.read(&key::identity(account, kind, name)).await?;
    Ok(current.map(|current| IdentityRecord::decode(&current.value)).transpose()?)
}

/// The names of an account's users or roles.
pub async fn list(ledger: &Ledger, account: &str, kind: IdentityKind) -> Result<Vec<String>, PoolError> {
    let prefix = key::identities(account, kind);
    let found = scan_all(ledger, &prefix).await?;
    let name = |at: &bytes::Bytes| at.get(prefix.len()..).and_then(|name| String::from_utf8(name.to_vec()).ok());
    Ok(found.iter().filter_map(|(at, _)| name(at)).collect())
}

/// Changes, makes or deletes a user or role: `change` is asked inside the ledger update, perhaps more than once, with what
/// is there and leaves there what shall be.
pub async fn change<T: Send>(
    ledger: &Ledger,
    (account, kind, name): Who<'_>,
    change: impl Fn(&mut Option<IdentityRecord>) -> Result<T, Refusal> + Send + Sync,
) -> Result<T, PoolError> {
    check_name(name)?;
    let changed = ledger.update(key::identity(account, kind, name), |current| {
        let found = match current.map(|current| IdentityRecord::decode(&current.value)).transpose() {
            Ok(found) => found,
            Err(error) => return Decision::Keep(Err(error.into())),
        };
        let mut record = found.clone();
        match change(&mut record) {
            Err(refusal) => Decision::Keep(Err(refusal.into())),
            Ok(answer) if record == found => Decision::Keep(Ok(answer)),
            Ok(answer) => match record {
                Some(record) => Decision::Put(record.encode(), Ok(answer)),
                None => Decision::Delete(Ok(answer)),
            },
        }
    });
    changed.await?.answer
}
