//! How many frames are in a model's hands at once.
//!
//! Each element of a graph holds a few frames while the next is busy. That keeps a model fed, and is nothing but delay
//! where frames come faster than it runs: they are better dropped while they wait in their stream's flight buffer,
//! which knows which. So a frame enters when there is room, and streams that wait do so in turn.

use std::collections::{HashMap, VecDeque};

use parking_lot::{Condvar, Mutex};

/// Counts frames in and out.
#[derive(Debug)]
pub(crate) struct Gate {
    least: usize,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Timestamps of the frames that each stream has inside, in their order.
    streams: HashMap<u32, VecDeque<u64>>,
    inside: usize,
    /// Streams that wait, who came first in front.
    queue: VecDeque<u32>,
}

impl Gate {
    /// Lets so many in, or one of each stream where that is more.
    pub(crate) fn new(least: usize) -> Self {
        Self {
            least: least.max(1),
            state: Mutex::default(),
            news: Condvar::new(),
        }
    }

    /// Counts the frames of this stream from now on.
    pub(crate) fn open(&self, stream: u32) {
        self.state.lock().streams.entry(stream).or_default();
        self.news.notify_all();
    }

    /// Waits until a frame of this timestamp may go in, or until its stream is counted no more.
    pub(crate) fn enter(&self, stream: u32, pts: u64) {
        let mut state = self.state.lock();
        state.queue.push_back(stream);
        while state.streams.contains_key(&stream)
            && (state.inside >= self.least.max(state.streams.len())
                || state.queue.front().is_none_or(|first| *first != stream))
        {
            self.news.wait(&mut state);
        }
        if let Some(at) = state.queue.iter().position(|each| *each == stream) {
            state.queue.remove(at);
        }
        if let Some(frames) = state.streams.get_mut(&stream) {
            frames.push_back(pts);
            state.inside += 1;
        }
        // There may be room for the next, too.
        self.news.notify_all();
    }

    /// The frame of this timestamp is out; those before it that have not been seen never will be.
    pub(crate) fn exit(&self, stream: u32, pts: u64) {
        let mut state = self.state.lock();
        let Some(frames) = state.streams.get_mut(&stream) else {
            return;
        };
        let Some(at) = frames.iter().position(|each| *each == pts) else {
            return;
        };
        frames.drain(..=at);
        state.inside -= at + 1;
        self.news.notify_all();
    }

    /// Counts this stream no more, and lets go who waits for it.
    pub(crate) fn close(&self, stream: u32) {
        let mut state = self.state.lock();
        if let Some(frames) = state.streams.remove(&stream) {
            state.inside -= frames.len();
        }
        self.news.notify_all();
    }

    /// The same for all of them.
    pub(crate) fn close_all(&self) {
        let mut state = self.state.lock();
        state.streams.clear();
        state.inside = 0;
        self.news.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Enters on a thread of its own, and tells when it is in.
    fn enter(gate: &Arc<Gate>, stream: u32, pts: u64) -> Receiver<()> {
        let (gate, (done, entered)) = (gate.clone(), sync_channel(1));
        thread::spawn(move || {
            gate.enter(stream, pts);
            let _ = done.send(());
        });
        entered
    }

    fn is_in(entered: &Receiver<()>) {
        entered.recv_timeout(Duration::from_secs(10)).expect("it may go in");
    }

    fn waits(gate: &Gate, count: usize) {
        while gate.state.lock().queue.len() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_frame_enters_when_another_is_out() {
        let gate = Arc::new(Gate::new(2));
        gate.open(0);
        gate.enter(0, 1);
        gate.enter(0, 2);
        let third = enter(&gate, 0, 3);
        waits(&gate, 1);
        assert!(third.try_recv().is_err());
        gate.exit(0, 7);
        waits(&gate, 1);
        gate.exit(0, 1);
        is_in(&third);
        assert_eq!(gate.state.lock().inside, 2);
    }

    #[test]
    fn frames_that_were_lost_inside_take_no_room() {
        let gate = Gate::new(3);
        gate.open(0);
        (1..=3).for_each(|pts| gate.enter(0, pts));
        gate.exit(0, 3);
        assert_eq!(gate.state.lock().inside, 0);
    }

    #[test]
    fn streams_take_turns() {
        let gate = Arc::new(Gate::new(1));
        gate.open(0);
        gate.open(1);
        gate.enter(0, 1);
        gate.enter(0, 2);
        let again = enter(&gate, 0, 3);
        waits(&gate, 1);
        let other = enter(&gate, 1, 1);
        waits(&gate, 2);
        gate.exit(0, 1);
        is_in(&again);
        waits(&gate, 1);
        assert!(other.try_recv().is_err());
        gate.exit(0, 2);
        is_in(&other);
    }

    #[test]
    fn each_stream_makes_room_for_one_more() {
        let gate = Arc::new(Gate::new(1));
        gate.open(0);
        gate.enter(0, 1);
        let next = enter(&gate, 0, 2);
        waits(&gate, 1);
        gate.open(1);
        let other = enter(&gate, 1, 1);
        is_in(&next);
        waits(&gate, 1);
        gate.exit(0, 2);
        is_in(&other);
    }

    #[test]
    fn who_leaves_holds_nobody_up() {
        let gate = Arc::new(Gate::new(1));
        gate.open(0);
        gate.open(1);
        gate.enter(0, 1);
        gate.enter(0, 2);
        let own = enter(&gate, 0, 3);
        waits(&gate, 1);
        let other = enter(&gate, 1, 1);
        waits(&gate, 2);
        gate.close(0);
        is_in(&own);
        is_in(&other);
        assert_eq!(gate.state.lock().inside, 1);
        let last = enter(&gate, 1, 2);
        waits(&gate, 1);
        gate.close_all();
        is_in(&last);
    }
}
