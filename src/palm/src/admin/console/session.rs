//! Who is logged in. A session is 256 random bits in a cookie; only their hash is kept, in memory, so that sessions end with
//! the process.

use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use data_encoding::HEXLOWER;
use palm_core::id::PeerId;

use crate::pool::secret::{SecretError, fill_random};

/// Sessions at once; the oldest makes room for a new one.
const MAX_SESSIONS: usize = 256;
/// How long a session lasts, milliseconds: a day's work.
const LASTS_MS: u64 = 12 * 60 * 60 * 1000;
/// Characters of the peer's id in the cookie's name.
const ID_CHARACTERS: usize = 12;

/// The open sessions.
pub(super) struct Sessions {
    open: HashMap<blake3::Hash, Session>,
    /// Browsers keep cookies by host, whatever the port: peers of one machine must not share one.
    cookie: String,
}

struct Session {
    access_key: String,
    began_ms: u64,
}

impl Sessions {
    pub(super) fn new(me: &PeerId) -> Self {
        let id: String = me.to_string().chars().take(ID_CHARACTERS).collect();
        Self { open: HashMap::new(), cookie: format!("palm_{id}") }
    }

    /// Begins a session of an access key; the cookie to set, which TLS alone may carry if `secure`.
    pub(super) fn begin(&mut self, access_key: String, now_ms: u64, secure: bool) -> Result<String, SecretError> {
        let mut token = [0; 32];
        fill_random(&mut token)?;
        let token = HEXLOWER.encode(&token);
        self.open.retain(|_, session| !session.is_over(now_ms));
        if self.open.len() >= MAX_SESSIONS {
            let oldest = self.open.iter().min_by_key(|(_, session)| session.began_ms).map(|(id, _)| *id);
            oldest.and_then(|id| self.open.remove(&id));
        }
        self.open.insert(blake3::hash(token.as_bytes()), Session { access_key, began_ms: now_ms });
        Ok(self.set_cookie(&token, LASTS_MS / 1000, secure))
    }

    /// The access key of a request's session.
    pub(super) fn find(&self, headers: &HeaderMap, now_ms: u64) -> Option<&str> {
        // Found by its hash, so that the time it takes tells nothing of the tokens there are.
        let session = self.open.get(&blake3::hash(self.token(headers)?.as_bytes()))?;
        (!session.is_over(now_ms)).then_some(session.access_key.as_str())
    }

    /// Ends a request's session; the cookie that takes its own away.
    pub(super) fn end(&mut self, headers: &HeaderMap) -> String {
        if let Some(token) = self.token(headers) {
            self.open.remove(&blake3::hash(token.as_bytes()));
        }
        self.set_cookie("", 0, false)
    }

    fn token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie).map(|(_, token)| token)
    }

    fn set_cookie(&self, token: &str, lasts_s: u64, secure: bool) -> String {
        let secure = if secure { "; Secure" } else { "" };
        format!("{}={token}; Path=/console/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}", self.cookie)
    }
}

impl Session {
    fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.began_ms) >= LASTS_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, format!("theme=dark; {cookie}").parse().unwrap())])
    }

    /// Somebody logs in, works, and logs out or goes home. Danger: a cookie that opens the console for ever, for others, or
    /// after logging out. Expected: it opens one session, until it ends, and no made-up one does.
    #[test]
    fn a_session_lasts_until_it_ends() {
        let mut sessions = Sessions::new(&PeerId::from_bytes([7; 32]));
        let set = sessions.begin("PALMKEY".to_owned(), 0, true).unwrap();
        assert!(set.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{set}");
        let mine = request(set.split(';').next().unwrap());
        assert_eq!(sessions.find(&mine, LASTS_MS - 1), Some("PALMKEY"));
        assert_eq!(sessions.find(&mine, LASTS_MS), None);
        assert_eq!(sessions.find(&request(&format!("{}=00", sessions.cookie)), 0), None);
        assert_eq!(sessions.find(&HeaderMap::new(), 0), None);
        sessions.end(&mine);
        assert_eq!(sessions.find(&mine, 0), None);
    }

    /// Somebody logs in again and again. Danger: memory without bounds. Expected: the oldest sessions go.
    #[test]
    fn sessions_are_bounded() {
        let mut sessions = Sessions::new(&PeerId::from_bytes([7; 32]));
        let first = sessions.begin("first".to_owned(), 0, false).unwrap();
        for at in 1..=MAX_SESSIONS {
            sessions.begin("more".to_owned(), at as u64, false).unwrap();
        }
        assert_eq!(sessions.open.len(), MAX_SESSIONS);
        assert_eq!(sessions.find(&request(first.split(';').next().unwrap()), 9), None);
    }
}
