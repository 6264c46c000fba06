//! What travels: paths, headers, numbers, status codes and their texts. The only place that spells them.

use std::fmt;
use std::str::FromStr;

/// Slots of a channel: how many segments a server keeps, with those that have not begun.
pub const WINDOW: usize = 5;

/// The highest segment number. Servers count in signed 64 bits, and the number after it must exist too.
pub const MAX_SEQ: u64 = i64::MAX as u64 - 1;

/// The longest channel name after decoding, in bytes.
pub const MAX_NAME: usize = 255;

/// The longest MIME type of a channel, in bytes: every channel keeps one, and every segment that arrives carries it.
pub const MAX_MIME: usize = 255;

/// The longest URL and path, in bytes.
pub const MAX_URL: usize = 4096;

/// The longest number: a sign and the digits of 64 bits.
const MAX_DIGITS: usize = 20;

/// Where an unencrypted server listens when a URL names no port: where people run the stand-alone one.
pub const DEFAULT_PORT: u16 = 3389;

/// Where one with TLS listens when a URL names no port.
pub const DEFAULT_TLS_PORT: u16 = 443;

/// Names of headers, in lower case: HTTP compares them without case, and a title-casing server writes `Lp-Trickle-Seq`.
pub mod header {
    /// Request, creating a channel: its MIME type.
    pub const EXPECT_CONTENT: &str = "expect-content";
    /// Request, publishing a segment: any value says "I am a publisher that has restarted".
    pub const RESET: &str = "lp-trickle-reset";
    /// Answer: the number of the segment; with [`status::MISSING`](super::status::MISSING) the number that was asked for.
    pub const SEQ: &str = "lp-trickle-seq";
    /// Answer: next-write, the number of the segment that has not begun.
    pub const LATEST: &str = "lp-trickle-latest";
    /// Answer: the channel has ended.
    pub const CLOSED: &str = "lp-trickle-closed";
}

/// Values of headers.
pub mod value {
    /// Of [`CLOSED`](super::header::CLOSED).
    pub const TERMINATED: &str = "terminated";
    /// Of [`RESET`](super::header::RESET), as clients send it.
    pub const RESET: &str = "1";
    /// Of a segment when the channel has no type.
    pub const UNKNOWN_TYPE: &str = "application/octet-stream";
    /// Of answers that are for people.
    pub const TEXT: &str = "text/plain; charset=utf-8";
    /// Of the change feed.
    pub const JSON: &str = "application/json";
    /// What media publishers send.
    pub const MPEG_TS: &str = "video/MP2T";
}

/// Status codes.
pub mod status {
    /// Done, or a segment follows.
    pub const OK: u16 = 200;
    /// The number is none, or the channel or segment to delete does not exist.
    pub const BAD: u16 = 400;
    /// The token is missing or wrong. Not in the reference.
    pub const UNAUTHORIZED: u16 = 401;
    /// The channel does not exist.
    pub const NO_CHANNEL: u16 = 404;
    /// The method is none of the route's.
    pub const METHOD: u16 = 405;
    /// The segment has grown too large. Not in the reference.
    pub const TOO_LARGE: u16 = 413;
    /// The channel exists and the segment does not.
    pub const MISSING: u16 = 470;
    /// The body of a segment broke off.
    pub const BROKEN: u16 = 500;
    /// Some limit of the server is reached. Not in the reference.
    pub const FULL: u16 = 503;
    /// The reason phrase of [`MISSING`], which HTTP does not know.
    pub const MISSING_REASON: &str = "status code 470";
}

/// Bodies of answers that are for people, without the newline that ends most of them.
pub mod text {
    /// With [`status::BAD`](super::status::BAD): not a number, or one that no segment can have.
    pub const BAD_SEQ: &str = "Invalid idx";
    /// With [`status::BAD`](super::status::BAD): no such channel to delete.
    pub const BAD_CHANNEL: &str = "Invalid stream";
    /// With [`status::BAD`](super::status::BAD): no such segment to delete.
    pub const BAD_SEGMENT: &str = "Nonexistent segment";
    /// With [`status::BAD`](super::status::BAD): who reads has nothing to say. Not in the reference.
    pub const NO_BODY: &str = "A GET has no body";
    /// With [`status::NO_CHANNEL`](super::status::NO_CHANNEL).
    pub const NO_CHANNEL: &str = "Stream not found";
    /// With [`status::NO_CHANNEL`](super::status::NO_CHANNEL): the path is none of ours.
    pub const NO_PAGE: &str = "404 page not found";
    /// With [`status::MISSING`](super::status::MISSING). No newline follows.
    pub const MISSING: &str = "Entry not found";
    /// With [`status::BROKEN`](super::status::BROKEN).
    pub const BROKEN: &str = "Server error";
    /// With [`status::METHOD`](super::status::METHOD).
    pub const METHOD: &str = "Method Not Allowed";
}

/// The word in place of a number that asks for next-write.
pub const NEXT: &str = "next";

/// The channel that tells which channels come and go.
pub const CHANGES: &str = "_changes";

/// Channels whose names begin with this are never swept.
pub const KEPT: char = '_';

/// Which segment is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The next one to begin: `-1`.
    Next,
    /// The one before it, begun last: `-2`.
    Current,
    /// This one.
    Number(u64),
}

impl FromStr for Wanted {
    type Err = ();

    /// What people write: `next`, `current`, or a number, -1 and -2 included.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim() {
            "next" => Ok(Self::Next),
            "current" => Ok(Self::Current),
            number => number.parse().ok().and_then(Self::to_read).ok_or(()),
        }
    }
}

impl Wanted {
    /// For reading. `None`: no segment can be meant.
    pub fn to_read(number: i64) -> Option<Self> {
        match number {
            -1 => Some(Self::Next),
            -2 => Some(Self::Current),
            number => Self::one(number),
        }
    }

    /// The number, if it is one.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Next | Self::Current => None,
        }
    }

    /// For writing: like reading, but nobody writes "the current one".
    pub fn to_write(number: i64) -> Option<Self> {
        Self::to_read(number).filter(|wanted| *wanted != Self::Current)
    }

    /// For deleting: only a number.
    pub fn to_delete(number: i64) -> Option<u64> {
        Self::one(number)?.number()
    }

    fn one(number: i64) -> Option<Self> {
        u64::try_from(number)
            .ok()
            .filter(|number| *number <= MAX_SEQ)
            .map(Self::Number)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Next => f.write_str("-1"),
            Self::Current => f.write_str("-2"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Reads a number as the reference does: base 10, a sign or none, nothing else.
pub fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sane = text.len() <= MAX_DIGITS && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    sane.then(|| text.parse().ok()).flatten()
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `{base}{channel}`
    Channel(String),
    /// `{base}{channel}/{seq}`, its number not read yet: whether the channel exists is asked first. Also `next`.
    Segment(String, String),
    /// A path of ours whose channel cannot be one: too long, not UTF-8, or with control characters.
    BadName,
    /// None of ours.
    Unknown,
}

/// Reads a request's path. `base` begins and ends with a slash.
pub fn route(base: &str, path: &str) -> Route {
    let Some(rest) = path.strip_prefix(base).filter(|_| path.len() <= MAX_URL) else {
        return Route::Unknown;
    };
    let mut parts = rest.split('/');
    let (channel, seq) = match (parts.next(), parts.next(), parts.next()) {
        (Some(channel), seq, None) if !channel.is_empty() && seq != Some("") => (channel, seq),
        _ => return Route::Unknown,
    };
    match (decode(channel).filter(|name| is_name(name)), seq.map(decode)) {
        (None, _) => Route::BadName,
        (Some(name), None) => Route::Channel(name),
        // What does not decode is no number either.
        (Some(name), Some(seq)) => Route::Segment(name, seq.unwrap_or_default()),
    }
}

/// True if a channel may have this name.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// Brings a base path into shape: one slash at each end. `None` if it cannot be one.
pub fn base(text: &str) -> Option<String> {
    let inner = text.trim_matches('/');
    let sane = inner.len() < MAX_URL && inner.bytes().all(is_path_byte) && !inner.contains("//");
    sane.then(|| match inner {
        "" => "/".to_owned(),
        inner => format!("/{inner}/"),
    })
}

fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'#' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

/// Why a URL is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It is too long to be meant.
    #[error("the URL has {0} bytes; at most {MAX_URL} are allowed")]
    Long(usize),
    /// The scheme is none of ours.
    #[error("{0}: the scheme must be trickle, trickles, http or https")]
    Scheme(String),
    /// A user, password, query or fragment: nothing of that is part of a channel's address.
    #[error("{0}: a channel's URL has no user, query or fragment; a token is set apart from the URL")]
    Extra(String),
    /// The host or port is none.
    #[error("{0}: expected HOST or HOST:PORT after the scheme")]
    Host(String),
    /// There is no channel in the path, or it cannot be one.
    #[error("{0}: expected SCHEME://HOST[:PORT]/CHANNEL, with a base path before the channel if the server has one")]
    Channel(String),
}

/// The address of a channel, `scheme://host[:port]/[base/]channel`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChannelUrl {
    tls: bool,
    host: String,
    port: u16,
    /// As it came, percent signs and all, without a slash at its end.
    path: String,
    name: String,
}

impl ChannelUrl {
    /// Reads an address. `trickle://` is `http://` and `trickles://` is `https://`, with other default ports: 3389 and
    /// 443 instead of 80 and 443.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::Long(text.len()));
        }
        let shown = || hide_user(text);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::Scheme(shown()))?;
        let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "trickle" => (false, DEFAULT_PORT),
            "trickles" => (true, DEFAULT_TLS_PORT),
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(UrlError::Scheme(shown())),
        };
        if rest.contains(['?', '#', '@']) {
            return Err(UrlError::Extra(shown()));
        }
        let (authority, path) = rest.split_once('/').ok_or_else(|| UrlError::Channel(shown()))?;
        let (host, port) = host_and_port(authority, port).ok_or_else(|| UrlError::Host(shown()))?;
        let path = format!("/{}", path.trim_end_matches('/'));
        let last = path.rsplit('/').next().unwrap_or_default();
        let name = decode(last).filter(|name| is_name(name));
        match name {
            Some(name) if path.bytes().all(is_path_byte) && !path.contains("//") => Ok(Self {
                tls,
                host,
                port,
                path,
                name,
            }),
            _ => Err(UrlError::Channel(shown())),
        }
    }

    /// True if the connection is to be encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// A name or address, an IPv6 one in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as a certificate names it: without brackets.
    pub fn server_name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header.
    pub fn authority(&self) -> String {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The channel's name, decoded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the channel itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of one of its segments.
    pub fn segment(&self, wanted: Wanted) -> String {
        format!("{}/{wanted}", self.path)
    }

    /// The path that answers with next-write.
    pub fn next(&self) -> String {
        format!("{}/{NEXT}", self.path)
    }

    /// The address of another channel on the same server and base. `None`: it has no such name, or is too long.
    pub fn sibling(&self, name: &str) -> Option<Self> {
        let base = self.path.rsplit_once('/').map_or("", |(base, _)| base);
        let sibling = is_name(name).then(|| Self {
            path: format!("{base}/{}", encode(name)),
            name: name.to_owned(),
            ..self.clone()
        });
        sibling.filter(|url| url.to_string().len() <= MAX_URL)
    }
}

impl fmt::Display for ChannelUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for ChannelUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::parse(text)
    }
}

/// The address as it may be shown: neither a password nor a key belongs into a message.
fn hide_user(text: &str) -> String {
    let (hidden, shown) = text.rsplit_once('@').unwrap_or(("", text));
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    match hidden.split_once("://") {
        // Not if what should be a scheme has a password in it.
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => format!("{scheme}://{shown}"),
        Some(_) | None => shown.to_owned(),
    }
}

fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            (format!("[{address}]"), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let sane = !host.is_empty() && (host.starts_with('[') || host.bytes().all(plain)) && host.len() <= MAX_NAME;
    let port = match port {
        None => default,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().filter(|port| *port > 0)?,
        Some(_) => return None,
    };
    sane.then_some((host, port))
}

/// Who has it may do something. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// What is sent after `Bearer`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Token {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

/// The head of an answer, as far as the protocol goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Lp-Trickle-Seq`.
    pub seq: Option<i64>,
    /// `Lp-Trickle-Latest`.
    pub latest: Option<u64>,
    /// `Lp-Trickle-Closed`, whatever its value.
    pub closed: bool,
    /// `Content-Type`; `None` when it is missing, empty or longer than [`MAX_MIME`].
    pub mime: Option<String>,
    /// The answer has no body: `Content-Length: 0`.
    pub empty: bool,
}

impl Answer {
    /// An answer with nothing but a status.
    pub fn bare(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Takes note of a header; its name in lower case. What does not parse counts as missing.
    pub fn header(&mut self, name: &str, value: &str) {
        match name {
            header::SEQ => self.seq = number(value),
            header::LATEST => self.latest = number(value).and_then(|number| u64::try_from(number).ok()),
            header::CLOSED => self.closed = true,
            "content-type" if (1..=MAX_MIME).contains(&value.len()) => self.mime = Some(value.to_owned()),
            "content-length" => self.empty = value.trim() == "0",
            _ => (),
        }
    }
}
