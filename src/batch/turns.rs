//! Whose frame comes next when several streams run as fast as they can.
//!
//! A live stream is paced by its source. One that is not, a file say, runs ahead of the others until every queue
//! downstream is full of its frames, and the frames of the others, for which some sink still waits, stand behind them:
//! nothing moves again. So streams that are not live take turns by running time, as in any muxer.

use std::time::Duration;

/// How far each stream has come.
#[derive(Debug)]
pub struct Turns<K> {
    streams: Vec<(K, Progress)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It has sent nothing yet, or starts anew.
    Unknown,
    /// Its next frame is not before this running time.
    Reached(Duration),
    /// It sends nothing any more.
    Ended,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { streams: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Turns<K> {
    /// A stream is there: the others wait until something is known of it. One that is there already starts anew.
    pub fn join(&mut self, stream: K) {
        match self.streams.iter_mut().find(|(key, _)| *key == stream) {
            Some((_, progress)) => *progress = Progress::Unknown,
            None => self.streams.push((stream, Progress::Unknown)),
        }
    }

    /// A stream is gone: nobody waits for it.
    pub fn leave(&mut self, stream: K) {
        self.streams.retain(|(key, _)| *key != stream);
    }

    /// A stream has a frame of this running time, or says that it has none before it.
    pub fn reached(&mut self, stream: K, time: Duration) {
        self.set(stream, Progress::Reached(time));
    }

    /// A stream sends nothing any more.
    pub fn ended(&mut self, stream: K) {
        self.set(stream, Progress::Ended);
    }

    /// Whether a frame of this running time may go: no other stream can still send an earlier one.
    pub fn may_go(&self, stream: K, time: Duration) -> bool {
        self.streams
            .iter()
            .filter(|(key, _)| *key != stream)
            .all(|(_, progress)| match progress {
                Progress::Unknown => false,
                Progress::Reached(reached) => *reached >= time,
                Progress::Ended => true,
            })
    }

    fn set(&mut self, stream: K, progress: Progress) {
        if let Some((_, known)) = self.streams.iter_mut().find(|(key, _)| *key == stream) {
            *known = progress;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn two() -> Turns<char> {
        let mut turns = Turns::default();
        turns.join('a');
        turns.join('b');
        turns
    }

    #[test]
    fn single_stream_waits_for_nobody() {
        let mut turns = Turns::default();
        turns.join('a');
        assert!(turns.may_go('a', ms(0)));
        assert!(turns.may_go('a', ms(1_000_000)));
    }

    #[test]
    fn stream_waits_until_something_is_known_of_the_others() {
        let mut turns = two();
        assert!(!turns.may_go('a', ms(0)));
        turns.reached('b', ms(0));
        assert!(turns.may_go('a', ms(0)), "frames of one time go in any order");
    }

    #[test]
    fn earlier_frame_goes_first() {
        let mut turns = two();
        turns.reached('a', ms(40));
        turns.reached('b', ms(33));
        assert!(!turns.may_go('a', ms(40)));
        assert!(turns.may_go('b', ms(33)));
        turns.reached('b', ms(66));
        assert!(turns.may_go('a', ms(40)));
    }

    #[test]
    fn nobody_waits_for_a_stream_that_ended_or_left() {
        let mut turns = two();
        turns.ended('b');
        assert!(turns.may_go('a', ms(500)));
        turns.join('b');
        assert!(!turns.may_go('a', ms(500)), "it starts anew");
        turns.leave('b');
        assert!(turns.may_go('a', ms(500)));
    }

    #[test]
    fn some_frame_may_always_go_once_all_have_come() {
        // Any progress of any three streams: the earliest is never held.
        for times in [[0, 0, 0], [3, 2, 1], [1, 3, 2], [7, 7, 2]] {
            let mut turns = Turns::default();
            for (stream, time) in times.iter().enumerate() {
                turns.join(stream);
                turns.reached(stream, ms(*time));
            }
            assert!(
                times
                    .iter()
                    .enumerate()
                    .any(|(stream, time)| turns.may_go(stream, ms(*time))),
                "{times:?}"
            );
        }
    }
}
