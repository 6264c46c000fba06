// Lock order: stream lock (pad), settings, streaming, state. What `streaming` holds belongs to the streaming thread, which
// takes it out while it works: no lock is held while it waits, pushes or posts. Policies are comfy_core::trickle::subscriber and payload.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use comfy_core::trickle::client::{Arrival, Inbox, Next};
use comfy_core::trickle::payload::{self, Kind, Pieces};
use comfy_core::trickle::subscriber::Over;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::settings::{self, PROP_STATS, Settings};
use crate::{access, error, media, runtime};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "tricklesrc",
        gst::DebugColorFlags::empty(),
        Some("Reads a channel of a trickle server"),
    )
});

#[derive(Default)]
pub struct TrickleSrc {
    settings: Mutex<Settings>,
    /// From READY up: settings are kept as they are.
    started: AtomicBool,
    streaming: Mutex<Option<Streaming>>,
    state: Mutex<State>,
}

/// What the streaming thread has.
struct Streaming {
    inbox: Inbox,
    mime: Option<Arc<str>>,
    /// None: nothing has come of the channel yet.
    pieces: Option<Pieces>,
    /// Known before the first byte of a segment.
    segment: Option<Begun>,
    ready: VecDeque<Bytes>,
    discont: bool,
}

struct Begun {
    seq: u64,
    discont: bool,
    gap: u64,
    lag: u64,
}

/// What others may ask for while the streaming thread waits.
#[derive(Default)]
struct State {
    inbox: Option<Inbox>,
    task: Option<AbortHandle>,
    counters: Counters,
}

#[derive(Default, Clone, Copy)]
struct Counters {
    segment: Option<u64>,
    lag: u64,
    bytes: u64,
    torn: u64,
    payload: payload::Stats,
}

#[glib::object_subclass]
impl ObjectSubclass for TrickleSrc {
    const NAME: &'static str = "GstTrickleSrc";
    type Type = super::TrickleSrc;
    type ParentType = gst_base::PushSrc;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for TrickleSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(settings::properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if self.started.load(Ordering::Acquire) {
            let name = pspec.name();
            gst::warning!(
                CAT,
                imp = self,
                "property {name} can only be set in READY or below: ignored"
            );
            return;
        }
        let live = {
            let mut settings = self.settings.lock();
            settings.set(pspec.name(), value);
            settings.is_live
        };
        self.behave(live);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            PROP_STATS => self.stats().to_value(),
            name => self.settings.lock().get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.behave(self.settings.lock().is_live);
    }
}

impl GstObjectImpl for TrickleSrc {}

impl ElementImpl for TrickleSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Trickle source",
                "Source/Network",
                "Reads a channel of a trickle server, each segment while it is being written",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            let template = gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &any);
            vec![template.expect("valid template")]
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for TrickleSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let urls = access::urls(settings.url.as_deref())?;
        let client = settings.access.client()?;
        let runtime = runtime::runtime()?;
        gst::info!(CAT, imp = self, "reading {:?}", settings.url);
        let (inbox, task) = client.subscribe(urls, settings.subscribe()?);
        let task = runtime.spawn(task.run()).abort_handle();
        *self.streaming.lock() = Some(Streaming {
            inbox: inbox.clone(),
            mime: None,
            pieces: None,
            segment: None,
            ready: VecDeque::new(),
            discont: false,
        });
        *self.state.lock() = State {
            inbox: Some(inbox),
            task: Some(task),
            counters: Counters::default(),
        };
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        gst::info!(CAT, imp = self, "stopped");
        if let Some(task) = self.state.lock().task.take() {
            task.abort();
        }
        *self.streaming.lock() = None;
        self.started.store(false, Ordering::Release);
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.interrupt(true);
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.interrupt(false);
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Uri(query) => {
                let uri = self.settings.lock().url.clone();
                query.set_uri(uri.as_deref());
                true
            }
            _ => BaseSrcImplExt::parent_query(self, query),
        }
    }
}

impl PushSrcImpl for TrickleSrc {
    fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
        let mut streaming = self.streaming.lock().take().ok_or(gst::FlowError::Flushing)?;
        let buffer = self.next(&mut streaming);
        // Only stop() forgets it, after this thread has ended.
        *self.streaming.lock() = Some(streaming);
        buffer.map(CreateSuccess::NewBuffer)
    }
}

impl URIHandlerImpl for TrickleSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        access::SCHEMES
    }

    fn uri(&self) -> Option<String> {
        self.settings.lock().url.clone()
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        access::check_uri(uri, self.started.load(Ordering::Acquire))?;
        self.obj().set_property("url", uri);
        Ok(())
    }
}

impl TrickleSrc {
    fn behave(&self, live: bool) {
        let obj = self.obj();
        obj.set_live(live);
        obj.set_do_timestamp(live);
        obj.set_format(if live { gst::Format::Time } else { gst::Format::Bytes });
    }

    fn interrupt(&self, on: bool) {
        let inbox = self.state.lock().inbox.clone();
        if let Some(inbox) = inbox {
            inbox.interrupt(on);
        }
    }

    fn next(&self, streaming: &mut Streaming) -> Result<gst::Buffer, gst::FlowError> {
        loop {
            if let Some(bytes) = streaming.ready.pop_front() {
                return Ok(self.buffer(streaming, bytes));
            }
            match streaming.inbox.wait(None) {
                Next::Arrival(arrival) => self.arrived(streaming, arrival)?,
                // Nobody gives it a time.
                Next::TimedOut => (),
                Next::Interrupted => return Err(gst::FlowError::Flushing),
                Next::Over(over) => return Err(self.over(streaming, over)),
            }
        }
    }

    fn arrived(&self, streaming: &mut Streaming, arrival: Arrival) -> Result<(), gst::FlowError> {
        match arrival {
            Arrival::Segment {
                seq,
                mime,
                discont,
                gap,
                lag,
            } => {
                streaming.mime = mime;
                streaming.segment = Some(Begun { seq, discont, gap, lag });
            }
            Arrival::Bytes(bytes) => {
                if let Some(begun) = streaming.segment.take() {
                    self.begun(streaming, begun, &bytes)?;
                }
                self.state.lock().counters.bytes += bytes.len() as u64;
                if let Some(pieces) = &mut streaming.pieces {
                    streaming.ready.extend(pieces.push(bytes));
                }
            }
            Arrival::End { seq, complete } => {
                let payload = streaming.pieces.as_mut().map(|pieces| {
                    streaming.ready.extend(pieces.end(complete));
                    pieces.stats()
                });
                gst::log!(CAT, imp = self, "segment {seq} ended, complete: {complete}");
                let mut state = self.state.lock();
                state.counters.payload = payload.unwrap_or_default();
                state.counters.torn += u64::from(!complete);
                drop(state);
                if !complete {
                    streaming.discont = true;
                    gst::warning!(
                        CAT,
                        imp = self,
                        "segment {seq} broke off: {:?}",
                        streaming.inbox.trouble()
                    );
                    self.tell(
                        gst::Structure::builder("tricklesrc")
                            .field("state", "torn")
                            .field("segment", seq),
                    );
                }
            }
        }
        Ok(())
    }

    /// The first bytes of a segment.
    fn begun(&self, streaming: &mut Streaming, begun: Begun, first: &[u8]) -> Result<(), gst::FlowError> {
        let Begun { seq, discont, gap, lag } = begun;
        gst::log!(CAT, imp = self, "segment {seq} begins, {lag} behind");
        streaming.discont |= discont;
        {
            let mut state = self.state.lock();
            state.counters.segment = Some(seq);
            state.counters.lag = lag;
        }
        if gap > 0 {
            gst::warning!(CAT, imp = self, "{gap} segments were skipped before segment {seq}");
            let message = gst::Structure::builder("tricklesrc").field("state", "jump");
            self.tell(message.field("segment", seq).field("skipped", gap));
        }
        if streaming.pieces.is_none() {
            let mime = streaming.mime.as_deref();
            let kind = Kind::of(mime, first);
            gst::debug!(CAT, imp = self, "the channel's type is {mime:?}: {kind:?}");
            streaming.pieces = Some(Pieces::new(kind));
            if let Some(caps) = media::caps(kind, mime) {
                self.obj().set_caps(&caps).map_err(|error| {
                    gst::debug!(CAT, imp = self, "{error}");
                    gst::FlowError::NotNegotiated
                })?;
            }
            self.tell(
                gst::Structure::builder("tricklesrc")
                    .field("state", "reading")
                    .field("segment", seq),
            );
        }
        Ok(())
    }

    fn buffer(&self, streaming: &mut Streaming, bytes: Bytes) -> gst::Buffer {
        gst::trace!(CAT, imp = self, "{} bytes", bytes.len());
        let mut buffer = gst::Buffer::from_slice(bytes);
        if std::mem::take(&mut streaming.discont) {
            let buffer = buffer.get_mut().expect("new");
            buffer.set_flags(gst::BufferFlags::DISCONT);
        }
        buffer
    }

    fn over(&self, streaming: &Streaming, over: Over) -> gst::FlowError {
        let url = self.settings.lock().url.clone().unwrap_or_default();
        let why = streaming.inbox.trouble().unwrap_or_else(|| format!("{url}: {over:?}"));
        gst::info!(CAT, imp = self, "over: {over:?}, {why}");
        match error::subscribed(over, &why) {
            Some(message) => {
                self.post_error_message(message);
                gst::FlowError::Error
            }
            None if over == Over::Stopped => gst::FlowError::Flushing,
            None => gst::FlowError::Eos,
        }
    }

    fn tell(&self, message: gst::structure::Builder) {
        let obj = self.obj();
        let message = gst::message::Element::builder(message.build()).src(&*obj).build();
        // Without a bus nobody wants to know.
        let _ = obj.post_message(message);
    }

    fn stats(&self) -> gst::Structure {
        let (inbox, counters) = {
            let state = self.state.lock();
            (state.inbox.clone(), state.counters)
        };
        let (stats, queued) = inbox.map_or_else(Default::default, |inbox| (inbox.stats(), inbox.queued()));
        gst::Structure::builder("tricklesrc-stats")
            .field("segments", stats.read)
            .field("empty", stats.empty)
            .field("skipped", stats.skipped)
            .field("jumps", stats.jumps)
            .field("failures", stats.failures)
            .field("resumed", stats.resumed)
            .field("torn", counters.torn)
            .field("bytes", counters.bytes)
            .field("bytes-dropped", counters.payload.dropped)
            .field("bytes-queued", queued as u64)
            .field("keepalives", counters.payload.keepalives)
            .field("segment", counters.segment.map_or(-1, |seq| seq as i64))
            .field("lag", counters.lag)
            .build()
    }
}
