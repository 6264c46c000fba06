//! A stream: where frames come from, what is done with them, and whoever watches the result.

use std::sync::{Arc, Weak};

use gst::prelude::*;
use parking_lot::Mutex;
use serde::Serialize;

use crate::codec::Codec;
use crate::infergraph::{Error, FlightStats, Leaky};
use crate::ingress::set_size;
use crate::link::{Inlet, Outlet};
use crate::pool::{self, Buffering, Key, Lane, Pool, Readiness};
use crate::stages::{Mark, Stages as Notes};
use crate::trace::Spread;

/// What is done with a stream's frames. May be changed while they flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The model; None: frames go on as they are.
    pub model: Option<Key>,
    /// Width and height that frames are brought to before the model; None: as they come.
    pub size: Option<(u32, u32)>,
    /// Batches collected before the first frame leaves.
    pub threshold: u32,
    /// Batches that the flight buffer holds.
    pub max_batches: u32,
    /// What happens when it is full.
    pub leaky: Leaky,
    /// Whether the last picture stands.
    pub paused: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            size: None,
            threshold: 0,
            max_batches: 1,
            leaky: Leaky::Oldest,
            paused: false,
        }
    }
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No frame has come.
    Waiting,
    /// The model is not ready.
    Loading,
    /// The flight buffer collects.
    Filling,
    /// Frames come out of the model.
    Running,
    /// The last picture stands, as was asked.
    Paused,
    /// Frames go on unchanged, as was asked.
    PassThrough,
    /// The model failed, and nothing comes out.
    Failed,
    /// No more frames come.
    Ended,
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is somewhere else.
    State {
        /// Where.
        state: State,
        /// For people.
        text: String,
        /// From 0 to 1, where known.
        progress: Option<f64>,
    },
    /// The flight buffer's state changed.
    Buffer {
        /// `filling`, `running`, `underrun` or `overrun`.
        state: String,
        /// Frames in it.
        fill: u32,
        /// Most that it holds.
        capacity: u32,
        /// Collected before the first leaves.
        threshold: u32,
        /// Milliseconds until it starts, where known.
        expected_ms: Option<f64>,
    },
    /// Something failed; the stream lives on.
    Failed(String),
    /// Something is not as it should be.
    Warning(String),
}

/// A stream's figures; times in milliseconds, over the last ten seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// Where it is.
    pub state: State,
    /// The model's name; None: none.
    pub model: Option<String>,
    /// What runs it.
    pub runtime: String,
    /// What comes in.
    pub codec_in: Option<String>,
    /// Width of what comes in.
    pub width_in: u32,
    /// Height of what comes in.
    pub height_in: u32,
    /// Width of what comes out.
    pub width: u32,
    /// Height of what comes out.
    pub height: u32,
    /// Frames per second that come in.
    pub fps_in: f64,
    /// And go out.
    pub fps_out: f64,
    /// Frames that came in.
    pub frames_in: u64,
    /// And went out.
    pub frames_out: u64,
    /// Frames dropped on the way, for whatever reason.
    pub dropped: u64,
    /// Frames that the model failed on.
    pub failed: u64,
    /// The flight buffer's.
    pub buffer: FlightStats,
    /// The batches'.
    pub batch: Batch,
    /// The model's.
    pub infer: Infer,
    /// What a frame waits for.
    pub stages: Stages,
    /// Frames per second, one figure per second, of the last minute; the oldest first, with its time in Unix seconds.
    #[serde(skip)]
    pub minute: Vec<(f64, f64)>,
}

/// Batches.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Batch {
    /// Most frames of one.
    pub size: u32,
    /// How many there were.
    pub batches: u64,
    /// Mean share of one that is frames, 0 to 1.
    pub fill: f64,
    /// Left because they were full.
    pub full: u64,
    /// Left because of the timeout.
    pub timeout: u64,
}

/// The model's times, means of a batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Infer {
    /// Frames into tensors.
    pub convert_ms: f64,
    /// The run.
    pub run_ms: f64,
    /// Tensors into frames.
    pub output_ms: f64,
    /// What it answers to the LATENCY query.
    pub latency_ms: f64,
}

/// What a frame waits for between its arrival and its departure.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stages {
    /// From its last packet to the decoded picture.
    pub decode: Spread,
    /// In the flight buffer.
    pub buffer: Spread,
    /// For its batch and the model.
    pub model: Spread,
    /// For conversion before the encoder, and for the encoder.
    pub convert: Spread,
    /// In the encoder.
    pub encode: Spread,
    /// Into packets and out.
    pub send: Spread,
    /// All of it.
    pub total: Spread,
}

/// Hears what a stream says, on threads of its own; it must not wait.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Where a stream's pictures come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) outlet: Outlet,
    /// Decides their size.
    pub(crate) size: gst::Element,
    /// Their format on the way here; None: none.
    pub(crate) codec: Option<Codec>,
}

/// A stream of frames with a name.
pub struct Stream {
    name: String,
    pool: Arc<Pool>,
    notes: Arc<Notes>,
    listener: Listener,
    me: Weak<Stream>,
    inner: Mutex<Inner>,
    /// Held while viewers are sent elsewhere, so that two changes do not mix.
    routing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    origin: Option<Origin>,
    sound: Option<Outlet>,
    /// Does the work now.
    lane: Option<Arc<Lane>>,
    /// Will, once something comes out of it.
    next: Option<Arc<Lane>>,
    viewers: Vec<Weak<Inlet>>,
    listeners: Vec<Weak<Inlet>>,
    state: State,
    failure: Option<String>,
    ended: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.name)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn buffering(&self) -> Buffering {
        Buffering {
            threshold: self.threshold,
            max_batches: self.max_batches,
            leaky: self.leaky,
        }
    }
}

impl Stream {
    /// A stream that waits for frames. Its model is loaded from now on.
    pub fn new(pool: &Arc<Pool>, name: &str, settings: Settings, listener: Listener) -> Result<Arc<Self>, Error> {
        let stream = Arc::new_cyclic(|me| Self {
            name: name.to_owned(),
            pool: pool.clone(),
            notes: Arc::default(),
            listener,
            me: me.clone(),
            inner: Mutex::new(Inner {
                settings: Settings {
                    model: None,
                    ..settings.clone()
                },
                origin: None,
                sound: None,
                lane: None,
                next: None,
                viewers: Vec::new(),
                listeners: Vec::new(),
                state: State::Waiting,
                failure: None,
                ended: false,
            }),
            routing: Mutex::default(),
        });
        stream.set(settings)?;
        Ok(stream)
    }

    /// Its name: the session's id, or what it is published as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is done with its frames.
    pub fn settings(&self) -> Settings {
        self.inner.lock().settings.clone()
    }

    /// Does something else with them from now on. A model that has to be loaded takes over when it is ready; what was
    /// done before goes on until then.
    pub fn set(&self, settings: Settings) -> Result<(), Error> {
        let (wanted, failed) = {
            let inner = self.inner.lock();
            let current = inner
                .next
                .as_ref()
                .or(inner.lane.as_ref())
                .map(|lane| lane.key().clone());
            (
                settings.model.clone().filter(|key| Some(key) != current.as_ref()),
                inner.failure.is_some(),
            )
        };
        // A model that failed is tried again when it is asked for again.
        let wanted = if failed { settings.model.clone() } else { wanted };
        let joined = match &wanted {
            Some(key) => Some(self.join(key, settings.buffering())?),
            None => None,
        };
        let gone = {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            if inner.ended {
                joined.into_iter().collect()
            } else {
                if let Some(origin) = &inner.origin
                    && settings.size != inner.settings.size
                {
                    set_size(&origin.size, settings.size);
                }
                let mut gone = Vec::new();
                if let Some(lane) = joined {
                    inner.failure = None;
                    gone.extend(inner.next.replace(lane));
                } else if settings.model.is_none() {
                    inner.failure = None;
                    gone.extend(inner.next.take());
                    gone.extend(inner.lane.take());
                }
                for lane in [&inner.lane, &inner.next].into_iter().flatten() {
                    lane.set(settings.buffering());
                }
                inner.settings = settings;
                gone
            }
        };
        self.route();
        self.tell_state(None);
        leave(gone);
        // It may have failed before anybody here knew of it.
        let next = self.inner.lock().next.as_ref().map(|lane| lane.report());
        if let Some(report) = next.filter(|report| report.readiness == Readiness::Error) {
            self.hear(pool::Event::Failed(report.text));
        }
        Ok(())
    }

    fn join(&self, key: &Key, buffering: Buffering) -> Result<Arc<Lane>, Error> {
        let me = self.me.clone();
        let listener: pool::Listener = Arc::new(move |event| {
            if let Some(stream) = me.upgrade() {
                stream.hear(event);
            }
        });
        let lane = self.pool.join(key, buffering, &self.notes, listener)?;
        // The first picture that comes out takes over from what was done before.
        let (me, ours) = (self.me.clone(), Arc::downgrade(&lane));
        lane.outlet.pad().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            if let (Some(stream), Some(lane)) = (me.upgrade(), ours.upgrade()) {
                stream.take_over(&lane);
            }
            gst::PadProbeReturn::Remove
        });
        Ok(lane)
    }

    fn take_over(&self, lane: &Arc<Lane>) {
        let gone = {
            let mut inner = self.inner.lock();
            if !inner.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, lane)) {
                return;
            }
            let next = inner.next.take();
            std::mem::replace(&mut inner.lane, next)
        };
        self.route();
        self.tell_state(None);
        leave(gone.into_iter().collect());
    }

    /// On the threads of a graph.
    fn hear(&self, event: pool::Event) {
        match event {
            pool::Event::Model(report) => self.tell_state(Some(report)),
            pool::Event::Buffer(structure) => {
                let number = |name| structure.get::<u32>(name).unwrap_or_default();
                let expected = structure.get::<gst::ClockTime>("expected-start").ok();
                (self.listener)(Event::Buffer {
                    state: structure.get("state").unwrap_or_default(),
                    fill: number("fill"),
                    capacity: number("capacity"),
                    threshold: number("threshold"),
                    expected_ms: expected.map(|time| time.nseconds() as f64 / 1e6),
                });
            }
            pool::Event::Failed(text) => {
                let gone = {
                    let mut inner = self.inner.lock();
                    inner.failure = Some(text.clone());
                    // What did the work before the one that failed goes on doing it.
                    match inner.next.take() {
                        Some(next) => Some(next),
                        None => inner.lane.take(),
                    }
                };
                self.route();
                self.tell_state(None);
                (self.listener)(Event::Failed(text));
                leave(gone.into_iter().collect());
            }
            pool::Event::Warning(text) => (self.listener)(Event::Warning(text)),
        }
    }

    /// Sends frames and viewers where they belong now.
    fn route(&self) {
        let _one = self.routing.lock();
        let (origin, lane, next, paused, passes, mut viewers, sound, listeners) = {
            let mut inner = self.inner.lock();
            inner.viewers.retain(|viewer| viewer.strong_count() > 0);
            inner.listeners.retain(|listener| listener.strong_count() > 0);
            let upgrade = |all: &[Weak<Inlet>]| all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
            (
                inner.origin.clone(),
                inner.lane.clone(),
                inner.next.clone(),
                inner.settings.paused,
                inner.settings.model.is_none(),
                upgrade(&inner.viewers),
                inner.sound.clone(),
                upgrade(&inner.listeners),
            )
        };
        // A model does not run for nobody, but the first picture of the next one tells that it is ready.
        let watched = !viewers.is_empty();
        for (lane, wanted) in [(&lane, watched || next.is_some()), (&next, true)] {
            match (lane, &origin) {
                (Some(lane), Some(origin)) if wanted && !paused => lane.inlet.follow(&origin.outlet),
                (Some(lane), _) => lane.inlet.leave(),
                (None, _) => (),
            }
        }
        let shown = match (&lane, &origin) {
            _ if paused => None,
            (Some(lane), _) => Some(&lane.outlet),
            (None, Some(origin)) if passes => Some(&origin.outlet),
            // Never in silence: without the model that was asked for, nothing is shown.
            _ => None,
        };
        for viewer in viewers.drain(..) {
            match shown {
                Some(outlet) => viewer.follow(outlet),
                None => viewer.leave(),
            }
        }
        for listener in listeners {
            match &sound {
                Some(outlet) => listener.follow(outlet),
                None => listener.leave(),
            }
        }
    }

    /// Tells where it is, if that is somewhere else, or if there is more to say of a model that loads.
    fn tell_state(&self, report: Option<pool::Report>) {
        let event = {
            let mut inner = self.inner.lock();
            let report = report.or_else(|| inner.next.as_ref().or(inner.lane.as_ref()).map(|lane| lane.report()));
            let (state, text, progress) = inner.describe(report.as_ref());
            let loading = state == State::Loading && report.is_some();
            if state == inner.state && !loading {
                return;
            }
            inner.state = state;
            Event::State { state, text, progress }
        };
        (self.listener)(event);
    }

    /// Frames come from there from now on.
    pub(crate) fn set_origin(&self, origin: Option<Origin>) {
        {
            let mut inner = self.inner.lock();
            if let Some(origin) = &origin {
                set_size(&origin.size, inner.settings.size);
                // Without a model that is where a frame is done with.
                let (notes, me) = (self.notes.clone(), self.me.clone());
                origin
                    .outlet
                    .pad()
                    .add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                        let passes = me
                            .upgrade()
                            .is_some_and(|stream| stream.inner.lock().settings.model.is_none());
                        if passes
                            && let Some(pts) = info.buffer().and_then(|buffer| buffer.pts())
                            && let Some(time) = crate::stages::running_time(pad, pts)
                        {
                            notes.mark(Mark::Processed, time);
                        }
                        gst::PadProbeReturn::Ok
                    });
            }
            inner.origin = origin;
        }
        self.route();
        self.tell_state(None);
    }

    /// Sound comes from there from now on.
    pub(crate) fn set_sound(&self, outlet: Option<Outlet>) {
        self.inner.lock().sound = outlet;
        self.route();
    }

    /// Pictures go there, too, as long as it lives.
    pub(crate) fn show(&self, viewer: &Arc<Inlet>) {
        self.inner.lock().viewers.push(Arc::downgrade(viewer));
        self.route();
    }

    /// They do no longer.
    pub(crate) fn hide(&self, viewer: &Arc<Inlet>) {
        let viewer = Arc::downgrade(viewer);
        self.inner.lock().viewers.retain(|other| !other.ptr_eq(&viewer));
        self.route();
    }

    /// So does sound.
    pub(crate) fn play(&self, listener: &Arc<Inlet>) {
        self.inner.lock().listeners.push(Arc::downgrade(listener));
        self.route();
    }

    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }

    /// Whether frames have come, and still may.
    pub fn is_live(&self) -> bool {
        let inner = self.inner.lock();
        inner.origin.is_some() && !inner.ended
    }

    /// Whether no more frames will come.
    pub fn has_ended(&self) -> bool {
        self.inner.lock().ended
    }

    /// No more frames come. Waits for the threads that work on them.
    pub fn end(&self) {
        let gone: Vec<Arc<Lane>> = {
            let mut inner = self.inner.lock();
            inner.ended = true;
            inner.origin = None;
            inner.sound = None;
            inner.lane.take().into_iter().chain(inner.next.take()).collect()
        };
        self.route();
        self.tell_state(None);
        for lane in gone {
            lane.leave();
        }
    }

    /// How many watch it.
    pub fn viewers(&self) -> usize {
        self.inner
            .lock()
            .viewers
            .iter()
            .filter(|viewer| viewer.strong_count() > 0)
            .count()
    }

    /// Its figures.
    pub fn stats(&self) -> Stats {
        let (state, model, origin, lane, viewers) = {
            let inner = self.inner.lock();
            (
                inner.state,
                inner.settings.model.as_ref().map(|key| key.name.clone()),
                inner.origin.clone(),
                inner.lane.clone().or_else(|| inner.next.clone()),
                inner.viewers.iter().filter_map(Weak::upgrade).collect::<Vec<_>>(),
            )
        };
        let (flight, batch, infer) = lane.as_ref().map(|lane| lane.stats()).unwrap_or_default();
        let (width_in, height_in) = origin.as_ref().map(|origin| origin.size_in()).unwrap_or_default();
        let shown = lane
            .as_ref()
            .map(|lane| &lane.outlet)
            .or(origin.as_ref().map(|origin| &origin.outlet));
        let (width, height) = shown.map(|outlet| size_of(&outlet.pad())).unwrap_or_default();
        let (fps_in, fps_out) = self.notes.rates();
        let pushed_out = lane.as_ref().map_or(0, |lane| lane.inlet.dropped());
        let ms = |ns: u64| ns as f64 / 1e6;
        Stats {
            state,
            model,
            runtime: infer.runtime,
            codec_in: origin
                .as_ref()
                .and_then(|origin| origin.codec)
                .map(|codec| codec.to_string()),
            width_in,
            height_in,
            width,
            height,
            fps_in,
            fps_out,
            frames_in: self.notes.count(Mark::Decoded),
            frames_out: self.notes.count(Mark::Processed),
            dropped: flight.dropped_overrun
                + flight.dropped_late
                + pushed_out
                + viewers.iter().map(|viewer| viewer.dropped()).sum::<u64>(),
            failed: infer.failed,
            buffer: flight,
            batch: Batch {
                size: batch.batch_size,
                batches: batch.batches,
                fill: batch.fill,
                full: batch.full,
                timeout: batch.timeout,
            },
            infer: Infer {
                convert_ms: ms(infer.convert_ns),
                run_ms: ms(infer.run_ns),
                output_ms: ms(infer.output_ns),
                latency_ms: ms(infer.latency_ns),
            },
            stages: self.notes.summary(),
            minute: self.notes.minute(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        leave(inner.lane.take().into_iter().chain(inner.next.take()).collect());
    }
}

impl Inner {
    fn describe(&self, report: Option<&pool::Report>) -> (State, String, Option<f64>) {
        let plain = |state, text: &str| (state, text.to_owned(), None);
        if self.ended {
            return plain(State::Ended, "the stream has ended");
        }
        if let Some(failure) = &self.failure
            && self.lane.is_none()
        {
            return (State::Failed, failure.clone(), None);
        }
        if self.settings.paused {
            return plain(State::Paused, "paused: the last picture stands");
        }
        let Some(key) = &self.settings.model else {
            return match self.origin {
                Some(_) => plain(State::PassThrough, "frames go on as they are"),
                None => plain(State::Waiting, "waiting for the first frame"),
            };
        };
        if let Some(report) = report.filter(|report| report.readiness != Readiness::Ready)
            && (self.next.is_some() || self.lane.is_none())
        {
            return (State::Loading, report.text.clone(), report.progress);
        }
        match (&self.origin, &self.lane) {
            (None, _) => plain(State::Waiting, "waiting for the first frame"),
            (_, None) => plain(State::Filling, "collecting frames"),
            (_, Some(_)) => (State::Running, format!("{} runs", key.name), None),
        }
    }
}

impl Origin {
    /// Before they are brought to another size.
    fn size_in(&self) -> (u32, u32) {
        // The scaler stands before the caps that decide.
        let before = self
            .size
            .static_pad("sink")
            .and_then(|pad| pad.peer())
            .and_then(|pad| pad.parent_element());
        match before.and_then(|scale| scale.static_pad("sink")) {
            Some(pad) => size_of(&pad),
            None => (0, 0),
        }
    }
}

fn size_of(pad: &gst::Pad) -> (u32, u32) {
    let caps = pad.current_caps();
    let size = |name| {
        let caps = caps.as_ref()?.structure(0)?;
        u32::try_from(caps.get::<i32>(name).ok()?).ok()
    };
    (size("width").unwrap_or(0), size("height").unwrap_or(0))
}

/// Lanes go on a thread of their own: whoever has them go may be one that they would wait for.
fn leave(lanes: Vec<Arc<Lane>>) {
    if lanes.is_empty() {
        return;
    }
    let lanes = Arc::new(lanes);
    let theirs = lanes.clone();
    let gone = move || theirs.iter().for_each(|lane| lane.leave());
    if std::thread::Builder::new()
        .name("comfy-leave".into())
        .spawn(gone)
        .is_err()
    {
        // Better late than never: without threads nothing else works either.
        lanes.iter().for_each(|lane| lane.leave());
    }
}
