//! Frames that carry their number in their picture.
//!
//! The upper half is 18 upright stripes: white, black, then the number's 16 bits, lowest first, white for one. The
//! first two say which is which, so that a negative, another format and another size can all be read. The lower half
//! is noise that differs from pixel to pixel, so that a wrong stride or plane shows.

use gst_video::VideoFrameExt;

const STRIPES: usize = 18;

/// Frames of one format and size, at 25 frames per second.
#[derive(Debug, Clone)]
pub struct Video {
    /// Format, size and rate.
    pub info: gst_video::VideoInfo,
}

/// What a picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Painted {
    /// The number.
    pub number: u64,
    /// Whether the picture is a negative.
    pub inverted: bool,
}

impl Video {
    /// Duration of one frame.
    pub const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(40);

    /// A format by GStreamer's name.
    pub fn new(format: &str, width: u32, height: u32) -> Self {
        crate::init();
        let format = format.parse().expect("a video format");
        let info = gst_video::VideoInfo::builder(format, width, height)
            .fps(gst::Fraction::new(25, 1))
            .build()
            .expect("a valid size");
        Self { info }
    }

    /// From frame caps.
    pub fn from_caps(caps: &gst::CapsRef) -> Self {
        Self {
            info: gst_video::VideoInfo::from_caps(caps).expect("fixed caps of raw video"),
        }
    }

    /// Fixed caps.
    pub fn caps(&self) -> gst::Caps {
        self.info.to_caps().expect("a valid description")
    }

    /// Frame `number`, at its place on the time line.
    pub fn frame(&self, number: u64) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(self.info.size()).expect("memory");
        self.finish(&mut buffer, &self.info, number);
        buffer
    }

    /// The same in memory whose rows are `padding` bytes longer than they have to be, with a video meta that says so.
    pub fn padded_frame(&self, number: u64, padding: i32) -> gst::Buffer {
        let planes = self.info.n_planes() as usize;
        let (mut strides, mut offsets, mut end) = (Vec::new(), Vec::new(), 0);
        for plane in 0..planes {
            let stride = self.info.stride()[plane] + padding;
            let component = (0..self.info.n_components() as u8)
                .find(|c| self.info.comp_plane(*c) as usize == plane)
                .expect("a plane has a component");
            strides.push(stride);
            offsets.push(end);
            end += stride as usize * self.info.comp_height(component) as usize;
        }
        let mut buffer = gst::Buffer::with_size(end).expect("memory");
        let writable = buffer.get_mut().expect("new");
        gst_video::VideoMeta::add_full(
            writable,
            gst_video::VideoFrameFlags::empty(),
            self.info.format(),
            self.info.width(),
            self.info.height(),
            &offsets,
            &strides,
        )
        .expect("it fits");
        self.finish(&mut buffer, &self.info, number);
        buffer
    }

    /// Paints a number over the picture of a frame, and changes nothing else of it.
    pub fn paint(&self, buffer: &mut gst::BufferRef, number: u64) {
        let mut frame =
            gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &self.info).expect("it can be mapped");
        paint(&mut frame, number);
    }

    fn finish(&self, buffer: &mut gst::Buffer, info: &gst_video::VideoInfo, number: u64) {
        let writable = buffer.get_mut().expect("new");
        {
            let mut frame =
                gst_video::VideoFrameRef::from_buffer_ref_writable(&mut *writable, info).expect("it can be mapped");
            paint(&mut frame, number);
        }
        writable.set_pts(Self::FRAME * number);
        writable.set_duration(Self::FRAME);
    }

    /// What the picture says.
    pub fn read(&self, buffer: &gst::BufferRef) -> Painted {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info).expect("it can be mapped");
        let info = frame.info();
        let (width, row) = (info.width() as usize, info.height() as usize / 4);
        let data = frame.comp_data(0).expect("a first component");
        let (stride, step) = (frame.comp_stride(0) as usize, frame.comp_pstride(0) as usize);
        let stripe = |n: usize| data[row * stride + ((2 * n + 1) * width / (2 * STRIPES)) * step] >= 128;
        assert_ne!(stripe(0), stripe(1), "no number is painted in this picture");
        let inverted = stripe(1);
        let number = (0..16).map(|bit| u64::from(stripe(bit + 2) != inverted) << bit).sum();
        Painted { number, inverted }
    }

    /// The number alone.
    pub fn number(&self, buffer: &gst::BufferRef) -> u64 {
        self.read(buffer).number
    }

    /// The visible bytes of each plane, without what pads the rows.
    pub fn bytes(&self, buffer: &gst::BufferRef) -> Vec<u8> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info).expect("it can be mapped");
        let mut bytes = Vec::new();
        for plane in 0..frame.n_planes() {
            let component = (0..frame.n_components())
                .find(|c| frame.info().comp_plane(*c as u8) == plane)
                .expect("a plane has a component");
            let pixel = frame.comp_pstride(component) as usize;
            let length = frame.comp_width(component) as usize * pixel;
            let stride = frame.plane_stride()[plane as usize] as usize;
            let data = frame.plane_data(plane).expect("a mapped plane");
            for row in 0..frame.comp_height(component) as usize {
                bytes.extend_from_slice(&data[row * stride..row * stride + length]);
            }
        }
        bytes
    }
}

fn paint(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>, number: u64) {
    let yuv = frame.info().is_yuv();
    let components = frame.n_components();
    let alpha = frame.info().has_alpha();
    let full = !yuv;
    for component in 0..components {
        let (width, height) = (
            frame.comp_width(component) as usize,
            frame.comp_height(component) as usize,
        );
        let (stride, step) = (
            frame.comp_stride(component) as usize,
            frame.comp_pstride(component) as usize,
        );
        let data = frame.comp_data_mut(component).expect("mapped for writing");
        for y in 0..height {
            for x in 0..width {
                let value = if yuv && component > 0 {
                    128
                } else if alpha && component == 3 {
                    255
                } else if y < height / 2 {
                    let white = match (x * STRIPES / width, full) {
                        (0, _) => true,
                        (1, _) => false,
                        (stripe, _) => number >> (stripe - 2) & 1 == 1,
                    };
                    match (white, full) {
                        (true, true) => 255,
                        (false, true) => 0,
                        (true, false) => 235,
                        (false, false) => 16,
                    }
                } else {
                    let noise = noise(x as u64, y as u64, u64::from(component), number);
                    if full { noise } else { 16 + noise % 220 }
                };
                data[y * stride + x * step] = value;
            }
        }
    }
}

fn noise(x: u64, y: u64, component: u64, number: u64) -> u8 {
    let mut z = x ^ (y << 16) ^ (component << 32) ^ (number << 40);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 56) as u8
}
