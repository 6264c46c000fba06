//! Everything about a frame but its picture, and its picture's number: what has to be the same on both sides.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::Video;

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Passport {
    pub number: u64,
    pub inverted: bool,
    pub size: (u32, u32),
    pub running: Option<gst::ClockTime>,
    pub pts: Option<gst::ClockTime>,
    pub dts: Option<gst::ClockTime>,
    pub duration: Option<gst::ClockTime>,
    pub offset: u64,
    pub offset_end: u64,
    pub flags: gst::BufferFlags,
    /// Timestamps of reference metas.
    pub references: Vec<gst::ClockTime>,
    /// Places of regions of interest.
    pub regions: Vec<(u32, u32, u32, u32)>,
    /// The visible bytes.
    pub bytes: Vec<u8>,
}

impl Passport {
    /// Of a frame with these caps, in this segment.
    pub fn of(buffer: &gst::BufferRef, caps: &gst::CapsRef, segment: Option<&gst::Segment>) -> Self {
        let segment = segment.and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
        let video = Video::from_caps(caps);
        let painted = video.read(buffer);
        Self {
            number: painted.number,
            inverted: painted.inverted,
            size: (video.info.width(), video.info.height()),
            running: segment
                .zip(buffer.pts())
                .and_then(|(segment, pts)| segment.to_running_time(pts)),
            pts: buffer.pts(),
            dts: buffer.dts(),
            duration: buffer.duration(),
            offset: buffer.offset(),
            offset_end: buffer.offset_end(),
            // Says that memory was changed in a pool's buffer, which is not about the frame.
            flags: buffer.flags() - gst::BufferFlags::TAG_MEMORY,
            references: buffer
                .iter_meta::<gst::ReferenceTimestampMeta>()
                .map(|meta| meta.timestamp())
                .collect(),
            regions: buffer
                .iter_meta::<gst_video::VideoRegionOfInterestMeta>()
                .map(|meta| meta.rect())
                .collect(),
            bytes: video.bytes(buffer),
        }
    }

    /// The same but for the picture's bytes, which a model changes.
    pub fn without_picture(&self) -> Self {
        Self {
            inverted: false,
            bytes: Vec::new(),
            ..self.clone()
        }
    }
}

/// The passports of the frames that passed a pad, in order.
#[derive(Debug, Clone, Default)]
pub struct Passports(Arc<Mutex<Vec<Result<Passport, String>>>>);

impl Passports {
    /// Reads what passes the pad of this element.
    pub fn at(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Self {
        let element = pipeline
            .by_name(element)
            .unwrap_or_else(|| panic!("no element {element}"));
        Self::on(&element.static_pad(pad).unwrap_or_else(|| panic!("no pad {pad}")))
    }

    /// Reads what passes a pad.
    pub fn on(pad: &impl IsA<gst::Pad>) -> Self {
        let passports = Self::default();
        let seen = passports.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let caps = pad.current_caps().expect("caps come before frames");
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            let segment = segment.as_ref().map(|event| event.segment());
            let buffer = info.buffer().expect("asked for");
            // A panic here would have to unwind through GStreamer; it is the test's thread that fails.
            let passport = std::panic::catch_unwind(|| Passport::of(buffer, &caps, segment));
            let passport = passport.map_err(|_| format!("a frame cannot be read: {buffer:?}, {caps}"));
            seen.0.lock().unwrap().push(passport);
            gst::PadProbeReturn::Ok
        });
        passports
    }

    /// Turns a `videotestsrc` into a source whose frames carry their number (their offset), and a value of their own
    /// in everything else that a frame can have; gives the passports as they leave it.
    pub fn issue(pipeline: &gst::Pipeline, source: &str) -> Self {
        let element = pipeline
            .by_name(source)
            .unwrap_or_else(|| panic!("no element {source}"));
        let pad = element.static_pad("src").expect("a source has one");
        pad.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
            let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else {
                unreachable!("asked for");
            };
            let caps = pad.current_caps().expect("caps come before frames");
            decorate(buffer.make_mut(), &Video::from_caps(&caps));
            gst::PadProbeReturn::Ok
        });
        Self::on(&pad)
    }

    /// What passed so far.
    pub fn all(&self) -> Vec<Passport> {
        let seen = self.0.lock().unwrap();
        seen.iter()
            .map(|passport| passport.clone().unwrap_or_else(|error| panic!("{error}")))
            .collect()
    }

    /// Their numbers.
    pub fn numbers(&self) -> Vec<u64> {
        self.all().iter().map(|passport| passport.number).collect()
    }

    /// Fails unless the same frames passed at `self`, in order, with everything the same but the picture, whose number
    /// still is. `inverted`: whether the pictures are to be negatives.
    pub fn assert_restored_from(&self, source: &Self, inverted: bool) {
        let (came, went) = (self.all(), source.all());
        let numbers = |list: &[Passport]| list.iter().map(|p| p.number).collect::<Vec<_>>();
        assert_eq!(numbers(&came), numbers(&went), "the same frames in the same order");
        for (came, went) in came.iter().zip(&went) {
            assert_eq!(came.without_picture(), went.without_picture());
            assert_eq!(came.inverted, inverted, "frame {}", came.number);
        }
    }

    /// The same, bit for bit.
    pub fn assert_same_as(&self, source: &Self) {
        self.assert_restored_from(source, false);
        for (came, went) in self.all().iter().zip(&source.all()) {
            assert!(came.bytes == went.bytes, "frame {} differs", came.number);
        }
    }
}

fn decorate(buffer: &mut gst::BufferRef, video: &Video) {
    let number = buffer.offset();
    video.paint(buffer, number);
    buffer.set_dts(buffer.pts().map(|pts| pts + gst::ClockTime::from_mseconds(number % 7)));
    let flags = [
        gst::BufferFlags::MARKER,
        gst::BufferFlags::DROPPABLE,
        gst::BufferFlags::CORRUPTED,
        gst::BufferFlags::DELTA_UNIT,
        gst::BufferFlags::DISCONT,
    ];
    for (bit, flag) in flags.into_iter().enumerate() {
        if number >> bit & 1 == 1 {
            buffer.set_flags(flag);
        }
    }
    let reference = gst::Caps::new_empty_simple("timestamp/x-comfy-test");
    gst::ReferenceTimestampMeta::add(buffer, &reference, gst::ClockTime::from_nseconds(number + 1), None);
    gst_video::VideoRegionOfInterestMeta::add(buffer, "test", (number as u32 % 16, 2, 8, 4));
}
