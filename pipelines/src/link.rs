//! Joins between pipelines: what leaves one enters any number of others, and none of them can hold it up.
//!
//! Pipelines that are joined run on one clock with one base time ([`align`]), so a timestamp means the same moment in
//! all of them, and the latency of what comes before a join is part of what comes after it.

use gst::prelude::*;
use gst_utils::StreamProducer;
use gst_utils::streamproducer::{ConsumerSettings, ConsumptionLink, ProducerSettings};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

/// The clock and the moment that running times of joined pipelines count from.
static EPOCH: OnceCell<(gst::Clock, gst::ClockTime)> = OnceCell::new();

fn epoch() -> &'static (gst::Clock, gst::ClockTime) {
    EPOCH.get_or_init(|| {
        let clock = gst::SystemClock::obtain();
        let now = clock.time();
        (clock, now)
    })
}

/// Lets a pipeline that is not running yet count time as all others do that are joined.
pub fn align(pipeline: &gst::Pipeline) {
    let (clock, base) = epoch();
    pipeline.use_clock(Some(clock));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(*base);
}

/// The running time of this moment in pipelines that are joined.
pub fn now() -> gst::ClockTime {
    let (clock, base) = epoch();
    clock.time().saturating_sub(*base)
}

/// Where frames leave a pipeline.
#[derive(Debug, Clone)]
pub struct Outlet {
    sink: gst_app::AppSink,
    producer: StreamProducer,
}

impl Outlet {
    /// With an element of this name, to be put at the end of a pipeline.
    pub fn new(name: &str) -> Self {
        let sink = gst_app::AppSink::builder()
            .name(name)
            // Who is at the other end is no reason to wait, neither for time nor for a first frame.
            .sync(false)
            .async_(false)
            .enable_last_sample(false)
            .build();
        let producer = StreamProducer::with(&sink, ProducerSettings { sync: false });
        // The end of what comes in is for the stream to judge: another model, another sender may follow.
        producer.set_forward_events([gst::EventType::Gap]);
        Self { sink, producer }
    }

    /// The element.
    pub fn element(&self) -> &gst::Element {
        self.sink.upcast_ref()
    }

    /// Its pad.
    pub fn pad(&self) -> gst::Pad {
        self.sink.static_pad("sink").expect("a sink has one")
    }
}

impl PartialEq for Outlet {
    fn eq(&self, other: &Self) -> bool {
        self.sink == other.sink
    }
}

/// Where frames enter a pipeline.
#[derive(Debug)]
pub struct Inlet {
    src: gst_app::AppSrc,
    link: Mutex<ConsumptionLink>,
}

impl Inlet {
    /// With an element of this name, to be put at the beginning of a pipeline. It holds `room` buffers; more push out
    /// the oldest.
    pub fn new(name: &str, room: u64) -> Self {
        let src = gst_app::AppSrc::builder().name(name).build();
        let settings = ConsumerSettings {
            max_buffer: room,
            max_bytes: gst::format::Bytes::ZERO,
            max_time: gst::ClockTime::ZERO,
            event_types: Vec::new(),
        };
        StreamProducer::configure_consumer_with(&src, settings.clone());
        let link = ConsumptionLink::disconnected_with(src.clone(), settings);
        Self {
            src,
            link: Mutex::new(link),
        }
    }

    /// The element.
    pub fn element(&self) -> &gst::Element {
        self.src.upcast_ref()
    }

    /// Its pad.
    pub fn pad(&self) -> gst::Pad {
        self.src.static_pad("src").expect("a source has one")
    }

    /// Takes what leaves there from now on, and nothing else.
    pub fn follow(&self, outlet: &Outlet) {
        let mut link = self.link.lock();
        if link.stream_producer() == Some(&outlet.producer) {
            return;
        }
        link.change_producer(&outlet.producer, false)
            .expect("a consumer that was disconnected just now");
    }

    /// Takes nothing.
    pub fn leave(&self) {
        self.link.lock().disconnect();
    }

    /// Buffers that were pushed out because this pipeline was slow.
    pub fn dropped(&self) -> u64 {
        self.link.lock().dropped()
    }
}
