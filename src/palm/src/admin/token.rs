//! The admin token. Whoever shows it over HTTP may give every command that the peer's own user may give at the socket.
//!
//! It is made at the first start, lies beside the peer's key with the same mode, and is read at each start: to change it,
//! remove the file and start the peer again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::api;
use super::audit::Actor;
use crate::pool::secret::fill_random;

/// The token's file in a data directory.
pub const TOKEN_FILE: &str = "admin.token";
/// Guessing it is guessing a key.
const SECRET_BYTES: usize = 32;

/// The token of one peer. Cheap to clone.
#[derive(Clone)]
pub struct AdminToken(Arc<Zeroizing<String>>);

impl AdminToken {
    /// The token of a data directory, as text.
    pub fn read(dir: &Path) -> io::Result<String> {
        fs::read_to_string(dir.join(TOKEN_FILE)).map(|text| text.trim().to_owned())
    }

    /// The token of a data directory that this process has to itself; made where there is none, or not a whole one.
    pub fn load_or_create(dir: &Path) -> io::Result<Self> {
        let known = Self::read(dir).map(Zeroizing::new);
        match known {
            Ok(text) if is_whole(&text) => return Ok(Self(Arc::new(text))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        fill_random(&mut secret[..]).map_err(io::Error::other)?;
        let text = Zeroizing::new(BASE32_NOPAD.encode(&secret[..]).to_ascii_lowercase());
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(TOKEN_FILE))?;
        writeln!(file, "{}", text.as_str())?;
        file.sync_all()?;
        Ok(Self(Arc::new(text)))
    }

    /// The routes, for who shows the token as RFC 6750 says.
    pub(super) fn guard(self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self, admit))
    }

    fn is(&self, shown: &str) -> bool {
        shown.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

fn is_whole(text: &str) -> bool {
    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).is_ok_and(|secret| secret.len() == SECRET_BYTES)
}

async fn admit(State(token): State<AdminToken>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|shown| token.is(shown)) {
        request.extensions_mut().insert(Actor("token".to_owned()));
        return next.run(request).await;
    }
    let error = "the admin token is missing or wrong: `palm admin-token` at that peer shows it".to_owned();
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], Json(api::Failure { error })).into_response()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A peer starts three times, the third time after a crash that cut the file short. Danger: a token that others read, one
    /// that changes at every start, or an empty one, which everybody has. Expected: private, kept, and made anew when it is not whole.
    #[test]
    fn the_token_is_private_kept_and_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let first = AdminToken::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(TOKEN_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = AdminToken::load_or_create(dir.path()).unwrap();
        assert!(again.is(first.0.as_str()) && again.is(&AdminToken::read(dir.path()).unwrap()));
        fs::write(&path, "").unwrap();
        let new = AdminToken::load_or_create(dir.path()).unwrap();
        assert!(!new.is("") && !new.is(first.0.as_str()) && new.is(&AdminToken::read(dir.path()).unwrap()));
    }
}
