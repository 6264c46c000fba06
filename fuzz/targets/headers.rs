//! Heads of answers, and what publishers and subscribers make of any sequence of them.
//!
//! An input is a line per header, `name: value`; a line of three digits begins the next answer.

#![no_main]

use std::time::Duration;

use comfy_core::trickle::wire::{Answer, MAX_MIME, MAX_SEQ, Wanted};
use comfy_core::trickle::{publisher, subscriber};
use comfy_fuzz::settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(([how, start], rest)) = settings(input) else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let mut answers = Vec::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some((name, value)) => {
                let answer: &mut Answer = match answers.last_mut() {
                    Some(answer) => answer,
                    None => {
                        answers.push(Answer::bare(200));
                        answers.last_mut().expect("it was just put there")
                    }
                };
                answer.header(&name.to_ascii_lowercase(), value.trim());
                assert!(answer.latest.is_none_or(|latest| latest <= MAX_SEQ + 1));
                assert!(answer.mime.as_ref().is_none_or(|mime| mime.len() <= MAX_MIME));
            }
            None => answers.push(Answer::bare(line.trim().parse().unwrap_or(470))),
        }
    }
    let start = match start {
        0 => Wanted::Next,
        1 => Wanted::Current,
        255 => Wanted::Number(MAX_SEQ),
        number => Wanted::Number(number.into()),
    };
    subscribe(how, start, &answers);
    publish(how, start, &answers);
});

fn subscribe(how: u8, start: Wanted, answers: &[Answer]) {
    let lag = [
        subscriber::LagPolicy::Jump,
        subscriber::LagPolicy::Error,
        subscriber::LagPolicy::Earliest,
    ];
    let mut subscriber = subscriber::Subscriber::new(subscriber::Settings {
        start,
        wait_for_channel: how & 1 != 0,
        max_lag: (how & 2 != 0).then_some(u64::from(how >> 4)),
        lag: lag[usize::from(how >> 2 & 3) % 3],
        failures: (how & 16 != 0).then_some(2),
        ..subscriber::Settings::default()
    });
    let mut now = Duration::ZERO;
    for answer in answers {
        now += Duration::from_millis(10);
        // What is asked for can be asked for: as a number that a server understands.
        if let Wanted::Number(seq) = subscriber.ask() {
            assert!(seq <= MAX_SEQ + 2, "{seq}");
        }
        let outcome = match answer.status {
            0 => subscriber::Outcome::Broken,
            1 => subscriber::Outcome::Silent,
            _ => subscriber::Outcome::Answered(answer.clone()),
        };
        match subscriber.answered(now, &outcome) {
            subscriber::Verdict::Read { seq, .. } if how & 32 != 0 => match subscriber.broke(now, seq, 5) {
                subscriber::Verdict::AskAt(at) => assert!(at >= now),
                subscriber::Verdict::Over(_) => return,
                other => panic!("{other:?} after a break"),
            },
            subscriber::Verdict::Read { seq, .. } => subscriber.finished(seq),
            subscriber::Verdict::AskAt(at) => assert!(at >= now),
            subscriber::Verdict::Ask => (),
            subscriber::Verdict::Over(over) => {
                assert_eq!(subscriber.over(), Some(over));
                return;
            }
        }
    }
}

fn publish(how: u8, start: Wanted, answers: &[Answer]) {
    let mut publisher = publisher::Publisher::new(publisher::Settings {
        start: match start {
            Wanted::Next => publisher::Start::Next,
            Wanted::Current => publisher::Start::Reset,
            Wanted::Number(seq) => publisher::Start::Number(seq),
        },
        failures: (how & 16 != 0).then_some(2),
        ..publisher::Settings::default()
    });
    let mut now = Duration::ZERO;
    let mut answers = answers.iter();
    let mut given = 0_u64;
    loop {
        now += Duration::from_millis(10);
        match publisher.allocate(now) {
            publisher::Allocate::Ask => {
                let Some(answer) = answers.next() else { break };
                let _ = publisher.found(now, Some(answer).filter(|answer| answer.status > 1));
            }
            publisher::Allocate::Open { seq, .. } => {
                given += 1;
                assert!(seq <= MAX_SEQ, "{seq} cannot be asked for");
                let Some(answer) = answers.next() else { break };
                let outcome = match answer.status {
                    0 => publisher::Outcome::Broken,
                    _ => publisher::Outcome::Answered(answer.clone()),
                };
                let sent = [publisher::Sent::Nothing, publisher::Sent::Some, publisher::Sent::All];
                let sent = sent[(usize::from(how >> 6) + given as usize) % 3];
                let mut verdict = publisher.answered(now, seq, &outcome, sent);
                if let publisher::Verdict::Retry(at) = verdict {
                    assert!(at >= now);
                    verdict = publisher.answered(now, seq, &outcome, sent);
                    assert!(!matches!(verdict, publisher::Verdict::Retry(_)), "twice");
                }
            }
            publisher::Allocate::Busy => panic!("everything has been answered"),
            publisher::Allocate::Wait(at) => now = now.max(at),
            publisher::Allocate::Over(_) => break,
        }
    }
    let stats = publisher.stats();
    assert!(stats.done + stats.lost + stats.renumbered <= stats.opened, "{stats:?}");
}
