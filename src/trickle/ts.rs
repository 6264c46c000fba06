//! MPEG-TS, as far as segments need it: whole packets, and the places where a segment may begin.
//!
//! A media segment is a file of its own: PAT and PMT first, then a picture that needs no other. [`Cutter`] finds those
//! places in a stream and says when the next segment begins; [`Framer`] gives a reader whole packets, however the
//! bytes arrive, and drops what is left of one that broke off.
//!
//! Source: ISO/IEC 13818-1, 2.4.3 (packets), 2.4.4 (PAT, PMT).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a packet.
pub const PACKET: usize = 188;

const SYNC: u8 = 0x47;

/// Ticks per second of a timestamp.
const CLOCK: u64 = 90_000;
/// Timestamps have 33 bits.
const WRAP: u64 = 1 << 33;
/// Rounding of timestamps must not move a cut by a whole group of pictures.
const TOLERANCE: u64 = CLOCK / 1000;
/// Packets of one table: a section has at most 1021 bytes after its length.
const MAX_TABLE: usize = 8;

/// Packets of tables that wait for the next picture. More in a row than any stream has between two pictures are passed on.
pub const MAX_HELD: usize = 64;

/// Makes whole packets of bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of a packet.
    rest: BytesMut,
    dropped: u64,
}

impl Framer {
    /// Runs of whole packets. Bytes between two runs were no packets; a piece that is one run is not copied.
    pub fn push(&mut self, bytes: Bytes) -> Vec<Bytes> {
        let mut data = match self.rest.is_empty() {
            true => bytes,
            false => {
                self.rest.extend_from_slice(&bytes);
                self.rest.split().freeze()
            }
        };
        let mut runs = Vec::new();
        loop {
            let mut end = 0;
            while data.len() >= end + PACKET && data[end] == SYNC {
                end += PACKET;
            }
            if end > 0 {
                runs.push(data.split_to(end));
            }
            if data.first().is_none_or(|byte| *byte == SYNC) {
                break;
            }
            let begins = |at: &usize| data[*at] == SYNC && data.get(at + PACKET).is_none_or(|next| *next == SYNC);
            let skip = (1..data.len()).find(begins).unwrap_or(data.len());
            self.dropped += skip as u64;
            data.advance(skip);
        }
        self.rest = BytesMut::from(&data[..]);
        runs
    }

    /// Nothing follows what has come: drops the beginning of a packet and says how many bytes that were.
    pub fn end(&mut self) -> usize {
        let rest = self.rest.len();
        self.rest.clear();
        self.dropped += rest as u64;
        rest
    }

    /// Bytes that wait for the rest of their packet.
    pub fn waiting(&self) -> usize {
        self.rest.len()
    }

    /// Bytes that were no packet, since the beginning.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// How long segments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A segment ends at the first place where one may begin after this time; zero = at each.
    pub duration: Duration,
    /// It ends at the next picture, whatever that needs, after this time; zero = never.
    pub max: Duration,
}

/// What becomes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A segment begins here, and the one before it ends.
    Begin {
        /// It can be decoded by itself. False only where [`Settings::max`] was reached without such a place.
        key: bool,
        /// The first picture's time in ticks of 90 kHz, modulo 2^33.
        pts: Option<u64>,
    },
    /// Whole packets of the segment.
    Bytes(Bytes),
}

/// Cuts a stream into segments. See the [module](self).
///
/// Segments begin at the first video stream's pictures; where there is no video, at any access unit of the first
/// stream. The tables are repeated at the beginning of each segment. What comes before the first picture that needs no
/// other is left out, and so is what comes after a [`lost`](Self::lost) segment.
#[derive(Debug)]
pub struct Cutter {
    settings: Settings,
    framer: Framer,
    pat: Table,
    programs: BTreeMap<u16, Program>,
    main: Option<Stream>,
    /// Tables that wait to see whether a segment begins after them.
    held: Vec<Bytes>,
    open: bool,
    /// When the segment began, in ticks.
    began: Option<u64>,
    skipped: u64,
    tables: Tables,
}

/// Bytes of tables, which are not passed on where they come but where segments begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tables {
    /// Given at the beginnings of segments.
    pub repeated: u64,
    /// Left out before a segment, because it begins with them.
    pub replaced: u64,
}

#[derive(Debug, Default)]
struct Program {
    table: Table,
    streams: Vec<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    pid: u16,
    kind: u8,
}

/// What a packet is.
enum Kind {
    Table,
    Start { key: bool, pts: Option<u64> },
    Other,
}

impl Cutter {
    /// A cutter that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            framer: Framer::default(),
            pat: Table::default(),
            programs: BTreeMap::new(),
            main: None,
            held: Vec::new(),
            open: false,
            began: None,
            skipped: 0,
            tables: Tables::default(),
        }
    }

    /// Takes what has come. With `key`, whoever made it says that the picture that begins in it needs no other.
    pub fn push(&mut self, bytes: Bytes, key: bool) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut key = key;
        for run in self.framer.push(bytes) {
            let mut from = 0;
            for at in (0..run.len()).step_by(PACKET) {
                let packet = run.slice(at..at + PACKET);
                match self.look(&packet, key) {
                    Kind::Table => {
                        self.give(&mut out, run.slice(from..at));
                        if self.held.len() >= MAX_HELD {
                            self.release(&mut out);
                        }
                        // A copy: a slice would keep alive the whole piece in which it came.
                        self.held.push(Bytes::copy_from_slice(&packet));
                        from = at + PACKET;
                        continue;
                    }
                    Kind::Start { key: random, pts } => {
                        // The hint is for the first picture of the piece.
                        key = false;
                        if self.is_due(random, pts) {
                            self.give(&mut out, run.slice(from..at));
                            from = at;
                            self.begin(&mut out, random, pts);
                        }
                    }
                    Kind::Other => (),
                }
                self.release(&mut out);
            }
            self.give(&mut out, run.slice(from..));
        }
        out
    }

    /// The segment is lost: nothing is given before a picture that needs no other.
    pub fn lost(&mut self) {
        self.open = false;
    }

    /// Forgets what has come but the tables: what follows is another place of the stream.
    pub fn flush(&mut self) {
        self.framer.end();
        self.skipped += (self.held.len() * PACKET) as u64;
        self.held.clear();
        self.open = false;
        self.began = None;
    }

    /// Bytes that wait for what follows them.
    pub fn waiting(&self) -> usize {
        self.held.len() * PACKET + self.framer.waiting()
    }

    /// Bytes of tables that were moved. All that came and all that was repeated is what was given, skipped, dropped and
    /// replaced, and what waits.
    pub fn tables(&self) -> Tables {
        self.tables
    }

    /// Bytes that were left out because no segment had begun, or because of a [`flush`](Self::flush).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes that were no packet.
    pub fn dropped(&self) -> u64 {
        self.framer.dropped()
    }

    fn is_due(&self, key: bool, pts: Option<u64>) -> bool {
        if !self.open {
            return key;
        }
        let (Some(began), Some(pts)) = (self.began, pts) else {
            return key;
        };
        let elapsed = pts.wrapping_sub(began) % WRAP;
        // Before the beginning: another time line, or a picture that is shown before the first one.
        let past = elapsed >= WRAP / 2;
        match key {
            true => past || elapsed + TOLERANCE >= ticks(self.settings.duration),
            false => !past && !self.settings.max.is_zero() && elapsed >= ticks(self.settings.max),
        }
    }

    fn begin(&mut self, out: &mut Vec<Piece>, key: bool, pts: Option<u64>) {
        out.push(Piece::Begin { key, pts });
        self.open = true;
        self.began = pts;
        let mut head = BytesMut::new();
        let tables = self.programs.values().map(|program| &program.table);
        for packet in std::iter::once(&self.pat)
            .chain(tables)
            .flat_map(|table| &table.packets)
        {
            head.extend_from_slice(packet);
        }
        self.tables.repeated += head.len() as u64;
        for packet in std::mem::take(&mut self.held) {
            let pid = pid(&packet);
            if pid != 0 && !self.programs.contains_key(&pid) {
                head.extend_from_slice(&packet);
            } else {
                self.tables.replaced += packet.len() as u64;
            }
        }
        self.give(out, head.freeze());
    }

    /// No segment begins after the tables that wait.
    fn release(&mut self, out: &mut Vec<Piece>) {
        for packet in std::mem::take(&mut self.held) {
            self.give(out, packet);
        }
    }

    fn give(&mut self, out: &mut Vec<Piece>, bytes: Bytes) {
        match self.open {
            _ if bytes.is_empty() => (),
            true => out.push(Piece::Bytes(bytes)),
            false => self.skipped += bytes.len() as u64,
        }
    }

    fn look(&mut self, packet: &Bytes, hint: bool) -> Kind {
        let (broken, starts) = (packet[1] & 0x80 != 0, packet[1] & 0x40 != 0);
        let pid = pid(packet);
        let adapted = packet[3] & 0x20 != 0;
        let offset = 4 + if adapted { 1 + usize::from(packet[4]) } else { 0 };
        let payload = match packet[3] & 0x10 != 0 {
            true => packet.get(offset..).unwrap_or_default(),
            false => &[],
        };
        if broken || packet[3] & 0xc0 != 0 {
            return Kind::Other;
        }
        if pid == 0 {
            if let Some(section) = self.pat.feed(packet, starts, payload, 0x00) {
                self.read_pat(&section);
            }
            return Kind::Table;
        }
        if let Some(program) = self.programs.get_mut(&pid) {
            if let Some(section) = program.table.feed(packet, starts, payload, 0x02) {
                program.streams = read_pmt(&section);
                self.choose();
            }
            return Kind::Table;
        }
        if pid < 0x20 {
            return Kind::Table;
        }
        match self.main {
            Some(main) if main.pid == pid && starts => {
                let random = adapted && packet[4] > 0 && packet[5] & 0x40 != 0;
                let (pts, picture) = read_pes(payload);
                let key = random || hint || !is_video(main.kind) || is_key(main.kind, picture);
                Kind::Start { key, pts }
            }
            _ => Kind::Other,
        }
    }

    fn read_pat(&mut self, section: &[u8]) {
        let entries = section.get(8..section.len() - 4).unwrap_or_default();
        let mut programs = BTreeMap::new();
        for entry in entries.chunks_exact(4) {
            let (number, pid) = (be(&entry[..2]), be(&entry[2..]) & 0x1fff);
            if number != 0 && pid >= 0x10 {
                programs.insert(pid, self.programs.remove(&pid).unwrap_or_default());
            }
        }
        self.programs = programs;
        self.choose();
    }

    fn choose(&mut self) {
        let streams = || self.programs.values().flat_map(|program| &program.streams);
        self.main = streams()
            .find(|stream| is_video(stream.kind))
            .or_else(|| streams().next())
            .copied();
    }
}

/// A table, as its packets and as its section.
#[derive(Debug, Default)]
struct Table {
    /// Of the last whole one.
    packets: Vec<Bytes>,
    section: Vec<u8>,
    building: Vec<Bytes>,
    built: Vec<u8>,
}

impl Table {
    /// Takes a packet, and gives the section when it is whole and another one than before.
    fn feed(&mut self, packet: &Bytes, starts: bool, payload: &[u8], id: u8) -> Option<Vec<u8>> {
        if starts {
            let pointer = usize::from(*payload.first()?);
            self.building.clear();
            self.built = payload.get(1 + pointer..)?.to_vec();
        } else if self.building.is_empty() || self.building.len() >= MAX_TABLE {
            self.building.clear();
            return None;
        } else {
            self.built.extend_from_slice(payload);
        }
        // A copy: a slice would keep alive the whole piece in which it came.
        self.building.push(Bytes::copy_from_slice(packet));
        let length = 3 + usize::from(be(self.built.get(1..3)?) & 0x0fff);
        let section = self.built.get(..length)?;
        let packets = std::mem::take(&mut self.building);
        let current = length >= 12 && section[0] == id && section[5] & 1 == 1;
        if !current || section == self.section || crc(section) != 0 {
            if current && section == self.section {
                self.packets = packets;
            }
            return None;
        }
        self.packets = packets;
        self.section = section.to_vec();
        Some(self.section.clone())
    }
}

fn pid(packet: &[u8]) -> u16 {
    be(&packet[1..3]) & 0x1fff
}

fn be(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() * u128::from(CLOCK) / 1_000_000_000).min(u128::from(WRAP / 2)) as u64
}

fn read_pmt(section: &[u8]) -> Vec<Stream> {
    let mut streams = Vec::new();
    let mut rest = section.get(10..section.len() - 4).unwrap_or_default();
    let Some(info) = rest.get(..2).map(be) else {
        return streams;
    };
    rest = rest.get(2 + usize::from(info & 0x0fff)..).unwrap_or_default();
    while let Some(head) = rest.get(..5) {
        streams.push(Stream {
            kind: head[0],
            pid: be(&head[1..3]) & 0x1fff,
        });
        rest = rest
            .get(5 + usize::from(be(&head[3..5]) & 0x0fff)..)
            .unwrap_or_default();
    }
    streams
}

/// The time of an access unit, and the beginning of what it holds.
fn read_pes(payload: &[u8]) -> (Option<u64>, &[u8]) {
    if !payload.starts_with(&[0, 0, 1]) || payload.len() < 9 {
        return (None, &[]);
    }
    let picture = payload.get(9 + usize::from(payload[8])..).unwrap_or_default();
    let pts = (payload[7] & 0x80 != 0)
        .then(|| payload.get(9..14))
        .flatten()
        .map(|field| {
            u64::from(field[0] >> 1 & 0x07) << 30
                | u64::from(be(&field[1..3]) >> 1) << 15
                | u64::from(be(&field[3..5]) >> 1)
        });
    (pts, picture)
}

/// MPEG-1, MPEG-2, MPEG-4, H.264 and its extensions, JPEG 2000, H.265, H.266, AVS, Dirac, VC-1.
fn is_video(kind: u8) -> bool {
    matches!(
        kind,
        0x01 | 0x02 | 0x10 | 0x1b | 0x1f | 0x20 | 0x21 | 0x24 | 0x33 | 0x42 | 0xd1 | 0xd2 | 0xea
    )
}

/// Whether a picture begins with what a decoder can begin with, for muxers that do not flag it.
fn is_key(kind: u8, picture: &[u8]) -> bool {
    let mut starts = picture.windows(4).filter(|w| w[..3] == [0, 0, 1]).map(|w| w[3]);
    match kind {
        // Sequence header.
        0x01 | 0x02 => starts.any(|code| code == 0xb3),
        // IDR slice, sequence parameter set.
        0x1b => starts.any(|unit| matches!(unit & 0x1f, 5 | 7)),
        // Random access pictures, video and sequence parameter sets.
        0x24 => starts.any(|unit| matches!(unit >> 1 & 0x3f, 16..=21 | 32 | 33)),
        _ => false,
    }
}

/// Zero for a section that is intact.
fn crc(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}
