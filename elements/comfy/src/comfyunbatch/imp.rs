// Lock order: stream lock (pads), settings, state. No lock is held while calling out. `state.rs` holds what the
// lock protects; each src pad has its own task, so that streams leave side by side.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::Pacing;
use super::state::{Item, State, Stream};
use crate::batchcaps;
use crate::batchmeta::{Batch, ComfyBatchMeta};
use crate::stream::{self, Word};
use crate::streampad::ComfyStreamPad;
use crate::video;
use crate::wake::Waker;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "comfyunbatch",
        gst::DebugColorFlags::empty(),
        Some("Frames out of batches"),
    )
});

const PROP_PACING: &str = "pacing";
const PROP_STATS: &str = "stats";
const DEFAULT_PACING: Pacing = Pacing::None;
/// Events that one stream may have waiting beside its frames.
const MAX_EVENTS: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Settings {
    pacing: Pacing,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pacing: DEFAULT_PACING }
    }
}

pub struct ComfyUnbatch {
    sinkpad: gst::Pad,
    settings: Mutex<Settings>,
    pub(super) state: Mutex<State>,
    /// Upstream waits for room.
    pub(super) removed: Waker,
}

#[glib::object_subclass]
impl ObjectSubclass for ComfyUnbatch {
    const NAME: &'static str = "GstComfyUnbatch";
    type Type = super::ComfyUnbatch;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let sinkpad = gst::Pad::builder_from_template(&klass.pad_template("sink").expect("installed in class_init"))
            .chain_function(|_pad, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.chain(buffer))
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .build();
        Self {
            sinkpad,
            settings: Mutex::default(),
            state: Mutex::new(State::new()),
            removed: Waker::default(),
        }
    }
}

impl ObjectImpl for ComfyUnbatch {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecEnum::builder_with_default(PROP_PACING, DEFAULT_PACING)
                    .nick("Pacing")
                    .blurb("When frames leave: at once, in bursts of a batch, or each at its time on the pipeline's clock, for sinks that do not synchronise")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
                    .nick("Statistics")
                    .blurb("Batches in, frames out, streams, and frames that wait to be pushed, since the last start")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock();
        match pspec.name() {
            PROP_PACING => settings.pacing = value.get().expect("type checked by GObject"),
            name => unreachable!("property {name} is not writable"),
        }
        let mut state = self.state.lock();
        state.pacing = settings.pacing;
        for stream in state.streams.values() {
            stream.added.wake();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            PROP_PACING => self.settings.lock().pacing.to_value(),
            PROP_STATS => self.state.lock().stats().to_value(),
            name => unreachable!("no property {name}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sinkpad).expect("a new element has no pads");
        // There from the start, so that a single stream links like any filter.
        self.add_stream(0, None);
    }
}

impl GstObjectImpl for ComfyUnbatch {}

impl ElementImpl for ComfyUnbatch {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Comfy unbatcher",
                "Generic/Video",
                "Gives the frames of batches back in order, each stream on its pad, with their own timestamps and metas",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            vec![
                gst::PadTemplate::new(
                    "sink",
                    gst::PadDirection::Sink,
                    gst::PadPresence::Always,
                    &batchcaps::batch_template(),
                )
                .expect("valid template"),
                gst::PadTemplate::with_gtype(
                    "src_%u",
                    gst::PadDirection::Src,
                    gst::PadPresence::Sometimes,
                    &batchcaps::frame_template(),
                    ComfyStreamPad::static_type(),
                )
                .expect("valid template"),
            ]
        });
        &TEMPLATES
    }

    fn set_clock(&self, clock: Option<&gst::Clock>) -> bool {
        let mut state = self.state.lock();
        state.timeline.set_clock(clock);
        for stream in state.streams.values() {
            stream.added.wake();
        }
        drop(state);
        self.parent_set_clock(clock)
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => {
                let mut state = self.state.lock();
                let (timeline, streams) = (std::mem::take(&mut state.timeline), std::mem::take(&mut state.streams));
                let pacing = state.pacing;
                *state = State {
                    timeline,
                    streams,
                    pacing,
                    running: true,
                    ..State::new()
                };
            }
            gst::StateChange::PausedToReady => self.stop(),
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            let extra: Vec<ComfyStreamPad> = {
                let mut state = self.state.lock();
                let rest = state.streams.split_off(&1);
                for stream in state.streams.values_mut() {
                    *stream = Stream::new(stream.pad.clone());
                }
                // Whoever removes a pad already goes on with it.
                let (going, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = rest.into_iter().partition(|(_, s)| s.going);
                state.streams.extend(going);
                rest.into_values().map(|s| s.pad).collect()
            };
            for pad in extra {
                let _ = self.obj().remove_pad(&pad);
            }
        }
        Ok(result)
    }
}

impl ComfyUnbatch {
    fn chain(&self, container: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(mut batch) = ComfyBatchMeta::take(container) else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("a buffer without ComfyBatchMeta arrived; put comfyunbatch behind comfybatch or comfyinfer")
            );
            return Err(gst::FlowError::Error);
        };
        self.hand_over(&mut batch)?;
        self.state.lock().flow()
    }

    /// Each frame and event to its stream's queue.
    fn hand_over(&self, batch: &mut Batch) -> Result<(), gst::FlowError> {
        let frames = batch.frames.len();
        let mut events = batch.events.drain(..).peekable();
        let mut queue = batch.frames.drain(..);
        let mut state = self.state.lock();
        state.batches += 1;
        for position in 0..=frames {
            while let Some(between) = events.next_if(|between| between.position <= position) {
                state = self.event_between(state, between.stream, between.event)?;
            }
            let Some(frame) = queue.next() else { break };
            let number = frame.stream;
            state = self.make_room(state, number)?;
            let caps = state.caps_for(number);
            let Some(stream) = state.streams.get_mut(&number) else {
                continue;
            };
            if stream.void || stream.flow.is_err() {
                continue;
            }
            if let Some(caps) = caps {
                stream.push(Item::Event(caps));
            }
            let idle = stream.idle;
            stream.push(Item::Frame(frame.output.unwrap_or(frame.input)));
            if idle {
                stream.added.wake();
            }
        }
        Ok(())
    }

    /// Waits until a stream's queue has room; makes the stream when it is new.
    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        number: u32,
    ) -> Result<MutexGuard<'a, State>, gst::FlowError> {
        loop {
            if !state.running {
                return Err(gst::FlowError::Flushing);
            }
            let bound = state.bound;
            match state.streams.get(&number) {
                None => {
                    drop(state);
                    self.add_stream(number, None);
                    state = self.state.lock();
                }
                Some(stream) if stream.leaving => self.removed.wait(&mut state),
                Some(stream) if stream.void || stream.flow.is_err() => return Ok(state),
                Some(stream) if stream.frames < bound && stream.queue.len() < bound + MAX_EVENTS => return Ok(state),
                Some(_) => self.removed.wait(&mut state),
            }
        }
    }

    /// An event of one stream, in its place.
    fn event_between<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        number: u32,
        event: gst::Event,
    ) -> Result<MutexGuard<'a, State>, gst::FlowError> {
        let word = stream::parse(&event).map(|(_, word)| word);
        if let Some(Word::Flushed { flush, reset_time }) = word {
            drop(state);
            self.stream_flushed(number, flush, reset_time);
            return Ok(self.state.lock());
        }
        let mut state = state;
        while state.running && state.streams.get(&number).is_some_and(|s| s.leaving) {
            self.removed.wait(&mut state);
        }
        if !state.running {
            return Err(gst::FlowError::Flushing);
        }
        let known = state.streams.contains_key(&number);
        if word == Some(Word::Left) && !known {
            return Ok(state);
        }
        if !known {
            drop(state);
            self.add_stream(number, Some(&event));
            state = self.state.lock();
        }
        state = self.make_room(state, number)?;
        // Caps stand between stream-start and segment.
        let caps = match event.view() {
            gst::EventView::Segment(_) => state.caps_for(number),
            _ => None,
        };
        let Some(stream) = state.streams.get_mut(&number) else {
            return Ok(state);
        };
        // Somebody may want this one, although nobody did the one before.
        let over = [gst::FlowError::Eos, gst::FlowError::NotLinked].map(Err);
        let restarts = event.type_() == gst::EventType::StreamStart && over.contains(&stream.flow);
        if restarts {
            stream.flow = Ok(gst::FlowSuccess::Ok);
        }
        if event.type_() == gst::EventType::Eos && stream.ends_early() {
            let pad = stream.pad.clone();
            drop(state);
            pad.push_event(event);
            return Ok(self.state.lock());
        }
        if stream.void || stream.flow.is_err() {
            // A stream that ended still leaves.
            if word != Some(Word::Left) {
                return Ok(state);
            }
        }
        if let Some(caps) = caps {
            stream.push(Item::Event(caps));
        }
        match word {
            Some(Word::Left) => {
                if !stream.eos {
                    stream.push(Item::Event(gst::event::Eos::new()));
                }
                stream.push(Item::Remove);
            }
            _ => stream.push(Item::Event(event)),
        }
        stream.added.wake();
        let (pad, ended) = (stream.pad.clone(), stream.flow.is_err());
        if restarts {
            drop(state);
            self.start_task(&pad);
            state = self.state.lock();
        } else if ended {
            // Its task is paused for good: the pad goes from here.
            drop(state);
            self.remove_stream(number);
            state = self.state.lock();
        }
        Ok(state)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        use gst::EventView;
        match event.view() {
            EventView::FlushStart(_) => {
                self.stop();
                let pads = self.pads();
                for pad in &pads {
                    pad.push_event(event.clone());
                }
                for pad in &pads {
                    let _ = pad.pause_task();
                }
                true
            }
            EventView::FlushStop(_) => {
                for pad in self.pads() {
                    pad.push_event(event.clone());
                }
                let mut state = self.state.lock();
                while state.streams.values().any(|stream| stream.pausing > 0) {
                    self.removed.wait(&mut state);
                }
                state.running = true;
                for stream in state.streams.values_mut().filter(|s| !s.going) {
                    (stream.flow, stream.eos, stream.void) = (Ok(gst::FlowSuccess::Ok), false, false);
                    stream.segment = gst::FormattedSegment::new();
                }
                drop(state);
                for pad in self.pads() {
                    self.start_task(&pad);
                }
                true
            }
            EventView::CustomDownstreamOob(_) => match stream::parse(&event) {
                Some((number, Word::Flushing { flush })) => {
                    self.stream_flushing(number, flush);
                    true
                }
                _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
            },
            EventView::Caps(caps) => {
                if self.state.lock().set_caps(caps.caps()) {
                    self.post_latency();
                }
                true
            }
            EventView::Eos(_) => {
                let mut early = Vec::new();
                let mut state = self.state.lock();
                for stream in state.streams.values_mut().filter(|s| !s.eos) {
                    if stream.ends_early() {
                        early.push(stream.pad.clone());
                    } else {
                        stream.push(Item::Event(event.clone()));
                        stream.added.wake();
                    }
                }
                drop(state);
                for pad in early {
                    pad.push_event(event.clone());
                }
                true
            }
            // The container's own: each stream's travel inside the batches.
            EventView::StreamStart(_) | EventView::Segment(_) => true,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Caps(query) => {
                let filter = query.filter().map(batchcaps::of_batches);
                let mut frames = batchcaps::frame_template();
                for pad in self.pads().iter().filter(|pad| pad.is_linked()) {
                    let peer = pad.peer_query_caps(filter.as_ref());
                    frames = frames.intersect_with_mode(&peer, gst::CapsIntersectMode::First);
                }
                let mut batches = batchcaps::of_frames(&frames, None);
                if let Some(filter) = query.filter() {
                    batches = filter.intersect_with_mode(&batches, gst::CapsIntersectMode::First);
                }
                query.set_result(&batches);
                true
            }
            QueryViewMut::Allocation(query) => self.propose_allocation(query),
            QueryViewMut::Drain(_) => {
                let mut state = self.state.lock();
                while state.running && !state.is_idle() {
                    self.removed.wait(&mut state);
                }
                drop(state);
                self.pads().iter().all(|pad| pad.peer_query(query))
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// Downstream's own answer, as long as nothing was pushed. Afterwards a serialized query could wait behind frames
    /// that a sink holds until another stream's frames, which come after this query, have arrived.
    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let pads = self.pads();
        let (Some(caps), need_pool) = query.get_owned() else {
            return false;
        };
        let known = {
            let state = self.state.lock();
            (state.frames_out > 0 || pads.len() != 1).then_some(state.video_meta)
        };
        if let Some(video_meta) = known {
            if video_meta {
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
            }
            return true;
        }
        let mut inner = gst::query::Allocation::new(Some(&batchcaps::of_batches(&caps)), need_pool);
        if !pads[0].peer_query(&mut inner) {
            return false;
        }
        self.state.lock().video_meta = inner.find_allocation_meta::<gst_video::VideoMeta>().is_some();
        video::copy_allocation(&inner, query);
        for (pool, size, min, max) in inner.allocation_pools() {
            query.add_allocation_pool(pool.as_ref(), size, min, max);
        }
        true
    }

    pub(super) fn src_event(&self, pad: &ComfyStreamPad, event: gst::Event) -> bool {
        if let gst::EventView::Latency(latency) = event.view() {
            let mut state = self.state.lock();
            state.latency = latency.latency();
            state.streams.values().for_each(|s| s.added.wake());
        }
        // With several streams an event is for the one it came from. LATENCY and RECONFIGURE are about all of them.
        let several = self.state.lock().streams.len() > 1;
        let shared = matches!(event.type_(), gst::EventType::Latency | gst::EventType::Reconfigure);
        let event = if several && !shared {
            stream::address(event, pad.stream())
        } else {
            event
        };
        self.sinkpad.push_event(event)
    }

    pub(super) fn src_query(&self, pad: &ComfyStreamPad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Latency(_) => {
                if !self.sinkpad.peer_query(query) {
                    return false;
                }
                let QueryViewMut::Latency(query) = query.view_mut() else {
                    return false;
                };
                let (live, min, max) = query.result();
                let state = self.state.lock();
                let own = state
                    .frame
                    .map_or(gst::ClockTime::ZERO, |frame| frame * state.bound as u64);
                query.set(live, min, max.map(|max| max + own));
                true
            }
            QueryViewMut::Caps(query) => {
                let filter = query.filter().map(|filter| batchcaps::of_frames(filter, None));
                let frames = match pad.current_caps() {
                    Some(caps) => caps,
                    None => batchcaps::of_batches(&self.sinkpad.peer_query_caps(filter.as_ref())),
                };
                let mut result =
                    batchcaps::frame_template().intersect_with_mode(&frames, gst::CapsIntersectMode::First);
                if let Some(filter) = query.filter() {
                    result = filter.intersect_with_mode(&result, gst::CapsIntersectMode::First);
                }
                query.set_result(&result);
                true
            }
            // Position, duration, seeking and so on are upstream's to answer.
            _ => self.sinkpad.peer_query(query),
        }
    }

    fn pads(&self) -> Vec<ComfyStreamPad> {
        let state = self.state.lock();
        let staying = state.streams.values().filter(|s| !s.going);
        staying.map(|s| s.pad.clone()).collect()
    }

    pub(super) fn src_activate(
        &self,
        pad: &ComfyStreamPad,
        mode: gst::PadMode,
        active: bool,
    ) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "only push mode"));
        }
        if active {
            let mut state = self.state.lock();
            if !state.running {
                // A stream that comes while the element stops. Its pad may have been deactivated already, and whoever
                // does that waits for the task that would be started here.
                return Err(gst::loggable_error!(CAT, "the element is stopping"));
            }
            if let Some(stream) = state.streams.get_mut(&pad.stream()).filter(|s| !s.going) {
                stream.flow = Ok(gst::FlowSuccess::Ok);
            }
            drop(state);
            self.start_task(pad);
        } else {
            if let Some(stream) = self
                .state
                .lock()
                .streams
                .get_mut(&pad.stream())
                .filter(|s| s.pad == *pad)
            {
                stream.flush();
            }
            self.removed.wake();
            pad.stop_task()
                .map_err(|_| gst::loggable_error!(CAT, "task did not stop"))?;
        }
        Ok(())
    }

    pub(super) fn start_task(&self, pad: &ComfyStreamPad) {
        if pad.task_state() == gst::TaskState::Started {
            return;
        }
        // Starting one that is only paused would keep its function and lose the new one.
        let _ = pad.stop_task();
        let element = self.obj().downgrade();
        let weak = pad.downgrade();
        let started = pad.start_task(move || {
            if let (Some(element), Some(pad)) = (element.upgrade(), weak.upgrade()) {
                // Until it has to stop: the way through the task and weak references costs more than a turn.
                while element.imp().step(&pad) {}
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

    /// Ends every wait.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.running = false;
        let dropped: Vec<_> = state.streams.values_mut().map(|s| (s.pad.clone(), s.flush())).collect();
        self.removed.wake();
        drop(state);
        for (pad, events) in dropped {
            stream::keep_sticky(&pad, events);
        }
    }

    /// One turn of a pad's task. False: the task is paused.
    fn step(&self, pad: &ComfyStreamPad) -> bool {
        let number = pad.stream();
        let mut state = self.state.lock();
        let item = loop {
            let State {
                streams,
                timeline,
                latency,
                pacing,
                ..
            } = &mut *state;
            let Some(stream) = streams.get_mut(&number).filter(|s| s.pad == *pad && s.flow.is_ok()) else {
                // With the state locked: whoever has it go on finds it paused, or is seen.
                let _ = pad.pause_task();
                return false;
            };
            let added: Arc<Waker> = stream.added.clone();
            let due = match (*pacing, stream.queue.front()) {
                (Pacing::Pts, Some(Item::Frame(frame))) => {
                    let running = frame.pts().and_then(|pts| stream.segment.to_running_time(pts));
                    running
                        .zip(self.obj().base_time())
                        .and_then(|(time, base)| timeline.at(base + time + *latency))
                }
                _ => None,
            };
            if let Some(due) = due.filter(|due| timeline.now() < *due) {
                added.wait_until(&mut state, |s| &s.timeline, due);
                continue;
            }
            if let Some(item) = stream.pop() {
                stream.idle = false;
                break item;
            }
            stream.idle = true;
            self.removed.wake();
            added.wait(&mut state);
        };
        if let Item::Frame(_) = &item {
            state.frames_out += 1;
        }
        if let Item::Event(event) = &item
            && let gst::EventView::Segment(segment) = event.view()
            && let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>()
            && let Some(stream) = state.streams.get_mut(&number)
        {
            stream.segment = segment.clone();
        }
        drop(state);
        self.removed.wake();
        let flow = match item {
            Item::Frame(frame) => pad.push(frame),
            Item::Event(event) => {
                // Also EOS: a stream-start may stand behind it already.
                let caps = event.type_() == gst::EventType::Caps;
                if !pad.push_event(event) && caps {
                    // Overtaken by a flush: said again before the next frame.
                    self.forget_caps(number);
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Item::Remove => {
                self.remove_stream(number);
                Ok(gst::FlowSuccess::Ok)
            }
        };
        let Err(error) = flow else { return true };
        gst::debug!(CAT, obj = pad, "downstream answered {error:?}");
        let mut state = self.state.lock();
        let Some(stream) = state
            .streams
            .get_mut(&number)
            .filter(|s| s.pad == *pad && s.flow.is_ok())
        else {
            return true;
        };
        stream.flow = Err(error);
        let leaves = stream.queue.iter().any(|item| matches!(item, Item::Remove));
        stream.queue.clear();
        stream.frames = 0;
        drop(state);
        self.removed.wake();
        if leaves {
            self.remove_stream(number);
        }
        true
    }

    fn post_latency(&self) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }
}
