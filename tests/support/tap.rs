//! What passes a pad, in order, and a gate to hold it up.

use std::sync::{Arc, Condvar, Mutex};

use gst::prelude::*;

use crate::DEADLINE;

/// Something that passed.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A buffer.
    Frame(gst::Buffer),
    /// An event, flushes included.
    Event(gst::Event),
}

impl Seen {
    /// The buffer, if it is one.
    pub fn frame(&self) -> Option<&gst::Buffer> {
        match self {
            Seen::Frame(buffer) => Some(buffer),
            Seen::Event(_) => None,
        }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<&gst::Event> {
        match self {
            Seen::Frame(_) => None,
            Seen::Event(event) => Some(event),
        }
    }
}

#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    held: bool,
    flushing: bool,
    /// Buffers that wait at the gate.
    waiting: usize,
}

/// A probe that writes down what passes a pad.
#[derive(Clone, Default)]
pub struct Tap {
    shared: Arc<(Mutex<Log>, Condvar)>,
}

impl Tap {
    /// Listens at `pad`.
    pub fn on(pad: &impl IsA<gst::Pad>) -> Self {
        let tap = Self::default();
        let probe = tap.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => probe.buffer(buffer),
                Some(gst::PadProbeData::Event(event)) => probe.event(event),
                _ => (),
            }
            gst::PadProbeReturn::Ok
        });
        tap
    }

    fn buffer(&self, buffer: &gst::Buffer) {
        let (log, changed) = &*self.shared;
        let mut log = log.lock().unwrap();
        log.waiting += 1;
        changed.notify_all();
        log = changed.wait_while(log, |log| log.held && !log.flushing).unwrap();
        log.waiting -= 1;
        log.seen.push(Seen::Frame(buffer.clone()));
        changed.notify_all();
    }

    fn event(&self, event: &gst::Event) {
        let (log, changed) = &*self.shared;
        let mut log = log.lock().unwrap();
        match event.type_() {
            gst::EventType::FlushStart => log.flushing = true,
            gst::EventType::FlushStop => log.flushing = false,
            _ => (),
        }
        log.seen.push(Seen::Event(event.clone()));
        changed.notify_all();
    }

    /// From now on buffers wait here.
    pub fn hold(&self) {
        self.shared.0.lock().unwrap().held = true;
    }

    /// Lets them go.
    pub fn release(&self) {
        self.shared.0.lock().unwrap_or_else(|e| e.into_inner()).held = false;
        self.shared.1.notify_all();
    }

    /// Waits until a buffer stands at the gate.
    pub fn wait_held(&self) {
        self.wait_inner("a buffer at the gate", |log| log.held && log.waiting > 0);
    }

    /// Waits until what passed satisfies `enough`; fails at the deadline with what did pass.
    pub fn wait(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) {
        self.wait_inner(what, |log| enough(&log.seen));
    }

    fn wait_inner(&self, what: &str, enough: impl Fn(&Log) -> bool) {
        let (log, changed) = &*self.shared;
        let log = log.lock().unwrap();
        let (log, timeout) = changed.wait_timeout_while(log, DEADLINE, |log| !enough(log)).unwrap();
        let seen = log.seen.clone();
        drop(log);
        assert!(
            !timeout.timed_out(),
            "waited in vain for {what}; what passed: {seen:#?}"
        );
    }

    /// Waits for so many buffers in all, and gives them.
    pub fn wait_frames(&self, count: usize) -> Vec<gst::Buffer> {
        self.wait(&format!("{count} buffers"), |seen| {
            seen.iter().filter(|s| s.frame().is_some()).count() >= count
        });
        self.frames()
    }

    /// Waits for an event of this type, and gives the first.
    pub fn wait_event(&self, kind: gst::EventType) -> gst::Event {
        self.wait(&format!("an event {kind:?}"), |seen| {
            seen.iter().any(|s| s.event().is_some_and(|e| e.type_() == kind))
        });
        self.events().into_iter().find(|e| e.type_() == kind).unwrap()
    }

    /// All that passed so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.0.lock().unwrap().seen.clone()
    }

    /// Buffers that passed so far.
    pub fn frames(&self) -> Vec<gst::Buffer> {
        self.seen().iter().filter_map(|s| s.frame().cloned()).collect()
    }

    /// Events that passed so far.
    pub fn events(&self) -> Vec<gst::Event> {
        self.seen().iter().filter_map(|s| s.event().cloned()).collect()
    }

    /// Forgets what passed.
    pub fn clear(&self) {
        self.shared.0.lock().unwrap().seen.clear();
    }
}
