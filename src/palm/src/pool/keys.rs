//! S3 access keys: records whose secret is sealed by the pool.

use palm_core::record::{AccessKeyRecord, IdentityKind, IdentityRecord, Stored, TokenRecord, key};
use palm_core::s3::Refusal;
use palm_core::s3::account::Account;
use zeroize::Zeroizing;

use super::identity;
use super::ledger::{Decision, Ledger};
use super::secret::{SealingKey, SecretError, fill_random};
use super::{PoolError, scan_all};

/// Access key ids made here start with it, as AWS's do with `AKIA`: a leaked one is recognised for what it is.
pub const ACCESS_KEY_PREFIX: &str = "PALM";
/// Those of temporary keys, which are stored nowhere, start with this.
pub const SESSION_KEY_PREFIX: &str = "PALS";
/// Characters of an access key id, as at AWS.
const ACCESS_KEY_LEN: usize = 20;
/// Characters of a secret, as at AWS: 40 of 64 possible ones are 240 bits.
pub(super) const SECRET_LEN: usize = 40;
/// Keys given by the environment are not shorter (S3 clients and `MinIO` refuse less).
const MIN_ID_LEN: usize = 3;
const MIN_SECRET_LEN: usize = 8;
/// Nor longer.
const MAX_ID_LEN: usize = 128;
const MAX_SECRET_LEN: usize = 128;

/// An access key with its secret in the clear. Zeroed on drop, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An access key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The access key id.
    pub id: String,
    /// The record, its secret still sealed.
    pub record: AccessKeyRecord,
}

/// When what lets someone in does so no more, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiries {
    /// Invitations that can be used still.
    pub invitations: u64,
    /// When the last of them expires.
    pub last_invitation_ms: Option<u64>,
    /// When the next access key does that is taken still.
    pub next_access_key_ms: Option<u64>,
}

/// What expires, by this peer's copy.
pub(crate) fn expiries(ledger: &Ledger) -> Result<Expiries, PoolError> {
    let now_ms = ledger.now_ms();
    let (mut invitations, mut keys) = (Vec::new(), Vec::new());
    for (_, current) in ledger.local_scan(&key::tokens())? {
        let token = TokenRecord::decode(&current.value)?;
        invitations.extend(Some(token.expires_ms).filter(|&expires| token.used_by.is_none() && expires > now_ms));
    }
    for (_, current) in ledger.local_scan(&key::access_keys())? {
        let key = AccessKeyRecord::decode(&current.value)?;
        keys.extend(key.expires_ms.filter(|&expires| key.enabled && expires > now_ms));
    }
    Ok(Expiries {
        invitations: invitations.len() as u64,
        last_invitation_ms: invitations.into_iter().max(),
        next_access_key_ms: keys.into_iter().min(),
    })
}

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Signature V4 puts the id between slashes and commas.
    #[error(
        "access key ids are {MIN_ID_LEN} to {MAX_ID_LEN} letters, digits, '-', '_' or '.', and do not begin with \
         {SESSION_KEY_PREFIX}"
    )]
    Id,
    /// Too short to protect anything, or not typeable.
    #[error("secret keys are {MIN_SECRET_LEN} to {MAX_SECRET_LEN} printable ascii characters")]
    Secret,
}

impl AccessKey {
    /// A new random key.
    pub fn random() -> Result<Self, SecretError> {
        Self::with_prefix(ACCESS_KEY_PREFIX)
    }

    /// The id of a new temporary key.
    pub fn random_session_id() -> Result<String, SecretError> {
        Ok(Self::with_prefix(SESSION_KEY_PREFIX)?.id)
    }

    fn with_prefix(prefix: &str) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0_u8; ACCESS_KEY_LEN + SECRET_LEN]);
        fill_random(bytes.as_mut_slice())?;
        let (id, secret) = bytes.split_at(ACCESS_KEY_LEN);
        // 32 and 64 divide 256, so every character is equally likely.
        let id = id.iter().skip(prefix.len()).map(|&byte| char::from(ID_ALPHABET[usize::from(byte % 32)]));
        let secret = secret.iter().map(|&byte| char::from(SECRET_ALPHABET[usize::from(byte % 64)]));
        Ok(Self { id: prefix.chars().chain(id).collect(), secret: Zeroizing::new(secret.collect()) })
    }

    /// A key chosen by its owner.
    pub fn given(id: &str, secret: &str) -> Result<Self, KeyError> {
        let id_fits = (MIN_ID_LEN..=MAX_ID_LEN).contains(&id.len())
            && !id.starts_with(SESSION_KEY_PREFIX)
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let secret_fits = (MIN_SECRET_LEN..=MAX_SECRET_LEN).contains(&secret.len())
            && secret.bytes().all(|byte| byte.is_ascii_graphic());
        match (id_fits, secret_fits) {
            (true, true) => Ok(Self { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) }),
            (false, _) => Err(KeyError::Id),
            (true, false) => Err(KeyError::Secret),
        }
    }

    /// Opens the secret of a record.
    pub fn open(id: &str, record: &AccessKeyRecord, sealing_key: &SealingKey) -> Result<Self, SecretError> {
        let secret = sealing_key.open(&context(id), &record.sealed_secret)?;
        let secret = std::str::from_utf8(&secret).map_err(|_| SecretError::Open)?.to_owned();
        Ok(Self { id: id.to_owned(), secret: Zeroizing::new(secret) })
    }
}

const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
pub(super) const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What the sealed secret of an access key is bound to.
fn context(id: &str) -> String {
    format!("palm access key {id}")
}

/// A key to be made.
#[derive(Debug, Default)]
pub struct NewKey {
    /// What it is for.
    pub description: String,
    /// Name of the account; `None`: the main one.
    pub account: Option<String>,
    /// Whose it is; `None`: the account's own, which may do anything in it.
    pub user: Option<String>,
    /// Policies of the user, by name. With policies and no user, one is made who is called as the key.
    pub policies: Vec<(String, String)>,
    /// Id and secret; `None`: random ones.
    pub given: Option<AccessKey>,
    /// Not taken from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// Makes a key, and its user where there is none.
pub(crate) async fn create(ledger: &Ledger, sealing_key: &SealingKey, new: NewKey) -> Result<AccessKey, PoolError> {
    let NewKey { description, account, user, policies, given, expires_ms } = new;
    let account = account.map_or_else(|| Ok(Account::main()), |name| Account::named(&name))?;
    let access_key = given.map_or_else(AccessKey::random, Ok)?;
    let user = user.or_else(|| (!policies.is_empty()).then(|| access_key.id.clone()));
    if let Some(user) = &user {
        let made = identity::change(ledger, (account.name(), IdentityKind::User, user), |record| {
            let created_ms = ledger.now_ms();
            let record = record.get_or_insert_with(|| IdentityRecord { created_ms, ..IdentityRecord::default() });
            policies.iter().try_for_each(|(name, document)| identity::attach(record, name, document))
        });
        made.await?;
    }
    let record = AccessKeyRecord {
        sealed_secret: sealing_key.seal(&context(&access_key.id), access_key.secret.as_bytes())?,
        description,
        root: false,
        created_ms: ledger.now_ms(),
        account: account.name().to_owned(),
        user,
        enabled: true,
        expires_ms,
    };
    let value = record.encode();
    let made = ledger.update(key::access_key(&access_key.id), |current| match current {
        None => Decision::Put(value.clone(), true),
        // A retry finds its own.
        Some(current) => Decision::Keep(current.value == value),
    });
    if made.await?.answer {
        Ok(access_key)
    } else {
        Err(Refusal::with_status(409, "EntityAlreadyExists", "There is an access key of this id").into())
    }
}

/// Writes a root key of the main account; an existing key with this id is replaced.
async fn put_root(ledger: &Ledger, sealing_key: &SealingKey, access_key: &AccessKey) -> Result<(), PoolError> {
    let record = AccessKeyRecord {
        sealed_secret: sealing_key.seal(&context(&access_key.id), access_key.secret.as_bytes())?,
        description: "root".to_owned(),
        root: true,
        created_ms: ledger.now_ms(),
        account: Account::main().name().to_owned(),
        user: None,
        enabled: true,
        expires_ms: None,
    };
    let value = record.encode();
    ledger.update(key::access_key(&access_key.id), |_| Decision::Put(value.clone(), ())).await?;
    Ok(())
}

/// Has a key taken or not: `false` where there is none. Root keys stay as they are.
pub(super) async fn enable(ledger: &Ledger, id: &str, enabled: bool) -> Result<bool, PoolError> {
    let changed = ledger.update(key::access_key(id), |current| {
        match current.map(|found| AccessKeyRecord::decode(&found.value)) {
            Some(Ok(record)) if !record.root => Decision::Put(AccessKeyRecord { enabled, ..record }.encode(), Ok(true)),
            Some(Err(error)) => Decision::Keep(Err(error)),
            None | Some(Ok(_)) => Decision::Keep(Ok(false)),
        }
    });
    Ok(changed.await?.answer?)
}

/// Every access key, strongly read.
pub(crate) async fn list(ledger: &Ledger) -> Result<Vec<ListedKey>, PoolError> {
    let prefix = key::access_keys();
    let mut keys = Vec::new();
    for (at, current) in scan_all(ledger, &prefix).await? {
        let Some(id) = at.get(prefix.len()..).and_then(|id| std::str::from_utf8(id).ok()) else { continue };
        keys.push(ListedKey { id: id.to_owned(), record: AccessKeyRecord::decode(&current.value)? });
    }
    Ok(keys)
}

/// What became of a wish to revoke a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is gone.
    Done,
    /// There was none.
    Unknown,
    /// Root keys are not revoked: the pool would have no administrator.
    IsRoot,
}

/// Revokes a key: from the answer on no peer takes it.
pub(crate) async fn revoke(ledger: &Ledger, id: &str) -> Result<Revoked, PoolError> {
    let updated = ledger
        .update(key::access_key(id), |current| match current.map(|found| AccessKeyRecord::decode(&found.value)) {
            None => Decision::Keep(Revoked::Unknown),
            Some(Ok(record)) if record.root => Decision::Keep(Revoked::IsRoot),
            Some(_) => Decision::Delete(Revoked::Done),
        })
        .await?;
    Ok(updated.answer)
}

/// The pool's root key: the one given, which is written if the pool has not this one yet; otherwise the one the
/// pool has, or a new one.
pub(super) async fn ensure_root(
    ledger: &Ledger,
    sealing_key: &SealingKey,
    given: Option<AccessKey>,
) -> Result<AccessKey, PoolError> {
    let roots: Vec<AccessKey> = list(ledger)
        .await?
        .into_iter()
        .filter(|listed| listed.record.root)
        .filter_map(|listed| AccessKey::open(&listed.id, &listed.record, sealing_key).ok())
        .collect();
    let wanted = match given {
        Some(given) if roots.contains(&given) => return Ok(given),
        Some(given) => given,
        None => match roots.into_iter().next() {
            Some(root) => return Ok(root),
            None => AccessKey::random()?,
        },
    };
    put_root(ledger, sealing_key, &wanted).await?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are made without anyone looking: they must have AWS's shape, since clients check it, and never repeat.
    #[test]
    fn random_keys_have_the_shape_clients_expect() {
        let (one, two) = (AccessKey::random().unwrap(), AccessKey::random().unwrap());
        assert_eq!((one.id.len(), one.secret.len()), (20, 40));
        assert!(one.id.starts_with("PALM"));
        assert_ne!(one, two);
        assert_eq!(AccessKey::given(&one.id, &one.secret), Ok(one));
    }

    /// A key from the environment that Signature V4 could not carry would lock its owner out with an unhelpful
    /// 403; it is refused at the start instead.
    #[test]
    fn unusable_given_keys_are_refused() {
        assert!(AccessKey::given("admin", "password").is_ok());
        assert_eq!(AccessKey::given("a/b", "password"), Err(KeyError::Id));
        assert_eq!(AccessKey::given("", "password"), Err(KeyError::Id));
        assert_eq!(AccessKey::given("admin", "short"), Err(KeyError::Secret));
        assert_eq!(AccessKey::given("admin", "with space in it"), Err(KeyError::Secret));
    }
}
