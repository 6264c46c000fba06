//! One element between pads of the test, on a clock that stands still.

use gst::prelude::*;
use gst_check::{Harness, TestClock};

use crate::{PATIENCE, Tap, pipeline};

/// An element in a harness. Its clock moves when the test says so.
pub struct Bench {
    /// GStreamer's own harness.
    pub harness: Harness,
    /// The element.
    pub element: gst::Element,
    /// What comes out of its source pad.
    pub out: Tap,
    /// What it posts.
    pub bus: gst::Bus,
}

impl Bench {
    /// `text` is an element's name and properties in gst-launch's manner, or a chain of elements, whose free pads are
    /// then `sink` and `src`; pads by name or template.
    pub fn new(text: &str, sink: &str, src: &str) -> Self {
        crate::init();
        let made = if text.contains('!') {
            gst::parse::bin_from_description(text, true).map(Cast::upcast)
        } else {
            gst::parse::launch(text)
        };
        let element = made.unwrap_or_else(|error| panic!("{text}: {error}"));
        Self::with(&element, Some(sink), Some(src))
    }

    /// More pads of an element that has a bench already.
    pub fn with(element: &gst::Element, sink: Option<&str>, src: Option<&str>) -> Self {
        let bus = element.bus().unwrap_or_else(|| {
            let bus = gst::Bus::new();
            element.set_bus(Some(&bus));
            bus
        });
        // The harness starts the element; everything it posts from then on is heard.
        let harness = Harness::with_element(element, sink, src);
        let out = harness.sinkpad().map(|pad| Tap::on(&pad)).unwrap_or_default();
        Self {
            harness,
            element: element.clone(),
            out,
            bus,
        }
    }

    /// The pad that pushes into the element; it may be used from any thread.
    pub fn pad(&self) -> gst::Pad {
        self.harness.srcpad().expect("this bench pushes")
    }

    /// The clock.
    pub fn clock(&self) -> TestClock {
        self.harness.testclock().expect("a harness starts on a test clock")
    }

    /// Moves the clock to the next deadline that is waited for, and ends that wait.
    pub fn crank(&mut self) {
        self.harness
            .crank_single_clock_wait()
            .expect("somebody waits for the clock");
    }

    /// Pushes a buffer that has to be taken.
    pub fn push(&mut self, buffer: gst::Buffer) {
        self.harness.push(buffer).expect("the element takes it");
    }

    /// A field of `stats`.
    pub fn stat<T: for<'a> glib::value::FromValue<'a> + Send + 'static>(&self, name: &str) -> T {
        stat(&self.element, name)
    }

    /// Waits for an element message named `name` that satisfies `wanted`.
    pub fn wait_element(&self, name: &str, wanted: impl Fn(&gst::StructureRef) -> bool) -> gst::Structure {
        let message = pipeline::wait_message(&self.bus, &format!("a message {name}"), |message| {
            element_message(message, name).is_some_and(|structure| wanted(&structure))
        });
        element_message(&message, name).expect("looked at above")
    }

    /// Messages that wait on the bus now.
    pub fn messages(&self) -> Vec<gst::Message> {
        self.bus.iter().collect()
    }

    /// Answers LATENCY queries from now on as a source upstream of this bench.
    pub fn upstream_latency(&self, live: bool, min: gst::ClockTime, max: Option<gst::ClockTime>) {
        answer_latency(&self.pad(), live, min, max);
    }

    /// FLUSH_START and FLUSH_STOP, and a new segment.
    pub fn flush(&mut self) {
        assert!(self.harness.push_event(gst::event::FlushStart::new()));
        assert!(self.harness.push_event(gst::event::FlushStop::new(true)));
        assert!(self.harness.push_event(segment()));
    }

    /// The answer to a LATENCY query at the source pad: live, min, max.
    pub fn latency(&self) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
        let mut query = gst::query::Latency::new();
        let pad = self.harness.sinkpad().expect("this bench pulls");
        assert!(pad.peer_query(&mut query), "LATENCY is answered");
        query.result()
    }

    /// Waits for the first error, and gives it.
    pub fn wait_error(&self) -> glib::Error {
        let message = self
            .bus
            .timed_pop_filtered(PATIENCE, &[gst::MessageType::Error])
            .expect("waited in vain for an error");
        match message.view() {
            gst::MessageView::Error(error) => error.error(),
            _ => unreachable!("filtered"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A thread of the element that stands at the gate would keep it from stopping.
        self.out.release();
        // Messages hold the element, and the element holds the bus they wait on.
        self.element.set_bus(None::<&gst::Bus>);
        self.messages();
    }
}

/// A field of an element's `stats`.
pub fn stat<T: for<'a> glib::value::FromValue<'a> + Send + 'static>(element: &gst::Element, name: &str) -> T {
    let stats: gst::Structure = element.property("stats");
    stats
        .get(name)
        .unwrap_or_else(|error| panic!("{name} in {stats}: {error}"))
}

/// From now on `pad` answers LATENCY queries so.
pub fn answer_latency(pad: &gst::Pad, live: bool, min: gst::ClockTime, max: Option<gst::ClockTime>) {
    pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Query(query)) = &mut info.data
            && let gst::QueryViewMut::Latency(latency) = query.view_mut()
        {
            latency.set(live, min, max);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// A segment that begins at zero.
pub fn segment() -> gst::Event {
    gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())
}

/// A serialized event with a name, to be recognised.
pub fn word(name: &str) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::new_empty(name))
}

fn element_message(message: &gst::MessageRef, name: &str) -> Option<gst::Structure> {
    match message.view() {
        gst::MessageView::Element(element) => element.structure().filter(|s| s.name() == name).map(ToOwned::to_owned),
        _ => None,
    }
}
