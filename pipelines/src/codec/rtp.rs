//! How a format travels in RTP packets: names, payloaders, and which of what is offered to take.

use gst::prelude::*;
use gst_sdp::SDPMediaRef;

use super::Codec;
use crate::infergraph::{Error, make};

/// The header extension that transport-wide congestion control counts packets with.
pub const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The one that says how long pictures may be held before they are shown.
pub const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

/// Those that are taken when they are offered.
pub const EXTENSIONS: [&str; 2] = [TRANSPORT_CC, PLAYOUT_DELAY];

impl Codec {
    /// The name in `a=rtpmap`.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::H265 => "H265",
        }
    }

    /// By its name in `a=rtpmap`, in whatever case.
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }

    /// Out of packets, with what comes between it and the decoder.
    pub fn depayloader(self) -> Result<Vec<gst::Element>, Error> {
        let (name, parser) = match self {
            Codec::H264 => ("rtph264depay", Some("h264parse")),
            Codec::Vp8 => ("rtpvp8depay", None),
            Codec::Vp9 => ("rtpvp9depay", None),
            Codec::Av1 => ("rtpav1depay", Some("av1parse")),
            Codec::H265 => ("rtph265depay", Some("h265parse")),
        };
        let depayloader = make(name)?;
        for flag in ["request-keyframe", "wait-for-keyframe"] {
            if depayloader.has_property(flag) {
                depayloader.set_property(flag, true);
            }
        }
        let mut elements = vec![depayloader];
        if let Some(parser) = parser {
            elements.push(make(parser)?);
        }
        Ok(elements)
    }

    /// Into packets, with what comes between it and the encoder.
    pub fn payloader(self) -> Result<Vec<gst::Element>, Error> {
        let (parser, name) = match self {
            Codec::H264 => (Some("h264parse"), "rtph264pay"),
            Codec::Vp8 => (None, "rtpvp8pay"),
            Codec::Vp9 => (None, "rtpvp9pay"),
            Codec::Av1 => (Some("av1parse"), "rtpav1pay"),
            Codec::H265 => (Some("h265parse"), "rtph265pay"),
        };
        let mut elements = Vec::new();
        if let Some(parser) = parser {
            elements.push(make(parser)?);
        }
        let payloader = make(name)?;
        if payloader.has_property("config-interval") {
            payloader.set_property("config-interval", -1);
        }
        if payloader.has_property("aggregate-mode") {
            payloader.set_property_from_str("aggregate-mode", "zero-latency");
        }
        if payloader.has_property("picture-id-mode") {
            payloader.set_property_from_str("picture-id-mode", "15-bit");
        }
        elements.push(payloader);
        Ok(elements)
    }

    /// Caps between the encoder and the payloader: what every receiver takes.
    pub fn encoded_caps(self) -> gst::Caps {
        match self {
            Codec::H264 => gst::Caps::builder("video/x-h264")
                .field("profile", "constrained-baseline")
                .build(),
            Codec::Vp8 => gst::Caps::new_empty_simple("video/x-vp8"),
            Codec::Vp9 => gst::Caps::builder("video/x-vp9").field("profile", "0").build(),
            Codec::Av1 => gst::Caps::new_empty_simple("video/x-av1"),
            Codec::H265 => gst::Caps::builder("video/x-h265").field("profile", "main").build(),
        }
    }
}

/// A way to send a format that the peer offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its number in packets.
    pub number: u8,
    /// `a=rtpmap`'s name.
    pub encoding_name: String,
    /// Ticks per second.
    pub clock_rate: u32,
    /// `a=fmtp`'s parameters.
    pub fmtp: Vec<(String, String)>,
    /// The header extensions that we take, with the numbers that they are offered under for this medium.
    pub extensions: Vec<(u8, &'static str)>,
}

impl Payload {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The number of a header extension, where it is taken.
    pub fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions
            .iter()
            .find(|(_, known)| *known == uri)
            .map(|(number, _)| *number)
    }

    /// The format, where we know it.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_encoding_name(&self.encoding_name)
    }

    /// How well it suits us: the lower the better; None: not at all.
    fn rank(&self, send: bool) -> Option<u32> {
        match self.codec()? {
            Codec::H264 => {
                // Anything can be taken; what we send has pictures in several packets.
                if send && self.parameter("packetization-mode") != Some("1") {
                    return None;
                }
                let profile = self
                    .parameter("profile-level-id")
                    .unwrap_or("42e01f")
                    .to_ascii_lowercase();
                Some(match profile.get(..4) {
                    Some("42e0") => 0,
                    Some("4200") => 1,
                    Some("4d00") => 2,
                    _ => 3,
                })
            }
            Codec::Vp9 | Codec::Av1 => match self.parameter("profile-id").or(self.parameter("profile")) {
                None | Some("0") => Some(0),
                // More bits, or more colour, than what comes out of models.
                Some(_) => None,
            },
            Codec::Vp8 | Codec::H265 => Some(0),
        }
    }

    /// Caps for a transceiver's codec preferences.
    pub fn caps(&self, media: &str) -> gst::Caps {
        // What feedback is given, and which extensions there are, is the offer's to say.
        let mut caps = gst::Structure::builder("application/x-rtp")
            .field("media", media)
            .field("encoding-name", self.encoding_name.to_ascii_uppercase())
            .field("payload", i32::from(self.number))
            .field("clock-rate", self.clock_rate as i32)
            .build();
        for (number, uri) in &self.extensions {
            caps.set(format!("extmap-{number}"), *uri);
        }
        // Not the profile: an encoder's own, which is no more than what was offered, is written a little differently.
        if let Some(mode) = self.parameter("packetization-mode") {
            caps.set("packetization-mode", mode);
        }
        gst::Caps::from(caps)
    }
}

/// The payloads of a medium of an offer, in its order.
pub fn payloads(media: &SDPMediaRef) -> Vec<Payload> {
    let attributes = |key: &'static str| {
        media
            .attributes()
            .filter(move |attribute| attribute.key() == key)
            .filter_map(|attribute| attribute.value())
    };
    let number_of = |extension: &str| {
        attributes("extmap").find_map(|value| {
            let (number, uri) = value.split_once(' ')?;
            // A direction may follow the number.
            let number = number.split('/').next()?;
            (uri.split(' ').next()? == extension).then(|| number.parse().ok())?
        })
    };
    let extensions: Vec<_> = EXTENSIONS
        .into_iter()
        .filter_map(|uri| Some((number_of(uri)?, uri)))
        .collect();
    let found = attributes("rtpmap").filter_map(|value| {
        let (number, format) = value.split_once(' ')?;
        let mut format = format.split('/');
        let (name, rate) = (format.next()?, format.next()?);
        let fmtp = attributes("fmtp")
            .find_map(|value| value.split_once(' ').filter(|(of, _)| *of == number))
            .map(|(_, parameters)| parameters)
            .unwrap_or_default();
        Some(Payload {
            number: number.parse().ok().filter(|number| *number < 128)?,
            encoding_name: name.to_owned(),
            clock_rate: rate.trim().parse().ok().filter(|rate| (1..=1_000_000).contains(rate))?,
            fmtp: fmtp
                .split(';')
                .filter_map(|pair| pair.trim().split_once('='))
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .collect(),
            extensions: extensions.clone(),
        })
    });
    // What the m-line does not list is not offered.
    let listed: Vec<String> = media.formats().map(str::to_owned).collect();
    found
        .filter(|payload| listed.iter().any(|format| *format == payload.number.to_string()))
        .collect()
}

/// The payloads that suit us, best first: formats in the order of the offer, which is what its sender likes. `send`:
/// they are for what we send, too.
pub fn suitable(payloads: &[Payload], taken: &[Codec], send: bool) -> Vec<Payload> {
    let place = |codec: Codec| payloads.iter().position(|payload| payload.codec() == Some(codec));
    let mut ranked: Vec<_> = payloads
        .iter()
        .enumerate()
        .filter_map(|(at, payload)| {
            let codec = payload.codec().filter(|codec| taken.contains(codec))?;
            Some((place(codec), payload.rank(send)?, at))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, at)| payloads[at].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 45 98\r\nc=IN IP4 0.0.0.0\r\n\
        a=extmap:3/recvonly http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 packetization-mode=0;profile-level-id=42e01f\r\n\
        a=rtpmap:104 H264/90000\r\na=fmtp:104 packetization-mode=1; profile-level-id=42E01f\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:45 AV1/90000\r\na=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=2\r\n\
        a=rtpmap:99 VP9/90000\r\na=rtpmap:300 VP9/90000\r\na=rtpmap:x VP9/90000\r\na=rtpmap:100\r\n";

    fn offered() -> Vec<Payload> {
        gst::init().unwrap();
        let sdp = gst_sdp::SDPMessage::parse_buffer(OFFER.as_bytes()).unwrap();
        payloads(sdp.media(0).unwrap())
    }

    #[test]
    fn what_the_line_lists_is_read_with_its_parameters() {
        let offered = offered();
        let numbers: Vec<u8> = offered.iter().map(|payload| payload.number).collect();
        assert_eq!(numbers, [102, 103, 104, 96, 97, 45, 98]);
        assert!(offered.iter().all(|payload| payload.extensions == [(3, TRANSPORT_CC)]));
        assert_eq!(offered[0].parameter("Packetization-Mode"), Some("1"));
    }

    #[test]
    fn the_peers_order_counts_and_within_a_format_what_every_receiver_takes() {
        let numbers = |taken: &[Codec]| -> Vec<u8> {
            suitable(&offered(), taken, true)
                .iter()
                .map(|payload| payload.number)
                .collect()
        };
        assert_eq!(numbers(&Codec::ALL), [104, 102, 96, 45]);
        assert_eq!(numbers(&[Codec::Vp8]), [96]);
        assert!(numbers(&[Codec::Vp9]).is_empty(), "ten bits are not for us");
    }

    #[test]
    fn caps_name_the_counter_and_the_profile() {
        let caps = offered()[2].caps("video");
        let caps = caps.structure(0).unwrap();
        assert_eq!(caps.get::<&str>("extmap-3").unwrap(), TRANSPORT_CC);
        assert_eq!(caps.get::<&str>("packetization-mode").unwrap(), "1");
        assert_eq!(caps.get::<i32>("payload").unwrap(), 104);
    }
}
