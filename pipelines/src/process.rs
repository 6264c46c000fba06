//! A file or URI in, its video through the chain, a file out: before and after side by side, with the input's sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gst::prelude::*;
use parking_lot::Mutex;

use crate::codec::{self, Codec, Purpose};
use crate::infergraph::{self, InferGraph, Stats, make};
use crate::sidebyside::{Check, Layout, Observer, SideBySide, Tap};
use crate::trace::Trace;
use crate::watch::{self, Event, Failure, Missing, Watch};
use crate::{packages, state};

/// A model may be loaded while sound waits for its pictures: minutes of it fit in here.
const AUDIO_BYTES: u32 = 64 << 20;
/// What a pipeline gets to write what it holds after it was told to stop, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
const STOP: &str = "comfy-stop";
const NO_VIDEO: &str = "comfy-no-video";

/// Where video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// As it was given, for messages.
    pub text: String,
    uri: String,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where video comes from.
    pub input: Input,
    /// An MP4 file, replaced when it is there.
    pub output: PathBuf,
    /// The model, and how frames get to it.
    pub infer: infergraph::Config,
    /// How much of the input; None: all.
    pub duration: Option<Duration>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input does not exist.
    #[error("input file {0} does not exist; name a file or a URI such as https://...")]
    NotFound(String),
    /// It exists and is not a file.
    #[error("input {0} is a folder; name a file in it")]
    Folder(String),
    /// It is neither.
    #[error("input {input} is neither a file nor a URI: {reason}")]
    NotAUri {
        /// As given.
        input: String,
        /// What GStreamer said.
        reason: String,
    },
    /// It cannot be read.
    #[error("{input} cannot be read as video: {reason}; check that it is a video, whole, and can be reached")]
    Unreadable {
        /// As given.
        input: String,
        /// What GStreamer said.
        reason: String,
    },
    /// It was read, and there is no video in it.
    #[error("{input} contains no video{}; name a file or URI with a video stream", but(found))]
    NoVideo {
        /// As given.
        input: String,
        /// What it contains instead.
        found: Vec<String>,
    },
    /// The stream ended at once.
    #[error("{0} has a video stream without frames; name another file")]
    NoFrames(String),
    /// Decoders or other plugins are not installed.
    #[error("{input} cannot be read: {}", list(missing))]
    Missing {
        /// As given.
        input: String,
        /// What is not there.
        missing: Vec<Missing>,
    },
    /// There is no chain.
    #[error(transparent)]
    Chain(#[from] infergraph::Error),
    /// There is no encoder.
    #[error(transparent)]
    NoEncoder(#[from] codec::NoCodec),
    /// The output cannot be written.
    #[error("{} cannot be written: {reason}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The model or another element failed.
    #[error("{0}")]
    Failed(Failure),
    /// Stopped before there was anything to write.
    #[error("stopped before the first frame was done; nothing was written")]
    Stopped,
    /// The pipeline does not start or does not end.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Told to stop, it goes on.
    #[error("the pipeline did not finish the file within {} s of being told to; what was written is lost", PATIENCE.as_secs())]
    Stuck,
    /// Elements do not fit together.
    #[error("the pipeline cannot be built: {0}")]
    Link(#[from] glib::BoolError),
}

fn but(found: &[String]) -> String {
    if found.is_empty() {
        String::new()
    } else {
        format!(" (but {})", found.join(", "))
    }
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Input {
    /// A path or a URI.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let path = Path::new(text);
        let uri = if path.exists() || !text.contains("://") {
            if path.is_dir() {
                return Err(Error::Folder(text.into()));
            }
            if !path.exists() {
                return Err(Error::NotFound(text.into()));
            }
            glib::filename_to_uri(
                std::path::absolute(path).map_err(|error| Error::NotAUri {
                    input: text.into(),
                    reason: error.to_string(),
                })?,
                None,
            )
            .map(Into::into)
        } else {
            gst::Element::make_from_uri(gst::URIType::Src, text, None).map(|_| text.to_owned())
        };
        match uri {
            Ok(uri) => Ok(Self { text: text.into(), uri }),
            Err(error) => Err(Error::NotAUri {
                input: text.into(),
                reason: error.to_string(),
            }),
        }
    }
}

/// What happens while it runs. Told on any of its threads.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The model is being loaded, in the element's words.
    Loading(String),
    /// The model is loaded.
    Loaded(String),
    /// So many frames are done, of so many as far as the input tells.
    Frames {
        /// Done.
        done: u64,
        /// In all.
        of: Option<u64>,
    },
    /// The file is being closed.
    Finishing,
    /// Something is not as it should be.
    Warning(String),
}

/// What became of the input's sound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audio {
    /// There was none.
    #[default]
    None,
    /// Passed on as it is: AAC.
    Unchanged,
    /// Encoded anew, as AAC, by this element.
    Encoded(String),
    /// Left out, because of this.
    LeftOut(String),
}

/// What the written file contains, read back from it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Written {
    /// Video frames.
    pub frames: u64,
    /// Largest difference of a frame's running time from that of the frame that went in.
    pub deviation: Duration,
    /// Size of the file.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug)]
pub struct Outcome {
    /// Whether frames that came out are those that went in.
    pub check: Check,
    /// The file, read back.
    pub written: Written,
    /// Counters of the elements.
    pub stats: Stats,
    /// Times of the frames.
    pub trace: Trace,
    /// The output's measures.
    pub layout: Option<Layout>,
    /// Caps of the frames that went in.
    pub input_caps: Option<gst::Caps>,
    /// Who decoded.
    pub decoder: Option<String>,
    /// Who encoded.
    pub encoder: &'static str,
    /// The sound.
    pub audio: Audio,
    /// Whether it was stopped before the input's end.
    pub stopped: bool,
}

/// Ends a run before the input does; the file is finished properly.
#[derive(Debug, Clone)]
pub struct Stopper(gst::Bus);

impl Stopper {
    /// Stops. May be called from any thread, also more than once.
    pub fn stop(&self) {
        // A bus that flushes belongs to a run that is over.
        let _ = self
            .0
            .post(gst::message::Application::new(gst::Structure::new_empty(STOP)));
    }
}

/// Told what happens.
pub type Listener = Arc<dyn Fn(Happening) + Send + Sync>;

/// A run, made and not yet started.
pub struct Process {
    config: Config,
    pipeline: gst::Pipeline,
    source: gst::Element,
    graph: InferGraph,
    tap: Tap,
    trace: Trace,
    sidebyside: SideBySide,
    encoder: &'static str,
    partial: PathBuf,
    listener: Listener,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What the callbacks of the pipeline's threads share.
#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    done: AtomicU64,
    times: Mutex<Vec<Option<gst::ClockTime>>>,
    expected: Mutex<Option<u64>>,
    linked: Mutex<Linked>,
}

#[derive(Default)]
struct Linked {
    video: bool,
    audio: Audio,
    others: Vec<String>,
}

impl Process {
    /// Builds the pipeline. `observer` sees every pair of frames.
    pub fn new(config: Config, observer: Option<Observer>, listener: Listener) -> Result<Self, Error> {
        let encoder = codec::encoder(Codec::H264, Purpose::File)?;
        let partial = config.output.with_extension("part");
        // Found out now rather than after the model was loaded.
        std::fs::File::create(&partial).map_err(|error| Error::Output {
            path: config.output.clone(),
            reason: error.to_string(),
        })?;
        let built = Self::build(config, observer, listener, &encoder, &partial);
        if built.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        built
    }

    fn build(
        config: Config,
        observer: Option<Observer>,
        listener: Listener,
        encoder: &codec::Choice,
        partial: &Path,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let pipeline = gst::Pipeline::with_name("process");
        let source = make("uridecodebin")?;
        source.set_property("uri", &config.input.uri);
        let mut stop_at = source.property::<gst::Caps>("caps");
        // Sound that the output can hold is passed on as it is.
        stop_at.merge(
            gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .build(),
        );
        source.set_property("caps", &stop_at);

        let before = make("videoconvert")?;
        // Phones store upright video lying down, with a note to turn it.
        let turn = make("videoflip").ok();
        let graph = InferGraph::new(&config.infer)?;
        let tap = Tap::attach(&graph.sink());
        let trace = Trace::attach(&graph);
        let infer = graph.infer().downgrade();
        let changes = move || {
            infer
                .upgrade()
                .is_none_or(|infer| infergraph::InferStats::read(&infer).pictures)
        };
        let sidebyside = SideBySide::new(tap.clone(), changes, Some(counted(&shared, &listener, observer)));
        let convert = make("videoconvert")?;
        let parse = make("h264parse")?;
        let mux = make("mp4mux")?;
        // Playable while it is still being fetched.
        mux.set_property("faststart", true);
        let sink = make("filesink")?;
        sink.set_property("location", partial.to_string_lossy().as_ref());

        pipeline.add_many([&source, &before, graph.bin().upcast_ref(), sidebyside.upcast_ref()])?;
        pipeline.add_many([&convert, &encoder.element, &parse, &mux, &sink])?;
        if let Some(turn) = &turn {
            turn.set_property_from_str("video-direction", "auto");
            pipeline.add(turn)?;
            gst::Element::link_many([&before, turn, graph.bin().upcast_ref()])?;
        } else {
            before.link(graph.bin())?;
        }
        graph.bin().link(&sidebyside)?;
        gst::Element::link_many([sidebyside.upcast_ref(), &convert, &encoder.element, &parse, &mux, &sink])?;

        let tail = shared.clone();
        graph.src().add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            if tail.stopped.load(Ordering::Acquire) {
                end(pad);
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Ok
        });
        let linker = Linker {
            shared: shared.clone(),
            pipeline: pipeline.downgrade(),
            video: before.static_pad("sink").expect("videoconvert has a sink pad"),
            mux: mux.downgrade(),
            limit: config.duration.and_then(|limit| gst::ClockTime::try_from(limit).ok()),
        };
        source.connect_pad_added(move |_, pad| linker.link(pad));
        let (found, bus) = (shared.clone(), pipeline.bus().expect("a pipeline has a bus"));
        source.connect_no_more_pads(move |_| {
            if !found.linked.lock().video {
                let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty(NO_VIDEO)));
            }
        });
        expect(&graph.sink(), &pipeline, &shared, config.duration);
        Ok(Self {
            config,
            pipeline,
            source,
            graph,
            tap,
            trace,
            sidebyside,
            encoder: encoder.name,
            partial: partial.to_owned(),
            listener,
            shared,
        })
    }

    /// To stop it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.pipeline.bus().expect("a pipeline has a bus"))
    }

    /// Runs to the end of the input, or until it is stopped. Leaves no file behind when it fails.
    pub fn run(self) -> Result<Outcome, Error> {
        let mut watch = Watch::new(&self.pipeline);
        let played = self.play(&mut watch);
        let stats = self.graph.stats();
        let input_caps = self.graph.sink().current_caps();
        let decoder = played.is_ok().then(|| self.decoder()).flatten();
        let layout = self.sidebyside.layout();
        let ended = state::set(&self.pipeline, gst::State::Null, PATIENCE);
        let finished = played.and_then(|()| {
            ended?;
            let written = self.read_back()?;
            std::fs::rename(&self.partial, &self.config.output).map_err(|error| Error::Output {
                path: self.config.output.clone(),
                reason: error.to_string(),
            })?;
            Ok(written)
        });
        let written = finished.inspect_err(|_| {
            let _ = std::fs::remove_file(&self.partial);
        })?;
        let audio = std::mem::take(&mut self.shared.linked.lock().audio);
        Ok(Outcome {
            check: self.tap.final_check(),
            written,
            stats,
            trace: self.trace,
            layout,
            input_caps,
            decoder,
            encoder: self.encoder,
            audio,
            stopped: self.shared.stopped.load(Ordering::Acquire),
        })
    }

    fn play(&self, watch: &mut Watch) -> Result<(), Error> {
        // A refusal has a reason, and that is on the bus.
        let refused = self.pipeline.set_state(gst::State::Playing).is_err();
        let mut patience = refused.then_some(Duration::from_secs(1));
        while let Some(event) = watch.next(patience) {
            match event {
                Event::Eos if self.shared.done.load(Ordering::Acquire) == 0 => {
                    return Err(Error::NoFrames(self.config.input.text.clone()));
                }
                Event::Eos => {
                    (self.listener)(Happening::Finishing);
                    return Ok(());
                }
                Event::Error(failure) => return Err(self.blame(failure)),
                Event::Warning(failure) => {
                    // A decoder that is missing is told once, as what it is.
                    if watch.missing().is_empty() {
                        (self.listener)(Happening::Warning(failure.to_string()));
                    }
                }
                Event::Progress { kind, code, text, .. } if code == "model" => match kind {
                    gst::ProgressType::Complete => (self.listener)(Happening::Loaded(text)),
                    gst::ProgressType::Error => (),
                    _ => (self.listener)(Happening::Loading(text)),
                },
                Event::Application(structure) if structure.name() == NO_VIDEO => {
                    return Err(self.no_video(watch.missing()));
                }
                Event::Application(structure) if structure.name() == STOP => {
                    if self.shared.done.load(Ordering::Acquire) == 0 {
                        return Err(Error::Stopped);
                    }
                    self.shared.stopped.store(true, Ordering::Release);
                    patience = Some(PATIENCE);
                }
                Event::Missing(missing) => {
                    if self.shared.linked.lock().video {
                        (self.listener)(Happening::Warning(missing.to_string()));
                    }
                }
                Event::Progress { .. } | Event::Element { .. } | Event::Application(_) => (),
            }
        }
        if refused {
            let element = self.pipeline.name().into();
            return Err(Error::State(state::Error::Refused {
                element,
                state: gst::State::Playing,
            }));
        }
        Err(Error::Stuck)
    }

    /// Whose fault a failure is.
    fn blame(&self, failure: Failure) -> Error {
        let input = self.config.input.text.clone();
        if !failure.missing.is_empty() {
            return Error::Missing {
                input,
                missing: failure.missing,
            };
        }
        let within = |element: &gst::Object| failure.path.starts_with(element.path_string().as_str());
        if within(self.source.upcast_ref()) {
            return Error::Unreadable {
                input,
                reason: failure.text.trim_end_matches('.').into(),
            };
        }
        Error::Failed(failure)
    }

    fn no_video(&self, missing: &[watch::Missing]) -> Error {
        let input = self.config.input.text.clone();
        if !missing.is_empty() {
            return Error::Missing {
                input,
                missing: missing.to_vec(),
            };
        }
        let linked = self.shared.linked.lock();
        let mut found = linked.others.clone();
        if linked.audio != Audio::None {
            found.push("audio".into());
        }
        Error::NoVideo { input, found }
    }

    fn decoder(&self) -> Option<String> {
        let bin = self.source.downcast_ref::<gst::Bin>()?;
        bin.iterate_recurse()
            .into_iter()
            .filter_map(Result::ok)
            .find_map(|element| {
                let factory = element.factory()?;
                let class = factory.metadata("klass")?;
                (class.contains("Decoder")
                    && (class.contains("Video") || class.contains("Image"))
                    && !class.contains("Bin"))
                .then(|| factory.name().to_string())
            })
    }

    fn read_back(&self) -> Result<Written, Error> {
        let failed = |reason: String| Error::Output {
            path: self.config.output.clone(),
            reason: format!("it cannot be read back: {reason}"),
        };
        let bytes = std::fs::metadata(&self.partial)
            .map_err(|error| failed(error.to_string()))?
            .len();
        let times = read_times(&self.partial).map_err(failed)?;
        let expected = self.shared.times.lock();
        let apart = times.iter().zip(expected.iter().flatten());
        let deviation = apart
            .map(|(is, should)| Duration::from_nanos(is.nseconds().abs_diff(should.nseconds())))
            .max();
        Ok(Written {
            frames: times.len() as u64,
            deviation: deviation.unwrap_or_default(),
            bytes,
        })
    }
}

/// Counts pairs as they are done, before they go to `observer`.
fn counted(shared: &Arc<Shared>, listener: &Listener, observer: Option<Observer>) -> Observer {
    let (shared, listener) = (shared.clone(), listener.clone());
    Arc::new(move |pair| {
        shared.times.lock().push(pair.time);
        let done = shared.done.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(observer) = &observer {
            observer(pair);
        }
        let of = *shared.expected.lock();
        listener(Happening::Frames { done, of });
    })
}

/// Ends the stream at this pad; what comes after is refused.
fn end(pad: &gst::Pad) {
    pad.push_event(gst::event::Eos::new());
}

/// Estimates the number of frames, once caps and duration are known.
fn expect(pad: &gst::Pad, pipeline: &gst::Pipeline, shared: &Arc<Shared>, limit: Option<Duration>) {
    let (pipeline, shared) = (pipeline.downgrade(), shared.clone());
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        let length = pipeline
            .upgrade()
            .and_then(|pipeline| pipeline.query_duration::<gst::ClockTime>());
        let length = length.map(Duration::from).into_iter().chain(limit).min();
        let caps = pad.current_caps();
        let rate = caps.and_then(|caps| caps.structure(0)?.get::<gst::Fraction>("framerate").ok());
        if let (Some(length), Some(rate)) = (length, rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0)) {
            let frames = length.as_secs_f64() * f64::from(rate.numer()) / f64::from(rate.denom());
            *shared.expected.lock() = Some((frames.round() as u64).max(1));
        }
        gst::PadProbeReturn::Remove
    });
}

/// Links what the source finds.
struct Linker {
    shared: Arc<Shared>,
    pipeline: glib::WeakRef<gst::Pipeline>,
    video: gst::Pad,
    mux: glib::WeakRef<gst::Element>,
    limit: Option<gst::ClockTime>,
}

impl Linker {
    fn link(&self, pad: &gst::Pad) {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(format) = caps.structure(0) else { return };
        let kind = format.name().split('/').next().unwrap_or_default();
        if kind == "video" && format.name() == "video/x-raw" {
            if !std::mem::replace(&mut self.shared.linked.lock().video, true) {
                self.limit(pad);
                // Refused links end the stream with an error of the source's own.
                let _ = pad.link(&self.video);
            }
        } else if kind == "audio" {
            if self.shared.linked.lock().audio != Audio::None {
                return;
            }
            let audio = self.audio(pad, format.name() == "audio/mpeg");
            self.shared.linked.lock().audio = audio.unwrap_or_else(|why| Audio::LeftOut(why.to_string()));
        } else {
            self.shared.linked.lock().others.push(format.name().to_string());
        }
    }

    fn audio(&self, pad: &gst::Pad, unchanged: bool) -> Result<Audio, Box<dyn std::error::Error>> {
        let (Some(pipeline), Some(mux)) = (self.pipeline.upgrade(), self.mux.upgrade()) else {
            return Err("the pipeline is gone".into());
        };
        let queue = make("queue")?;
        queue.set_property("max-size-buffers", 0u32);
        queue.set_property("max-size-time", 0u64);
        queue.set_property("max-size-bytes", AUDIO_BYTES);
        let mut elements = vec![queue.clone()];
        let audio = if unchanged {
            Audio::Unchanged
        } else {
            let Some((encoder, name)) = codec::aac_encoder() else {
                let advice = packages::advice(packages::of_element("avenc_aac"));
                return Err(format!("no AAC encoder is installed; {advice}").into());
            };
            elements.extend([make("audioconvert")?, make("audioresample")?, encoder]);
            Audio::Encoded(name.into())
        };
        elements.push(make("aacparse")?);
        pipeline.add_many(&elements)?;
        gst::Element::link_many(&elements)?;
        let last = elements.last().expect("not empty");
        last.link_pads(Some("src"), &mux, Some("audio_%u"))?;
        for element in elements.iter().rev() {
            element.sync_state_with_parent()?;
        }
        self.limit(pad);
        let shared = self.shared.clone();
        let source = queue.static_pad("src").expect("a queue has a src pad");
        source.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            if shared.stopped.load(Ordering::Acquire) {
                end(pad);
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Ok
        });
        pad.link(&queue.static_pad("sink").expect("a queue has a sink pad"))?;
        Ok(audio)
    }

    /// Ends the stream at the limit.
    fn limit(&self, pad: &gst::Pad) {
        let Some(limit) = self.limit else { return };
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let time = info.buffer().and_then(|buffer| running_time(pad, buffer));
            if time.is_some_and(|time| time >= limit) {
                end(pad);
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Ok
        });
    }
}

fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    event
        .segment()
        .downcast_ref::<gst::ClockTime>()?
        .to_running_time(buffer.pts()?)
}

/// Running times of the video frames in an MP4 file, in order, without decoding them.
pub fn read_times(path: &Path) -> Result<Vec<gst::ClockTime>, String> {
    let text = |error: infergraph::Error| error.to_string();
    let pipeline = gst::Pipeline::with_name("read-back");
    let source = make("filesrc").map_err(text)?;
    source.set_property("location", path.to_string_lossy().as_ref());
    let demux = make("qtdemux").map_err(text)?;
    let times = Arc::new(Mutex::new(Vec::new()));
    pipeline
        .add_many([&source, &demux])
        .map_err(|error| error.to_string())?;
    source.link(&demux).map_err(|error| error.to_string())?;
    let (bin, seen) = (pipeline.downgrade(), times.clone());
    demux.connect_pad_added(move |_, pad| {
        let (Some(bin), Ok(sink)) = (bin.upgrade(), make("fakesink")) else {
            return;
        };
        // One thread feeds all of them: none may wait for another's first buffer.
        sink.set_property("async", false);
        if pad.name().starts_with("video") {
            let seen = seen.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                seen.lock()
                    .extend(info.buffer().and_then(|buffer| running_time(pad, buffer)));
                gst::PadProbeReturn::Ok
            });
        }
        // A sink that cannot be linked ends the stream with the demuxer's own error.
        let _ = bin.add(&sink);
        let _ = pad.link(&sink.static_pad("sink").expect("a fakesink has a sink pad"));
        let _ = sink.sync_state_with_parent();
    });
    let mut watch = Watch::new(&pipeline);
    let _ = pipeline.set_state(gst::State::Playing);
    let result = loop {
        match watch.next(Some(PATIENCE)) {
            None => break Err("it takes too long".into()),
            Some(Event::Eos) => break Ok(()),
            Some(Event::Error(failure)) => break Err(failure.to_string()),
            Some(_) => (),
        }
    };
    state::set(&pipeline, gst::State::Null, PATIENCE).map_err(|error| error.to_string())?;
    result?;
    let mut times = std::mem::take(&mut *times.lock());
    times.sort_unstable();
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_input_is_refused_by_name() {
        gst::init().unwrap();
        let text = |input| Input::parse(input).unwrap_err().to_string();
        assert_eq!(
            text("no/such.mp4"),
            "input file no/such.mp4 does not exist; name a file or a URI such as https://..."
        );
        assert!(text("/tmp").starts_with("input /tmp is a folder"), "{}", text("/tmp"));
        assert!(text("://").contains("neither a file nor a URI"), "{}", text("://"));
        assert!(
            text("nosuch://a").contains("neither a file nor a URI"),
            "{}",
            text("nosuch://a")
        );
        assert_eq!(Input::parse("file:///a.mp4").unwrap().uri, "file:///a.mp4");
    }
}
