//! The kernels against the slow conversion.

use proptest::prelude::*;

#[cfg(not(feature = "gpu"))]
use super::driver;
use super::{DeviceFrame, Rig, elements};
#[cfg(not(feature = "gpu"))]
use crate::cuda::kernels::{ENTRIES, FromJob, IntoJob, InvertJob};
use crate::cuda::{Blend, DeviceBuffer, DeviceTensor, Error, Frames};
use crate::tensor::convert::{blend, fit_into_tensor, from_tensor};
use crate::tensor::tests::{Elements, Frame, Noise, is_rgb, tensor, tensor_difference, tensors};
use crate::tensor::{
    ChannelOrder, ColorRange, ConvertError, DType, DeviceImage, Fit, ImageSpec, ImageTensor, Matrix, PixelFormat, f16,
};

const FITS: [Fit; 3] = [Fit::Stretch, Fit::Crop, Fit::Letterbox];
const RANGES: [ColorRange; 2] = [ColorRange::Full, ColorRange::Limited];
const MATRICES: [Matrix; 3] = [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020];

fn specs(width: usize, height: usize) -> Vec<ImageSpec> {
    let mut all = Vec::new();
    for format in PixelFormat::DEVICE {
        for matrix in MATRICES {
            for range in RANGES {
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

/// Frames that differ from each other.
fn noise(spec: ImageSpec, padding: usize, count: usize) -> Vec<Frame> {
    // 16-bit samples begin at even addresses.
    let padding = if spec.format == PixelFormat::P010 {
        padding * 2
    } else {
        padding
    };
    let frame = |at: usize| {
        let mut frame = Frame::noise(spec, padding);
        let mut noise = Noise(at as u64 * 997);
        frame
            .planes
            .iter_mut()
            .flatten()
            .for_each(|byte| *byte = byte.wrapping_add(noise.next() as u8));
        frame
    };
    (0..count).map(frame).collect()
}

fn images(frames: &[DeviceFrame]) -> Vec<DeviceImage> {
    frames.iter().map(|frame| frame.image).collect()
}

/// The largest difference from the oracle, in bytes; and how many numbers differ at all.
fn compare(tensor: &ImageTensor, slow: &Elements, fast: &Elements) -> (f32, usize) {
    let differ = slow
        .values()
        .iter()
        .zip(fast.values())
        .filter(|(a, b)| **a != *b)
        .count();
    (tensor_difference(tensor, slow, fast), differ)
}

/// Converts on the device and slowly, and checks that they agree.
fn check_into(rig: &Rig, frames: &[Frame], tensor: &ImageTensor, fit: Fit, slots: usize) {
    let spec = frames[0].spec;
    let on_device: Vec<_> = frames.iter().map(|frame| rig.put_frame(frame)).collect();
    let bytes = tensor.len() * tensor.dtype.size();
    let out = DeviceBuffer::new(&rig.device, bytes * slots).unwrap();
    let place = DeviceTensor {
        image: *tensor,
        address: out.address(),
        slots,
    };
    let images = images(&on_device);
    let frames_there = Frames {
        spec: &spec,
        images: &images,
    };
    let kernels = rig.device.kernels().unwrap();
    kernels.into_tensor(&rig.stream, frames_there, &place, fit).unwrap();
    let fast = rig.get(&out);
    let size = (spec.width, spec.height);
    let (source, target) = fit.rectangles(size, (tensor.width, tensor.height));
    let resized = (source.width, source.height) != (target.width, target.height);
    let moved = is_rgb(spec.format) && tensor.order != ChannelOrder::Gray && !resized;
    for (slot, fast) in fast.chunks(bytes).enumerate() {
        let mut slow = Elements::new(tensor.dtype, tensor.len());
        // Slots behind the last frame hold it again.
        let frame = frames.get(slot).unwrap_or(&frames[frames.len() - 1]);
        fit_into_tensor(&spec, &frame.image(), tensor, fit, slow.get_mut()).unwrap();
        let (difference, differ) = compare(tensor, &slow, &elements(tensor.dtype, fast));
        // Bytes that are only moved are equal, and so are their numbers. What is computed may round to the neighbour,
        // from f32 rather than f64, and f16 adds 0.13.
        let tolerance = if moved { 0.0 } else { 1.13 };
        assert!(
            difference <= tolerance,
            "{spec:?} {tensor:?} {fit:?} slot {slot}: {difference}"
        );
        // The mean of a few bytes is often halfway between two; otherwise hardly any number is.
        assert!(
            resized || differ <= 2 + tensor.len() / 50,
            "{spec:?} {tensor:?}: {differ} of {}",
            tensor.len()
        );
    }
}

/// The largest difference of two frames in codes of their depth. Padding between rows has to be equal.
fn codes_apart(a: &Frame, b: &Frame) -> u32 {
    let mut apart = 0;
    for plane in 0..a.spec.format.planes() {
        let (_, row) = a.spec.format.plane_size(plane, a.spec.width, a.spec.height);
        let rows = a.planes[plane]
            .chunks(a.strides[plane])
            .zip(b.planes[plane].chunks(b.strides[plane]));
        for (a_row, b_row) in rows {
            assert_eq!(a_row[row..], b_row[row..], "padding of {:?}", a.spec);
            let code = |row: &[u8]| -> Vec<u32> {
                if a.spec.format == PixelFormat::P010 {
                    row.as_chunks()
                        .0
                        .iter()
                        .map(|b| u32::from(u16::from_le_bytes(*b)) >> 6)
                        .collect()
                } else {
                    row.iter().copied().map(u32::from).collect()
                }
            };
            let pairs = code(&a_row[..row]).into_iter().zip(code(&b_row[..row]));
            apart = pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0).max(apart);
        }
    }
    apart
}

/// Converts back on the device and slowly, and checks that they agree.
fn check_from(rig: &Rig, spec: ImageSpec, tensor: &ImageTensor, padding: usize, count: usize, share: Option<f32>) {
    let before = noise(spec, padding, count);
    let sources = noise(spec, padding + 1, count + 1).split_off(1);
    let data: Vec<_> = (0..count)
        .map(|at| {
            // Of another length, so that each image has other numbers.
            let longer = ImageTensor {
                height: tensor.height + at,
                ..*tensor
            };
            let bytes = Elements::noise(&longer).get().to_bytes();
            bytes[..tensor.len() * tensor.dtype.size()].to_vec()
        })
        .collect();
    let there = rig.put(&data.concat());
    let place = DeviceTensor {
        image: *tensor,
        address: there.address(),
        slots: count,
    };
    let frames: Vec<_> = before.iter().map(|frame| rig.put_frame(frame)).collect();
    let sources_there: Vec<_> = sources.iter().map(|frame| rig.put_frame(frame)).collect();
    let (images, source_images) = (images(&frames), images(&sources_there));
    let counter = DeviceBuffer::zeroed(&rig.device, 4).unwrap();
    let mixed = share.map(|share| Blend {
        sources: &source_images,
        share,
    });
    let out = Frames {
        spec: &spec,
        images: &images,
    };
    let kernels = rig.device.kernels().unwrap();
    kernels
        .from_tensor(&rig.stream, &place, out, mixed, counter.address())
        .unwrap();
    let mut non_finite = 0;
    for at in 0..count {
        let fast = rig.get_frame(&frames[at], &before[at]);
        let mut slow = before[at].clone();
        let numbers = elements(tensor.dtype, &data[at]);
        let written = from_tensor(tensor, numbers.get(), &spec, &mut slow.image_mut()).unwrap();
        non_finite += written.non_finite;
        if let Some(share) = share {
            blend(&spec, &sources[at].image(), share, &mut slow.image_mut()).unwrap();
        }
        let apart = codes_apart(&slow, &fast);
        // A number halfway between two bytes may round to the other one; a byte is four codes of 10 bits.
        let tolerance = if spec.format == PixelFormat::P010 { 5 } else { 1 };
        assert!(apart <= tolerance, "{spec:?} {tensor:?} {share:?}: {apart}");
    }
    let counted = rig.get(&counter);
    assert_eq!(counted, (non_finite as u32).to_ne_bytes());
}

#[test]
fn every_format_becomes_every_tensor() {
    let rig = Rig::new();
    for (width, height, padding) in [(1, 1, 0), (5, 3, 3), (70, 9, 0)] {
        for spec in specs(width, height) {
            let frames = noise(spec, padding, 2);
            for tensor in tensors(width, height) {
                check_into(&rig, &frames, &tensor, Fit::Stretch, 2);
            }
        }
    }
}

#[test]
fn every_tensor_becomes_every_format() {
    let rig = Rig::new();
    for (width, height, padding) in [(1, 1, 0), (5, 3, 3), (70, 9, 0)] {
        for spec in specs(width, height) {
            for tensor in tensors(width, height) {
                check_from(&rig, spec, &tensor, padding, 2, None);
            }
        }
    }
}

#[test]
fn every_format_is_resized_cropped_and_letterboxed() {
    let rig = Rig::new();
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
        for spec in specs(from.0, from.1)
            .into_iter()
            .filter(|spec| spec.matrix == Matrix::Bt709)
        {
            for fit in FITS {
                for order in [ChannelOrder::Rgb, ChannelOrder::Gray] {
                    let tensor = tensor(DType::F16, order, to.0, to.1);
                    check_into(&rig, &noise(spec, 1, 1), &tensor, fit, 1);
                }
            }
        }
    }
}

#[test]
fn batches_longer_than_a_launch_keep_their_order_and_fill_the_slots_behind_them() {
    let rig = Rig::new();
    let spec = ImageSpec {
        format: PixelFormat::Nv12,
        width: 6,
        height: 4,
        matrix: Matrix::Bt709,
        range: ColorRange::Limited,
    };
    let tensor = tensor(DType::F16, ChannelOrder::Rgb, 6, 4);
    for count in [1, 2, 15, 16, 17, 20, 33] {
        check_into(&rig, &noise(spec, 0, count), &tensor, Fit::Stretch, count + count % 3);
        check_from(&rig, spec, &tensor, 0, count, None);
        check_from(&rig, spec, &tensor, 0, count, Some(0.25));
    }
    // One frame fills more slots than a launch has frames.
    check_into(&rig, &noise(spec, 0, 1), &tensor, Fit::Stretch, 20);
}

#[test]
fn a_frame_is_mixed_with_its_source() {
    let rig = Rig::new();
    for spec in specs(5, 3) {
        for share in [0.0, 0.3, 0.5, 1.0] {
            check_from(
                &rig,
                spec,
                &tensor(DType::F32, ChannelOrder::Rgb, 5, 3),
                2,
                2,
                Some(share),
            );
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_counted_and_become_ends() {
    let rig = Rig::new();
    let spec = ImageSpec {
        format: PixelFormat::Gray8,
        width: 8,
        height: 1,
        matrix: Matrix::Bt601,
        range: ColorRange::Full,
    };
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.51, -7.0, 7.0, 1.0, 0.0];
    for dtype in [DType::F32, DType::F16] {
        let numbers = match dtype {
            DType::F16 => Elements::F16(values.map(f16::from_f32).to_vec()),
            _ => Elements::F32(values.to_vec()),
        };
        let there = rig.put(&numbers.get().to_bytes());
        let frame = rig.put(&[9; 8]);
        let counter = DeviceBuffer::zeroed(&rig.device, 4).unwrap();
        let mut image = DeviceImage::default();
        image.planes[0].address = frame.address();
        image.planes[0].stride = 8;
        let place = DeviceTensor {
            image: tensor(dtype, ChannelOrder::Gray, 8, 1),
            address: there.address(),
            slots: 1,
        };
        let frames = Frames {
            spec: &spec,
            images: &[image],
        };
        let kernels = rig.device.kernels().unwrap();
        // Twice: the counter goes on.
        for times in 1..3u32 {
            kernels
                .from_tensor(&rig.stream, &place, frames, None, counter.address())
                .unwrap();
            assert_eq!(rig.get(&frame), [0, 255, 0, 130, 0, 255, 255, 0]);
            assert_eq!(rig.get(&counter), (3 * times).to_ne_bytes());
        }
    }
}

#[test]
fn a_whole_frame_of_a_camera_is_shrunk_as_the_oracle_does() {
    let rig = Rig::new();
    let spec = ImageSpec {
        format: PixelFormat::Nv12,
        width: 319,
        height: 181,
        matrix: Matrix::Bt709,
        range: ColorRange::Limited,
    };
    for fit in FITS {
        check_into(
            &rig,
            &noise(spec, 1, 1),
            &tensor(DType::F32, ChannelOrder::Bgr, 96, 96),
            fit,
            1,
        );
    }
}

#[test]
fn elements_are_inverted() {
    let rig = Rig::new();
    let kernels = rig.device.kernels().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(700).collect();
    let cases = [
        Elements::U8(bytes.clone()),
        Elements::F16(bytes.iter().map(|&b| f16::from_f32(f32::from(b) / 255.0)).collect()),
        Elements::F32(bytes.iter().map(|&b| f32::from(b) / 255.0).collect()),
    ];
    for case in cases {
        let dtype = case.get().dtype();
        let from = rig.put(&case.get().to_bytes());
        let to = DeviceBuffer::new(&rig.device, from.len()).unwrap();
        kernels
            .invert(&rig.stream, dtype, from.address(), to.address(), 700)
            .unwrap();
        let inverted = elements(dtype, &rig.get(&to)).values();
        let whole = if dtype == DType::U8 { 255.0 } else { 1.0 };
        for (a, b) in case.values().into_iter().zip(inverted) {
            let expected = if dtype == DType::F16 {
                f16::from_f32(whole - a).to_f32()
            } else {
                whole - a
            };
            assert_eq!(b, expected);
        }
        kernels
            .invert(&rig.stream, dtype, from.address(), to.address(), 0)
            .unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_queued() {
    let rig = Rig::new();
    let kernels = rig.device.kernels().unwrap();
    let spec = ImageSpec {
        format: PixelFormat::P010,
        width: 4,
        height: 4,
        matrix: Matrix::Bt709,
        range: ColorRange::Limited,
    };
    let frame = rig.put_frame(&noise(spec, 0, 1)[0]);
    let good = DeviceTensor {
        image: tensor(DType::F16, ChannelOrder::Rgb, 4, 4),
        address: 4096,
        slots: 1,
    };
    let into = |images: &[DeviceImage], tensor: &DeviceTensor| {
        let frames = Frames { spec: &spec, images };
        kernels.into_tensor(&rig.stream, frames, tensor, Fit::Stretch).err()
    };
    let argument = |error: Option<Error>| matches!(error, Some(Error::Argument { .. }));
    let mut odd = frame.image;
    odd.planes[1].address += 1;
    assert!(argument(into(&[odd], &good)));
    let mut odd = frame.image;
    odd.planes[0].stride += 1;
    assert!(argument(into(&[odd], &good)));
    assert!(argument(into(&[frame.image; 2], &good)));
    assert!(argument(into(&[frame.image], &DeviceTensor { address: 0, ..good })));
    assert!(argument(into(&[frame.image], &DeviceTensor { address: 4097, ..good })));
    let mut narrow = frame.image;
    narrow.planes[0].stride = 6;
    let refused = into(&[narrow], &good);
    assert!(matches!(
        refused,
        Some(Error::Convert(ConvertError::Stride { plane: 0, .. }))
    ));
    let from = |images: &[DeviceImage], spec: &ImageSpec, blend: Option<Blend<'_>>, counter| {
        kernels
            .from_tensor(&rig.stream, &good, Frames { spec, images }, blend, counter)
            .err()
    };
    assert!(argument(from(&[frame.image], &spec, None, 2)));
    let blend = |share, sources| Some(Blend { sources, share });
    assert!(argument(from(&[frame.image], &spec, blend(0.5, &[]), 4)));
    assert!(argument(from(
        &[frame.image],
        &spec,
        blend(f32::NAN, &[frame.image]),
        4
    )));
    let taller = ImageSpec { height: 5, ..spec };
    let refused = from(&[frame.image], &taller, None, 4);
    assert!(matches!(refused, Some(Error::Convert(ConvertError::Resize { .. }))));
    assert!(kernels.invert(&rig.stream, DType::I64, 8, 8, 1).is_err());
    #[cfg(not(feature = "gpu"))]
    assert_eq!(rig.turn.counters().launches, 0);
}

#[cfg(not(feature = "gpu"))]
#[test]
fn parameters_are_laid_out_alike_on_both_sides() {
    let sizes = [size_of::<IntoJob>(), size_of::<FromJob>(), size_of::<InvertJob>()];
    for (name, size) in ENTRIES.into_iter().zip(sizes) {
        assert_eq!(driver().parameters(name), size, "{name:?}");
        assert!(size <= 4096);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_agrees_with_the_oracle(
        format in 0..PixelFormat::DEVICE.len(),
        (matrix, range, fit) in (0..3usize, 0..2usize, 0..3usize),
        (width, height, padding) in (1..40usize, 1..24usize, 0..9usize),
        size in prop::option::of((1..40usize, 1..24usize)),
        kind in 0..1000usize,
        (count, more) in (1..6usize, 0..3usize),
        share in prop::option::of(0.0..=1.0f32),
    ) {
        let rig = Rig::new();
        let spec = ImageSpec {
            format: PixelFormat::DEVICE[format],
            width,
            height,
            matrix: MATRICES[matrix],
            range: RANGES[range],
        };
        let (to_width, to_height) = size.unwrap_or((width, height));
        let kinds = tensors(to_width, to_height);
        check_into(&rig, &noise(spec, padding, count), &kinds[kind % kinds.len()], FITS[fit], count + more);
        let kinds = tensors(width, height);
        check_from(&rig, spec, &kinds[kind % kinds.len()], padding, count, share);
    }
}
