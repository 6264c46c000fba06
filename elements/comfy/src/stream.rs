//! Words between comfybatch and comfyunbatch about one stream of several.
//!
//! Downstream, inside batches: a stream has left ([`left`]); a stream was flushed ([`flushed`]), which follows the
//! out-of-band [`flushing`]. Upstream, an event that concerns one stream is [`address`]ed to it, so that a seek or a
//! key-frame request of one viewer reaches one source.

use gst::prelude::*;

const LEFT: &str = "comfy-stream-left";
const FLUSHING: &str = "comfy-stream-flushing";
const FLUSHED: &str = "comfy-stream-flushed";
const STREAM: &str = "comfy-stream";
const RESET: &str = "reset-time";
const FLUSH: &str = "flush";

/// A word about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Its pad was released; nothing of it follows.
    Left,
    /// Drop what is queued of it and whatever still comes, up to the `Flushed` of the same number: that of an earlier
    /// flush may still be on its way.
    Flushing {
        /// Counts the stream's flushes.
        flush: u64,
    },
    /// What follows is new. Whether running time starts anew.
    Flushed {
        /// As in `Flushing`.
        flush: u64,
        /// As in FLUSH_STOP.
        reset_time: bool,
    },
}

/// In order: the stream's pad was released.
pub(crate) fn left(stream: u32) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::builder(LEFT).field(STREAM, stream).build())
}

/// Out of band: everything of this stream that is on its way is void.
pub(crate) fn flushing(stream: u32, flush: u64) -> gst::Event {
    let structure = gst::Structure::builder(FLUSHING)
        .field(STREAM, stream)
        .field(FLUSH, flush)
        .build();
    gst::event::CustomDownstreamOob::new(structure)
}

/// In order: the end of a stream's flush.
pub(crate) fn flushed(stream: u32, flush: u64, reset_time: bool) -> gst::Event {
    let structure = gst::Structure::builder(FLUSHED)
        .field(STREAM, stream)
        .field(FLUSH, flush)
        .field(RESET, reset_time)
        .build();
    gst::event::CustomDownstream::new(structure)
}

/// Reads a word about a stream.
pub(crate) fn parse(event: &gst::EventRef) -> Option<(u32, Word)> {
    let structure = event.structure()?;
    let word = match structure.name().as_str() {
        LEFT => Word::Left,
        FLUSHING => Word::Flushing {
            flush: structure.get(FLUSH).ok()?,
        },
        FLUSHED => Word::Flushed {
            flush: structure.get(FLUSH).ok()?,
            reset_time: structure.get(RESET).unwrap_or(true),
        },
        _ => return None,
    };
    Some((structure.get(STREAM).ok()?, word))
}

/// Marks an upstream event as meant for one stream.
pub(crate) fn address(mut event: gst::Event, stream: u32) -> gst::Event {
    event.make_mut().structure_mut().set(STREAM, stream);
    event
}

/// The stream an upstream event is meant for.
pub(crate) fn addressee(event: &gst::EventRef) -> Option<u32> {
    match event.type_() {
        gst::EventType::CustomDownstream | gst::EventType::CustomDownstreamOob => None,
        _ => event.structure()?.get(STREAM).ok(),
    }
}

/// A flush drops what waits, but a sticky event (a stream's name, its caps, its tags) still holds afterwards: it stays
/// on the pad. Segment and EOS do not.
pub(crate) fn keep_sticky(pad: &impl IsA<gst::Pad>, dropped: impl IntoIterator<Item = gst::Event>) {
    for event in dropped {
        if event.is_sticky() && !matches!(event.type_(), gst::EventType::Segment | gst::EventType::Eos) {
            // Fails on a pad that is being deactivated, which forgets its events anyway.
            let _ = pad.store_sticky_event(&event);
        }
    }
}

/// The events that still hold for a stream after a flush, except its caps, which travel with the batches.
pub(crate) fn sticky(pad: &impl IsA<gst::Pad>) -> Vec<gst::Event> {
    let mut events = Vec::new();
    pad.sticky_events_foreach(|event| {
        use gst::EventType::*;
        if !matches!(event.type_(), Caps | Segment | Eos) {
            events.push(event.clone());
        }
        std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
    });
    events
}
