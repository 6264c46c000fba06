//! A peer like a browser: offers pictures and sound over webrtcbin, and keeps what comes back.

use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use comfy_pipelines::link::{self, Inlet, Outlet};
use glib::prelude::*;
use gst::prelude::*;
use gst_webrtc::{
    WebRTCDataChannel, WebRTCDataChannelState, WebRTCPeerConnectionState, WebRTCRTPTransceiver,
    WebRTCRTPTransceiverDirection, WebRTCSDPType, WebRTCSessionDescription,
};

/// What a peer offers.
#[derive(Debug, Clone)]
pub struct Offered {
    /// Encoder and payloader: `vp8enc deadline=1 ! rtpvp8pay`; None: it only watches.
    pub encoder: Option<String>,
    /// Its name in RTP: `VP8`.
    pub encoding_name: &'static str,
    /// Raw pictures.
    pub source: String,
    /// Where pictures come from that are encoded already, for many peers at the cost of one; then there is no `source`.
    pub shared: Option<Outlet>,
    /// Whether what comes back is decoded. Pictures have no size and no colours otherwise.
    pub decodes: bool,
    /// Whether there is sound as well.
    pub sound: bool,
    /// Whether it wants something back.
    pub receives: bool,
    /// Whether it counts packets, for the sender to learn what the network carries.
    pub transport_cc: bool,
    /// Another header extension of video, by number and name.
    pub extension: Option<(u8, &'static str)>,
    /// What its packets of media go through.
    pub network: Option<&'static str>,
    /// Data channels.
    pub channels: Vec<&'static str>,
}

impl Default for Offered {
    fn default() -> Self {
        Self {
            encoder: Some("vp8enc deadline=1 cpu-used=8 keyframe-max-dist=300 target-bitrate=2000000".into()),
            encoding_name: "VP8",
            source: "videotestsrc is-live=true pattern=white ! video/x-raw,width=320,height=240,framerate=30/1".into(),
            shared: None,
            decodes: true,
            sound: false,
            receives: true,
            transport_cc: false,
            extension: None,
            network: None,
            channels: vec!["control", "data"],
        }
    }
}

/// A picture that came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Width and height.
    pub size: (u32, u32),
    /// Red, green and blue in its middle.
    pub middle: [u8; 3],
    /// When it was there.
    pub at: gst::ClockTime,
    /// When it is to be shown, by the sender's clock.
    pub pts: Option<gst::ClockTime>,
}

#[derive(Default)]
struct Seen {
    pictures: Vec<Picture>,
    sounds: Vec<(gst::ClockTime, Option<gst::ClockTime>)>,
    messages: Vec<(String, String)>,
    channels: HashMap<String, WebRTCDataChannel>,
    state: Option<WebRTCPeerConnectionState>,
    errors: Vec<String>,
    extension: Option<Vec<u8>>,
}

/// The peer.
pub struct Browser {
    pipeline: gst::Pipeline,
    bin: gst::Element,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    /// Follows what is shared as long as it lives.
    _inlet: Option<Inlet>,
}

impl Browser {
    /// Makes its pipeline and an offer.
    pub fn new(offered: &Offered) -> (Self, String) {
        comfy_pipelines::register().expect("GStreamer");
        let mut text = String::from("webrtcbin name=peer bundle-policy=max-bundle latency=0");
        let payloader = match offered.encoding_name {
            "H264" => "rtph264pay config-interval=-1 aggregate-mode=zero-latency",
            "VP9" => "rtpvp9pay picture-id-mode=15-bit",
            _ => "rtpvp8pay picture-id-mode=15-bit",
        };
        if let Some(encoder) = &offered.encoder {
            let source = if offered.shared.is_some() {
                "identity name=shared"
            } else {
                &offered.source
            };
            let extension = offered
                .extension
                .map(|(number, uri)| format!(",extmap-{number}=(string)\"{uri}\""));
            text += &format!(
                " {} ! {encoder} ! {payloader} pt=96 ssrc=1111 \
                 ! application/x-rtp,media=video,encoding-name={},payload=96,clock-rate=90000,ssrc=(uint)1111{}{} ! peer.sink_0",
                source,
                offered.encoding_name,
                [
                    ("H264", ",packetization-mode=(string)1"),
                    (
                        "",
                        ",extmap-1=(string)\"http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\"\
                         ,rtcp-fb-transport-cc=true",
                    ),
                ]
                .iter()
                .filter(|(name, _)| *name == offered.encoding_name || (name.is_empty() && offered.transport_cc))
                .map(|(_, more)| *more)
                .collect::<String>(),
                extension.unwrap_or_default(),
            );
            if offered.sound {
                text += " audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! opusenc \
                     ! rtpopuspay pt=97 ssrc=2222 \
                     ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97,ssrc=(uint)2222 ! peer.sink_1";
            }
        }
        let parsed = gst::parse::launch(&text).expect("a description");
        // One element alone is not put into a pipeline.
        let pipeline = parsed.downcast::<gst::Pipeline>().unwrap_or_else(|alone| {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&alone).expect("a new element");
            pipeline
        });
        let bin = pipeline.by_name("peer").expect("named so");
        let inlet = offered.shared.as_ref().map(|outlet| {
            link::align(&pipeline);
            let inlet = Inlet::new("inlet", 30);
            pipeline.add(inlet.element()).expect("a new element");
            let entry = pipeline.by_name("shared").expect("named so");
            inlet.element().link(&entry).expect("it fits");
            inlet.follow(outlet);
            inlet
        });
        let agent = bin
            .property::<glib::Object>("ice-agent")
            .property::<glib::Object>("agent");
        agent.set_property("upnp", false);
        agent.set_property("ice-tcp", false);
        let inside = bin.downcast_ref::<gst::Bin>().expect("a bin");
        inside.connect_deep_element_added(|_, _, element| match element.factory().map(|factory| factory.name()) {
            Some(name) if name == "clocksync" => element.set_property("sync", false),
            // Reports say when pictures and sound were made, as browsers' do, not when they were sent.
            Some(name) if name == "rtpbin" => element.set_property("rtcp-sync-send-time", false),
            _ => (),
        });
        if let Some(network) = offered.network {
            bin.connect("request-aux-sender", false, move |_| {
                let between = gst::parse::bin_from_description(network, true).expect("an element");
                Some(between.upcast::<gst::Element>().to_value())
            });
        }
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let browser = Self {
            pipeline,
            bin,
            seen,
            _inlet: inlet,
        };
        browser.listen(offered);
        browser.pipeline.set_state(gst::State::Playing).expect("it plays");
        if offered.encoder.is_none() {
            let caps = gst::Caps::builder("application/x-rtp")
                .field("media", "video")
                .field("encoding-name", offered.encoding_name)
                .field("payload", 96)
                .field("clock-rate", 90000)
                .build();
            browser.bin.emit_by_name::<WebRTCRTPTransceiver>(
                "add-transceiver",
                &[&WebRTCRTPTransceiverDirection::Recvonly, &caps],
            );
        } else if !offered.receives {
            for n in 0..2 {
                if let Some(transceiver) = browser
                    .bin
                    .emit_by_name::<Option<WebRTCRTPTransceiver>>("get-transceiver", &[&n])
                {
                    transceiver.set_direction(WebRTCRTPTransceiverDirection::Sendonly);
                }
            }
        }
        for label in &offered.channels {
            let channel = browser
                .bin
                .emit_by_name::<WebRTCDataChannel>("create-data-channel", &[label, &None::<gst::Structure>]);
            browser.keep(&channel);
        }
        let offer = browser.create("create-offer", "offer");
        browser.set("set-local-description", &offer);
        browser.gather();
        let local = browser.bin.property::<WebRTCSessionDescription>("local-description");
        (browser, local.sdp().as_text().expect("SDP is text"))
    }

    /// Takes the answer.
    pub fn accept(&self, answer: &str) {
        let sdp = gst_sdp::SDPMessage::parse_buffer(answer.as_bytes()).expect("an answer");
        self.set(
            "set-remote-description",
            &WebRTCSessionDescription::new(WebRTCSDPType::Answer, sdp),
        );
    }

    fn listen(&self, offered: &Offered) {
        let (extension, decodes) = (offered.extension.map(|(number, _)| number), offered.decodes);
        let seen = self.seen.clone();
        self.bin.connect_notify(Some("connection-state"), move |bin, _| {
            let state = bin.property::<WebRTCPeerConnectionState>("connection-state");
            note(&seen, |seen| seen.state = Some(state));
        });
        // Like a browser it sends nothing before it is connected: what waited until then would come all at once, and
        // nothing could be said of its time.
        for pad in self.bin.sink_pads().iter().filter_map(gst::Pad::peer) {
            let seen = self.seen.clone();
            pad.add_probe(
                gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
                move |pad, _| {
                    if seen.0.lock().expect("nobody panicked").state != Some(WebRTCPeerConnectionState::Connected) {
                        return gst::PadProbeReturn::Drop;
                    }
                    // What is dropped was a key frame, and the others are nothing without one.
                    pad.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().build());
                    gst::PadProbeReturn::Remove
                },
            );
        }
        let (seen, pipeline) = (self.seen.clone(), self.pipeline.downgrade());
        self.bin.connect_pad_added(move |_, pad| {
            let Some(pipeline) = pipeline.upgrade() else { return };
            if pad.direction() != gst::PadDirection::Src {
                return;
            }
            let field = |name: &str| {
                pad.current_caps()
                    .and_then(|caps| caps.structure(0)?.get::<String>(name).ok())
            };
            let media = field("media");
            if media.as_deref() == Some("audio") {
                let sink =
                    gst::parse::bin_from_description("rtpopusdepay name=first ! fakesink sync=false async=false", true)
                        .expect("a bin");
                let seen = seen.clone();
                let out = sink
                    .by_name("first")
                    .and_then(|first| first.static_pad("src"))
                    .expect("a pad");
                out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                    let pts = info.buffer().and_then(|buffer| buffer.pts());
                    note(&seen, |seen| seen.sounds.push((gst::get_timestamp(), pts)));
                    gst::PadProbeReturn::Ok
                });
                attach(&pipeline, sink.upcast_ref(), pad);
                return;
            }
            let decoder = match field("encoding-name").as_deref() {
                Some("H264") => "rtph264depay ! h264parse ! avdec_h264 thread-type=slice",
                Some("VP9") => "rtpvp9depay ! vp9dec",
                _ => "rtpvp8depay ! vp8dec",
            };
            let decoded = "videoconvert ! video/x-raw,format=RGB";
            let text = match decoder.split_once(" ! ") {
                Some((depayloader, _)) if !decodes => format!("{depayloader} ! appsink name=pictures"),
                _ => format!("{decoder} ! {decoded} ! appsink name=pictures"),
            };
            let sink = gst::parse::bin_from_description(&text, true).expect("a bin");
            let pictures = sink.by_name("pictures").expect("named so");
            let pictures = pictures.downcast::<gst_app::AppSink>().expect("an appsink");
            pictures.set_property("sync", false);
            pictures.set_property("async", false);
            if let Some(number) = extension {
                let seen = seen.clone();
                pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                    let packet = info
                        .buffer()
                        .and_then(|buffer| gst_rtp::RTPBuffer::from_buffer_readable(buffer).ok());
                    if let Some(data) = packet
                        .as_ref()
                        .and_then(|packet| packet.extension_onebyte_header(number, 0))
                    {
                        note(&seen, |seen| seen.extension = Some(data.to_vec()));
                    }
                    gst::PadProbeReturn::Ok
                });
            }
            let seen = seen.clone();
            pictures.set_callbacks(
                gst_app::AppSinkCallbacks::builder()
                    .new_sample(move |sink| {
                        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                        let picture = if decodes { picture(&sample) } else { unseen(&sample) };
                        note(&seen, |seen| seen.pictures.push(picture));
                        Ok(gst::FlowSuccess::Ok)
                    })
                    .build(),
            );
            attach(&pipeline, sink.upcast_ref(), pad);
        });
        let seen = self.seen.clone();
        let bus = self.pipeline.bus().expect("a pipeline has one");
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let text = format!(
                    "{}: {}",
                    error.src().map(|src| src.path_string()).unwrap_or_default(),
                    error.error()
                );
                note(&seen, |seen| seen.errors.push(text));
            }
            gst::BusSyncReply::Drop
        });
    }

    fn keep(&self, channel: &WebRTCDataChannel) {
        let label = channel.label().map(String::from).unwrap_or_default();
        let (seen, on) = (self.seen.clone(), label.clone());
        channel.connect_on_message_string(move |_, text| {
            let text = text.unwrap_or_default().to_owned();
            note(&seen, |seen| seen.messages.push((on.clone(), text)));
        });
        let seen = self.seen.clone();
        channel.connect_on_open(move |_| note(&seen, |_| ()));
        note(&self.seen, |seen| {
            seen.channels.insert(label, channel.clone());
        });
    }

    fn create(&self, signal: &str, field: &'static str) -> WebRTCSessionDescription {
        let (done, wait) = mpsc::sync_channel(1);
        let promise = gst::Promise::with_change_func(move |reply| {
            let made = reply
                .ok()
                .flatten()
                .and_then(|reply| reply.get::<WebRTCSessionDescription>(field).ok());
            let _ = done.send(made);
        });
        self.bin
            .emit_by_name::<()>(signal, &[&None::<gst::Structure>, &promise]);
        wait.recv_timeout(crate::DEADLINE)
            .expect("in time")
            .expect("a description")
    }

    fn set(&self, signal: &str, description: &WebRTCSessionDescription) {
        let (done, wait) = mpsc::sync_channel(1);
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = done.send(reply.map(|reply| reply.map(ToString::to_string)).map_err(|_| ()));
        });
        self.bin.emit_by_name::<()>(signal, &[description, &promise]);
        let reply = wait.recv_timeout(crate::DEADLINE).expect("in time").expect("an answer");
        assert!(
            !reply.as_deref().unwrap_or_default().contains("error"),
            "{signal}: {reply:?}"
        );
    }

    fn gather(&self) {
        let state = |bin: &gst::Element| {
            bin.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state")
                == gst_webrtc::WebRTCICEGatheringState::Complete
        };
        let (done, wait) = mpsc::sync_channel(1);
        let notify = self.bin.connect_notify(Some("ice-gathering-state"), move |bin, _| {
            if state(bin) {
                let _ = done.try_send(());
            }
        });
        if !state(&self.bin) {
            wait.recv_timeout(crate::DEADLINE).expect("addresses are found");
        }
        self.bin.disconnect(notify);
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let end = gst::get_timestamp() + crate::PATIENCE;
        let mut seen = self.seen.0.lock().expect("nobody panicked");
        loop {
            if let Some(found) = found(&seen) {
                return found;
            }
            let rest = Duration::from(end.saturating_sub(gst::get_timestamp()));
            assert!(
                !rest.is_zero(),
                "waited for {what}; connection {:?}, {} pictures, {} messages, errors {:?}",
                seen.state,
                seen.pictures.len(),
                seen.messages.len(),
                seen.errors
            );
            seen = self.seen.1.wait_timeout(seen, rest).expect("nobody panicked").0;
        }
    }

    /// Waits until media may flow.
    pub fn connected(&self) {
        self.wait("a connection", |seen| {
            (seen.state == Some(WebRTCPeerConnectionState::Connected)).then_some(())
        });
    }

    /// The first picture, from now on, that is as wanted.
    pub fn picture(&self, what: &str, mut wanted: impl FnMut(&Picture) -> bool) -> Picture {
        let from = self.pictures().len();
        self.wait(what, |seen| {
            seen.pictures[from..].iter().find(|picture| wanted(picture)).cloned()
        })
    }

    /// Waits for so many pictures more.
    pub fn more_pictures(&self, count: usize) {
        let from = self.pictures().len();
        self.wait("pictures", |seen| (seen.pictures.len() >= from + count).then_some(()));
    }

    /// All that came.
    pub fn pictures(&self) -> Vec<Picture> {
        self.seen.0.lock().expect("nobody panicked").pictures.clone()
    }

    /// What the last packet of video that had it said in the header extension that was offered.
    pub fn extension(&self) -> Option<Vec<u8>> {
        self.seen.0.lock().expect("nobody panicked").extension.clone()
    }

    /// When packets of sound came.
    pub fn sounds(&self) -> Vec<(gst::ClockTime, Option<gst::ClockTime>)> {
        self.seen.0.lock().expect("nobody panicked").sounds.clone()
    }

    /// Waits for so many packets of sound.
    pub fn more_sounds(&self, count: usize) {
        let from = self.sounds().len();
        self.wait("sound", |seen| (seen.sounds.len() >= from + count).then_some(()));
    }

    /// Sends text once the channel is open.
    pub fn send(&self, label: &str, text: &str) {
        let channel = self.wait("an open channel", |seen| {
            let channel = seen.channels.get(label)?;
            (channel.ready_state() == WebRTCDataChannelState::Open).then(|| channel.clone())
        });
        channel.send_string_full(Some(text)).expect("it is open");
    }

    /// The first message on a channel that is as wanted, whenever it came.
    pub fn message(&self, label: &str, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        self.wait(what, |seen| {
            let found = seen.messages.iter().find(|(on, text)| on == label && wanted(text));
            found.map(|(_, text)| text.clone())
        })
    }

    /// Closes it.
    pub fn close(&self) {
        self.pipeline.set_state(gst::State::Null).expect("it stops");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.close();
    }
}

fn note(seen: &Arc<(Mutex<Seen>, Condvar)>, change: impl FnOnce(&mut Seen)) {
    change(&mut seen.0.lock().expect("nobody panicked"));
    seen.1.notify_all();
}

fn attach(pipeline: &gst::Pipeline, sink: &gst::Element, pad: &gst::Pad) {
    pipeline.add(sink).expect("a new element");
    sink.sync_state_with_parent().expect("it plays");
    pad.link(&sink.static_pad("sink").expect("a ghost pad"))
        .expect("it fits");
}

fn unseen(sample: &gst::Sample) -> Picture {
    Picture {
        size: (0, 0),
        middle: [0; 3],
        at: gst::get_timestamp(),
        pts: sample.buffer().and_then(|buffer| buffer.pts()),
    }
}

fn picture(sample: &gst::Sample) -> Picture {
    let info = gst_video::VideoInfo::from_caps(sample.caps().expect("caps")).expect("raw video");
    let buffer = sample.buffer().expect("a buffer");
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("it can be read");
    let (width, height) = (info.width() as usize, info.height() as usize);
    let data = frame.plane_data(0).expect("RGB has one plane");
    let at = height / 2 * info.stride()[0] as usize + width / 2 * 3;
    Picture {
        size: (width as u32, height as u32),
        middle: [data[at], data[at + 1], data[at + 2]],
        at: gst::get_timestamp(),
        pts: buffer.pts(),
    }
}
