//! A peer and what it sends or watches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

use glib::prelude::*;
use gst::prelude::*;
use gst_webrtc::{
    WebRTCDTLSTransport, WebRTCDTLSTransportState, WebRTCDataChannel, WebRTCDataChannelState,
    WebRTCPeerConnectionState, WebRTCRTPTransceiver,
};
use parking_lot::Mutex;
use serde::Serialize;

use crate::codec::Codec;
use crate::codec::rtp::PLAYOUT_DELAY;
use crate::pool::Pool;
use crate::rtc::connection::Connection;
use crate::rtc::offer::{Kind, Need, Offer, Use};
use crate::rtc::{self, ConnectionState};
use crate::stream::{self, Origin, Stream};
use crate::watch::{self, Watch};
use crate::{egress, ingress};

/// How often the delay of sound is brought in line with what pictures take.
const TICK: Duration = Duration::from_millis(500);
/// How long a peer has to hear that its session ends.
const GOODBYE: Duration = Duration::from_millis(200);
/// Bytes that may wait in a data channel; who does not read gets no more.
const WAITING: u64 = 1 << 20;

/// What a peer is for.
#[derive(Debug, Clone)]
pub enum Role {
    /// It sends, and gets back what becomes of it.
    Echo(stream::Settings),
    /// It sends, and others watch.
    Publish(stream::Settings),
    /// It watches.
    Watch(Arc<Stream>),
}

/// What a session says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The connection changed.
    Connection(rtc::ConnectionState),
    /// A data channel is open.
    Channel(String),
    /// The peer sent text.
    Message {
        /// On which data channel.
        label: String,
        /// What.
        text: String,
    },
    /// Its stream says something; not to who watches.
    Stream(stream::Event),
    /// The session failed, and ends.
    Failed(String),
    /// It has ended. The last event.
    Ended,
}

/// Hears what a session says, on threads of the session; it must not wait, nor close the session from there.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Figures of the peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// `connecting`, `connected`, `disconnected`, `closed`.
    pub connection: String,
    /// The format sent; None: nothing is.
    pub codec_out: Option<String>,
    /// Bits per second that the encoder is asked for.
    pub bitrate_target: u32,
    /// How long sound is held so that it is in time with the picture.
    pub audio_delay_ms: f64,
    /// How much older sound is than pictures when both leave; None: one of them does not.
    pub audio_skew_ms: Option<f64>,
    /// What the LATENCY query answers at the sender.
    pub latency_ms: f64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames dropped because the peer or the encoder was slow.
    pub dropped: u64,
}

/// A peer that is connected, or will be. It ends when it is dropped.
pub struct Session {
    stream: Arc<Stream>,
    /// Whether the stream is the peer's own, and ends with it.
    owns: bool,
    connection: Connection,
    /// Silence after which the peer is gone.
    patience: Duration,
    listener: Listener,
    inner: Mutex<Inner>,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    offer: Offer,
    state: ConnectionState,
    video: Option<Arc<egress::Video>>,
    audio: Option<Arc<egress::Audio>>,
    channels: HashMap<String, WebRTCDataChannel>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stream", &self.stream.name())
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Answers an offer. Waits for webrtcbin, and for addresses to be found; not for the peer, nor for a model.
    pub fn open(
        pool: &Arc<Pool>,
        name: &str,
        offer: &str,
        role: Role,
        config: &rtc::Config,
        listener: Listener,
    ) -> Result<(Arc<Self>, String), rtc::Error> {
        let offer = Offer::parse(offer)?;
        let need = match &role {
            Role::Echo(_) => Need {
                receive: true,
                send: true,
            },
            Role::Publish(_) => Need {
                receive: true,
                send: false,
            },
            Role::Watch(_) => Need {
                receive: false,
                send: true,
            },
        };
        let mut plan = offer.plan(need, &config.codecs)?;
        if config.smooth {
            for line in &mut plan {
                line.payload.extensions.retain(|(_, uri)| *uri != PLAYOUT_DELAY);
            }
        }
        let (stream, owns) = match role {
            Role::Watch(stream) => (stream, false),
            Role::Echo(settings) | Role::Publish(settings) => {
                let hear = listener.clone();
                let stream = Stream::new(pool, name, settings, Arc::new(move |event| hear(Event::Stream(event))))?;
                (stream, true)
            }
        };
        let connection = Connection::new(&format!("peer-{name}"), config)?;
        let session = Arc::new(Self {
            stream,
            owns,
            connection,
            patience: config.silence,
            listener,
            inner: Mutex::new(Inner {
                offer: offer.clone(),
                state: ConnectionState::Connecting,
                video: None,
                audio: None,
                channels: HashMap::new(),
            }),
            closed: AtomicBool::new(false),
        });
        session.connect(&plan, config);
        let answer = session.connection.answer(&offer, &plan, config, |line, pad, ssrc| {
            session.send_on(line, pad, ssrc, config)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                session.close();
                return Err(why);
            }
        };
        session.attend();
        Ok((session, answer))
    }

    /// What webrtcbin says while it runs.
    fn connect(self: &Arc<Self>, plan: &[Use], config: &rtc::Config) {
        let bin = &self.connection.bin;
        let (me, lines) = (Arc::downgrade(self), plan.to_vec());
        bin.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src
                && let Some(session) = me.upgrade()
            {
                session.receive_on(pad, &lines);
            }
        });
        let me = Arc::downgrade(self);
        bin.connect_notify(Some("connection-state"), move |bin, _| {
            let state = bin.property::<WebRTCPeerConnectionState>("connection-state");
            if let Some(session) = me.upgrade() {
                session.changed(match state {
                    WebRTCPeerConnectionState::Connected => ConnectionState::Connected,
                    WebRTCPeerConnectionState::Disconnected => ConnectionState::Disconnected,
                    WebRTCPeerConnectionState::Failed | WebRTCPeerConnectionState::Closed => ConnectionState::Closed,
                    _ => return,
                });
            }
        });
        let me = Arc::downgrade(self);
        bin.connect("on-data-channel", false, move |values| {
            let channel = values.get(1)?.get::<WebRTCDataChannel>().ok()?;
            me.upgrade()?.channel(&channel);
            None
        });
        let (me, bitrate) = (Arc::downgrade(self), config.bitrate);
        bin.connect("request-aux-sender", false, move |_| {
            let estimator = gst::ElementFactory::make("rtpgccbwe")
                .property("min-bitrate", bitrate.min)
                .property("max-bitrate", bitrate.max)
                .property("estimated-bitrate", bitrate.start.clamp(bitrate.min, bitrate.max))
                .build()
                .ok()?;
            let me = me.clone();
            estimator.connect_notify(Some("estimated-bitrate"), move |estimator, _| {
                let video = me.upgrade().and_then(|session| session.inner.lock().video.clone());
                if let Some(video) = video {
                    video.set_bitrate(estimator.property("estimated-bitrate"));
                }
            });
            Some(estimator.to_value())
        });
    }

    fn receive_on(self: &Arc<Self>, pad: &gst::Pad, lines: &[Use]) {
        let pipeline = &self.connection.pipeline;
        let number = pad.property::<WebRTCRTPTransceiver>("transceiver").mlineindex();
        let line = lines.iter().find(|line| line.index == number && line.receive);
        let made = match line {
            Some(Use {
                kind: Kind::Video,
                payload,
                ..
            }) => {
                let named = pad.current_caps().and_then(|caps| {
                    let name = caps.structure(0)?.get::<String>("encoding-name").ok()?;
                    Codec::from_encoding_name(&name)
                });
                match named.or(payload.codec()) {
                    Some(codec) => ingress::video(pipeline, pad, codec, self.stream.notes()).map(|video| {
                        self.stream.set_origin(Some(Origin {
                            outlet: video.outlet,
                            size: video.size,
                            codec: Some(video.codec),
                        }));
                    }),
                    None => ingress::discard(pipeline, pad),
                }
            }
            Some(Use { kind: Kind::Audio, .. }) => {
                ingress::audio(pipeline, pad).map(|outlet| self.stream.set_sound(Some(outlet)))
            }
            _ => ingress::discard(pipeline, pad),
        };
        if let Err(why) = made {
            self.fail(&why.to_string());
        }
    }

    fn send_on(&self, line: &Use, pad: &gst::Pad, ssrc: u32, config: &rtc::Config) -> Result<(), rtc::Error> {
        let pipeline = &self.connection.pipeline;
        if line.kind == Kind::Audio {
            let audio = Arc::new(egress::Audio::new(pipeline, pad, &line.payload, ssrc)?);
            self.stream.play(&audio.inlet);
            self.inner.lock().audio = Some(audio);
            return Ok(());
        }
        let bitrate = config.bitrate.start.clamp(config.bitrate.min, config.bitrate.max);
        let notes = self.stream.notes();
        let video = Arc::new(egress::Video::new(pipeline, pad, &line.payload, ssrc, bitrate, notes)?);
        self.stream.show(&video.inlet);
        self.inner.lock().video = Some(video);
        Ok(())
    }

    fn channel(self: &Arc<Self>, channel: &WebRTCDataChannel) {
        let label = channel.label().map(String::from).unwrap_or_default();
        self.inner.lock().channels.insert(label.clone(), channel.clone());
        let (me, on) = (Arc::downgrade(self), label.clone());
        channel.connect_on_message_string(move |_, text| {
            if let Some(session) = me.upgrade() {
                session.tell(Event::Message {
                    label: on.clone(),
                    text: text.unwrap_or_default().to_owned(),
                });
            }
        });
        let (me, on) = (Arc::downgrade(self), label.clone());
        channel.connect_on_close(move |_| {
            if let Some(session) = me.upgrade() {
                session.inner.lock().channels.remove(&on);
            }
        });
        if channel.ready_state() == WebRTCDataChannelState::Open {
            self.tell(Event::Channel(label));
            return;
        }
        let me = Arc::downgrade(self);
        channel.connect_on_open(move |_| {
            if let Some(session) = me.upgrade() {
                session.tell(Event::Channel(label.clone()));
            }
        });
    }

    fn changed(self: &Arc<Self>, state: ConnectionState) {
        let before = std::mem::replace(&mut self.inner.lock().state, state);
        if before == state || before == ConnectionState::Closed {
            return;
        }
        self.tell(Event::Connection(state));
        match state {
            ConnectionState::Connected => {
                self.watch_transport();
                let video = self.inner.lock().video.clone();
                if let Some(video) = video {
                    video.request_key_picture();
                }
            }
            ConnectionState::Closed => self.close(),
            ConnectionState::Connecting | ConnectionState::Disconnected => (),
        }
    }

    /// A peer that says good-bye closes DTLS, which the connection's own state does not tell.
    fn watch_transport(self: &Arc<Self>) {
        let transport = (0..64).find_map(|n: i32| {
            let bin = &self.connection.bin;
            let transceiver = bin.emit_by_name::<Option<WebRTCRTPTransceiver>>("get-transceiver", &[&n])?;
            let receiver = transceiver.receiver()?;
            receiver.property::<Option<WebRTCDTLSTransport>>("transport")
        });
        let Some(transport) = transport else { return };
        let me = Arc::downgrade(self);
        transport.connect_state_notify(move |transport| {
            let gone = matches!(
                transport.state(),
                WebRTCDTLSTransportState::Closed | WebRTCDTLSTransportState::Failed
            );
            if let Some(session) = me.upgrade().filter(|_| gone) {
                session.changed(ConnectionState::Closed);
            }
        });
    }

    /// Reads the bus until the end, on a thread of its own.
    fn attend(self: &Arc<Self>) {
        let (me, watch) = (Arc::downgrade(self), Watch::new(&self.connection.pipeline));
        let begun = std::thread::Builder::new()
            .name("comfy-peer".into())
            .spawn(move || attend(&me, watch));
        if let Err(error) = begun {
            self.fail(&format!("no thread for the session: {error}"));
        }
    }

    fn hear(self: &Arc<Self>, event: watch::Event) {
        match event {
            watch::Event::Error(failure) if failure.path.contains("GstWebRTCBin") => {
                // The network's elements fail when the peer goes, and then that is what has happened.
                gst::info!(gst::CAT_RUST, "{}: {failure}", self.stream.name());
                if self.inner.lock().state != ConnectionState::Connected {
                    self.changed(ConnectionState::Closed);
                }
            }
            watch::Event::Error(failure) => self.fail(&failure.to_string()),
            watch::Event::Warning(failure) => {
                self.tell(Event::Stream(stream::Event::Warning(failure.to_string())));
            }
            _ => (),
        }
    }

    /// A peer that vanishes says nothing, and that is how it is noticed.
    fn check_silence(self: &Arc<Self>) {
        let silence = self.connection.silence();
        let state = self.inner.lock().state;
        match state {
            ConnectionState::Connected if silence > self.patience / 3 => self.changed(ConnectionState::Disconnected),
            ConnectionState::Disconnected if silence > self.patience => self.changed(ConnectionState::Closed),
            ConnectionState::Disconnected if silence < TICK * 2 => self.changed(ConnectionState::Connected),
            _ => (),
        }
    }

    /// Holds sound for as long as pictures take.
    fn keep_in_time(&self) {
        let (video, audio) = {
            let inner = self.inner.lock();
            (inner.video.clone(), inner.audio.clone())
        };
        if let (Some(audio), Some(_)) = (audio, video)
            && let Some(age) = self.stream.notes().age()
        {
            let told = self.connection.pipeline.latency().unwrap_or_default();
            audio.set_delay(age, told);
        }
    }

    fn fail(self: &Arc<Self>, text: &str) {
        if !self.closed.load(Ordering::Acquire) {
            self.tell(Event::Failed(text.to_owned()));
        }
        self.close();
    }

    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    /// The stream that it sends or watches.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Adds the candidates of a fragment of SDP (RFC 8840), as WHIP and WHEP clients send it.
    pub fn add_candidates(&self, fragment: &str) -> Result<(), rtc::Error> {
        let fragment = rtc::fragment::Fragment::parse(fragment)?;
        if self.closed.load(Ordering::Acquire) {
            return Err(rtc::Error::Ended);
        }
        for candidate in fragment.candidates {
            self.connection.add_candidate(candidate.line, &candidate.text);
        }
        Ok(())
    }

    /// The user fragment of ICE that the peer has now, which an entity tag stands for.
    pub fn ice_ufrag(&self) -> String {
        self.inner.lock().offer.ice_ufrag.clone()
    }

    /// Starts ICE anew with the credentials and candidates of a fragment; returns ours. An error of
    /// [`rtc::Error::Unfit`] where GStreamer cannot.
    pub fn restart(&self, fragment: &str) -> Result<String, rtc::Error> {
        rtc::fragment::Fragment::parse(fragment)?;
        Err(rtc::Error::Unfit(
            "webrtcbin does not start ICE anew; open another session and end this one".into(),
        ))
    }

    /// Sends text on a data channel.
    pub fn send(&self, label: &str, text: &str) -> Result<(), rtc::Error> {
        let channel = self.inner.lock().channels.get(label).cloned();
        channel
            .filter(|channel| channel.ready_state() == WebRTCDataChannelState::Open)
            .filter(|channel| channel.buffered_amount() < WAITING)
            .and_then(|channel| channel.send_string_full(Some(text)).ok())
            .ok_or_else(|| rtc::Error::Channel(label.to_owned()))
    }

    /// Its figures.
    pub fn stats(&self) -> Stats {
        let (state, video, audio) = {
            let inner = self.inner.lock();
            (inner.state, inner.video.clone(), inner.audio.clone())
        };
        let ms = |time: gst::ClockTime| time.nseconds() as f64 / 1e6;
        Stats {
            connection: match state {
                ConnectionState::Connecting => "connecting",
                ConnectionState::Connected => "connected",
                ConnectionState::Disconnected => "disconnected",
                ConnectionState::Closed => "closed",
            }
            .into(),
            codec_out: video.as_ref().map(|video| video.codec.to_string()),
            bitrate_target: video.as_ref().map_or(0, |video| video.bitrate()),
            audio_delay_ms: audio.as_ref().map_or(0.0, |audio| ms(audio.delay())),
            audio_skew_ms: audio
                .as_ref()
                .and_then(|audio| Some(ms(audio.age()?) - ms(self.stream.notes().age()?))),
            latency_ms: video.as_ref().and_then(|video| video.latency()).map_or(0.0, ms),
            frames_out: video.as_ref().map_or(0, |video| video.sent()),
            dropped: video.as_ref().map_or(0, |video| video.inlet.dropped()),
        }
    }

    /// Ends it, on a thread of its own; [`Event::Ended`] tells when it is done.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (connected, channels, video) = {
            let mut inner = self.inner.lock();
            let before = std::mem::replace(&mut inner.state, ConnectionState::Closed);
            (
                before == ConnectionState::Connected,
                std::mem::take(&mut inner.channels),
                inner.video.clone(),
            )
        };
        let (pipeline, stream, owns) = (self.connection.pipeline.clone(), self.stream.clone(), self.owns);
        let listener = self.listener.clone();
        let end = move || {
            // First what comes in, so that nothing waits for a network that goes.
            if owns {
                stream.end();
            } else if let Some(video) = video {
                stream.hide(&video.inlet);
            }
            if connected {
                say_goodbye(channels.into_values());
            }
            let _ = pipeline.set_state(gst::State::Null);
            // What webrtcbin says on the way down is nobody's.
            if let Some(bus) = pipeline.bus() {
                bus.set_flushing(true);
            }
            listener(Event::Ended);
        };
        if std::thread::Builder::new().name("comfy-end".into()).spawn(end).is_err() {
            gst::error!(gst::CAT_RUST, "no thread to end session {}", self.stream.name());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes data channels, by which a peer learns that this is the end, and waits a moment for that to be sent.
fn say_goodbye(channels: impl Iterator<Item = WebRTCDataChannel>) {
    let (done, wait) = sync_channel(16);
    let mut open = 0;
    for channel in channels.filter(|channel| channel.ready_state() == WebRTCDataChannelState::Open) {
        let done = done.clone();
        channel.connect_on_close(move |_| {
            let _ = done.try_send(());
        });
        channel.close();
        open += 1;
    }
    drop(done);
    for _ in 0..open {
        if wait.recv_timeout(GOODBYE).is_err() {
            return;
        }
    }
}

fn attend(me: &Weak<Session>, mut watch: Watch) {
    loop {
        let event = watch.next(Some(TICK));
        let Some(session) = me.upgrade() else { return };
        if session.closed.load(Ordering::Acquire) {
            return;
        }
        if session.stream.has_ended() {
            // Who watches is told by the end of the connection, and may come again.
            session.close();
            return;
        }
        match event {
            Some(event) => session.hear(event),
            None => {
                session.keep_in_time();
                session.check_silence();
            }
        }
    }
}
