// Lock order: stream lock (pads), settings, state. No lock is held while calling out. The policy is
// comfy_core::batch; here are pads, locks and waits. `state.rs` holds what the lock protects.

use std::sync::LazyLock;

use comfy_core::batch::{Cut, Mark, Offer, Reason};
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::Policy;
use super::state::{Arrived, Out, State};
use crate::batchcaps::{self, MAX_BATCH};
use crate::batchmeta::{Batch, ComfyBatchMeta, Frame};
use crate::burst::Burst;
use crate::stream;
use crate::streampad::ComfyStreamPad;
use crate::video;
use crate::wake::Waker;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "comfybatch",
        gst::DebugColorFlags::empty(),
        Some("Batches of frames by reference"),
    )
});

const PROP_BATCH_SIZE: &str = "batch-size";
const PROP_TIMEOUT: &str = "timeout";
const PROP_POLICY: &str = "policy";
const PROP_STATS: &str = "stats";

const DEFAULT_BATCH_SIZE: u32 = 0;
const DEFAULT_TIMEOUT: u64 = u64::MAX;
const DEFAULT_POLICY: Policy = Policy::Arrival;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// 0: as the engine downstream prefers.
    pub(super) batch_size: u32,
    /// Nanoseconds; u64::MAX: none in non-live, automatic in live pipelines.
    pub(super) timeout: u64,
    pub(super) policy: Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: DEFAULT_BATCH_SIZE,
            timeout: DEFAULT_TIMEOUT,
            policy: DEFAULT_POLICY,
        }
    }
}

pub struct ComfyBatch {
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// The src task waits for frames.
    added: Waker,
    /// Upstream waits for room, and serialized queries for their turn.
    removed: Waker,
}

#[glib::object_subclass]
impl ObjectSubclass for ComfyBatch {
    const NAME: &'static str = "GstComfyBatch";
    type Type = super::ComfyBatch;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let srcpad = gst::Pad::builder_from_template(&klass.pad_template("src").expect("installed in class_init"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .activatemode_function(|_pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic in activation")),
                    |imp| imp.src_activate(mode, active),
                )
            })
            .build();
        Self {
            srcpad,
            settings: Mutex::default(),
            state: Mutex::new(State::new(Settings::default())),
            added: Waker::default(),
            removed: Waker::default(),
        }
    }
}

impl ObjectImpl for ComfyBatch {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecUInt::builder(PROP_BATCH_SIZE)
                    .nick("Batch Size")
                    .blurb("Most frames of one batch; the more, the busier the model and the longer the first frame waits (0 = what the model downstream prefers)")
                    .maximum(MAX_BATCH as u32)
                    .default_value(DEFAULT_BATCH_SIZE)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder(PROP_TIMEOUT)
                    .nick("Timeout")
                    .blurb("Nanoseconds after its first frame's arrival at which a batch leaves even when it is not full (18446744073709551615 = none in non-live pipelines; in live ones the time a full batch needs plus half a frame)")
                    .default_value(DEFAULT_TIMEOUT)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_POLICY, DEFAULT_POLICY)
                    .nick("Policy")
                    .blurb("Whose frames go first when several streams together have more than one batch takes")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
                    .nick("Statistics")
                    .blurb("Batches by reason, frames in and out, mean fill of a batch, and streams since the last start")
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
            PROP_TIMEOUT => settings.timeout = value.get().expect("type checked by GObject"),
            PROP_POLICY => settings.policy = value.get().expect("type checked by GObject"),
            name => unreachable!("property {name} is not writable"),
        }
        let settings = *settings;
        let mut state = self.state.lock();
        let relatency = state.configure(settings);
        self.added.wake();
        self.removed.wake();
        drop(state);
        if relatency {
            self.post_latency();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = *self.settings.lock();
        match pspec.name() {
            PROP_BATCH_SIZE => settings.batch_size.to_value(),
            PROP_TIMEOUT => settings.timeout.to_value(),
            PROP_POLICY => settings.policy.to_value(),
            PROP_STATS => self.state.lock().stats().to_value(),
            name => unreachable!("no property {name}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.srcpad).expect("a new element has no pads");
    }
}

impl GstObjectImpl for ComfyBatch {}

impl ElementImpl for ComfyBatch {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Comfy batcher",
                "Generic/Video",
                "Makes batches of video frames, of one stream or several, without copying a pixel",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            vec![
                gst::PadTemplate::with_gtype(
                    "sink_%u",
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                    &batchcaps::frame_template(),
                    ComfyStreamPad::static_type(),
                )
                .expect("valid template"),
                gst::PadTemplate::new(
                    "src",
                    gst::PadDirection::Src,
                    gst::PadPresence::Always,
                    &batchcaps::batch_template(),
                )
                .expect("valid template"),
            ]
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let (stream, active) = {
            let mut state = self.state.lock();
            let wanted = name.and_then(|n| n.strip_prefix("sink_")).and_then(|n| n.parse().ok());
            let Some(stream) = state.join(wanted) else {
                gst::warning!(CAT, imp = self, "there is a pad {name:?} already");
                return None;
            };
            (stream, state.flow.is_ok())
        };
        let pad = ComfyStreamPad::numbered(template, stream)
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.chain(pad.stream(), buffer),
                )
            })
            .event_full_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .link_function(|pad, parent, _peer| {
                Self::catch_panic_pad_function(parent, || (), |imp| imp.state.lock().expect(pad.stream()));
                Ok(gst::PadLinkSuccess)
            })
            .unlink_function(|pad, parent| {
                Self::catch_panic_pad_function(
                    parent,
                    || (),
                    |imp| {
                        imp.state.lock().expect_no_more(pad.stream());
                        imp.removed.wake();
                    },
                )
            })
            .build();
        pad.set_stream(stream);
        self.state.lock().set_pad(stream, &pad);
        if active {
            // Ready before anyone can link to it.
            let _ = pad.set_active(true);
        }
        if self.obj().add_pad(&pad).is_err() {
            self.state.lock().leave(stream);
            return None;
        }
        self.post_streams();
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let Some(stream) = pad.downcast_ref::<ComfyStreamPad>().map(ComfyStreamPad::stream) else {
            return;
        };
        self.state.lock().close(stream);
        self.removed.wake();
        // Waits for the chain function, which the line above lets go.
        let _ = pad.set_active(false);
        let mut state = self.state.lock();
        state.leave(stream);
        self.added.wake();
        self.removed.wake();
        drop(state);
        let _ = self.obj().remove_pad(pad);
        self.post_streams();
        self.post_latency();
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
                self.state.lock().start(settings);
            }
            gst::StateChange::PausedToReady => self.stop(),
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            self.state.lock().clear();
        }
        Ok(result)
    }
}

impl ComfyBatch {
    fn chain(&self, stream: u32, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state.lock();
        let (group, running, sequence) = state.arriving(stream, &buffer)?;
        let mut frame = Arrived {
            buffer,
            running,
            sequence,
        };
        if state.came(stream, running) {
            self.removed.wake();
        }
        let now = loop {
            state.admits(stream)?;
            if !state.may_go(stream, running) {
                self.removed.wait(&mut state);
                continue;
            }
            let now = state.timeline.now();
            match state.batcher.offer(now, stream, group, running.map(Into::into), frame) {
                Offer::Queued => break now,
                Offer::Full(back) => {
                    frame = back;
                    // The src task may have taken a batch away since the last one was formed.
                    if state.pump_at(now) {
                        self.added.wake();
                    } else {
                        self.removed.wait(&mut state);
                    }
                }
                Offer::Unknown(_) => return Err(gst::FlowError::Flushing),
            }
        };
        let relatency = state.learnt_frame_duration(stream, running);
        if state.pump_at(now) {
            self.added.wake();
        }
        drop(state);
        if relatency {
            self.post_latency();
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, pad: &ComfyStreamPad, event: gst::Event) -> Result<gst::FlowSuccess, gst::FlowError> {
        use gst::EventView;
        let stream = pad.stream();
        match event.view() {
            EventView::FlushStart(_) => {
                self.flush_start(stream, event);
                return Ok(gst::FlowSuccess::Ok);
            }
            EventView::FlushStop(stop) => {
                let reset = stop.resets_time();
                self.flush_stop(pad, reset, event);
                return Ok(gst::FlowSuccess::Ok);
            }
            _ if !event.is_serialized() => {
                return match gst::Pad::event_default(pad, Some(&*self.obj()), event) {
                    true => Ok(gst::FlowSuccess::Ok),
                    false => Err(gst::FlowError::Error),
                };
            }
            EventView::Segment(segment) if segment.segment().format() != gst::Format::Time => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    (
                        "pad {} got a segment in {:?}; batching needs time: put a parser or videorate before it",
                        pad.name(),
                        segment.segment().format()
                    )
                );
                return Err(gst::FlowError::Error);
            }
            // Live or not decides about the timeout, before the first frame.
            EventView::Segment(_) => self.learn_live(pad),
            EventView::Caps(_) => self.learn_size()?,
            _ => (),
        }

        let mut state = self.state.lock();
        let restart = event.type_() == gst::EventType::StreamStart && state.restart(stream);
        if event.type_() == gst::EventType::Eos && state.flow == Err(gst::FlowError::Eos) {
            let last = state.end_early(stream);
            drop(state);
            if last {
                self.srcpad.push_event(event);
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        state.admits(stream)?;
        let mut relatency = false;
        let cut = match event.view() {
            EventView::Caps(caps) => {
                // The caps themselves travel as the container's; a change closes the batch (another group).
                relatency = state.set_caps(stream, caps.caps_owned());
                // Events may wait for the first caps.
                self.added.wake();
                drop(state);
                if relatency {
                    self.post_latency();
                }
                return Ok(gst::FlowSuccess::Ok);
            }
            EventView::Segment(segment) => {
                state.set_segment(stream, segment.segment());
                Cut::Before(Reason::Segment)
            }
            // Nothing follows until the application seeks again, which it may do once it has seen all frames.
            EventView::SegmentDone(_) => Cut::Before(Reason::Segment),
            EventView::Eos(_) => {
                state.set_eos(stream);
                Cut::Before(Reason::Eos)
            }
            EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                state.gap(stream, start, duration, event.clone());
                self.removed.wake();
                if state.pump() {
                    self.added.wake();
                }
                return Ok(gst::FlowSuccess::Ok);
            }
            EventView::CustomDownstreamSticky(_) if let Some(burst) = Burst::parse(&event) => {
                // Meant for us: another batcher further down would take it for its own.
                relatency = state.set_burst(stream, burst);
                drop(state);
                if relatency {
                    self.post_latency();
                }
                return Ok(gst::FlowSuccess::Ok);
            }
            _ => Cut::No,
        };
        let is_eos = event.type_() == gst::EventType::Eos;
        let mut event = event;
        loop {
            if !is_eos {
                state.admits(stream)?;
            } else {
                state.flow?;
            }
            let now = state.timeline.now();
            match state.batcher.mark(now, stream, event, cut) {
                Mark::Queued => break,
                Mark::Full(back) => {
                    event = back;
                    self.removed.wait(&mut state);
                }
                Mark::Unknown(_) => return Err(gst::FlowError::Flushing),
            }
        }
        // The src task may wait for no reason but this one: at EOS there is nothing to pump.
        if state.pump() || is_eos {
            self.added.wake();
        }
        if is_eos {
            // Nobody waits for its turn any more.
            self.removed.wake();
        }
        drop(state);
        if restart {
            self.start_task();
        }
        if relatency {
            self.post_latency();
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn flush_start(&self, stream: u32, event: gst::Event) {
        let mut state = self.state.lock();
        let flush = state.flush_start(stream);
        self.added.wake();
        self.removed.wake();
        drop(state);
        if let Some(flush) = flush {
            // The others go on: only this stream's frames are void.
            self.srcpad.push_event(stream::flushing(stream, flush));
        } else {
            self.srcpad.push_event(event);
            let _ = self.srcpad.pause_task();
        }
    }

    fn flush_stop(&self, pad: &ComfyStreamPad, reset_time: bool, event: gst::Event) {
        let (stream, sticky) = (pad.stream(), stream::sticky(pad));
        let alone = self.state.lock().is_flushed_alone(stream);
        if alone {
            self.srcpad.push_event(event);
        }
        let mut state = self.state.lock();
        state.flush_stop(stream, reset_time, sticky);
        if state.pump() {
            self.added.wake();
        }
        drop(state);
        if alone {
            self.start_task();
        }
    }

    fn sink_query(&self, pad: &ComfyStreamPad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Caps(query) => {
                let filter = query.filter().map(|filter| batchcaps::of_frames(filter, None));
                let frames = batchcaps::of_batches(&self.srcpad.peer_query_caps(filter.as_ref()));
                let mut allowed =
                    batchcaps::frame_template().intersect_with_mode(&frames, gst::CapsIntersectMode::First);
                // Streams that agree share batches: what the others send comes first.
                let common = self.state.lock().others_caps(pad.stream());
                if let Some(common) = common {
                    let first = allowed.intersect(&common);
                    let both = first.iter_with_features().chain(allowed.iter_with_features());
                    allowed = both.map(|(s, f)| (s.to_owned(), f.to_owned())).collect();
                }
                if let Some(filter) = query.filter() {
                    allowed = filter.intersect_with_mode(&allowed, gst::CapsIntersectMode::First);
                }
                query.set_result(&allowed);
                true
            }
            QueryViewMut::Allocation(query) => self.propose_allocation(query),
            QueryViewMut::Drain(_) => self.drain() && self.srcpad.peer_query(query),
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// Asks downstream with batch caps and answers with frame caps: a pool for containers would be sized for the
    /// wrong object.
    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let (Some(caps), need_pool) = query.get_owned() else {
            return false;
        };
        let size = self.state.lock().size();
        let mut inner = gst::query::Allocation::new(Some(&batchcaps::of_frames(&caps, Some(size))), need_pool);
        if !self.srcpad.peer_query(&mut inner) {
            return false;
        }
        video::copy_allocation(&inner, query);
        for (pool, bytes, min, max) in inner.allocation_pools() {
            // Besides what downstream holds, one batch is being formed here.
            let min = min + size as u32;
            query.add_allocation_pool(pool.as_ref(), bytes, min, if max == 0 { 0 } else { max.max(min) });
        }
        true
    }

    /// Pushes everything that waits, and returns when it has left.
    fn drain(&self) -> bool {
        let mut state = self.state.lock();
        if state.flow.is_err() {
            return state.flow == Err(gst::FlowError::Eos);
        }
        state.batcher.drain();
        state.pump();
        self.added.wake();
        while state.flow.is_ok() && !state.is_idle() {
            self.removed.wait(&mut state);
        }
        state.flow.is_ok()
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if let Some(stream) = stream::addressee(&event) {
            let pad = self.state.lock().pad(stream);
            return pad.is_some_and(|pad| pad.push_event(event));
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(latency) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let (mut live, mut min, mut max) = (false, gst::ClockTime::ZERO, gst::ClockTime::NONE);
        // Not in the head of the loop, which would keep the lock to its end.
        let sinks = self.state.lock().pads();
        for sink in sinks {
            let mut peer = gst::query::Latency::new();
            if !sink.peer_query(&mut peer) {
                continue;
            }
            let (peer_live, peer_min, peer_max) = peer.result();
            if !peer_live {
                continue;
            }
            live = true;
            min = min.max(peer_min);
            max = match (max, peer_max) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let mut state = self.state.lock();
        let (own_min, own_max) = state.answer_latency(live);
        drop(state);
        gst::debug!(
            CAT,
            imp = self,
            "latency: live {live}, min {min} + {own_min}, max {max:?} + {own_max}"
        );
        latency.set(live, min + own_min, max.map(|max| max + own_max));
        true
    }

    fn learn_live(&self, pad: &ComfyStreamPad) {
        let mut query = gst::query::Latency::new();
        if pad.peer_query(&mut query) {
            let live = query.result().0;
            let mut state = self.state.lock();
            if state.set_stream_live(pad.stream(), live) {
                self.added.wake();
                self.removed.wake();
            }
        }
    }

    /// With batch-size=0: asks the engine downstream, which may still be loading.
    fn learn_size(&self) -> Result<(), gst::FlowError> {
        if !self.state.lock().is_size_open() {
            return Ok(());
        }
        let preferred = crate::preference::ask(&self.srcpad);
        let mut state = self.state.lock();
        state.flow?;
        state.set_preferred_size(preferred.unwrap_or(1));
        gst::info!(
            CAT,
            imp = self,
            "batches of {} (downstream said {preferred:?})",
            state.size()
        );
        Ok(())
    }

    fn src_activate(&self, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "only push mode"));
        }
        if active {
            self.state.lock().flow = Ok(gst::FlowSuccess::Ok);
            self.start_task();
        } else {
            self.stop();
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

    fn stop(&self) {
        let mut state = self.state.lock();
        state.flow = Err(gst::FlowError::Flushing);
        self.added.wake();
        self.removed.wake();
    }

    /// One turn of the src task. False: the task is paused.
    fn step(&self) -> bool {
        let mut state = self.state.lock();
        let mut idle = false;
        let out = loop {
            if state.flow.is_err() {
                // With the state locked: whoever has it go on finds it paused, or is seen.
                let _ = self.srcpad.pause_task();
                return false;
            }
            state.pump();
            if let Some(out) = state.take() {
                break out;
            }
            self.idle(&mut state);
            idle = true;
        };
        let prelude = state.prelude(&out);
        // A batch that was there before waited for downstream, which is no latency of ours.
        let relatency = idle && state.leaves(&out);
        drop(state);
        self.removed.wake();
        for event in prelude.into_iter().flatten() {
            if !self.srcpad.push_event(event) {
                self.state.lock().forget_prelude();
            }
        }
        let flow = match out {
            Out::Batch {
                batch, pts, duration, ..
            } => {
                let mut container = gst::Buffer::new();
                let writable = container.get_mut().expect("a new buffer is writable");
                writable.set_pts(pts);
                writable.set_duration(duration);
                writable.set_flags(flags(&batch));
                // For those who count frames without knowing the meta: probes, and plugins built apart from this one.
                if let Some(frame) = batch.frames.first() {
                    writable.set_offset(frame.sequence);
                    writable.set_offset_end(frame.sequence + batch.frames.len() as u64);
                }
                gst::trace!(
                    CAT,
                    imp = self,
                    "batch {} of {}: {:?}",
                    batch.sequence,
                    batch.frames.len(),
                    batch.reason
                );
                ComfyBatchMeta::add(writable, batch);
                self.srcpad.push(container)
            }
            // Not the end of the task: a stream may start anew.
            Out::Eos(event) => {
                self.srcpad.push_event(event);
                Ok(gst::FlowSuccess::Ok)
            }
        };
        if let Err(error) = flow {
            gst::debug!(CAT, imp = self, "downstream answered {error:?}");
            let mut state = self.state.lock();
            if state.flow.is_ok() {
                state.flow = Err(error);
            }
            self.added.wake();
            self.removed.wake();
        }
        if relatency {
            self.post_latency();
        }
        true
    }

    fn idle(&self, state: &mut MutexGuard<'_, State>) {
        state.set_idle(true);
        self.removed.wake();
        match state.deadline() {
            Some(deadline) => self.added.wait_until(state, |s| &s.timeline, deadline),
            None => self.added.wait(state),
        }
        state.set_idle(false);
    }

    fn post_latency(&self) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }

    fn post_streams(&self) {
        let streams = self.state.lock().pads().len() as u32;
        let structure = gst::Structure::builder("comfybatch").field("streams", streams).build();
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }
}

/// A container is corrupted when one of its frames is, droppable when all are, and discontinuous as its first is.
fn flags(batch: &Batch) -> gst::BufferFlags {
    let of = |frame: &Frame| frame.input.flags();
    let any = batch
        .frames
        .iter()
        .map(of)
        .fold(gst::BufferFlags::empty(), |a, b| a | b);
    let all = batch
        .frames
        .iter()
        .map(of)
        .reduce(|a, b| a & b)
        .unwrap_or(gst::BufferFlags::empty());
    let first = batch.frames.first().map_or(gst::BufferFlags::empty(), of);
    (any & gst::BufferFlags::CORRUPTED) | (all & gst::BufferFlags::DROPPABLE) | (first & gst::BufferFlags::DISCONT)
}
