use super::*;

fn dims(text: &str) -> Vec<Dim> {
    let dim = |word: &str| word.parse().map_or_else(|_| Dim::Dynamic(word.into()), Dim::Fixed);
    text.split_whitespace().map(dim).collect()
}

/// `name dtype: dimensions`
fn declared(text: &str) -> Declared {
    let (head, shape) = text.split_once(':').expect("a colon");
    let (name, dtype) = head.split_once(' ').expect("a space");
    let known = [DType::U8, DType::F16, DType::F32, DType::I32, DType::I64];
    let dtype = known
        .into_iter()
        .find(|known| known.name() == dtype)
        .ok_or_else(|| dtype.to_owned());
    Declared {
        name: name.into(),
        dtype,
        shape: dims(shape),
    }
}

fn fit_with(inputs: &[&str], outputs: &[&str], manifest: &str, metadata: &[(&str, &str)]) -> Result<Fitted, Error> {
    let all = |texts: &[&str]| texts.iter().map(|text| declared(text)).collect::<Vec<_>>();
    Model {
        name: "m.onnx",
        manifest_name: "m.toml",
        manifest: &Manifest::parse(manifest, "m.toml")?,
        metadata: &|key| {
            metadata
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| (*value).to_owned())
        },
        inputs: &all(inputs),
        outputs: &all(outputs),
    }
    .fit()
}

fn fit(inputs: &[&str], outputs: &[&str], manifest: &str) -> Result<Fitted, Error> {
    fit_with(inputs, outputs, manifest, &[])
}

fn image(port: &Port) -> ImagePort {
    match port.role {
        Role::Image(image) => image,
        Role::Tensor => panic!("{} is no image", port.name),
    }
}

#[test]
fn shapes_alone_tell_layout_order_size_and_batch() {
    for (input, layout, order, size, batch) in [
        (
            "x f32: batch 3 height width",
            Layout::Bchw,
            ChannelOrder::Rgb,
            (None, None),
            BatchSizes::UpTo(MAX_BATCH),
        ),
        (
            "x u8: b h w 3",
            Layout::Bhwc,
            ChannelOrder::Rgb,
            (None, None),
            BatchSizes::UpTo(MAX_BATCH),
        ),
        (
            "x f16: 2 3 512 256",
            Layout::Bchw,
            ChannelOrder::Rgb,
            (Some(256), Some(512)),
            BatchSizes::Fixed(2),
        ),
        (
            "x f32: 1 1 8 w",
            Layout::Bchw,
            ChannelOrder::Gray,
            (None, Some(8)),
            BatchSizes::Fixed(1),
        ),
        (
            "x f32: 3 h w",
            Layout::Chw,
            ChannelOrder::Rgb,
            (None, None),
            BatchSizes::Fixed(1),
        ),
        (
            "x u8: h w 1",
            Layout::Hwc,
            ChannelOrder::Gray,
            (None, None),
            BatchSizes::Fixed(1),
        ),
        (
            "x u8: 1 1 9 3",
            Layout::Bhwc,
            ChannelOrder::Rgb,
            (Some(9), Some(1)),
            BatchSizes::Fixed(1),
        ),
    ] {
        let fitted = fit(&[input], &["y f32: n 7"], "").expect(input);
        let image = image(&fitted.inputs[0]);
        assert_eq!((image.layout, image.order), (layout, order), "{input}");
        assert_eq!((image.width, image.height), size, "{input}");
        assert_eq!(fitted.batch, batch, "{input}");
        assert_eq!(fitted.outputs[0].role, Role::Tensor);
    }
}

#[test]
fn value_is_byte_to_range_minus_mean_by_std() {
    let numbers = |input: &str, lines: &str| {
        let manifest = format!("[inputs.x]\n{lines}");
        let fitted = fit(&[input], &["y f32: n 7"], &manifest).expect(lines);
        let image = image(&fitted.inputs[0]);
        (image.scale, image.bias)
    };
    assert_eq!(numbers("x u8: b h w 3", ""), ([1.0; 3], [0.0; 3]));
    assert_eq!(numbers("x f32: b 3 h w", ""), ([1.0 / 255.0; 3], [0.0; 3]));
    assert_eq!(
        numbers("x f32: b 3 h w", "range = [-1.0, 1.0]"),
        ([2.0 / 255.0; 3], [-1.0; 3])
    );
    assert_eq!(numbers("x f16: b 3 h w", "range = [0.0, 255.0]"), ([1.0; 3], [0.0; 3]));
    assert_eq!(
        numbers("x f32: b 3 h w", "mean = [0.5]\nstd = [0.5]"),
        ([2.0 / 255.0; 3], [-1.0; 3])
    );
    let (scale, bias) = numbers("x f32: b 3 h w", "mean = [0.1, 0.2, 0.3]\nstd = [0.5, 0.25, 1.0]");
    assert_eq!(scale, [2.0 / 255.0, 4.0 / 255.0, 1.0 / 255.0]);
    assert_eq!(bias, [-0.2, -0.8, -0.3]);
}

#[test]
fn the_first_picture_among_the_outputs_is_the_frame_unless_the_manifest_says() {
    let roles = |outputs: &[&str], manifest: &str| {
        let fitted = fit(&["x f32: b 3 h w"], outputs, manifest).expect("fits");
        fitted
            .outputs
            .iter()
            .map(|port| matches!(port.role, Role::Image(_)))
            .collect::<Vec<_>>()
    };
    let outputs = ["scores f32: b 1000", "a f32: b 3 h w", "depth f32: b 1 h w"];
    assert_eq!(roles(&outputs, ""), [false, true, false]);
    assert_eq!(roles(&outputs, "[outputs.depth]\nrole = 'image'"), [false, false, true]);
    assert_eq!(roles(&outputs, "[outputs.depth]\norder = 'GRAY'"), [false, false, true]);
    assert_eq!(roles(&outputs, "[outputs.a]\nrole = 'tensor'"), [false, false, true]);
    let none = "[outputs.a]\nrole = 'tensor'\n[outputs.depth]\nrole = 'tensor'\nmeaning = 'distance'\nunit = 'm'";
    assert_eq!(roles(&outputs, none), [false, false, false]);
    // None of these is a picture: boxes, class scores in four dimensions, integers.
    assert_eq!(
        roles(&["y f32: 1 100 3", "z f32: b 1 1 1000", "i i64: b 3 h w"], ""),
        [false, false, false]
    );
}

#[test]
fn the_batch_limit_comes_from_the_manifest() {
    let batch = |input: &str, max| fit(&[input], &["y f32: n 7"], &format!("[batch]\nmax = {max}"));
    assert_eq!(batch("x f32: b 3 h w", 8).unwrap().batch, BatchSizes::UpTo(8));
    assert_eq!(batch("x f32: 2 3 h w", 2).unwrap().batch, BatchSizes::Fixed(2));
    let text = batch("x f32: 2 3 h w", 4).unwrap_err().to_string();
    assert_eq!(
        text,
        "manifest m.toml: [batch] max = 4: the model's batch is always 2; take the line out"
    );
}

#[test]
fn metadata_is_asked_after_the_manifest_and_before_the_shape() {
    let input = "x f32: b c h w";
    let metadata = [
        ("comfy.layout", "BCHW"),
        ("comfy.order", "BGR"),
        ("comfy.range", "-1, 1"),
        ("comfy.x.std", "[2]"),
    ];
    let fitted = fit_with(&[input], &["y f32: b 1 h w", "z f32: b 3 h w"], "", &metadata).unwrap();
    let image_in = image(&fitted.inputs[0]);
    assert_eq!((image_in.order, image_in.bias), (ChannelOrder::Bgr, [-0.5; 3]));
    // A key for all images does not make one of an output, and does not spoil one that it cannot be meant for.
    let image_out = image(&fitted.outputs[0]);
    assert_eq!((image_out.order, image_out.bias), (ChannelOrder::Gray, [-1.0; 3]));
    assert_eq!(fitted.outputs[1].role, Role::Tensor);
    let over = fit_with(&[input], &["y f32: b 7"], "[inputs.x]\norder = 'RGB'", &metadata).unwrap();
    assert_eq!(image(&over.inputs[0]).order, ChannelOrder::Rgb);
    let role = [("comfy.z.role", "image")];
    let fitted = fit_with(&["x f32: b 3 h w"], &["y f32: b 3 h w", "z f32: b 3 h w"], "", &role).unwrap();
    assert_eq!(fitted.outputs[0].role, Role::Tensor);
}

#[test]
fn misfits_name_tensor_shape_expectation_and_lines() {
    let good = "y f32: b 3 h w";
    for (inputs, outputs, manifest, metadata, parts) in [
        (
            &["x f32: batch 4 height width"][..],
            &[good][..],
            "",
            None,
            &[
                "model m.onnx does not fit: input `x` is f32 [batch, 4, height, width]: expected one image of 3 or 1 \
                 channels",
                "in m.toml:\n[inputs.x]\nrole = \"image\"\nlayout = \"BCHW\"\norder = \"RGB\"",
            ][..],
        ),
        (
            &["x f32: b 10"],
            &[good],
            "",
            None,
            &["input `x` is f32 [b, 10]: expected one image"],
        ),
        (
            &["x i64: b 3 h w"],
            &[good],
            "",
            None,
            &["`x` is i64 [b, 3, h, w]: expected an image of u8, f16 or f32"],
        ),
        (
            &["x f64: b 3 h w"],
            &[good],
            "",
            None,
            &["`x` is f64", "u8, f16 or f32"],
        ),
        (
            &["x f32: b 3 h w", "mask f32: b 1 h w", "t i64: 1"],
            &[good],
            "",
            None,
            &[
                "it wants 3 inputs",
                "in place of `mask` (f32 [b, 1, h, w]), `t` (i64 [1])",
            ],
        ),
        (&[], &[good], "", None, &["it has no input"]),
        (&["x f32: b 3 h w"], &[], "", None, &["it has no output"]),
        (
            &["x f32: b 3 h w"],
            &["y bool: b 4"],
            "",
            None,
            &["output `y` is bool [b, 4]; expected u8, f16"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "[inputs.z]\nlayout = 'BCHW'",
            None,
            &["[inputs.z] names no tensor of m.onnx; its inputs are `x` (f32 [b, 3, h, w])"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "[inputs.x]\nlayout = 'CHW'",
            None,
            &["layout CHW has 3 dimensions"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "[inputs.x]\nlayout = 'BHWC'\n[outputs.y]\nrole = 'image'",
            None,
            // The last dimension is dynamic, so this fits as far as is known.
            &[],
        ),
        (
            &["x f32: b 3 h 7"],
            &[good],
            "[inputs.x]\nlayout = 'BHWC'",
            None,
            &["in layout BHWC it has 7 channels; expected 3 or 1"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "[inputs.x]\norder = 'GRAY'",
            None,
            &["in layout BCHW it has 3 channels, and order GRAY has 1"],
        ),
        (
            &["x u8: b h w 3"],
            &[good],
            "[inputs.x]\nrange = [0.0, 1.0]",
            None,
            &["u8 tensors hold the bytes themselves"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "[inputs.x]\nrole = 'tensor'",
            None,
            &["expected one image"],
        ),
        (
            &["x f32: b 3 h w"],
            &["y f32: 3 h w"],
            "[outputs.y]\nlayout = 'CHW'",
            None,
            &["CHW has no batch"],
        ),
        (
            &["x f32: b 3 h w"],
            &["y f32: 1 3 h w"],
            "",
            None,
            &[
                "output `y` is f32 [1, 3, h, w]: expected a batch that follows the input's",
                "role = \"tensor\"",
            ],
        ),
        (
            &["x f32: 2 3 h w"],
            &["y f32: 1 3 h w"],
            "",
            None,
            &["expected as many images as the input's, 2"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good, "z f32: b 3 h w"],
            "[outputs.y]\nrole = 'image'\n[outputs.z]\nrole = 'image'",
            None,
            &["outputs `y` and `z` are both declared images"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "",
            Some(("comfy.layout", "NCHW")),
            &["comfy.layout = `NCHW`; expected BCHW"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "",
            Some(("comfy.range", "0")),
            &["expected two numbers"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "",
            Some(("comfy.mean", "a,b")),
            &["expected numbers with commas"],
        ),
        (
            &["x f32: b 3 h w"],
            &[good],
            "",
            Some(("comfy.x.std", "0")),
            &["comfy.x.*: std = [0.0]"],
        ),
        (
            &["x f32: 0 3 h w"],
            &[good],
            "",
            None,
            &["expected a batch of at least 1"],
        ),
        (&["x f32: b 3 0 w"], &[good], "", None, &["expected at least one pixel"]),
    ] {
        let metadata: Vec<_> = metadata.into_iter().collect();
        let result = fit_with(inputs, outputs, manifest, &metadata);
        if parts.is_empty() {
            assert!(result.is_ok(), "{inputs:?}: {result:?}");
            continue;
        }
        let text = result
            .expect_err(&format!("{inputs:?} {outputs:?} {manifest}"))
            .to_string();
        for part in parts {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }
}

#[test]
fn the_lines_that_a_misfit_proposes_are_a_manifest() {
    let text = fit(&["a/b f32: b 4 h w"], &["y f32: b 7"], "").unwrap_err().to_string();
    let (_, lines) = text.split_once("m.toml:\n").expect("lines");
    assert!(
        Manifest::parse(lines, "m.toml").unwrap().inputs.contains_key("a/b"),
        "{lines}"
    );
}

#[test]
fn a_shape_that_the_model_does_not_tell_can_be_told_by_the_manifest() {
    let fitted = fit(
        &["x f32:"],
        &["y f32:"],
        "[inputs.x]\nlayout = 'BCHW'\n[outputs.y]\nlayout = 'BCHW'",
    )
    .unwrap();
    assert_eq!(fitted.batch, BatchSizes::UpTo(MAX_BATCH));
    assert_eq!(image(&fitted.outputs[0]).layout, Layout::Bchw);
    assert!(fit(&["x f32:"], &["y f32: b 7"], "").is_err());
}

proptest::proptest! {
    #[test]
    fn no_declaration_panics(
        input in proptest::collection::vec("[0-4bhw]", 0..6),
        output in proptest::collection::vec("[0-4bhw]", 0..6),
        layout in "(BCHW|BHWC|CHW|HWC|x)",
        role in "(image|tensor)",
    ) {
        let (input, output) = (format!("x f32: {}", input.join(" ")), format!("y u8: {}", output.join(" ")));
        let _ = fit(&[&input], &[&output], &format!("[outputs.y]\nrole = '{role}'"));
        let _ = fit_with(&[&input], &[&output], "", &[("comfy.layout", &layout), ("comfy.y.role", &role)]);
        let _ = fit(&[&input, &output], &[&output], "");
    }
}
