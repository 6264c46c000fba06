//! Descriptions and buffers that need not fit each other.

use proptest::prelude::*;

use super::*;

fn any_spec() -> impl Strategy<Value = ImageSpec> {
    (0..9usize, 0..20usize, 0..20usize, any::<bool>(), any::<bool>()).prop_map(
        |(format, width, height, bt601, full)| ImageSpec {
            format: PixelFormat::ALL[format],
            width,
            height,
            matrix: if bt601 { Matrix::Bt601 } else { Matrix::Bt709 },
            range: if full { ColorRange::Full } else { ColorRange::Limited },
        },
    )
}

fn any_tensor() -> impl Strategy<Value = ImageTensor> {
    let dtypes = vec![DType::U8, DType::F16, DType::F32, DType::I32];
    let orders = vec![ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray];
    let scales = vec![1.0, 1.0, BYTE, -0.01, 0.0, f32::NAN];
    (
        prop::sample::select(dtypes),
        any::<bool>(),
        prop::sample::select(orders),
        0..20usize,
        0..20usize,
        prop::sample::select(scales),
    )
        .prop_map(|(dtype, planar, order, width, height, scale)| ImageTensor {
            dtype,
            planar,
            order,
            width,
            height,
            scale: [scale; 3],
            bias: [0.0; 3],
        })
}

/// Strides and lengths: half of the time too little or absurd, else what the format needs, and some more.
fn any_frame(spec: ImageSpec) -> impl Strategy<Value = Frame> {
    let plane = || (0..4usize, 0..90usize, 0..1500usize);
    [plane(), plane(), plane()].prop_map(move |planes| {
        let mut frame = Frame {
            spec,
            planes: Default::default(),
            strides: [0; 3],
        };
        for (i, (kind, stride, len)) in planes.into_iter().enumerate() {
            let (rows, row) = spec.format.plane_size(i, spec.width, spec.height);
            let (stride, len) = match kind {
                0 => (stride, len),
                1 => (usize::MAX - stride, len),
                _ => (row + stride, (row + stride) * rows),
            };
            frame.strides[i] = stride;
            frame.planes[i] = (0..len).map(|i| (i * 31) as u8).collect();
        }
        frame
    })
}

fn any_case() -> impl Strategy<Value = (Frame, ImageTensor, Elements)> {
    (any_spec(), any_tensor(), any::<bool>(), any::<bool>(), 0..3usize).prop_flat_map(
        |(spec, mut tensor, same_size, same_dtype, off)| {
            if same_size {
                (tensor.width, tensor.height) = (spec.width, spec.height);
            }
            let dtype = if same_dtype { tensor.dtype } else { DType::F32 };
            let data = Elements::new(dtype, tensor.len() + off / 2);
            (any_frame(spec), Just(tensor), Just(data))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_handed_over_both_agree_or_refuse_it_alike((frame, tensor, data) in any_case()) {
        let (mut slow, mut fast) = (data.clone(), data.clone());
        let expected = into_tensor(&frame.spec, &frame.image(), &tensor, slow.get_mut());
        let got = IntoTensor::new(frame.spec, tensor).and_then(|mut convert| convert.run(&frame.image(), fast.get_mut()));
        prop_assert_eq!(format!("{expected:?}"), format!("{got:?}"));
        if got.is_ok() {
            // One for each of the two steps that may round to the neighbour: luma or RGB, then the mean of the filter.
            // And the step of f16 near 2.55, which is 0.195 bytes at a scale of 0.01.
            let resized = (frame.spec.width, frame.spec.height) != (tensor.width, tensor.height);
            let tolerance = if resized { 2.2 } else { 1.2 };
            prop_assert!(tensor_difference(&tensor, &slow, &fast) <= tolerance);
        }

        let (mut slow, mut fast) = (frame.clone(), frame.clone());
        let expected = from_tensor(&tensor, data.get(), &frame.spec, &mut slow.image_mut());
        let got = FromTensor::new(tensor, frame.spec)
            .and_then(|mut convert| convert.run(data.get(), &mut fast.image_mut()));
        prop_assert_eq!(format!("{expected:?}"), format!("{got:?}"));
        prop_assert!(frame_difference(&slow, &fast) <= 1);
    }
}
