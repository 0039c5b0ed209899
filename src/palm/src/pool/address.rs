//! Where a peer says it can be found.

use std::net::{IpAddr, SocketAddr};

/// Addresses told to others, at most: a machine with dozens of container bridges stays a short record.
const MAX_ADDRESSES: usize = 8;

/// The addresses others may reach a listener at: itself, or, for one that listens everywhere, every interface's
/// address with its port. Loopback only when there is nothing else; link-local IPv6 never, since its scope means
/// nothing elsewhere.
pub fn advertised(listen: SocketAddr) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let interfaces: Vec<IpAddr> =
        if_addrs::get_if_addrs().map(|found| found.iter().map(if_addrs::Interface::ip).collect()).unwrap_or_default();
    spread(listen, &interfaces)
}

fn spread(listen: SocketAddr, interfaces: &[IpAddr]) -> Vec<SocketAddr> {
    // A socket on `::` takes IPv4 too only where the system is set so; PALM's endpoint does not count on it.
    let mut usable: Vec<IpAddr> = interfaces
        .iter()
        .copied()
        .filter(|ip| ip.is_ipv4() == listen.is_ipv4())
        .filter(|ip| !ip.is_unspecified() && !is_link_local(*ip))
        .collect();
    if usable.iter().any(|ip| !ip.is_loopback()) {
        usable.retain(|ip| !ip.is_loopback());
    }
    usable.sort();
    usable.dedup();
    usable.truncate(MAX_ADDRESSES);
    usable.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// What a person at this machine types to reach a listener: loopback for one that listens everywhere.
pub fn local(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), listen.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new([0, 0, 0, 0, 0, 0, 0, 1].into(), listen.port()),
        _ => listen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A peer that listens everywhere tells the others its real addresses; loopback among them would send every
    /// other machine to itself.
    #[test]
    fn a_listener_everywhere_tells_real_addresses_only() {
        let any = "0.0.0.0:5000".parse().unwrap();
        let interfaces = [ip("127.0.0.1"), ip("192.168.1.7"), ip("169.254.3.3"), ip("fe80::1"), ip("fd00::7")];
        assert_eq!(spread(any, &interfaces), ["192.168.1.7:5000".parse().unwrap()]);
        assert_eq!(spread("[::]:5000".parse().unwrap(), &interfaces), ["[fd00::7]:5000".parse().unwrap()]);
        assert_eq!(spread(any, &[ip("127.0.0.1")]), ["127.0.0.1:5000".parse().unwrap()], "alone is still found");
        assert_eq!(advertised("127.0.0.1:7".parse().unwrap()), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(local(any), "127.0.0.1:5000".parse().unwrap());
    }
}
