//! A simulated UDP socket as QUIC wants one. The network between is turmoil's; losing and repeating single packets is done
//! here, since turmoil breaks whole links only.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use turmoil::net::UdpSocket;

/// The port of every simulated peer.
pub const PORT: u16 = 5_000;
/// Packets that wait in a socket; more are lost.
pub const BUFFER_PACKETS: usize = 4_096;
const MAX_PACKET_BYTES: usize = 65_536;

/// How bad the network is, of itself.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Share of packets lost.
    pub lost: f64,
    /// Share of packets that arrive twice.
    pub twice: f64,
}

type Arrived = (Vec<u8>, SocketAddr);

/// One machine's socket.
pub struct Socket {
    address: SocketAddr,
    /// Held by the receiving task alone, so that it closes with a crash whatever else of the peer is still in memory.
    out: Weak<UdpSocket>,
    weather: Weather,
    dice: Mutex<SmallRng>,
    arrived: Mutex<mpsc::Receiver<Arrived>>,
    _receiving: AbortOnDropHandle<()>,
}

impl Socket {
    /// The socket of the machine this runs on, whose address is `ip`.
    pub async fn bind(ip: IpAddr, weather: Weather, dice: SmallRng) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?);
        let (sender, arrived) = mpsc::channel(BUFFER_PACKETS);
        let sending = Arc::downgrade(&socket);
        let receiving = tokio::spawn(async move {
            let mut buffer = vec![0; MAX_PACKET_BYTES];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                // A full buffer loses packets, as a kernel's does.
                let _ = sender.try_send((buffer[..len].to_vec(), from));
            }
        });
        Ok(Self {
            address: SocketAddr::new(ip, PORT),
            out: sending,
            weather,
            dice: Mutex::new(dice),
            arrived: Mutex::new(arrived),
            _receiving: AbortOnDropHandle::new(receiving),
        })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(socket) = self.out.upgrade() else { return Err(io::ErrorKind::NotConnected.into()) };
        let copies = {
            let mut dice = self.dice.lock();
            if dice.random_bool(self.weather.lost) { 0 } else { 1 + u8::from(dice.random_bool(self.weather.twice)) }
        };
        for _ in 0..copies {
            // Who is not there loses the packet, without a word.
            let _ = socket.try_send_to(transmit.contents, transmit.destination);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((packet, addr)) = ready!(self.arrived.lock().poll_recv(cx)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        buffers[0][..packet.len()].copy_from_slice(&packet);
        meta[0] = RecvMeta { addr, len: packet.len(), stride: packet.len(), ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.address).finish()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
