//! The policies alone, without GStreamer, threads or a clock: they are handed the time and answer what to do.
//!
//! A camera gives a frame every 33 ms, now and then late by 20 ms. A flight buffer collects two batches of four before
//! the first frame leaves; a batcher makes batches of four of what leaves. Time is a number here, so a second of video
//! takes no time at all, and each line says what an element would do at that moment.
//!
//! `01_policy [FRAMES]`

use std::time::Duration;

use anyhow::{Context, Result};
use comfy_core::batch::{self, Batcher, Entry, Offer};
use comfy_core::flight::{self, Admit, FlightBuffer, Marker, Timing};

const PERIOD: Duration = Duration::from_millis(33);
const LATE: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("01_policy [FRAMES]", 1)?;
    let count: u32 = arguments
        .first()
        .map_or("18", String::as_str)
        .parse()
        .context("FRAMES")?;

    let mut buffer = FlightBuffer::new(flight::Settings {
        batch_size: 4,
        threshold: 2,
        ..flight::Settings::default()
    });
    buffer.set_frame_duration(Some(PERIOD));
    let mut batcher: Batcher<u32, Option<u32>, Option<u32>> = Batcher::new(batch::Settings {
        size: 4,
        ..batch::Settings::default()
    });
    batcher.join(0);

    for frame in 0..count {
        let jitter = if frame % 5 == 4 { LATE } else { Duration::ZERO };
        let now = PERIOD * frame + jitter;
        let timing = Timing {
            time: Some(PERIOD * frame),
            duration: Some(PERIOD),
            priority: false,
        };
        match buffer.admit(now, Some(frame), timing) {
            Admit::Queued => (),
            // An element would wait here, or drop and count, as `leaky` says.
            Admit::Full(_) | Admit::Dropped(..) | Admit::Displaced(..) => println!("{now:>6.0?} no room"),
        }
        step(now, &mut buffer, &mut batcher);
    }
    // The end of the stream: nothing may wait for more.
    let now = PERIOD * count;
    let _ = buffer.mark(None, Marker::Releases);
    step(now, &mut buffer, &mut batcher);

    let (flight, batch) = (buffer.stats(), batcher.stats());
    println!(
        "{} frames in, {} out, in {} batches of at most 4; at most {} waited in the buffer",
        flight.frames_in, batch.frames_out, batch.batches, flight.peak_fill
    );
    Ok(())
}

/// What elements do after each change: pass on everything that may go.
fn step(now: Duration, buffer: &mut FlightBuffer<Option<u32>>, batcher: &mut Batcher<u32, Option<u32>, Option<u32>>) {
    loop {
        match buffer.next(now) {
            flight::Next::Frame { frame, .. } => match batcher.offer(now, 0, 0, None, frame) {
                Offer::Queued => (),
                Offer::Full(_) | Offer::Unknown(_) => unreachable!("each batch is taken at once"),
            },
            flight::Next::Marker(end) => {
                let _ = batcher.mark(now, 0, end, batch::Cut::Before(batch::Reason::Eos));
            }
            flight::Next::Drop(frame, why) => println!("{now:>6.0?} frame {frame:?} dropped: {why:?}"),
            flight::Next::WaitUntil(_) | flight::Next::Idle => break,
        }
        let mut entries = Vec::new();
        while let batch::Next::Batch { frames, reason, .. } = batcher.next(now, &mut entries) {
            let numbers: Vec<u32> = entries
                .drain(..)
                .filter_map(|entry| match entry {
                    Entry::Frame { frame, .. } => frame,
                    Entry::Marker { .. } => None,
                })
                .collect();
            println!("{now:>6.0?} batch of {frames} ({reason:?}): {numbers:?}");
        }
    }
    while let Some(change) = buffer.take_change() {
        println!("{now:>6.0?} {change:?}");
    }
}
