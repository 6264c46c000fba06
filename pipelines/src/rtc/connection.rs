//! webrtcbin, and the order in which it wants to be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use glib::prelude::*;
use gst::prelude::*;
use gst_webrtc::{WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection, WebRTCSDPType, WebRTCSessionDescription};

use super::offer::{Kind, Offer, Use};
use super::{Config, Error};
use crate::infergraph::make;
use crate::link;

/// How long webrtcbin may think.
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer's pipeline.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) pipeline: gst::Pipeline,
    pub(crate) bin: gst::Element,
    /// When the last packet came, in nanoseconds of running time.
    heard: Arc<AtomicU64>,
}

impl Connection {
    /// Runs, and knows nobody yet.
    pub(crate) fn new(name: &str, config: &Config) -> Result<Self, Error> {
        let pipeline = gst::Pipeline::with_name(name);
        link::align(&pipeline);
        let bin = make("webrtcbin")?;
        // Without libnice webrtcbin is there, and useless.
        make("nicesrc")?;
        bin.set_property_from_str("bundle-policy", "max-bundle");
        bin.set_property("latency", config.jitter.as_millis() as u32);
        // Frames are sent when they are ready; who plays them has a buffer of its own.
        let inside = bin.downcast_ref::<gst::Bin>().expect("webrtcbin is a bin");
        let heard = Arc::new(AtomicU64::new(0));
        let times = heard.clone();
        inside.connect_deep_element_added(
            move |_, _, element| match element.factory().map(|factory| factory.name()) {
                Some(name) if name == "clocksync" => element.set_property("sync", false),
                // Reports pair timestamps with the time of capture, by which players bring picture and sound together.
                // All that a peer sends comes this way: also that it has received something, which it says all the time.
                Some(name) if name == "nicesrc" => {
                    let times = times.clone();
                    if let Some(pad) = element.static_pad("src") {
                        pad.add_probe(
                            gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
                            move |_, _| {
                                times.store(link::now().nseconds(), Ordering::Relaxed);
                                gst::PadProbeReturn::Ok
                            },
                        );
                    }
                }
                // A camera that pauses is no loss: without this the packet that would have been next is given up, and
                // pictures stop until the next key frame.
                Some(name) if name == "rtpjitterbuffer" => element.set_property("rtx-next-seqnum", false),
                Some(name) if name == "rtpbin" => element.set_property("rtcp-sync-send-time", false),
                _ => (),
            },
        );
        pipeline
            .add(&bin)
            .map_err(|why| refused("building a pipeline", &why.to_string()))?;
        let connection = Self { pipeline, bin, heard };
        connection.reach(config);
        Ok(connection)
    }

    /// How long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        let heard = self.heard.load(Ordering::Relaxed);
        Duration::from_nanos(link::now().nseconds().saturating_sub(heard))
    }

    /// Which ways to look for.
    fn reach(&self, config: &Config) {
        if let Some(server) = config.stun.first() {
            self.bin
                .set_property("stun-server", server.replacen("stun:", "stun://", 1));
        }
        for turn in &config.turn {
            // The user part of a URL.
            let escape = |text: &str| -> String { glib::Uri::escape_string(text, None, false).into() };
            let (scheme, rest) = turn.url.split_once(':').unwrap_or(("turn", &turn.url));
            let url = format!(
                "{scheme}://{}:{}@{rest}",
                escape(&turn.username),
                escape(&turn.credential)
            );
            if !self.bin.emit_by_name::<bool>("add-turn-server", &[&url]) {
                gst::warning!(
                    gst::CAT_RUST,
                    obj = self.bin,
                    "TURN server {} is not understood",
                    turn.url
                );
            }
        }
        let ice = self.bin.property::<glib::Object>("ice-agent");
        if let Some((first, last)) = config.ports {
            for (name, port) in [("min-rtp-port", first), ("max-rtp-port", last)] {
                if ice.has_property(name) {
                    ice.set_property(name, u32::from(port));
                }
            }
        }
        let agent = ice.property::<glib::Object>("agent");
        // A router is not waited for; who needs one has TURN.
        agent.set_property("upnp", false);
        agent.set_property("ice-tcp", config.tcp);
        if let Some(address) = config.address {
            let address = address.to_string();
            let _ = ice.emit_by_name::<bool>("add-local-ip-address", &[&address]);
        }
    }

    /// Takes an offer; `send` is called for each line that we send on, with webrtcbin's pad for it and our SSRC.
    pub(crate) fn answer(
        &self,
        offer: &Offer,
        plan: &[Use],
        config: &Config,
        mut send: impl FnMut(&Use, &gst::Pad, u32) -> Result<(), Error>,
    ) -> Result<String, Error> {
        self.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| refused("starting webrtcbin", "it does not start"))?;
        let description = WebRTCSessionDescription::new(WebRTCSDPType::Offer, offer.sdp.clone());
        self.ask("set-remote-description", "taking the offer", &description)?;
        for line in plan {
            let caps = line
                .payload
                .caps(if line.kind == Kind::Audio { "audio" } else { "video" });
            if line.send {
                let name = format!("sink_{}", line.index);
                let pad = match self.bin.static_pad(&name) {
                    Some(pad) => pad,
                    None => self
                        .bin
                        .request_pad_simple(&name)
                        .ok_or_else(|| refused("sending", "webrtcbin gives no pad"))?,
                };
                let transceiver = pad.property::<WebRTCRTPTransceiver>("transceiver");
                let ssrc = glib::random_int().max(1);
                let mut with = caps.clone();
                with.make_mut().set("ssrc", ssrc);
                self.prepare(&transceiver, &with, line);
                if pad.has_property("msid") {
                    // The same for both, so that players keep them together.
                    pad.set_property("msid", "comfystream");
                }
                if !pad.is_linked() {
                    send(line, &pad, ssrc)?;
                }
            } else if let Some(transceiver) = self.transceiver(line.index) {
                self.prepare(&transceiver, &caps, line);
            }
        }
        for line in &offer.lines {
            let used = plan.iter().any(|used| used.index == line.index);
            if !used
                && matches!(line.kind, Kind::Audio | Kind::Video)
                && let Some(transceiver) = self.transceiver(line.index)
            {
                transceiver.set_direction(WebRTCRTPTransceiverDirection::Inactive);
            }
        }
        let answer = self.create_answer()?;
        self.ask("set-local-description", "giving the answer", &answer)?;
        self.gather(config.gathering)?;
        let local = self
            .bin
            .property::<Option<WebRTCSessionDescription>>("local-description")
            .unwrap_or(answer);
        local
            .sdp()
            .as_text()
            .map_err(|why| refused("writing the answer", &why.to_string()))
    }

    fn prepare(&self, transceiver: &WebRTCRTPTransceiver, caps: &gst::Caps, line: &Use) {
        transceiver.set_direction(match (line.send, line.receive) {
            (true, true) => WebRTCRTPTransceiverDirection::Sendrecv,
            (true, false) => WebRTCRTPTransceiverDirection::Sendonly,
            _ => WebRTCRTPTransceiverDirection::Recvonly,
        });
        if line.kind == Kind::Video {
            transceiver.set_property("do-nack", true);
        }
        transceiver.set_codec_preferences(Some(caps));
    }

    pub(crate) fn transceiver(&self, line: u32) -> Option<WebRTCRTPTransceiver> {
        (0..64).find_map(|n: i32| {
            let found = self
                .bin
                .emit_by_name::<Option<WebRTCRTPTransceiver>>("get-transceiver", &[&n])?;
            (found.mlineindex() == line).then_some(found)
        })
    }

    fn create_answer(&self) -> Result<WebRTCSessionDescription, Error> {
        const STEP: &str = "making an answer";
        let (done, wait) = mpsc::sync_channel(1);
        let promise = gst::Promise::with_change_func(move |reply| {
            let answer = match reply {
                Ok(Some(reply)) => match reply.get::<WebRTCSessionDescription>("answer") {
                    Ok(answer) => Ok(answer),
                    Err(_) => Err(reason(Some(reply))),
                },
                other => Err(reason(other.ok().flatten())),
            };
            // Nobody listens after the deadline.
            let _ = done.send(answer);
        });
        self.bin
            .emit_by_name::<()>("create-answer", &[&None::<gst::Structure>, &promise]);
        within(STEP, &wait)?.map_err(|why| refused(STEP, &why))
    }

    fn ask(&self, signal: &str, step: &'static str, description: &WebRTCSessionDescription) -> Result<(), Error> {
        let (done, wait) = mpsc::sync_channel(1);
        let promise = gst::Promise::with_change_func(move |reply| {
            let failed = match reply {
                Ok(Some(reply)) if reply.has_field("error") => Err(reason(Some(reply))),
                Ok(_) => Ok(()),
                Err(_) => Err("it was given up".into()),
            };
            let _ = done.send(failed);
        });
        self.bin.emit_by_name::<()>(signal, &[description, &promise]);
        within(step, &wait)?.map_err(|why: String| refused(step, &why))
    }

    /// Waits for our addresses, no longer than that: what is found until then is in the answer.
    fn gather(&self, patience: Duration) -> Result<(), Error> {
        let (done, wait) = mpsc::sync_channel(1);
        let complete = |bin: &gst::Element| {
            let state = bin.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
            state == gst_webrtc::WebRTCICEGatheringState::Complete
        };
        let notify = self.bin.connect_notify(Some("ice-gathering-state"), move |bin, _| {
            if complete(bin) {
                let _ = done.try_send(());
            }
        });
        if !complete(&self.bin) {
            // Late is no error: those that are found later are not needed by who is near.
            let _ = wait.recv_timeout(patience);
        }
        self.bin.disconnect(notify);
        Ok(())
    }

    /// One more way to reach the peer.
    pub(crate) fn add_candidate(&self, line: u32, candidate: &str) {
        self.bin.emit_by_name::<()>("add-ice-candidate", &[&line, &candidate]);
    }
}

fn within<T>(step: &'static str, wait: &mpsc::Receiver<T>) -> Result<T, Error> {
    wait.recv_timeout(PATIENCE).map_err(|why| match why {
        RecvTimeoutError::Timeout => Error::Late { step, after: PATIENCE },
        RecvTimeoutError::Disconnected => refused(step, "it was given up"),
    })
}

fn reason(reply: Option<&gst::StructureRef>) -> String {
    reply
        .and_then(|reply| reply.get::<glib::Error>("error").ok())
        .map_or_else(
            || "webrtcbin does not say why".into(),
            |error| error.message().to_owned(),
        )
}

fn refused(step: &'static str, why: &str) -> Error {
    Error::Refused { step, why: why.into() }
}
