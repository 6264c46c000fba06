//! A stream: where frames come from, what is done with them, and whoever watches the result.

use serde::Serialize;

use crate::infergraph::{FlightStats, Leaky};
use crate::pool::Key;
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
            max_batches: 2,
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

/// A stream of frames with a name.
#[derive(Debug)]
pub struct Stream {}

impl Stream {
    /// Its name: the session's id, or what it is published as.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// What is done with its frames.
    pub fn settings(&self) -> Settings {
        todo!()
    }

    /// Does something else with them from now on. A model that has to be loaded takes over when it is ready; what was
    /// done before goes on until then.
    pub fn set(&self, settings: Settings) -> Result<(), crate::infergraph::Error> {
        let _ = settings;
        todo!()
    }

    /// Its figures.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// How many watch it.
    pub fn viewers(&self) -> usize {
        todo!()
    }
}
