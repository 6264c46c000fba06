//! The rig of gst-comfy's integration tests.
//!
//! [`init`] comes first in every test. [`mod@bench`] puts one element between pads of the test, on a clock that stands
//! still until the test cranks it; [`pipeline`] runs whole pipelines to their end; [`frames`] paints numbers into
//! frames, so that tests speak of identities and not of counts, and [`passport`] says all that a frame carries. Nothing here sleeps: every wait ends on the event it
//! waits for, and a deadline turns one that never comes into a failure with a name.

pub mod bench;
pub mod browser;
pub mod frames;
pub mod gpu;
pub mod models;
pub mod passport;
pub mod peer;
pub mod pipeline;
pub mod relay;
pub mod service;
pub mod story;
pub mod tap;
pub mod temp;
pub mod ts;
pub mod turn;

use std::sync::Once;
use std::time::Duration;

pub use bench::Bench;
pub use frames::Video;
pub use passport::{Passport, Passports};
pub use peer::Peer;
pub use relay::{Certificate, Relay};
pub use service::Service;
pub use tap::{Seen, Tap};

/// How long any wait of a test may last. Only a failure takes this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The same for GStreamer.
pub const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);

/// Tries what depends on threads being woken in time until it goes well: a machine that has stalled spoils one try, a
/// fault of ours spoils all of them.
///
/// # Panics
/// When none of five tries goes well.
pub fn undisturbed(attempt: impl Fn() -> Result<(), String>) {
    let tries: Vec<String> = (0..5).map_while(|_| attempt().err()).collect();
    assert!(tries.len() < 5, "not in one of five tries: {tries:#?}");
}

/// GStreamer with our plugins in it, from this build, and a registry of our own.
#[allow(unsafe_code)]
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // What is installed on a machine, and what its user's cache says, must not decide a result.
        // SAFETY: every test passes here before it does anything else, so that no other thread reads the
        // environment yet.
        unsafe {
            if std::env::var_os("GST_REGISTRY").is_none() {
                let exe = std::env::current_exe().expect("a test has a path");
                std::env::set_var("GST_REGISTRY", exe.with_file_name("gst-registry.bin"));
            }
            std::env::remove_var("GST_PLUGIN_PATH");
            std::env::remove_var("GST_PLUGIN_PATH_1_0");
        }
        gst::init().expect("GStreamer is installed");
        gstcomfy::plugin_register_static().expect("the plugin registers");
        gsttrickle::plugin_register_static().expect("the plugin registers");
    });
}
