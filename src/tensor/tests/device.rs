//! The oracle where nothing else but a device converts: formats, fits and blends, against numbers worked out by hand.

use super::*;
use crate::tensor::convert::{blend, fit_into_tensor};

fn full(format: PixelFormat, width: usize, height: usize) -> ImageSpec {
    ImageSpec {
        range: ColorRange::Full,
        ..spec(format, width, height)
    }
}

fn p010(codes: &[u16]) -> Vec<u8> {
    codes.iter().flat_map(|code| (code << 6).to_le_bytes()).collect()
}

#[test]
fn ten_bits_are_the_codes_of_the_standards() {
    let cases = [
        (Matrix::Bt2020, ColorRange::Limited, [255, 0, 0], [294, 387, 960]),
        (Matrix::Bt2020, ColorRange::Limited, [255, 255, 255], [940, 512, 512]),
        (Matrix::Bt709, ColorRange::Limited, [0, 0, 0], [64, 512, 512]),
        (Matrix::Bt709, ColorRange::Full, [255, 255, 255], [1023, 512, 512]),
        (Matrix::Bt601, ColorRange::Full, [0, 0, 255], [117, 1023, 429]),
    ];
    for (matrix, range, rgb, [y, u, v]) in cases {
        let spec = ImageSpec {
            matrix,
            range,
            ..spec(PixelFormat::P010, 1, 1)
        };
        let tensor = tensor(DType::U8, ChannelOrder::Rgb, 1, 1);
        let mut frame = Frame::noise(spec, 0);
        let _ = from_tensor(&tensor, TensorRef::U8(&rgb), &spec, &mut frame.image_mut()).unwrap();
        assert_eq!(frame.planes[0], p010(&[y]), "{rgb:?}");
        assert_eq!(frame.planes[1], p010(&[u, v]), "{rgb:?}");
        let mut back = [7; 3];
        into_tensor(&spec, &frame.image(), &tensor, TensorMut::U8(&mut back)).unwrap();
        // Blue is half a step beyond the end of full range, and saturates.
        assert!(
            rgb.iter().zip(back).all(|(a, b)| a.abs_diff(b) <= 1),
            "{rgb:?}: {back:?}"
        );
    }
    // What the lower 6 bits hold does not count.
    let spec = full(PixelFormat::P010, 1, 1);
    let frame = Frame::filled(spec, [&[0x3f, 1], &[0x20, 0x80, 0x1f, 0x80], &[]]);
    let gray = tensor(DType::U8, ChannelOrder::Gray, 1, 1);
    let mut out = [9];
    into_tensor(&spec, &frame.image(), &gray, TensorMut::U8(&mut out)).unwrap();
    assert_eq!(out, [1]);
}

#[test]
fn planes_of_red_green_and_blue_are_in_this_order() {
    let spec = spec(PixelFormat::Rgbp, 2, 1);
    let mut frame = Frame::filled(spec, [&[1, 2], &[3, 4], &[5, 6]]);
    let tensor = ImageTensor {
        planar: false,
        ..tensor(DType::U8, ChannelOrder::Bgr, 2, 1)
    };
    let mut out = [0; 6];
    into_tensor(&spec, &frame.image(), &tensor, TensorMut::U8(&mut out)).unwrap();
    assert_eq!(out, [5, 3, 1, 6, 4, 2]);
    let data = TensorRef::U8(&[10, 20, 30, 40, 50, 60]);
    let _ = from_tensor(&tensor, data, &spec, &mut frame.image_mut()).unwrap();
    assert_eq!(frame.planes, [vec![30, 60], vec![20, 50], vec![10, 40]]);
}

#[test]
fn a_fit_keeps_the_middle_or_all_of_the_frame() {
    let rectangle = |x, y, width, height| Rectangle { x, y, width, height };
    let cases = [
        (
            Fit::Stretch,
            (6, 4),
            (5, 3),
            rectangle(0, 0, 6, 4),
            rectangle(0, 0, 5, 3),
        ),
        (
            Fit::Crop,
            (1920, 1080),
            (512, 512),
            rectangle(420, 0, 1080, 1080),
            rectangle(0, 0, 512, 512),
        ),
        (
            Fit::Letterbox,
            (1920, 1080),
            (512, 512),
            rectangle(0, 0, 1920, 1080),
            rectangle(0, 112, 512, 288),
        ),
        (
            Fit::Crop,
            (4, 3),
            (16, 9),
            rectangle(0, 0, 4, 2),
            rectangle(0, 0, 16, 9),
        ),
        (
            Fit::Crop,
            (1, 100),
            (100, 1),
            rectangle(0, 49, 1, 1),
            rectangle(0, 0, 100, 1),
        ),
        (
            Fit::Letterbox,
            (1, 100),
            (100, 1),
            rectangle(0, 0, 1, 100),
            rectangle(49, 0, 1, 1),
        ),
        (
            Fit::Crop,
            (640, 480),
            (320, 240),
            rectangle(0, 0, 640, 480),
            rectangle(0, 0, 320, 240),
        ),
    ];
    for (fit, frame, tensor, source, target) in cases {
        assert_eq!(
            fit.rectangles(frame, tensor),
            (source, target),
            "{fit:?} {frame:?} {tensor:?}"
        );
    }
    let inside = |part: Rectangle, (width, height): (usize, usize)| {
        part.width >= 1 && part.height >= 1 && part.x + part.width <= width && part.y + part.height <= height
    };
    for from in 1..40 {
        for to in 1..40 {
            for fit in [Fit::Crop, Fit::Letterbox] {
                let (frame, tensor) = ((from, 17), (to, 23));
                let (source, target) = fit.rectangles(frame, tensor);
                assert!(inside(source, frame) && inside(target, tensor), "{fit:?} {from} {to}");
            }
        }
    }
}

#[test]
fn what_is_outside_a_fit_is_black_or_left_out() {
    let gray = |width, height| tensor(DType::U8, ChannelOrder::Gray, width, height);
    let run = |fit, bytes: &[u8], tensor: ImageTensor| {
        let spec = full(PixelFormat::Gray8, bytes.len(), 1);
        let frame = Frame::filled(spec, [bytes, &[], &[]]);
        let mut out = vec![9; tensor.len()];
        fit_into_tensor(&spec, &frame.image(), &tensor, fit, TensorMut::U8(&mut out)).unwrap();
        out
    };
    assert_eq!(run(Fit::Letterbox, &[10, 20], gray(2, 4)), [0, 0, 10, 20, 0, 0, 0, 0]);
    assert_eq!(run(Fit::Crop, &[1, 2, 3, 4], gray(2, 1)), [2, 3]);
    // The pixels beside a crop do not shine into it.
    assert_eq!(run(Fit::Crop, &[255, 0, 0, 255], gray(4, 2)), [0; 8]);
}

#[test]
fn a_blend_mixes_samples_and_leaves_alpha() {
    let spec = spec(PixelFormat::Bgra, 1, 1);
    let mut frame = Frame::filled(spec, [&[100, 0, 255, 255], &[], &[]]);
    let source = Frame::filled(spec, [&[200, 1, 0, 3], &[], &[]]);
    blend(&spec, &source.image(), 0.25, &mut frame.image_mut()).unwrap();
    assert_eq!(frame.planes[0], [125, 0, 191, 255]);
    let spec = full(PixelFormat::P010, 1, 1);
    let mut frame = Frame::filled(spec, [&p010(&[1000]), &p010(&[0, 512]), &[]]);
    let source = Frame::filled(spec, [&p010(&[3]), &p010(&[7, 512]), &[]]);
    blend(&spec, &source.image(), 1.0, &mut frame.image_mut()).unwrap();
    assert_eq!(frame, source);
}

#[test]
fn the_fast_conversion_refuses_what_only_a_device_converts() {
    for format in PixelFormat::DEVICE {
        let spec = spec(format, 4, 4);
        let tensor = tensor(DType::F32, ChannelOrder::Rgb, 4, 4);
        let refused = (!PixelFormat::ALL.contains(&format)).then_some(ConvertError::Format { format });
        assert_eq!(IntoTensor::new(spec, tensor).err(), refused);
        assert_eq!(FromTensor::new(tensor, spec).err(), refused);
    }
    assert!(
        PixelFormat::ALL
            .iter()
            .all(|format| PixelFormat::DEVICE.contains(format))
    );
}
