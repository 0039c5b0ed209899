//! The text of an invitation.
//!
//! `palm1` and lower-case base32 (one word to a double click, and small as a QR code) of
//!
//! | bytes | what |
//! | --- | --- |
//! | 16 | pool id: the joiner checks the proof of whoever answers against it |
//! | 32 | secret; the ledger knows its BLAKE3 only |
//! | 32 | peer id of the inviter, who is looked for first |
//! | 8 | expiry, milliseconds since the Unix epoch, big-endian |
//! | 4 | first bytes of BLAKE3 of all before: a mistyped token is told apart from a refused one |

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use palm_core::id::{PeerId, PoolId};
use zeroize::Zeroizing;

use crate::pool::secret::{SecretError, fill_random};

const PREFIX: &str = "palm1";
const BODY_BYTES: usize = 16 + 32 + 32 + 8;
const CHECK_BYTES: usize = 4;

/// A text that is not an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not ours at all.
    #[error("not a join token: it does not start with {PREFIX}")]
    Foreign,
    /// Characters missing, added or changed.
    #[error("join token is damaged: copy it again, whole")]
    Damaged,
}

/// A single-use invitation. Its `Display` is the secret text; its `Debug` is not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The pool it invites to.
    pub pool: PoolId,
    /// Who made it.
    pub inviter: PeerId,
    /// Refused from then on, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    secret: Zeroizing<[u8; 32]>,
}

impl JoinToken {
    /// A new token with a random secret.
    pub fn new(pool: PoolId, inviter: PeerId, expires_ms: u64) -> Result<Self, SecretError> {
        let mut secret = Zeroizing::new([0; 32]);
        fill_random(secret.as_mut_slice())?;
        Ok(Self { pool, inviter, expires_ms, secret })
    }

    /// What is shown to the pool.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What the pool keeps: never the secret itself.
    pub fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
        *blake3::hash(secret).as_bytes()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_BYTES + CHECK_BYTES));
        bytes.extend_from_slice(self.pool.as_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend_from_slice(self.inviter.as_bytes());
        bytes.extend_from_slice(&self.expires_ms.to_be_bytes());
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("pool", &self.pool)
            .field("inviter", &self.inviter)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        let bytes = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).map_err(|_| TokenError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (body, check) = bytes.split_at_checked(BODY_BYTES).ok_or(TokenError::Damaged)?;
        if check != &blake3::hash(body).as_bytes()[..CHECK_BYTES] {
            return Err(TokenError::Damaged);
        }
        let mut rest = body;
        Ok(Self {
            pool: PoolId::from_bytes(take(&mut rest)?),
            secret: Zeroizing::new(take(&mut rest)?),
            inviter: PeerId::from_bytes(take(&mut rest)?),
            expires_ms: u64::from_be_bytes(take(&mut rest)?),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TokenError> {
    let (first, after) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
    *rest = after;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(PoolId::from_bytes([3; 16]), PeerId::from_bytes([4; 32]), 1_700_000_000_000).unwrap()
    }

    /// A token travels by chat, mail and QR code: it must come back whole, also in capitals and with the
    /// line end that a paste brings along.
    #[test]
    fn a_token_survives_the_trip() {
        let token = token();
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        let capitals = format!("palm1{}", text["palm1".len()..].to_uppercase());
        assert_eq!(capitals.parse(), Ok(token));
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric()));
    }

    /// One character is lost or mistyped. The joiner must hear that the token is damaged, here, rather than
    /// be refused by the pool and wonder why.
    #[test]
    fn a_damaged_token_is_told_apart() {
        let text = token().to_string();
        for at in "palm1".len()..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(altered.parse::<JoinToken>(), Err(TokenError::Damaged), "character {at}");
            assert!(text[..at].parse::<JoinToken>().is_err());
        }
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::Foreign));
        assert_eq!(format!("{text}a").parse::<JoinToken>(), Err(TokenError::Damaged));
    }

    /// Logs hold `Debug` output; the secret must not be in it.
    #[test]
    fn debug_output_hides_the_secret() {
        let token = token();
        let shown = format!("{token:?}");
        assert!(!shown.contains(&token.to_string()) && !shown.contains("secret"));
    }
}
