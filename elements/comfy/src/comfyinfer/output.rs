//! From an engine's outputs to frames.

use std::collections::BTreeMap;

use comfy_core::engine::device::DeviceLane;
use comfy_core::engine::{self, Lane};
use comfy_core::tensor::FromTensor;
use gst::prelude::*;

use super::OnError;
use super::restore::{Scale, restore};
use super::state::{Counts, Prepared};
use super::tensors::{self, Tensors};
use crate::batchmeta::{Batch, Frame, Status};
use crate::devicememory::Memory;
use crate::tensormeta::{ComfyTensorMeta, Tensor};
use crate::video;

/// What the src task needs to make frames. It belongs to that task alone.
pub(super) struct Outside {
    /// The preparation that it was made for.
    pub(super) number: u64,
    image: Option<Image>,
}

struct Image {
    /// Index of the output that is the picture.
    port: usize,
    input: gst_video::VideoInfo,
    output: gst_video::VideoInfo,
    way: Way,
    scale: Option<Scale>,
    pool: gst::BufferPool,
    /// The last good picture of each stream, kept for on-error=hold only.
    last: BTreeMap<u32, gst::Buffer>,
    /// For on-error=passthrough, when input and output differ.
    converter: Option<gst_video::VideoConverter>,
}

/// How pictures get out of tensors.
pub(super) enum Way {
    /// By the processor.
    Processor(Box<FromTensor>),
    /// By the GPU that has the tensors, into this memory; and whether frames came in the same.
    Device { output: Memory, same: bool },
}

/// Why a batch has no outputs.
#[derive(Debug)]
pub(super) enum Broken {
    /// Flushing while waiting for a buffer.
    Flow(gst::FlowError),
    /// The model, or the device it runs on.
    Engine(engine::Error),
    /// For the user.
    Text(String),
}

impl From<gst::FlowError> for Broken {
    fn from(flow: gst::FlowError) -> Self {
        Broken::Flow(flow)
    }
}

impl Outside {
    /// For engines that make no pictures.
    pub(super) fn untouched(number: u64) -> Self {
        Self { number, image: None }
    }

    pub(super) fn new(
        number: u64,
        port: usize,
        input: gst_video::VideoInfo,
        output: gst_video::VideoInfo,
        way: Way,
        scale: Option<Scale>,
        pool: gst::BufferPool,
    ) -> Self {
        let image = Image {
            port,
            input,
            output,
            way,
            scale,
            pool,
            last: BTreeMap::new(),
            converter: None,
        };
        Self {
            number,
            image: Some(image),
        }
    }

    /// The pool, so that a wait for its buffers can be ended.
    pub(super) fn pool(&self) -> Option<gst::BufferPool> {
        self.image.as_ref().map(|image| image.pool.clone())
    }

    /// Output frames of a batch that ran.
    pub(super) fn fill(
        &mut self,
        batch: &mut Batch,
        lane: &mut Tensors,
        prepared: &Prepared,
        on_error: OnError,
        counts: &mut Counts,
    ) -> Result<(), Broken> {
        let made = match lane {
            Tensors::Device(lane) => self.bring(batch, &mut **lane, prepared, counts)?,
            Tensors::Main(_) => Vec::new(),
        };
        let mut made = made.into_iter();
        let tensors = prepared
            .tensors
            .as_ref()
            .map_or(&[][..], |(_, geometry)| &geometry.tensors);
        for (slot, frame) in batch.frames.iter_mut().enumerate() {
            frame.status = Status::Inferred;
            if let Some(image) = &mut self.image {
                let output = match &*lane {
                    Tensors::Main(lane) => image.convert(frame, &**lane, slot, counts)?,
                    Tensors::Device(_) => made.next().expect("`bring` makes one for each frame"),
                };
                if on_error == OnError::Hold {
                    image.last.insert(frame.stream, output.clone());
                }
                frame.output = Some(output);
            }
            if !tensors.is_empty() {
                let tensors: Vec<Tensor> = tensors
                    .iter()
                    .map(|(port, dims)| {
                        let data = lane.output(*port, slot);
                        Tensor {
                            name: prepared.engine.spec().outputs[*port].name.clone(),
                            dtype: data.dtype(),
                            dims: dims.clone(),
                            data: gst::Buffer::from_mut_slice(data.to_bytes()),
                        }
                    })
                    .collect();
                counts.tensors += tensors.len() as u64;
                // A reference to the input's memory with metas of its own: the input may be someone else's too.
                let mut output = frame.output.take().unwrap_or_else(|| frame.input.copy());
                ComfyTensorMeta::add(output.make_mut(), tensors);
                frame.output = Some(output);
            }
        }
        Ok(())
    }

    /// Pictures of a batch out of a GPU's tensors, all by one kernel; and whatever else the model gives.
    fn bring(
        &mut self,
        batch: &Batch,
        lane: &mut dyn DeviceLane,
        prepared: &Prepared,
        counts: &mut Counts,
    ) -> Result<Vec<gst::Buffer>, Broken> {
        let place = &prepared.place;
        let before = lane.report().crossings;
        let mut outputs = Vec::new();
        let (info, memory) = match (&self.image, &prepared.tensors) {
            (Some(image), _) => {
                outputs.reserve_exact(batch.frames.len());
                for _ in &batch.frames {
                    outputs.push(image.pool.acquire_buffer(None)?);
                }
                let Way::Device { output, .. } = image.way else {
                    return Err(Broken::Text(
                        "its pictures are on a GPU, and were expected in main memory".into(),
                    ));
                };
                (&image.output, output)
            }
            // No picture, but perhaps tensors.
            (None, Some((info, _))) => (info, Memory::System),
            (None, None) => return Ok(outputs),
        };
        let written = tensors::store(lane, &mut outputs, info, memory, place).map_err(Broken::Engine)?;
        counts.non_finite += written.non_finite as u64;
        counts.crossings.add(lane.report().crossings.since(before));
        if let Some(image) = &self.image {
            for (frame, output) in batch.frames.iter().zip(&mut outputs) {
                restore(&frame.input, output.make_mut(), image.scale.as_ref());
            }
        }
        Ok(outputs)
    }

    /// Frames of a batch that came before the model was there: they go on as they came.
    pub(super) fn pass(&self, batch: &mut Batch, counts: &mut Counts) {
        for frame in &mut batch.frames {
            frame.status = Status::PassedThrough;
            counts.passed += 1;
            counts.warming_up += 1;
        }
    }

    /// Frames of a batch that the model failed on.
    pub(super) fn replace(&mut self, batch: &mut Batch, on_error: OnError, counts: &mut Counts) -> Result<(), Broken> {
        for frame in &mut batch.frames {
            counts.failed += 1;
            let Some(image) = &mut self.image else {
                frame.status = Status::PassedThrough;
                counts.passed += 1;
                continue;
            };
            if let Some(last) = image.last.get(&frame.stream).filter(|_| on_error == OnError::Hold) {
                // The picture's memory by reference, everything else of this frame.
                let mut output = gst::Buffer::new();
                let target = output.get_mut().expect("a new buffer is writable");
                last.copy_into(target, gst::BufferCopyFlags::MEMORY, ..)
                    .map_err(|e| Broken::Text(e.to_string()))?;
                if let Some(meta) = last.meta::<gst_video::VideoMeta>() {
                    let _ = meta
                        .upcast_ref()
                        .transform(target, &gst::meta::MetaTransformCopy::new(..));
                }
                restore(&frame.input, target, image.scale.as_ref());
                (frame.output, frame.status) = (Some(output), Status::Duplicated);
                counts.held += 1;
                continue;
            }
            match image.way {
                _ if image.is_as_it_came() => {}
                // The way of the processor goes through a map, which device memory does not have.
                Way::Device { same: false, .. }
                | Way::Device {
                    output: Memory::Cuda, ..
                } => {
                    return Err(Broken::Text(
                        "a frame cannot be passed through: it is in a GPU's memory, and the model's pictures are of \
                         another kind; set on-error=hold, or fail"
                            .into(),
                    ));
                }
                _ => frame.output = Some(image.scaled_input(frame)?),
            }
            frame.status = Status::PassedThrough;
            counts.passed += 1;
        }
        Ok(())
    }
}

impl Image {
    /// Whether an input frame can stand for an output frame.
    fn is_as_it_came(&self) -> bool {
        let same = matches!(self.way, Way::Processor(_) | Way::Device { same: true, .. });
        same && self.input.to_caps().ok() == self.output.to_caps().ok()
    }

    fn convert(
        &mut self,
        frame: &Frame,
        lane: &dyn Lane,
        slot: usize,
        counts: &mut Counts,
    ) -> Result<gst::Buffer, Broken> {
        let mut output = self.pool.acquire_buffer(None)?;
        let target = output.make_mut();
        {
            let Way::Processor(from) = &mut self.way else {
                return Err(Broken::Text(
                    "its pictures are in main memory, and were expected on a GPU".into(),
                ));
            };
            let mut mapped = gst_video::VideoFrameRef::from_buffer_ref_writable(target, &self.output)
                .map_err(|_| Broken::Text("an output buffer cannot be mapped for writing".into()))?;
            let written = from
                .run(lane.output(self.port, slot), &mut video::image_mut(&mut mapped))
                .map_err(|error| Broken::Text(error.to_string()))?;
            counts.non_finite += written.non_finite as u64;
        }
        restore(&frame.input, target, self.scale.as_ref());
        Ok(output)
    }

    fn scaled_input(&mut self, frame: &Frame) -> Result<gst::Buffer, Broken> {
        let failed = |what: &str| Broken::Text(format!("a frame cannot be passed through: {what}"));
        if self.converter.is_none() {
            let made = gst_video::VideoConverter::new(&self.input, &self.output, None);
            self.converter = Some(made.map_err(|error| failed(&error.to_string()))?);
        }
        let converter = self.converter.as_mut().expect("made above");
        let mut output = self.pool.acquire_buffer(None)?;
        let target = output.make_mut();
        {
            let source = gst_video::VideoFrameRef::from_buffer_ref_readable(&frame.input, &self.input)
                .map_err(|_| failed("the input cannot be mapped"))?;
            let mut dest = gst_video::VideoFrameRef::from_buffer_ref_writable(target, &self.output)
                .map_err(|_| failed("the output cannot be mapped"))?;
            converter.frame_ref(&source, &mut dest);
        }
        restore(&frame.input, target, self.scale.as_ref());
        Ok(output)
    }
}
