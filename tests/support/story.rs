//! Batches, frames and events as lines of text, so that a test can state a whole order at once.

use gstcomfy::batchmeta::{Batch, ComfyBatchMeta};

use crate::{Seen, Video};

/// The batch in a container.
pub fn batch(container: &gst::BufferRef) -> Batch {
    container.meta::<ComfyBatchMeta>().expect("a batch").batch().clone()
}

/// Stream and painted number of each frame of a batch.
pub fn numbers(video: &Video, container: &gst::BufferRef) -> Vec<(u32, u64)> {
    let batch = batch(container);
    batch
        .frames
        .iter()
        .map(|f| (f.stream, video.number(f.output.as_ref().unwrap_or(&f.input))))
        .collect()
}

/// The painted numbers of frames.
pub fn painted(video: &Video, frames: &[gst::Buffer]) -> Vec<u64> {
    frames.iter().map(|frame| video.number(frame)).collect()
}

/// Frames in batches that have any.
pub fn filled(containers: &[gst::Buffer]) -> Vec<gst::Buffer> {
    containers
        .iter()
        .filter(|c| !batch(c).frames.is_empty())
        .cloned()
        .collect()
}

/// One line per frame (`stream:number`) and event (`stream:name`) inside batches, `|` behind each batch that holds
/// frames; events outside batches by name.
pub fn of_batches(video: &Video, seen: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    for seen in seen {
        match seen {
            Seen::Event(event) => lines.push(name(event)),
            Seen::Frame(container) => {
                let batch = batch(container);
                let mut events = batch.events.iter().peekable();
                for position in 0..=batch.frames.len() {
                    while let Some(between) = events.next_if(|e| e.position <= position) {
                        lines.push(format!("{}:{}", between.stream, name(&between.event)));
                    }
                    if let Some(frame) = batch.frames.get(position) {
                        lines.push(format!("{}:{}", frame.stream, video.number(&frame.input)));
                    }
                }
                if !batch.frames.is_empty() {
                    lines.push("|".into());
                }
            }
        }
    }
    lines
}

/// One line per frame and event.
pub fn of_frames(video: &Video, seen: &[Seen]) -> Vec<String> {
    let line = |seen: &Seen| match seen {
        Seen::Frame(frame) => video.number(frame).to_string(),
        Seen::Event(event) => name(event),
    };
    seen.iter().map(line).collect()
}

fn name(event: &gst::Event) -> String {
    match event.type_() {
        gst::EventType::CustomDownstream | gst::EventType::CustomDownstreamOob => {
            event.structure().map_or("?".into(), |s| s.name().to_string())
        }
        kind => kind.name().to_string(),
    }
}
