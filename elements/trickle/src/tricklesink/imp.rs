// Lock order: stream lock (pad), settings, streaming, state. What `streaming` holds belongs to the streaming thread, which
// takes it out while it works: no lock is held while it waits, pushes or posts. Policies are
// comfy_core::trickle::publisher and ts; the runtime's threads report to `told` and wait for nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use comfy_core::trickle::client::{Begin, Client, Event, Feed, Write};
use comfy_core::trickle::publisher::Over;
use comfy_core::trickle::ts::{Cutter, Piece};
use comfy_core::trickle::wire::{ChannelUrl, value};
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::Runtime;

use super::session::{How, Session, Told};
use super::settings::{self, PROP_STATS, Settings};
use super::{Cut, Leaky};
use crate::{access, error, media, runtime};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "tricklesink",
        gst::DebugColorFlags::empty(),
        Some("Publishes to a channel of a trickle server"),
    )
});

/// How long to wait for the reason after publishing has ended: it is told a moment later.
const REASON: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct TrickleSink {
    settings: Mutex<Settings>,
    /// From READY up: settings are kept as they are.
    started: AtomicBool,
    streaming: Mutex<Option<Streaming>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the streaming thread has.
struct Streaming {
    runtime: &'static Runtime,
    client: Client,
    url: ChannelUrl,
    settings: Settings,
    caps: Option<gst::Caps>,
    /// A buffer that can only be decoded with others has come, so flags mean something.
    flags_tell: bool,
    session: Option<Session>,
    /// Counts sessions: late words of an earlier one are not heard.
    count: u64,
}

/// What is shared with the runtime's threads.
#[derive(Default)]
struct State {
    /// The session that is heard.
    session: u64,
    feed: Option<Feed>,
    unlocked: bool,
    room: bool,
    done: bool,
    over: Option<Over>,
    /// The server answers; None: not known yet.
    answers: Option<bool>,
    /// There was no room in time, and there has been none since.
    stalled: bool,
    counters: Counters,
}

#[derive(Default, Clone, Copy)]
struct Counters {
    begun: u64,
    done: u64,
    lost: u64,
    dropped: u64,
    unanswered: u64,
    bytes: u64,
    bytes_skipped: u64,
    /// Key pictures asked for.
    asked: u64,
}

#[glib::object_subclass]
impl ObjectSubclass for TrickleSink {
    const NAME: &'static str = "GstTrickleSink";
    type Type = super::TrickleSink;
    type ParentType = gst_base::BaseSink;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for TrickleSink {
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
        self.settings.lock().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            PROP_STATS => self.stats().to_value(),
            name => self.settings.lock().get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // Whoever reads has a clock; what waits for one here is only late there.
        self.obj().set_sync(false);
    }
}

impl GstObjectImpl for TrickleSink {}

impl ElementImpl for TrickleSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Trickle sink",
                "Sink/Network",
                "Publishes to a channel of a trickle server, in segments that are read while they are written",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any);
            vec![template.expect("valid template")]
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for TrickleSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let mut urls = access::urls(settings.url.as_deref())?;
        if urls.len() > 1 {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("url: there are {}; a sink publishes to one channel", urls.len())
            ));
        }
        let streaming = Streaming {
            runtime: runtime::runtime()?,
            client: settings.access.client()?,
            url: urls.remove(0),
            settings,
            caps: None,
            flags_tell: false,
            session: None,
            count: self.state.lock().session,
        };
        gst::info!(CAT, imp = self, "publishing to {}", streaming.url);
        *self.streaming.lock() = Some(streaming);
        let mut state = self.state.lock();
        *state = State {
            session: state.session,
            ..State::default()
        };
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        gst::info!(CAT, imp = self, "stopped");
        let streaming = self.streaming.lock().take();
        // What is told from now on is not heard.
        self.state.lock().session += 1;
        self.started.store(false, Ordering::Release);
        if let Some(Streaming {
            session: Some(session),
            runtime,
            settings,
            ..
        }) = streaming
        {
            session.leave(runtime, Duration::from_nanos(settings.eos_timeout));
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.state.lock().unlocked = true;
        self.changed.notify_all();
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.state.lock().unlocked = false;
        self.changed.notify_all();
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let Some(mut streaming) = self.streaming.lock().take() else {
            return Ok(());
        };
        let result = self.caps(&mut streaming, caps);
        *self.streaming.lock() = Some(streaming);
        result
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut streaming = self.streaming.lock().take().ok_or(gst::FlowError::Flushing)?;
        let result = self.publish(&mut streaming, buffer);
        // Only stop() forgets it, after this thread has ended.
        *self.streaming.lock() = Some(streaming);
        if let Some(event) = result? {
            gst::log!(CAT, imp = self, "asking for a key picture: {event:?}");
            // Upstream may have no encoder that can do that.
            let _ = self.obj().sink_pad().push_event(event);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn render_list(&self, list: &gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        for buffer in list.iter_owned() {
            self.render(&buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => self.drain(),
            gst::EventView::FlushStop(_) => self.flush(),
            _ => (),
        }
        self.parent_event(event)
    }
}

impl URIHandlerImpl for TrickleSink {
    const URI_TYPE: gst::URIType = gst::URIType::Sink;

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

impl TrickleSink {
    fn caps(&self, streaming: &mut Streaming, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mime = media::mime(caps);
        if let Some(session) = &streaming.session
            && session.mime != mime
        {
            return Err(gst::loggable_error!(
                CAT,
                "the channel's type is {}, and a channel keeps its type: {mime} needs a channel of its own",
                session.mime
            ));
        }
        streaming.caps = Some(caps.clone());
        // The connection is open before there is something to send.
        self.session(streaming);
        Ok(())
    }

    /// The session, begun if there is none.
    fn session<'a>(&self, streaming: &'a mut Streaming) -> &'a mut Session {
        let Streaming {
            runtime,
            client,
            url,
            settings,
            caps,
            session,
            count,
            ..
        } = streaming;
        session.get_or_insert_with(|| {
            *count += 1;
            let number = *count;
            let mime = caps
                .as_ref()
                .map_or_else(|| value::UNKNOWN_TYPE.into(), |caps| media::mime(caps));
            let how = match settings.cut {
                Cut::Auto if caps.as_ref().is_some_and(|caps| media::is_ts(caps)) => {
                    How::Ts(Box::new(Cutter::new(settings.ts())))
                }
                Cut::Auto | Cut::Buffer => How::Buffers,
                Cut::Duration => How::Duration(None),
            };
            {
                let mut state = self.state.lock();
                *state = State {
                    session: number,
                    unlocked: state.unlocked,
                    answers: state.answers,
                    counters: state.counters,
                    ..State::default()
                };
            }
            gst::debug!(CAT, imp = self, "the channel's type is {mime}");
            let weak = self.obj().downgrade();
            let tell = move |told| {
                if let Some(obj) = weak.upgrade() {
                    obj.imp().told(number, told);
                }
            };
            // Messages are shorter than the way to the server, and must not overtake each other.
            let one_by_one = matches!(how, How::Buffers);
            let session = Session::start(
                runtime,
                client,
                url,
                settings.publish(&mime, one_by_one),
                settings.create,
                how,
                tell,
            );
            self.state.lock().feed = Some(session.feed.clone());
            session
        })
    }

    /// Hands a buffer over, and says what to ask upstream for.
    fn publish(&self, streaming: &mut Streaming, buffer: &gst::Buffer) -> Result<Option<gst::Event>, gst::FlowError> {
        let delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        streaming.flags_tell |= delta;
        let hint = streaming.flags_tell && !delta;
        let patience = match streaming.settings.leaky {
            Leaky::None => Duration::from_nanos(streaming.settings.max_wait),
            Leaky::Keyframe => Duration::ZERO,
        };
        let length = gst::ClockTime::from_nseconds(streaming.settings.segment_duration);
        let session = self.session(streaming);
        let bytes = bytes_of(buffer)?;
        gst::trace!(CAT, imp = self, "{} bytes", bytes.len());
        self.state.lock().counters.bytes += bytes.len() as u64;
        let time = buffer.pts().and_then(|pts| self.running_time(pts));
        let mut begun = false;
        let pieces = match &mut session.how {
            How::Ts(cutter) => {
                let before = cutter.skipped() + cutter.dropped();
                let pieces = cutter.push(bytes, hint);
                let skipped = cutter.skipped() + cutter.dropped() - before;
                self.state.lock().counters.bytes_skipped += skipped;
                pieces
            }
            How::Buffers => whole(bytes),
            How::Duration(at) => {
                let due = match (*at, time) {
                    (Some(at), Some(time)) => time < at || time - at >= length,
                    _ => true,
                };
                if due || !session.writing {
                    *at = time;
                    whole(bytes)
                } else {
                    vec![Piece::Bytes(bytes)]
                }
            }
        };
        for piece in pieces {
            match piece {
                // Without a key picture it can only continue one that is there.
                Piece::Begin { key: false, .. } if !session.writing => (),
                Piece::Begin { key, .. } => {
                    session.writing = self.begin(session, patience)?;
                    begun |= session.writing && key;
                }
                Piece::Bytes(bytes) if session.writing => session.writing = self.write(session, bytes, patience)?,
                Piece::Bytes(bytes) => self.state.lock().counters.bytes_skipped += bytes.len() as u64,
            }
            if let (false, How::Ts(cutter)) = (session.writing, &mut session.how) {
                cutter.lost();
            }
        }
        if matches!(session.how, How::Buffers) && session.writing {
            session.feed.end();
            session.writing = false;
        }
        let next = (begun && matches!(session.how, How::Ts(_)) && !length.is_zero())
            .then(|| time.map(|time| time + length))
            .flatten();
        Ok(next.map(|time| {
            session.asked += 1;
            self.state.lock().counters.asked += 1;
            gst_video::UpstreamForceKeyUnitEvent::builder()
                .running_time(time)
                .all_headers(true)
                .count(session.asked)
                .build()
        }))
    }

    /// Begins a segment. False: it is dropped.
    fn begin(&self, session: &Session, patience: Duration) -> Result<bool, gst::FlowError> {
        let until = gst::get_timestamp() + patience.try_into().unwrap_or(gst::ClockTime::ZERO);
        loop {
            self.state.lock().room = false;
            match session.feed.begin() {
                Begin::Begun => {
                    let mut state = self.state.lock();
                    state.counters.begun += 1;
                    state.stalled = false;
                    return Ok(true);
                }
                Begin::Full => {
                    if !self.wait_for_room(until)? {
                        self.state.lock().counters.dropped += 1;
                        return Ok(false);
                    }
                }
                Begin::Over(over) => return Err(self.over(over)),
            }
        }
    }

    /// Writes to the segment. False: it is lost.
    fn write(&self, session: &Session, bytes: Bytes, patience: Duration) -> Result<bool, gst::FlowError> {
        let until = gst::get_timestamp() + patience.try_into().unwrap_or(gst::ClockTime::ZERO);
        let mut bytes = bytes;
        loop {
            self.state.lock().room = false;
            match session.feed.write(bytes) {
                Write::Queued => return Ok(true),
                Write::Full(back) => {
                    bytes = back;
                    if !self.wait_for_room(until)? {
                        self.state.lock().counters.bytes_skipped += bytes.len() as u64;
                        session.feed.abandon();
                        return Ok(false);
                    }
                }
                Write::Lost => return Ok(false),
                Write::Over(over) => return Err(self.over(over)),
            }
        }
    }

    /// Waits for room. False: there was none in time.
    fn wait_for_room(&self, until: gst::ClockTime) -> Result<bool, gst::FlowError> {
        let mut state = self.state.lock();
        loop {
            if state.room || state.over.is_some() {
                return Ok(true);
            }
            if state.unlocked {
                drop(state);
                // Until it plays again, or an error because it stops.
                self.obj().wait_preroll()?;
                state = self.state.lock();
                continue;
            }
            let left = until.saturating_sub(gst::get_timestamp());
            if left.is_zero() || state.stalled {
                let news = !std::mem::replace(&mut state.stalled, true);
                drop(state);
                if news {
                    gst::warning!(
                        CAT,
                        imp = self,
                        "no room: dropping up to where the next segment may begin"
                    );
                    self.tell("dropping", None);
                }
                return Ok(false);
            }
            self.changed.wait_for(&mut state, left.into());
        }
    }

    /// Publishing has ended. The reason has been posted when this returns.
    fn over(&self, over: Over) -> gst::FlowError {
        let mut state = self.state.lock();
        let known = |state: &mut State| state.over.is_some() || state.unlocked;
        self.changed.wait_while_for(&mut state, |state| !known(state), REASON);
        match state.over.unwrap_or(over) {
            Over::Closed => gst::FlowError::Eos,
            Over::Stopped if state.unlocked => gst::FlowError::Flushing,
            _ => gst::FlowError::Error,
        }
    }

    /// What a session tells, on a thread of the runtime.
    fn told(&self, number: u64, told: Told) {
        let mut state = self.state.lock();
        if state.session != number {
            return;
        }
        match told {
            Told::Event(Event::Room) => {
                state.room = true;
                state.stalled = false;
                self.changed.notify_all();
            }
            Told::Event(Event::Done { seq, bytes }) => {
                state.counters.done += 1;
                let news = state.answers.replace(true) != Some(true);
                drop(state);
                gst::log!(CAT, imp = self, "the server has segment {seq}, {bytes} bytes");
                if news {
                    self.tell("publishing", Some(seq));
                }
            }
            Told::Event(Event::Lost { seq, why }) => {
                state.counters.lost += 1;
                gst::debug!(CAT, imp = self, "segment {seq:?} is lost: {why}");
                self.trouble(state, &why);
            }
            Told::Event(Event::Trouble(why)) => {
                gst::debug!(CAT, imp = self, "{why}");
                self.trouble(state, &why);
            }
            Told::Event(Event::Over { over, why }) => {
                drop(state);
                gst::info!(CAT, imp = self, "over: {over:?}, {why}");
                match error::published(over, &why) {
                    Some(message) => self.post_error_message(message),
                    None if over == Over::Closed => self.tell("closed", None),
                    None => (),
                }
                // After the reason: who waits for this then fails for it.
                self.state.lock().over = Some(over);
                self.changed.notify_all();
            }
            Told::NotCreated(error) => {
                drop(state);
                self.post_error_message(error::client(&error));
                self.state.lock().over = Some(Over::Failed);
                self.changed.notify_all();
            }
            Told::Done => {
                state.done = true;
                self.changed.notify_all();
            }
            // The enum may grow.
            Told::Event(_) => (),
        }
    }

    /// A request has failed. People hear of it once, until it goes well again.
    fn trouble(&self, mut state: MutexGuard<State>, why: &str) {
        let news = state.answers.replace(false) != Some(false);
        drop(state);
        if news {
            gst::element_imp_warning!(self, gst::ResourceError::Write, ("{why}; trying again"));
        }
    }

    /// EOS: waits until the server has everything.
    fn drain(&self) {
        let Some(mut streaming) = self.streaming.lock().take() else {
            return;
        };
        if let Some(session) = streaming.session.take() {
            self.await_answers(&mut streaming, session);
        }
        *self.streaming.lock() = Some(streaming);
    }

    fn await_answers(&self, streaming: &mut Streaming, session: Session) {
        session.finish(streaming.settings.delete_on_eos);
        let time = gst::ClockTime::from_nseconds(streaming.settings.eos_timeout);
        let until = gst::get_timestamp() + time;
        let mut state = self.state.lock();
        let late = loop {
            if state.done || state.over.is_some() {
                break false;
            }
            let left = until.saturating_sub(gst::get_timestamp());
            if left.is_zero() {
                break true;
            }
            if state.unlocked && self.obj().sink_pad().pad_flags().contains(gst::PadFlags::FLUSHING) {
                drop(state);
                session.leave(streaming.runtime, time.into());
                return;
            }
            self.changed.wait_for(&mut state, left.into());
        };
        if !late {
            return;
        }
        let unanswered = session.feed.active() as u64;
        state.counters.unanswered += unanswered;
        // What is told when it is cut off is known.
        state.session += 1;
        streaming.count += 1;
        drop(state);
        session.abort();
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Write,
            (
                "{}: the end: the server has not answered for {unanswered} segments within {time}",
                streaming.url
            )
        );
    }

    /// After a flush: what follows begins anew.
    fn flush(&self) {
        let mut streaming = self.streaming.lock();
        let Some(session) = streaming.as_mut().and_then(|streaming| streaming.session.as_mut()) else {
            return;
        };
        session.feed.end();
        session.writing = false;
        match &mut session.how {
            How::Ts(cutter) => cutter.flush(),
            How::Duration(at) => *at = None,
            How::Buffers => (),
        }
    }

    fn running_time(&self, pts: gst::ClockTime) -> Option<gst::ClockTime> {
        let segment = self.obj().segment().downcast::<gst::ClockTime>().ok()?;
        segment.to_running_time(pts)
    }

    fn tell(&self, what: &str, segment: Option<u64>) {
        let obj = self.obj();
        let message = gst::Structure::builder("tricklesink").field("state", what);
        let message = message.field_if_some("segment", segment).build();
        // Without a bus nobody wants to know.
        let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
    }

    fn stats(&self) -> gst::Structure {
        let (feed, counters, answers) = {
            let state = self.state.lock();
            (state.feed.clone(), state.counters, state.answers)
        };
        let (stats, queued) = feed.map_or_else(Default::default, |feed| (feed.stats(), feed.queued()));
        gst::Structure::builder("tricklesink-stats")
            .field("segments-begun", counters.begun)
            .field("segments-done", counters.done)
            .field("segments-lost", counters.lost)
            .field("segments-dropped", counters.dropped)
            .field("segments-unanswered", counters.unanswered)
            .field("segments-retried", stats.retried)
            .field("bytes", counters.bytes)
            .field("bytes-skipped", counters.bytes_skipped)
            .field("bytes-queued", queued as u64)
            .field("key-pictures-asked", counters.asked)
            .field("answers", answers.unwrap_or(false))
            .build()
    }
}

/// A segment of its own.
fn whole(bytes: Bytes) -> Vec<Piece> {
    vec![Piece::Begin { key: true, pts: None }, Piece::Bytes(bytes)]
}

/// The buffer's memory, shared.
fn bytes_of(buffer: &gst::Buffer) -> Result<Bytes, gst::FlowError> {
    let mapped = buffer.clone().into_mapped_buffer_readable();
    mapped.map(Bytes::from_owner).map_err(|_| gst::FlowError::Error)
}
