//! The rules one by one, with the time set by hand.

use std::time::Duration;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings(batch_size: usize, threshold: usize, max_batches: usize, leaky: Leaky) -> Settings {
    Settings {
        batch_size,
        threshold,
        max_batches,
        leaky,
        rebuffer: false,
    }
}

/// Frames on the beat of 10 ms, called by their numbers.
fn timing(frame: u64) -> Timing {
    Timing {
        time: Some(ms(10 * frame)),
        duration: Some(ms(10)),
        priority: false,
    }
}

fn priority(frame: u64) -> Timing {
    Timing {
        priority: true,
        ..timing(frame)
    }
}

/// A buffer to which these frames were admitted, at 10 ms each.
fn with(settings: Settings, frames: std::ops::Range<u64>) -> FlightBuffer<u64> {
    let mut buffer = FlightBuffer::new(settings);
    for frame in frames {
        assert_eq!(buffer.admit(ms(10 * frame), frame, timing(frame)), Admit::Queued);
    }
    buffer
}

/// Everything that can leave, markers included; a `-` stands before a frame that is a discont.
fn taken(buffer: &mut FlightBuffer<u64>) -> String {
    let mut text = String::new();
    loop {
        match buffer.next(ms(1000)) {
            Next::Frame { frame, discont } => text += &format!("{}{frame} ", if discont { "-" } else { "" }),
            Next::Marker(item) => text += &format!("m{item} "),
            Next::Drop(frame, why) => text += &format!("{why:?}{frame} "),
            Next::WaitUntil(_) | Next::Idle => return text.trim_end().into(),
        }
    }
}

fn changes(buffer: &mut FlightBuffer<u64>) -> Vec<Change> {
    std::iter::from_fn(|| buffer.take_change()).collect()
}

#[test]
fn frames_are_held_until_the_threshold_is_reached() {
    let mut buffer = with(settings(2, 2, 5, Leaky::None), 0..3);
    assert_eq!(buffer.next(ms(20)), Next::Idle);
    assert_eq!(buffer.state(), State::Filling);
    assert_eq!(buffer.admit(ms(30), 3, timing(3)), Admit::Queued);
    assert_eq!(buffer.state(), State::Running);
    assert_eq!(taken(&mut buffer), "0 1 2 3");
}

#[test]
fn without_a_threshold_the_first_frame_leaves_at_once() {
    let mut buffer = with(settings(4, 0, 5, Leaky::None), 0..1);
    assert_eq!(
        buffer.next(ms(0)),
        Next::Frame {
            frame: 0,
            discont: false
        }
    );
    assert_eq!(changes(&mut buffer), [Change::Running]);
}

#[test]
fn a_threshold_beyond_the_capacity_is_the_capacity() {
    let mut buffer = with(settings(2, 9, 2, Leaky::None), 0..4);
    assert_eq!(buffer.stats().threshold_frames, 4);
    assert_eq!(buffer.state(), State::Running);
    assert_eq!(taken(&mut buffer), "0 1 2 3");
}

#[test]
fn a_marker_before_the_first_frame_leaves_while_filling_and_one_behind_it_waits() {
    let mut buffer = FlightBuffer::new(settings(2, 1, 2, Leaky::None));
    assert_eq!(buffer.mark(10, Marker::Ordered), Mark::Queued);
    assert_eq!(buffer.admit(ms(0), 0, timing(0)), Admit::Queued);
    assert_eq!(buffer.mark(11, Marker::Ordered), Mark::Queued);
    assert_eq!(taken(&mut buffer), "m10");
    assert_eq!(buffer.admit(ms(10), 1, timing(1)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "0 m11 1");
}

#[test]
fn end_of_stream_releases_what_is_held() {
    let mut buffer = with(settings(4, 2, 5, Leaky::None), 0..3);
    assert_eq!(buffer.mark(9, Marker::Releases), Mark::Queued);
    assert_eq!(taken(&mut buffer), "0 1 2 m9");
    assert_eq!(
        buffer.next(ms(100_000)),
        Next::Idle,
        "silence after the end is no underrun"
    );
    assert_eq!(buffer.stats().underruns, 0);
}

#[test]
fn a_query_before_the_first_frame_does_not_end_the_collecting() {
    let mut buffer = FlightBuffer::new(settings(2, 1, 2, Leaky::None));
    assert_eq!(buffer.mark(9, Marker::Releases), Mark::Queued);
    assert_eq!(buffer.admit(ms(0), 0, timing(0)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "m9");
    assert_eq!(buffer.state(), State::Filling);
}

#[test]
fn a_full_marker_queue_ends_the_hold() {
    let mut buffer = with(settings(2, 1, 2, Leaky::None), 0..1);
    for item in 1..=MAX_MARKERS as u64 {
        assert_eq!(buffer.next(ms(0)), Next::Idle);
        assert_eq!(buffer.mark(item, Marker::Ordered), Mark::Queued);
    }
    assert_eq!(buffer.mark(0, Marker::Releases), Mark::Full(0));
    assert_eq!(
        buffer.next(ms(0)),
        Next::Frame {
            frame: 0,
            discont: false
        }
    );
    assert_eq!(buffer.next(ms(0)), Next::Marker(1));
    assert_eq!(buffer.mark(0, Marker::Releases), Mark::Queued);
}

#[test]
fn a_full_buffer_treats_the_next_frame_by_its_rule() {
    // Capacity 4 holds 0 1 2 3; frame 4 comes. What it gets, and what is left afterwards.
    let table = [
        (Leaky::None, Admit::Full(4), "0 1 2 3"),
        (Leaky::Oldest, Admit::Displaced(0, Why::Overrun), "-1 2 3 4"),
        (Leaky::Newest, Admit::Dropped(4, Why::Overrun), "0 1 2 3"),
        (Leaky::Thin, Admit::Displaced(1, Why::Overrun), "0 -2 3 4"),
    ];
    for (leaky, verdict, left) in table {
        let mut buffer = with(settings(2, 1, 2, leaky), 0..4);
        assert_eq!(buffer.admit(ms(40), 4, timing(4)), verdict, "{leaky:?}");
        assert_eq!(taken(&mut buffer), left, "{leaky:?}");
    }
}

#[test]
fn a_priority_frame_stays_while_another_can_go() {
    // Which of 0 1 2 3 have priority, whether the newcomer 4 has, and what goes.
    let table: [(Leaky, &[u64], u64); 12] = [
        (Leaky::Oldest, &[0], 1),
        (Leaky::Oldest, &[0, 1, 2, 3], 4),
        (Leaky::Oldest, &[0, 1, 2, 3, 4], 0),
        (Leaky::Newest, &[4], 3),
        (Leaky::Newest, &[4, 3], 2),
        (Leaky::Newest, &[0, 1, 2, 3, 4], 4),
        (Leaky::Thin, &[1], 2),
        (Leaky::Thin, &[1, 2, 3], 0),
        (Leaky::Thin, &[0, 1, 2, 3], 4),
        (Leaky::Thin, &[0, 1, 2, 3, 4], 1),
        (Leaky::Newest, &[0, 1, 2, 3], 4),
        (Leaky::Oldest, &[1, 2, 3, 4], 0),
    ];
    for (leaky, with_priority, goes) in table {
        let mut buffer = FlightBuffer::new(settings(2, 1, 2, leaky));
        for frame in 0..5 {
            let timing = if with_priority.contains(&frame) {
                priority(frame)
            } else {
                timing(frame)
            };
            match buffer.admit(ms(0), frame, timing) {
                Admit::Queued => assert!(frame < 4),
                Admit::Dropped(gone, Why::Overrun) | Admit::Displaced(gone, Why::Overrun) => {
                    assert_eq!(gone, goes, "{leaky:?} {with_priority:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn thinning_leaves_evenly_spaced_frames() {
    let mut timed = FlightBuffer::new(settings(8, 1, 1, Leaky::Thin));
    let mut untimed = FlightBuffer::new(settings(8, 1, 1, Leaky::Thin));
    for frame in 0..15 {
        drop(timed.admit(ms(0), frame, timing(frame)));
        drop(untimed.admit(ms(0), frame, Timing::default()));
    }
    assert_eq!(taken(&mut timed), "0 -2 -4 -6 -8 -10 -12 -14");
    assert_eq!(taken(&mut untimed), "0 -2 -4 -6 -8 -10 -12 -14");
}

#[test]
fn a_dropped_newcomer_makes_the_next_admitted_frame_a_discont() {
    let mut buffer = with(settings(1, 0, 2, Leaky::Newest), 0..2);
    assert_eq!(buffer.admit(ms(20), 2, timing(2)), Admit::Dropped(2, Why::Overrun));
    assert_eq!(buffer.mark(9, Marker::Ordered), Mark::Queued);
    assert_eq!(
        buffer.next(ms(20)),
        Next::Frame {
            frame: 0,
            discont: false
        }
    );
    assert_eq!(buffer.admit(ms(30), 3, timing(3)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "1 m9 -3");
}

#[test]
fn late_frames_leave_as_drops_unless_they_have_priority_or_may_not_be_dropped() {
    for (leaky, left) in [(Leaky::None, "0 1 2 3"), (Leaky::Oldest, "Late0 -1 Late2 -3")] {
        let mut buffer = FlightBuffer::new(settings(2, 2, 2, leaky));
        for frame in 0..4 {
            let timing = if frame == 1 { priority(frame) } else { timing(frame) };
            assert_eq!(buffer.admit(ms(0), frame, timing), Admit::Queued);
        }
        // Frame 2 ends at 30 ms, frame 3 at 40 ms.
        buffer.set_earliest(Some(ms(31)));
        assert_eq!(taken(&mut buffer), left, "{leaky:?}");
        assert_eq!(buffer.stats().dropped_late, left.matches("Late").count() as u64);
    }
}

#[test]
fn a_late_frame_does_not_count_towards_the_threshold() {
    let mut buffer = with(settings(1, 2, 4, Leaky::Oldest), 0..1);
    buffer.set_earliest(Some(ms(15)));
    assert_eq!(buffer.next(ms(0)), Next::Drop(0, Why::Late));
    assert_eq!(buffer.admit(ms(10), 1, timing(1)), Admit::Queued);
    assert_eq!(buffer.next(ms(10)), Next::Idle);
    assert_eq!(buffer.admit(ms(20), 2, timing(2)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "-1 2");
}

#[test]
fn an_underrun_lasts_until_the_next_frame_or_collects_again() {
    for rebuffer in [false, true] {
        let mut buffer = FlightBuffer::new(Settings {
            rebuffer,
            ..settings(1, 2, 5, Leaky::None)
        });
        buffer.set_frame_duration(Some(ms(10)));
        for frame in 0..2 {
            assert_eq!(buffer.admit(ms(0), frame, timing(frame)), Admit::Queued);
        }
        assert_eq!(taken(&mut buffer), "0 1");
        assert_eq!(buffer.next(ms(1001)), Next::WaitUntil(ms(1020)));
        drop(changes(&mut buffer));
        assert_eq!(buffer.next(ms(1020)), Next::Idle);
        assert_eq!(changes(&mut buffer), [Change::Underrun]);
        assert_eq!(buffer.stats().underruns, 1);
        assert_eq!(buffer.state(), if rebuffer { State::Filling } else { State::Underrun });
        assert_eq!(buffer.admit(ms(1030), 2, timing(2)), Admit::Queued);
        if rebuffer {
            let expected = Some(ms(10));
            assert_eq!(
                changes(&mut buffer),
                [Change::Filling {
                    fill: 1,
                    threshold: 2,
                    expected
                }]
            );
            assert_eq!(buffer.next(ms(1030)), Next::Idle);
        } else {
            assert_eq!(changes(&mut buffer), [Change::Running]);
            assert_eq!(
                buffer.next(ms(1030)),
                Next::Frame {
                    frame: 2,
                    discont: false
                }
            );
        }
    }
}

#[test]
fn without_a_frame_duration_there_is_no_underrun() {
    let mut buffer = with(settings(1, 1, 5, Leaky::None), 0..3);
    assert_eq!(taken(&mut buffer), "0 1 2");
    assert_eq!(buffer.next(ms(1_000_000)), Next::Idle);
    assert_eq!(buffer.state(), State::Running);
}

#[test]
fn the_frame_duration_is_learnt_from_the_span_of_sixteen_arrivals() {
    let mut buffer = FlightBuffer::new(settings(16, 1, 2, Leaky::None));
    for frame in 0..16 {
        assert_eq!(buffer.frame_duration(), None);
        // Four at a time: the gaps are 0 or 40 ms of arrival, the times are even.
        assert_eq!(buffer.admit(ms(40 * (frame / 4)), frame, timing(frame)), Admit::Queued);
    }
    assert_eq!(buffer.frame_duration(), Some(ms(10)));
    buffer.set_frame_duration(Some(ms(40)));
    assert_eq!(buffer.frame_duration(), Some(ms(40)));
    buffer.set_frame_duration(None);
    assert_eq!(buffer.frame_duration(), None, "new caps, new frames");
}

#[test]
fn a_smaller_capacity_drops_by_the_rule_and_never_in_silence() {
    let table = [
        (Leaky::None, "0 1 2 3 4 5"),
        (Leaky::Oldest, "Overrun0 Overrun1 -2 3 4 5"),
        (Leaky::Newest, "Overrun5 Overrun4 0 1 2 3"),
        (Leaky::Thin, "Overrun1 Overrun3 0 -2 -4 5"),
    ];
    for (leaky, left) in table {
        let mut buffer = with(settings(2, 1, 3, leaky), 0..6);
        buffer.configure(settings(2, 1, 2, leaky));
        if leaky == Leaky::None {
            assert_eq!(buffer.admit(ms(60), 6, timing(6)), Admit::Full(6));
        }
        assert_eq!(taken(&mut buffer), left, "{leaky:?}");
    }
}

#[test]
fn a_smaller_threshold_ends_the_hold() {
    let mut buffer = with(settings(2, 2, 5, Leaky::None), 0..2);
    assert_eq!(buffer.next(ms(10)), Next::Idle);
    buffer.configure(settings(2, 1, 5, Leaky::None));
    assert_eq!(taken(&mut buffer), "0 1");
}

#[test]
fn flush_hands_everything_out_and_starts_over() {
    let mut buffer = with(settings(1, 2, 5, Leaky::None), 0..2);
    assert_eq!(buffer.mark(9, Marker::Releases), Mark::Queued);
    assert_eq!(buffer.flush().collect::<Vec<_>>(), [0, 1, 9]);
    assert_eq!(
        (buffer.state(), buffer.fill(), buffer.is_empty()),
        (State::Filling, 0, true)
    );
    assert_eq!(buffer.admit(ms(100), 5, timing(5)), Admit::Queued);
    assert_eq!(buffer.next(ms(100)), Next::Idle, "it collects again");
    assert_eq!(buffer.admit(ms(110), 6, timing(6)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "-5 6");
}

#[test]
fn filling_is_told_at_the_first_frame_and_at_each_further_batch() {
    let mut buffer = FlightBuffer::new(settings(2, 3, 4, Leaky::None));
    buffer.set_frame_duration(Some(ms(10)));
    let told: Vec<Vec<Change>> = (0..7)
        .map(|frame| {
            assert_eq!(buffer.admit(ms(0), frame, timing(frame)), Admit::Queued);
            changes(&mut buffer)
        })
        .collect();
    let filling = |fill, expected| {
        vec![Change::Filling {
            fill,
            threshold: 6,
            expected: Some(ms(expected)),
        }]
    };
    let none = Vec::new;
    assert_eq!(
        told,
        [
            filling(1, 50),
            filling(2, 40),
            none(),
            filling(4, 20),
            none(),
            vec![Change::Running],
            none()
        ]
    );
}

#[test]
fn overrun_is_told_once_until_one_batch_is_free_again() {
    let mut buffer = with(settings(2, 0, 2, Leaky::Oldest), 0..4);
    assert_eq!(changes(&mut buffer), [Change::Running, Change::Overrun { dropped: 0 }]);
    for frame in 4..6 {
        assert!(matches!(
            buffer.admit(ms(0), frame, timing(frame)),
            Admit::Displaced(..)
        ));
    }
    assert!(matches!(buffer.next(ms(0)), Next::Frame { .. }));
    assert_eq!(buffer.admit(ms(0), 6, timing(6)), Admit::Queued);
    assert_eq!(
        changes(&mut buffer),
        [],
        "full again, but it was never below by a batch"
    );
    for _ in 0..2 {
        assert!(matches!(buffer.next(ms(0)), Next::Frame { .. }));
    }
    for frame in 7..9 {
        assert_eq!(buffer.admit(ms(1100), frame, timing(frame)), Admit::Queued);
    }
    assert_eq!(changes(&mut buffer), [Change::Overrun { dropped: 2 }]);
    assert_eq!(buffer.stats().overruns, 2);
}

#[test]
fn overruns_are_told_once_a_second_and_never_forgotten() {
    let mut buffer = with(settings(1, 0, 1, Leaky::None), 0..1);
    assert_eq!(changes(&mut buffer), [Change::Running, Change::Overrun { dropped: 0 }]);
    for frame in 1..10 {
        assert!(matches!(buffer.next(ms(frame)), Next::Frame { .. }));
        assert_eq!(buffer.admit(ms(frame), frame, timing(frame)), Admit::Queued);
    }
    assert_eq!(changes(&mut buffer), [], "a source faster than what follows");
    assert_eq!(buffer.stats().overruns, 10);
    assert!(matches!(buffer.next(ms(1000)), Next::Frame { .. }));
    assert_eq!(buffer.admit(ms(1000), 10, timing(10)), Admit::Queued);
    assert_eq!(changes(&mut buffer), [Change::Overrun { dropped: 0 }]);
}

#[test]
fn changes_nobody_asks_for_stay_bounded() {
    let mut buffer = FlightBuffer::new(settings(1, 0, 1, Leaky::None));
    buffer.set_frame_duration(Some(ms(10)));
    for frame in 0..100 {
        assert_eq!(buffer.admit(ms(1000 * frame), frame, timing(frame)), Admit::Queued);
        assert!(matches!(buffer.next(ms(1000 * frame)), Next::Frame { .. }));
        assert_eq!(buffer.next(ms(1000 * frame + 500)), Next::Idle);
    }
    assert_eq!(changes(&mut buffer).len(), 4);
}

#[test]
fn latency_counts_the_arrivals_that_are_waited_for() {
    for (threshold, max_batches, min, max) in [(0, 5, 0, 200), (1, 5, 30, 200), (2, 5, 70, 200), (9, 2, 70, 80)] {
        let buffer = FlightBuffer::<()>::new(settings(4, threshold, max_batches, Leaky::None));
        assert_eq!(buffer.latency(ms(10)), (ms(min), ms(max)));
    }
    // What is promised is what happens: the first of 8 frames leaves when the last arrives.
    let buffer = with(settings(4, 2, 5, Leaky::None), 0..8);
    assert_eq!(buffer.state(), State::Running);
    assert_eq!(buffer.latency(ms(10)).0, ms(70));
}

#[test]
fn a_refused_frame_is_counted_when_it_is_taken() {
    let mut buffer = with(settings(1, 0, 1, Leaky::None), 0..1);
    for _ in 0..3 {
        assert_eq!(buffer.admit(ms(10), 1, timing(1)), Admit::Full(1));
    }
    assert_eq!((buffer.stats().frames_in, buffer.is_full()), (1, true));
    assert_eq!(taken(&mut buffer), "0");
    assert_eq!(buffer.admit(ms(10), 1, timing(1)), Admit::Queued);
    assert_eq!(buffer.stats().frames_in, 2);
    assert_eq!(buffer.stats().peak_fill, 1);
}

#[test]
fn underrun_is_noticed_exactly_when_promised() {
    for batch_size in 1..=4 {
        let mut buffer = FlightBuffer::new(Settings {
            batch_size,
            threshold: 0,
            ..Settings::default()
        });
        buffer.set_frame_duration(Some(ms(10)));
        let timing = Timing::default();
        assert_eq!(buffer.admit(ms(1), 0, timing), Admit::Queued);
        assert_eq!(
            buffer.next(ms(2)),
            Next::Frame {
                frame: 0,
                discont: false
            }
        );
        let Next::WaitUntil(until) = buffer.next(ms(2)) else {
            panic!("nothing to wait for")
        };
        assert_eq!(until, ms(2) + ms(10) * batch_size.max(2) as u32);
        assert_eq!(buffer.next(until - Duration::from_nanos(1)), Next::WaitUntil(until));
        assert_eq!(buffer.next(until), Next::Idle);
        assert_eq!(buffer.state(), State::Underrun);
    }
}

#[test]
fn frames_before_a_marker_are_skipped_and_the_next_is_a_discont() {
    let mut buffer = with(settings(1, 0, 9, Leaky::None), 0..2);
    for marker in [100, 101] {
        assert_eq!(buffer.mark(marker, Marker::Ordered), Mark::Queued);
    }
    for frame in 2..4 {
        assert_eq!(buffer.admit(ms(10 * frame), frame, timing(frame)), Admit::Queued);
    }
    assert_eq!(buffer.skip_to(|marker| *marker == 101), (vec![0, 1], true));
    assert_eq!((buffer.fill(), buffer.stats().flushed), (2, 2));
    assert_eq!(taken(&mut buffer), "m100 m101 -2 3");
    assert_eq!(buffer.admit(ms(50), 5, timing(5)), Admit::Queued);
    assert_eq!(buffer.skip_to(|_| true), (vec![5], false));
    assert_eq!(buffer.admit(ms(60), 6, timing(6)), Admit::Queued);
    assert_eq!(taken(&mut buffer), "-6");
}
