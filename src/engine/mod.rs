//! What an engine is: something that turns a batch of images into a batch of images or tensors.
//!
//! An [`Engine`] is opened once and may be shared. Each user asks it for [`Lane`]s: a lane owns the input and output
//! tensors of one batch in flight, so that filling one lane overlaps with running another. The element writes frames
//! into [`Lane::input`], calls [`Lane::run`] on its inference thread and reads [`Lane::output`] on a third.

mod cancel;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(any(feature = "ort", test))]
mod fit;
#[cfg(feature = "cuda")]
mod frames;
pub mod manifest;
pub mod null;
#[cfg(feature = "cuda")]
mod null_device;
mod open;
#[cfg(feature = "ort")]
pub mod ort;
#[cfg(all(feature = "ort", test))]
mod testing;
#[cfg(feature = "ort")]
pub mod trt;
mod turn;

use std::sync::Arc;

pub use cancel::Cancel;
pub use open::{open, open_shared, open_with, watch_thread};

use crate::tensor::{ChannelOrder, DType, Dim, ImageTensor, Layout, TensorMut, TensorRef};

/// How many images one run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSizes {
    /// Exactly this many: a shorter batch is padded, and only the real images come out.
    Fixed(usize),
    /// Any number from 1 up to this.
    UpTo(usize),
}

impl BatchSizes {
    /// The largest batch of one run.
    pub fn max(self) -> usize {
        match self {
            BatchSizes::Fixed(n) | BatchSizes::UpTo(n) => n,
        }
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The tensor's name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Declared dimensions, the batch included where the model has one.
    pub shape: Vec<Dim>,
    /// What it means.
    pub role: Role,
}

/// What a tensor means.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// A picture.
    Image(ImagePort),
    /// Anything else: travels beside the frame.
    Tensor,
}

/// How a picture is laid out in a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct ImagePort {
    pub layout: Layout,
    pub order: ChannelOrder,
    /// Tensor value = byte * scale + bias, per channel in the tensor's own order.
    pub scale: [f32; 3],
    pub bias: [f32; 3],
    /// None: any; for an output, whatever follows from the input.
    pub width: Option<usize>,
    /// None: any; for an output, whatever follows from the input.
    pub height: Option<usize>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// For messages: the file's name, or `builtin:...`.
    pub name: String,
    /// Exactly one of them is an image.
    pub inputs: Vec<Port>,
    /// At most one of them is an image that becomes the output frame.
    pub outputs: Vec<Port>,
    /// How many images one run takes.
    pub batch: BatchSizes,
    /// One line for `stats`: which runtime and provider runs it, and in which version.
    pub runtime: String,
}

/// What a lane is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneRequest {
    /// Width of the frames; the lane's own input may differ when the model's is fixed.
    pub width: usize,
    /// Height of the frames.
    pub height: usize,
    /// Most images in one batch. A model with a smaller fixed batch is run several times.
    pub batch: usize,
}

impl LaneRequest {
    /// Refuses what no lane can be made for.
    fn check(&self) -> Result<(), Error> {
        let LaneRequest { width, height, batch } = *self;
        // The bounds keep every product of sizes below usize::MAX, and batches within what a caller can mean.
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_LANE).contains(&batch) {
            return Err(Error::Setting(format!(
                "{batch} images of {width}x{height}: expected 1 to {MAX_LANE} images of 1x1 to {MAX_SIDE}x{MAX_SIDE}"
            )));
        }
        Ok(())
    }
}

/// Longest side of a frame, in pixels.
const MAX_SIDE: usize = 32768;

/// Most images in one lane.
const MAX_LANE: usize = 1024;

/// The sizes that follow from a [`LaneRequest`], learnt from the model or, where it does not say, from a first run.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// One input image.
    pub input: ImageTensor,
    /// One output image and its index in [`Spec::outputs`]; None when no output is a picture.
    pub output: Option<(usize, ImageTensor)>,
    /// Non-image outputs: index in [`Spec::outputs`] and the dimensions of one image's share, without the batch.
    pub tensors: Vec<(usize, Vec<usize>)>,
}

/// A loaded model.
pub trait Engine: Send + Sync {
    /// What it takes and gives.
    fn spec(&self) -> &Spec;

    /// True when output is the input frame itself, untouched: callers then skip conversion and read no tensors.
    fn is_identity(&self) -> bool {
        false
    }

    /// Makes the tensors of one batch in flight, and warms up every batch size that the lane will run. Blocks for
    /// as long as that takes; call it before frames flow, off any state-change thread.
    fn lane(&self, request: &LaneRequest) -> Result<Box<dyn Lane>, Error>;

    /// The GPU that it runs on, where its lanes may be in that GPU's memory.
    #[cfg(feature = "cuda")]
    fn device(&self) -> Option<Arc<crate::cuda::Device>> {
        None
    }

    /// The same as [`Engine::lane`], in the memory of [`Engine::device`], and only where there is one.
    #[cfg(feature = "cuda")]
    fn device_lane(&self, request: &LaneRequest) -> Result<Box<dyn device::DeviceLane>, Error> {
        let LaneRequest { width, height, .. } = request;
        Err(Error::Setting(format!(
            "{} runs on the processor and makes no lanes of {width}x{height} on a GPU",
            self.spec().name
        )))
    }
}

/// The tensors of one batch in flight. Allocates nothing after it was made.
pub trait Lane: Send {
    /// What its tensors look like.
    fn geometry(&self) -> &Geometry;

    /// The input image number `slot` of the batch, to be filled before [`Lane::run`].
    fn input(&mut self, slot: usize) -> TensorMut<'_>;

    /// Runs the model on the first `count` images, padding when the model wants more. Blocks until the outputs are
    /// there. Ends early with [`Error::Interrupted`] when its [`Interrupt`] says so.
    fn run(&mut self, count: usize) -> Result<(), Error>;

    /// The share of image `slot` in output `port` (an index in [`Spec::outputs`]), of the last run.
    fn output(&self, port: usize, slot: usize) -> TensorRef<'_>;

    /// A handle with which another thread ends a run.
    fn interrupt(&self) -> Arc<dyn Interrupt>;
}

/// Ends a lane's run from another thread.
pub trait Interrupt: Send + Sync {
    /// The run in progress, and each later one, ends with [`Error::Interrupted`].
    fn stop(&self);
    /// Runs work again.
    fn resume(&self);
}

/// Which runtime and provider runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The best that works on this machine, with one line that says what was taken and why each better one failed.
    #[default]
    Auto,
    /// ONNX Runtime on the processor.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    TensorRt,
    /// TensorRT for RTX, NVIDIA's plugin for ONNX Runtime.
    Rtx,
    /// No model: the calibrated engine of [`null`].
    Null,
}

/// Numeric precision asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// As the model says.
    #[default]
    Auto,
    /// Single precision throughout.
    Fp32,
    /// Half precision where the provider can.
    Fp16,
}

/// The frames to compile a model for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shapes {
    /// Width and height. None: as the model says, or, where it does not, as they come.
    pub size: Option<(usize, usize)>,
    /// Numbers of images in one run: everything from the least to the most of them is compiled for, and the most is
    /// what is made fast.
    pub batches: Vec<usize>,
}

/// What to open, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct OpenRequest {
    /// Path of a model, or `builtin:NAME?key=value&...`.
    pub model: String,
    /// Which runtime.
    pub backend: Backend,
    /// GPU number.
    pub device: u32,
    /// Numeric precision.
    pub precision: Precision,
    /// Processor threads of one run; 0: half of the cores, at least one.
    pub threads: usize,
    /// Folder for compiled engines. None: the user's cache.
    pub cache: Option<std::path::PathBuf>,
    /// What to compile for. None: sizes that the model leaves open are learnt from the first frames.
    pub shapes: Option<Shapes>,
    /// Where to look first for ONNX Runtime: a file, or a folder that holds it. Usually the plugin's own folder.
    pub library: Option<std::path::PathBuf>,
}

/// A step of opening a model, for progress messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is being done, for people: `loading cartoon.onnx`, `warming up batch 4`.
    pub what: String,
    /// Per cent of the whole.
    pub percent: u8,
}

/// Why an engine cannot be had or a run failed. Every text says what failed, which one, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("model file {path} does not exist; check the `model` property")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// The file is there and cannot be read.
    #[error("model file {path} cannot be read: {reason}")]
    Unreadable {
        /// The path as given.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The file was read and is not a model, or one that the runtime refuses.
    #[error("{path} is not a usable model: {reason}")]
    NotAModel {
        /// The path as given.
        path: String,
        /// What the runtime said.
        reason: String,
    },
    /// The manifest beside the model is wrong.
    #[error("manifest {path}: {reason}")]
    Manifest {
        /// The manifest's path.
        path: String,
        /// Which key, what was expected.
        reason: String,
    },
    /// The model's inputs or outputs do not fit the frames.
    #[error("model {model} does not fit: {reason}")]
    Fit {
        /// The model.
        model: String,
        /// Which tensor, what shape, what was expected, and how a manifest could fix it.
        reason: String,
    },
    /// ONNX Runtime itself was not found or is too old.
    #[error("{0}")]
    Runtime(String),
    /// A named backend cannot be had here.
    #[error("backend {backend} is not available: {reason}")]
    Backend {
        /// Its nick.
        backend: &'static str,
        /// Why, and what to install.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The model failed while running.
    #[error("model {model} failed: {reason}")]
    Run {
        /// The model.
        model: String,
        /// What the runtime said.
        reason: String,
    },
    /// The run was ended by its [`Interrupt`]; not a fault.
    #[error("interrupted")]
    Interrupted,
}
