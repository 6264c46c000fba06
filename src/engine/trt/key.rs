//! What a compiled engine depends on. Any other value of any part makes another engine, and another folder.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The parts, as they are written beside the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::engine) struct Key {
    /// SHA-256 of the model and of the files of its weights.
    pub(in crate::engine) model: String,
    /// `auto`, `fp32` or `fp16`.
    pub(in crate::engine) precision: String,
    /// The sizes that it is compiled for, as the provider is told them; empty: as frames come.
    pub(in crate::engine) profile: String,
    pub(in crate::engine) onnx_runtime: String,
    pub(in crate::engine) tensorrt: String,
    pub(in crate::engine) driver: String,
    /// The GPU's compute capability, `89`, or its name where that cannot be asked.
    pub(in crate::engine) architecture: String,
}

impl Key {
    /// Each part with its name.
    pub(in crate::engine) fn parts(&self) -> [(&'static str, &str); 7] {
        [
            ("model", &self.model),
            ("precision", &self.precision),
            ("profile", &self.profile),
            ("ONNX Runtime", &self.onnx_runtime),
            ("TensorRT", &self.tensorrt),
            ("driver", &self.driver),
            ("GPU", &self.architecture),
        ]
    }

    /// The folder's name: the model's, and as much of the hash as tells keys apart.
    pub(in crate::engine) fn folder(&self, stem: &str) -> String {
        let parts = self.parts();
        let parts: Vec<&[u8]> = parts
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
            .collect();
        let plain = |c: char| {
            if c.is_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        };
        let stem: String = stem.chars().map(plain).take(80).collect();
        format!("{}-{}", stem.trim_start_matches('.'), &hex(&parts)[..16])
    }
}

/// SHA-256 of several values, each with its length before it, so that none runs into the next.
pub(super) fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    digits(hash)
}

/// A finished hash as text.
pub(super) fn digits(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine::trt) fn key() -> Key {
        Key {
            model: "ab".into(),
            precision: "fp16".into(),
            profile: "image:1x3x512x512".into(),
            onnx_runtime: "1.31.1".into(),
            tensorrt: "10.16.1".into(),
            driver: "580.65".into(),
            architecture: "89".into(),
        }
    }

    #[test]
    fn any_part_that_changes_changes_the_folder() {
        let change: [fn(&mut Key) -> &mut String; 7] = [
            |key| &mut key.model,
            |key| &mut key.precision,
            |key| &mut key.profile,
            |key| &mut key.onnx_runtime,
            |key| &mut key.tensorrt,
            |key| &mut key.driver,
            |key| &mut key.architecture,
        ];
        let mut seen = std::collections::BTreeSet::from([key().folder("a")]);
        for (number, part) in change.into_iter().enumerate() {
            for suffix in ["x", ""] {
                let mut key = key();
                if suffix.is_empty() {
                    part(&mut key).clear();
                } else {
                    part(&mut key).push_str(suffix);
                }
                assert!(seen.insert(key.folder("a")), "part {number}");
            }
        }
        let mut moved = key();
        moved.driver = "580.6".into();
        moved.architecture = "589".into();
        assert!(seen.insert(moved.folder("a")), "what leaves one part and joins another");
        assert_eq!(key().folder("a"), key().folder("a"));
    }

    #[test]
    fn folders_are_named_after_their_model() {
        for (stem, start) in [
            ("cartoon", "cartoon-"),
            ("../a b", "_a_b-"),
            (".hidden", "hidden-"),
            ("größe", "größe-"),
        ] {
            let name = key().folder(stem);
            assert!(name.starts_with(start), "{name}");
            assert_eq!(name.rsplit('-').next().map(str::len), Some(16));
        }
    }
}
