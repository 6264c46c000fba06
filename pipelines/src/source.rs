//! Streams that no peer sends: files, test pictures, cameras of the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use gst::prelude::*;

use crate::infergraph::{Error, make};
use crate::ingress::{self, Scaler};
use crate::link::{self, Outlet};
use crate::pool::Pool;
use crate::stages::Mark;
use crate::stream::{self, Listener, Origin, Stream};
use crate::watch::{Event, Watch};

/// How often a pipeline's bus is looked at while nothing is said.
const LOOK: Duration = Duration::from_millis(500);
/// Wait before a source that failed is opened again; doubled each time, up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A source that runs until it is closed; it starts again when it ends or fails.
#[derive(Debug)]
pub struct Source {
    stream: Arc<Stream>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    uri: String,
    closed: AtomicBool,
    /// For who waits to open it again.
    wake: (Mutex<()>, Condvar),
}

impl Source {
    /// Opens `uri` (file://, rtsp://, srt://, v4l2://, trickle://, `test:` with a pattern's name, or a path) in the
    /// background.
    pub fn open(
        pool: &Arc<Pool>,
        name: &str,
        uri: &str,
        settings: stream::Settings,
        listener: Listener,
    ) -> Result<Self, Error> {
        let stream = Stream::new(pool, name, settings, listener.clone())?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            uri: uri.to_owned(),
            closed: AtomicBool::new(false),
            wake: Default::default(),
        });
        let (theirs, into) = (shared.clone(), Arc::downgrade(&stream));
        std::thread::Builder::new()
            .name("comfy-source".into())
            .spawn(move || attend(&theirs, &into, &listener))
            .map_err(|error| glib::bool_error!("no thread for source {}: {}", name, error))?;
        Ok(Self { stream, shared })
    }

    /// What comes of it.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Ends it. Its pipeline goes on a thread of its own.
    pub fn close(&self) {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let _woken = self.shared.wake.0.lock();
        self.shared.wake.1.notify_all();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close();
    }
}

fn attend(shared: &Shared, stream: &Weak<Stream>, listener: &Listener) {
    let mut wait = AGAIN.0;
    while !shared.closed.load(Ordering::Acquire) {
        let Some(into) = stream.upgrade() else { break };
        match run(shared, &into, listener) {
            Ended::Closed => break,
            // Files start again at once, so that there is always something to watch.
            Ended::Over => wait = AGAIN.0,
            Ended::Failed { text, played } => {
                into.set_origin(None);
                if played {
                    wait = AGAIN.0;
                }
                listener(stream::Event::Failed(format!(
                    "source {}: {text}; it is opened again in {} s",
                    shared.name,
                    wait.as_secs_f64()
                )));
                drop(into);
                let guard = shared.wake.0.lock();
                if let Ok(guard) = guard
                    && !shared.closed.load(Ordering::Acquire)
                {
                    // Woken by close alone; a false alarm only opens the source earlier.
                    let _ = shared.wake.1.wait_timeout(guard, wait);
                }
                wait = (wait * 2).min(AGAIN.1);
            }
        }
    }
    if let Some(stream) = stream.upgrade() {
        stream.end();
    }
}

enum Ended {
    Closed,
    Over,
    Failed { text: String, played: bool },
}

/// Plays it once.
fn run(shared: &Shared, stream: &Arc<Stream>, listener: &Listener) -> Ended {
    let failed = |text: String| Ended::Failed { text, played: false };
    let pipeline = match build(shared, stream) {
        Ok(pipeline) => pipeline,
        Err(why) => return failed(why.to_string()),
    };
    let mut watch = Watch::new(&pipeline);
    let begun = stream.notes().count(Mark::Decoded);
    // What is wrong comes as a message.
    let started = pipeline.set_state(gst::State::Playing);
    let ended = loop {
        if shared.closed.load(Ordering::Acquire) {
            break Ended::Closed;
        }
        match watch.next(Some(LOOK)) {
            Some(Event::Error(failure)) => {
                break Ended::Failed {
                    text: failure.to_string(),
                    played: stream.notes().count(Mark::Decoded) > begun,
                };
            }
            Some(Event::Warning(failure)) => listener(stream::Event::Warning(failure.to_string())),
            Some(Event::Eos) => break Ended::Over,
            Some(_) => (),
            None if started.is_err() => break failed("it does not start".into()),
            None => (),
        }
    };
    // What comes next takes its place; who watches a film that begins again need not hear of it.
    // A network source may take its time to let go, and nobody has to wait for that.
    let _ = pipeline.set_state(gst::State::Null);
    ended
}

fn build(shared: &Shared, stream: &Arc<Stream>) -> Result<gst::Pipeline, Error> {
    let pipeline = gst::Pipeline::with_name(&format!("source-{}", shared.name));
    let scaler = Scaler::new().map_err(|why| glib::bool_error!("{}", why))?;
    let outlet = Outlet::new("video-out");
    // What has no pace of its own, such as a file, gets that of its timestamps; what is live is not held.
    let pace = make("clocksync")?;
    let elements = scaler.elements();
    pipeline.add_many(elements.into_iter().chain([&pace, outlet.element()]))?;
    gst::Element::link_many([&pace, elements[0], elements[1], elements[2], outlet.element()])?;
    let decoded = pace.static_pad("src").ok_or_else(|| glib::bool_error!("no pad"))?;
    stream.notes().watch(&decoded, Mark::Decoded);
    from_now(&pace)?;
    let first = pace.static_pad("sink").ok_or_else(|| glib::bool_error!("no pad"))?;
    if let Some(pattern) = shared.uri.strip_prefix("test:") {
        let source = make("videotestsrc")?;
        source.set_property("is-live", true);
        let pattern = if pattern.is_empty() { "ball" } else { pattern };
        let known = source
            .find_property("pattern")
            .and_then(|spec| glib::Value::deserialize_with_pspec(pattern, &spec).ok());
        let known = known.ok_or_else(|| glib::bool_error!("videotestsrc has no pattern {}", pattern))?;
        source.set_property_from_value("pattern", &known);
        let caps = make("capsfilter")?;
        caps.set_property(
            "caps",
            gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", 640)
                .field("height", 480)
                .field("framerate", gst::Fraction::new(30, 1))
                .build(),
        );
        pipeline.add_many([&source, &caps])?;
        gst::Element::link_many([&source, &caps, &pace])?;
    } else {
        let source = make("uridecodebin")?;
        source.set_property("uri", uri(&shared.uri)?);
        let within = pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let is_video = caps.structure(0).is_some_and(|caps| caps.name().starts_with("video/"));
            if is_video && !first.is_linked() && pad.link(&first).is_ok() {
                return;
            }
            // Pictures alone are wanted. What nobody takes may not hold them up, either.
            if let Some(pipeline) = within.upgrade() {
                let _ = ingress::discard(&pipeline, pad);
            }
        });
        pipeline.add(&source)?;
    }
    link::align(&pipeline);
    stream.set_origin(Some(Origin {
        outlet,
        size: scaler.size,
        codec: None,
    }));
    Ok(pipeline)
}

/// Timestamps of a file begin at zero; those of joined pipelines count from one moment for all. A live source knows it
/// already, from its pipeline's clock.
fn from_now(pace: &gst::Element) -> Result<(), Error> {
    let pad = pace.static_pad("sink").ok_or_else(|| glib::bool_error!("no pad"))?;
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
        let Some(event) = info.event() else {
            return gst::PadProbeReturn::Ok;
        };
        if let gst::EventView::Segment(segment) = event.view() {
            let mut query = gst::query::Latency::new();
            let live = pad.peer_query(&mut query) && query.result().0;
            if let (false, Some(time)) = (live, segment.segment().downcast_ref::<gst::ClockTime>()) {
                let mut moved = time.clone();
                let base = time.base().unwrap_or_default();
                moved.set_base(base + link::now());
                let event = gst::event::Segment::builder(&moved).seqnum(event.seqnum()).build();
                info.data = Some(gst::PadProbeData::Event(event));
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn uri(text: &str) -> Result<String, Error> {
    if glib::Uri::peek_scheme(text).is_some() {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(|why| glib::bool_error!("{}: {}", text, why))?;
    if !path.is_file() {
        return Err(glib::bool_error!("{} is neither a URI nor a file", text).into());
    }
    Ok(glib::filename_to_uri(path, None)
        .map_err(|why| glib::bool_error!("{}: {}", text, why))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris_and_what_is_neither_is_named() {
        crate::register().unwrap();
        let file = std::env::current_exe().unwrap();
        assert!(uri(&file.display().to_string()).unwrap().starts_with("file:///"));
        assert_eq!(uri("rtsp://camera/1").unwrap(), "rtsp://camera/1");
        let error = uri("/no/such/file.mp4").unwrap_err().to_string();
        assert!(error.contains("/no/such/file.mp4"), "{error}");
    }
}
