//! The QUIC endpoint and its limits: one UDP socket that both dials and is dialled.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use palm_core::id::PeerId;
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, MtuDiscoveryConfig, Runtime, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::identity::random_seed;
use super::tls::{Purpose, Tls};
use super::{Identity, NetError};

/// The dialler says something at least this often, so that silence means death.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A connection over which nothing came for this long is dead.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Assumed before the first measurement. Low, since peers share a network: a lost first packet is sent again
/// after some 30 ms instead of a second.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Unread bytes of one stream. A 10 Gbit/s network with 0.5 ms between peers holds 0.6 MiB; more only fills socket
/// buffers until they overflow.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Unread bytes of one member's connection. Many times a stream's: fragments that a stalled client does not take must
/// leave room for everyone else's requests, the ledger's first of all. (The object room bounds how many bodies are under
/// way, at about 32.)
const MEMBER_WINDOW_BYTES: u32 = 32 << 20;
/// Unread bytes of a connection whose peer is not, or not yet, known to be a member.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes written and not yet acknowledged, of one connection.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Requests of one member that are answered at once.
const MEMBER_STREAMS: u32 = 512;
/// Gossip messages of one member that are read at once.
const MEMBER_GOSSIP_STREAMS: u32 = 32;
/// Join requests on one connection.
const STRANGER_STREAMS: u32 = 2;
/// Bytes sent before the first acknowledgement. On a LAN there is no reason to begin slowly; and it must be several times
/// the largest packet, or a probe for the path's size leaves room for nothing else.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// The largest packet tried. Path discovery finds Ethernet's 1500 on most networks; loopback and jumbo frames take this,
/// which is 2.4 times cheaper per byte. Not more: quinn hands the kernel up to 10 packets in one call, and more than 65,507
/// bytes there are lost without an error.
const MAX_PACKET_BYTES: u16 = 6500;
/// Lost bursts can make discovery believe that the path takes only small packets; it looks again after this.
const PACKET_SIZE_RETRY: Duration = Duration::from_secs(10);
/// Packets acknowledged at once, and the longest an acknowledgement waits.
const ACK_PACKETS: u32 = 10;
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Bytes of each socket buffer asked of the kernel, which may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Connection attempts that wait to be looked at.
const MAX_INCOMING: usize = 256;
/// First packets kept of each attempt, and of all of them.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 << 20;

/// Binds a socket of this machine.
pub(super) fn socket(listen: SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, NetError> {
    let bind = || {
        let socket = UdpSocket::bind(listen)?;
        grow_buffers(&socket)?;
        TokioRuntime.wrap_udp_socket(socket)
    };
    bind().map_err(|error| NetError::Local(format!("listen on {listen}: {error}")))
}

/// The endpoint of a socket. Nothing is accepted until a server configuration is set.
pub(super) fn endpoint(identity: &Identity, socket: Arc<dyn AsyncUdpSocket>) -> Result<Endpoint, NetError> {
    let failed = |error: &dyn std::fmt::Display| NetError::Local(error.to_string());
    // The reset key comes from the identity and quinn's own id generator would disown the ids of a former life:
    // so a peer that crashed and restarted resets old connections at their first packet.
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, identity.reset_key())));
    let seed = random_seed()?;
    config.cid_generator(move || Box::new(RandomIds(StdRng::from_seed(*seed))));
    config.max_udp_payload_size(MAX_PACKET_BYTES).map_err(|error| failed(&error))?;
    Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).map_err(|error| failed(&error))
}

/// For accepting. Every connection starts with a stranger's limits; [`raise_limits`] lifts a member's.
pub(super) fn server_config(tls: &Tls) -> Result<ServerConfig, NetError> {
    let mut config = ServerConfig::with_crypto(tls.server()?);
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(STRANGER_STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .receive_window(STRANGER_WINDOW_BYTES.into());
    config
        .transport_config(Arc::new(transport))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
    Ok(config)
}

/// For dialling.
pub(super) fn client_config(tls: &Tls, purpose: Purpose, expect: Option<PeerId>) -> Result<ClientConfig, NetError> {
    let mut config = ClientConfig::new(tls.client(purpose, expect)?);
    let mut transport = transport();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    match purpose {
        Purpose::Member => transport
            .max_concurrent_bidi_streams(MEMBER_STREAMS.into())
            .max_concurrent_uni_streams(MEMBER_GOSSIP_STREAMS.into()),
        Purpose::Join => transport.max_concurrent_bidi_streams(0u32.into()).max_concurrent_uni_streams(0u32.into()),
    };
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Gives an accepted connection the limits of a member.
pub(super) fn raise_limits(connection: &quinn::Connection) {
    connection.set_receive_window(MEMBER_WINDOW_BYTES.into());
    connection.set_max_concurrent_bi_streams(MEMBER_STREAMS.into());
    connection.set_max_concurrent_uni_streams(MEMBER_GOSSIP_STREAMS.into());
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_PACKET_BYTES).black_hole_cooldown(PACKET_SIZE_RETRY);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_PACKETS.into()).max_ack_delay(Some(ACK_DELAY));
    // Cubic, not BBR: where socket buffers have the kernel's default size BBR loses every second packet.
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(MEMBER_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    transport
}

/// Larger socket buffers let a burst wait instead of being lost while this process is busy. The kernel caps
/// them (`net.core.rmem_max`); less works, only slower.
fn grow_buffers(socket: &UdpSocket) -> std::io::Result<()> {
    let state = quinn::udp::UdpSocketState::new(socket.into())?;
    state.set_recv_buffer_size(socket.into(), SOCKET_BUFFER_BYTES)?;
    state.set_send_buffer_size(socket.into(), SOCKET_BUFFER_BYTES)
}

/// Connection ids that any life of this endpoint takes for its own.
struct RandomIds(StdRng);

/// Bytes of a connection id.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
