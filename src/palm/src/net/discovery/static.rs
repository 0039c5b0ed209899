//! Peers that the user lists as `HOST:PORT`, for networks without multicast. Ask them by
//! [`join_call`](crate::net::Net::join_call) who they are.

use std::net::SocketAddr;

use crate::net::NetError;

/// Addresses taken of one name.
const MAX_ADDRESSES: usize = 8;

/// The addresses of one listed peer.
pub async fn resolve(peer: &str) -> Result<Vec<SocketAddr>, NetError> {
    let failed = |detail: String| NetError::Local(format!("peer {peer:?}: {detail}"));
    let addresses = tokio::net::lookup_host(peer).await.map_err(|error| failed(error.to_string()))?;
    let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(failed("no address".into())) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistyped peer must be named in the error, or nobody finds the line in the settings.
    #[tokio::test]
    async fn a_listed_peer_is_resolved_or_named() {
        assert_eq!(resolve("127.0.0.1:5000").await.unwrap(), vec!["127.0.0.1:5000".parse().unwrap()]);
        let error = resolve("127.0.0.1").await.unwrap_err().to_string();
        assert!(error.contains("\"127.0.0.1\""), "{error}");
    }
}
