//! Telling by HTTP: each message is sent by POST, and taken when the answer's status is 2xx.

use async_trait::async_trait;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::address::Address;
use super::target::{Letter, SendError, Target};

/// Where messages are sent.
pub(super) struct Webhook {
    address: Address,
    /// `Host`.
    authority: HeaderValue,
    /// Path and query.
    path: Uri,
    /// From the URL's `user:password@`.
    authorization: Option<HeaderValue>,
}

impl Webhook {
    /// By its URL, whole and in parts.
    pub(super) fn new(address: &Address, url: &str) -> Result<Self, String> {
        let wrong = || "not a URL such as https://host:port/path".to_owned();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let place = uri.authority().map_or("", |authority| authority.as_str());
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let authorization = address.user.as_ref().map(|user| {
            let password = address.password.as_deref().unwrap_or_default();
            format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
        });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            address: address.clone(),
            authority: HeaderValue::try_from(place).map_err(|_| wrong())?,
            path: path.parse().map_err(|_| wrong())?,
            authorization: authorization.map(HeaderValue::try_from).transpose().map_err(|_| wrong())?,
        })
    }
}

#[async_trait]
impl Target for Webhook {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        let tls = self.address.scheme == "https";
        let stream = self.address.connect(if tls { 443 } else { 80 }, tls).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::new(Full::new(letter.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("PALM/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let status = sender.send_request(request).await?.status();
        if status.is_success() { Ok(()) } else { Err(SendError::Status(status)) }
    }
}
