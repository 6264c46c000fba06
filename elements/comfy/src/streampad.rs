//! A pad that knows the number of its stream: `sink_%u` of comfybatch, `src_%u` of comfyunbatch.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use gst::subclass::prelude::*;

glib::wrapper! {
    /// The pad.
    pub struct ComfyStreamPad(ObjectSubclass<imp::ComfyStreamPad>) @extends gst::Pad, gst::Object;
}

impl ComfyStreamPad {
    /// A builder for stream `number`, named after the template.
    pub(crate) fn numbered(template: &gst::PadTemplate, number: u32) -> gst::PadBuilder<Self> {
        let name = template.name_template().replace("%u", &number.to_string());
        gst::PadBuilder::from_template(template).name(name)
    }

    pub(crate) fn stream(&self) -> u32 {
        self.imp().stream.load(Relaxed)
    }

    pub(crate) fn set_stream(&self, stream: u32) {
        self.imp().stream.store(stream, Relaxed);
    }
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct ComfyStreamPad {
        pub(super) stream: AtomicU32,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for ComfyStreamPad {
        const NAME: &'static str = "GstComfyStreamPad";
        type Type = super::ComfyStreamPad;
        type ParentType = gst::Pad;
    }

    impl ObjectImpl for ComfyStreamPad {}
    impl GstObjectImpl for ComfyStreamPad {}
    impl PadImpl for ComfyStreamPad {}
}
