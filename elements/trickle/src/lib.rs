//! `libgsttrickle`: tricklesink and tricklesrc.
//!
//! What travels, who gets which number, where a segment of MPEG-TS may begin and what becomes of a failure is decided
//! in `comfy_core::trickle`; the elements are pads, locks and waits around its clients. They share one runtime
//! (`runtime.rs`), on whose threads all sockets are; streaming threads only hand over and take.

mod access;
mod error;
mod media;
mod runtime;
pub mod tricklesink;
pub mod tricklesrc;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    tricklesink::register(plugin)?;
    tricklesrc::register(plugin)
}

#[allow(missing_docs, reason = "what the macro makes has no documentation")]
mod plugin {
    use super::plugin_init;

    gst::plugin_define!(
        trickle,
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
