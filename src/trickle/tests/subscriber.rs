//! What is read next.

use std::time::Duration;

use crate::trickle::subscriber::*;
use crate::trickle::wire::{Answer, MAX_SEQ, Wanted};

const NOW: Duration = Duration::from_secs(100);
const MS: Duration = Duration::from_millis(1);

fn at(start: Wanted) -> Subscriber {
    with(Settings {
        start,
        ..Settings::default()
    })
}

fn with(settings: Settings) -> Subscriber {
    Subscriber::new(settings)
}

fn data(seq: u64, latest: Option<u64>) -> Outcome {
    Outcome::Answered(Answer {
        seq: Some(seq as i64),
        latest,
        ..Answer::bare(200)
    })
}

fn empty(seq: u64, latest: u64) -> Outcome {
    Outcome::Answered(Answer {
        seq: Some(seq as i64),
        latest: Some(latest),
        empty: true,
        ..Answer::bare(200)
    })
}

fn missing(latest: u64) -> Outcome {
    Outcome::Answered(Answer {
        latest: Some(latest),
        ..Answer::bare(470)
    })
}

fn read(subscriber: &mut Subscriber, outcome: &Outcome) -> (u64, u64, bool) {
    match subscriber.answered(NOW, outcome) {
        Verdict::Read { seq, gap, discont, .. } => (seq, gap, discont),
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_follow_each_other() {
    let mut subscriber = at(Wanted::Next);
    assert_eq!(subscriber.ask(), Wanted::Next);
    assert_eq!(read(&mut subscriber, &data(4, None)), (4, 0, false));
    assert_eq!(subscriber.ask(), Wanted::Number(5));
    assert_eq!(read(&mut subscriber, &data(5, Some(6))), (5, 0, false));
    assert_eq!(subscriber.stats().read, 2);
}

#[test]
fn c02_a_number_that_is_gone_is_a_jump_to_the_live_edge() {
    let mut subscriber = at(Wanted::Number(3));
    assert_eq!(read(&mut subscriber, &data(3, None)), (3, 0, false));
    assert_eq!(subscriber.answered(NOW, &missing(20)), Verdict::Ask);
    assert_eq!(subscriber.ask(), Wanted::Number(20));
    assert_eq!(read(&mut subscriber, &data(20, None)), (20, 16, true));
    assert_eq!((subscriber.stats().skipped, subscriber.stats().jumps), (16, 1));
}

#[test]
fn c13_a_reader_that_is_too_slow_does_what_its_policy_says() {
    let lagging = |lag| {
        let mut subscriber = with(Settings {
            start: Wanted::Number(3),
            lag,
            ..Settings::default()
        });
        (subscriber.answered(NOW, &missing(20)), subscriber.ask())
    };
    assert_eq!(lagging(LagPolicy::Jump), (Verdict::Ask, Wanted::Number(20)));
    assert_eq!(lagging(LagPolicy::Earliest), (Verdict::Ask, Wanted::Number(16)));
    assert_eq!(lagging(LagPolicy::Error).0, Verdict::Over(Over::Lagged));
}

#[test]
fn c13_more_lag_than_wanted_is_left_behind_at_once() {
    let settings = |lag| Settings {
        start: Wanted::Number(3),
        max_lag: Some(1),
        lag,
        ..Settings::default()
    };
    let mut subscriber = with(settings(LagPolicy::Jump));
    assert_eq!(read(&mut subscriber, &data(3, Some(5))), (3, 0, false));
    assert_eq!(subscriber.answered(NOW, &data(4, Some(8))), Verdict::Ask);
    assert_eq!(subscriber.ask(), Wanted::Number(7));
    assert_eq!(read(&mut subscriber, &data(7, Some(8))), (7, 3, true));
    let mut subscriber = with(settings(LagPolicy::Earliest));
    assert_eq!(read(&mut subscriber, &data(3, Some(7))), (3, 0, false));
}

#[test]
fn c03_a_server_that_is_behind_is_waited_for_and_nothing_is_replayed() {
    let mut subscriber = at(Wanted::Number(6));
    for _ in 0..3 {
        assert_eq!(subscriber.answered(NOW, &missing(5)), Verdict::AskAt(NOW + 250 * MS));
        assert_eq!(subscriber.ask(), Wanted::Number(6));
    }
    assert_eq!(read(&mut subscriber, &data(6, None)), (6, 0, false));
}

#[test]
fn a_publisher_that_starts_over_is_followed() {
    let mut subscriber = at(Wanted::Next);
    assert_eq!(read(&mut subscriber, &data(100, None)), (100, 0, false));
    assert_eq!(subscriber.answered(NOW, &missing(2)), Verdict::AskAt(NOW + 250 * MS));
    assert_eq!(subscriber.ask(), Wanted::Next);
    assert_eq!(read(&mut subscriber, &data(2, None)), (2, 0, true));
}

#[test]
fn patience_with_a_server_that_stays_behind_is_limited() {
    let mut subscriber = at(Wanted::Number(6));
    for _ in 0..1000 {
        let _ = subscriber.answered(NOW, &missing(5));
        if subscriber.ask() != Wanted::Number(6) {
            return;
        }
    }
    panic!("asked for the same number for ever");
}

#[test]
fn c04_no_channel_is_the_end_after_one_get_or_waited_for_on_request() {
    let gone = Outcome::Answered(Answer::bare(404));
    let mut subscriber = at(Wanted::Current);
    assert_eq!(subscriber.answered(NOW, &gone), Verdict::Over(Over::NoChannel));
    assert_eq!(subscriber.answered(NOW, &data(0, None)), Verdict::Over(Over::NoChannel));

    let mut subscriber = with(Settings {
        wait_for_channel: true,
        ..Settings::default()
    });
    for _ in 0..100 {
        assert_eq!(subscriber.answered(NOW, &gone), Verdict::AskAt(NOW + 500 * MS));
    }
    assert_eq!(read(&mut subscriber, &data(7, None)), (7, 0, false));
    // The server was away: nobody has ended the channel.
    let _ = subscriber.answered(NOW, &Outcome::Broken);
    for _ in 0..100 {
        assert_eq!(subscriber.answered(NOW, &gone), Verdict::AskAt(NOW + 500 * MS));
        assert_eq!(subscriber.ask(), Wanted::Current);
    }
    assert_eq!(
        read(&mut subscriber, &data(0, None)),
        (0, 0, true),
        "a channel made anew"
    );
    subscriber.finished(0);
    assert_eq!(
        subscriber.answered(NOW, &gone),
        Verdict::Over(Over::NoChannel),
        "deleted"
    );
}

#[test]
fn c05_failures_are_retried_five_times_half_a_second_apart() {
    for failure in [Outcome::Broken, Outcome::Answered(Answer::bare(500))] {
        let mut subscriber = at(Wanted::Number(0));
        for _ in 0..5 {
            assert_eq!(subscriber.answered(NOW, &failure), Verdict::AskAt(NOW + 500 * MS));
        }
        assert_eq!(subscriber.answered(NOW, &failure), Verdict::Over(Over::Failed));
        assert_eq!(subscriber.over(), Some(Over::Failed));
    }
    let mut patient = with(Settings {
        failures: None,
        ..Settings::default()
    });
    for _ in 0..1000 {
        assert_eq!(patient.answered(NOW, &Outcome::Broken), Verdict::AskAt(NOW + 500 * MS));
    }
}

#[test]
fn c06_silence_is_no_failure() {
    let mut subscriber = at(Wanted::Number(9));
    for _ in 0..100 {
        assert_eq!(subscriber.answered(NOW, &Outcome::Silent), Verdict::Ask);
        assert_eq!(subscriber.ask(), Wanted::Number(9));
    }
}

#[test]
fn c07_an_empty_segment_is_skipped() {
    let mut subscriber = at(Wanted::Number(3));
    assert_eq!(read(&mut subscriber, &data(3, None)), (3, 0, false));
    assert_eq!(subscriber.answered(NOW, &empty(4, 5)), Verdict::Ask);
    assert_eq!(subscriber.ask(), Wanted::Number(5));
    assert_eq!(
        read(&mut subscriber, &data(5, None)),
        (5, 0, false),
        "nothing was missed"
    );
}

#[test]
fn c08_an_empty_segment_of_an_older_server_is_skipped_too() {
    let mut subscriber = at(Wanted::Number(3));
    // It says "missing" with a number that says that it should be there, or just does not exist yet.
    for latest in [3, 4, 5] {
        subscriber.seek(Wanted::Number(3));
        assert_eq!(subscriber.answered(NOW, &missing(latest)), Verdict::Ask);
        assert_eq!(subscriber.ask(), Wanted::Number(4));
    }
    assert_eq!(subscriber.answered(NOW, &missing(3)), Verdict::AskAt(NOW + 250 * MS));
    assert_eq!(subscriber.ask(), Wanted::Number(4));
}

#[test]
fn a_channel_that_has_ended_is_over() {
    let mut subscriber = at(Wanted::Next);
    let closed = Outcome::Answered(Answer {
        closed: true,
        seq: Some(1),
        ..Answer::bare(200)
    });
    assert_eq!(subscriber.answered(NOW, &closed), Verdict::Over(Over::Closed));
}

#[test]
fn an_answer_with_another_number_is_taken_at_its_word() {
    let mut subscriber = at(Wanted::Number(3));
    assert_eq!(read(&mut subscriber, &data(3, None)), (3, 0, false));
    assert_eq!(read(&mut subscriber, &data(9, None)), (9, 5, true));
    assert_eq!(read(&mut subscriber, &data(2, None)), (2, 0, true));
    let nameless = Outcome::Answered(Answer::bare(200));
    assert_eq!(read(&mut subscriber, &nameless), (3, 0, false), "the one asked for");
    subscriber.seek(Wanted::Next);
    assert_eq!(
        subscriber.answered(NOW, &nameless),
        Verdict::AskAt(NOW + 500 * MS),
        "which one, nobody knows"
    );
}

#[test]
fn numbers_end_where_they_end() {
    let mut subscriber = at(Wanted::Number(MAX_SEQ));
    let empty = Outcome::Answered(Answer {
        empty: true,
        ..Answer::bare(200)
    });
    assert_eq!(subscriber.answered(NOW, &empty), Verdict::Ask);
    // A server that goes on all the same, without saying how.
    for _ in 0..5 {
        assert!(matches!(subscriber.answered(NOW, &empty), Verdict::AskAt(_)));
        assert_eq!(subscriber.ask(), Wanted::Number(MAX_SEQ + 1));
    }
    assert_eq!(subscriber.answered(NOW, &empty), Verdict::Over(Over::Failed));
}

#[test]
fn a_segment_that_broke_is_taken_up_where_it_broke() {
    let mut subscriber = at(Wanted::Number(3));
    assert_eq!(read(&mut subscriber, &data(3, None)), (3, 0, false));
    assert_eq!(subscriber.broke(NOW, 3, 1000), Verdict::AskAt(NOW + 500 * MS));
    assert_eq!(subscriber.ask(), Wanted::Number(3));
    let verdict = subscriber.answered(NOW, &data(3, Some(4)));
    assert!(
        matches!(
            verdict,
            Verdict::Read {
                seq: 3,
                resume: 1000,
                discont: false,
                ..
            }
        ),
        "{verdict:?}"
    );
    // Gone in the meantime: nothing is left out of another segment.
    let _ = subscriber.broke(NOW, 3, 1000);
    assert_eq!(subscriber.answered(NOW, &missing(30)), Verdict::Ask);
    let verdict = subscriber.answered(NOW, &data(30, None));
    assert!(
        matches!(
            verdict,
            Verdict::Read {
                seq: 30,
                resume: 0,
                discont: true,
                ..
            }
        ),
        "{verdict:?}"
    );
}

#[test]
fn c11_the_position_can_be_set() {
    let mut subscriber = at(Wanted::Number(3));
    assert_eq!(read(&mut subscriber, &data(3, None)), (3, 0, false));
    subscriber.seek(Wanted::Number(1));
    assert_eq!(subscriber.ask(), Wanted::Number(1));
    assert_eq!(read(&mut subscriber, &data(1, Some(4))), (1, 0, true));
    assert_eq!(read(&mut subscriber, &data(2, Some(4))), (2, 0, false));
}

#[test]
fn another_server_is_asked_for_the_same_number_and_believed() {
    let mut subscriber = at(Wanted::Next);
    assert_eq!(read(&mut subscriber, &data(50, None)), (50, 0, false));
    subscriber.moved();
    assert_eq!(subscriber.ask(), Wanted::Number(51));
    assert_eq!(subscriber.answered(NOW, &missing(49)), Verdict::AskAt(NOW + 250 * MS));
    assert_eq!(subscriber.ask(), Wanted::Next);
    assert_eq!(read(&mut subscriber, &data(49, None)), (49, 0, true));
}
