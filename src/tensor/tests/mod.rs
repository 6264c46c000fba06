//! The fast conversion against the oracle, and the oracle against numbers worked out by hand.

use super::convert::{from_tensor, into_tensor};
use super::*;

mod device;
mod garbage;

const BYTE: f32 = 1.0 / 255.0;

/// A frame of noise, whose padding is recognisable.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Frame {
    pub(crate) spec: ImageSpec,
    pub(crate) planes: [Vec<u8>; 3],
    pub(crate) strides: [usize; 3],
}

impl Frame {
    pub(crate) fn noise(spec: ImageSpec, padding: usize) -> Frame {
        let mut noise = Noise(spec.width as u64 * 77 + spec.height as u64);
        let mut frame = Frame {
            spec,
            planes: Default::default(),
            strides: [0; 3],
        };
        for plane in 0..spec.format.planes() {
            let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
            frame.strides[plane] = row + padding;
            frame.planes[plane] = (0..(row + padding) * (rows - 1) + row)
                .map(|_| noise.next() as u8)
                .collect();
        }
        frame
    }

    pub(crate) fn filled(spec: ImageSpec, bytes: [&[u8]; 3]) -> Frame {
        let strides = [0, 1, 2].map(|plane| match plane < spec.format.planes() {
            true => spec.format.plane_size(plane, spec.width, spec.height).1,
            false => 0,
        });
        Frame {
            spec,
            planes: bytes.map(<[u8]>::to_vec),
            strides,
        }
    }

    pub(crate) fn image(&self) -> Image<'_> {
        Image {
            planes: [0, 1, 2].map(|i| Plane {
                data: &self.planes[i],
                stride: self.strides[i],
            }),
        }
    }

    pub(crate) fn image_mut(&mut self) -> ImageMut<'_> {
        let [a, b, c] = &mut self.planes;
        let mut strides = self.strides.into_iter();
        ImageMut {
            planes: [a, b, c].map(|data| PlaneMut {
                data,
                stride: strides.next().unwrap_or(0),
            }),
        }
    }
}

pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// Elements of whichever type.
#[derive(Clone, Debug)]
pub(crate) enum Elements {
    U8(Vec<u8>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Elements {
    pub(crate) fn new(dtype: DType, len: usize) -> Elements {
        match dtype {
            DType::F16 => Elements::F16(vec![f16::ZERO; len]),
            DType::F32 => Elements::F32(vec![0.0; len]),
            _ => Elements::U8(vec![0; len]),
        }
    }

    /// Values a model may give: mostly inside the range, some beyond both its ends.
    pub(crate) fn noise(tensor: &ImageTensor) -> Elements {
        let mut noise = Noise(tensor.len() as u64);
        let channels = tensor.order.channels();
        let values: Vec<f32> = (0..tensor.len())
            .map(|i| {
                let channel = if tensor.planar {
                    i / (tensor.width * tensor.height)
                } else {
                    i % channels
                };
                let byte = (noise.next() % 300_000) as f32 / 1000.0 - 20.0;
                byte * tensor.scale[channel] + tensor.bias[channel]
            })
            .collect();
        match tensor.dtype {
            DType::F16 => Elements::F16(values.into_iter().map(f16::from_f32).collect()),
            DType::F32 => Elements::F32(values),
            _ => Elements::U8(values.into_iter().map(|value| value as u8).collect()),
        }
    }

    pub(crate) fn get(&self) -> TensorRef<'_> {
        match self {
            Elements::U8(v) => TensorRef::U8(v),
            Elements::F16(v) => TensorRef::F16(v),
            Elements::F32(v) => TensorRef::F32(v),
        }
    }

    pub(crate) fn get_mut(&mut self) -> TensorMut<'_> {
        match self {
            Elements::U8(v) => TensorMut::U8(v),
            Elements::F16(v) => TensorMut::F16(v),
            Elements::F32(v) => TensorMut::F32(v),
        }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        match self {
            Elements::U8(v) => v.iter().copied().map(f32::from).collect(),
            Elements::F16(v) => v.iter().copied().map(f32::from).collect(),
            Elements::F32(v) => v.clone(),
        }
    }
}

pub(crate) fn spec(format: PixelFormat, width: usize, height: usize) -> ImageSpec {
    ImageSpec {
        format,
        width,
        height,
        matrix: Matrix::Bt601,
        range: ColorRange::Limited,
    }
}

pub(crate) fn tensor(dtype: DType, order: ChannelOrder, width: usize, height: usize) -> ImageTensor {
    let scale = if dtype == DType::U8 { 1.0 } else { BYTE };
    ImageTensor {
        dtype,
        planar: true,
        order,
        width,
        height,
        scale: [scale; 3],
        bias: [0.0; 3],
    }
}

pub(crate) fn is_rgb(format: PixelFormat) -> bool {
    !format.is_yuv() && format != PixelFormat::Gray8
}

/// Every tensor description worth telling apart, of one size.
pub(crate) fn tensors(width: usize, height: usize) -> Vec<ImageTensor> {
    let mut all = Vec::new();
    for order in [ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray] {
        for dtype in [DType::U8, DType::F16, DType::F32] {
            for planar in [true, false] {
                let plain = ImageTensor {
                    planar,
                    ..tensor(dtype, order, width, height)
                };
                all.push(plain);
                if dtype != DType::U8 {
                    all.push(ImageTensor {
                        scale: [0.017, 0.0175, 0.0174],
                        bias: [-2.1, -2.0, -1.8],
                        ..plain
                    });
                }
            }
        }
    }
    all
}

/// Every colour description that the format tells apart, of one size.
pub(crate) fn specs(width: usize, height: usize) -> Vec<ImageSpec> {
    let mut all = Vec::new();
    for format in PixelFormat::ALL {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [ColorRange::Full, ColorRange::Limited] {
                all.push(ImageSpec {
                    format,
                    width,
                    height,
                    matrix,
                    range,
                });
            }
        }
    }
    all
}

/// The largest difference of two tensors, in bytes.
pub(crate) fn tensor_difference(tensor: &ImageTensor, a: &Elements, b: &Elements) -> f32 {
    let channels = tensor.order.channels();
    let scale = |i: usize| {
        tensor.scale[if tensor.planar {
            i / (tensor.len() / channels)
        } else {
            i % channels
        }]
    };
    let pairs = a.values().into_iter().zip(b.values()).enumerate();
    pairs.map(|(i, (a, b))| ((a - b) / scale(i)).abs()).fold(0.0, f32::max)
}

pub(crate) fn frame_difference(a: &Frame, b: &Frame) -> u8 {
    let bytes = a.planes.iter().flatten().zip(b.planes.iter().flatten());
    bytes.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

fn into_both(spec: ImageSpec, tensor: ImageTensor, padding: usize) -> (Elements, Elements) {
    let frame = Frame::noise(spec, padding);
    let (mut slow, mut fast) = (
        Elements::new(tensor.dtype, tensor.len()),
        Elements::new(tensor.dtype, tensor.len()),
    );
    into_tensor(&spec, &frame.image(), &tensor, slow.get_mut()).unwrap();
    let mut convert = IntoTensor::new(spec, tensor).unwrap();
    // Twice: what one frame leaves behind must not show in the next.
    for _ in 0..2 {
        convert.run(&frame.image(), fast.get_mut()).unwrap();
    }
    (slow, fast)
}

fn from_both(tensor: ImageTensor, spec: ImageSpec, padding: usize) -> (Frame, Frame) {
    let data = Elements::noise(&tensor);
    let (mut slow, mut fast) = (Frame::noise(spec, padding), Frame::noise(spec, padding));
    let slow_written = from_tensor(&tensor, data.get(), &spec, &mut slow.image_mut()).unwrap();
    let mut convert = FromTensor::new(tensor, spec).unwrap();
    for _ in 0..2 {
        let fast_written = convert.run(data.get(), &mut fast.image_mut()).unwrap();
        assert_eq!(slow_written, fast_written);
    }
    (slow, fast)
}

#[test]
fn fast_agrees_with_the_oracle_into_every_tensor() {
    for (width, height, padding) in [(1, 1, 0), (3, 5, 7), (17, 9, 0), (70, 4, 3)] {
        for spec in specs(width, height) {
            for tensor in tensors(width, height) {
                let (slow, fast) = into_both(spec, tensor, padding);
                // Bytes that are only moved are equal, and so are their numbers. Luma and chroma are computed with
                // 6 to 8 fraction bits, which may round to the neighbour; 0.02 is what f16 adds to that.
                let moved = is_rgb(spec.format) && tensor.order != ChannelOrder::Gray;
                let tolerance = if moved { 0.0 } else { 1.13 };
                let difference = tensor_difference(&tensor, &slow, &fast);
                assert!(difference <= tolerance, "{spec:?} {tensor:?}: {difference}");
            }
        }
    }
}

#[test]
fn fast_agrees_with_the_oracle_from_every_tensor() {
    for (width, height, padding) in [(1, 1, 0), (3, 5, 7), (17, 9, 0), (70, 4, 3)] {
        for spec in specs(width, height) {
            for tensor in tensors(width, height) {
                let (slow, fast) = from_both(tensor, spec, padding);
                // Bytes are only moved to RGB. A number halfway between two bytes may round to the other one, as may
                // luma and chroma, of 8 fraction bits.
                let tolerance = u8::from(!is_rgb(spec.format) || tensor.dtype != DType::U8);
                let difference = frame_difference(&slow, &fast);
                assert!(difference <= tolerance, "{spec:?} {tensor:?}: {difference}");
            }
        }
    }
}

#[test]
fn fast_agrees_with_the_oracle_on_a_large_frame_of_odd_shape() {
    let spec = ImageSpec {
        matrix: Matrix::Bt709,
        ..spec(PixelFormat::Nv12, 1366, 768)
    };
    let tensor = tensor(DType::F32, ChannelOrder::Rgb, 1366, 768);
    let (slow, fast) = into_both(spec, tensor, 10);
    assert!(tensor_difference(&tensor, &slow, &fast) <= 1.001);
    let unequal = slow
        .values()
        .iter()
        .zip(fast.values())
        .filter(|&(a, b)| *a != b)
        .count();
    // 6 fraction bits: the neighbour is hit once in a few dozen times.
    assert!(unequal * 20 < tensor.len(), "{unequal} of {}", tensor.len());
    let (slow, fast) = from_both(tensor, spec, 10);
    assert!(frame_difference(&slow, &fast) <= 1);
}

#[test]
fn bytes_survive_the_way_into_a_tensor_and_back() {
    for format in PixelFormat::ALL.into_iter().filter(|&format| is_rgb(format)) {
        let spec = spec(format, 64, 12);
        for tensor in tensors(64, 12)
            .into_iter()
            .filter(|tensor| tensor.order != ChannelOrder::Gray)
        {
            let before = Frame::noise(spec, 0);
            let mut data = Elements::new(tensor.dtype, tensor.len());
            IntoTensor::new(spec, tensor)
                .unwrap()
                .run(&before.image(), data.get_mut())
                .unwrap();
            let mut after = before.clone();
            after.planes[0].fill(1);
            let written = FromTensor::new(tensor, spec)
                .unwrap()
                .run(data.get(), &mut after.image_mut())
                .unwrap();
            assert_eq!(written.non_finite, 0);
            let pixel = before.strides[0] / 64;
            for (before, after) in before.planes[0].chunks(pixel).zip(after.planes[0].chunks(pixel)) {
                assert_eq!(before[..3], after[..3], "{tensor:?}");
                assert!(pixel == 3 || after[3] == 255);
            }
        }
    }
}

#[test]
fn every_byte_survives_every_element_type() {
    let all: Vec<u8> = (0..=255).collect();
    let spec = ImageSpec {
        range: ColorRange::Full,
        ..spec(PixelFormat::Gray8, 256, 1)
    };
    for dtype in [DType::U8, DType::F16, DType::F32] {
        let tensor = tensor(dtype, ChannelOrder::Gray, 256, 1);
        let mut frame = Frame::filled(spec, [&all, &[], &[]]);
        let mut data = Elements::new(dtype, 256);
        IntoTensor::new(spec, tensor)
            .unwrap()
            .run(&frame.image(), data.get_mut())
            .unwrap();
        frame.planes[0].fill(0);
        let _ = FromTensor::new(tensor, spec)
            .unwrap()
            .run(data.get(), &mut frame.image_mut())
            .unwrap();
        assert_eq!(frame.planes[0], all);
    }
}

#[test]
fn rounding_inverts_exactly_where_truncation_is_off_by_one_159_times() {
    let inverted: Vec<f32> = (0..=255u8).map(|byte| 1.0 - f32::from(byte) / 255.0).collect();
    let truncated = inverted.iter().map(|&value| (value * 255.0) as u8);
    let wrong = (0..=255u8)
        .zip(truncated)
        .filter(|&(byte, back)| back != 255 - byte)
        .count();
    assert_eq!(wrong, 159);
    let spec = ImageSpec {
        range: ColorRange::Full,
        ..spec(PixelFormat::Gray8, 256, 1)
    };
    let mut frame = Frame::noise(spec, 0);
    let tensor = tensor(DType::F32, ChannelOrder::Gray, 256, 1);
    let data = TensorRef::F32(&inverted);
    let _ = FromTensor::new(tensor, spec)
        .unwrap()
        .run(data, &mut frame.image_mut())
        .unwrap();
    assert_eq!(frame.planes[0], (0..=255).rev().collect::<Vec<u8>>());
}

#[test]
fn red_and_white_have_the_luma_and_chroma_of_the_standards() {
    let cases: [(Matrix, [f32; 3], [u8; 3]); 6] = [
        (Matrix::Bt601, [1.0, 0.0, 0.0], [81, 90, 240]),
        (Matrix::Bt709, [1.0, 0.0, 0.0], [63, 102, 240]),
        (Matrix::Bt601, [1.0, 1.0, 1.0], [235, 128, 128]),
        (Matrix::Bt709, [1.0, 1.0, 1.0], [235, 128, 128]),
        (Matrix::Bt2020, [1.0, 0.0, 0.0], [74, 97, 240]),
        (Matrix::Bt2020, [1.0, 1.0, 1.0], [235, 128, 128]),
    ];
    for (matrix, rgb, [y, u, v]) in cases {
        let spec = ImageSpec {
            matrix,
            ..spec(PixelFormat::I420, 1, 1)
        };
        let tensor = tensor(DType::F32, ChannelOrder::Rgb, 1, 1);
        let mut frame = Frame::noise(spec, 0);
        let _ = from_tensor(&tensor, TensorRef::F32(&rgb), &spec, &mut frame.image_mut()).unwrap();
        assert_eq!(frame.planes.concat(), [y, u, v]);
        let _ = FromTensor::new(tensor, spec)
            .unwrap()
            .run(TensorRef::F32(&rgb), &mut frame.image_mut())
            .unwrap();
        assert_eq!(frame.planes.concat(), [y, u, v]);
    }
    let spec = spec(PixelFormat::Nv12, 1, 1);
    let frame = Frame::filled(spec, [&[81], &[90, 240], &[]]);
    let tensor = tensor(DType::U8, ChannelOrder::Bgr, 1, 1);
    let mut out = [1; 3];
    into_tensor(&spec, &frame.image(), &tensor, TensorMut::U8(&mut out)).unwrap();
    assert_eq!(out, [0, 0, 254]);
}

#[test]
fn gray_stays_gray_through_luma_and_chroma() {
    for spec in specs(256, 2).into_iter().filter(|spec| spec.format.is_yuv()) {
        let data: Vec<u8> = (0..=255).cycle().take(512).collect();
        let data = data.repeat(3);
        let tensor = tensor(DType::U8, ChannelOrder::Rgb, 256, 2);
        let mut frame = Frame::noise(spec, 0);
        let _ = FromTensor::new(tensor, spec)
            .unwrap()
            .run(TensorRef::U8(&data), &mut frame.image_mut())
            .unwrap();
        assert!(
            frame.planes[1..].iter().flatten().all(|&chroma| chroma == 128),
            "{spec:?}"
        );
        let mut back = vec![0; data.len()];
        IntoTensor::new(spec, tensor)
            .unwrap()
            .run(&frame.image(), TensorMut::U8(&mut back))
            .unwrap();
        assert_eq!(back[..512], back[512..1024], "{spec:?}");
        assert!(spec.range == ColorRange::Limited || back == data);
    }
}

#[test]
fn chroma_at_an_odd_edge_is_that_of_the_pixels_there_are() {
    let spec_of = |width| ImageSpec {
        range: ColorRange::Full,
        ..spec(PixelFormat::I420, width, 1)
    };
    let tensor_of = |width| ImageTensor {
        planar: false,
        ..tensor(DType::U8, ChannelOrder::Rgb, width, 1)
    };
    let (mut three, mut one) = (Frame::noise(spec_of(3), 0), Frame::noise(spec_of(1), 0));
    let data = [10, 20, 30, 250, 240, 0, 200, 7, 90];
    let mut convert = FromTensor::new(tensor_of(3), spec_of(3)).unwrap();
    let _ = convert.run(TensorRef::U8(&data), &mut three.image_mut()).unwrap();
    let mut convert = FromTensor::new(tensor_of(1), spec_of(1)).unwrap();
    let _ = convert.run(TensorRef::U8(&data[6..]), &mut one.image_mut()).unwrap();
    assert_eq!(
        (three.planes[1][1], three.planes[2][1]),
        (one.planes[1][0], one.planes[2][0])
    );
}

#[test]
fn resizing_weighs_a_triangle() {
    let cases: [(&[u8], &[u8]); 4] = [
        (&[0, 255], &[0, 64, 191, 255]),
        (&[0, 70, 140, 210], &[50, 160]),
        (&[9], &[9, 9, 9]),
        (&[3, 3, 3], &[3]),
    ];
    for (from, to) in cases {
        let spec = ImageSpec {
            range: ColorRange::Full,
            ..spec(PixelFormat::Gray8, from.len(), 1)
        };
        let tensor = tensor(DType::U8, ChannelOrder::Gray, to.len(), 1);
        let frame = Frame::filled(spec, [from, &[], &[]]);
        let mut out = vec![0; to.len()];
        into_tensor(&spec, &frame.image(), &tensor, TensorMut::U8(&mut out)).unwrap();
        assert_eq!(out, to);
        IntoTensor::new(spec, tensor)
            .unwrap()
            .run(&frame.image(), TensorMut::U8(&mut out))
            .unwrap();
        assert_eq!(out, to);
    }
}

#[test]
fn fast_agrees_with_the_oracle_when_resizing() {
    let sizes = [
        ((7, 5), (16, 9)),
        ((64, 48), (17, 13)),
        ((5, 5), (5, 11)),
        ((40, 3), (8, 3)),
        ((1, 1), (4, 4)),
        ((9, 9), (1, 1)),
        ((33, 20), (32, 21)),
        ((3, 60), (50, 2)),
    ];
    for (from, to) in sizes {
        for format in PixelFormat::ALL {
            for tensor in tensors(to.0, to.1) {
                let (slow, fast) = into_both(spec(format, from.0, from.1), tensor, 5);
                // The mean of several bytes, in f32 rather than f64, may round to the neighbour.
                let difference = tensor_difference(&tensor, &slow, &fast);
                assert!(difference <= 1.13, "{format:?} {from:?} {tensor:?}: {difference}");
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_counted_and_written() {
    let values = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.51,
        -7.0,
        7.0,
        f32::MAX,
        f32::MIN,
        1.0,
        0.0,
        0.2,
        0.4,
    ];
    let spec = ImageSpec {
        range: ColorRange::Full,
        ..spec(PixelFormat::Gray8, 12, 1)
    };
    let gray = tensor(DType::F32, ChannelOrder::Gray, 12, 1);
    let mut frame = Frame::noise(spec, 0);
    let written = FromTensor::new(gray, spec)
        .unwrap()
        .run(TensorRef::F32(&values), &mut frame.image_mut())
        .unwrap();
    assert_eq!(written.non_finite, 3);
    assert_eq!(frame.planes[0], [0, 255, 0, 130, 0, 255, 255, 0, 255, 0, 51, 102]);
    let halves = values.map(f16::from_f32);
    let mut convert = FromTensor::new(
        ImageTensor {
            dtype: DType::F16,
            ..gray
        },
        spec,
    )
    .unwrap();
    // f16 ends at 65504: the two extremes of f32 become infinite.
    let written = convert.run(TensorRef::F16(&halves), &mut frame.image_mut()).unwrap();
    assert_eq!(written.non_finite, 5);
    assert_eq!(frame.planes[0], [0, 255, 0, 130, 0, 255, 255, 0, 255, 0, 51, 102]);
    // The next tensor starts counting from nothing.
    let written = convert
        .run(TensorRef::F16(&[f16::ZERO; 12]), &mut frame.image_mut())
        .unwrap();
    assert_eq!(written.non_finite, 0);
}

#[test]
fn half_precision_is_the_nearest_for_any_scale() {
    let spec = ImageSpec {
        range: ColorRange::Full,
        ..spec(PixelFormat::Gray8, 256, 1)
    };
    let all: Vec<u8> = (0..=255).collect();
    let frame = Frame::filled(spec, [&all, &[], &[]]);
    let mut noise = Noise(1);
    for exponent in -30..20 {
        let scale = (1.0 + (noise.next() % 1000) as f32 / 1000.0) * 2.0f32.powi(exponent);
        let gray = ImageTensor {
            scale: [-scale; 3],
            bias: [scale * 77.7; 3],
            ..tensor(DType::F16, ChannelOrder::Gray, 256, 1)
        };
        let mut out = vec![f16::ZERO; 256];
        IntoTensor::new(spec, gray)
            .unwrap()
            .run(&frame.image(), TensorMut::F16(&mut out))
            .unwrap();
        for (&byte, number) in all.iter().zip(&out) {
            let expected = f16::from_f32(f32::from(byte) * gray.scale[0] + gray.bias[0]);
            assert_eq!(
                number.to_bits(),
                expected.to_bits(),
                "{byte} * {:?} + {:?}",
                gray.scale[0],
                gray.bias[0]
            );
        }
    }
}

#[test]
fn padding_between_rows_is_left_alone() {
    for format in PixelFormat::ALL {
        let spec = spec(format, 5, 3);
        let tensor = tensor(DType::F32, ChannelOrder::Rgb, 5, 3);
        let before = Frame::noise(spec, 9);
        let mut after = before.clone();
        let data = Elements::noise(&tensor);
        let _ = FromTensor::new(tensor, spec)
            .unwrap()
            .run(data.get(), &mut after.image_mut())
            .unwrap();
        for plane in 0..format.planes() {
            let (_, row) = format.plane_size(plane, 5, 3);
            let rows = before.planes[plane]
                .chunks(row + 9)
                .zip(after.planes[plane].chunks(row + 9));
            for (before, after) in rows {
                assert_eq!(before[row..], after[row..], "{format:?}");
            }
        }
    }
}

#[test]
fn a_description_that_is_no_picture_is_refused() {
    let good = tensor(DType::F32, ChannelOrder::Rgb, 4, 4);
    let frame = spec(PixelFormat::Rgb, 4, 4);
    let refused = |spec, tensor| IntoTensor::new(spec, tensor).err();
    assert_eq!(refused(frame, good), None);
    assert!(matches!(
        refused(ImageSpec { width: 0, ..frame }, good),
        Some(ConvertError::Size { what: "frame", .. })
    ));
    assert!(matches!(
        refused(frame, ImageTensor { height: 16_385, ..good }),
        Some(ConvertError::Size { .. })
    ));
    for dtype in [DType::I32, DType::I64] {
        assert_eq!(
            refused(frame, ImageTensor { dtype, ..good }),
            Some(ConvertError::DType { got: dtype })
        );
    }
    for scale in [0.0, f32::NAN, f32::INFINITY, 1e-40] {
        let tensor = ImageTensor {
            scale: [BYTE, scale, BYTE],
            ..good
        };
        assert!(matches!(
            refused(frame, tensor),
            Some(ConvertError::Scale { channel: 1, .. })
        ));
    }
    // A gray tensor has one channel: what the others say does not matter.
    let gray = ImageTensor {
        order: ChannelOrder::Gray,
        scale: [1.0, 0.0, 0.0],
        ..good
    };
    assert_eq!(refused(frame, gray), None);
    assert!(matches!(
        refused(
            frame,
            ImageTensor {
                dtype: DType::U8,
                ..good
            }
        ),
        Some(ConvertError::Scale { .. })
    ));
    let resize = FromTensor::new(good, spec(PixelFormat::Rgb, 4, 5)).err();
    assert_eq!(
        resize,
        Some(ConvertError::Resize {
            tensor: (4, 4),
            frame: (4, 5)
        })
    );
}

#[test]
fn converters_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<IntoTensor>();
    is_send::<FromTensor>();
}
