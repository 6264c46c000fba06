//! MPEG-TS, intact or not, cut into segments and put together to whole packets again.

#![no_main]

use std::time::Duration;

use comfy_core::trickle::ts::{Cutter, Framer, MAX_HELD, PACKET, Piece, Settings};
use comfy_fuzz::{pieces, settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(([duration, max, cut, how], rest)) = settings(input) else {
        return;
    };
    let stream = packets(rest, how);
    let mut cutter = Cutter::new(Settings {
        duration: Duration::from_millis(u64::from(duration) * 20),
        max: Duration::from_millis(u64::from(max) * 20),
    });
    let mut framer = Framer::default();
    let (mut came, mut open, mut first) = (0_u64, false, false);
    let (mut given, mut framed) = (0_u64, 0_u64);
    for (index, bytes) in pieces(&stream, cut).into_iter().enumerate() {
        came += bytes.len() as u64;
        for run in framer.push(bytes.clone()) {
            assert!(!run.is_empty() && run.len().is_multiple_of(PACKET) && run[0] == 0x47);
            framed += run.len() as u64;
        }
        let hint = how & 2 != 0 && index % 3 == 0;
        for piece in cutter.push(bytes, hint) {
            match piece {
                Piece::Begin { key, .. } => {
                    assert!(key || open, "a segment begins in the middle of nothing");
                    (open, first) = (true, true);
                }
                Piece::Bytes(bytes) => {
                    assert!(open, "bytes of no segment");
                    assert!(!bytes.is_empty() && bytes.len().is_multiple_of(PACKET));
                    assert!(bytes.chunks(PACKET).all(|packet| packet[0] == 0x47));
                    if std::mem::take(&mut first) {
                        let pid = u16::from_be_bytes([bytes[1] & 0x1f, bytes[2]]);
                        assert_eq!(pid, 0, "a segment begins without a PAT");
                    }
                    given += bytes.len() as u64;
                }
            }
        }
        assert!(!first, "a segment begins with nothing");
        if how & 4 != 0 && index % 50 == 49 {
            cutter.lost();
            open = false;
        }
        if how & 8 != 0 && index % 70 == 69 {
            cutter.flush();
            open = false;
        }
        // What waits is little, whatever comes.
        assert!(
            cutter.waiting() <= MAX_HELD * PACKET + PACKET - 1,
            "{} bytes wait",
            cutter.waiting()
        );
        let tables = cutter.tables();
        assert_eq!(
            came + tables.repeated,
            given + cutter.skipped() + cutter.dropped() + tables.replaced + cutter.waiting() as u64,
            "bytes are gone, or came from nowhere: {tables:?}"
        );
    }
    framer.end();
    assert_eq!(framed + framer.dropped(), came);
});

/// The input as it is, or, so that it need not be guessed, with what a packet needs: a sync byte in its place, and
/// behind each table its checksum.
fn packets(input: &[u8], how: u8) -> Vec<u8> {
    if how & 1 == 0 {
        return input.to_vec();
    }
    let mut stream = Vec::new();
    // Three bytes of head and a size, so that small inputs are many packets.
    let mut rest = input;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let size = usize::from(head[3]).min(PACKET - 4).min(after.len());
        let (payload, after) = after.split_at(size);
        rest = after;
        let mut packet = vec![0x47, head[0] & 0xc0 | head[0] & 0x01, head[1], head[2] & 0x3f];
        packet.extend_from_slice(payload);
        // A section behind its pointer, where it says that it ends.
        if packet[1] & 0x40 != 0 && packet[3] == 0x10 && packet.len() > 8 && packet[4] == 0 {
            let length = (3 + (usize::from(packet[6] & 0x0f) << 8 | usize::from(packet[7]))).min(PACKET - 5);
            packet.resize(PACKET, 0xff);
            if length > 4 {
                let end = 5 + length;
                let sum = crc(&packet[5..end - 4]);
                packet[end - 4..end].copy_from_slice(&sum.to_be_bytes());
            }
        }
        packet.resize(PACKET, 0xff);
        stream.extend_from_slice(&packet);
    }
    stream.extend_from_slice(rest);
    stream
}

fn crc(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}
