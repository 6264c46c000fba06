//! Pictures and sound, into what a peer receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use parking_lot::Mutex;

use crate::codec::playout::PlayoutDelay;
use crate::codec::rtp::{PLAYOUT_DELAY, Payload};
use crate::codec::{self, Codec, Purpose};
use crate::infergraph::make;
use crate::ingress::src_of;
use crate::link::{self, Inlet};
use crate::rtc::Error;
use crate::stages::{Mark, Stages, running_time};

/// Pictures that wait for the encoder at most. More would only be older.
const PICTURES: u64 = 3;
/// Packets of sound that wait for their time: two seconds of the usual 20 ms.
const PACKETS: u64 = 100;
/// What encoders plan with when a source does not say its rate.
const RATE: i32 = 30;

/// Pictures that go out.
#[derive(Debug)]
pub struct Video {
    /// Where they come in.
    pub inlet: Arc<Inlet>,
    /// The format that they go out in.
    pub codec: Codec,
    /// What encodes them.
    pub encoder_name: &'static str,
    encoder: gst::Element,
    last: gst::Pad,
    bitrate: Mutex<u32>,
    sent: Arc<AtomicU64>,
}

impl Video {
    /// Encodes towards `pad`, a sink of webrtcbin, as this payload.
    pub fn new(
        pipeline: &gst::Pipeline,
        pad: &gst::Pad,
        payload: &Payload,
        ssrc: u32,
        bitrate: u32,
        stages: &Arc<Stages>,
    ) -> Result<Self, Error> {
        let codec = payload
            .codec()
            .ok_or_else(|| Error::Unfit(payload.encoding_name.clone()))?;
        let encoder = codec::encoder(codec, Purpose::Live { bitrate }).map_err(|why| Error::NoCodec {
            offered: codec.to_string(),
            why: vec![why],
        })?;
        let inlet = Inlet::new("video-in", PICTURES);
        let convert = make("videoconvert")?;
        let encoded = make("capsfilter")?;
        encoded.set_property("caps", codec.encoded_caps());
        let payloader = codec.payloader()?;
        let packets = make("capsfilter")?;
        packets.set_property("caps", packet_caps("video", payload, ssrc));
        let mut chain = vec![inlet.element(), &convert, &encoder.element, &encoded];
        chain.extend(&payloader);
        chain.push(&packets);
        if let Some(payloader) = payloader.last() {
            number(payloader, payload.number, ssrc);
            if let Some(number) = payload.extension(PLAYOUT_DELAY) {
                payloader.emit_by_name::<()>("add-extension", &[&PlayoutDelay::new(number)]);
            }
        }
        with_rate(&src_of(&convert)?);
        stages.watch(&src_of(&convert)?, Mark::Converted);
        stages.watch(&src_of(&encoder.element)?, Mark::Encoded);
        let last = src_of(&packets)?;
        stages.watch(&last, Mark::Sent);
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        src_of(&encoder.element)?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        run(pipeline, &chain, pad)?;
        Ok(Self {
            inlet: Arc::new(inlet),
            codec,
            encoder_name: encoder.name,
            encoder: encoder.element,
            last,
            bitrate: Mutex::new(bitrate),
            sent,
        })
    }

    /// Bits per second from now on.
    pub fn set_bitrate(&self, bitrate: u32) {
        let mut now = self.bitrate.lock();
        // An encoder that is told anew all the time spends its bits on that.
        if now.abs_diff(bitrate) * 50 < *now {
            return;
        }
        *now = bitrate;
        drop(now);
        codec::set_bitrate(&self.encoder, bitrate);
    }

    /// Bits per second that the encoder is asked for.
    pub fn bitrate(&self) -> u32 {
        *self.bitrate.lock()
    }

    /// Frames encoded.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The next picture is one that needs no other.
    pub fn request_key_picture(&self) {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        // Nothing flows yet otherwise, and the first picture is one anyway.
        let _ = self.encoder.send_event(event);
    }

    /// What the LATENCY query answers where packets leave.
    pub fn latency(&self) -> Option<gst::ClockTime> {
        let mut query = gst::query::Latency::new();
        self.last.query(&mut query).then(|| query.result().1)
    }
}

/// Sound that goes out.
#[derive(Debug)]
pub struct Audio {
    /// Where it comes in.
    pub inlet: Arc<Inlet>,
    wait: gst::Element,
    /// By how much it is held, in nanoseconds.
    delay: AtomicU64,
    /// How old packets are when they leave, in nanoseconds, smoothed; 0: none has left.
    age: Arc<AtomicU64>,
}

impl Audio {
    /// Sends Opus packets to `pad`, a sink of webrtcbin, as this payload.
    pub fn new(pipeline: &gst::Pipeline, pad: &gst::Pad, payload: &Payload, ssrc: u32) -> Result<Self, Error> {
        let inlet = Inlet::new("audio-in", PACKETS);
        let wait = make("clocksync")?;
        let payloader = make("rtpopuspay")?;
        number(&payloader, payload.number, ssrc);
        let packets = make("capsfilter")?;
        packets.set_property("caps", packet_caps("audio", payload, ssrc));
        let age = Arc::new(AtomicU64::new(0));
        let ages = age.clone();
        src_of(&packets)?.add_probe(
            gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
            move |pad, info| {
                let pts = match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => buffer.pts(),
                    Some(gst::PadProbeData::BufferList(list)) => list.get(0).and_then(|buffer| buffer.pts()),
                    _ => None,
                };
                if let Some(taken) = pts.and_then(|pts| running_time(pad, pts)) {
                    let age = link::now().saturating_sub(taken).nseconds().max(1);
                    let before = ages.load(Ordering::Relaxed);
                    ages.store(
                        if before == 0 {
                            age
                        } else {
                            before - before / 16 + age / 16
                        },
                        Ordering::Relaxed,
                    );
                }
                gst::PadProbeReturn::Ok
            },
        );
        run(pipeline, &[inlet.element(), &wait, &payloader, &packets], pad)?;
        Ok(Self {
            inlet: Arc::new(inlet),
            wait,
            delay: AtomicU64::new(0),
            age,
        })
    }

    /// Lets sound go this long after it was made. `told` is the latency that the pipeline was given, which the
    /// element waits for anyway.
    pub fn set_delay(&self, delay: gst::ClockTime, told: gst::ClockTime) {
        self.delay.store(delay.nseconds(), Ordering::Relaxed);
        let offset = delay.nseconds() as i64 - told.nseconds() as i64;
        if self.wait.property::<i64>("ts-offset").abs_diff(offset) > 2_000_000 {
            self.wait.set_property("ts-offset", offset);
        }
    }

    /// How old packets are when they leave; None: none has left.
    pub fn age(&self) -> Option<gst::ClockTime> {
        Some(self.age.load(Ordering::Relaxed))
            .filter(|age| *age > 0)
            .map(gst::ClockTime::from_nseconds)
    }

    /// How long it is held.
    pub fn delay(&self) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(self.delay.load(Ordering::Relaxed))
    }
}

fn number(payloader: &gst::Element, payload: u8, ssrc: u32) {
    payloader.set_property("pt", u32::from(payload));
    // Signed and wide in newer payloaders.
    match payloader.find_property("ssrc").map(|property| property.value_type()) {
        Some(kind) if kind == i64::static_type() => payloader.set_property("ssrc", i64::from(ssrc)),
        Some(kind) if kind == u32::static_type() => payloader.set_property("ssrc", ssrc),
        _ => (),
    }
    if payloader.has_property("auto-header-extension") {
        payloader.set_property("auto-header-extension", true);
    }
}

fn packet_caps(media: &str, payload: &Payload, ssrc: u32) -> gst::Caps {
    let mut caps = gst::Structure::builder("application/x-rtp")
        .field("media", media)
        .field("encoding-name", payload.encoding_name.to_ascii_uppercase())
        .field("payload", i32::from(payload.number))
        .field("clock-rate", payload.clock_rate as i32)
        .field("ssrc", ssrc)
        .build();
    for (number, uri) in &payload.extensions {
        caps.set(format!("extmap-{number}"), *uri);
    }
    gst::Caps::from(caps)
}

/// Lets encoders plan with a rate where frames come as they come.
fn with_rate(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let Some(event) = info.event() else {
            return gst::PadProbeReturn::Ok;
        };
        if let gst::EventView::Caps(caps) = event.view() {
            let known = caps
                .caps()
                .structure(0)
                .and_then(|caps| caps.get::<gst::Fraction>("framerate").ok())
                .is_some_and(|rate| rate.numer() > 0);
            if !known {
                let mut with = caps.caps_owned();
                with.make_mut().set("framerate", gst::Fraction::new(RATE, 1));
                let event = gst::event::Caps::builder(&with).seqnum(event.seqnum()).build();
                info.data = Some(gst::PadProbeData::Event(event));
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn run(pipeline: &gst::Pipeline, chain: &[&gst::Element], pad: &gst::Pad) -> Result<(), Error> {
    let refused = |why: glib::BoolError| Error::Refused {
        step: "sending",
        why: why.to_string(),
    };
    pipeline.add_many(chain.iter().copied()).map_err(refused)?;
    gst::Element::link_many(chain.iter().copied()).map_err(refused)?;
    let last = chain.last().expect("a chain has elements");
    src_of(last)?.link(pad).map_err(|why| Error::Refused {
        step: "sending",
        why: format!("pads cannot be linked: {why:?}"),
    })?;
    for element in chain.iter().rev() {
        element.sync_state_with_parent().map_err(refused)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloaders_of_all_formats_take_their_number_and_source() {
        crate::register().unwrap();
        for codec in Codec::ALL {
            let elements = codec.payloader().unwrap();
            let payloader = elements.last().unwrap();
            number(payloader, 101, 0xFFFF_FFFE);
            assert_eq!(payloader.property::<u32>("pt"), 101, "{codec}");
            let ssrc = payloader.property_value("ssrc");
            assert_eq!(ssrc.serialize().unwrap(), "4294967294", "{codec}");
        }
    }
}
