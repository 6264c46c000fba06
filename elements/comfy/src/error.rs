//! The core's errors as GStreamer's: which domain, which code. The text is the core's own; it already says what
//! failed, which one and what to do.

use comfy_core::engine;
use gst::{ErrorMessage, error_msg};

/// Where an engine's error belongs.
pub(crate) fn message(error: &engine::Error) -> ErrorMessage {
    use engine::Error::*;
    match error {
        NotFound { .. } => error_msg!(gst::ResourceError::NotFound, ("{error}")),
        Unreadable { .. } => error_msg!(gst::ResourceError::OpenRead, ("{error}")),
        NotAModel { .. } => error_msg!(gst::StreamError::WrongType, ("{error}")),
        Manifest { .. } | Setting(_) => error_msg!(gst::ResourceError::Settings, ("{error}")),
        Fit { .. } => error_msg!(gst::StreamError::Format, ("{error}")),
        Runtime(_) => error_msg!(gst::LibraryError::Init, ("{error}")),
        _ => error_msg!(gst::ResourceError::Failed, ("{error}")),
    }
}
