//! Our elements, made known to this process.

use std::path::PathBuf;

use gst::prelude::*;
use parking_lot::Mutex;

/// The elements of plugin `comfy`.
pub const ELEMENTS: [&str; 4] = ["comfyflightbuffer", "comfybatch", "comfyinfer", "comfyunbatch"];

/// Where the elements come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A plugin file that GStreamer found, as every other program finds it.
    File {
        /// The file.
        path: PathBuf,
        /// The version that it states.
        version: String,
    },
    /// The copy inside this program.
    Linked,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { path, version } => write!(f, "{} (version {version})", path.display()),
            Origin::Linked => write!(f, "linked into this program (version {})", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Why there are no elements.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// GStreamer itself does not start.
    #[error("GStreamer cannot be started: {0}; check that GStreamer 1.22 or newer is installed")]
    Init(glib::Error),
    /// It started and refuses the elements.
    #[error("the elements of gst-comfy cannot be registered: {0}; check that GStreamer is 1.22 or newer")]
    Register(glib::BoolError),
}

/// Starts GStreamer and makes the elements known: those of a plugin file of our version where GStreamer finds one
/// (GST_PLUGIN_PATH), the linked ones otherwise. May be called again.
pub fn register() -> Result<Origin, Error> {
    // Two at a time would replace each other's factories, which elements point at.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    gst::init().map_err(Error::Init)?;
    // What sessions need besides: congestion control and AV1's packets, and trickle as a source.
    if gst::ElementFactory::find("rtpgccbwe").is_none() {
        gstrsrtp::plugin_register_static().map_err(Error::Register)?;
    }
    if gst::ElementFactory::find("tricklesrc").is_none() {
        gsttrickle::plugin_register_static().map_err(Error::Register)?;
    }
    let found = found();
    match found {
        Some(Origin::Linked) => Ok(Origin::Linked),
        // Another version may lack what our graphs set.
        Some(Origin::File { path, version }) if version == env!("CARGO_PKG_VERSION") => {
            Ok(Origin::File { path, version })
        }
        _ => {
            gstcomfy::plugin_register_static().map_err(Error::Register)?;
            Ok(Origin::Linked)
        }
    }
}

/// The elements as GStreamer knows them now; None: not at all.
pub fn found() -> Option<Origin> {
    let registry = gst::Registry::get();
    // A registry remembers files that have gone, and plugins that no longer load.
    let usable = ELEMENTS.iter().all(|name| {
        gst::ElementFactory::find(name)
            .is_some_and(|factory| factory.load().is_ok_and(|loaded| loaded.type_().is_valid()))
    });
    let plugin = registry.find_plugin("comfy").filter(|_| usable)?;
    Some(match plugin.filename() {
        Some(path) => Origin::File {
            path,
            version: plugin.version().to_string(),
        },
        None => Origin::Linked,
    })
}
