//! What a peer offers, and what of it is taken.

use gst_sdp::{SDPMediaRef, SDPMessage};

use super::Error;
use crate::codec::rtp::{self, EXTENSIONS, Payload};
use crate::codec::{self, Codec};

/// Lines of media that an offer may have.
const LINES: u32 = 16;

/// Whether a peer sends, receives, or both, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// It sends.
    pub sends: bool,
    /// It receives.
    pub receives: bool,
}

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Data channels.
    Data,
    /// Something that we do not know.
    Other,
}

/// A line of media.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number.
    pub index: u32,
    /// What it is for.
    pub kind: Kind,
    /// What the peer does with it.
    pub direction: Direction,
    /// The formats it offers.
    pub payloads: Vec<Payload>,
}

/// A session description that was offered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// As it will be given to webrtcbin.
    pub sdp: SDPMessage,
    /// Its lines.
    pub lines: Vec<Line>,
    /// The user fragment of ICE.
    pub ice_ufrag: String,
}

/// What we do with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Which line.
    pub index: u32,
    /// What for.
    pub kind: Kind,
    /// Whether we take what the peer sends.
    pub receive: bool,
    /// Whether we send.
    pub send: bool,
    /// The format, for both.
    pub payload: Payload,
}

/// What a session needs of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Something to receive.
    pub receive: bool,
    /// Something to send to.
    pub send: bool,
}

impl Offer {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // The parser is a lenient one, and takes an empty text for a description.
        if !text.trim_start().starts_with("v=0") {
            return Err(Error::Offer("it does not begin with v=0".into()));
        }
        if text.contains('\0') {
            return Err(Error::Offer("it has a zero byte".into()));
        }
        let sdp = SDPMessage::parse_buffer(text.as_bytes()).map_err(|_| Error::Offer("it is no SDP".into()))?;
        if sdp.medias_len() == 0 {
            return Err(Error::Offer("it has no m-line".into()));
        }
        if sdp.medias_len() > LINES {
            return Err(Error::Offer(format!(
                "it has {} m-lines, and {LINES} are taken",
                sdp.medias_len()
            )));
        }
        let credential = |name| {
            let of_media = sdp.medias().find_map(|media| media.attribute_val(name));
            sdp.attribute_val(name).or(of_media).map(str::to_owned)
        };
        let ice_ufrag = credential("ice-ufrag").ok_or_else(|| Error::Offer("it has no ice-ufrag".into()))?;
        if credential("ice-pwd").is_none() {
            return Err(Error::Offer("it has no ice-pwd".into()));
        }
        if credential("fingerprint").is_none() {
            return Err(Error::Offer("it has no fingerprint".into()));
        }
        let session = direction(|name| sdp.attribute_val(name).is_some());
        let lines = (0..)
            .zip(sdp.medias())
            .map(|(index, media)| line(index, media, session))
            .collect();
        Ok(Self {
            sdp: without_extensions(&sdp),
            lines,
            ice_ufrag,
        })
    }

    /// What is done with each line that is used.
    pub fn plan(&self, need: Need, taken: &[Codec]) -> Result<Vec<Use>, Error> {
        let mut plan = Vec::new();
        let mut unfit = None;
        for kind in [Kind::Video, Kind::Audio] {
            let lines = || self.lines.iter().filter(move |line| line.kind == kind);
            let from = lines().find(|line| need.receive && line.direction.sends);
            // Back on the line that it came on, where that goes both ways.
            let to = from
                .filter(|line| line.direction.receives)
                .or_else(|| lines().find(|line| line.direction.receives))
                .filter(|_| need.send);
            for line in lines() {
                let is = |other: Option<&Line>| other.is_some_and(|other| other.index == line.index);
                let (receive, send) = (is(from), is(to));
                if !receive && !send {
                    continue;
                }
                match choose(line, receive, send, taken) {
                    Ok(payload) => plan.push(Use {
                        index: line.index,
                        kind,
                        receive,
                        send,
                        payload,
                    }),
                    Err(why) => unfit = unfit.or(Some(why)),
                }
            }
        }
        let video = |wanted: fn(&Use) -> bool| plan.iter().any(|line| line.kind == Kind::Video && wanted(line));
        if (need.receive && !video(|line| line.receive)) || (need.send && !video(|line| line.send)) {
            let lacks = if need.receive && !video(|line| line.receive) {
                "sends"
            } else {
                "receives"
            };
            return Err(unfit.unwrap_or_else(|| Error::Unfit(format!("it has no line of video that the peer {lacks}"))));
        }
        Ok(plan)
    }
}

/// The first format that is offered and works here.
fn choose(line: &Line, receive: bool, send: bool, taken: &[Codec]) -> Result<Payload, Error> {
    if line.kind == Kind::Audio {
        let opus = line
            .payloads
            .iter()
            .find(|payload| payload.encoding_name.eq_ignore_ascii_case("opus"));
        return opus
            .map(|payload| Payload {
                // Sound is too little to measure a network with.
                extensions: Vec::new(),
                ..payload.clone()
            })
            .ok_or_else(|| Error::Unfit("it offers sound, and not as Opus".into()));
    }
    let mut why = Vec::new();
    for payload in rtp::suitable(&line.payloads, taken, send) {
        let codec = payload.codec().expect("suitable ones have one");
        let decodes = if receive {
            codec::decoder(codec).map(|_| ())
        } else {
            Ok(())
        };
        let encodes = || {
            if send {
                codec::encoder(codec, codec::Purpose::File).map(|_| ())
            } else {
                Ok(())
            }
        };
        match decodes.and_then(|()| encodes()) {
            Ok(()) => return Ok(payload),
            Err(reason) => why.push(reason),
        }
    }
    let mut offered: Vec<&str> = line
        .payloads
        .iter()
        .map(|payload| payload.encoding_name.as_str())
        .collect();
    offered.dedup();
    Err(Error::NoCodec {
        offered: offered.join(", "),
        why,
    })
}

fn line(index: u32, media: &SDPMediaRef, session: Option<Direction>) -> Line {
    let kind = match media.media() {
        Some("video") => Kind::Video,
        Some("audio") => Kind::Audio,
        Some("application") if media.proto().is_some_and(|proto| proto.contains("SCTP")) => Kind::Data,
        _ => Kind::Other,
    };
    // Port 0 says that a line is not used, unless it shares the port of another.
    let refused = media.port() == 0 && media.attribute_val("bundle-only").is_none();
    let own = direction(|name| media.attribute_val(name).is_some());
    let direction = match own.or(session) {
        _ if refused => Direction {
            sends: false,
            receives: false,
        },
        Some(direction) => direction,
        None => Direction {
            sends: true,
            receives: true,
        },
    };
    Line {
        index,
        kind,
        direction,
        payloads: rtp::payloads(media),
    }
}

fn direction(has: impl Fn(&str) -> bool) -> Option<Direction> {
    let found = [
        ("sendrecv", true, true),
        ("sendonly", true, false),
        ("recvonly", false, true),
        ("inactive", false, false),
    ];
    found
        .into_iter()
        .find(|(name, ..)| has(name))
        .map(|(_, sends, receives)| Direction { sends, receives })
}

/// The offer without the header extensions that nobody here reads. A peer that may not say which way up its pictures
/// are turns them itself.
fn without_extensions(sdp: &SDPMessage) -> SDPMessage {
    let mut ours = sdp.clone();
    for index in 0..ours.medias_len() {
        if let Some(media) = ours.media_mut(index) {
            strip(media);
        }
    }
    ours
}

fn strip(media: &mut SDPMediaRef) {
    let extra = |media: &SDPMediaRef| {
        media.attributes().position(|attribute| {
            let other = attribute.key() == "extmap"
                && !attribute
                    .value()
                    .is_some_and(|value| value.split(' ').any(|word| EXTENSIONS.contains(&word)));
            // Layers of one picture: the answer would have to name those that are wanted.
            other || attribute.key() == "simulcast" || attribute.key() == "rid"
        })
    };
    while let Some(at) = extra(media) {
        if media.remove_attribute(at as u32).is_err() {
            return;
        }
    }
}
