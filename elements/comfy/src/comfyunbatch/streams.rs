//! Streams that come, go and are flushed, each with its pad.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, ComfyUnbatch};
use super::state::{Item, Stream};
use crate::stream;
use crate::streampad::ComfyStreamPad;

impl ComfyUnbatch {
    /// A new stream's pad; it has its stream-start and caps when others first see it.
    pub(super) fn add_stream(&self, number: u32, start: Option<&gst::Event>) {
        let obj = self.obj();
        let template = obj.pad_template("src_%u").expect("installed in class_init");
        let pad = ComfyStreamPad::numbered(&template, number)
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic in activation")),
                    |imp| imp.src_activate(pad, mode, active),
                )
            })
            .build();
        pad.set_stream(number);
        let (running, caps) = {
            let mut state = self.state.lock();
            state.streams.insert(number, Stream::new(pad.clone()));
            (state.running, state.caps.clone())
        };
        if running {
            // The parent is not set yet, so the task starts only below.
            let _ = obj.add_pad(&pad);
            let _ = pad.set_active(true);
            let start = start.filter(|event| event.type_() == gst::EventType::StreamStart);
            if let Some(start) = start {
                let _ = pad.store_sticky_event(start);
                if let Some(caps) = caps {
                    let _ = pad.store_sticky_event(&gst::event::Caps::new(&caps));
                }
            }
        } else {
            obj.add_pad(&pad).expect("stream numbers are unique");
        }
    }

    pub(super) fn remove_stream(&self, number: u32) {
        let pad = {
            let mut state = self.state.lock();
            if number == 0 {
                // Stays for a stream that comes later.
                if let Some(stream) = state.streams.get_mut(&0) {
                    (stream.caps, stream.leaving) = (0, false);
                    // What stands behind its leaving is another's, which came at once.
                    if let Some(at) = stream.queue.iter().rposition(|item| matches!(item, Item::Remove)) {
                        stream.queue.drain(..=at);
                    }
                    stream.frames = stream
                        .queue
                        .iter()
                        .filter(|item| matches!(item, Item::Frame(_)))
                        .count();
                }
                self.removed.wake();
                return;
            }
            let stream = state.streams.get_mut(&number).filter(|s| !s.going);
            stream.map(|stream| {
                (stream.leaving, stream.going) = (true, true);
                stream.flush();
                stream.pad.clone()
            })
        };
        self.removed.wake();
        if let Some(pad) = pad {
            // Not from its own task, which could not wait for itself to end.
            self.obj().call_async(move |element| {
                let _ = pad.set_active(false);
                let _ = element.remove_pad(&pad);
                let imp = element.imp();
                imp.state.lock().streams.remove(&number);
                imp.removed.wake();
            });
        }
    }

    pub(super) fn stream_flushing(&self, number: u32, flush: u64) {
        let (pad, dropped) = {
            let mut state = self.state.lock();
            let Some(stream) = state.streams.get_mut(&number).filter(|s| !s.leaving) else {
                return;
            };
            (stream.void, stream.flush) = (true, flush);
            stream.pausing += 1;
            let dropped = stream.flush();
            (stream.pad.clone(), dropped)
        };
        self.removed.wake();
        stream::keep_sticky(&pad, dropped);
        pad.push_event(gst::event::FlushStart::new());
        // Waits for the task. Were it told to go on before it has seen that it has to stop, this would wait for ever.
        let _ = pad.pause_task();
        if let Some(stream) = self.state.lock().streams.get_mut(&number).filter(|s| s.pad == pad) {
            stream.pausing -= 1;
        }
        self.removed.wake();
    }

    pub(super) fn stream_flushed(&self, number: u32, flush: u64, reset_time: bool) {
        let ends = |stream: &Stream| stream.void && !stream.leaving && stream.flush == flush;
        let pad = {
            let mut state = self.state.lock();
            while state.streams.get(&number).is_some_and(|s| s.pausing > 0) {
                self.removed.wait(&mut state);
            }
            match state.streams.get(&number).filter(|s| ends(s)) {
                Some(stream) => stream.pad.clone(),
                None => return,
            }
        };
        pad.push_event(gst::event::FlushStop::new(reset_time));
        {
            let mut state = self.state.lock();
            // The next flush may have come meanwhile.
            let Some(stream) = state.streams.get_mut(&number).filter(|s| ends(s)) else {
                return;
            };
            (stream.flow, stream.eos, stream.void) = (Ok(gst::FlowSuccess::Ok), false, false);
            stream.segment = gst::FormattedSegment::new();
        }
        self.start_task(&pad);
    }

    /// Caps did not get through.
    pub(super) fn forget_caps(&self, number: u32) {
        if let Some(stream) = self.state.lock().streams.get_mut(&number) {
            stream.caps = 0;
        }
    }
}
