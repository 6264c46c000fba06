//! Where a stream's frames spend their time, and how many there are.

use std::collections::VecDeque;

use gst::prelude::*;
use parking_lot::Mutex;

use crate::link;
use crate::stream;
use crate::trace::Spread;

/// A moment in a frame's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Mark {
    /// Its last packet came, or its source gave it.
    Arrived,
    /// It is a picture.
    Decoded,
    /// It left the flight buffer.
    Released,
    /// The model is done with it.
    Processed,
    /// It reaches an encoder.
    Converted,
    /// It is encoded.
    Encoded,
    /// It is on its way to a peer.
    Sent,
}

const MARKS: usize = 7;
/// Frames that are on their way at most; older ones were dropped somewhere.
const OPEN: usize = 256;
/// How far back figures look, in nanoseconds.
const SPAN: u64 = 10_000_000_000;
/// Frames in that span at most: 120 a second.
const FRAMES: usize = 1200;
/// Seconds with a figure of their own.
const SECONDS: usize = 60;

/// The times of one frame, in nanoseconds of running time; 0: not there yet.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    pts: u64,
    at: [u64; MARKS],
}

#[derive(Debug, Default)]
struct State {
    open: VecDeque<Times>,
    done: VecDeque<Times>,
    counted: [u64; MARKS],
    /// Arrivals and departures of the last span.
    arrivals: VecDeque<u64>,
    departures: VecDeque<u64>,
    /// Departures of each whole second, with the second in Unix time.
    seconds: VecDeque<(u64, u32)>,
}

/// Notes of a stream's frames.
#[derive(Debug, Default)]
pub struct Stages(Mutex<State>);

impl Stages {
    /// Notes that the frame of this timestamp, in running time, is there now.
    pub fn mark(&self, mark: Mark, pts: gst::ClockTime) {
        let unix = unix();
        self.mark_at(mark, pts.nseconds(), link::now().nseconds().max(1), unix);
    }

    fn mark_at(&self, mark: Mark, pts: u64, now: u64, unix: u64) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let found = state.open.iter().rposition(|times| times.pts == pts);
        let at = match found {
            Some(at) => at,
            // The first that is seen of a frame; of one that was given up nothing more is noted.
            None if mark == Mark::Arrived || mark == Mark::Decoded => {
                if state.open.len() == OPEN {
                    state.open.pop_front();
                }
                state.open.push_back(Times {
                    pts,
                    ..Times::default()
                });
                state.open.len() - 1
            }
            None => return,
        };
        let times = &mut state.open[at];
        // A frame that goes to several peers is measured with the first of them.
        if times.at[mark as usize] != 0 && mark != Mark::Arrived {
            return;
        }
        if times.at[mark as usize] == 0 {
            state.counted[mark as usize] += 1;
        }
        times.at[mark as usize] = now;
        if mark == Mark::Decoded {
            note(&mut state.arrivals, now);
        }
        if mark == Mark::Processed {
            note(&mut state.departures, now);
            match state.seconds.back_mut() {
                Some((second, count)) if *second == unix => *count += 1,
                _ => {
                    if state.seconds.len() > SECONDS {
                        state.seconds.pop_front();
                    }
                    state.seconds.push_back((unix, 1));
                }
            }
        }
        if mark == Mark::Sent {
            let times = state.open.remove(at).expect("found above");
            if state.done.len() == FRAMES {
                state.done.pop_front();
            }
            state.done.push_back(times);
        }
    }

    /// Marks each frame that passes a pad. Frames are known by their time, so `pad` must be one where a buffer, or
    /// the first of a frame's several, has the frame's timestamp.
    pub fn watch(self: &std::sync::Arc<Self>, pad: &gst::Pad, mark: Mark) {
        let stages = self.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |pad, info| {
            let pts = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => buffer.pts(),
                Some(gst::PadProbeData::BufferList(list)) => list.get(0).and_then(|buffer| buffer.pts()),
                _ => None,
            };
            if let Some(time) = pts.and_then(|pts| running_time(pad, pts)) {
                stages.mark(mark, time);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Frames that were seen there.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.lock().counted[mark as usize]
    }

    /// Frames per second that came, and that went, now.
    pub fn rates(&self) -> (f64, f64) {
        let now = link::now().nseconds();
        let state = self.0.lock();
        (rate(&state.arrivals, now), rate(&state.departures, now))
    }

    /// Figures of the last minute: Unix seconds, and frames that went in that second.
    pub fn minute(&self) -> Vec<(f64, f64)> {
        let unix = unix();
        let state = self.0.lock();
        let Some((first, _)) = state.seconds.front() else {
            return Vec::new();
        };
        // Seconds without a frame count as well; the one that is going on does not.
        (unix.saturating_sub(SECONDS as u64).max(*first)..unix)
            .map(|second| {
                let found = state.seconds.iter().find(|(at, _)| *at == second);
                (second as f64, found.map_or(0.0, |(_, count)| f64::from(*count)))
            })
            .collect()
    }

    /// What frames waited for.
    pub fn summary(&self) -> stream::Stages {
        self.summary_at(link::now().nseconds())
    }

    fn summary_at(&self, now: u64) -> stream::Stages {
        let state = self.0.lock();
        let recent: Vec<Times> = state
            .done
            .iter()
            .filter(|times| times.at[Mark::Sent as usize] + SPAN >= now)
            .copied()
            .collect();
        drop(state);
        // A mark that a stream does not have, such as the flight buffer's without a model, took no time.
        let between = |to: Mark| {
            Spread::of(recent.iter().filter_map(|times| {
                let before = times.at[..to as usize].iter().rev().find(|at| **at != 0)?;
                let at = times.at[to as usize];
                (at != 0).then(|| at.saturating_sub(*before))
            }))
        };
        stream::Stages {
            decode: between(Mark::Decoded),
            buffer: between(Mark::Released),
            model: between(Mark::Processed),
            convert: between(Mark::Converted),
            encode: between(Mark::Encoded),
            send: between(Mark::Sent),
            total: Spread::of(recent.iter().filter_map(|times| {
                let first = times.at.iter().find(|at| **at != 0)?;
                Some(times.at[Mark::Sent as usize].saturating_sub(*first))
            })),
        }
    }

    /// How long ago, on average, the frames that go out now were taken: their age by their own timestamps.
    pub fn age(&self) -> Option<gst::ClockTime> {
        let now = link::now().nseconds();
        let state = self.0.lock();
        let ages = state
            .done
            .iter()
            .rev()
            .map(|times| (times.at[Mark::Sent as usize], times.pts))
            .take_while(|(sent, _)| sent + 2_000_000_000 >= now)
            .map(|(sent, pts)| sent.saturating_sub(pts));
        let mut ages: Vec<u64> = ages.collect();
        if ages.is_empty() {
            return None;
        }
        ages.sort_unstable();
        Some(gst::ClockTime::from_nseconds(ages[ages.len() / 2]))
    }
}

/// The running time of a timestamp on a pad.
pub(crate) fn running_time(pad: &gst::Pad, pts: gst::ClockTime) -> Option<gst::ClockTime> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(pts)
}

/// Whole seconds of Unix time.
fn unix() -> u64 {
    u64::try_from(glib::real_time() / 1_000_000).unwrap_or(0)
}

fn note(times: &mut VecDeque<u64>, now: u64) {
    times.push_back(now);
    while times.len() > FRAMES || times.front().is_some_and(|first| first + SPAN < now) {
        times.pop_front();
    }
}

/// Of the last two seconds, so that a change is seen at once.
fn rate(times: &VecDeque<u64>, now: u64) -> f64 {
    let recent = times.iter().filter(|time| **time + 2_000_000_000 >= now);
    let count = recent.clone().count();
    let Some(first) = recent.clone().next() else { return 0.0 };
    let last = times.back().copied().unwrap_or(*first);
    if count < 2 || last <= *first {
        return 0.0;
    }
    // When nothing comes any more the rate falls, although the intervals of what came stay.
    let span = (last - first).max(
        now.saturating_sub(*first)
            .saturating_sub((last - first) / (count as u64 - 1)),
    );
    (count - 1) as f64 * 1e9 / span as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn frame(stages: &Stages, pts: u64, marks: &[(Mark, u64)]) {
        for (mark, after) in marks {
            stages.mark_at(*mark, pts, pts + after * MS, 1);
        }
    }

    #[test]
    fn stages_add_up_to_the_whole() {
        gst::init().unwrap();
        let stages = Stages::default();
        for n in 1..=100 {
            frame(
                &stages,
                n * 33 * MS,
                &[
                    (Mark::Arrived, 1),
                    (Mark::Decoded, 3),
                    (Mark::Released, 4),
                    (Mark::Processed, 14),
                    (Mark::Converted, 15),
                    (Mark::Encoded, 20),
                    (Mark::Sent, 21),
                ],
            );
        }
        let all = stages.summary_at(100 * 33 * MS);
        let mean = [all.decode, all.buffer, all.model, all.convert, all.encode, all.send].map(|spread| spread.mean);
        assert_eq!(mean, [2.0, 1.0, 10.0, 1.0, 5.0, 1.0]);
        assert_eq!(all.total.mean, 20.0);
        assert_eq!(stages.count(Mark::Sent), 100);
    }

    #[test]
    fn a_stage_that_a_stream_has_not_takes_no_time_from_the_next() {
        gst::init().unwrap();
        let stages = Stages::default();
        frame(
            &stages,
            MS,
            &[
                (Mark::Decoded, 3),
                (Mark::Converted, 5),
                (Mark::Encoded, 9),
                (Mark::Sent, 10),
            ],
        );
        let all = stages.summary_at(20 * MS);
        assert_eq!(
            (all.model, all.convert.mean, all.total.mean),
            (Spread::default(), 2.0, 7.0)
        );
    }

    #[test]
    fn frames_that_never_leave_are_forgotten() {
        gst::init().unwrap();
        let stages = Stages::default();
        for n in 1..=10_000 {
            frame(&stages, n * MS, &[(Mark::Arrived, 1), (Mark::Decoded, 2)]);
        }
        assert_eq!(stages.0.lock().open.len(), OPEN);
        frame(&stages, 5 * MS, &[(Mark::Sent, 30)]);
        assert_eq!(stages.count(Mark::Sent), 0);
    }

    #[test]
    fn what_is_old_counts_no_more() {
        gst::init().unwrap();
        let stages = Stages::default();
        frame(&stages, MS, &[(Mark::Decoded, 1), (Mark::Sent, 2)]);
        assert_eq!(stages.summary_at(SPAN + 4 * MS).total, Spread::default());
    }

    #[test]
    fn rates_are_of_now() {
        let times: VecDeque<u64> = (0..=60).map(|n| n * 1_000_000_000 / 30).collect();
        assert!((rate(&times, 2_000_000_000) - 30.0).abs() < 0.1);
        assert!(rate(&times, 3_500_000_000) < 15.0);
        assert_eq!(rate(&times, 5_000_000_000), 0.0);
    }
}
