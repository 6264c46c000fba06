//! The core's errors as GStreamer's: which domain, which code. The text is the core's own; it already says what
//! failed, which one and what to do.

use comfy_core::trickle::{client, publisher, subscriber, wire};
use gst::{ErrorMessage, error_msg};

/// Where an address that is none belongs.
pub(crate) fn url(error: &wire::UrlError) -> ErrorMessage {
    error_msg!(gst::ResourceError::Settings, ("url: {error}"))
}

/// Where a client's error belongs.
pub(crate) fn client(error: &client::Error) -> ErrorMessage {
    use client::Error::*;
    match error {
        Setup(_) => error_msg!(gst::ResourceError::Settings, ("{error}")),
        Refused { status, .. } => refused(*status, &error.to_string()),
        Connect { .. } | Tls { .. } => error_msg!(gst::ResourceError::OpenReadWrite, ("{error}")),
        _ => error_msg!(gst::ResourceError::Failed, ("{error}")),
    }
}

/// Where the end of a publisher belongs. None: it is no error.
pub(crate) fn published(over: publisher::Over, why: &str) -> Option<ErrorMessage> {
    use publisher::Over::*;
    Some(match over {
        Closed | Stopped => return None,
        NoChannel => error_msg!(gst::ResourceError::NotFound, ("{why}")),
        Refused(status) => refused(status, why),
        Failed | Exhausted => error_msg!(gst::ResourceError::Write, ("{why}")),
    })
}

/// Where the end of a subscription belongs. None: it is no error.
pub(crate) fn subscribed(over: subscriber::Over, why: &str) -> Option<ErrorMessage> {
    use subscriber::Over::*;
    Some(match over {
        Closed | NoChannel | Stopped => return None,
        Refused(status) => refused(status, why),
        Failed => error_msg!(gst::ResourceError::Read, ("{why}")),
        Lagged => error_msg!(
            gst::ResourceError::Read,
            ("{why}: what comes after this element is slower than the channel; raise max-lag, or let lag-policy jump")
        ),
    })
}

fn refused(status: u16, why: &str) -> ErrorMessage {
    match status {
        wire::status::UNAUTHORIZED | 403 => error_msg!(gst::ResourceError::NotAuthorized, ("{why}")),
        wire::status::NO_CHANNEL => error_msg!(gst::ResourceError::NotFound, ("{why}")),
        _ => error_msg!(gst::ResourceError::Failed, ("{why}")),
    }
}
