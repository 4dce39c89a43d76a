//! The way to the broker: a Unix socket as it is, or TLS 1.3 through one or by TCP.
//!
//! Only the certificate in `CRUCIBLE_BUS_CA` is believed, and only for the name that the broker has there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What a broker behind a Unix socket is called in its certificate.
const LOCAL_NAME: &str = "crucible-bus";
const HOSTS: &str = "/etc/hosts";
const CHUNK: usize = 16384;
/// How what is said begins of a broker that may be reached in a while.
pub const AWAY: &str = "the bus cannot be reached now";

/// Connected to a broker.
pub struct Road {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Road {
    /// Connect, and see to it that it is who it should be; each step may take so long.
    pub fn to(address: &str, authority: &str, time: Duration) -> Result<Road, String> {
        let missing = |error: io::Error| format!("{}: {error}", if is_away(&error) { AWAY } else { "the bus is not there" });
        let Some(rest) = address.strip_prefix("tls://") else {
            let socket = Socket::Unix(UnixStream::connect(address).map_err(missing)?);
            socket.limit(time).map_err(missing)?;
            return Ok(Road { socket, tls: None });
        };
        let (socket, name) = if rest.starts_with('/') {
            (UnixStream::connect(rest).map(Socket::Unix), LOCAL_NAME)
        } else {
            let (host, port) = place_of(rest).ok_or_else(|| {
                format!("CRUCIBLE_BUS is {address}: it should be a path, tls://HOST:PORT or tls:///PATH")
            })?;
            (by_tcp(host, port, time).map(Socket::Tcp), host)
        };
        let mut road = Road { socket: socket.map_err(missing)?, tls: None };
        road.socket.limit(time).map_err(missing)?;
        let refused = |error| if is_away(&error) { missing(error) } else { format!("TLS to the bus: {error}") };
        let mut tls = Box::new(greeting(name, authority)?);
        while tls.is_handshaking() {
            tls.complete_io(&mut road.socket).map_err(refused)?;
        }
        road.tls = Some(tls);
        Ok(road)
    }

    /// Send all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.socket.write_all(bytes) };
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Take in what comes, after one look; 0 at the end. What is no whole record yet is late.
    pub fn take(&mut self, kept: &mut Vec<u8>) -> io::Result<usize> {
        let before = kept.len();
        let Some(tls) = &mut self.tls else {
            kept.resize(before + CHUNK, 0);
            let taken = self.socket.read(&mut kept[before..]);
            kept.truncate(before + taken.as_ref().map_or(0, |size| *size));
            return taken;
        };
        if tls.read_tls(&mut self.socket)? == 0 {
            return Ok(0);
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let (size, closed) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        kept.resize(before + size, 0);
        tls.reader().read_exact(&mut kept[before..])?;
        if size == 0 && !closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(size)
    }
}

impl AsRawFd for Road {
    fn as_raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Unix(socket) => socket.as_raw_fd(),
            Socket::Tcp(socket) => socket.as_raw_fd(),
        }
    }
}

impl Socket {
    fn limit(&self, time: Duration) -> io::Result<()> {
        match self {
            Socket::Unix(socket) => {
                socket.set_read_timeout(Some(time))?;
                socket.set_write_timeout(Some(time))
            }
            Socket::Tcp(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(time))?;
                socket.set_write_timeout(Some(time))
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.read(into),
            Socket::Tcp(socket) => socket.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tcp(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it may go another time: nobody listens yet, or nobody is let there yet.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable};
    use io::ErrorKind::{NetworkUnreachable, TimedOut, UnexpectedEof, WouldBlock};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | TimedOut
            | UnexpectedEof
            | WouldBlock
    )
}

/// Read `HOST:PORT`; a host with colons stands in brackets.
fn place_of(rest: &str) -> Option<(&str, u16)> {
    let (host, port) = rest.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let valid = !host.is_empty() && !host.contains('/') && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, port.parse().ok()?)).filter(|_| valid)
}

/// Connect to an address, or to a name that the hosts file has: a pod resolves no others.
fn by_tcp(host: &str, port: u16, time: Duration) -> io::Result<TcpStream> {
    let mut problem = io::Error::new(io::ErrorKind::NotFound, format!("{HOSTS} names no {host}"));
    for address in addresses_of(host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), time) {
            Ok(socket) => return Ok(socket),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn addresses_of(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let text = std::fs::read_to_string(HOSTS)?;
    let named = text.lines().filter_map(|line| {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word == host).then_some(address)
    });
    Ok(named.collect())
}

fn greeting(name: &str, authority: &str) -> Result<ClientConnection, String> {
    if authority.is_empty() {
        return Err("CRUCIBLE_BUS_CA is not set: whom to believe at the other end is not known".to_owned());
    }
    let unreadable = |error: &dyn std::fmt::Display| format!("{authority}: {error}");
    let mut believed = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        believed.add(certificate).map_err(|error| unreadable(&error))?;
    }
    let unusable = |error: rustls::Error| format!("TLS to the bus: {error}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(believed)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let name =
        ServerName::try_from(name.to_owned()).map_err(|error| format!("CRUCIBLE_BUS: {name}: {error}"))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(unusable)?;
    connection.set_buffer_limit(None);
    Ok(connection)
}
