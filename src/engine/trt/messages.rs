//! What providers say when something cannot be had, in other words: what it is, and what to do.

use super::io::Io;

/// The same in one clause. None: it is said as it is.
pub(in crate::engine) fn explain(said: &str) -> Option<String> {
    if let Some(file) = missing_library(said) {
        return Some(format!("{file} is missing ({})", provides(file)));
    }
    let lower = said.to_lowercase();
    let found = PROVIDERS
        .iter()
        .find(|(signs, _)| signs.iter().all(|sign| lower.contains(sign)))?;
    Some(found.1.into())
}

/// Signs, all of which are in what is said, in lower case; and what it means.
const PROVIDERS: [(&[&str], &str); 8] = [
    (
        &["not enabled in this build"],
        "not in this build of ONNX Runtime (take the one of pip's onnxruntime-gpu, and set ORT_DYLIB_PATH to it)",
    ),
    (
        &["cuda failure 35"],
        "the driver is missing or older than the CUDA libraries (install NVIDIA's driver 580 or newer)",
    ),
    (
        &["cuda failure 100"],
        "the driver sees no GPU (give this machine or container access to one; `nvidia-smi` lists them)",
    ),
    (
        &["cuda failure 101"],
        "there is no GPU of that number (choose another `device-id`; `nvidia-smi` lists them)",
    ),
    (
        &["cuda failure 2:"],
        "the GPU's memory is full (end what else runs on it, or take smaller batches)",
    ),
    (
        &["out of memory"],
        "the GPU's memory is full (end what else runs on it, or take smaller batches)",
    ),
    (
        &["cuda failure 999"],
        "the driver is not in order (restart the machine, or load the driver anew)",
    ),
    (
        &["no ep devices"],
        "its plugin finds no RTX GPU (it needs one of Ampere or later, with driver 580 or newer)",
    ),
];

/// `libnvinfer.so.10` of `... libnvinfer.so.10: cannot open shared object file: No such file or directory`.
fn missing_library(said: &str) -> Option<&str> {
    let before = said.split(": cannot open shared object file").next()?;
    if before.len() == said.len() {
        return None;
    }
    let name = before.rsplit([' ', '/', ':', '"']).next()?;
    name.contains(".so").then_some(name)
}

/// What to install for a library.
fn provides(file: &str) -> String {
    let version = file.rsplit(".so.").next().filter(|version| *version != file);
    let version = version.map(|version| version.split('.').next().unwrap_or(version));
    let numbered = |name: &str, version: Option<&str>| match version {
        Some(version) => format!("{name} {version}"),
        None => name.into(),
    };
    let path = "in the loader's path";
    let starts = |names: &[&str]| names.iter().any(|name| file.starts_with(name));
    if starts(&["libcuda.so", "libnvidia-ml"]) {
        "install NVIDIA's driver (Debian: apt install nvidia-driver)".into()
    } else if starts(&["libcudnn"]) {
        format!("install {} {path}", numbered("cuDNN", version))
    } else if starts(&["libnvinfer", "libnvonnxparser"]) {
        format!("install {} {path}", numbered("TensorRT", version))
    } else if starts(&["libtensorrt_"]) {
        "install TensorRT for RTX (pip's onnxruntime-ep-nv-tensorrt-rtx-cu13 has it) and link its versioned files \
         under the names that end in .so.1"
            .into()
    } else if starts(&["libcurand", "libcufft"]) {
        // Their numbers are not CUDA's.
        format!("install CUDA {path}")
    } else if starts(&["libcublas", "libcudart", "libnvrtc", "libnvJitLink"]) {
        format!("install {} {path}", numbered("CUDA", version))
    } else if starts(&["libonnxruntime_providers"]) {
        "take the whole GPU build of ONNX Runtime, it belongs beside libonnxruntime.so".into()
    } else {
        format!("install what holds it {path}")
    }
}

/// What is wrong with a compiled engine, from what was said when it was opened or run. None: nothing that is known.
pub(in crate::engine) fn of_engine(said: &str, io: &Io, stem: &str, device: Option<&str>) -> Option<String> {
    let lower = said.to_lowercase();
    let has = |signs: &[&str]| signs.iter().all(|sign| lower.contains(sign));
    let rebuild = format!("compile it anew here: {}", rebuild(stem));
    let sidecar = io.tensorrt.as_deref().map(|version| format!("TensorRT {version}"));
    if has(&["epcontext", "not compatible with any execution provider"]) {
        return Some("it is a compiled TensorRT engine, which nothing but backend=tensorrt runs".into());
    }
    for signs in [
        &["not compatible with this version of tensorrt"][..],
        &["version tag does not match"],
        &["serialized engine version"],
        &["magic tag does not match"],
        &["magictagread"],
        &["stdversionread"],
    ] {
        if has(signs) {
            let numbers = between(said, "expecting library version ", " got ")
                .zip(after(said, " got "))
                .map(|(here, there)| format!("TensorRT {there}, and TensorRT {here} is here"));
            let from = numbers.or(sidecar.map(|version| format!("{version}, and another is here")));
            let from = from.unwrap_or_else(|| "another version of TensorRT".into());
            return Some(format!("it was compiled by {from}; {rebuild}"));
        }
    }
    for signs in [
        &["incompatible device"][..],
        &["expecting compute "],
        &["different compatibility level"],
        &["no kernel image is available"],
        &["cuda failure 209"],
    ] {
        if has(signs) {
            let of = between(said, "expecting compute ", " got compute ")
                .zip(after(said, " got compute "))
                .map(|(here, there)| format!("compute capability {there}, and this one has {here}"));
            let of = of.or(io.architecture.as_deref().map(|architecture| match device {
                Some(device) => format!("compute capability {architecture}, and this one has {device}"),
                None => format!("compute capability {architecture}"),
            }));
            let of = of.unwrap_or_else(|| "another kind".into());
            return Some(format!("it was compiled for a GPU of {of}; {rebuild}"));
        }
    }
    for signs in [
        &["setinputshape"][..],
        &["satisfyprofile"],
        &["does not satisfy any optimization profile"],
        &["invalid dimensions for input"],
        &["static dimension mismatch"],
        &["supplied binding dimension"],
        &["invalid rank for input"],
    ] {
        if has(signs) {
            return Some(format!(
                "it was not compiled for frames of this size, or for this many ({}); {rebuild} --size WxH --batch N",
                io.text()
            ));
        }
    }
    for signs in [
        &["could not deserialize engine"][..],
        &["failed to deserialize engine"],
        &["deserializecudaengine"],
        &["serialization assertion"],
    ] {
        if has(signs) {
            return Some(format!(
                "TensorRT cannot read it: it is damaged, no engine, or compiled by a version or for a GPU other than \
                 those here; {rebuild}"
            ));
        }
    }
    if has(&["can't find engine cache"]) {
        return Some(format!("the engine that it names is not there; {rebuild}"));
    }
    None
}

/// Refuses an engine for another GPU before anything is loaded for it. Both sides are compute capabilities, `89`.
pub(in crate::engine) fn other_gpu(io: &Io, stem: &str, device: &str) -> Option<String> {
    let wanted = io.architecture.as_deref()?;
    let (wanted_number, here) = (
        wanted.trim_end_matches('+').parse::<u16>().ok()?,
        device.parse::<u16>().ok()?,
    );
    let fits = if wanted.ends_with('+') {
        here >= wanted_number
    } else {
        here == wanted_number
    };
    (!fits).then(|| {
        format!(
            "it was compiled for a GPU of compute capability {wanted}, and this one has {device}; compile it anew \
             here: {}",
            rebuild(stem)
        )
    })
}

/// The command that compiles a model here.
pub(in crate::engine) fn rebuild(stem: &str) -> String {
    format!("comfystream engine build --model {stem}.onnx")
}

/// Up to the next space, comma or end.
fn after<'a>(said: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = said.split_once(mark)?;
    let word = rest.split([' ', ',', ';', ')']).next()?.trim_end_matches('.');
    (!word.is_empty()).then_some(word)
}

fn between<'a>(said: &'a str, first: &str, second: &str) -> Option<&'a str> {
    let (_, rest) = said.split_once(first)?;
    let (word, _) = rest.split_once(second)?;
    (word.len() < 40).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::trt::sidecar;

    #[test]
    fn what_providers_say_becomes_what_to_do() {
        let missing = |file: &str| {
            format!(
                "Failed to load library libonnxruntime_providers_x.so with error: {file}: cannot open shared object \
                 file: No such file or directory"
            )
        };
        for (said, expected) in [
            (
                missing("libnvinfer.so.10"),
                "libnvinfer.so.10 is missing (install TensorRT 10 in",
            ),
            (missing("libnvonnxparser.so.10"), "install TensorRT 10 in"),
            (
                missing("libcublasLt.so.13"),
                "libcublasLt.so.13 is missing (install CUDA 13 in",
            ),
            (missing("libcudart.so.13"), "install CUDA 13 in"),
            (
                missing("libcurand.so.10"),
                "libcurand.so.10 is missing (install CUDA in",
            ),
            (missing("libcudnn.so.9"), "install cuDNN 9 in"),
            (missing("libcuda.so.1"), "install NVIDIA's driver"),
            (missing("libtensorrt_rtx.so.1"), "onnxruntime-ep-nv-tensorrt-rtx-cu13"),
            (
                missing("/opt/x/libonnxruntime_providers_shared.so"),
                "libonnxruntime_providers_shared.so is missing",
            ),
            (missing("libfoo.so"), "libfoo.so is missing (install what holds it"),
            (
                "TensorRT execution provider is not enabled in this build".into(),
                "not in this build of ONNX Runtime (take",
            ),
            (
                "CUDA failure 35: CUDA driver version is insufficient".into(),
                "driver 580",
            ),
            (
                "CUDA failure 100: no CUDA-capable device is detected".into(),
                "sees no GPU",
            ),
            ("CUDA failure 101: invalid device ordinal".into(), "`device-id`"),
            ("CUDA failure 2: out of memory".into(), "memory is full"),
        ] {
            let text = explain(&said).unwrap_or_else(|| panic!("nothing for {said}"));
            assert!(text.contains(expected), "{text}");
            assert!(
                !text.ends_with('.') && !text.contains(['\n', ';']) || text.contains("nvidia-smi"),
                "{text}"
            );
        }
        assert_eq!(explain("Load model from a.onnx failed: Protobuf parsing failed"), None);
        assert_eq!(explain(": cannot open shared object file"), None);
    }

    #[test]
    fn what_is_wrong_with_an_engine_comes_with_the_command_that_compiles_it() {
        let mut io = sidecar::parse(sidecar::TEMPLATE.as_bytes()).unwrap();
        io.architecture = Some("86".into());
        for (said, expected) in [
            (
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion \
                 stdVersionRead == serializationVersion failed.Version tag does not match. Note: Current Version: 239, \
                 Serialized Engine Version: 238)",
                "it was compiled by another version of TensorRT; compile it anew",
            ),
            (
                "The engine plan file is not compatible with this version of TensorRT, expecting library version \
                 10.16.1.11 got 10.9.0.34, please rebuild.",
                "compiled by TensorRT 10.9.0.34, and TensorRT 10.16.1.11 is here",
            ),
            (
                "Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match",
                "another version of TensorRT",
            ),
            (
                "The engine plan file is generated on an incompatible device, expecting compute 8.9 got compute 8.6, \
                 please rebuild.",
                "for a GPU of compute capability 8.6, and this one has 8.9",
            ),
            (
                "CUDA failure 209: no kernel image is available",
                "compute capability 86, and this one has 89",
            ),
            (
                "TensorRT EP failed to call nvinfer1::IExecutionContext::setInputShape() for input 'image'",
                "frames of this size",
            ),
            (
                "Runtime dimension does not satisfy any optimization profile.",
                "image` (float32 [batch, 3, 512, 512])",
            ),
            (
                "Got invalid dimensions for input: image for the following indices index: 2 Got: 720 Expected: 512",
                "--size WxH --batch N",
            ),
            (
                "TensorRT EP could not deserialize engine from cache: /c/engine",
                "it is damaged, no engine, or compiled by a version",
            ),
            ("TensorRT EP can't find engine cache: engine", "is not there"),
            (
                "Could not create session: EPContext node generated by 'TensorrtExecutionProvider' is not compatible \
                 with any execution provider added to the session. EPContext node name: 'engine'.",
                "nothing but backend=tensorrt runs",
            ),
        ] {
            let text = of_engine(said, &io, "cartoon", Some("89")).unwrap_or_else(|| panic!("nothing for {said}"));
            assert!(text.contains(expected), "{text}");
            let rebuilt = text.contains("comfystream engine build --model cartoon.onnx");
            assert_eq!(rebuilt, !expected.contains("backend=tensorrt"), "{text}");
        }
        assert_eq!(of_engine("something else", &io, "cartoon", None), None);
    }

    #[test]
    fn an_engine_for_another_gpu_is_known_beforehand() {
        let mut io = Io::default();
        for (wanted, device, fits) in [
            (Some("89"), "89", true),
            (Some("86"), "89", false),
            (Some("80+"), "89", true),
            (Some("80+"), "75", false),
            (Some("80+"), "120", true),
            (None, "89", true),
            (Some("89"), "NVIDIA L4", true),
        ] {
            io.architecture = wanted.map(str::to_owned);
            assert_eq!(other_gpu(&io, "a", device).is_none(), fits, "{wanted:?} on {device}");
        }
    }
}
