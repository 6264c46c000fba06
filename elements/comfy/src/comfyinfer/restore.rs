//! The model's picture gets everything else of the input frame: timestamps, offset, flags and metas.

use gst_video::prelude::*;

/// What metas that are about a place in the picture need to know.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// As frames came in.
    pub(super) from: gst_video::VideoInfo,
    /// As they go out.
    pub(super) to: gst_video::VideoInfo,
}

/// Gives `output` everything of `input` but its picture.
pub(super) fn restore(input: &gst::BufferRef, output: &mut gst::BufferRef, scale: Option<&Scale>) {
    // Cannot fail: flags and timestamps need no memory.
    let _ = input.copy_into(
        output,
        gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS,
        ..,
    );
    input.foreach_meta(|meta| {
        copy_meta(&meta, output, scale);
        std::ops::ControlFlow::Continue(())
    });
}

/// A meta without tags says something about the frame and is copied. One about the memory or the colours described
/// the input's bytes. One about a place is copied while the size is the same, and scaled when it is not.
fn copy_meta(meta: &gst::MetaRef<'_, gst::Meta>, target: &mut gst::BufferRef, scale: Option<&Scale>) {
    // The output's pool has described its own memory.
    if meta.has_tag::<gst::meta::tags::Memory>() || meta.api() == gst_video::VideoMeta::meta_api() {
        return;
    }
    if meta.has_tag_by_quark(glib::Quark::from_str("colorspace")) {
        return;
    }
    let sized = ["size", "orientation"]
        .iter()
        .any(|tag| meta.has_tag_by_quark(glib::Quark::from_str(*tag)));
    let copied = match scale {
        Some(scale) if sized => meta.transform(
            target,
            &gst_video::video_meta::VideoMetaTransformScale::new(&scale.from, &scale.to),
        ),
        _ => meta.transform(target, &gst::meta::MetaTransformCopy::new(..)),
    };
    // A meta that cannot be scaled or copied says so by failing, and stays behind.
    let _ = copied;
}
