//! When each frame passed each point of the chain, seen by probes from outside.

use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;
use parking_lot::Mutex;
use serde::Serialize;

use crate::infergraph::{FlightStats, InferGraph};

/// Times of every frame of one stream through an [`InferGraph`]. Frames keep their order, so the n-th to pass a point
/// is the n-th everywhere, unless the flight buffer was told to drop.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Mutex<Marks>>);

/// Monotonic nanoseconds.
#[derive(Debug, Default)]
struct Marks {
    arrived: Vec<u64>,
    left_buffer: Vec<u64>,
    batched: Vec<u64>,
    inferred: Vec<u64>,
    left: Vec<u64>,
    /// The model was loaded and warm.
    ready: Option<u64>,
    /// Frames in the flight buffer when each batch left.
    fills: Vec<(u64, u32)>,
}

/// How long frames took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// Where the time of a frame goes. Waiting for the model to be loaded is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Latency {
    /// In the flight buffer.
    pub buffered: Spread,
    /// In comfybatch, until its batch was complete and the model took it.
    pub batching: Spread,
    /// In comfyinfer: waiting for the batch before, conversion, run, and conversion back.
    pub inference: Spread,
    /// In comfyunbatch, until whatever follows took it.
    pub unbatching: Spread,
    /// All of it.
    pub total: Spread,
}

/// Frames in the flight buffer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Fill {
    /// Least, seen when a batch left.
    pub min: u32,
    /// On average.
    pub mean: f64,
    /// Most.
    pub max: u32,
    /// Means of equal spans of time, in order.
    pub over_time: Vec<f64>,
}

/// What a trace says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Frames that came in and went out.
    pub frames: (u64, u64),
    /// Where the time goes.
    pub latency: Latency,
    /// The flight buffer.
    pub fill: Fill,
    /// From the model being ready to the last frame.
    pub busy: Duration,
    /// From the first frame's arrival to the model being ready.
    pub loading: Duration,
}

impl Trace {
    /// Puts probes on a chain; before it starts.
    pub fn attach(graph: &InferGraph) -> Self {
        let trace = Self(Arc::default());
        trace.count(&graph.sink(), |marks, now, _| marks.arrived.push(now));
        trace.count(&src(graph.flight()), |marks, now, _| marks.left_buffer.push(now));
        let flight = graph.flight().downgrade();
        let batched = trace.0.clone();
        src(graph.batch()).add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let frames = info.buffer().map_or(0, |batch| frames_of(batch));
            let fill = flight.upgrade().map_or(0, |flight| FlightStats::read(&flight).fill);
            let now = now();
            let mut marks = batched.lock();
            marks.batched.extend(std::iter::repeat_n(now, frames));
            marks.fills.push((now, fill));
            gst::PadProbeReturn::Ok
        });
        trace.count(&src(graph.infer()), |marks, now, batch| {
            marks.inferred.extend(std::iter::repeat_n(now, frames_of(batch)));
        });
        let ready = trace.0.clone();
        src(graph.infer()).add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Caps) {
                // Caps may change before the first frame, and the model is warmed up anew.
                let mut marks = ready.lock();
                if marks.inferred.is_empty() {
                    marks.ready = Some(now());
                }
            }
            gst::PadProbeReturn::Ok
        });
        trace.count(&graph.src(), |marks, now, _| marks.left.push(now));
        trace
    }

    fn count(&self, pad: &gst::Pad, mark: impl Fn(&mut Marks, u64, &gst::BufferRef) + Send + Sync + 'static) {
        let marks = self.0.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let now = now();
            if let Some(buffer) = info.buffer() {
                mark(&mut marks.lock(), now, buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// What was seen so far; `spans` is the number of parts of [`Fill::over_time`].
    pub fn summary(&self, spans: usize) -> Summary {
        let marks = self.0.lock();
        let first = marks.arrived.first().copied().unwrap_or_default();
        let ready = marks.ready.unwrap_or(first).max(first);
        let last = marks.left.last().copied().unwrap_or(ready);
        let between = |from: &[u64], to: &[u64]| {
            Spread::of(
                from.iter()
                    .zip(to)
                    .map(|(from, to)| (*to).max(ready) - (*from).max(ready).min((*to).max(ready))),
            )
        };
        Summary {
            frames: (marks.arrived.len() as u64, marks.left.len() as u64),
            latency: Latency {
                buffered: between(&marks.arrived, &marks.left_buffer),
                batching: between(&marks.left_buffer, &marks.batched),
                inference: between(&marks.batched, &marks.inferred),
                unbatching: between(&marks.inferred, &marks.left),
                total: between(&marks.arrived, &marks.left),
            },
            fill: Fill::of(&marks.fills, spans),
            busy: Duration::from_nanos(last.saturating_sub(ready)),
            loading: Duration::from_nanos(ready - first),
        }
    }
}

impl Spread {
    /// Of nanoseconds.
    pub fn of(times: impl Iterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times.collect();
        if times.is_empty() {
            return Self::default();
        }
        times.sort_unstable();
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |share: f64| ms(times[((times.len() - 1) as f64 * share).round() as usize]);
        Self {
            mean: times.iter().map(|time| ms(*time)).sum::<f64>() / times.len() as f64,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

impl Fill {
    fn of(fills: &[(u64, u32)], spans: usize) -> Self {
        let (Some((first, _)), Some((last, _))) = (fills.first(), fills.last()) else {
            return Self::default();
        };
        let length = (last - first).max(1);
        let mut sums = vec![(0.0, 0u32); spans];
        for (time, fill) in fills {
            let at = (u128::from(time - first) * spans as u128 / u128::from(length)) as usize;
            if let Some((sum, count)) = sums.get_mut(at.min(spans.saturating_sub(1))) {
                *sum += f64::from(*fill);
                *count += 1;
            }
        }
        let mut over_time: Vec<f64> = Vec::with_capacity(spans);
        for (sum, count) in sums {
            // A span without a batch: what was there has stayed.
            let before = over_time.last().copied().unwrap_or_default();
            over_time.push(if count == 0 { before } else { sum / f64::from(count) });
        }
        let values = || fills.iter().map(|(_, fill)| *fill);
        Self {
            min: values().min().unwrap_or_default(),
            mean: values().map(f64::from).sum::<f64>() / fills.len() as f64,
            max: values().max().unwrap_or_default(),
            over_time,
        }
    }
}

/// A batch numbers its frames by its offsets.
fn frames_of(batch: &gst::BufferRef) -> usize {
    match (batch.offset(), batch.offset_end()) {
        (u64::MAX, _) | (_, u64::MAX) => 0,
        (first, end) => end.saturating_sub(first) as usize,
    }
}

fn src(element: &gst::Element) -> gst::Pad {
    element
        .static_pad("src")
        .expect("these elements have a pad of this name")
}

fn now() -> u64 {
    gst::get_timestamp().nseconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let spread = Spread::of((1..=101).map(|n| n * 1_000_000));
        assert_eq!(
            (spread.p50, spread.p95, spread.p99, spread.max),
            (51.0, 96.0, 100.0, 101.0)
        );
        assert_eq!(spread.mean, 51.0);
        assert_eq!(Spread::of([].into_iter()), Spread::default());
    }

    #[test]
    fn fill_over_time_holds_where_nothing_was_seen() {
        let fill = Fill::of(&[(0, 4), (10, 2), (99, 8), (100, 6)], 4);
        assert_eq!(fill.over_time, [3.0, 3.0, 3.0, 7.0]);
        assert_eq!((fill.min, fill.max, fill.mean), (2, 8, 5.0));
        assert_eq!(Fill::of(&[], 4), Fill::default());
    }
}
