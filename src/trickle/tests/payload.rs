//! What readers make of bytes.

use bytes::Bytes;

use crate::trickle::payload::{Kind, MAX_DOCUMENT, Pieces};

#[test]
fn kind_follows_the_type_and_the_first_bytes_where_there_is_none() {
    let packet = [&[0x47][..], &[0; 187], &[0x47]].concat();
    for (mime, first, kind) in [
        (Some("video/MP2T"), &b"x"[..], Kind::Ts),
        (Some("application/json; charset=utf-8"), b"x", Kind::Json),
        (Some("application/jsonl"), b"x", Kind::Lines),
        (Some("application/x-ndjson"), b"x", Kind::Lines),
        (Some("text/plain"), b"{", Kind::Bytes),
        (Some("application/octet-stream"), &packet, Kind::Ts),
        (None, &packet, Kind::Ts),
        (None, b"{}", Kind::Json),
        (None, b"hello", Kind::Bytes),
        (None, b"", Kind::Bytes),
    ] {
        assert_eq!(Kind::of(mime, first), kind, "{mime:?} {first:?}");
    }
}

#[test]
fn c_14_document_of_several_pieces_is_one_and_keepalives_are_left_out() {
    let mut pieces = Pieces::new(Kind::Json);
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    for part in long.as_bytes().chunks(7000) {
        assert!(pieces.push(Bytes::copy_from_slice(part)).is_empty());
    }
    assert_eq!(pieces.end(true), Some(Bytes::from(long)));
    for keepalive in ["{\"keep\":\"alive\"}", " { \"keep\" : \"alive\" }\n"] {
        assert!(pieces.push(Bytes::from(keepalive)).is_empty());
        assert_eq!(pieces.end(true), None);
    }
    assert_eq!(pieces.stats().keepalives, 2);
    // Half a document is none.
    assert!(pieces.push(Bytes::from_static(b"{\"a\":")).is_empty());
    assert_eq!(pieces.end(false), None);
    assert_eq!(pieces.stats().dropped, 5);
}

#[test]
fn lines_come_one_by_one_and_the_last_needs_no_end() {
    let mut pieces = Pieces::new(Kind::Lines);
    assert_eq!(
        pieces.push(Bytes::from_static(b"[1]\n[2")),
        [Bytes::from_static(b"[1]\n")]
    );
    assert_eq!(
        pieces.push(Bytes::from_static(b"]\n\n[3]")),
        [Bytes::from_static(b"[2]\n")]
    );
    assert_eq!(pieces.end(true), Some(Bytes::from_static(b"[3]")));
    assert_eq!(pieces.end(true), None);
}

#[test]
fn overlong_document_is_dropped_and_the_next_one_comes() {
    let mut pieces = Pieces::new(Kind::Json);
    for _ in 0..3 {
        assert!(pieces.push(vec![b' '; MAX_DOCUMENT / 2 + 1].into()).is_empty());
    }
    assert_eq!(pieces.end(true), None);
    assert_eq!(pieces.stats().dropped, 3 * (MAX_DOCUMENT as u64 / 2 + 1));
    pieces.push(Bytes::from_static(b"{}"));
    assert_eq!(pieces.end(true), Some(Bytes::from_static(b"{}")));
}
