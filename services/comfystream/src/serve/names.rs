//! Names: of streams, of models, of formats.

use std::path::Path;

use comfy_pipelines::codec::Codec;

/// What [`valid`] asks for.
pub(crate) const RULE: &str = "expected 1 to 64 letters, digits, dots, dashes and underscores, not only dots";

/// What streams may be published as.
pub(crate) fn valid(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(fits) && name.bytes().any(|byte| byte != b'.')
}

/// `depth` of `models/depth.onnx`, `invert` of `builtin:invert`, `null` of `builtin:null?latency=5ms`.
pub(crate) fn of_model(model: &str) -> Option<String> {
    let name = match model.strip_prefix("builtin:") {
        Some(builtin) => builtin.split('?').next()?,
        None => Path::new(model).file_stem()?.to_str()?,
    };
    (!name.is_empty()).then(|| name.to_owned())
}

/// As SDP calls it.
pub(crate) fn of_codec(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H264",
        Codec::Vp8 => "VP8",
        Codec::Vp9 => "VP9",
        Codec::Av1 => "AV1",
        Codec::H265 => "H265",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_an_address_can_hold() {
        for name in ["a", "stage-1", "Cam_2.left", &"x".repeat(64)] {
            assert!(valid(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "é", "a%", &"x".repeat(65)] {
            assert!(!valid(name), "{name}");
        }
    }

    #[test]
    fn models_are_called_like_their_files() {
        for (model, name) in [
            ("models/depth.onnx", Some("depth")),
            ("builtin:invert", Some("invert")),
            ("builtin:null?latency=5ms", Some("null")),
            ("builtin:", None),
            ("", None),
        ] {
            assert_eq!(of_model(model).as_deref(), name, "{model}");
        }
    }
}
