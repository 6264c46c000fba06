//! The tensors of one batch in flight, in main memory or a GPU's, and the way of frames into and out of the latter.

use std::sync::Arc;

use comfy_core::cuda::Device;
use comfy_core::engine::device::{DeviceLane, Source, Target};
use comfy_core::engine::{self, Engine, Geometry, Interrupt, Lane, LaneRequest};
use comfy_core::tensor::{TensorRef, Written};

use crate::batchmeta::Batch;
use crate::devicememory::{Access, Gpu, Memory};
use crate::video;

/// Where frames come from, and where the tensors are.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) input: Memory,
    /// The GPU that the engine runs on; None: the processor does everything.
    pub(super) device: Option<Arc<Device>>,
    /// The same as GStreamer shares it; None: its frames cannot be kept there.
    pub(super) gpu: Option<Arc<Gpu>>,
}

impl Place {
    /// For frames of these caps, or why they and this engine do not come together.
    pub(super) fn new(engine: &dyn Engine, frames: &gst::CapsRef, gpu: Option<Arc<Gpu>>) -> Result<Self, String> {
        let place = Self {
            input: Memory::of(frames),
            device: engine.device(),
            gpu,
        };
        match (place.input, &place.device, &place.gpu) {
            (Memory::System, ..) | (Memory::Cuda, Some(_), Some(_)) => Ok(place),
            (Memory::Cuda, None, _) => Err(format!(
                "frames are in a GPU's memory and it runs on the processor ({}); put cudadownload before comfybatch",
                engine.spec().runtime
            )),
            (Memory::Cuda, Some(_), None) => Err(
                "frames are in a GPU's memory, and GStreamer's CUDA library cannot be used here (GST_DEBUG=comfyinfer:4 \
                 says why); put cudadownload before comfybatch"
                    .into(),
            ),
        }
    }
}

/// A lane.
pub(super) enum Tensors {
    /// Frames are converted by the processor.
    Main(Box<dyn Lane>),
    /// Frames are converted on the GPU, and everything is queued there.
    Device(Box<dyn DeviceLane>),
}

impl Tensors {
    /// On the engine's GPU where it has one.
    pub(super) fn new(engine: &dyn Engine, request: &LaneRequest) -> Result<Self, engine::Error> {
        match engine.device() {
            Some(_) => engine.device_lane(request).map(Tensors::Device),
            None => engine.lane(request).map(Tensors::Main),
        }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        match self {
            Tensors::Main(lane) => lane.geometry(),
            Tensors::Device(lane) => lane.geometry(),
        }
    }

    pub(super) fn interrupt(&self) -> Arc<dyn Interrupt> {
        match self {
            Tensors::Main(lane) => lane.interrupt(),
            Tensors::Device(lane) => lane.interrupt(),
        }
    }

    /// On a GPU, returns before the run is over.
    pub(super) fn run(&mut self, count: usize) -> Result<(), engine::Error> {
        match self {
            Tensors::Main(lane) => lane.run(count),
            Tensors::Device(lane) => lane.run(count),
        }
    }

    /// Waits until the GPU, if it is one, has done what was queued. No frame of the batch may be let go before.
    pub(super) fn settle(&mut self) -> Result<(), engine::Error> {
        match self {
            Tensors::Main(_) => Ok(()),
            Tensors::Device(lane) => lane.wait(),
        }
    }

    pub(super) fn output(&self, port: usize, slot: usize) -> TensorRef<'_> {
        match self {
            Tensors::Main(lane) => lane.output(port, slot),
            Tensors::Device(lane) => lane.output(port, slot),
        }
    }
}

const NO_GPU: &str = "there is no GPU whose memory GStreamer shares";

impl Drop for Tensors {
    /// A batch that is given up takes its lane with it, and its frames follow.
    fn drop(&mut self) {
        if let Tensors::Device(lane) = self {
            // What failed there is nobody's any more.
            let _ = lane.wait();
        }
    }
}

/// Queues the way of a batch's frames into a lane.
pub(super) fn load(
    lane: &mut dyn DeviceLane,
    batch: &Batch,
    info: &gst_video::VideoInfo,
    place: &Place,
) -> Result<(), engine::Error> {
    let misfit = |reason: String| engine::Error::Setting(reason);
    let spec = video::image_spec(info).ok_or_else(|| misfit(format!("frames are {info:?}, which is not converted")))?;
    let name = |at: usize| {
        let frame = &batch.frames[at];
        format!("frame {} of stream {}", frame.sequence, frame.stream)
    };
    match place.input {
        Memory::Cuda => {
            let gpu = place.gpu.as_ref().ok_or_else(|| misfit(NO_GPU.into()))?;
            let mut sources = Vec::with_capacity(batch.frames.len());
            for (at, frame) in batch.frames.iter().enumerate() {
                let image = gpu.image(&frame.input, info, Access::Read);
                let image = image.map_err(|reason| misfit(format!("{} cannot be read: {reason}", name(at))))?;
                sources.push(Source::Device(image));
            }
            lane.load(&spec, &sources)
        }
        Memory::System => {
            let mut mapped = Vec::with_capacity(batch.frames.len());
            for (at, frame) in batch.frames.iter().enumerate() {
                let map = gst_video::VideoFrameRef::from_buffer_ref_readable(&frame.input, info);
                mapped.push(map.map_err(|_| misfit(format!("{} cannot be mapped", name(at))))?);
            }
            let sources: Vec<Source<'_>> = mapped.iter().map(|frame| Source::Host(video::image(frame))).collect();
            lane.load(&spec, &sources)
        }
    }
}

/// Has a lane write its pictures into these buffers, one per slot. They are complete when it returns.
pub(super) fn store(
    lane: &mut dyn DeviceLane,
    outputs: &mut [gst::Buffer],
    info: &gst_video::VideoInfo,
    memory: Memory,
    place: &Place,
) -> Result<Written, engine::Error> {
    let misfit = |reason: String| engine::Error::Setting(reason);
    let spec = video::image_spec(info).ok_or_else(|| misfit(format!("frames of {info:?} cannot be made")))?;
    match memory {
        Memory::Cuda => {
            let gpu = place.gpu.as_ref().ok_or_else(|| misfit(NO_GPU.into()))?;
            let mut targets = Vec::with_capacity(outputs.len());
            for buffer in outputs {
                let image = gpu.image(buffer, info, Access::Write);
                let image = image.map_err(|reason| misfit(format!("an output buffer cannot be written: {reason}")))?;
                targets.push(Target::Device(image));
            }
            lane.store(&spec, &mut targets)
        }
        Memory::System => {
            let mut mapped = Vec::with_capacity(outputs.len());
            for buffer in outputs {
                let map = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), info);
                mapped.push(map.map_err(|_| misfit("an output buffer cannot be mapped for writing".into()))?);
            }
            let mut targets: Vec<Target<'_>> = mapped
                .iter_mut()
                .map(|frame| Target::Host(video::image_mut(frame)))
                .collect();
            lane.store(&spec, &mut targets)
        }
    }
}
