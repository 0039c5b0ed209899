//! Temporary credentials that no peer stores. The secret follows from the access key id and the pool's key; whose it is, how
//! long and how far stands in the session token, sealed, which the client brings with each request. So every peer can make
//! them and every peer understands them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palm_core::record::{Session, Stored};
use zeroize::Zeroizing;

use super::keys::{SECRET_ALPHABET, SECRET_LEN, SESSION_KEY_PREFIX};
use super::secret::{SealingKey, SecretError};

/// What seals tokens is derived for that alone: many are made, and a key seals only so many safely.
const SEALING_CONTEXT: &str = "palm 2026-11 session tokens";
const SECRET_CONTEXT: &str = "palm 2026-11 session secrets";

/// The longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Whether an access key id is a session's.
pub fn is_session_key(access_key: &str) -> bool {
    access_key.starts_with(SESSION_KEY_PREFIX)
}

/// The secret of a temporary access key.
pub fn secret(sealing_key: &SealingKey, access_key: &str) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    let key = sealing_key.derive(SECRET_CONTEXT);
    blake3::Hasher::new_keyed(key.expose()).update(access_key.as_bytes()).finalize_xof().fill(bytes.as_mut_slice());
    Zeroizing::new(bytes.iter().map(|&byte| char::from(SECRET_ALPHABET[usize::from(byte % 64)])).collect())
}

/// A session as a token.
pub fn seal(sealing_key: &SealingKey, session: &Session) -> Result<String, SecretError> {
    let sealed = sealing_key.derive(SEALING_CONTEXT).seal(SEALING_CONTEXT, &session.encode())?;
    Ok(STANDARD.encode(sealed))
}

/// What a token says; `None` for what this pool did not make.
pub fn open(sealing_key: &SealingKey, token: &str) -> Option<Session> {
    if token.len() > TOKEN_MAX_BYTES {
        return None;
    }
    let sealed = STANDARD.decode(token).ok()?;
    let opened = sealing_key.derive(SEALING_CONTEXT).open(SEALING_CONTEXT, &sealed).ok()?;
    Session::decode(&opened).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a token made at one peer comes to another, to another pool, or altered. Danger: a session that nobody gave is
    /// honoured. Expectation: only the pool that made it understands it, as it was made.
    #[test]
    fn a_token_opens_in_its_own_pool_only() {
        let key = SealingKey::from_bytes([1; 32]);
        let session = Session {
            access_key: "PALSX".to_owned(),
            account: "palm".to_owned(),
            holder: None,
            name: String::new(),
            issued_ms: 1,
            expires_ms: 2,
            policy: None,
        };
        let token = seal(&key, &session).expect("seals");
        assert_eq!(open(&key, &token), Some(session));
        assert_eq!(open(&SealingKey::from_bytes([2; 32]), &token), None);
        assert_eq!(open(&key, &token[4..]), None);
        assert_eq!(open(&key, "no token"), None);
        assert_eq!(secret(&key, "PALSX"), secret(&key, "PALSX"));
        assert_ne!(secret(&key, "PALSX"), secret(&key, "PALSY"));
        assert_eq!(secret(&key, "PALSX").len(), SECRET_LEN);
    }
}
