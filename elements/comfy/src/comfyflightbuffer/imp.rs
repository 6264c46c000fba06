// Lock order: stream lock (pads), settings, state. No lock is held while calling out. The policy is
// comfy_core::flight; here are pads, locks and waits. `state.rs` holds what the lock protects.

use std::sync::LazyLock;
use std::time::Duration;

use comfy_core::flight::{self, Admit, Change, Mark, Marker, Next, Why};
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::state::{Item, State, latency, resumes_after_eos};
use super::{Leaky, report};
use crate::batchcaps::MAX_BATCH;
use crate::burst::Burst;
use crate::stream;
use crate::video;
use crate::wake::Waker;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "comfyflightbuffer",
        gst::DebugColorFlags::empty(),
        Some("Buffer that keeps a model fed"),
    )
});

const PROP_BATCH_SIZE: &str = "batch-size";
const PROP_THRESHOLD: &str = "threshold";
const PROP_MAX_BATCHES: &str = "max-batches";
const PROP_LEAKY: &str = "leaky";
const PROP_REBUFFER: &str = "rebuffer";
const PROP_STATS: &str = "stats";

const DEFAULT_BATCH_SIZE: u32 = 1;
const DEFAULT_THRESHOLD: u32 = 2;
const DEFAULT_MAX_BATCHES: u32 = 5;
const DEFAULT_LEAKY: Leaky = Leaky::None;
const DEFAULT_REBUFFER: bool = false;
const MAX_BATCHES: u32 = 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    batch_size: u32,
    threshold: u32,
    max_batches: u32,
    leaky: Leaky,
    rebuffer: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: DEFAULT_BATCH_SIZE,
            threshold: DEFAULT_THRESHOLD,
            max_batches: DEFAULT_MAX_BATCHES,
            leaky: DEFAULT_LEAKY,
            rebuffer: DEFAULT_REBUFFER,
        }
    }
}

impl From<Settings> for flight::Settings {
    fn from(settings: Settings) -> Self {
        Self {
            batch_size: settings.batch_size as usize,
            threshold: settings.threshold as usize,
            max_batches: settings.max_batches as usize,
            leaky: match settings.leaky {
                Leaky::None => flight::Leaky::None,
                Leaky::Oldest => flight::Leaky::Oldest,
                Leaky::Newest => flight::Leaky::Newest,
                Leaky::Thin => flight::Leaky::Thin,
            },
            rebuffer: settings.rebuffer,
        }
    }
}

pub struct ComfyFlightBuffer {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// The src task waits for items.
    added: Waker,
    /// Upstream waits for room, and serialized queries for their turn.
    removed: Waker,
}

#[glib::object_subclass]
impl ObjectSubclass for ComfyFlightBuffer {
    const NAME: &'static str = "GstComfyFlightBuffer";
    type Type = super::ComfyFlightBuffer;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let sinkpad = gst::Pad::builder_from_template(&klass.pad_template("sink").expect("installed in class_init"))
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.chain(pad, buffer))
            })
            .event_full_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        let srcpad = gst::Pad::builder_from_template(&klass.pad_template("src").expect("installed in class_init"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic in activation")),
                    |imp| imp.src_activate(pad, mode, active),
                )
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::new(State::new(Settings::default())),
            added: Waker::default(),
            removed: Waker::default(),
        }
    }
}

impl ObjectImpl for ComfyFlightBuffer {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecUInt::builder(PROP_BATCH_SIZE)
                    .nick("Batch Size")
                    .blurb("Frames of one batch downstream, the unit of threshold and max-batches; set it like comfybatch's batch-size")
                    .minimum(1)
                    .maximum(MAX_BATCH as u32)
                    .default_value(DEFAULT_BATCH_SIZE)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_THRESHOLD)
                    .nick("Threshold")
                    .blurb("Batches collected before the first frame leaves, so that the model never starts on an empty queue; each costs batch-size frame durations of latency (0 = start at once)")
                    .maximum(MAX_BATCHES)
                    .default_value(DEFAULT_THRESHOLD)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_MAX_BATCHES)
                    .nick("Maximum Batches")
                    .blurb("Batches the buffer can hold; when they are full, leaky decides. A smaller value than threshold lowers the threshold")
                    .minimum(1)
                    .maximum(MAX_BATCHES)
                    .default_value(DEFAULT_MAX_BATCHES)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_LEAKY, DEFAULT_LEAKY)
                    .nick("Leaky")
                    .blurb("What happens when the buffer is full: none blocks upstream and loses nothing, the others drop a frame, never one flagged non-droppable while another can go")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder(PROP_REBUFFER)
                    .nick("Rebuffer")
                    .blurb("Collect threshold batches again after the source fell behind (an underrun), instead of passing frames on as they come")
                    .default_value(DEFAULT_REBUFFER)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
                    .nick("Statistics")
                    .blurb("State, fill in frames, and counts of frames in, out and dropped by reason, underruns and overruns since the last start")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock();
        match pspec.name() {
            PROP_BATCH_SIZE => settings.batch_size = value.get().expect("type checked by GObject"),
            PROP_THRESHOLD => settings.threshold = value.get().expect("type checked by GObject"),
            PROP_MAX_BATCHES => settings.max_batches = value.get().expect("type checked by GObject"),
            PROP_LEAKY => settings.leaky = value.get().expect("type checked by GObject"),
            PROP_REBUFFER => settings.rebuffer = value.get().expect("type checked by GObject"),
            name => unreachable!("property {name} is not writable"),
        }
        let settings = *settings;
        let mut state = self.state.lock();
        let before = latency(&state);
        state.buffer.configure(settings.into());
        let relatency = latency(&state) != before;
        // A lower threshold may release, a larger buffer may admit.
        self.added.wake();
        self.removed.wake();
        self.finish(state);
        if relatency {
            self.post_latency();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = *self.settings.lock();
        match pspec.name() {
            PROP_BATCH_SIZE => settings.batch_size.to_value(),
            PROP_THRESHOLD => settings.threshold.to_value(),
            PROP_MAX_BATCHES => settings.max_batches.to_value(),
            PROP_LEAKY => settings.leaky.to_value(),
            PROP_REBUFFER => settings.rebuffer.to_value(),
            PROP_STATS => report::stats(&self.state.lock().buffer).to_value(),
            name => unreachable!("no property {name}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.add_pad(&self.sinkpad).expect("a new element has no pads");
        obj.add_pad(&self.srcpad).expect("a new element has no pads");
    }
}

impl GstObjectImpl for ComfyFlightBuffer {}

impl ElementImpl for ComfyFlightBuffer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Comfy flight buffer",
                "Generic/Queue",
                "Collects whole batches of frames before the model starts, then keeps it fed",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &gst::Caps::new_any())
                        .expect("valid template")
                })
                .into()
        });
        &TEMPLATES
    }

    fn set_clock(&self, clock: Option<&gst::Clock>) -> bool {
        self.state.lock().timeline.set_clock(clock);
        self.added.wake();
        self.parent_set_clock(clock)
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => {
                let settings = *self.settings.lock();
                let mut state = self.state.lock();
                let timeline = std::mem::take(&mut state.timeline);
                *state = State {
                    timeline,
                    ..State::new(settings)
                };
            }
            // Before the parent deactivates pads, so that no stream lock is held by a wait.
            gst::StateChange::PausedToReady => self.stop(gst::FlowError::Flushing),
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            self.state.lock().reset();
        }
        Ok(result)
    }
}

impl ComfyFlightBuffer {
    fn chain(&self, _pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state.lock();
        let timing = state.timing(&buffer);
        let mut item = Item::Frame(buffer);
        let gone = loop {
            if state.eos {
                return Err(gst::FlowError::Eos);
            }
            state.flow?;
            let now = state.timeline.now();
            match state.buffer.admit(now, item, timing) {
                Admit::Queued => break None,
                Admit::Full(back) => {
                    item = back;
                    // The overrun is told before the wait, not after it.
                    if !self.tell_and_relock(&mut state) {
                        self.removed.wait(&mut state);
                    }
                }
                Admit::Dropped(item, why) | Admit::Displaced(item, why) => break Some((item, why)),
            }
        };
        self.added.wake();
        let relatency = self.learnt_frame_duration(&mut state);
        self.finish(state);
        if let Some((item, why)) = gone {
            self.dropped(item, why);
        }
        if relatency {
            self.post_latency();
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> Result<gst::FlowSuccess, gst::FlowError> {
        use gst::EventView;
        match event.view() {
            EventView::FlushStart(_) => {
                self.stop(gst::FlowError::Flushing);
                self.srcpad.push_event(event);
                // Ends at once: the wait was ended above and downstream is flushing.
                let _ = self.srcpad.pause_task();
                return Ok(gst::FlowSuccess::Ok);
            }
            EventView::FlushStop(_) => {
                self.srcpad.push_event(event);
                let mut state = self.state.lock();
                let dropped = state.reset();
                state.flow = Ok(gst::FlowSuccess::Ok);
                drop(state);
                stream::keep_sticky(&self.srcpad, dropped);
                self.start_task();
                return Ok(gst::FlowSuccess::Ok);
            }
            _ if !event.is_serialized() => {
                return match gst::Pad::event_default(pad, Some(&*self.obj()), event) {
                    true => Ok(gst::FlowSuccess::Ok),
                    false => Err(gst::FlowError::Error),
                };
            }
            _ => (),
        }

        let mut state = self.state.lock();
        let marker = match event.view() {
            EventView::Eos(_) | EventView::Gap(_) | EventView::SegmentDone(_) => Marker::Releases,
            _ => Marker::Ordered,
        };
        let (mut relatency, mut restart) = (false, false);
        match event.view() {
            EventView::StreamStart(_) => {
                state.eos = false;
                restart = state.resume();
            }
            EventView::Caps(caps) => {
                let rate = caps
                    .caps()
                    .structure(0)
                    .and_then(|s| s.get::<gst::Fraction>("framerate").ok());
                let duration = rate
                    .filter(|r| r.numer() > 0)
                    .map(|rate| video::frame_duration(rate).into());
                state.buffer.set_frame_duration(duration);
                relatency = self.learnt_frame_duration(&mut state);
            }
            EventView::Segment(segment) => {
                restart = state.resume();
                if let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() {
                    state.segment = segment.clone();
                }
            }
            _ => (),
        }
        let is_eos = matches!(event.view(), EventView::Eos(_));
        if is_eos && state.flow == Err(gst::FlowError::Eos) {
            // Downstream wants no more frames, and still waits for the end itself.
            state.eos = true;
            drop(state);
            self.srcpad.push_event(event);
            return Ok(gst::FlowSuccess::Ok);
        }
        // Downstream may want frames again: what holds for them by then, their caps, waits here.
        let waits = event.is_sticky() && state.flow == Err(gst::FlowError::Eos);
        let mut item = Item::Event(event);
        loop {
            if state.eos {
                return Err(gst::FlowError::Eos);
            }
            if !waits {
                state.flow?;
            }
            match state.buffer.mark(item, marker) {
                Mark::Queued => break,
                Mark::Full(back) => {
                    item = back;
                    state.flow?;
                    self.removed.wait(&mut state);
                }
            }
        }
        state.eos = is_eos;
        self.added.wake();
        self.finish(state);
        if restart {
            self.start_task();
        }
        if relatency {
            self.post_latency();
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if !query.is_serialized() {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        }
        // In order: everything before the query leaves first, then it goes on from this thread, which upstream
        // keeps busy, so that nothing can overtake it.
        let mut state = self.state.lock();
        if state.flow.is_err() || state.eos {
            return false;
        }
        let turn = state.barriers_set + 1;
        state.barriers_set = turn;
        loop {
            match state.buffer.mark(Item::Barrier, Marker::Releases) {
                Mark::Queued => break,
                Mark::Full(_) if state.flow.is_err() => return false,
                Mark::Full(_) => self.removed.wait(&mut state),
            }
        }
        self.added.wake();
        while state.barriers_passed < turn && state.flow.is_ok() {
            self.removed.wait(&mut state);
        }
        let passed = state.flow.is_ok();
        drop(state);
        passed && self.srcpad.peer_query(query)
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if let gst::EventView::Qos(qos) = event.view() {
            let (_, _, difference, timestamp) = qos.get();
            // Downstream's next useful frame: the late one's time plus twice the lateness, as video decoders do it.
            let earliest = timestamp.map(|time| {
                let late = difference.max(0) as u64;
                Duration::from_nanos(time.nseconds().saturating_add(late.saturating_mul(2)))
            });
            self.state
                .lock()
                .buffer
                .set_earliest(earliest.filter(|_| difference > 0));
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if !matches!(query.view(), gst::QueryView::Latency(_)) {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        }
        if !self.sinkpad.peer_query(query) {
            return false;
        }
        let gst::QueryViewMut::Latency(query) = query.view_mut() else {
            return false;
        };
        let (live, min, max) = query.result();
        let mut state = self.state.lock();
        state.latency_for = state.buffer.frame_duration();
        let (own_min, own_max) = latency(&state);
        drop(state);
        let leaky = self.settings.lock().leaky != Leaky::None;
        let max = match (max, leaky) {
            // What leaks holds no more than its own capacity.
            (Some(max), true) => Some((min + own_min).max(max.min(own_max))),
            (None, true) => Some((min + own_min).max(own_max)),
            (Some(max), false) => Some(max + own_max),
            (None, false) => None,
        };
        gst::debug!(
            CAT,
            imp = self,
            "latency: live {live}, min {min} + {own_min}, max {max:?}"
        );
        query.set(live, min + own_min, max);
        true
    }

    fn src_activate(&self, _pad: &gst::Pad, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "only push mode"));
        }
        if active {
            let mut state = self.state.lock();
            state.flow = Ok(gst::FlowSuccess::Ok);
            drop(state);
            self.start_task();
        } else {
            self.stop(gst::FlowError::Flushing);
            self.srcpad
                .stop_task()
                .map_err(|_| gst::loggable_error!(CAT, "task did not stop"))?;
        }
        Ok(())
    }

    fn start_task(&self) {
        if self.srcpad.task_state() == gst::TaskState::Started {
            return;
        }
        // Starting one that is only paused would keep its function and lose the new one.
        let _ = self.srcpad.stop_task();
        let element = self.obj().downgrade();
        let started = self.srcpad.start_task(move || {
            // Until it has to stop: the way through the task and a weak reference costs more than a turn.
            if let Some(element) = element.upgrade() {
                while element.imp().step() {}
            }
        });
        if started.is_err() {
            gst::element_imp_error!(
                self,
                gst::CoreError::StateChange,
                ("the streaming thread cannot be started")
            );
        }
    }

    /// Ends every wait with `flow`.
    fn stop(&self, flow: gst::FlowError) {
        let mut state = self.state.lock();
        state.flow = Err(flow);
        self.added.wake();
        self.removed.wake();
    }

    /// One turn of the src task: take what may leave and push it. False: the task is paused.
    fn step(&self) -> bool {
        let mut state = self.state.lock();
        let next = loop {
            if state.flow.is_err() {
                // With the state locked: whoever has it go on finds it paused, or is seen.
                let _ = self.srcpad.pause_task();
                return false;
            }
            let now = state.timeline.now();
            match state.buffer.next(now) {
                Next::Idle => {
                    if !self.tell_and_relock(&mut state) {
                        self.added.wait(&mut state);
                    }
                }
                Next::WaitUntil(deadline) => {
                    if !self.tell_and_relock(&mut state) {
                        self.added.wait_until(&mut state, |s| &s.timeline, deadline);
                    }
                }
                next => break next,
            }
        };
        self.removed.wake();
        match next {
            Next::Frame { frame, discont } => {
                // Told when it is pushed: an event before the first frame would take the word along unsaid.
                let burst = self.burst(&mut state);
                self.finish(state);
                if let Some(burst) = burst {
                    self.srcpad.push_event(burst.event());
                }
                self.push(frame, discont);
            }
            Next::Marker(Item::Barrier) => {
                state.barriers_passed += 1;
                self.removed.wake();
                self.finish(state);
            }
            Next::Marker(item) => {
                self.finish(state);
                self.push(item, false);
            }
            Next::Drop(item, why) => {
                self.finish(state);
                self.dropped(item, why);
            }
            Next::Idle | Next::WaitUntil(_) => unreachable!("handled in the loop"),
        }
        true
    }

    fn push(&self, item: Item, discont: bool) {
        let flow = match item {
            Item::Frame(mut buffer) => {
                if discont {
                    buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
                }
                self.srcpad.push(buffer)
            }
            // Also EOS: upstream is refused by its own flag, and a stream-start may stand behind it already.
            Item::Event(event) => {
                if !self.srcpad.push_event(event.clone()) {
                    // Flushing, as a rule. Where downstream refused it for good there is no flush to repeat it after.
                    let mut state = self.state.lock();
                    if state.flow.is_err() {
                        state.lost.push(event);
                    }
                }
                return;
            }
            Item::Barrier => return,
        };
        let Err(error) = flow else { return };
        gst::debug!(CAT, imp = self, "downstream answered {error:?}");
        let mut state = self.state.lock();
        let mut skipped = Vec::new();
        if state.flow.is_ok() {
            // As `queue` does it: no more frames, until an event behind which there may be some that are wanted.
            let resumes;
            (skipped, resumes) = match error {
                gst::FlowError::Eos => state.buffer.skip_to(resumes_after_eos),
                _ => (skipped, false),
            };
            if !resumes {
                state.flow = Err(error);
            }
        }
        self.added.wake();
        self.removed.wake();
        drop(state);
        drop(skipped);
    }

    fn dropped(&self, item: Item, why: Why) {
        let Item::Frame(buffer) = item else { return };
        gst::debug!(CAT, imp = self, "dropped {:?}: {why:?}", buffer.pts());
        if why == Why::Late {
            let (stats, running, stream) = {
                let state = self.state.lock();
                let segment = &state.segment;
                let time = |to: fn(&gst::FormattedSegment<_>, gst::ClockTime) -> _| {
                    buffer.pts().and_then(|pts| to(segment, pts))
                };
                let (running, stream) = (time(|s, t| s.to_running_time(t)), time(|s, t| s.to_stream_time(t)));
                (state.buffer.stats(), running, stream)
            };
            let message = gst::message::Qos::builder(true)
                .running_time(running)
                .stream_time(stream)
                .timestamp(buffer.pts())
                .duration(buffer.duration())
                .stats(
                    gst::GenericFormattedValue::Buffers(Some(gst::format::Buffers::from_u64(stats.frames_out))),
                    gst::GenericFormattedValue::Buffers(Some(gst::format::Buffers::from_u64(stats.dropped_late))),
                )
                .src(&*self.obj())
                .build();
            let _ = self.obj().post_message(message);
        }
    }

    /// The burst to announce before the next frame, when it is not the one announced last.
    fn burst(&self, state: &mut State) -> Option<Burst> {
        let burst = Burst {
            frames: state.buffer.stats().threshold_frames,
        };
        if state.announced == Some(burst) {
            return None;
        }
        state.announced = Some(burst);
        Some(burst)
    }

    /// True when the LATENCY answer given so far no longer holds.
    fn learnt_frame_duration(&self, state: &mut State) -> bool {
        let duration = state.buffer.frame_duration();
        if duration == state.latency_for {
            return false;
        }
        state.latency_for = duration;
        true
    }

    fn post_latency(&self) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }

    /// Unlocks, and posts the changes of state that happened meanwhile.
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        self.tell_and_relock(&mut state);
    }

    /// True when it had something to post: the state was unlocked for it and may have changed.
    fn tell_and_relock(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let mut changes = Vec::new();
        while let Some(change) = state.buffer.take_change() {
            changes.push(change);
        }
        if changes.is_empty() {
            return false;
        }
        let stats = state.buffer.stats();
        MutexGuard::unlocked(state, || {
            for change in changes {
                self.tell(change, &stats);
            }
        });
        true
    }

    fn tell(&self, change: Change, stats: &flight::Stats) {
        gst::info!(CAT, imp = self, "{change:?} at fill {}", stats.fill);
        let obj = self.obj();
        let message = gst::message::Element::builder(report::change(&change, stats));
        let _ = obj.post_message(message.src(&*obj).build());
    }
}
