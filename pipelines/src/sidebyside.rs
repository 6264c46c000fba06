//! Puts each frame that comes out of a chain beside the one that went in.
//!
//! A [`Tap`] on the chain's input remembers what goes in; the element behind its output pairs each frame with its own.
//! One picture comes out for each frame, with that frame's timestamps. Pictures keep the size of the first one: an
//! encoder's output and the file around it cannot change theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;
use parking_lot::Mutex;
use serde::Serialize;

/// Widest picture: what common hardware decodes.
const MAX_WIDTH: u32 = 3840;
/// Dark grey, between and around the panes.
const BACKGROUND: u32 = 0xff18_1818;

/// Where a pane lies, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// A picture's measures: one pane, or two of the same height with a gap between. All even, as 4:2:0 wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of the whole picture.
    pub width: u32,
    /// Of the whole picture.
    pub height: u32,
    /// Before, unless frames come out as they went in.
    pub before: Option<Rect>,
    /// After.
    pub after: Rect,
}

impl Layout {
    /// For frames of these sizes in square pixels; `before` is None when one pane is enough.
    pub fn new(before: Option<(u32, u32)>, after: (u32, u32)) -> Self {
        let even = |n: f64| ((n / 2.0).round() as u32 * 2).max(2);
        let height = before.map_or(0, |(_, height)| height).max(after.1);
        let gap = match (before, height) {
            (None, _) => 0,
            (Some(_), ..240) => 4,
            (Some(_), _) => 8,
        };
        let width_at = |(width, full): (u32, u32), height: f64| f64::from(width) * height / f64::from(full.max(1));
        let at = |height: f64| {
            (
                before.map_or(0.0, |size| width_at(size, height)),
                width_at(after, height),
            )
        };
        let (left, right) = at(f64::from(height));
        let scale = (f64::from(MAX_WIDTH - gap) / (left + right)).min(1.0);
        let height = even((f64::from(height) * scale).floor());
        let (left, right) = (even(left * scale), even(right * scale));
        let pane = |x, width| Rect { x, y: 0, width, height };
        match before {
            None => Self {
                width: right,
                height,
                before: None,
                after: pane(0, right),
            },
            Some(_) => Self {
                width: left + gap + right,
                height,
                before: Some(pane(0, left)),
                after: pane(left + gap, right),
            },
        }
    }
}

/// The largest place of a picture's shape in the middle of a pane.
fn fit(pane: Rect, (width, height): (u32, u32)) -> Rect {
    let scale = f64::from(pane.width) / f64::from(width.max(1));
    let scale = scale.min(f64::from(pane.height) / f64::from(height.max(1)));
    let side = |n: u32, most: u32| {
        let exact = (f64::from(n) * scale).round() as u32;
        // A pane was rounded to even numbers; a bar of one pixel would be all that is seen of that.
        if exact + 2 >= most { most } else { (exact & !1).max(2) }
    };
    let (width, height) = (side(width, pane.width), side(height, pane.height));
    Rect {
        x: pane.x + (((pane.width - width) / 2) & !1),
        y: pane.y + (((pane.height - height) / 2) & !1),
        width,
        height,
    }
}

/// A frame's size on a screen with square pixels.
pub fn square(info: &gst_video::VideoInfo) -> (u32, u32) {
    let par = info.par();
    let (numer, denom) = (par.numer().max(1) as u64, par.denom().max(1) as u64);
    let width = (u64::from(info.width()) * numer + denom / 2) / denom;
    (width.clamp(1, u32::MAX.into()) as u32, info.height())
}

/// A frame's format alone: a converter refuses two that differ in rate or interlacing, which a single picture does not
/// care about.
pub fn still(info: &gst_video::VideoInfo) -> Result<gst_video::VideoInfo, glib::BoolError> {
    gst_video::VideoInfo::builder(info.format(), info.width(), info.height())
        .par(info.par())
        .colorimetry(&info.colorimetry())
        .chroma_site(info.chroma_site())
        .build()
}

/// A frame before and after.
pub struct Pair<'a> {
    /// Running time of both.
    pub time: Option<gst::ClockTime>,
    /// As it went in; None when it comes out as it went in.
    pub before: Option<&'a gst_video::VideoFrameRef<&'a gst::BufferRef>>,
    /// As it came out.
    pub after: &'a gst_video::VideoFrameRef<&'a gst::BufferRef>,
}

impl std::fmt::Debug for Pair<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("time", &self.time).finish_non_exhaustive()
    }
}

/// Sees every pair, on the streaming thread.
pub type Observer = Arc<dyn Fn(&Pair<'_>) + Send + Sync>;

/// Whether frames that came out are those that went in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Went in.
    pub frames_in: u64,
    /// Came out.
    pub frames_out: u64,
    /// Went in and did not come out.
    pub lost: u64,
    /// Came out without having gone in: their presentation time belongs to no frame.
    pub strange: u64,
    /// Came out with another decoding time, duration or offset than they went in with.
    pub changed: u64,
}

/// What went in and is not out yet.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    info: Option<Arc<gst_video::VideoInfo>>,
    frames: VecDeque<(gst::Buffer, Arc<gst_video::VideoInfo>)>,
    check: Check,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tap").field(&self.check()).finish()
    }
}

impl Tap {
    /// Remembers what passes this pad. The chain behind it bounds how much that is.
    pub fn attach(pad: &gst::Pad) -> Self {
        let tap = Self::default();
        let inside = tap.0.clone();
        let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(what, move |_, info| {
            let mut inside = inside.lock();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    if let Some(info) = inside.info.clone() {
                        inside.frames.push_back((buffer.clone(), info));
                    }
                    inside.check.frames_in += 1;
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        let info = gst_video::VideoInfo::from_caps(caps.caps()).ok();
                        inside.info = info.and_then(|info| still(&info).ok()).map(Arc::new);
                    }
                }
                _ => (),
            }
            gst::PadProbeReturn::Ok
        });
        tap
    }

    /// What was found so far. While frames are on their way they do not count as lost.
    pub fn check(&self) -> Check {
        self.0.lock().check
    }

    /// The same at the end of the stream, when what has not come out never will.
    pub fn final_check(&self) -> Check {
        let inside = self.0.lock();
        let mut check = inside.check;
        check.lost += inside.frames.len() as u64;
        check
    }

    /// Of the frame that comes out next, which may have another size than the one that goes in now.
    fn size(&self) -> Option<(u32, u32)> {
        let inside = self.0.lock();
        let next = inside.frames.front().map(|(_, info)| info);
        next.or(inside.info.as_ref()).map(|info| square(info))
    }

    /// The frame that this one was made from.
    fn take(&self, out: &gst::BufferRef) -> Option<(gst::Buffer, Arc<gst_video::VideoInfo>)> {
        let mut inside = self.0.lock();
        inside.check.frames_out += 1;
        let Some(at) = inside.frames.iter().position(|(frame, _)| frame.pts() == out.pts()) else {
            inside.check.strange += 1;
            return None;
        };
        inside.check.lost += at as u64;
        inside.frames.drain(..at);
        let (frame, info) = inside.frames.pop_front()?;
        let of = |buffer: &gst::BufferRef| (buffer.dts(), buffer.duration(), buffer.offset());
        inside.check.changed += u64::from(of(&frame) != of(out));
        Some((frame, info))
    }
}

glib::wrapper! {
    /// The element. It is used by code alone and has no name in the registry.
    pub struct SideBySide(ObjectSubclass<imp::SideBySide>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

impl SideBySide {
    /// For a chain with a tap on its input. `changes` says, once its output has caps, whether it changes pictures.
    pub fn new(tap: Tap, changes: impl Fn() -> bool + Send + Sync + 'static, observer: Option<Observer>) -> Self {
        let element: Self = glib::Object::builder().property("name", "sidebyside").build();
        *element.imp().setup.lock() = Some(imp::Setup {
            tap,
            changes: Arc::new(changes),
            observer,
        });
        element
    }

    /// The measures of its pictures, once there is one.
    pub fn layout(&self) -> Option<Layout> {
        self.imp().layout()
    }
}

mod imp {
    use std::sync::LazyLock;

    use super::*;

    static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
        gst::DebugCategory::new(
            "comfysidebyside",
            gst::DebugColorFlags::empty(),
            Some("Frames before and after a model, side by side"),
        )
    });

    #[derive(Clone)]
    pub(super) struct Setup {
        pub(super) tap: Tap,
        pub(super) changes: Arc<dyn Fn() -> bool + Send + Sync>,
        pub(super) observer: Option<Observer>,
    }

    #[derive(Default)]
    struct Drawing {
        layout: Option<Layout>,
        colorimetry: Option<String>,
        before: Option<(Arc<gst_video::VideoInfo>, gst_video::VideoConverter)>,
        after: Option<(gst_video::VideoInfo, gst_video::VideoConverter)>,
        /// From then on the layout stays.
        started: bool,
    }

    /// Neither is held while the other is taken. `drawing` belongs to the streaming thread; an observer is called
    /// while it is held, since the frames that it sees are described there.
    #[derive(Default)]
    pub struct SideBySide {
        pub(super) setup: Mutex<Option<Setup>>,
        drawing: Mutex<Drawing>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SideBySide {
        const NAME: &'static str = "GstComfySideBySide";
        type Type = super::SideBySide;
        type ParentType = gst_video::VideoFilter;
    }

    impl ObjectImpl for SideBySide {}
    impl GstObjectImpl for SideBySide {}

    impl ElementImpl for SideBySide {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Side by side",
                    "Filter/Effect/Video",
                    "Puts frames beside what they were made from",
                    "The gst-comfy developers",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let any = gst_video::VideoCapsBuilder::new().build();
                let i420 = gst_video::VideoCapsBuilder::new()
                    .format(gst_video::VideoFormat::I420)
                    .build();
                [
                    ("sink", gst::PadDirection::Sink, any),
                    ("src", gst::PadDirection::Src, i420),
                ]
                .map(|(name, direction, caps)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).expect("valid template")
                })
                .into()
            });
            &TEMPLATES
        }
    }

    impl BaseTransformImpl for SideBySide {
        const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::NeverInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = false;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let mut other = gst::Caps::new_empty();
            for structure in caps.iter() {
                let mut builder = gst_video::VideoCapsBuilder::new();
                if let Ok(rate) = structure.value("framerate") {
                    builder = builder.field("framerate", rate.to_owned());
                }
                if direction == gst::PadDirection::Sink {
                    builder = builder
                        .format(gst_video::VideoFormat::I420)
                        .pixel_aspect_ratio(gst::Fraction::new(1, 1))
                        .field("interlace-mode", "progressive");
                    if let Some((layout, colorimetry)) = self.decide(caps) {
                        builder = builder
                            .width(layout.width as i32)
                            .height(layout.height as i32)
                            .field("colorimetry", colorimetry);
                    }
                }
                other.get_mut()?.append(builder.build());
            }
            Some(match filter {
                Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
                None => other,
            })
        }

        fn transform_meta<'a>(
            &self,
            _outbuf: &mut gst::BufferRef,
            _meta: gst::MetaRef<'a, gst::Meta>,
            _inbuf: &'a gst::BufferRef,
        ) -> bool {
            // Whatever it said was about one of the panes.
            false
        }

        fn stop(&self) -> Result<(), gst::ErrorMessage> {
            *self.drawing.lock() = Drawing::default();
            Ok(())
        }
    }

    impl VideoFilterImpl for SideBySide {
        fn set_info(
            &self,
            incaps: &gst::Caps,
            in_info: &gst_video::VideoInfo,
            _outcaps: &gst::Caps,
            out_info: &gst_video::VideoInfo,
        ) -> Result<(), gst::LoggableError> {
            let Some((layout, colorimetry)) = self.decide(incaps) else {
                return Err(gst::loggable_error!(CAT, "no layout for {incaps}"));
            };
            // The second to be drawn leaves alone what the first has filled.
            let place = fit(layout.after, square(in_info));
            let in_info = still(in_info).map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
            let converter = converter(&in_info, out_info, place, layout.before.is_none())?;
            let mut drawing = self.drawing.lock();
            drawing.layout = Some(layout);
            drawing.colorimetry = Some(colorimetry);
            drawing.after = Some((in_info, converter));
            drawing.before = None;
            Ok(())
        }

        fn transform_frame(
            &self,
            inframe: &gst_video::VideoFrameRef<&gst::BufferRef>,
            outframe: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let setup = self.setup.lock().clone().ok_or(gst::FlowError::NotNegotiated)?;
            let taken = setup.tap.take(inframe.buffer());
            let before = taken
                .as_ref()
                .and_then(|(buffer, info)| gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).ok());
            let mut drawing = self.drawing.lock();
            let drawing = &mut *drawing;
            drawing.started = true;
            let (Some(layout), Some((in_info, converter))) = (&drawing.layout, &drawing.after) else {
                return Err(gst::FlowError::NotNegotiated);
            };
            // As a picture without fields, which the base class has not mapped it as.
            let after = gst_video::VideoFrameRef::from_buffer_ref_readable(inframe.buffer(), in_info)
                .map_err(|_| gst::FlowError::Error)?;
            if let (Some(pane), Some(before), Some((_, info))) = (layout.before, &before, &taken) {
                let known = drawing.before.take().filter(|(known, _)| Arc::ptr_eq(known, info));
                let (info, left) = match known {
                    Some(known) => known,
                    None => {
                        let made = self::converter(info, outframe.info(), fit(pane, square(info)), true);
                        let made = made.map_err(|error| {
                            gst::element_imp_error!(self, gst::StreamError::Format, ["{}", error.to_string()]);
                            gst::FlowError::NotNegotiated
                        })?;
                        (info.clone(), made)
                    }
                };
                left.frame_ref(before, outframe);
                drawing.before = Some((info, left));
            }
            converter.frame_ref(&after, outframe);
            if let Some(observer) = &setup.observer {
                let segment = self.obj().segment().downcast::<gst::ClockTime>().ok();
                let pts = inframe.buffer().pts();
                observer(&Pair {
                    time: segment.and_then(|segment| segment.to_running_time(pts?)),
                    before: before.as_ref().filter(|_| layout.before.is_some()),
                    after: &after,
                });
            }
            Ok(gst::FlowSuccess::Ok)
        }
    }

    impl SideBySide {
        pub(super) fn layout(&self) -> Option<Layout> {
            self.drawing.lock().layout.clone()
        }

        /// The layout and colours, known once the caps of both sides are.
        fn decide(&self, caps: &gst::Caps) -> Option<(Layout, String)> {
            let known = {
                let drawing = self.drawing.lock();
                // Until there is a picture, caps may still change: a note to turn the video comes after its first caps.
                let layout = drawing.layout.clone().filter(|_| drawing.started);
                layout.zip(drawing.colorimetry.clone())
            };
            if known.is_some() {
                return known;
            }
            if !caps.is_fixed() {
                return None;
            }
            let info = gst_video::VideoInfo::from_caps(caps).ok()?;
            let setup = self.setup.lock().clone()?;
            let size = setup.tap.size()?;
            let before = (setup.changes)().then_some(size);
            let colorimetry = info.format_info().is_yuv().then(|| info.colorimetry().to_string());
            let colorimetry = colorimetry.filter(|text| !text.is_empty());
            Some((
                Layout::new(before, square(&info)),
                colorimetry.unwrap_or_else(|| "bt709".into()),
            ))
        }
    }

    fn converter(
        from: &gst_video::VideoInfo,
        to: &gst_video::VideoInfo,
        place: Rect,
        fill: bool,
    ) -> Result<gst_video::VideoConverter, gst::LoggableError> {
        let mut config = gst_video::VideoConverterConfig::new();
        config.set_dest_x(place.x as i32);
        config.set_dest_y(place.y as i32);
        config.set_dest_width(Some(place.width as i32));
        config.set_dest_height(Some(place.height as i32));
        config.set_fill_border(fill);
        config.set_border_argb(BACKGROUND);
        config.set_resampler_method(gst_video::VideoResamplerMethod::Lanczos);
        let made = still(from).and_then(|from| gst_video::VideoConverter::new(&from, &still(to)?, Some(config)));
        made.map_err(|error| gst::loggable_error!(CAT, "frames cannot be drawn: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(layout: &Layout) -> (u32, u32) {
        (layout.width, layout.height)
    }

    #[test]
    fn panes_have_the_same_height_and_everything_is_even() {
        assert_eq!(size(&Layout::new(Some((640, 360)), (640, 360))), (1288, 360));
        assert_eq!(size(&Layout::new(Some((640, 360)), (1280, 720))), (2568, 720));
        assert_eq!(size(&Layout::new(None, (640, 360))), (640, 360));
        for (width, height) in [
            (1, 1),
            (3, 5),
            (101, 77),
            (1919, 1079),
            (4096, 2160),
            (7680, 4320),
            (300, 4000),
        ] {
            for after in [(width, height), (width * 2, height * 2), (height, width), (17, 16)] {
                let layout = Layout::new(Some((width, height)), after);
                let before = layout.before.unwrap();
                assert!(layout.width <= MAX_WIDTH + 4, "{layout:?}");
                for side in [
                    layout.width,
                    layout.height,
                    layout.after.x,
                    layout.after.width,
                    before.width,
                ] {
                    assert_eq!(side % 2, 0, "{layout:?}");
                }
                assert!(layout.after.x + layout.after.width <= layout.width, "{layout:?}");
                assert!(before.width < layout.after.x, "{layout:?}");
            }
        }
    }

    #[test]
    fn a_picture_of_another_shape_lies_in_the_middle() {
        let pane = Rect {
            x: 100,
            y: 0,
            width: 640,
            height: 360,
        };
        assert_eq!(fit(pane, (640, 360)), pane);
        assert_eq!(fit(pane, (639, 359)), pane);
        let upright = fit(pane, (360, 640));
        assert_eq!((upright.y, upright.height), (0, 360));
        let (left, right) = (upright.x - 100, 740 - (upright.x + upright.width));
        assert!(left.abs_diff(right) <= 2, "{upright:?}");
    }

    #[test]
    fn anamorphic_frames_are_drawn_in_their_true_shape() {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 720, 576)
            .par(gst::Fraction::new(64, 45))
            .build()
            .unwrap();
        assert_eq!(square(&info), (1024, 576));
    }
}
