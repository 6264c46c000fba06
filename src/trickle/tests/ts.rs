//! The cutter and the framer: tables of streams made by hand, and garbage.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::trickle::ts::{Cutter, Framer, MAX_HELD, PACKET, Piece, Settings};

const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;
const PMT: u16 = 0x1000;
const H264: u8 = 0x1b;
const OPUS: u8 = 0x06;

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        for bit in (0..8).rev() {
            let top = (crc >> 31) ^ u32::from(byte >> bit & 1);
            crc = (crc << 1) ^ if top == 1 { 0x04c1_1db7 } else { 0 };
        }
    }
    crc.to_be_bytes()
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    let mut section = vec![id, 0xb0, (5 + body.len() + 4) as u8, 0, 1, 0xc1, 0, 0];
    section.extend(body);
    let crc = crc(&section);
    section.extend(crc);
    section
}

fn packet(pid: u16, starts: bool, random: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x47, (pid >> 8) as u8 | if starts { 0x40 } else { 0 }, pid as u8, 0x30];
    let room = PACKET - 4 - payload.len();
    assert!(room >= 2, "{room}");
    packet.extend([(room - 1) as u8, if random { 0x40 } else { 0 }]);
    packet.resize(4 + room, 0xff);
    packet.extend(payload);
    packet
}

fn table(pid: u16, section: &[u8]) -> Vec<u8> {
    packet(pid, true, false, &[&[0], section].concat())
}

fn pat() -> Vec<u8> {
    table(0, &section(0, &[0, 1, 0xe0 | (PMT >> 8) as u8, PMT as u8]))
}

fn pmt(streams: &[(u8, u16)]) -> Vec<u8> {
    let mut body = vec![0xe1, 0, 0xf0, 0];
    for (kind, pid) in streams {
        body.extend([*kind, 0xe0 | (pid >> 8) as u8, *pid as u8, 0xf0, 0]);
    }
    table(PMT, &section(2, &body))
}

/// The first packet of an access unit at this time.
fn unit(pid: u16, ms: u64, random: bool, picture: &[u8]) -> Vec<u8> {
    let pts = ms * 90 % (1 << 33);
    let field = [
        0x21 | (pts >> 29 & 0x0e) as u8,
        (pts >> 22) as u8,
        (pts >> 14) as u8 | 1,
        (pts >> 7) as u8,
        (pts << 1) as u8 | 1,
    ];
    packet(
        pid,
        true,
        random,
        &[&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5], &field[..], picture].concat(),
    )
}

fn more(pid: u16) -> Vec<u8> {
    packet(pid, false, false, &[7; 100])
}

fn settings(duration: u64, max: u64) -> Settings {
    Settings {
        duration: Duration::from_millis(duration),
        max: Duration::from_millis(max),
    }
}

/// Segments as bytes, with what is known of their beginning.
fn segments(pieces: Vec<Piece>) -> Vec<(bool, Option<u64>, Vec<u8>)> {
    let mut segments: Vec<(bool, Option<u64>, Vec<u8>)> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Begin { key, pts } => segments.push((key, pts, Vec::new())),
            Piece::Bytes(bytes) => segments.last_mut().expect("a segment has begun").2.extend(&bytes),
        }
    }
    segments
}

fn cut(settings: Settings, packets: &[Vec<u8>]) -> Vec<(bool, Option<u64>, Vec<u8>)> {
    segments(Cutter::new(settings).push(packets.concat().into(), false))
}

#[test]
fn segments_begin_with_pat_pmt_and_a_key_picture() {
    let pmt = pmt(&[(OPUS, AUDIO), (H264, VIDEO)]);
    let (first, second) = (unit(VIDEO, 0, true, &[]), unit(VIDEO, 1000, true, &[]));
    let found = cut(
        settings(1000, 0),
        &[
            // What comes before the first key picture is of no use to a receiver.
            more(VIDEO),
            unit(AUDIO, 0, true, &[]),
            pat(),
            pmt.clone(),
            unit(VIDEO, 0, false, &[]),
            first.clone(),
            more(VIDEO),
            unit(AUDIO, 500, false, &[]),
            // Too early.
            unit(VIDEO, 500, true, &[]),
            // The muxer's own tables go into the segment that they announce, once.
            pat(),
            pmt.clone(),
            second.clone(),
            more(VIDEO),
        ],
    );
    let head = [pat(), pmt].concat();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].0, found[0].1), (true, Some(0)));
    assert_eq!(
        found[0].2,
        [
            head.clone(),
            first,
            more(VIDEO),
            unit(AUDIO, 500, false, &[]),
            unit(VIDEO, 500, true, &[])
        ]
        .concat()
    );
    assert_eq!(found[1], (true, Some(90_000), [head, second, more(VIDEO)].concat()));
}

#[test]
fn key_pictures_are_found_without_a_flag() {
    for (kind, picture, key) in [
        (H264, &[0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 1][..], true),
        (H264, &[0, 0, 1, 0x65, 1], true),
        (H264, &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 1], false),
        (0x24, &[0, 0, 1, 0x40, 1], true),
        (0x24, &[0, 0, 1, 0x26, 1], true),
        (0x24, &[0, 0, 1, 0x02, 1], false),
        (0x02, &[0, 0, 1, 0xb3, 1], true),
        (0x02, &[0, 0, 1, 0x00, 1], false),
        (OPUS, &[], true),
    ] {
        let found = cut(
            settings(0, 0),
            &[pat(), pmt(&[(kind, VIDEO)]), unit(VIDEO, 0, false, picture)],
        );
        assert_eq!(found.len(), usize::from(key), "{kind:#x} {picture:?}");
    }
}

#[test]
fn hint_of_whoever_made_it_counts_for_one_picture() {
    let mut cutter = Cutter::new(settings(0, 0));
    let stream = [
        pat(),
        pmt(&[(H264, VIDEO)]),
        unit(VIDEO, 0, false, &[]),
        unit(VIDEO, 40, false, &[]),
    ];
    assert_eq!(segments(cutter.push(stream.concat().into(), true)).len(), 1);
}

#[test]
fn segment_without_a_key_picture_ends_at_its_longest() {
    let mut stream = vec![pat(), pmt(&[(H264, VIDEO)]), unit(VIDEO, 0, true, &[])];
    stream.extend((1..=50).map(|n| unit(VIDEO, n * 100, false, &[])));
    let found = cut(settings(1000, 2000), &stream);
    let begins: Vec<_> = found.iter().map(|(key, pts, _)| (*key, pts.unwrap() / 90)).collect();
    assert_eq!(begins, [(true, 0), (false, 2000), (false, 4000)]);
    assert!(found.iter().all(|(.., bytes)| bytes.starts_with(&pat())));
    assert_eq!(cut(settings(1000, 0), &stream).len(), 1);
}

#[test]
fn times_may_wrap_and_begin_anew() {
    let end = (1 << 33) / 90;
    let times = [end - 1500, end - 500, end + 500, end + 1500, 200, 600, 1200];
    let mut stream = vec![pat(), pmt(&[(H264, VIDEO)])];
    stream.extend(times.map(|ms| unit(VIDEO, ms, true, &[])));
    // Each second, across the wrap; the jump back is a cut at once, and 400 ms after it there is none.
    let found = cut(settings(1000, 0), &stream);
    assert_eq!(found.len(), 6, "{:?}", found.iter().map(|s| s.1).collect::<Vec<_>>());
}

#[test]
fn lost_segment_is_left_out_up_to_the_next_key_picture() {
    let mut cutter = Cutter::new(settings(1000, 0));
    let head = [pat(), pmt(&[(H264, VIDEO)])].concat();
    let first = [head.clone(), unit(VIDEO, 0, true, &[])].concat();
    assert_eq!(segments(cutter.push(first.into(), false)).len(), 1);
    cutter.lost();
    assert_eq!(cutter.push(unit(VIDEO, 40, false, &[]).into(), false), []);
    let key = unit(VIDEO, 80, true, &[]);
    let found = segments(cutter.push(key.clone().into(), false));
    assert_eq!(found, [(true, Some(7200), [head, key].concat())]);
    assert_eq!(cutter.skipped(), PACKET as u64);
}

#[test]
fn damaged_table_changes_nothing() {
    let mut damaged = pmt(&[(H264, AUDIO)]);
    *damaged.last_mut().unwrap() ^= 1;
    let found = cut(
        settings(0, 0),
        &[pat(), pmt(&[(H264, VIDEO)]), damaged, unit(VIDEO, 0, true, &[])],
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].2.starts_with(&[pat(), pmt(&[(H264, VIDEO)])].concat()));
}

#[test]
fn tables_without_a_picture_after_them_are_not_gathered_for_ever() {
    let mut cutter = Cutter::new(settings(1000, 0));
    let (mut came, mut given) = (0, 0);
    let head = [pat(), pmt(&[(H264, VIDEO)]), unit(VIDEO, 0, true, &[])].concat();
    for (index, packets) in std::iter::once(head).chain((0..1000).map(|_| pat())).enumerate() {
        came += packets.len() as u64;
        for piece in cutter.push(packets.into(), false) {
            given += match piece {
                Piece::Begin { .. } => 0,
                Piece::Bytes(bytes) => bytes.len() as u64,
            };
        }
        assert!(cutter.waiting() <= MAX_HELD * PACKET, "{index}");
        let tables = cutter.tables();
        assert_eq!(
            came + tables.repeated,
            given + tables.replaced + cutter.waiting() as u64
        );
    }
    cutter.flush();
    assert_eq!(cutter.waiting(), 0);
    assert!(cutter.skipped() > 0);
}

#[test]
fn pieces_of_any_size_give_the_same_segments() {
    let mut stream = vec![pat(), pmt(&[(H264, VIDEO)])];
    for n in 0..10 {
        stream.extend([unit(VIDEO, n * 500, true, &[]), more(VIDEO), more(VIDEO)]);
    }
    let wanted = cut(settings(1000, 0), &stream);
    assert_eq!(wanted.len(), 5);
    for size in [1, 7, 187, 188, 189, 1000] {
        let mut cutter = Cutter::new(settings(1000, 0));
        let pieces = stream.concat();
        let pieces = pieces
            .chunks(size)
            .flat_map(|piece| cutter.push(Bytes::copy_from_slice(piece), false));
        assert_eq!(segments(pieces.collect()), wanted, "{size}");
    }
}

#[test]
fn c_10_packet_that_broke_off_is_dropped_and_the_next_is_found() {
    let mut framer = Framer::default();
    let whole = more(VIDEO);
    assert_eq!(
        framer.push([&whole[..], &whole[..100]].concat().into()),
        [Bytes::from(whole.clone())]
    );
    assert_eq!(framer.end(), 100);
    assert_eq!(framer.push(whole.clone().into()), [Bytes::from(whole.clone())]);
    // Without an end in between, the sync byte tells.
    let torn = [&whole[..100], &whole, &whole].concat();
    let found: Vec<u8> = framer.push(torn.into()).concat();
    assert!(found.ends_with(&whole));
    assert_eq!(found.len() % PACKET, 0);
    // After noise it takes two in a row to be believed.
    let noise = [&[1, 2, 3][..], &whole, &whole, &[9; 50], &whole].concat();
    let found = framer.push(noise.into());
    assert_eq!(found, [Bytes::from([&whole[..], &whole].concat()), Bytes::from(whole)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_gives_whole_packets_and_every_byte_is_accounted_for(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..400),
                Just(pat()),
                Just(pmt(&[(H264, VIDEO)])),
                (0_u64..100_000, any::<bool>()).prop_map(|(ms, key)| unit(VIDEO, ms, key, &[])),
                // Headers that promise anything, behind a sync byte.
                prop::collection::vec(any::<u8>(), PACKET - 1).prop_map(|mut rest| { rest.insert(0, 0x47); rest }),
                (any::<u8>(), prop::collection::vec(any::<u8>(), 0..150))
                    .prop_map(|(id, body)| table(if id % 2 == 0 { 0 } else { PMT }, &section(id % 3, &body))),
            ],
            0..30,
        ),
        sizes in prop::collection::vec(1_usize..500, 1..20),
    ) {
        let stream = parts.concat();
        let (mut cutter, mut framer) = (Cutter::new(settings(1000, 3000)), Framer::default());
        let (mut rest, mut framed, mut open) = (&stream[..], 0, false);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            for run in framer.push(Bytes::copy_from_slice(piece)) {
                prop_assert_eq!(run.len() % PACKET, 0);
                framed += run.len();
            }
            for piece in cutter.push(Bytes::copy_from_slice(piece), false) {
                match piece {
                    Piece::Begin { key, .. } => {
                        prop_assert!(key || open);
                        open = true;
                    }
                    Piece::Bytes(bytes) => {
                        prop_assert!(open);
                        prop_assert!(bytes.len().is_multiple_of(PACKET) && bytes[0] == 0x47);
                    }
                }
            }
        }
        framer.end();
        prop_assert_eq!(framed + framer.dropped() as usize, stream.len());
    }
}
