//! What peers and clients need of the network: ports to listen at, and multicast to be found by.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use futures::future::join_all;
use socket2::{Domain, Protocol, Socket, Type};

use super::Check;
use crate::config::{Discovery, Settings};

/// Where mDNS is spoken (RFC 6762). Our packets go to a port of our own, so that no responder reads them.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// How long a packet to ourselves may take.
const ECHO: Duration = Duration::from_secs(1);
const PACKET: &[u8] = b"palm doctor";

/// Whether a peer could listen where the settings say. Asked only where none runs.
pub(super) fn ports(settings: &Settings) -> Vec<Check> {
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let mut checks = Vec::new();
    if settings.s3.enabled {
        checks.push(port("s3 port", settings.s3.address, "--s3", tcp));
        checks.extend(settings.s3.tls_address.map(|address| port("tls port", address, "s3.tls_address", tcp)));
    }
    checks.push(port("quic port", settings.quic.address, "--quic", |address| UdpSocket::bind(address).map(drop)));
    checks.push(port("admin port", settings.admin.address, "--admin", tcp));
    checks
}

fn port(name: &'static str, address: SocketAddr, flag: &str, bind: impl Fn(SocketAddr) -> io::Result<()>) -> Check {
    match bind(address) {
        Ok(()) => Check::ok(name, format!("{address} is free")),
        Err(error) => {
            Check::fail(name, format!("{address}: {error}"), format!("choose another with {flag}, or end what uses it"))
        }
    }
}

/// Whether multicast works on each interface that mDNS may speak on: a packet to the group must come back to ourselves.
pub(super) async fn multicast(discovery: &Discovery) -> Vec<Check> {
    const NAME: &str = "multicast";
    if !discovery.mdns {
        return vec![Check::ok(NAME, "not used: discovery.mdns is off")];
    }
    let interfaces: Vec<(String, Ipv4Addr)> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| chosen(discovery, &interface.name, interface.ip()))
        .filter_map(|interface| match interface.ip() {
            IpAddr::V4(address) => Some((interface.name, address)),
            IpAddr::V6(_) => None,
        })
        .collect();
    if interfaces.is_empty() {
        let mend = "connect to a network, or name an interface in discovery.interfaces, or peers with --peer";
        return vec![Check::warn(NAME, "no interface to speak mDNS on", mend)];
    }
    let echoes = interfaces.into_iter().map(|(name, address)| async move {
        let heard = tokio::task::spawn_blocking(move || echo(address))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        match heard {
            Ok(()) => Check::ok(NAME, format!("{name} ({address}): what is sent is heard")),
            Err(error) => {
                let mend =
                    "allow UDP to 224.0.0.251 in the firewall, or name peers with --peer and pools with --coordinator";
                Check::warn(NAME, format!("{name} ({address}): {error}"), mend)
            }
        }
    });
    join_all(echoes).await
}

/// As the settings choose; without a choice all but loopback.
fn chosen(discovery: &Discovery, name: &str, address: IpAddr) -> bool {
    match discovery.interfaces.as_slice() {
        [] => !address.is_loopback(),
        named => named.iter().any(|wanted| wanted == name || *wanted == address.to_string()),
    }
}

fn echo(interface: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
    socket.join_multicast_v4(&GROUP, &interface)?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_loop_v4(true)?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(ECHO))?;
    socket.send_to(PACKET, (GROUP, socket.local_addr()?.port()))?;
    let mut heard = [0; PACKET.len()];
    match socket.recv(&mut heard) {
        Ok(length) if &heard[..length] == PACKET => Ok(()),
        Ok(_) => Err(io::Error::other("something else was heard")),
        Err(_) => Err(io::Error::other("what is sent is not heard")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// Another program listens where this peer should. Expected: told, with the flag that chooses another port.
    #[test]
    fn a_port_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = Settings::default();
        settings.s3.address = taken.local_addr().unwrap();
        settings.quic.address = ([127, 0, 0, 1], 0).into();
        settings.admin.address = ([127, 0, 0, 1], 0).into();
        let checks = ports(&settings);
        assert_eq!(
            checks.iter().map(|check| check.verdict).collect::<Vec<_>>(),
            [Verdict::Fail, Verdict::Ok, Verdict::Ok]
        );
        assert!(checks[0].mend.as_ref().unwrap().contains("--s3"));
    }

    #[test]
    fn interfaces_are_chosen_by_name_or_address() {
        let mut discovery = Discovery::default();
        let (lo, lan): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [10, 0, 0, 7].into());
        assert!(!chosen(&discovery, "lo", lo) && chosen(&discovery, "eth0", lan));
        discovery.interfaces = vec!["lo".into(), "10.0.0.7".into()];
        assert!(chosen(&discovery, "lo", lo) && chosen(&discovery, "eth0", lan));
        assert!(!chosen(&discovery, "eth1", [10, 0, 0, 8].into()));
    }
}
