//! S3 access keys: records whose secret is sealed by the pool.

use palm_core::record::{AccessKeyRecord, Stored, key};
use zeroize::Zeroizing;

use super::ledger::{Decision, Ledger};
use super::secret::{SealingKey, SecretError, fill_random};
use super::{PoolError, scan_all};

/// Access key ids made here start with it, as AWS's do with `AKIA`: a leaked one is recognised for what it is.
pub const ACCESS_KEY_PREFIX: &str = "PALM";
/// Characters of an access key id, as at AWS.
const ACCESS_KEY_LEN: usize = 20;
/// Characters of a secret, as at AWS: 40 of 64 possible ones are 240 bits.
const SECRET_LEN: usize = 40;
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

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Signature V4 puts the id between slashes and commas.
    #[error("access key ids are {MIN_ID_LEN} to {MAX_ID_LEN} letters, digits, '-', '_' or '.'")]
    Id,
    /// Too short to protect anything, or not typeable.
    #[error("secret keys are {MIN_SECRET_LEN} to {MAX_SECRET_LEN} printable ascii characters")]
    Secret,
}

impl AccessKey {
    /// A new random key.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0_u8; ACCESS_KEY_LEN + SECRET_LEN]);
        fill_random(bytes.as_mut_slice())?;
        let (id, secret) = bytes.split_at(ACCESS_KEY_LEN);
        // 32 and 64 divide 256, so every character is equally likely.
        let id = id.iter().skip(ACCESS_KEY_PREFIX.len()).map(|&byte| char::from(ID_ALPHABET[usize::from(byte % 32)]));
        let secret = secret.iter().map(|&byte| char::from(SECRET_ALPHABET[usize::from(byte % 64)]));
        Ok(Self { id: ACCESS_KEY_PREFIX.chars().chain(id).collect(), secret: Zeroizing::new(secret.collect()) })
    }

    /// A key chosen by its owner.
    pub fn given(id: &str, secret: &str) -> Result<Self, KeyError> {
        let id_fits = (MIN_ID_LEN..=MAX_ID_LEN).contains(&id.len())
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
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What the sealed secret of an access key is bound to.
fn context(id: &str) -> String {
    format!("palm access key {id}")
}

/// Writes a key; an existing one with this id is replaced.
pub(super) async fn put(
    ledger: &Ledger,
    sealing_key: &SealingKey,
    access_key: &AccessKey,
    description: &str,
    root: bool,
) -> Result<(), PoolError> {
    let record = AccessKeyRecord {
        sealed_secret: sealing_key.seal(&context(&access_key.id), access_key.secret.as_bytes())?,
        description: description.to_owned(),
        root,
        created_ms: ledger.now_ms(),
    };
    let value = record.encode();
    ledger.update(key::access_key(&access_key.id), |_| Decision::Put(value.clone(), ())).await?;
    Ok(())
}

/// Every access key, strongly read.
pub(super) async fn list(ledger: &Ledger) -> Result<Vec<ListedKey>, PoolError> {
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
pub(super) async fn revoke(ledger: &Ledger, id: &str) -> Result<Revoked, PoolError> {
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
    put(ledger, sealing_key, &wanted, "root", true).await?;
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
