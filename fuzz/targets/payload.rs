//! What a reader makes of bytes: documents, lines, packets, compared with a plain reading of the whole.

#![no_main]

use bytes::Bytes;
use comfy_core::trickle::payload::{Kind, MAX_DOCUMENT, Pieces};
use comfy_fuzz::{parts, pieces, settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(([kind, cut, complete], rest)) = settings(input) else {
        return;
    };
    let mime = String::from_utf8_lossy(&rest[..rest.len().min(40)]);
    let _ = Kind::of(Some(&mime), rest);
    let kind = [Kind::Ts, Kind::Json, Kind::Lines, Kind::Bytes][usize::from(kind % 4)];
    let mut reader = Pieces::new(kind);
    for (index, segment) in parts(rest, 8).enumerate() {
        let before = reader.stats();
        let mut found = Vec::new();
        for piece in pieces(segment, cut) {
            found.extend(reader.push(piece));
            assert!(reader.waiting() <= MAX_DOCUMENT, "{} bytes wait", reader.waiting());
        }
        let complete = complete >> index & 1 == 0;
        found.extend(reader.end(complete));
        assert_eq!(reader.waiting(), 0, "of the segment before");
        let after = reader.stats();
        let (dropped, keepalives) = (after.dropped - before.dropped, after.keepalives - before.keepalives);
        match kind {
            Kind::Bytes => assert_eq!(found.concat(), segment),
            Kind::Ts => {
                assert!(found.iter().all(|run| run.len().is_multiple_of(188) && run[0] == 0x47));
                assert_eq!(found.concat().len() as u64 + dropped, segment.len() as u64);
            }
            Kind::Json => check(&found, (dropped, keepalives), vec![segment], complete, false),
            Kind::Lines => {
                let lines = segment.split_inclusive(|byte| *byte == b'\n').collect();
                check(&found, (dropped, keepalives), lines, complete, true);
            }
        }
    }
});

/// `documents`: what would be found without limits, keepalives and breaks.
fn check(found: &[Bytes], counted: (u64, u64), documents: Vec<&[u8]>, complete: bool, lines: bool) {
    let (mut wanted, mut dropped, mut keepalives) = (Vec::new(), 0, 0);
    for document in documents {
        let bare: Vec<u8> = document
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let ended = complete
            || lines
                && document.ends_with(
                    b"
",
                );
        if document.len() > MAX_DOCUMENT || !ended {
            dropped += document.len() as u64;
        } else if bare == br#"{"keep":"alive"}"# && document.len() < 64 {
            keepalives += 1;
        } else if !document.trim_ascii().is_empty() {
            wanted.push(document);
        }
    }
    assert_eq!(found, wanted);
    assert_eq!(counted, (dropped, keepalives));
}
