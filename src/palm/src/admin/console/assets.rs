//! The pages' files, as `make console` left them.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Name, type and bytes. The names stay the same from build to build: browsers ask with each file's hash whether it changed.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("index.html", "text/html; charset=utf-8", include_bytes!("../../../console/dist/index.html")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("../../../console/dist/console.js")),
    ("console.css", "text/css; charset=utf-8", include_bytes!("../../../console/dist/console.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../../console/dist/icon.svg")),
];

pub(super) async fn index(asked: HeaderMap) -> Response {
    answer("index.html", &asked)
}

pub(super) async fn file(Path(name): Path<String>, asked: HeaderMap) -> Response {
    answer(&name, &asked)
}

fn answer(name: &str, asked: &HeaderMap) -> Response {
    let Some((_, kind, bytes)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", blake3::hash(bytes).to_hex());
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let head = [(header::CONTENT_TYPE, *kind), (header::ETAG, &tag), (header::CACHE_CONTROL, "no-cache")];
    if known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, *bytes).into_response() }
}
