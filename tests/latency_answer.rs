//! Does the LATENCY answer count each wait once, and only waits that frames have?

use std::sync::{Arc, Condvar, Mutex};

use gst::prelude::*;
use gstcomfy::batchmeta::ComfyBatchMeta;

const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// Sizes of the batches that came out.
#[derive(Default)]
struct Batches(Mutex<Vec<usize>>, Condvar);

impl Batches {
    fn wait_for(&self, wanted: impl Fn(&[usize]) -> bool) {
        let mut sizes = self.0.lock().unwrap();
        while !wanted(&sizes) {
            sizes = self.1.wait(sizes).unwrap();
        }
    }
}

struct Rig {
    src: gst::Pad,
    sink: gst::Pad,
    pipeline: gst::Pipeline,
    batches: Arc<Batches>,
}

impl Rig {
    /// A live source of 1000 frames a second, elements, and a pad that counts batches.
    fn new(elements: &[gst::Element]) -> Self {
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        let batches = Arc::new(Batches::default());
        let seen = batches.clone();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .name("sink")
            .chain_function(move |_, _, container| {
                let frames = container.meta::<ComfyBatchMeta>().unwrap().batch().frames.len();
                seen.0.lock().unwrap().push(frames);
                seen.1.notify_all();
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        let pipeline = gst::Pipeline::new();
        let mut last = src.clone();
        for element in elements {
            pipeline.add(element).unwrap();
            let pads = element.pads();
            let pad = |direction| pads.iter().find(|pad| pad.direction() == direction).cloned();
            let into = pad(gst::PadDirection::Sink).or_else(|| element.request_pad_simple("sink_%u"));
            last.link_full(&into.unwrap(), gst::PadLinkCheck::empty()).unwrap();
            last = pad(gst::PadDirection::Src).unwrap();
        }
        last.link_full(&sink, gst::PadLinkCheck::empty()).unwrap();
        sink.set_active(true).unwrap();
        src.set_active(true).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let caps = "video/x-raw,format=RGB,width=8,height=8,framerate=1000/1";
        src.push_event(gst::event::StreamStart::new("live"));
        src.push_event(gst::event::Caps::new(&caps.parse().unwrap()));
        src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self {
            src,
            sink,
            pipeline,
            batches,
        }
    }

    fn push(&self, frames: u64) {
        for number in 0..frames {
            let mut buffer = gst::Buffer::with_size(8 * 8 * 3).unwrap();
            buffer.get_mut().unwrap().set_pts(FRAME * number);
            buffer.get_mut().unwrap().set_duration(FRAME);
            self.src.push(buffer).unwrap();
        }
    }

    fn latency(&self) -> gst::ClockTime {
        let mut query = gst::query::Latency::new();
        assert!(self.sink.peer_query(&mut query));
        query.result().1
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

fn make(name: &str) -> gst::element_factory::ElementBuilder<'_> {
    gst::init().unwrap();
    gstcomfy::plugin_register_static().unwrap();
    gst::ElementFactory::make(name).property("batch-size", 4u32)
}

#[test]
fn wait_in_a_flight_buffer_is_not_counted_again_by_the_batcher() {
    let flight = make("comfyflightbuffer").property("threshold", 1u32).build().unwrap();
    let batch = make("comfybatch").build().unwrap();
    let rig = Rig::new(&[flight, batch]);
    rig.push(4);
    rig.batches.wait_for(|sizes| sizes.contains(&4));
    assert_eq!(rig.latency(), FRAME * 3);
}

#[test]
fn events_that_leave_by_the_timeout_make_no_frame_wait() {
    let batch = make("comfybatch").build().unwrap();
    let rig = Rig::new(&[batch]);
    rig.src.push_event(gst::event::Tag::new(gst::TagList::new()));
    // The first holds the stream's beginning, which the segment sends on its way.
    rig.batches.wait_for(|sizes| sizes == [0, 0]);
    assert_eq!(rig.latency(), FRAME * 3);
}
