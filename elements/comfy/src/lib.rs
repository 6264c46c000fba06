//! `libgstcomfy`: comfyflightbuffer, comfybatch, comfyinfer and comfyunbatch.
//!
//! They share one batch meta ([`batchmeta`]), so they live in one plugin. In reading order: [`batchmeta`] and
//! [`batchcaps`] say how a batch travels, then the elements in the order of the chain. Policies are in `comfy-core`;
//! an element is pads, locks and waits around them.

pub mod batchcaps;
pub mod batchmeta;
mod burst;
pub mod comfybatch;
pub mod comfyflightbuffer;
pub mod comfyinfer;
pub mod comfyunbatch;
mod devicememory;
mod error;
mod gstcuda;
mod pinned;
mod preference;
mod stream;
mod streampad;
pub mod tensormeta;
mod video;
mod wake;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    comfyflightbuffer::register(plugin)?;
    comfybatch::register(plugin)?;
    comfyinfer::register(plugin)?;
    comfyunbatch::register(plugin)
}

#[allow(missing_docs, reason = "what the macro makes has no documentation")]
mod plugin {
    use super::plugin_init;

    gst::plugin_define!(
        comfy,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "MPL-2.0",
        env!("CARGO_PKG_NAME"),
        "gst-comfy",
        "https://github.com/gst-comfy/gst-comfy"
    );
}
pub use plugin::plugin_register_static;
