//! What comfybatch's lock protects: the batcher, the streams, and the batches that wait to be pushed. Nothing here
//! calls out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use comfy_core::batch::latency::Waits;
use comfy_core::batch::turns::Turns;
use comfy_core::batch::{Batcher, Cut, Entry, Next, Reason, Settings as BatchSettings};
use comfy_core::timing::Longest;

use gst::prelude::*;

use super::Policy;
use super::imp::Settings;
use crate::batchcaps::{self, MAX_BATCH};
use crate::batchmeta::{Batch, Between, Frame, Spares};
use crate::burst::Burst;
use crate::stream;
use crate::streampad::ComfyStreamPad;
use crate::video;
use crate::wake::Timeline;

/// Batches that may wait for the src task: one to push while the next is taken.
const READY: usize = 2;

/// Why batches left, with the names used in `stats`.
const REASONS: [(Reason, &str); 8] = [
    (Reason::Full, "full"),
    (Reason::Timeout, "timeout"),
    (Reason::Gap, "gap"),
    (Reason::Caps, "caps"),
    (Reason::Segment, "segment"),
    (Reason::Eos, "eos"),
    (Reason::Flush, "flush"),
    (Reason::Drain, "drain"),
];

/// A frame on its way through the batcher.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) buffer: gst::Buffer,
    pub(super) running: Option<gst::ClockTime>,
    pub(super) sequence: u64,
}

/// What the src task pushes.
pub(super) enum Out {
    Batch {
        batch: Batch,
        group: Option<u64>,
        pts: Option<gst::ClockTime>,
        duration: Option<gst::ClockTime>,
    },
    Eos(gst::Event),
}

struct Stream {
    pad: Option<ComfyStreamPad>,
    caps: Option<gst::Caps>,
    group: u64,
    frame: Option<Duration>,
    segment: gst::FormattedSegment<gst::ClockTime>,
    eos: bool,
    live: bool,
    flushing: bool,
    /// Whether the flush in progress is the whole element's.
    flushed_alone: bool,
    /// Flushes of its own so far.
    flushes: u64,
    closed: bool,
    sequence: u64,
    burst: usize,
    /// For learning the rate: arrivals so far and the first one's running time.
    arrivals: u32,
    first: Option<gst::ClockTime>,
}

impl Stream {
    fn new() -> Self {
        Self {
            pad: None,
            caps: None,
            group: 0,
            frame: None,
            segment: gst::FormattedSegment::new(),
            eos: false,
            live: false,
            flushing: false,
            flushed_alone: false,
            flushes: 0,
            closed: false,
            sequence: 0,
            burst: 0,
            arrivals: 0,
            first: None,
        }
    }
}

pub(super) struct State {
    pub(super) batcher: Batcher<u32, Arrived, gst::Event>,
    pub(super) timeline: Timeline,
    /// What chain functions answer: the src task's last word, Flushing when stopped.
    pub(super) flow: Result<gst::FlowSuccess, gst::FlowError>,
    settings: Settings,
    preferred: Option<usize>,
    live: bool,
    streams: BTreeMap<u32, Stream>,
    /// Streams that are not live take turns.
    turns: Turns<u32>,
    /// Caps by group; a group is one set of caps that frames of a batch share.
    groups: Vec<(u64, gst::Caps)>,
    next_group: u64,
    ready: VecDeque<Out>,
    deadline: Option<Duration>,
    idle: bool,
    eos_sent: bool,
    started: bool,
    segment_sent: bool,
    /// Group and capacity of the caps that downstream has.
    sent_caps: Option<(u64, usize)>,
    /// How much longer than it should a batch lately took to fill.
    overrun: Longest,
    scratch: Vec<Entry<u32, Arrived, gst::Event>>,
    spares: Arc<Spares>,
    sequence: u64,
    /// Statistics of the last run, while there is none.
    last: Option<gst::Structure>,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        let mut state = Self {
            batcher: Batcher::new(BatchSettings::default()),
            timeline: Timeline::default(),
            flow: Err(gst::FlowError::Flushing),
            settings,
            preferred: None,
            live: false,
            streams: BTreeMap::new(),
            turns: Turns::default(),
            groups: Vec::new(),
            next_group: 1,
            ready: VecDeque::with_capacity(READY + 1),
            deadline: None,
            idle: false,
            eos_sent: false,
            started: false,
            segment_sent: false,
            sent_caps: None,
            overrun: Longest::default(),
            scratch: Vec::new(),
            spares: Arc::default(),
            sequence: 0,
            last: None,
        };
        state.apply();
        state
    }

    /// READY to PAUSED: everything but the pads starts anew.
    pub(super) fn start(&mut self, settings: Settings) {
        let timeline = std::mem::take(&mut self.timeline);
        let pads: Vec<(u32, Option<ComfyStreamPad>)> = self.streams.iter().map(|(k, s)| (*k, s.pad.clone())).collect();
        *self = Self {
            timeline,
            ..Self::new(settings)
        };
        for (number, pad) in pads {
            let linked = pad.as_ref().is_some_and(|pad| pad.is_linked());
            self.streams.insert(number, Stream { pad, ..Stream::new() });
            self.batcher.join(number);
            if linked {
                self.turns.join(number);
            }
        }
    }

    /// PAUSED to READY: frames and events are let go. What `stats` says stays until the next start.
    pub(super) fn clear(&mut self) {
        let (settings, stats) = (self.settings, self.stats());
        self.start(settings);
        self.last = Some(stats);
    }

    // --- settings -------------------------------------------------------------------------------------------

    pub(super) fn size(&self) -> usize {
        match self.settings.batch_size as usize {
            0 => self.preferred.unwrap_or(1),
            n => n,
        }
        .clamp(1, MAX_BATCH)
    }

    pub(super) fn is_size_open(&self) -> bool {
        self.settings.batch_size == 0 && self.preferred.is_none()
    }

    pub(super) fn set_preferred_size(&mut self, size: usize) {
        self.preferred = Some(size);
        self.apply();
    }

    /// True when the LATENCY answer changes.
    pub(super) fn configure(&mut self, settings: Settings) -> bool {
        let before = self.waits().latency();
        self.settings = settings;
        self.apply();
        self.waits().latency() != before
    }

    fn apply(&mut self) {
        let size = self.size();
        self.batcher.configure(BatchSettings {
            size,
            timeout: self.timeout(),
            policy: match self.settings.policy {
                Policy::Arrival => comfy_core::batch::Policy::Arrival,
                Policy::RoundRobin => comfy_core::batch::Policy::RoundRobin,
                Policy::EarliestDeadline => comfy_core::batch::Policy::EarliestDeadline,
            },
            queue: size,
        });
        self.batcher
            .set_window(self.frame_duration().map(|frame| frame * size as u32));
    }

    fn timeout(&self) -> Option<Duration> {
        match self.settings.timeout {
            u64::MAX if self.live => Waits {
                timeout: None,
                ..self.bare_waits()
            }
            .automatic_timeout(),
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// One live stream makes the whole live. True when that has changed.
    pub(super) fn set_stream_live(&mut self, stream: u32, live: bool) -> bool {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.live = live;
        }
        let live = self.streams.values().any(|stream| stream.live);
        self.set_live(live)
    }

    /// True when live or not has changed, and with it the timeout.
    pub(super) fn set_live(&mut self, live: bool) -> bool {
        if self.live == live {
            return false;
        }
        self.live = live;
        self.apply();
        true
    }

    // --- latency --------------------------------------------------------------------------------------------

    /// The slowest stream's.
    fn frame_duration(&self) -> Option<Duration> {
        self.streams.values().filter_map(|s| s.frame).max()
    }

    fn bare_waits(&self) -> Waits {
        // When all have ended, the answer stays what it was for the frames that are still on their way.
        let ended = self.streams.values().all(|s| s.eos);
        let sending = self.streams.values().filter(|s| s.caps.is_some() && (ended || !s.eos));
        Waits {
            size: self.size(),
            frame: self.frame_duration(),
            streams: sending.clone().count(),
            timeout: None,
            burst: sending.map(|s| s.burst).min().unwrap_or(0),
            overrun: self.overrun.answer(),
        }
    }

    fn waits(&self) -> Waits {
        Waits {
            timeout: self.timeout(),
            ..self.bare_waits()
        }
    }

    pub(super) fn answer_latency(&mut self, live: bool) -> (gst::ClockTime, gst::ClockTime) {
        self.set_live(live);
        let (min, max) = self.waits().latency();
        let time = |d: Duration| gst::ClockTime::try_from(d).unwrap_or(gst::ClockTime::MAX);
        (time(min), time(max))
    }

    /// True when the LATENCY answer changes.
    pub(super) fn set_burst(&mut self, stream: u32, burst: Burst) -> bool {
        let before = self.waits().latency();
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.burst = burst.frames;
        }
        self.waits().latency() != before
    }

    /// Without a rate in the caps it is learnt from the first arrivals: their span over their count, because gaps of
    /// a bursty source mean nothing. True when the LATENCY answer changes.
    pub(super) fn learnt_frame_duration(&mut self, stream: u32, running: Option<gst::ClockTime>) -> bool {
        const ARRIVALS: u32 = 16;
        let Some(stream) = self.streams.get_mut(&stream).filter(|s| s.frame.is_none()) else {
            return false;
        };
        let Some(running) = running else { return false };
        let first = *stream.first.get_or_insert(running);
        stream.arrivals += 1;
        if stream.arrivals < ARRIVALS {
            return false;
        }
        stream.frame = running
            .checked_sub(first)
            .map(|span| Duration::from(span) / (ARRIVALS - 1));
        self.apply();
        true
    }

    /// The src task, which had nothing to do, leaves with this now. True when the LATENCY answer changes.
    pub(super) fn leaves(&mut self, out: &Out) -> bool {
        let Out::Batch { batch, .. } = out else { return false };
        // What caps, segments and the end cut short waited for less. Events alone make no frame wait.
        if !self.live || batch.frames.is_empty() || !matches!(batch.reason, Reason::Full | Reason::Timeout) {
            return false;
        }
        let now = self.timeline.now();
        let over = self.waits().overrun_of(now.saturating_sub(batch.first_arrival));
        self.overrun.measured(now, over)
    }

    // --- streams --------------------------------------------------------------------------------------------

    /// Takes the wanted number, or the first free one.
    pub(super) fn join(&mut self, wanted: Option<u32>) -> Option<u32> {
        let number = wanted.or_else(|| (0..).find(|n| !self.streams.contains_key(n)))?;
        if self.streams.contains_key(&number) {
            return None;
        }
        self.streams.insert(number, Stream::new());
        self.batcher.join(number);
        Some(number)
    }

    pub(super) fn set_pad(&mut self, stream: u32, pad: &ComfyStreamPad) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.pad = Some(pad.clone());
        }
    }

    /// Its chain function ends; what it queued still goes out.
    pub(super) fn close(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.closed = true;
        }
    }

    pub(super) fn leave(&mut self, stream: u32) {
        if self.streams.remove(&stream).is_some() {
            let now = self.timeline.now();
            let _ = self.batcher.leave(now, stream, Some(stream::left(stream)));
            self.turns.leave(stream);
            self.apply();
            self.pump();
        }
    }

    // --- turns ----------------------------------------------------------------------------------------------

    /// A stream is linked, so it will send something: those that are not live wait for it.
    pub(super) fn expect(&mut self, stream: u32) {
        self.turns.join(stream);
    }

    /// Nobody waits for a stream that is linked no more.
    pub(super) fn expect_no_more(&mut self, stream: u32) {
        self.turns.leave(stream);
    }

    /// A frame of this stream is here. True when others may wait for that.
    pub(super) fn came(&mut self, stream: u32, running: Option<gst::ClockTime>) -> bool {
        if let Some(running) = running {
            self.turns.reached(stream, running.into());
        }
        !self.live && self.streams.len() > 1
    }

    /// Whether it is this frame's turn. Live streams are paced by their sources.
    pub(super) fn may_go(&self, stream: u32, running: Option<gst::ClockTime>) -> bool {
        self.live || running.is_none_or(|running| self.turns.may_go(stream, running.into()))
    }

    pub(super) fn pad(&self, stream: u32) -> Option<ComfyStreamPad> {
        self.streams.get(&stream)?.pad.clone()
    }

    pub(super) fn pads(&self) -> Vec<ComfyStreamPad> {
        self.streams.values().filter_map(|s| s.pad.clone()).collect()
    }

    /// Caps that another stream sends already.
    pub(super) fn others_caps(&self, but: u32) -> Option<gst::Caps> {
        self.streams
            .iter()
            .filter(|(number, _)| **number != but)
            .find_map(|(_, s)| s.caps.clone())
    }

    /// Whether a stream may send now.
    pub(super) fn admits(&self, stream: u32) -> Result<(), gst::FlowError> {
        let stream = self.streams.get(&stream).ok_or(gst::FlowError::Flushing)?;
        if stream.flushing || stream.closed {
            return Err(gst::FlowError::Flushing);
        }
        match self.flow {
            Ok(_) if stream.eos => Err(gst::FlowError::Eos),
            flow => flow.map(drop),
        }
    }

    /// EOS of a stream when downstream wants no more frames: true when it is to be passed on, as the last of all.
    pub(super) fn end_early(&mut self, stream: u32) -> bool {
        self.set_eos(stream);
        let last = !self.eos_sent && self.streams.values().all(|s| s.eos);
        self.eos_sent |= last;
        last
    }

    /// Group, running time and number of an arriving frame.
    pub(super) fn arriving(
        &mut self,
        stream: u32,
        buffer: &gst::BufferRef,
    ) -> Result<(u64, Option<gst::ClockTime>, u64), gst::FlowError> {
        self.admits(stream)?;
        let stream = self.streams.get_mut(&stream).ok_or(gst::FlowError::Flushing)?;
        if stream.caps.is_none() {
            return Err(gst::FlowError::NotNegotiated);
        }
        let sequence = stream.sequence;
        stream.sequence += 1;
        let running = buffer.pts().and_then(|pts| stream.segment.to_running_time(pts));
        Ok((stream.group, running, sequence))
    }

    /// True when the LATENCY answer changes.
    pub(super) fn set_caps(&mut self, number: u32, caps: gst::Caps) -> bool {
        let before = self.waits().latency();
        let known = self
            .groups
            .iter()
            .find(|(_, known)| known.is_strictly_equal(&caps))
            .map(|(group, _)| *group);
        let group = known.unwrap_or(self.next_group);
        let rate = caps
            .structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok())
            .filter(|r| r.numer() > 0);
        let frame = rate.map(|r| video::frame_duration(r).into());
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.group = group;
            stream.caps = Some(caps.clone());
            stream.frame = frame;
            (stream.arrivals, stream.first) = (0, None);
        }
        if known.is_none() {
            self.next_group += 1;
            // Groups that no stream sends any more may still stand in the queue for a while: keep a few.
            if self.groups.len() >= 4 * (self.streams.len() + 2) * (MAX_BATCH + 1) {
                let sent: Vec<u64> = self.streams.values().map(|s| s.group).collect();
                let old = self.groups.iter().position(|(group, _)| !sent.contains(group));
                old.map(|old| self.groups.remove(old));
            }
            self.groups.push((group, caps));
        }
        self.apply();
        self.waits().latency() != before
    }

    pub(super) fn set_segment(&mut self, stream: u32, segment: &gst::Segment) {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return;
        };
        if let Some(segment) = segment.downcast_ref::<gst::ClockTime>() {
            stream.segment = segment.clone();
        }
    }

    pub(super) fn set_eos(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.eos = true;
        }
        self.turns.ended(stream);
    }

    /// STREAM_START: what ended goes on. True when the src task has to be started for it.
    pub(super) fn restart(&mut self, number: u32) -> bool {
        if let Some(stream) = self.streams.get_mut(&number)
            && std::mem::take(&mut stream.eos)
        {
            self.turns.join(number);
        }
        if self.eos_sent {
            // A stream-start of our own clears the EOS downstream.
            self.eos_sent = false;
            self.started = false;
            self.segment_sent = false;
            self.sent_caps = None;
        }
        let ended = self.flow == Err(gst::FlowError::Eos);
        if ended {
            self.flow = Ok(gst::FlowSuccess::Ok);
        }
        ended
    }

    pub(super) fn gap(
        &mut self,
        stream: u32,
        start: gst::ClockTime,
        duration: Option<gst::ClockTime>,
        event: gst::Event,
    ) {
        let Some(segment) = self.streams.get(&stream).map(|s| &s.segment) else {
            return;
        };
        let running = |time: gst::ClockTime| segment.to_running_time(time).map_or(Duration::ZERO, Into::into);
        let (from, to) = (running(start), running(start + duration.unwrap_or_default()));
        self.turns.reached(stream, to);
        let now = self.timeline.now();
        let _ = self.batcher.gap(now, stream, from, to, event);
    }

    // --- flushing -------------------------------------------------------------------------------------------

    /// The number of the stream's flush; none when it is the whole element's, because no other stream is there.
    pub(super) fn flush_start(&mut self, number: u32) -> Option<u64> {
        let alone = self.streams.len() == 1;
        let mut flush = 0;
        if let Some(stream) = self.streams.get_mut(&number) {
            (stream.flushing, stream.flushed_alone) = (true, alone);
            stream.flushes += u64::from(!alone);
            flush = stream.flushes;
        }
        if alone {
            self.flow = Err(gst::FlowError::Flushing);
            return None;
        }
        self.batcher.flush_stream(number).for_each(drop);
        Some(flush)
    }

    pub(super) fn is_flushed_alone(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|s| s.flushed_alone)
    }

    /// `sticky`: what still holds for the stream; it may have been on its way when the flush came.
    pub(super) fn flush_stop(&mut self, number: u32, reset_time: bool, sticky: Vec<gst::Event>) {
        let alone = self.is_flushed_alone(number);
        let mut flush = 0;
        if let Some(stream) = self.streams.get_mut(&number) {
            flush = stream.flushes;
            (stream.flushing, stream.flushed_alone, stream.eos) = (false, false, false);
            stream.segment = gst::FormattedSegment::new();
            (stream.arrivals, stream.first) = (0, None);
        }
        self.turns.join(number);
        self.batcher.flush_stream(number).for_each(drop);
        if alone {
            self.ready.clear();
            self.deadline = None;
            self.eos_sent = false;
            // The flush took the container's segment along, and nothing else.
            self.segment_sent = false;
            self.flow = Ok(gst::FlowSuccess::Ok);
        } else {
            let word = stream::flushed(number, flush, reset_time);
            let _ = self.batcher.mark(self.timeline.now(), number, word, Cut::No);
        }
        for event in sticky {
            let _ = self.batcher.mark(self.timeline.now(), number, event, Cut::No);
        }
    }

    // --- batches --------------------------------------------------------------------------------------------

    /// Forms what is due, as far as there is room. True when the src task has to look: there is something to push,
    /// or another deadline.
    pub(super) fn pump(&mut self) -> bool {
        self.pump_at(self.timeline.now())
    }

    /// The same, for a caller that has just read the clock.
    pub(super) fn pump_at(&mut self, now: Duration) -> bool {
        let mut news = false;
        while self.ready.len() < READY {
            match self.batcher.next(now, &mut self.scratch) {
                Next::Batch {
                    group,
                    reason,
                    first_arrival,
                    ..
                } => {
                    let out = self.form(now, group, reason, first_arrival);
                    self.ready.push_back(out);
                    self.deadline = None;
                    news = true;
                }
                Next::WaitUntil(deadline) => {
                    news |= self.idle && self.deadline != Some(deadline);
                    self.deadline = Some(deadline);
                    break;
                }
                Next::Idle => {
                    self.deadline = None;
                    break;
                }
            }
        }
        news
    }

    fn form(&mut self, now: Duration, group: u64, reason: Reason, first_arrival: Duration) -> Out {
        let mut batch = Batch::new(&self.spares);
        (batch.sequence, batch.capacity, batch.reason) = (self.sequence, self.size(), reason);
        (batch.first_arrival, batch.formed) = (first_arrival, now);
        self.sequence += 1;
        let (mut first, mut last, mut from) = (None, None, None);
        for entry in self.scratch.drain(..) {
            match entry {
                Entry::Frame { stream, frame } => {
                    let end = frame.running.map(|t| t + frame.buffer.duration().unwrap_or_default());
                    first = first.min(frame.running).or(frame.running).or(first);
                    last = last.max(end);
                    let Arrived {
                        buffer: input,
                        sequence,
                        ..
                    } = frame;
                    batch.frames.push(Frame {
                        input,
                        output: None,
                        stream,
                        sequence,
                        status: Default::default(),
                    });
                }
                Entry::Marker { stream, marker: event } => {
                    from = Some(stream);
                    batch.events.push(Between {
                        position: batch.frames.len(),
                        stream,
                        event,
                    });
                }
            }
        }
        let group = match batch.frames.is_empty() {
            false => Some(group),
            true => from
                .and_then(|s| self.streams.get(&s))
                .filter(|s| s.caps.is_some())
                .map(|s| s.group),
        };
        let duration = first
            .zip(last)
            .and_then(|(first, last)| gst::ClockTime::checked_sub(last, first));
        Out::Batch {
            batch,
            group,
            pts: first,
            duration,
        }
    }

    /// The next thing to push.
    pub(super) fn take(&mut self) -> Option<Out> {
        let all_eos = !self.streams.is_empty() && self.streams.values().all(|s| s.eos);
        // A segment follows caps. Events alone wait for the first caps, unless none will come.
        if self.sent_caps.is_none() && self.any_group().is_none() && !all_eos {
            return None;
        }
        if let Some(out) = self.ready.pop_front() {
            return Some(out);
        }
        if all_eos && !self.eos_sent && self.batcher.is_empty() {
            self.eos_sent = true;
            return Some(Out::Eos(gst::event::Eos::new()));
        }
        None
    }

    /// The caps of some stream that has any.
    fn any_group(&self) -> Option<u64> {
        self.streams.values().find(|s| s.caps.is_some()).map(|s| s.group)
    }

    /// Events that have to go before it: the container's own stream-start, caps and segment.
    pub(super) fn prelude(&mut self, out: &Out) -> [Option<gst::Event>; 3] {
        let Out::Batch { group, batch, .. } = out else {
            return [None, None, None];
        };
        let group = group.or_else(|| self.any_group().filter(|_| self.sent_caps.is_none()));
        let start = (!self.started).then(|| {
            gst::event::StreamStart::builder("comfy-batch")
                .group_id(gst::GroupId::next())
                .build()
        });
        // As it was formed: the size asked for may be another by now.
        let size = batch.capacity.max(batch.frames.len());
        let anew = group.filter(|group| self.sent_caps != Some((*group, size)));
        let caps = anew
            .and_then(|group| self.groups.iter().find(|(g, _)| *g == group))
            .map(|(group, frames)| {
                self.sent_caps = Some((*group, size));
                gst::event::Caps::new(&batchcaps::of_frames(frames, Some(size)))
            });
        // Containers are stamped with running time: each stream's own segment travels inside.
        let segment =
            (!self.segment_sent).then(|| gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        (self.started, self.segment_sent) = (true, true);
        [start, caps, segment]
    }

    /// What was to go before a batch did not get through: it goes before the next one.
    pub(super) fn forget_prelude(&mut self) {
        (self.started, self.segment_sent, self.sent_caps) = (false, false, None);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(super) fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Whether everything taken so far has been pushed.
    pub(super) fn is_idle(&self) -> bool {
        self.idle && self.ready.is_empty() && self.batcher.is_empty()
    }

    pub(super) fn stats(&self) -> gst::Structure {
        if let Some(last) = &self.last {
            return last.clone();
        }
        let counts = self.batcher.stats();
        let fill = counts.frames_out as f64 / (counts.batches.max(1) * self.size() as u64) as f64;
        let mut stats = gst::Structure::builder("stats")
            .field("streams", self.streams.len() as u32)
            .field("batch-size", self.size() as u32)
            .field("live", self.live)
            .field("batches", counts.batches)
            .field("frames-in", counts.frames_in)
            .field("frames-out", counts.frames_out)
            .field("fill", fill);
        for (reason, name) in REASONS {
            stats = stats.field(name, counts.batches_by_reason[reason as usize]);
        }
        stats.build()
    }
}
