//! Just enough HTTP/1.1 over a blocking socket to put a server under load without being one: nothing is allocated
//! while bytes flow.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longer than anything takes: only a failure does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Nanoseconds on this process's one clock: what is put into payloads.
pub(crate) fn stamp(at: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    at.saturating_duration_since(*EPOCH.get_or_init(|| at)).as_nanos() as u64
}

/// A server, and the path before its channels' names.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) base: String,
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.trim().strip_prefix("http://");
        let rest = rest.with_context(|| format!("{text:?}: expected http://HOST:PORT/BASE/"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut addresses = host
            .to_socket_addrs()
            .with_context(|| format!("{host:?}: expected HOST:PORT"))?;
        let address = addresses.next().with_context(|| format!("{host} has no address"))?;
        ensure!(
            address.ip().is_loopback(),
            "{host}: the load stays on this machine; expected 127.0.0.1 or [::1]"
        );
        let base = match path.trim_matches('/') {
            "" => "/".to_owned(),
            base => format!("/{base}/"),
        };
        Ok(Self {
            address,
            host: host.to_owned(),
            base,
        })
    }
}

impl Target {
    /// For a client that takes URLs.
    pub(crate) fn url(&self, channel: &str) -> String {
        format!("http://{}{}{channel}", self.host, self.base)
    }

    /// The head of a request; `more` ends each of its lines.
    pub(crate) fn request(&self, method: &str, what: &str, more: &str) -> Vec<u8> {
        format!(
            "{method} {}{what} HTTP/1.1\r\nHost: {}\r\n{more}\r\n",
            self.base, self.host
        )
        .into_bytes()
    }

    /// The head of a segment's POST.
    pub(crate) fn post(&self, channel: &str, seq: u64) -> Vec<u8> {
        let more = "Content-Type: video/MP2T\r\nTransfer-Encoding: chunked\r\n";
        self.request("POST", &format!("{channel}/{seq}"), more)
    }

    /// The head of a segment's GET.
    pub(crate) fn get(&self, channel: &str, seq: u64) -> Vec<u8> {
        self.request("GET", &format!("{channel}/{seq}"), "")
    }

    /// Makes a channel. A server that makes them of segments alone may refuse.
    pub(crate) fn create(&self, line: &mut Line, channel: &str) -> Result<()> {
        let more = "Expect-Content: video/MP2T\r\nContent-Length: 0\r\n";
        line.ask(&self.request("POST", channel, more)).map(drop)
    }

    /// Ends a channel.
    pub(crate) fn delete(&self, line: &mut Line, channel: &str) -> Result<()> {
        line.ask(&self.request("DELETE", channel, "")).map(drop)
    }
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    length: Option<u64>,
    pub(crate) seq: Option<u64>,
    pub(crate) latest: Option<u64>,
    pub(crate) closed: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    /// When what is in the buffer came.
    at: Instant,
}

impl Line {
    /// Connects; reads `buffer` bytes at a time at most.
    pub(crate) fn new(address: SocketAddr, buffer: usize) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("cannot connect to {address}; is the server running there?"))?;
        Self::of(stream, buffer)
    }

    /// From a connection that is there.
    pub(crate) fn of(stream: TcpStream, buffer: usize) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; buffer].into(),
            from: 0,
            to: 0,
            at: Instant::now(),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A request whose answer is short.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Head> {
        self.write(request)?;
        let head = self.head()?;
        self.body(&head, |_, _| ())?;
        Ok(head)
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let read = self.stream.read(&mut self.buffer[self.to..])?;
        self.at = Instant::now();
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.to += read;
        Ok(())
    }

    /// Bytes as they come, without HTTP: some, at least one, and when they came.
    pub(crate) fn raw(&mut self) -> io::Result<(&[u8], Instant)> {
        self.fill()?;
        let from = std::mem::replace(&mut self.from, self.to);
        Ok((&self.buffer[from..self.to], self.at))
    }

    /// A line without its end, within the buffer.
    fn text(&mut self) -> io::Result<&[u8]> {
        let mut searched = 0;
        loop {
            let there = &self.buffer[self.from..self.to];
            if let Some(found) = there[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.from..self.from + searched + found;
                self.from = line.end + 1;
                let text = &self.buffer[line];
                return Ok(text.strip_suffix(b"\r").unwrap_or(text));
            }
            searched = there.len();
            if searched == self.buffer.len() {
                return Err(io::Error::other("a line longer than the buffer"));
            }
            self.fill()?;
        }
    }

    /// The head of an answer; signs of life before it are passed over.
    pub(crate) fn head(&mut self) -> Result<Head> {
        loop {
            let first = self.text()?;
            let status = std::str::from_utf8(first).ok().and_then(|line| line.split(' ').nth(1));
            let Some(status) = status.and_then(|status| status.parse().ok()) else {
                bail!("not HTTP: {:?}", String::from_utf8_lossy(first));
            };
            let mut head = Head {
                status,
                ..Head::default()
            };
            loop {
                let line = self.text()?;
                if line.is_empty() {
                    break;
                }
                let line = std::str::from_utf8(line).unwrap_or_default();
                let (name, value) = line.split_once(':').unwrap_or_default();
                let number = || value.trim().parse::<u64>().ok();
                if name.eq_ignore_ascii_case("content-length") {
                    head.length = number();
                } else if name.eq_ignore_ascii_case("lp-trickle-seq") {
                    head.seq = number();
                } else if name.eq_ignore_ascii_case("lp-trickle-latest") {
                    head.latest = number();
                } else if name.eq_ignore_ascii_case("lp-trickle-closed") {
                    head.closed = true;
                }
            }
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// The body of an answer, piece by piece, with the time at which each came.
    pub(crate) fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8], Instant)) -> Result<()> {
        if head.status == 204 {
            return Ok(());
        }
        if let Some(length) = head.length {
            self.pieces(length, &mut take)?;
            return Ok(());
        }
        while self.chunk(&mut take)? {}
        Ok(())
    }

    /// The next chunk of a body. False at the end.
    pub(crate) fn chunk(&mut self, take: &mut impl FnMut(&[u8], Instant)) -> Result<bool> {
        let line = self.text()?;
        let size = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split(';').next())
            .and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
        let Some(size) = size else {
            bail!("not the size of a chunk: {:?}", String::from_utf8_lossy(line));
        };
        if size == 0 {
            while !self.text()?.is_empty() {}
            return Ok(false);
        }
        self.pieces(size, take)?;
        ensure!(self.text()?.is_empty(), "a chunk is longer than it says");
        Ok(true)
    }

    fn pieces(&mut self, mut left: u64, take: &mut impl FnMut(&[u8], Instant)) -> io::Result<()> {
        while left > 0 {
            if self.from == self.to {
                self.fill()?;
            }
            let size = left.min((self.to - self.from) as u64) as usize;
            take(&self.buffer[self.from..self.from + size], self.at);
            self.from += size;
            left -= size as u64;
        }
        Ok(())
    }
}

/// A chunk of a body whose payload begins with a stamp.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where the payload begins.
    payload: usize,
}

impl Chunk {
    /// Of so many bytes of payload, none of them zero for long. `framed`: as a chunk of HTTP.
    pub(crate) fn new(size: usize, framed: bool) -> Self {
        let mut bytes = match framed {
            true => format!("{size:x}\r\n").into_bytes(),
            false => Vec::new(),
        };
        let payload = bytes.len();
        let mut word = 0x9e37_79b9_u32;
        bytes.extend((0..size).map(|_| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as u8
        }));
        if framed {
            bytes.extend_from_slice(b"\r\n");
        }
        Self { bytes, payload }
    }

    /// Stamped with this moment.
    pub(crate) fn now(&mut self) -> &[u8] {
        let stamp = stamp(Instant::now()).to_le_bytes();
        self.bytes[self.payload..self.payload + stamp.len()].copy_from_slice(&stamp);
        &self.bytes
    }
}

/// What ends a body.
pub(crate) const END: &[u8] = b"0\r\n\r\n";

/// Finds the stamps in a stream of writes of one size, however it was cut on the way.
#[derive(Debug)]
pub(crate) struct Stamps {
    write: usize,
    position: usize,
    partial: [u8; 8],
}

impl Stamps {
    pub(crate) fn new(write: usize) -> Self {
        Self {
            write,
            position: 0,
            partial: [0; 8],
        }
    }

    /// Tells of each stamp that is complete: the place of its write, and when it was made.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut tell: impl FnMut(usize, u64)) {
        while !bytes.is_empty() {
            let within = self.position % self.write;
            let step = if within < 8 {
                let step = bytes.len().min(8 - within);
                self.partial[within..within + step].copy_from_slice(&bytes[..step]);
                if within + step == 8 {
                    tell(self.position / self.write, u64::from_le_bytes(self.partial));
                }
                step
            } else {
                bytes.len().min(self.write - within)
            };
            self.position += step;
            bytes = &bytes[step..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_however_the_stream_was_cut() {
        let mut stream = Vec::new();
        for number in 0..50_u64 {
            let mut write = vec![7; 20];
            write[..8].copy_from_slice(&number.to_le_bytes());
            stream.extend(write);
        }
        for size in [1, 3, 7, 8, 19, 20, 21, 333] {
            let (mut stamps, mut found) = (Stamps::new(20), Vec::new());
            for piece in stream.chunks(size) {
                stamps.push(piece, |place, stamp| {
                    assert_eq!(place as u64, stamp);
                    found.push(stamp);
                });
            }
            assert_eq!(found, (0..50).collect::<Vec<_>>(), "in pieces of {size}");
        }
    }
}
