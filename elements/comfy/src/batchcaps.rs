//! Caps of frames and caps of batches, in both directions.
//!
//! Batch caps are the frame's caps under the private name `video/x-comfy-batch`, so that no element for plain video
//! ever touches a batch, with the feature `meta:ComfyBatchMeta` beside the memory of the frames and `batch-size`,
//! the capacity. The real count is in the meta: a partial batch needs no renegotiation. `framerate` stays the rate
//! of frames.

use comfy_core::tensor::PixelFormat;

/// Name of batch caps.
pub const BATCH: &str = "video/x-comfy-batch";
/// Feature of batch caps.
pub const FEATURE: &str = "meta:ComfyBatchMeta";
/// Largest batch of any element here.
pub const MAX_BATCH: usize = 64;
const MEMORY_SYSTEM: &str = "memory:SystemMemory";

/// Kinds of memory that may travel in a batch; comfyinfer itself maps system memory.
const MEMORIES: [Option<&str>; 4] = [
    None,
    Some("memory:CUDAMemory"),
    Some("memory:GLMemory"),
    Some("memory:DMABuf"),
];

/// Batch caps of frame caps. `size`: one capacity, or any.
pub fn of_frames(frames: &gst::CapsRef, size: Option<usize>) -> gst::Caps {
    map(frames, |structure, features| {
        structure.set_name(BATCH);
        match size {
            Some(size) => structure.set("batch-size", size as i32),
            None => structure.set("batch-size", gst::IntRange::new(1, MAX_BATCH as i32)),
        }
        let mut out = gst::CapsFeatures::new([FEATURE]);
        features
            .iter()
            .filter(|f| f.as_str() != MEMORY_SYSTEM)
            .for_each(|f| out.add(f));
        out
    })
}

/// Frame caps of batch caps.
pub fn of_batches(batches: &gst::CapsRef) -> gst::Caps {
    map(batches, |structure, features| {
        structure.set_name("video/x-raw");
        structure.remove_field("batch-size");
        let rest: Vec<&str> = features.iter().map(|f| f.as_str()).filter(|f| *f != FEATURE).collect();
        if rest.is_empty() {
            gst::CapsFeatures::new([MEMORY_SYSTEM])
        } else {
            gst::CapsFeatures::new(rest)
        }
    })
}

fn map(
    caps: &gst::CapsRef,
    change: impl Fn(&mut gst::StructureRef, &gst::CapsFeaturesRef) -> gst::CapsFeatures,
) -> gst::Caps {
    let mut out = gst::Caps::new_empty();
    if caps.is_any() {
        return gst::Caps::new_any();
    }
    let writable = out.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let mut structure = structure.to_owned();
        let features = change(&mut structure, features);
        writable.append_structure_full(structure, Some(features));
    }
    out
}

/// Capacity that fixed batch caps name.
pub fn capacity(caps: &gst::CapsRef) -> Option<usize> {
    caps.structure(0)?
        .get::<i32>("batch-size")
        .ok()
        .map(|n| n.max(1) as usize)
}

/// Any frame that can be batched.
pub fn frame_template() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    for memory in MEMORIES {
        let structure = gst::Structure::new_empty("video/x-raw");
        let features = gst::CapsFeatures::new([memory.unwrap_or(MEMORY_SYSTEM)]);
        caps.make_mut().append_structure_full(structure, Some(features));
    }
    caps
}

/// Any batch.
pub fn batch_template() -> gst::Caps {
    of_frames(&frame_template(), None)
}

/// Batches whose frames comfyinfer converts on the processor: the formats of [`PixelFormat::ALL`] in main memory.
pub fn infer_template() -> gst::Caps {
    converted(&PixelFormat::ALL, MEMORY_SYSTEM)
}

/// Batches whose frames comfyinfer converts on a GPU: the formats of [`PixelFormat::DEVICE`], there and in main memory.
pub fn device_template() -> gst::Caps {
    let mut caps = converted(&cuda_formats(), crate::devicememory::FEATURE);
    caps.merge(device_main_template());
    caps
}

/// Formats of frames in CUDA memory.
pub fn cuda_formats() -> Vec<PixelFormat> {
    // GStreamer 1.22 ends the process when it is asked for gray frames there.
    let known = |format: &PixelFormat| *format != PixelFormat::Gray8;
    PixelFormat::DEVICE.into_iter().filter(known).collect()
}

/// The same for frames in main memory alone.
pub fn device_main_template() -> gst::Caps {
    converted(&PixelFormat::DEVICE, MEMORY_SYSTEM)
}

fn converted(formats: &[PixelFormat], memory: &str) -> gst::Caps {
    let formats = gst::List::new(formats.iter().map(|format| crate::video::format_name(*format)));
    let frames = gst::Caps::builder("video/x-raw")
        .features([memory])
        .field("format", formats)
        .field("width", gst::IntRange::new(1, 16384))
        .field("height", gst::IntRange::new(1, 16384))
        .field(
            "framerate",
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
        )
        .build();
    of_frames(&frames, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_caps_survive_the_way_into_batch_caps_and_back() {
        gst::init().unwrap();
        for text in [
            "video/x-raw, format=(string)RGB, width=(int)64, height=(int)48, framerate=(fraction)30/1",
            "video/x-raw(memory:CUDAMemory), format=(string)NV12, width=(int)64, height=(int)48",
            "video/x-raw, format=(string){ RGB, I420 }; video/x-raw(memory:GLMemory), format=(string)RGBA",
        ] {
            let frames: gst::Caps = text.parse().unwrap();
            let batches = of_frames(&frames, Some(4));
            assert_eq!(capacity(&batches), Some(4));
            assert!(
                batches
                    .iter_with_features()
                    .all(|(s, f)| s.name() == BATCH && f.contains(FEATURE))
            );
            assert!(
                of_batches(&batches).is_strictly_equal(&frames),
                "{batches} -> {}",
                of_batches(&batches)
            );
        }
    }

    #[test]
    fn plain_video_caps_never_meet_batch_caps() {
        gst::init().unwrap();
        assert!(!batch_template().can_intersect(&frame_template()));
        assert!(batch_template().can_intersect(&infer_template()));
    }
}
