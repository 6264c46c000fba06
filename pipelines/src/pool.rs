//! Models that several streams share: one graph, one engine, one batch of frames from all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gst::prelude::*;
use parking_lot::Mutex;
use serde::Serialize;

use crate::gate::Gate;
use crate::infergraph::{self, Backend, BatchStats, Error, FlightStats, InferStats, Leaky, Precision, make};
use crate::link::{self, Inlet, Outlet};
use crate::stages::{Mark, Stages};
use crate::watch::{self, Watch};

/// Frames that wait for the flight buffer at most.
const FRAMES: u64 = 2;
/// How long a model that nobody uses any more is kept for the next.
const IDLE: Duration = Duration::from_secs(30);
/// How long frames may take out of a graph that their stream leaves.
const DRAIN: Duration = Duration::from_secs(1);
/// How often a graph looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// What has to be the same for streams to share a graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// What people call it.
    pub name: String,
    /// An .onnx file, `builtin:invert` or `builtin:null?...`.
    pub model: String,
    /// Which runtime and provider.
    pub backend: Backend,
    /// Number of the GPU.
    pub device: u32,
    /// Numeric precision asked of the provider.
    pub precision: Precision,
    /// Processor threads of one run; 0: half of the cores.
    pub threads: u32,
    /// Most frames of one batch, 1 to 64.
    pub batch: u32,
    /// Nanoseconds after which a batch leaves unfilled; None: the element decides.
    pub timeout: Option<u64>,
}

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It is being loaded and warmed up.
    Loading,
    /// Frames may come.
    Ready,
    /// It cannot run.
    Error,
}

impl Key {
    fn check(&self) -> Result<(), Error> {
        self.as_config().check()
    }

    fn as_config(&self) -> infergraph::Config {
        infergraph::Config {
            model: self.model.clone(),
            backend: self.backend,
            device: self.device,
            precision: self.precision,
            threads: self.threads,
            batch: self.batch,
            timeout: self.timeout,
            ..infergraph::Config::default()
        }
    }
}

/// Where a model is, and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where.
    pub readiness: Readiness,
    /// For people.
    pub text: String,
    /// From 0 to 1, where known.
    pub progress: Option<f64>,
}

/// What a graph tells those who use it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The model is somewhere else.
    Model(Report),
    /// The flight buffer's state changed: the element's own message.
    Buffer(gst::Structure),
    /// Nothing comes any more.
    Failed(String),
    /// Something is not as it should be.
    Warning(String),
}

pub(crate) type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// How a stream's frames wait for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buffering {
    pub(crate) threshold: u32,
    pub(crate) max_batches: u32,
    pub(crate) leaky: Leaky,
}

/// All graphs.
#[derive(Debug, Default)]
pub struct Pool {
    graphs: Mutex<HashMap<Key, Arc<Graph>>>,
    kept: Mutex<HashMap<Key, Arc<Graph>>>,
    /// What failed while it was kept, which a look at what there is should still tell.
    failed: Mutex<HashMap<Key, Report>>,
}

impl Pool {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Loads a model and keeps it, whether or not a stream uses it.
    pub fn keep(self: &Arc<Self>, key: &Key) -> Result<(), Error> {
        let graph = self.graph(key)?;
        self.kept.lock().insert(key.clone(), graph);
        Ok(())
    }

    /// Where a model is, and what is said of it; None: nobody uses it.
    pub fn readiness(&self, key: &Key) -> Option<Report> {
        let graph = self.graphs.lock().get(key).cloned();
        graph
            .map(|graph| graph.report.lock().clone())
            .or_else(|| self.failed.lock().get(key).cloned())
    }

    /// Ends all graphs, whoever uses them.
    pub fn close(&self) {
        self.kept.lock().clear();
        let graphs: Vec<Arc<Graph>> = self.graphs.lock().drain().map(|(_, graph)| graph).collect();
        for graph in graphs {
            graph.stop();
        }
    }

    /// The graph of a key, made and started where there is none.
    fn graph(self: &Arc<Self>, key: &Key) -> Result<Arc<Graph>, Error> {
        if let Some(graph) = self.graphs.lock().get(key) {
            return Ok(graph.clone());
        }
        key.check()?;
        let graph = Graph::new(key)?;
        // Before anybody joins: an element that is put into a bin on its way up is taken along from where the bin was.
        // What is wrong comes as a message, which is read next.
        let started = graph.pipeline.set_state(gst::State::Playing).is_ok();
        {
            let mut graphs = self.graphs.lock();
            if let Some(other) = graphs.get(key).cloned() {
                drop(graphs);
                graph.stop();
                return Ok(other);
            }
            graphs.insert(key.clone(), graph.clone());
        }
        self.failed.lock().remove(key);
        graph.run(Arc::downgrade(self), started);
        Ok(graph)
    }

    /// A place in the graph of a key.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        buffering: Buffering,
        stages: &Arc<Stages>,
        listener: Listener,
    ) -> Result<Arc<Lane>, Error> {
        loop {
            let graph = self.graph(key)?;
            if let Some(lane) = graph.join(buffering, stages, listener.clone())? {
                return Ok(lane);
            }
            // It has ended since it was found.
            self.forget(&graph);
        }
    }

    /// Forgets a graph, so that who asks for its key next gets a new one.
    fn forget(&self, graph: &Arc<Graph>) {
        let mut graphs = self.graphs.lock();
        if graphs.get(&graph.key).is_some_and(|known| Arc::ptr_eq(known, graph)) {
            graphs.remove(&graph.key);
        }
        drop(graphs);
        let mut kept = self.kept.lock();
        if kept.get(&graph.key).is_some_and(|known| Arc::ptr_eq(known, graph)) {
            kept.remove(&graph.key);
            self.failed
                .lock()
                .insert(graph.key.clone(), graph.report.lock().clone());
        }
    }

    fn is_kept(&self, graph: &Arc<Graph>) -> bool {
        self.kept
            .lock()
            .get(&graph.key)
            .is_some_and(|known| Arc::ptr_eq(known, graph))
    }
}

/// One model, and the streams whose frames it runs on.
#[derive(Debug)]
struct Graph {
    key: Key,
    pipeline: gst::Pipeline,
    batch: gst::Element,
    infer: gst::Element,
    unbatch: gst::Element,
    report: Mutex<Report>,
    lanes: Mutex<Lanes>,
    gate: Gate,
    stopped: AtomicBool,
}

/// Who uses a graph.
#[derive(Debug, Default)]
struct Lanes {
    /// By the number of their pads.
    members: HashMap<u32, Member>,
    /// Nobody else may.
    closed: bool,
}

/// Who listens to what is said of a lane.
struct Member {
    listener: Listener,
    inlet: gst::Element,
    outlet: Outlet,
    flight: gst::Element,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("outlet", &self.outlet)
            .finish_non_exhaustive()
    }
}

impl Graph {
    fn new(key: &Key) -> Result<Arc<Self>, Error> {
        let pipeline = gst::Pipeline::with_name(&format!("model-{}", key.name));
        link::align(&pipeline);
        let (batch, infer, unbatch) = (make("comfybatch")?, make("comfyinfer")?, make("comfyunbatch")?);
        key.as_config().set(&batch, &infer);
        if key.batch > 1 {
            // Encoders and players have no room for bursts of a batch.
            unbatch.set_property_from_str("pacing", "pts");
        }
        // The same model with another batch size, or on its way in or out, is loaded once.
        infer.set_property("shared", format!("{} {:?}", key.model, key.backend));
        pipeline.add_many([&batch, &infer, &unbatch])?;
        gst::Element::link_many([&batch, &infer, &unbatch])?;
        let graph = Arc::new(Self {
            key: key.clone(),
            pipeline,
            batch,
            infer,
            unbatch,
            report: Mutex::new(Report {
                readiness: Readiness::Loading,
                text: format!("loading {}", key.name),
                progress: None,
            }),
            lanes: Mutex::default(),
            gate: Gate::new(room(key.batch)),
            stopped: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&graph);
        graph.unbatch.connect_pad_added(move |_, pad| {
            let Some(graph) = weak.upgrade() else { return };
            let Some(number) = number_of(pad) else { return };
            let lanes = graph.lanes.lock();
            let lane = lanes.members.get(&number).map(|member| member.outlet.clone());
            drop(lanes);
            if let Some(outlet) = lane {
                // Refused only while the lane goes away again.
                let _ = pad.link(&outlet.pad());
            }
        });
        Ok(graph)
    }

    /// Reads the bus from now on, on a thread of its own.
    fn run(self: &Arc<Self>, pool: Weak<Pool>, started: bool) {
        let graph = self.clone();
        let begun = std::thread::Builder::new()
            .name("comfy-model".into())
            .spawn(move || graph.attend(&pool, started));
        if let Err(error) = begun {
            self.fail(format!("no thread for the model: {error}"));
        }
    }

    fn attend(self: &Arc<Self>, pool: &Weak<Pool>, started: bool) {
        let mut watch = Watch::new(&self.pipeline);
        let mut idle_since = None;
        let mut paced = gst::ClockTime::ZERO;
        while !self.stopped.load(Ordering::Acquire) {
            if Duration::from(link::now().saturating_sub(paced)) >= LOOK {
                self.pace();
                paced = link::now();
            }
            if let Some(event) = watch.next(Some(LOOK)) {
                if !self.hear(event) {
                    break;
                }
                continue;
            }
            if !started {
                self.fail(format!("{} does not start", self.key.name));
                break;
            }
            let Some(pool) = pool.upgrade() else { break };
            let used = !self.lanes.lock().members.is_empty() || pool.is_kept(self);
            let since = *idle_since.get_or_insert_with(link::now);
            if used {
                idle_since = None;
            } else if Duration::from(link::now().saturating_sub(since)) >= IDLE {
                let mut lanes = self.lanes.lock();
                if lanes.members.is_empty() {
                    lanes.closed = true;
                    break;
                }
            }
        }
        if let Some(pool) = pool.upgrade() {
            pool.forget(self);
        }
        self.stop();
    }

    /// Tells comfyunbatch when frames are due. The graph's ends do not wait for any time, so the pipeline does not find
    /// out by itself.
    fn pace(&self) {
        if self.key.batch == 1 {
            return;
        }
        let outlets: Vec<Outlet> = self
            .lanes
            .lock()
            .members
            .values()
            .map(|member| member.outlet.clone())
            .collect();
        let latencies = outlets.iter().filter_map(|outlet| {
            let mut query = gst::query::Latency::new();
            outlet.pad().peer_query(&mut query).then(|| query.result().1)
        });
        let Some(latency) = latencies.max() else { return };
        if self.pipeline.latency() != Some(latency) {
            self.pipeline.set_latency(latency);
            // Fails while the pipeline stops, when nobody needs it.
            let _ = self.pipeline.recalculate_latency();
        }
    }

    /// Whether it goes on.
    fn hear(&self, event: watch::Event) -> bool {
        match event {
            watch::Event::Error(failure) => {
                if let Some(listener) = self.listener_of(&failure.path) {
                    listener(Event::Failed(failure.to_string()));
                    return true;
                }
                let common = [&self.batch, &self.infer, &self.unbatch];
                if !common.iter().any(|element| element.path_string() == failure.path) {
                    // Of a lane that has left meanwhile.
                    gst::info!(gst::CAT_RUST, obj = self.pipeline, "{failure}");
                    return true;
                }
                self.fail(failure.to_string());
                false
            }
            watch::Event::Warning(failure) => {
                self.tell(&Event::Warning(failure.to_string()));
                true
            }
            watch::Event::Progress { kind, text, .. } => {
                let readiness = match kind {
                    gst::ProgressType::Complete => Readiness::Ready,
                    gst::ProgressType::Error | gst::ProgressType::Canceled => Readiness::Error,
                    _ => Readiness::Loading,
                };
                self.report(Report {
                    readiness,
                    progress: share(&text),
                    text,
                });
                true
            }
            watch::Event::Element { path, structure, .. } => {
                if structure.name() == "comfyflightbuffer"
                    && let Some(listener) = self.listener_of(&path)
                {
                    listener(Event::Buffer(structure));
                }
                true
            }
            _ => true,
        }
    }

    fn report(&self, report: Report) {
        let changed = {
            let mut now = self.report.lock();
            let changed = *now != report;
            *now = report.clone();
            changed
        };
        if changed {
            self.tell(&Event::Model(report));
        }
    }

    fn fail(&self, text: String) {
        self.report(Report {
            readiness: Readiness::Error,
            text: text.clone(),
            progress: None,
        });
        self.tell(&Event::Failed(text));
    }

    fn tell(&self, event: &Event) {
        let lanes = self.lanes.lock();
        let listeners: Vec<Listener> = lanes.members.values().map(|member| member.listener.clone()).collect();
        drop(lanes);
        for listener in listeners {
            listener(event.clone());
        }
    }

    /// Of the lane whose element stands at this path: what is wrong there is no other's affair.
    fn listener_of(&self, path: &str) -> Option<Listener> {
        let lanes = self.lanes.lock();
        let found = lanes.members.values().find(|member| {
            let own = [&member.inlet, &member.flight, member.outlet.element()];
            own.iter().any(|element| element.path_string() == path)
        });
        found.map(|member| member.listener.clone())
    }

    fn join(
        self: &Arc<Self>,
        buffering: Buffering,
        stages: &Arc<Stages>,
        listener: Listener,
    ) -> Result<Option<Arc<Lane>>, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Never the number of one that has left: its last events may still be on their way. And not that of the pad
        // that comfyunbatch always has.
        let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let inlet = Inlet::new(&format!("frames-{number}"), FRAMES);
        let outlet = Outlet::new(&format!("results-{number}"));
        let flight = make("comfyflightbuffer")?;
        flight.set_property("batch-size", self.key.batch);
        let slot = self
            .batch
            .request_pad_simple(&format!("sink_{number}"))
            .ok_or_else(|| glib::bool_error!("comfybatch gives no pad"))?;
        let lane = Lane {
            graph: self.clone(),
            number,
            inlet,
            outlet,
            flight,
            slot,
            gone: AtomicBool::new(false),
        };
        lane.set(buffering);
        let member = Member {
            listener: listener.clone(),
            inlet: lane.inlet.element().clone(),
            outlet: lane.outlet.clone(),
            flight: lane.flight.clone(),
        };
        {
            let mut lanes = self.lanes.lock();
            if lanes.closed {
                drop(lanes);
                self.batch.release_request_pad(&lane.slot);
                return Ok(None);
            }
            lanes.members.insert(number, member);
        }
        self.pipeline
            .add_many([lane.inlet.element(), &lane.flight, lane.outlet.element()])?;
        lane.inlet.element().link(&lane.flight)?;
        let released = lane
            .flight
            .static_pad("src")
            .ok_or_else(|| glib::bool_error!("no pad"))?;
        released
            .link(&lane.slot)
            .map_err(|why| glib::bool_error!("frames cannot enter the model: {why:?}"))?;
        self.gate.open(number);
        self.count(number, &released, Gate::enter);
        self.count(number, &lane.outlet.pad(), Gate::exit);
        stages.watch(&released, Mark::Released);
        stages.watch(&lane.outlet.pad(), Mark::Processed);
        for element in [lane.outlet.element(), &lane.flight, lane.inlet.element()] {
            element.sync_state_with_parent()?;
        }
        let report = self.report.lock().clone();
        listener(Event::Model(report));
        Ok(Some(Arc::new(lane)))
    }

    /// Does this at the gate with each frame that passes a pad.
    fn count(self: &Arc<Self>, number: u32, pad: &gst::Pad, act: fn(&Gate, u32, u64)) {
        let graph = Arc::downgrade(self);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let (Some(graph), Some(pts)) = (graph.upgrade(), info.buffer().and_then(|buffer| buffer.pts())) {
                act(&graph.gate, number, pts.nseconds());
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn stop(&self) {
        self.lanes.lock().closed = true;
        self.stopped.store(true, Ordering::Release);
        self.gate.close_all();
        // A model that is being loaded does not hold this up: comfyinfer sees to that.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A stream's place in a graph, until it leaves.
#[derive(Debug)]
pub(crate) struct Lane {
    graph: Arc<Graph>,
    number: u32,
    pub(crate) inlet: Inlet,
    pub(crate) outlet: Outlet,
    flight: gst::Element,
    slot: gst::Pad,
    gone: AtomicBool,
}

impl Lane {
    pub(crate) fn key(&self) -> &Key {
        &self.graph.key
    }

    pub(crate) fn report(&self) -> Report {
        self.graph.report.lock().clone()
    }

    pub(crate) fn set(&self, buffering: Buffering) {
        self.flight.set_property("threshold", buffering.threshold);
        self.flight.set_property("max-batches", buffering.max_batches);
        self.flight.set_property_from_str("leaky", buffering.leaky.nick());
    }

    pub(crate) fn stats(&self) -> (FlightStats, BatchStats, InferStats) {
        (
            FlightStats::read(&self.flight),
            BatchStats::read(&self.graph.batch),
            InferStats::read(&self.graph.infer),
        )
    }

    /// Leaves the graph. Waits for the stream's threads in it; not to be called on one of them.
    pub(crate) fn leave(&self) {
        if self.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        self.inlet.leave();
        self.graph.gate.close(self.number);
        // First the way in, then what is left in the graph, then the way out: frames that nobody took would be an error.
        self.take_out(self.inlet.element());
        if let Some(released) = self.flight.static_pad("src") {
            let _ = released.unlink(&self.slot);
        }
        self.take_out(&self.flight);
        let (done, ended) = sync_channel(1);
        self.outlet
            .pad()
            .add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                    let _ = done.try_send(());
                }
                gst::PadProbeReturn::Ok
            });
        self.graph.batch.release_request_pad(&self.slot);
        if self.outlet.pad().is_linked() && !self.graph.stopped.load(Ordering::Acquire) {
            // No end comes through a model that is not ready; nothing comes after it then, either.
            let _ = ended.recv_timeout(DRAIN);
        }
        self.graph.lanes.lock().members.remove(&self.number);
        if let Some(from) = self.outlet.pad().peer() {
            let _ = from.unlink(&self.outlet.pad());
        }
        self.take_out(self.outlet.element());
    }

    fn take_out(&self, element: &gst::Element) {
        element.set_locked_state(true);
        // The elements of a graph that has ended are in NULL already, and what remains is to drop them.
        let _ = element.set_state(gst::State::Null);
        let _ = self.graph.pipeline.remove(element);
    }
}

/// Frames that a model is given at once. One alone: the next stands at the door, and another behind it would only be
/// older by a run. Of batches one runs, one gathers, and one is let out, each frame at its time.
fn room(batch: u32) -> usize {
    batch as usize * if batch == 1 { 1 } else { 3 }
}

/// The number of a pad `src_7`.
fn number_of(pad: &gst::Pad) -> Option<u32> {
    let name = pad.name();
    name.rsplit_once('_')?.1.parse().ok()
}

/// How far a text says that something is: `warming up 3 of 8`, `40 %`.
fn share(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.trim_end_matches(['%', ',', ':']).parse::<f64>().ok();
    let found = words.windows(3).find_map(|three| match three {
        [done, "of", all] => Some((number(done)?, number(all)?)),
        _ => None,
    });
    let share = match found {
        Some((done, all)) if all > 0.0 => done / all,
        _ => {
            let at = words.iter().position(|word| word.ends_with('%'))?;
            let number = match words[at] {
                "%" => number(words.get(at.checked_sub(1)?)?)?,
                word => number(word)?,
            };
            number / 100.0
        }
    };
    Some(share.clamp(0.0, 1.0))
}
