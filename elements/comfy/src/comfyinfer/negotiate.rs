//! The src side's caps and pool, once the model and the input's caps are known.

use comfy_core::engine::Geometry;
use comfy_core::tensor::{FromTensor, ImageTensor, PixelFormat};
use gst::prelude::*;

use super::output::{Outside, Way};
use super::restore::Scale;
use super::state::{Fit, Prepared};
use super::tensors::Place;
use super::upstream::in_cuda_memory;
use crate::devicememory::{FEATURE, Memory};
use crate::{batchcaps, pinned, video};

/// Why there are no output caps.
pub(super) enum Refused {
    /// Flushing, or nobody downstream: the flow return says it.
    Flow(gst::FlowError),
    /// For the user.
    Text(String),
}

/// Chooses output caps and a pool; the caps event is the caller's to push before anything else.
pub(super) fn negotiate(
    srcpad: &gst::Pad,
    prepared: &Prepared,
    in_flight: usize,
) -> Result<(gst::Caps, Outside), Refused> {
    let image = prepared
        .tensors
        .as_ref()
        .and_then(|(info, geometry)| Some((info, geometry.output.as_ref()?)));
    let Some((input, (port, tensor))) = image else {
        // Frames go on as they are.
        return Ok((prepared.caps.clone(), Outside::untouched(prepared.number)));
    };
    let place = &prepared.place;
    let (output, memory, caps) = choose(
        srcpad,
        input,
        tensor,
        prepared.capacity,
        place,
        &prepared.engine.spec().name,
    )?;
    let way = match place.device {
        Some(_) => Way::Device {
            output: memory,
            same: memory == place.input,
        },
        None => {
            let spec = video::image_spec(&output).expect("every format on offer is one that is converted");
            let from = FromTensor::new(*tensor, spec).map_err(|error| Refused::Text(error.to_string()))?;
            Way::Processor(Box::new(from))
        }
    };
    let scale = (output.width() != input.width() || output.height() != input.height()).then(|| Scale {
        from: input.clone(),
        to: output.clone(),
    });
    let pool = pool(srcpad, &caps, &output, place, prepared.capacity * (in_flight + 2) + 1)
        .map_err(|error| Refused::Text(format!("no buffer pool for {caps}: {error}")))?;
    let outside = Outside::new(prepared.number, *port, input.clone(), output, way, scale, pool);
    Ok((caps, outside))
}

/// Whether downstream would take what a model gives, before it is in use. Nothing is decided by it.
pub(super) fn check(srcpad: &gst::Pad, fit: &Fit, geometry: Option<&Geometry>, model: &str) -> Result<(), Refused> {
    let input = fit.info.as_ref();
    let image = input.and_then(|input| Some((input, geometry?.output.as_ref()?)));
    match image {
        Some((input, (_, tensor))) => choose(srcpad, input, tensor, fit.capacity, &fit.place, model).map(drop),
        None if srcpad.peer_query_caps(Some(&fit.caps)).is_empty() => Err(Refused::Text(format!(
            "model {model} lets frames pass as they are, and downstream does not take them ({}); put videoconvert or videoscale behind comfyunbatch",
            fit.caps
        ))),
        None => Ok(()),
    }
}

/// The format and batch caps that go out.
fn choose(
    srcpad: &gst::Pad,
    input: &gst_video::VideoInfo,
    tensor: &ImageTensor,
    capacity: usize,
    place: &Place,
    model: &str,
) -> Result<(gst_video::VideoInfo, Memory, gst::Caps), Refused> {
    let (width, height) = (tensor.width as u32, tensor.height as u32);
    let mut wanted = Vec::new();
    let mut filter = gst::Caps::new_empty();
    for (memory, format) in kinds(input, place, || asks_for_cuda(&srcpad.peer_query_caps(None))) {
        let Some(info) = output_info(input, format, width, height) else {
            continue;
        };
        let Ok(mut frames) = info.to_caps() else { continue };
        if memory == Memory::Cuda {
            frames = in_cuda_memory(frames);
        }
        let caps = batchcaps::of_frames(&frames, Some(capacity));
        filter.merge(caps.clone());
        wanted.push((info, memory, caps));
    }
    let allowed = srcpad.peer_query_caps(Some(&filter));
    let chosen = wanted.into_iter().find(|(.., caps)| caps.can_intersect(&allowed));
    chosen.ok_or_else(|| {
        if !srcpad.is_linked() {
            return Refused::Flow(gst::FlowError::NotLinked);
        }
        Refused::Text(format!(
            "model {model} gives {width}x{height} frames, and downstream takes none of the formats on offer ({filter}); put videoconvert or videoscale behind comfyunbatch"
        ))
    })
}

/// Whether somebody downstream names formats in CUDA memory. Who takes anything at all does not.
fn asks_for_cuda(batches: &gst::CapsRef) -> bool {
    let mut all = batches.iter_with_features();
    all.any(|(structure, features)| features.contains(FEATURE) && structure.has_field("format"))
}

/// Memories and formats that go out, the best first: the memory that frames came in, or a GPU's where it is asked for,
/// and the input's own format.
fn kinds(input: &gst_video::VideoInfo, place: &Place, asked: impl Fn() -> bool) -> Vec<(Memory, PixelFormat)> {
    let own = video::image_spec(input).map(|spec| spec.format);
    let mut kinds = Vec::new();
    let mut add = |memory: Memory, formats: &[PixelFormat]| {
        let first = own.into_iter().filter(|own| formats.contains(own));
        let rest = formats.iter().copied().filter(|format| Some(*format) != own);
        kinds.extend(first.chain(rest).map(|format| (memory, format)));
    };
    match (&place.device, &place.gpu) {
        (None, _) => add(Memory::System, &PixelFormat::ALL),
        (Some(_), None) => add(Memory::System, &PixelFormat::DEVICE),
        (Some(_), Some(_)) if place.input == Memory::Cuda || asked() => {
            add(Memory::Cuda, &batchcaps::cuda_formats());
            add(Memory::System, &PixelFormat::DEVICE);
        }
        (Some(_), Some(_)) => {
            add(Memory::System, &PixelFormat::DEVICE);
            add(Memory::Cuda, &batchcaps::cuda_formats());
        }
    }
    kinds
}

fn output_info(
    input: &gst_video::VideoInfo,
    format: PixelFormat,
    width: u32,
    height: u32,
) -> Option<gst_video::VideoInfo> {
    let format: gst_video::VideoFormat = video::format_name(format).parse().ok()?;
    // The picture keeps its shape on the screen when the model changes its size.
    let par = input.par()
        * gst::Fraction::new(input.width() as i32, width as i32)
        * gst::Fraction::new(height as i32, input.height() as i32);
    let colorimetry = input.colorimetry();
    let builder = gst_video::VideoInfo::builder(format, width, height)
        .fps(input.fps())
        .par(par);
    let kind = |format: gst_video::VideoFormat| gst_video::VideoFormatInfo::from_format(format);
    let same = kind(format).is_yuv() == input.format_info().is_yuv()
        && kind(format).is_gray() == input.format_info().is_gray();
    if same {
        builder.colorimetry(&colorimetry).build()
    } else {
        builder.build()
    }
    .ok()
}

/// Downstream's pool where it is large enough for what is in flight, else our own.
fn pool(
    srcpad: &gst::Pad,
    caps: &gst::Caps,
    info: &gst_video::VideoInfo,
    place: &Place,
    needed: usize,
) -> Result<gst::BufferPool, glib::BoolError> {
    if let (Memory::Cuda, Some(gpu)) = (Memory::of(caps), &place.gpu) {
        // Downstream's may be in another context, and this one is where our kernels write.
        return gpu.pool(&batchcaps::of_batches(caps), info.size() as u32, 0);
    }
    let mut query = gst::query::Allocation::new(Some(caps), true);
    let answered = srcpad.peer_query(&mut query);
    let video_meta = answered && query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
    let frames = batchcaps::of_batches(caps);
    if answered {
        for (pool, size, min, max) in query.allocation_pools() {
            let Some(pool) = pool.filter(|_| max == 0 || max as usize >= needed) else {
                continue;
            };
            let size = size.max(info.size() as u32);
            let max = if max == 0 { 0 } else { max };
            if let Ok(pool) = configure(pool, &frames, size, min, max, video_meta, &query) {
                return Ok(pool);
            }
        }
    }
    if let Some(device) = &place.device {
        let allocator = pinned::PinnedAllocator::new(device);
        let pool = pinned::pool(&allocator, &frames, info.size() as u32, 0)?;
        pool.set_active(true)?;
        return Ok(pool);
    }
    let pool = gst_video::VideoBufferPool::new();
    configure(pool.upcast(), &frames, info.size() as u32, 0, 0, video_meta, &query)
}

fn configure(
    pool: gst::BufferPool,
    caps: &gst::Caps,
    size: u32,
    min: u32,
    max: u32,
    video_meta: bool,
    query: &gst::query::Allocation,
) -> Result<gst::BufferPool, glib::BoolError> {
    let mut config = pool.config();
    config.set_params(Some(caps), size, min, max);
    if let Some((allocator, params)) = query.allocation_params().next() {
        config.set_allocator(allocator.as_ref(), Some(&params));
    }
    if video_meta && pool.has_option("GstBufferPoolOptionVideoMeta") {
        config.add_option("GstBufferPoolOptionVideoMeta");
    }
    if pool.set_config(config).is_err() {
        // The pool has changed what it was asked for; as long as the frames fit, that is its right.
        let config = pool.config();
        config.validate_params(Some(caps), size, min, max)?;
        pool.set_config(config)?;
    }
    pool.set_active(true)?;
    Ok(pool)
}
