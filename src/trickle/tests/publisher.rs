//! Numbers, and what becomes of failed segments.

use std::time::Duration;

use crate::trickle::publisher::*;
use crate::trickle::wire::{Answer, MAX_SEQ};

const NOW: Duration = Duration::from_secs(100);
const MS: Duration = Duration::from_millis(1);

fn ok() -> Outcome {
    Outcome::Answered(Answer::bare(200))
}

fn status(status: u16) -> Outcome {
    Outcome::Answered(Answer::bare(status))
}

fn at(seq: u64) -> Publisher {
    Publisher::new(Settings {
        start: Start::Number(seq),
        ..Settings::default()
    })
}

fn open(publisher: &mut Publisher) -> u64 {
    match publisher.allocate(NOW) {
        Allocate::Open { seq, .. } => seq,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p07_next_is_asked_and_the_first_post_resets() {
    let mut publisher = Publisher::new(Settings::default());
    assert_eq!(publisher.allocate(NOW), Allocate::Ask);
    let answer = Answer {
        latest: Some(7),
        ..Answer::bare(200)
    };
    assert_eq!(publisher.found(NOW, Some(&answer)), None);
    assert_eq!(publisher.allocate(NOW), Allocate::Open { seq: 7, reset: true });
    assert_eq!(publisher.allocate(NOW), Allocate::Open { seq: 8, reset: false });
}

#[test]
fn p08_a_server_that_does_not_know_next_is_at_zero() {
    for status in [400, 404, 405] {
        let mut publisher = Publisher::new(Settings::default());
        assert_eq!(publisher.found(NOW, Some(&Answer::bare(status))), None);
        assert_eq!(publisher.allocate(NOW), Allocate::Open { seq: 0, reset: false });
    }
}

#[test]
fn nobody_there_is_tried_again_with_growing_pauses() {
    let mut publisher = Publisher::new(Settings {
        failures: None,
        ..Settings::default()
    });
    let mut pauses = Vec::new();
    let mut now = NOW;
    for _ in 0..7 {
        assert_eq!(publisher.found(now, None), None);
        let Allocate::Wait(until) = publisher.allocate(now) else {
            panic!("no pause")
        };
        pauses.push((until - now).as_millis());
        now = until;
        assert_eq!(publisher.allocate(now), Allocate::Ask);
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
}

#[test]
fn a_refusal_is_final() {
    for code in [401, 403] {
        let mut publisher = Publisher::new(Settings::default());
        assert_eq!(
            publisher.found(NOW, Some(&Answer::bare(code))),
            Some(Over::Refused(code))
        );
        let mut publisher = at(0);
        let seq = open(&mut publisher);
        assert_eq!(
            publisher.answered(NOW, seq, &status(code), Sent::Nothing),
            Verdict::Over(Over::Refused(code))
        );
        assert_eq!(publisher.allocate(NOW), Allocate::Over(Over::Refused(code)));
    }
}

#[test]
fn answers_decide_what_becomes_of_a_segment() {
    let closed = Outcome::Answered(Answer {
        closed: true,
        ..Answer::bare(200)
    });
    let retry = Verdict::Retry(NOW + 250 * MS);
    let skip = |delete| Verdict::Skip { delete };
    let table = [
        (ok(), Sent::All, Verdict::Done),
        (ok(), Sent::Nothing, Verdict::Renumber),
        (ok(), Sent::Some, skip(false)),
        (closed.clone(), Sent::Nothing, Verdict::Over(Over::Closed)),
        (closed, Sent::All, Verdict::Over(Over::Closed)),
        (status(404), Sent::Nothing, Verdict::Over(Over::NoChannel)),
        (status(404), Sent::All, Verdict::Over(Over::NoChannel)),
        (status(500), Sent::All, skip(true)),
        (status(503), Sent::Nothing, skip(false)),
        (status(413), Sent::Some, skip(true)),
        (Outcome::Broken, Sent::Nothing, retry),
        (Outcome::Broken, Sent::Some, skip(true)),
        (Outcome::Broken, Sent::All, skip(true)),
    ];
    for (outcome, sent, verdict) in table {
        let mut publisher = at(0);
        let seq = open(&mut publisher);
        publisher.begun(seq);
        assert_eq!(
            publisher.answered(NOW, seq, &outcome, sent),
            verdict,
            "{outcome:?} {sent:?}"
        );
    }
}

#[test]
fn p09_a_segment_is_retried_once_and_only_while_it_is_the_newest() {
    let mut publisher = at(0);
    let seq = open(&mut publisher);
    publisher.begun(seq);
    assert_eq!(
        publisher.answered(NOW, seq, &Outcome::Broken, Sent::Nothing),
        Verdict::Retry(NOW + 250 * MS)
    );
    assert_eq!(
        publisher.answered(NOW, seq, &Outcome::Broken, Sent::Nothing),
        Verdict::Skip { delete: false }
    );
    assert_eq!(publisher.stats().retried, 1);

    let mut publisher = at(0);
    let (old, new) = (open(&mut publisher), open(&mut publisher));
    publisher.begun(old);
    publisher.begun(new);
    assert_eq!(
        publisher.answered(NOW, old, &Outcome::Broken, Sent::Nothing),
        Verdict::Skip { delete: false }
    );
}

#[test]
fn three_failures_in_a_row_are_the_end_and_a_success_between_is_not() {
    let mut publisher = at(0);
    let mut now = NOW;
    for outcome in [status(500), status(500), ok(), status(500), status(500)] {
        let Allocate::Open { seq, .. } = publisher.allocate(now) else {
            panic!("over too early")
        };
        let _ = publisher.answered(now, seq, &outcome, Sent::All);
        now += Duration::from_secs(10);
    }
    let Allocate::Open { seq, .. } = publisher.allocate(now) else {
        panic!("over too early")
    };
    assert_eq!(
        publisher.answered(now, seq, &status(500), Sent::All),
        Verdict::Over(Over::Failed)
    );
}

#[test]
fn a_server_on_which_every_number_is_dead_is_a_failure() {
    let mut publisher = at(0);
    for _ in 0..100 {
        let Allocate::Open { seq, .. } = publisher.allocate(NOW) else {
            return;
        };
        let _ = publisher.answered(NOW, seq, &ok(), Sent::Nothing);
    }
    panic!("numbers are tried for ever");
}

#[test]
fn so_many_are_on_their_way_at_once_and_one_is_preconnected() {
    let mut publisher = at(0);
    for expected in 0..3 {
        let seq = open(&mut publisher);
        assert_eq!(seq, expected);
        publisher.begun(seq);
    }
    assert_eq!(publisher.allocate(NOW), Allocate::Busy);
    assert_eq!(publisher.answered(NOW, 1, &ok(), Sent::All), Verdict::Done);
    assert_eq!(open(&mut publisher), 3);
    assert_eq!(open(&mut publisher), 4);
    assert_eq!(publisher.allocate(NOW), Allocate::Busy);
}

#[test]
fn an_unused_preconnect_gives_its_number_back() {
    let mut publisher = at(5);
    let seq = open(&mut publisher);
    publisher.unused(seq);
    assert_eq!((publisher.open(), open(&mut publisher)), (0, 5));
    let _ = open(&mut publisher);
    publisher.unused(5);
    assert_eq!(open(&mut publisher), 7, "6 is out already");
}

#[test]
fn numbers_run_out_without_harm() {
    let mut publisher = at(MAX_SEQ);
    assert_eq!(open(&mut publisher), MAX_SEQ);
    assert_eq!(publisher.allocate(NOW), Allocate::Over(Over::Exhausted));
}
