//! The rules one by one, with the time set by hand.

use std::time::Duration;

use super::*;

type Two = Batcher<char, u64, &'static str>;

const CAPS: u64 = 7;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings(size: usize, policy: Policy) -> Settings {
    Settings {
        size,
        timeout: Some(ms(100)),
        policy,
        queue: 0,
    }
}

fn with(settings: Settings, streams: &str) -> Two {
    let mut batcher = Batcher::new(settings);
    for stream in streams.chars() {
        assert!(batcher.join(stream));
    }
    batcher
}

/// Offers frames in the order of a text like `a1 b2`: stream and number, which is also its time in ms.
fn offer(batcher: &mut Two, frames: &str) {
    for frame in frames.split_whitespace() {
        let (stream, number) = (frame.chars().next().unwrap(), frame[1..].parse().unwrap());
        assert_eq!(
            batcher.offer(ms(number), stream, CAPS, Some(ms(number)), number),
            Offer::Queued
        );
    }
}

/// What leaves at a time, as in `Full a1 b2 b:eos`.
fn batch(batcher: &mut Two, now: u64) -> String {
    let mut entries = Vec::new();
    match batcher.next(ms(now), &mut entries) {
        Next::Batch { frames, reason, .. } => {
            assert_eq!(
                frames,
                entries
                    .iter()
                    .filter(|entry| matches!(entry, Entry::Frame { .. }))
                    .count()
            );
            let entries = entries.iter().map(|entry| match entry {
                Entry::Frame { stream, frame } => format!(" {stream}{frame}"),
                Entry::Marker { stream, marker } => format!(" {stream}:{marker}"),
            });
            format!("{reason:?}{}", entries.collect::<String>())
        }
        Next::WaitUntil(time) => format!("until {}", time.as_millis()),
        Next::Idle => "idle".into(),
    }
}

fn batches(batcher: &mut Two, now: u64) -> Vec<String> {
    std::iter::from_fn(|| Some(batch(batcher, now)).filter(|text| text != "idle" && !text.starts_with("until")))
        .collect()
}

fn mark(batcher: &mut Two, now: u64, stream: char, marker: &'static str, cut: Cut) {
    assert_eq!(batcher.mark(ms(now), stream, marker, cut), Mark::Queued);
}

#[test]
fn a_batch_is_due_when_it_is_full_or_its_oldest_frame_has_waited_long_enough() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    offer(&mut batcher, "a1 b2 b3");
    assert_eq!(batch(&mut batcher, 3), "until 101");
    assert_eq!(batch(&mut batcher, 100), "until 101");
    assert_eq!(batch(&mut batcher, 101), "Timeout a1 b2 b3");
    offer(&mut batcher, "a200 a201 a202 b203");
    assert_eq!(batch(&mut batcher, 203), "Full a200 a201 a202 b203");
    assert_eq!(batch(&mut batcher, 203), "idle");
}

#[test]
fn without_a_timeout_frames_wait_for_a_full_batch() {
    let mut batcher = with(
        Settings {
            timeout: None,
            ..settings(2, Policy::Arrival)
        },
        "a",
    );
    offer(&mut batcher, "a1");
    assert_eq!(batch(&mut batcher, 1_000_000), "idle");
    offer(&mut batcher, "a2");
    assert_eq!(batch(&mut batcher, 2), "Full a1 a2");
}

#[test]
fn the_policy_says_whose_frames_go_first() {
    let table = [
        (Policy::Arrival, "Full a1 a2 a3 b4", "Full c5 c6 c7 c8"),
        (Policy::RoundRobin, "Full a1 b4 c5 a2", "Full c6 a3 c7 c8"),
        (Policy::EarliestDeadline, "Full a1 a2 a3 b4", "Full c5 c6 c7 c8"),
    ];
    for (policy, first, second) in table {
        let mut batcher = with(settings(4, policy), "abc");
        offer(&mut batcher, "a1 a2 a3 b4 c5 c6 c7 c8");
        assert_eq!(batches(&mut batcher, 8), [first, second], "{policy:?}");
    }
}

#[test]
fn the_earliest_deadline_goes_first_but_never_before_an_older_frame_of_its_stream() {
    let mut batcher = with(settings(4, Policy::EarliestDeadline), "abc");
    for (stream, deadline, frame) in [
        ('a', Some(50), 1),
        ('a', Some(10), 2),
        ('b', None, 3),
        ('c', Some(20), 4),
    ] {
        assert_eq!(
            batcher.offer(ms(0), stream, CAPS, deadline.map(ms), frame),
            Offer::Queued
        );
    }
    assert_eq!(batch(&mut batcher, 0), "Full c4 a1 a2 b3");
}

#[test]
fn round_robin_serves_backlogged_streams_equally() {
    let mut batcher = with(settings(4, Policy::RoundRobin), "abcdefg");
    let mut served = [0u32; 7];
    let mut entries = Vec::new();
    for number in 0..200 {
        for stream in 'a'..='g' {
            while batcher.offer(ms(0), stream, CAPS, None, number) == Offer::Queued {}
        }
        assert!(matches!(
            batcher.next(ms(0), &mut entries),
            Next::Batch { frames: 4, .. }
        ));
        for entry in entries.drain(..) {
            let Entry::Frame { stream, .. } = entry else {
                panic!("{entry:?}")
            };
            served[stream as usize - 'a' as usize] += 1;
        }
        assert!(
            served.iter().max().unwrap() - served.iter().min().unwrap() <= 1,
            "{served:?}"
        );
    }
}

#[test]
fn groups_never_share_a_batch_and_never_starve() {
    for policy in [Policy::Arrival, Policy::RoundRobin, Policy::EarliestDeadline] {
        let mut batcher = with(settings(2, policy), "abc");
        let mut entries = Vec::new();
        let mut batches_of_group = [0u32; 2];
        for _ in 0..300 {
            for (stream, group, deadline) in [('a', 0, None), ('b', 1, Some(ms(1))), ('c', 1, Some(ms(1)))] {
                while batcher.offer(ms(0), stream, group, deadline, group) == Offer::Queued {}
            }
            entries.clear();
            let Next::Batch { group, .. } = batcher.next(ms(0), &mut entries) else {
                panic!()
            };
            assert!(
                entries
                    .iter()
                    .all(|entry| matches!(entry, Entry::Frame { frame, .. } if *frame == group))
            );
            batches_of_group[group as usize] += 1;
        }
        assert!(
            batches_of_group[0].abs_diff(100) <= 2,
            "{policy:?}: one of three streams: {batches_of_group:?}"
        );
    }
}

#[test]
fn another_group_at_the_head_closes_the_batch() {
    let mut batcher = with(settings(4, Policy::Arrival), "a");
    offer(&mut batcher, "a1 a2");
    assert_eq!(batcher.offer(ms(3), 'a', CAPS + 1, None, 3), Offer::Queued);
    assert_eq!(batch(&mut batcher, 3), "Caps a1 a2");
    assert_eq!(batch(&mut batcher, 3), "until 103");
}

#[test]
fn a_tag_rides_with_the_next_frame_and_drains_nothing() {
    let mut batcher = with(settings(3, Policy::Arrival), "ab");
    offer(&mut batcher, "a1");
    mark(&mut batcher, 2, 'a', "tag", Cut::No);
    offer(&mut batcher, "b3");
    assert_eq!(batch(&mut batcher, 3), "until 101");
    offer(&mut batcher, "a4");
    mark(&mut batcher, 5, 'a', "after", Cut::No);
    assert_eq!(batch(&mut batcher, 5), "Full a1 b3 a:tag a4");
    assert_eq!(batch(&mut batcher, 5), "until 105");
    assert_eq!(batch(&mut batcher, 105), "Timeout a:after");
}

#[test]
fn a_cut_takes_the_frames_before_it_and_others_along_and_is_the_last_entry() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    offer(&mut batcher, "a1 b2");
    mark(&mut batcher, 3, 'a', "tag", Cut::No);
    mark(&mut batcher, 3, 'a', "segment", Cut::Before(Reason::Segment));
    offer(&mut batcher, "a4");
    assert_eq!(batches(&mut batcher, 4), ["Segment a1 b2 a:tag a:segment"]);
    assert_eq!(batch(&mut batcher, 4), "until 104");
}

#[test]
fn a_cut_with_no_frame_before_it_goes_alone_and_disturbs_nobody() {
    let mut batcher = with(settings(2, Policy::Arrival), "ab");
    offer(&mut batcher, "b1");
    mark(&mut batcher, 2, 'a', "caps", Cut::Before(Reason::Caps));
    offer(&mut batcher, "a3");
    assert_eq!(batches(&mut batcher, 3), ["Caps a:caps", "Full b1 a3"]);
}

#[test]
fn more_frames_than_a_batch_before_a_cut_leave_in_full_batches_first() {
    let mut batcher = with(
        Settings {
            queue: 9,
            ..settings(2, Policy::Arrival)
        },
        "a",
    );
    offer(&mut batcher, "a1 a2 a3 a4 a5");
    mark(&mut batcher, 6, 'a', "eos", Cut::Before(Reason::Eos));
    assert_eq!(batches(&mut batcher, 6), ["Full a1 a2", "Full a3 a4", "Eos a5 a:eos"]);
    offer(&mut batcher, "a7 a8");
    mark(&mut batcher, 9, 'a', "eos", Cut::Before(Reason::Eos));
    assert_eq!(batches(&mut batcher, 9), ["Full a7 a8 a:eos"]);
}

#[test]
fn two_cuts_leave_in_two_batches() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    offer(&mut batcher, "a1 b2");
    mark(&mut batcher, 3, 'b', "flush", Cut::Before(Reason::Flush));
    mark(&mut batcher, 4, 'a', "eos", Cut::Before(Reason::Eos));
    assert_eq!(batches(&mut batcher, 4), ["Flush a1 b2 b:flush", "Eos a:eos"]);
}

#[test]
fn a_gap_cuts_only_when_it_reaches_beyond_the_window() {
    // The first frame is due at 10 ms, the window spans 40 ms.
    let table = [
        (Some(40), 50, "until 110"),
        (Some(40), 51, "Gap a10 a:gap"),
        (None, 1000, "until 110"),
    ];
    for (window, end, expected) in table {
        let mut batcher = with(settings(4, Policy::Arrival), "a");
        batcher.set_window(window.map(ms));
        offer(&mut batcher, "a10");
        assert_eq!(batcher.gap(ms(11), 'a', ms(20), ms(end), "gap"), Mark::Queued);
        assert_eq!(batch(&mut batcher, 11), expected, "{window:?} {end}");
    }
}

#[test]
fn a_gap_in_a_stream_without_frames_goes_at_once() {
    let mut batcher = with(settings(2, Policy::Arrival), "ab");
    offer(&mut batcher, "b1");
    assert_eq!(batcher.gap(ms(2), 'a', ms(0), ms(10), "gap"), Mark::Queued);
    assert_eq!(batches(&mut batcher, 2), ["Gap a:gap"]);
    assert_eq!(batch(&mut batcher, 2), "until 101");
}

#[test]
fn a_stream_that_leaves_is_emptied_and_forgotten() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    offer(&mut batcher, "a1 b2");
    assert_eq!(batcher.leave(ms(3), 'a', Some("eos")), Leave::Leaving);
    assert_eq!(batcher.leave(ms(3), 'a', Some("again")), Leave::Unknown(Some("again")));
    assert_eq!(batcher.offer(ms(3), 'a', CAPS, None, 9), Offer::Unknown(9));
    assert_eq!(batcher.mark(ms(3), 'a', "tag", Cut::No), Mark::Unknown("tag"));
    assert_eq!(batches(&mut batcher, 3), ["Eos a1 b2 a:eos"]);
    assert_eq!(batcher.stats().streams, 1);
    assert!(batcher.join('a'));
    assert!(!batcher.join('a'));
    offer(&mut batcher, "a4");
    assert_eq!(batcher.waiting(), 1);
}

#[test]
fn a_stream_that_leaves_without_a_word_leaves_no_empty_batch() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    assert_eq!(batcher.leave(ms(0), 'b', None), Leave::Leaving);
    offer(&mut batcher, "a1");
    assert_eq!(batcher.leave(ms(1), 'a', None), Leave::Leaving);
    assert_eq!(batches(&mut batcher, 1), ["Eos a1"]);
    assert_eq!(batcher.stats().streams, 0);
}

#[test]
fn a_stream_may_join_again_while_it_is_leaving_and_keeps_its_order() {
    let mut batcher = with(settings(4, Policy::Arrival), "a");
    offer(&mut batcher, "a1");
    assert_eq!(batcher.leave(ms(2), 'a', Some("eos")), Leave::Leaving);
    assert!(batcher.join('a'));
    offer(&mut batcher, "a3");
    assert_eq!(batches(&mut batcher, 3), ["Eos a1 a:eos"]);
    assert_eq!(batches(&mut batcher, 103), ["Timeout a3"]);
}

#[test]
fn drain_lets_everything_go_and_nothing_that_comes_later() {
    let mut batcher = with(
        Settings {
            timeout: None,
            ..settings(2, Policy::Arrival)
        },
        "ab",
    );
    mark(&mut batcher, 0, 'b', "tag", Cut::No);
    offer(&mut batcher, "a1");
    mark(&mut batcher, 2, 'a', "tag", Cut::No);
    batcher.drain();
    assert_eq!(batches(&mut batcher, 2), ["Drain a1 a:tag b:tag"]);
    offer(&mut batcher, "a3");
    assert_eq!(batches(&mut batcher, 3), [""; 0]);
}

#[test]
fn flushing_a_stream_hands_out_what_it_held_and_spares_the_others() {
    let mut batcher = with(settings(4, Policy::Arrival), "ab");
    offer(&mut batcher, "a1 b2");
    mark(&mut batcher, 3, 'a', "tag", Cut::No);
    offer(&mut batcher, "a4");
    mark(&mut batcher, 5, 'a', "eos", Cut::Before(Reason::Eos));
    let (stream, frame, marker) = ('a', |frame| Entry::Frame { stream: 'a', frame }, "tag");
    let flushed: Vec<_> = batcher.flush_stream('a').collect();
    let eos = Entry::Marker { stream, marker: "eos" };
    assert_eq!(flushed, [frame(1), Entry::Marker { stream, marker }, frame(4), eos]);
    assert_eq!(batcher.flush_stream('z').count(), 0);
    assert_eq!(batches(&mut batcher, 102), ["Timeout b2"]);
    assert_eq!(batcher.stats().frames_flushed, 2);
}

#[test]
fn a_full_stream_is_refused_until_a_batch_has_left_and_always_one_is_due() {
    for queue in [0, 1, 2, 5] {
        let mut batcher = with(
            Settings {
                queue,
                timeout: None,
                ..settings(2, Policy::Arrival)
            },
            "ab",
        );
        let mut taken = 0;
        while batcher.offer(ms(0), 'a', CAPS, None, taken) == Offer::Queued {
            taken += 1;
        }
        assert_eq!(taken, queue.max(2) as u64);
        assert_eq!(batch(&mut batcher, 0), "Full a0 a1");
        offer(&mut batcher, "a9");
    }
}

#[test]
fn a_stream_with_too_many_markers_is_drained() {
    let mut batcher = with(
        Settings {
            timeout: None,
            ..settings(2, Policy::Arrival)
        },
        "ab",
    );
    offer(&mut batcher, "a1");
    for _ in 0..MAX_MARKERS {
        assert_eq!(batch(&mut batcher, 1), "idle");
        mark(&mut batcher, 1, 'a', "t", Cut::No);
    }
    assert_eq!(batcher.mark(ms(1), 'a', "t", Cut::No), Mark::Full("t"));
    assert_eq!(
        batches(&mut batcher, 1),
        [format!("Drain a1{}", " a:t".repeat(MAX_MARKERS))]
    );
    mark(&mut batcher, 1, 'a', "t", Cut::No);
}

#[test]
fn the_first_arrival_is_that_of_the_oldest_frame_taken() {
    let mut batcher = with(settings(2, Policy::EarliestDeadline), "ab");
    assert_eq!(batcher.offer(ms(1), 'a', CAPS, Some(ms(90)), 1), Offer::Queued);
    assert_eq!(batcher.offer(ms(2), 'b', CAPS, Some(ms(10)), 2), Offer::Queued);
    let expected = Next::Batch {
        group: CAPS,
        frames: 2,
        reason: Reason::Full,
        first_arrival: ms(1),
    };
    assert_eq!(batcher.next(ms(2), &mut Vec::new()), expected);
}
