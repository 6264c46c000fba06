//! The chain that runs a model on one stream: comfyflightbuffer ! comfybatch ! comfyinfer ! comfyunbatch.

use gst::prelude::*;
use serde::Serialize;

use crate::packages;

/// How the chain is set up. Defaults are the elements' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// An .onnx file, `builtin:invert` or `builtin:null?...`; empty only with [`Backend::Null`].
    pub model: String,
    /// Which runtime and provider.
    pub backend: Backend,
    /// Number of the GPU.
    pub device: u32,
    /// Numeric precision asked of the provider: `auto`, `fp32` or `fp16`.
    pub precision: Precision,
    /// Processor threads of one run; 0: half of the cores.
    pub threads: u32,
    /// Most frames of one batch, 1 to 64.
    pub batch: u32,
    /// Batches collected before the first frame leaves.
    pub threshold: u32,
    /// Batches that the flight buffer holds.
    pub max_batches: u32,
    /// What happens when it is full.
    pub leaky: Leaky,
    /// Nanoseconds after which a batch leaves unfilled; None: the element decides.
    pub timeout: Option<u64>,
    /// Batches between arrival at and departure from the model.
    pub in_flight: u32,
    /// Whether frames leave at their time rather than at once.
    pub paced: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: String::new(),
            backend: Backend::Auto,
            device: 0,
            precision: Precision::Auto,
            threads: 0,
            batch: 1,
            threshold: 2,
            max_batches: 5,
            leaky: Leaky::None,
            timeout: None,
            in_flight: 2,
            paced: false,
        }
    }
}

/// Which runtime and provider runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The best that works.
    #[default]
    Auto,
    /// ONNX Runtime on the processor.
    Cpu,
    /// Its CUDA provider.
    Cuda,
    /// Its TensorRT provider.
    TensorRt,
    /// TensorRT for RTX.
    Rtx,
    /// No model.
    Null,
}

impl Backend {
    fn nick(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Cpu => "cpu",
            Backend::Cuda => "cuda",
            Backend::TensorRt => "tensorrt",
            Backend::Rtx => "rtx",
            Backend::Null => "null",
        }
    }
}

/// Numeric precision asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// As the model says.
    #[default]
    Auto,
    /// Single.
    Fp32,
    /// Half, where the provider can.
    Fp16,
}

impl Precision {
    fn nick(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
        }
    }
}

/// What happens to frames when the flight buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Leaky {
    /// Upstream waits.
    #[default]
    None,
    /// The oldest goes.
    Oldest,
    /// The newest goes.
    Newest,
    /// One goes whose neighbours are close.
    Thin,
}

impl Leaky {
    pub(crate) fn nick(self) -> &'static str {
        match self {
            Leaky::None => "none",
            Leaky::Oldest => "oldest",
            Leaky::Newest => "newest",
            Leaky::Thin => "thin",
        }
    }
}

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An element is not known to this process.
    #[error(
        "element {element} is not installed; {}",
        packages::advice(packages::of_element(element))
    )]
    NoElement {
        /// Its factory.
        element: String,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}; it must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The elements do not fit together, which no setting can cause.
    #[error("the chain cannot be linked: {0}; the plugin found does not match this program")]
    Link(#[from] glib::BoolError),
}

/// The chain, as a bin with pads `sink` and `src` that take and give raw video.
#[derive(Debug, Clone)]
pub struct InferGraph {
    bin: gst::Bin,
    flight: gst::Element,
    batch: gst::Element,
    infer: gst::Element,
    unbatch: gst::Element,
}

impl InferGraph {
    /// Makes the elements and links them. Nothing is loaded before PAUSED.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let flight = make("comfyflightbuffer")?;
        flight.set_property("batch-size", config.batch);
        flight.set_property("threshold", config.threshold);
        flight.set_property("max-batches", config.max_batches);
        flight.set_property_from_str("leaky", config.leaky.nick());
        let (batch, infer) = (make("comfybatch")?, make("comfyinfer")?);
        config.set(&batch, &infer);
        let unbatch = make("comfyunbatch")?;
        unbatch.set_property_from_str("pacing", if config.paced { "pts" } else { "none" });

        let bin = gst::Bin::with_name("infer");
        bin.add_many([&flight, &batch, &infer, &unbatch])?;
        flight.link_pads(Some("src"), &batch, Some("sink_%u"))?;
        batch.link(&infer)?;
        infer.link(&unbatch)?;
        for (name, element, pad) in [("sink", &flight, "sink"), ("src", &unbatch, "src_0")] {
            let target = element
                .static_pad(pad)
                .ok_or_else(|| glib::bool_error!("no pad {pad}"))?;
            let ghost = gst::GhostPad::builder_with_target(&target)?.name(name).build();
            bin.add_pad(&ghost)?;
        }
        Ok(Self {
            bin,
            flight,
            batch,
            infer,
            unbatch,
        })
    }

    /// The bin, to be put into a pipeline.
    pub fn bin(&self) -> &gst::Bin {
        &self.bin
    }

    /// Frames enter here.
    pub fn sink(&self) -> gst::Pad {
        pad(self.bin.upcast_ref(), "sink")
    }

    /// Frames leave here.
    pub fn src(&self) -> gst::Pad {
        pad(self.bin.upcast_ref(), "src")
    }

    /// comfyflightbuffer.
    pub fn flight(&self) -> &gst::Element {
        &self.flight
    }

    /// comfybatch.
    pub fn batch(&self) -> &gst::Element {
        &self.batch
    }

    /// comfyinfer.
    pub fn infer(&self) -> &gst::Element {
        &self.infer
    }

    /// comfyunbatch.
    pub fn unbatch(&self) -> &gst::Element {
        &self.unbatch
    }

    /// What the elements have counted since the last start.
    pub fn stats(&self) -> Stats {
        Stats {
            flight: FlightStats::read(&self.flight),
            batch: BatchStats::read(&self.batch),
            infer: InferStats::read(&self.infer),
            unbatch: UnbatchStats::read(&self.unbatch),
        }
    }
}

impl Config {
    /// Sets up the two elements that decide what a model does with which frames.
    pub(crate) fn set(&self, batch: &gst::Element, infer: &gst::Element) {
        batch.set_property("batch-size", self.batch);
        if let Some(timeout) = self.timeout {
            batch.set_property("timeout", timeout);
        }
        if !self.model.is_empty() {
            infer.set_property("model", &self.model);
        }
        infer.set_property_from_str("backend", self.backend.nick());
        infer.set_property_from_str("precision", self.precision.nick());
        infer.set_property("device-id", self.device);
        infer.set_property("threads", self.threads);
        infer.set_property("in-flight", self.in_flight);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let within = |name, value: u32, range: std::ops::RangeInclusive<u32>, expected| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(Error::Setting {
                name,
                value: value.into(),
                expected,
            })
        };
        within("the batch size", self.batch, 1..=64, "1 to 64")?;
        within("threshold", self.threshold, 0..=64, "0 to 64 batches")?;
        within("max-batches", self.max_batches, 1..=64, "1 to 64 batches")?;
        within("device", self.device, 0..=63, "0 to 63")?;
        within("threads", self.threads, 0..=256, "0 to 256")?;
        within("in-flight", self.in_flight, 1..=8, "1 to 8 batches")
    }
}

/// Counters of the whole chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// comfyflightbuffer's.
    pub flight: FlightStats,
    /// comfybatch's.
    pub batch: BatchStats,
    /// comfyinfer's.
    pub infer: InferStats,
    /// comfyunbatch's.
    pub unbatch: UnbatchStats,
}

/// Makes a struct of counters that reads itself from an element's `stats`. What an element does not state reads as
/// zero, so that an older plugin is no error.
macro_rules! stats {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// As they are now.
            pub fn read(element: &gst::Element) -> Self {
                let stats = element.property::<gst::Structure>("stats");
                Self { $($field: stats.get::<$type>($key).unwrap_or_default(),)* }
            }
        }
    };
}

stats! {
    /// Counters of comfyflightbuffer, in frames.
    FlightStats {
        /// `filling`, `running`, `underrun` or `overrun`.
        state: String = "state",
        /// In it now.
        fill: u32 = "fill",
        /// Most that were in it.
        peak_fill: u32 = "peak-fill",
        /// Most that it holds.
        capacity: u32 = "capacity",
        /// Collected before the first leaves.
        threshold: u32 = "threshold",
        /// Came in.
        frames_in: u64 = "frames-in",
        /// Went out.
        frames_out: u64 = "frames-out",
        /// Dropped because it was full.
        dropped_overrun: u64 = "dropped-overrun",
        /// Dropped because they were late.
        dropped_late: u64 = "dropped-late",
        /// How often the source fell behind.
        underruns: u64 = "underruns",
        /// How often it was full.
        overruns: u64 = "overruns",
    }
}

stats! {
    /// Counters of comfybatch.
    BatchStats {
        /// Inputs.
        streams: u32 = "streams",
        /// Most frames of a batch.
        batch_size: u32 = "batch-size",
        /// Whether an input is live.
        live: bool = "live",
        /// Batches formed.
        batches: u64 = "batches",
        /// Frames that came in.
        frames_in: u64 = "frames-in",
        /// Frames that left in batches.
        frames_out: u64 = "frames-out",
        /// Mean share of a batch that is frames, 0 to 1.
        fill: f64 = "fill",
        /// Batches that left because they were full.
        full: u64 = "full",
        /// Batches that left because of the timeout.
        timeout: u64 = "timeout",
        /// Batches that left because the stream ended.
        eos: u64 = "eos",
    }
}

stats! {
    /// Counters of comfyinfer. Times are means of a batch, in nanoseconds.
    InferStats {
        /// The model.
        model: String = "model",
        /// What runs it, in which version, and why nothing better.
        runtime: String = "runtime",
        /// Whether it makes pictures; otherwise frames come out as they went in.
        pictures: bool = "pictures",
        /// Batches run.
        batches: u64 = "batches",
        /// Frames in them.
        frames: u64 = "frames",
        /// Empty places run along because the model wants full batches.
        padded: u64 = "padded",
        /// Frames that the model failed on.
        failed: u64 = "failed",
        /// Frames that went on unchanged because of that.
        passed_through: u64 = "passed-through",
        /// Frames that were replaced by the one before because of that.
        held: u64 = "held",
        /// Values that were not finite.
        non_finite: u64 = "non-finite",
        /// Tensors put beside frames.
        tensors: u64 = "tensors",
        /// Frames into tensors.
        convert_ns: u64 = "convert-ns",
        /// The model's run.
        run_ns: u64 = "run-ns",
        /// Tensors into frames.
        output_ns: u64 = "output-ns",
        /// What it answers to the LATENCY query.
        latency_ns: u64 = "latency-ns",
        /// What comes out.
        output_caps: String = "output-caps",
    }
}

stats! {
    /// Counters of comfyunbatch.
    UnbatchStats {
        /// Batches that came in.
        batches: u64 = "batches",
        /// Frames that went out.
        frames_out: u64 = "frames-out",
        /// Frames that wait to be pushed.
        queued: u32 = "queued",
    }
}

/// Makes an element under its factory's name.
pub(crate) fn make(name: &str) -> Result<gst::Element, Error> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| Error::NoElement { element: name.into() })
}

fn pad(element: &gst::Element, name: &str) -> gst::Pad {
    element.static_pad(name).expect("made with the bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_the_elements() {
        crate::register().unwrap();
        let graph = InferGraph::new(&Config {
            model: "builtin:invert".into(),
            backend: Backend::Cpu,
            precision: Precision::Fp16,
            batch: 4,
            threshold: 1,
            max_batches: 3,
            leaky: Leaky::Thin,
            timeout: Some(7),
            threads: 3,
            in_flight: 1,
            paced: true,
            ..Config::default()
        })
        .unwrap();
        let number = |element: &gst::Element, name| element.property::<u32>(name);
        assert_eq!(number(graph.flight(), "batch-size"), 4);
        assert_eq!(number(graph.flight(), "threshold"), 1);
        assert_eq!(number(graph.flight(), "max-batches"), 3);
        assert_eq!(number(graph.batch(), "batch-size"), 4);
        assert_eq!(graph.batch().property::<u64>("timeout"), 7);
        assert_eq!(number(graph.infer(), "threads"), 3);
        assert_eq!(number(graph.infer(), "in-flight"), 1);
        assert_eq!(graph.infer().property::<String>("model"), "builtin:invert");
        for (element, name, nick) in [
            (graph.flight(), "leaky", "thin"),
            (graph.infer(), "backend", "cpu"),
            (graph.infer(), "precision", "fp16"),
            (graph.unbatch(), "pacing", "pts"),
        ] {
            let value = element.property_value(name);
            let (_, value) = glib::EnumValue::from_value(&value).unwrap();
            assert_eq!(value.nick(), nick);
        }
    }

    #[test]
    fn defaults_are_those_of_the_elements() {
        crate::register().unwrap();
        let ours = InferGraph::new(&Config::default()).unwrap();
        for element in [ours.flight(), ours.batch(), ours.infer(), ours.unbatch()] {
            let theirs = element.factory().unwrap().create().build().unwrap();
            for property in element.list_properties() {
                let name = property.name();
                // Ours is one number for two elements, whose own defaults differ.
                if ["name", "parent", "stats", "batch-size"].contains(&name) {
                    continue;
                }
                assert_eq!(
                    format!("{:?}", element.property_value(name)),
                    format!("{:?}", theirs.property_value(name)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_setting_out_of_range_is_refused_by_name() {
        let config = Config {
            batch: 65,
            ..Config::default()
        };
        let error = InferGraph::new(&config).unwrap_err();
        assert_eq!(error.to_string(), "the batch size is 65; it must be 1 to 64");
    }

    #[test]
    fn every_counter_is_stated_by_its_element() {
        crate::register().unwrap();
        let graph = InferGraph::new(&Config::default()).unwrap();
        let counters = serde_json::to_value(graph.stats()).unwrap();
        for (key, element) in [
            ("flight", graph.flight()),
            ("batch", graph.batch()),
            ("infer", graph.infer()),
            ("unbatch", graph.unbatch()),
        ] {
            let stats = element.property::<gst::Structure>("stats");
            for field in counters[key].as_object().unwrap().keys() {
                assert!(
                    stats.has_field(field.replace('_', "-")),
                    "{key}: {field} is not in {stats}"
                );
            }
        }
    }
}
