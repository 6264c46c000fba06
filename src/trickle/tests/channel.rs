//! The window, case by case.

use std::time::Duration;

use bytes::Bytes;

use crate::trickle::channel::*;
use crate::trickle::wire::Wanted;

const NOW: Duration = Duration::from_secs(100);

type Ring = Channel<u32>;

fn ring() -> Ring {
    Channel::new(NOW, Settings::default())
}

fn like_the_reference() -> Ring {
    Channel::new(
        NOW,
        Settings {
            dialect: Dialect::reference(),
            ..Settings::default()
        },
    )
}

fn write(ring: &mut Ring, seq: u64) -> Writer {
    match ring.open_write(Some(seq), false) {
        OpenWrite::Opened { writer, seq: got, .. } => {
            assert_eq!(got, seq);
            writer
        }
        other => panic!("{seq}: {other:?}"),
    }
}

fn append(ring: &mut Ring, writer: &Writer, text: &'static str) -> Append {
    ring.append(NOW, writer, Bytes::from_static(text.as_bytes()))
}

/// A whole segment.
fn segment(ring: &mut Ring, seq: u64, text: &'static str) {
    let writer = write(ring, seq);
    assert_eq!(append(ring, &writer, text), Append::Stored);
    assert!(!ring.finish(writer).empty);
}

fn open(ring: &mut Ring, wanted: Wanted) -> Reader {
    match ring.open_read(wanted) {
        OpenRead::Opened(reader) => reader,
        other => panic!("{wanted}: {other:?}"),
    }
}

fn missing(ring: &mut Ring, seq: u64) -> Option<u64> {
    match ring.open_read(Wanted::Number(seq)) {
        OpenRead::Missing { latest } => Some(latest),
        OpenRead::Opened(reader) => {
            ring.close_read(reader);
            None
        }
        other => panic!("{other:?}"),
    }
}

/// What there is, and whether that is all.
fn text(ring: &mut Ring, reader: &Reader) -> (String, bool) {
    let mut all = Vec::new();
    loop {
        match ring.read(reader) {
            Read::Data(bytes) => all.extend_from_slice(&bytes),
            end => return (String::from_utf8(all).expect("text"), end == Read::End),
        }
    }
}

fn fresh(ring: &mut Ring, seq: u64) -> (String, bool) {
    let reader = open(ring, Wanted::Number(seq));
    let all = text(ring, &reader);
    ring.close_read(reader);
    all
}

fn woken(ring: &mut Ring) -> Vec<u32> {
    let mut woken = Vec::new();
    ring.take_woken(&mut woken);
    woken
}

#[test]
fn s05_segments_are_kept_and_next_write_is_told() {
    let mut ring = ring();
    segment(&mut ring, 0, "first");
    segment(&mut ring, 1, "second");
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(
        ring.head(&reader),
        Head::Data {
            seq: 0,
            latest: Some(2)
        }
    );
    assert_eq!(text(&mut ring, &reader), ("first".into(), true));
    assert_eq!(fresh(&mut ring, 1), ("second".into(), true));
}

#[test]
fn s06_a_reader_gets_each_piece_as_it_comes() {
    let mut ring = ring();
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(ring.head(&reader), Head::Wait);
    ring.park_reader(&reader, 7);
    let writer = write(&mut ring, 0);
    assert_eq!(woken(&mut ring), [] as [u32; 0]);
    assert_eq!(append(&mut ring, &writer, "AAAA"), Append::Stored);
    assert_eq!(woken(&mut ring), [7]);
    assert_eq!(ring.head(&reader), Head::Data { seq: 0, latest: None });
    assert_eq!(text(&mut ring, &reader), ("AAAA".into(), false));
    ring.park_reader(&reader, 8);
    assert_eq!(append(&mut ring, &writer, "BBBB"), Append::Stored);
    assert_eq!(woken(&mut ring), [8]);
    assert_eq!(text(&mut ring, &reader), ("BBBB".into(), false));
    ring.park_reader(&reader, 9);
    let _ = ring.finish(writer);
    assert_eq!(woken(&mut ring), [9]);
    assert_eq!(ring.read(&reader), Read::End);
}

#[test]
fn s07_s08_next_and_current_while_a_segment_is_written() {
    let mut ring = ring();
    let current = open(&mut ring, Wanted::Current);
    let writer = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &writer, "x"), Append::Stored);
    assert_eq!(ring.head(&current), Head::Data { seq: 0, latest: None });
    let next = open(&mut ring, Wanted::Next);
    assert_eq!(ring.head(&next), Head::Wait);
    let current = open(&mut ring, Wanted::Current);
    assert_eq!(
        ring.head(&current),
        Head::Data {
            seq: 0,
            latest: Some(1)
        }
    );
    let _ = ring.finish(writer);
    segment(&mut ring, 1, "y");
    assert_eq!(ring.head(&next), Head::Data { seq: 1, latest: None });
}

#[test]
fn s10_s11_five_are_kept_and_a_preconnected_one_counts() {
    let mut ring = ring();
    for seq in 0..8 {
        segment(&mut ring, seq, "x");
    }
    for seq in 0..3 {
        assert_eq!(missing(&mut ring, seq), Some(8), "{seq}");
    }
    for seq in 3..8 {
        assert_eq!(missing(&mut ring, seq), None, "{seq}");
    }
    let _preconnected = write(&mut ring, 8);
    assert_eq!(missing(&mut ring, 3), Some(8));
    assert_eq!(missing(&mut ring, 8), None);
}

#[test]
fn s12_one_number_ahead_is_waited_for_only_on_a_new_channel() {
    let mut ring = ring();
    assert_eq!(missing(&mut ring, 1), None);
    assert_eq!(missing(&mut ring, 2), Some(0));
    segment(&mut ring, 0, "x");
    assert_eq!(missing(&mut ring, 2), Some(1));
}

#[test]
fn s13_an_empty_body_is_a_segment() {
    let mut ring = ring();
    let writer = write(&mut ring, 0);
    assert_eq!(
        ring.finish(writer),
        Finished {
            empty: true,
            closed: false
        }
    );
    assert_eq!(ring.next_write(), 1);
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(
        ring.head(&reader),
        Head::Empty {
            seq: 0,
            latest: 1,
            closed: false
        }
    );
    assert_eq!(ring.read(&reader), Read::End);
}

#[test]
fn s15_s16_closing_ends_everything_and_lets_writers_finish() {
    let mut ring = ring();
    let active = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &active, "x"), Append::Stored);
    let preconnected = write(&mut ring, 1);
    let (middle, waiting) = (open(&mut ring, Wanted::Number(0)), open(&mut ring, Wanted::Number(1)));
    assert_eq!(text(&mut ring, &middle), ("x".into(), false));
    ring.park_reader(&middle, 1);
    ring.park_reader(&waiting, 2);
    ring.park_writer(&preconnected, 3);
    ring.close();
    let mut all = woken(&mut ring);
    all.sort();
    assert_eq!(all, [1, 2, 3]);
    assert_eq!(ring.read(&middle), Read::End);
    assert_eq!(
        ring.head(&waiting),
        Head::Empty {
            seq: 1,
            latest: 1,
            closed: true
        }
    );
    assert_eq!(ring.writing(&preconnected), Writing::Ended { closed: true });
    assert_eq!(append(&mut ring, &preconnected, "late"), Append::Ended { closed: true });
    assert_eq!(ring.writing(&active), Writing::Open);
    assert_eq!(append(&mut ring, &active, "y"), Append::Dropped);
    assert_eq!(
        ring.finish(active),
        Finished {
            empty: false,
            closed: false
        }
    );
    assert!(matches!(ring.open_write(None, false), OpenWrite::Closed));
    assert!(matches!(ring.open_read(Wanted::Next), OpenRead::Closed));
    ring.close_read(middle);
    assert_eq!(ring.held(), 0);
}

#[test]
fn s18_deleting_a_preconnected_segment_answers_both_sides() {
    let mut ring = ring();
    let writer = write(&mut ring, 0);
    let reader = open(&mut ring, Wanted::Next);
    assert_eq!(ring.delete(0), Delete::Ended);
    assert_eq!(ring.delete(7), Delete::Missing);
    assert_eq!(ring.next_write(), 1, "before readers look");
    assert_eq!(
        ring.head(&reader),
        Head::Empty {
            seq: 0,
            latest: 1,
            closed: false
        }
    );
    assert_eq!(ring.writing(&writer), Writing::Ended { closed: false });
    assert_eq!(
        ring.finish(writer),
        Finished {
            empty: true,
            closed: false
        }
    );
    assert_eq!(ring.next_write(), 1);
}

#[test]
fn d10_the_reference_advances_only_when_the_writer_is_answered() {
    let mut ring = like_the_reference();
    let writer = write(&mut ring, 0);
    assert_eq!(ring.delete(0), Delete::Ended);
    assert_eq!(ring.next_write(), 0);
    assert_eq!(ring.writing(&writer), Writing::Ended { closed: false });
    assert_eq!(ring.next_write(), 1);
}

#[test]
fn s20_a_reset_ends_what_has_lower_numbers() {
    let mut ring = ring();
    for seq in 0..3 {
        segment(&mut ring, seq, "x");
    }
    let dead = write(&mut ring, 3);
    assert_eq!(append(&mut ring, &dead, "half"), Append::Stored);
    let reader = open(&mut ring, Wanted::Number(3));
    assert_eq!(text(&mut ring, &reader), ("half".into(), false));
    let far = write(&mut ring, 6);
    let OpenWrite::Opened { writer, seq: 4, .. } = ring.open_write(None, true) else {
        panic!("next-write is 4")
    };
    assert_eq!(ring.read(&reader), Read::End);
    assert_eq!(fresh(&mut ring, 3), ("half".into(), true));
    assert_eq!(ring.writing(&far), Writing::Open, "larger numbers are left alone");
    assert_eq!(append(&mut ring, &writer, "after-reset"), Append::Stored);
}

#[test]
fn s21_two_writers_of_one_number_are_joined() {
    let mut ring = ring();
    let first = write(&mut ring, 0);
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(append(&mut ring, &first, "Hello"), Append::Stored);
    let OpenWrite::Opened {
        writer: second,
        shared: true,
        ..
    } = ring.open_write(Some(0), false)
    else {
        panic!("shared")
    };
    assert_eq!(append(&mut ring, &second, "GoodbyWorld"), Append::Stored);
    let _ = ring.finish(second);
    assert_eq!(text(&mut ring, &reader), ("HelloGoodbyWorld".into(), true));
    assert_eq!(append(&mut ring, &first, "!"), Append::Stored);
    assert_eq!(ring.read(&reader), Read::End, "an end is an end");
    assert_eq!(fresh(&mut ring, 0), ("HelloGoodbyWorld!".into(), true));
}

#[test]
fn s22_a_broken_segment_is_taken_up_again() {
    let mut ring = ring();
    let writer = write(&mut ring, 0);
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(append(&mut ring, &writer, "AAAA"), Append::Stored);
    ring.abort(NOW, writer);
    assert_eq!(text(&mut ring, &reader), ("AAAA".into(), false));
    let writer = write(&mut ring, 0);
    assert_eq!(ring.tick(NOW + Duration::from_secs(100)), None, "somebody writes it");
    assert_eq!(append(&mut ring, &writer, "BBBB"), Append::Stored);
    let _ = ring.finish(writer);
    assert_eq!(text(&mut ring, &reader), ("BBBB".into(), true));
}

#[test]
fn d05_a_broken_segment_nobody_takes_up_ends_after_its_grace_or_with_the_next() {
    let grace = Duration::from_secs(10);
    let mut ring = ring();
    let writer = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &writer, "AAAA"), Append::Stored);
    ring.abort(NOW, writer);
    let reader = open(&mut ring, Wanted::Number(0));
    assert_eq!(ring.tick(NOW + grace / 2), Some(NOW + grace));
    assert!(!text(&mut ring, &reader).1);
    assert_eq!(ring.tick(NOW + grace), None);
    assert_eq!(ring.read(&reader), Read::End);

    let writer = write(&mut ring, 1);
    assert_eq!(append(&mut ring, &writer, "x"), Append::Stored);
    ring.abort(NOW, writer);
    segment(&mut ring, 2, "y");
    assert_eq!(fresh(&mut ring, 1), ("x".into(), true));
    assert_eq!(ring.stats().orphans, 2);

    let mut ring = like_the_reference();
    let writer = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &writer, "AAAA"), Append::Stored);
    ring.abort(NOW, writer);
    segment(&mut ring, 1, "y");
    assert_eq!(ring.tick(NOW + grace * 100), None);
    assert_eq!(
        fresh(&mut ring, 0),
        ("AAAA".into(), false),
        "the reference lets its readers hang"
    );
}

#[test]
fn s23_d03_a_post_to_a_number_that_has_ended_changes_nothing() {
    for (mut ring, next) in [(ring(), 4), (like_the_reference(), 2)] {
        for seq in 0..4 {
            segment(&mut ring, seq, "x");
        }
        assert!(matches!(ring.open_write(Some(1), false), OpenWrite::Ended { seq: 1 }));
        assert_eq!(fresh(&mut ring, 1), ("x".into(), true));
        assert_eq!(ring.next_write(), next);
    }
}

#[test]
fn d04_a_publisher_that_starts_over_takes_the_old_segments_away() {
    for (mut ring, old) in [(ring(), Some(1)), (like_the_reference(), None)] {
        for seq in 0..7 {
            segment(&mut ring, seq, "old");
        }
        segment(&mut ring, 0, "new");
        assert_eq!(ring.next_write(), 1);
        assert_eq!(missing(&mut ring, 3), old, "a segment of the run before");
        assert_eq!(fresh(&mut ring, 0), ("new".into(), true));
    }
}

#[test]
fn d04_segments_that_overtake_each_other_on_the_way_are_both_kept() {
    for (mut ring, next) in [(ring(), 2), (like_the_reference(), 1)] {
        let (first, second) = (write(&mut ring, 0), write(&mut ring, 1));
        assert_eq!(append(&mut ring, &second, "second"), Append::Stored);
        let _ = ring.finish(second);
        assert_eq!(append(&mut ring, &first, "first"), Append::Stored);
        let _ = ring.finish(first);
        assert_eq!(ring.next_write(), next);
        assert_eq!(fresh(&mut ring, 0), ("first".into(), true));
        assert_eq!(fresh(&mut ring, 1), ("second".into(), true));
    }
}

#[test]
fn d04_segment_that_arrives_after_its_followers_have_ended_is_kept_beside_them() {
    let mut ring = ring();
    for seq in 0..5 {
        segment(&mut ring, seq, "old");
    }
    for (seq, text) in [(6, "6"), (8, "8"), (5, "5"), (7, "7")] {
        segment(&mut ring, seq, text);
    }
    assert_eq!(ring.next_write(), 9);
    for seq in 5..9 {
        assert_eq!(fresh(&mut ring, seq), (seq.to_string(), true));
    }
    // Five behind is no longer a follower: that number's slot is needed for a higher one.
    segment(&mut ring, 3, "restarted");
    assert_eq!(ring.next_write(), 4);
    assert_eq!(missing(&mut ring, 8), Some(4));
}

#[test]
fn s34_a_publisher_may_jump_ahead() {
    let mut ring = ring();
    segment(&mut ring, 100, "x");
    assert_eq!(missing(&mut ring, 99), Some(101));
    let reader = open(&mut ring, Wanted::Current);
    assert_eq!(
        ring.head(&reader),
        Head::Data {
            seq: 100,
            latest: Some(101)
        }
    );
    assert_eq!(ring.next_write(), 101);
}

#[test]
fn a_reader_keeps_what_left_the_window_and_its_memory_goes_with_it() {
    let mut ring = ring();
    let slow = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &slow, "slow"), Append::Stored);
    let reader = open(&mut ring, Wanted::Number(0));
    for seq in 1..6 {
        segment(&mut ring, seq, "x");
    }
    assert_eq!(append(&mut ring, &slow, "lost"), Append::Dropped, "nobody can find it");
    assert_eq!(text(&mut ring, &reader), ("slow".into(), true));
    let with = ring.held();
    ring.close_read(reader);
    assert!(ring.held() < with);
    assert_eq!(
        ring.finish(slow),
        Finished {
            empty: false,
            closed: false
        }
    );
}

#[test]
fn small_pieces_of_a_segment_that_has_ended_are_one() {
    let mut ring = ring();
    let writer = write(&mut ring, 0);
    for _ in 0..10 {
        assert_eq!(append(&mut ring, &writer, "x"), Append::Stored);
    }
    let before = ring.held();
    let _ = ring.finish(writer);
    // Each was a slice of some receive buffer, which it would keep alive as long as it is in the window.
    assert!(ring.held() * 5 < before, "{} of {before}", ring.held());
    assert_eq!(fresh(&mut ring, 0), ("xxxxxxxxxx".into(), true));
}

#[test]
fn d06_a_writer_whose_segment_is_lost_is_told_on_request() {
    let mut ring: Ring = Channel::new(
        NOW,
        Settings {
            dialect: Dialect {
                tell_lost_writers: true,
                ..Dialect::default()
            },
            ..Settings::default()
        },
    );
    let slow = write(&mut ring, 0);
    assert_eq!(append(&mut ring, &slow, "slow"), Append::Stored);
    ring.park_writer(&slow, 5);
    for seq in 1..6 {
        segment(&mut ring, seq, "x");
    }
    assert_eq!(woken(&mut ring), [5]);
    assert_eq!(ring.writing(&slow), Writing::Ended { closed: false });
}

#[test]
fn limits_are_kept() {
    let mut ring: Ring = Channel::new(
        NOW,
        Settings {
            max_segment: 10,
            max_readers: 2,
            max_writers: 1,
            ..Settings::default()
        },
    );
    let writer = write(&mut ring, 0);
    assert!(matches!(ring.open_write(Some(1), false), OpenWrite::Full));
    let (reader, _other) = (open(&mut ring, Wanted::Next), open(&mut ring, Wanted::Next));
    assert!(matches!(ring.open_read(Wanted::Next), OpenRead::Full));
    assert_eq!(append(&mut ring, &writer, "0123456789"), Append::Stored);
    assert_eq!(append(&mut ring, &writer, "x"), Append::TooLarge);
    assert_eq!(
        text(&mut ring, &reader),
        ("0123456789".into(), true),
        "readers do not hang"
    );
    ring.abort(NOW, writer);
    assert_eq!(ring.stats().too_large, 1);
}

#[test]
fn d08_bytes_are_activity_and_the_reference_counts_only_beginnings() {
    let later = NOW + Duration::from_secs(400);
    for (mut ring, active) in [(ring(), later), (like_the_reference(), NOW)] {
        let writer = write(&mut ring, 0);
        assert_eq!(append(&mut ring, &writer, "x"), Append::Stored);
        assert_eq!(ring.append(later, &writer, Bytes::from_static(b"y")), Append::Stored);
        assert_eq!(ring.active(), active);
    }
}

#[test]
fn a_reader_that_waits_where_no_writer_comes_is_freed() {
    // A number that the publisher leaves out: after the grace, for its POST may just be slow.
    let mut ring = ring();
    let reader = open(&mut ring, Wanted::Number(1));
    segment(&mut ring, 4, "x");
    assert_eq!(ring.head(&reader), Head::Wait);
    assert_eq!(ring.tick(NOW + Duration::from_secs(10)), None);
    assert_eq!(
        ring.head(&reader),
        Head::Empty {
            seq: 1,
            latest: 5,
            closed: false
        }
    );
}
