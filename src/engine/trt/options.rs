//! What TensorRT is told when it compiles a model: a table of settings, and the sizes that frames may have.

use std::path::Path;

use super::io::Range;
use super::store::Cache;
use crate::engine::{Error, ImagePort, Port, Precision, Shapes};
use crate::tensor::{Dim, Layout};

/// The context model that a compilation leaves in its folder. It is opened in place of the model from then on.
pub(in crate::engine) const CONTEXT: &str = "model_ctx.onnx";

/// The sizes to compile for, as the provider reads them: `image:1x3x512x512`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub(in crate::engine) struct Profile {
    pub(in crate::engine) min: String,
    pub(in crate::engine) opt: String,
    pub(in crate::engine) max: String,
    /// The same in numbers.
    pub(in crate::engine) range: Range,
}

impl Profile {
    /// All of it on one line.
    pub(in crate::engine) fn text(&self) -> String {
        format!("{} to {}, best {}", self.min, self.max, self.opt)
    }
}

/// The profile of a model with one image. None: no dimension of it varies, or one does of which nobody said how far;
/// then the provider learns it from the frames.
pub(in crate::engine) fn profile(
    port: &Port,
    image: &ImagePort,
    shapes: Option<&Shapes>,
) -> Result<Option<Profile>, Error> {
    let Some(shapes) = shapes else { return Ok(None) };
    let refuse = |reason: String| Err(Error::Setting(reason));
    let places = match image.layout {
        Layout::Chw => ["channels", "height", "width", ""],
        Layout::Hwc => ["height", "width", "channels", ""],
        Layout::Bchw => ["batch", "channels", "height", "width"],
        Layout::Bhwc => ["batch", "height", "width", "channels"],
    };
    let batches = &shapes.batches;
    let mut sizes: [Vec<usize>; 3] = Default::default();
    let mut varies = false;
    for (dim, place) in port.shape.iter().zip(places) {
        let asked = match (place, shapes.size) {
            ("batch", _) => batches.iter().min().copied().zip(batches.iter().max().copied()),
            ("height", size) => size.map(|(_, height)| (height, height)),
            ("width", size) => size.map(|(width, _)| (width, width)),
            _ => Some((image.order.channels(), image.order.channels())),
        };
        let (min, max) = match (dim, asked) {
            (Dim::Fixed(n), Some((min, max))) if min > *n || max < *n || (max > *n && place != "batch") => {
                let asked = if min == max {
                    min.to_string()
                } else {
                    format!("{min} to {max}")
                };
                return refuse(format!("{place} {asked} is asked for, and the model's is always {n}"));
            }
            (Dim::Fixed(n), _) => (*n, *n),
            (Dim::Dynamic(_), None) => return Ok(None),
            (Dim::Dynamic(_), Some((0, _))) => return refuse(format!("{place} 0: expected 1 or more")),
            (Dim::Dynamic(_), Some(asked)) => {
                varies = true;
                asked
            }
        };
        // Full batches are the rule while frames flow.
        for (list, n) in sizes.iter_mut().zip([min, max, max]) {
            list.push(n);
        }
    }
    let text = |list: &[usize]| {
        let numbers: Vec<String> = list.iter().map(ToString::to_string).collect();
        format!("{}:{}", port.name, numbers.join("x"))
    };
    let [min, opt, max] = sizes;
    Ok(varies.then(|| Profile {
        min: text(&min),
        opt: text(&opt),
        max: text(&max),
        range: Range { min, opt, max },
    }))
}

/// What a compilation is told.
pub(in crate::engine) struct Compile<'a> {
    pub(in crate::engine) device: u32,
    pub(in crate::engine) precision: Precision,
    pub(in crate::engine) profile: Option<&'a Profile>,
    /// No size is left to be learnt from the frames.
    pub(in crate::engine) complete: bool,
    /// Where everything goes.
    pub(in crate::engine) folder: &'a Path,
    /// How the engine's name begins.
    pub(in crate::engine) prefix: &'a str,
    pub(in crate::engine) cache: &'a Cache,
}

/// The settings of a compilation.
///
/// A context model is left behind by one that knows all sizes: it is opened from then on, and could not learn others.
/// The path of its engine is relative to it, so no other folder may be named then.
pub(in crate::engine) fn compile(compile: &Compile<'_>) -> Vec<(&'static str, String)> {
    let mut options = run(compile.device, compile.precision);
    options.extend([
        ("trt_engine_cache_enable", "1".into()),
        ("trt_engine_cache_prefix", compile.prefix.into()),
        ("trt_timing_cache_enable", "1".into()),
        ("trt_timing_cache_path", compile.cache.timing().display().to_string()),
        // An engine for every GPU from Ampere on is slower on each of them; the key knows this one.
        ("trt_engine_hw_compatible", "0".into()),
    ]);
    let folder = compile.folder;
    if compile.complete {
        options.extend([
            ("trt_dump_ep_context_model", "1".into()),
            ("trt_ep_context_file_path", folder.join(CONTEXT).display().to_string()),
            ("trt_ep_context_embed_mode", "0".into()),
        ]);
    } else {
        options.push(("trt_engine_cache_path", folder.display().to_string()));
    }
    if let Some(profile) = compile.profile {
        options.extend([
            ("trt_profile_min_shapes", profile.min.clone()),
            ("trt_profile_opt_shapes", profile.opt.clone()),
            ("trt_profile_max_shapes", profile.max.clone()),
        ]);
    }
    options
}

/// The settings for what is compiled already.
pub(in crate::engine) fn run(device: u32, precision: Precision) -> Vec<(&'static str, String)> {
    let half = precision == Precision::Fp16;
    vec![
        ("device_id", device.to_string()),
        ("trt_fp16_enable", u8::from(half).to_string()),
    ]
}

/// The same for TensorRT for RTX, which takes the precision from the model.
pub(in crate::engine) fn rtx(profile: Option<&Profile>, runtime_cache: Option<&Path>) -> Vec<(&'static str, String)> {
    let mut options = Vec::new();
    if let Some(profile) = profile {
        options.extend([
            ("nv_profile_min_shapes", profile.min.clone()),
            ("nv_profile_opt_shapes", profile.opt.clone()),
            ("nv_profile_max_shapes", profile.max.clone()),
        ]);
    }
    if let Some(folder) = runtime_cache {
        options.push(("nv_runtime_cache_path", folder.display().to_string()));
    }
    options
}

/// A precision by its nick, as it stands in a key.
pub(in crate::engine) fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Auto => "auto",
        Precision::Fp32 => "fp32",
        Precision::Fp16 => "fp16",
    }
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use super::*;
    use crate::engine::Role;
    use crate::tensor::{ChannelOrder, DType};

    fn port(layout: Layout, shape: &[i64]) -> (Port, ImagePort) {
        let image = ImagePort {
            layout,
            order: ChannelOrder::Rgb,
            scale: [1.0; 3],
            bias: [0.0; 3],
            width: None,
            height: None,
        };
        let dim = |n: &i64| usize::try_from(*n).map_or_else(|_| Dim::Dynamic("d".into()), Dim::Fixed);
        let port = Port {
            name: "image".into(),
            dtype: DType::F32,
            shape: shape.iter().map(dim).collect(),
            role: Role::Image(image),
        };
        (port, image)
    }

    fn shapes(size: Option<(usize, usize)>, batches: &[usize]) -> Shapes {
        Shapes {
            size,
            batches: batches.into(),
        }
    }

    #[test]
    fn profiles_follow_from_the_batches_and_the_size() {
        let size = Some((640, 360));
        for (layout, shape, shapes, expected) in [
            (
                Layout::Bchw,
                &[-1, 3, -1, -1][..],
                shapes(size, &[1, 2, 4]),
                Some("image:1x3x360x640 to image:4x3x360x640, best image:4x3x360x640"),
            ),
            (
                Layout::Bhwc,
                &[-1, -1, -1, 3],
                shapes(size, &[2]),
                Some("image:2x360x640x3 to image:2x360x640x3, best image:2x360x640x3"),
            ),
            (
                Layout::Bchw,
                &[-1, 3, 512, 512],
                shapes(None, &[8, 1]),
                Some("image:1x3x512x512 to image:8x3x512x512, best image:8x3x512x512"),
            ),
            (
                Layout::Chw,
                &[3, -1, -1],
                shapes(size, &[1]),
                Some("image:3x360x640 to image:3x360x640, best image:3x360x640"),
            ),
            (Layout::Bchw, &[-1, 3, -1, -1], shapes(None, &[1, 4]), None),
            (Layout::Bchw, &[-1, 3, -1, -1], shapes(size, &[]), None),
            (Layout::Bchw, &[1, 3, 360, 640], shapes(size, &[1]), None),
            (Layout::Bchw, &[2, 3, 512, 512], shapes(None, &[1, 2]), None),
        ] {
            let (port, image) = port(layout, shape);
            let found = profile(&port, &image, Some(&shapes)).unwrap();
            assert_eq!(found.map(|profile| profile.text()).as_deref(), expected, "{shape:?}");
            assert_eq!(profile(&port, &image, None), Ok(None));
        }
    }

    #[test]
    fn sizes_that_the_model_cannot_have_are_refused() {
        for (shape, shapes, part) in [
            (
                &[-1, 3, 512, 512][..],
                shapes(Some((640, 512)), &[1]),
                "width 640 is asked for, and the model's is always 512",
            ),
            (
                &[2, 3, -1, -1],
                shapes(Some((8, 8)), &[4]),
                "batch 4 is asked for, and the model's is always 2",
            ),
            (&[2, 3, -1, -1], shapes(Some((8, 8)), &[1]), "batch 1 is asked for"),
            (
                &[-1, 3, -1, -1],
                shapes(Some((8, 8)), &[0, 1]),
                "batch 0: expected 1 or more",
            ),
        ] {
            let (port, image) = port(Layout::Bchw, shape);
            let text = profile(&port, &image, Some(&shapes)).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    fn range() -> Range {
        Range {
            min: vec![1, 3, 8, 8],
            opt: vec![4, 3, 8, 8],
            max: vec![4, 3, 8, 8],
        }
    }

    /// Every setting that is given.
    pub(in crate::engine) fn all(complete: bool) -> Vec<(&'static str, String)> {
        let profile = Profile {
            min: "image:1x3x8x8".into(),
            opt: "image:4x3x8x8".into(),
            max: "image:4x3x8x8".into(),
            range: range(),
        };
        let cache = Cache::at(Some(Path::new("/c"))).unwrap();
        compile(&Compile {
            device: 1,
            precision: Precision::Fp16,
            profile: Some(&profile).filter(|_| complete),
            complete,
            folder: Path::new("/c/cartoon-0123456789abcdef"),
            prefix: "cartoon",
            cache: &cache,
        })
    }

    #[test]
    fn a_compilation_is_told_where_everything_goes() {
        let lines: Vec<String> = all(true).iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            lines,
            [
                "device_id=1",
                "trt_fp16_enable=1",
                "trt_engine_cache_enable=1",
                "trt_engine_cache_prefix=cartoon",
                "trt_timing_cache_enable=1",
                "trt_timing_cache_path=/c/timing",
                "trt_engine_hw_compatible=0",
                "trt_dump_ep_context_model=1",
                "trt_ep_context_file_path=/c/cartoon-0123456789abcdef/model_ctx.onnx",
                "trt_ep_context_embed_mode=0",
                "trt_profile_min_shapes=image:1x3x8x8",
                "trt_profile_opt_shapes=image:4x3x8x8",
                "trt_profile_max_shapes=image:4x3x8x8",
            ]
        );
        let open = all(false);
        assert!(open.contains(&("trt_engine_cache_path", "/c/cartoon-0123456789abcdef".into())));
        assert!(
            !open
                .iter()
                .any(|(key, _)| key.contains("context") || key.contains("profile")),
            "{open:?}"
        );
    }

    #[test]
    fn what_is_compiled_is_told_its_device_alone() {
        assert_eq!(
            run(0, Precision::Auto),
            [("device_id", "0".to_owned()), ("trt_fp16_enable", "0".to_owned())]
        );
        assert_eq!(rtx(None, None), []);
        let profile = Profile {
            min: "a".into(),
            opt: "b".into(),
            max: "c".into(),
            range: range(),
        };
        let keys: Vec<&str> = rtx(Some(&profile), Some(Path::new("/c")))
            .iter()
            .map(|(key, _)| *key)
            .collect();
        assert_eq!(
            keys,
            [
                "nv_profile_min_shapes",
                "nv_profile_opt_shapes",
                "nv_profile_max_shapes",
                "nv_runtime_cache_path"
            ]
        );
    }
}
