//! What a file is, without running it.

use std::path::Path;

use super::io::{Io, Tensor};
use super::source::{self, File, Whence};
use super::{archive, sidecar};
use crate::engine::Error;
use crate::engine::manifest::Manifest;
use crate::engine::ort::onnx;
use crate::tensor::Dim;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// What kind of file it is, for people.
    pub kind: String,
    /// What it takes and gives. None: nothing beside it says so.
    pub io: Option<Io>,
    /// Further lines: a name and a value each.
    pub rows: Vec<Row>,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is said.
    pub name: &'static str,
    /// In which words.
    pub value: String,
}

/// Looks at a model, an engine, or an archive of PyTorch's with one.
pub fn inspect(path: &Path) -> Result<Inspected, Error> {
    if std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(Error::NotFound {
            path: path.display().to_string(),
        });
    }
    let mut rows = Vec::new();
    let mut row = |name, value: String| rows.push(Row { name, value });
    let (kind, io) = match source::kind(path)? {
        File::Engine => ("compiled TensorRT engine", engine(path, &mut row)?),
        File::Archive => {
            if let Ok(found) = archive::locate(path) {
                row("engine in it", format!("{}, {} bytes", found.name, found.bytes));
            }
            (
                "compiled TensorRT engine in an archive of PyTorch's",
                engine(path, &mut row)?,
            )
        }
        File::Context(summary) => {
            let context = summary.context.clone().unwrap_or_default();
            row("made by", context.source.clone());
            if context.embedded {
                row("engine", "in the file itself".into());
            } else {
                let there = path.with_file_name("").join(&context.path).is_file();
                row(
                    "engine",
                    if there {
                        context.path
                    } else {
                        format!("{}, which is not there", context.path)
                    },
                );
            }
            row("described by", "the file itself".into());
            let io = from_summary(&summary, Some(context.architecture));
            ("ONNX wrapper of a compiled engine", Some(io))
        }
        File::Model(Some(summary)) => {
            row("made by", summary.producer.clone());
            row("nodes", summary.nodes.to_string());
            if !summary.external.is_empty() {
                let files: Vec<String> = summary.external.iter().cloned().collect();
                row("weights in", files.join(", "));
            }
            for (key, value) in &summary.metadata {
                row(
                    "metadata",
                    format!("{key} = {}", value.chars().take(120).collect::<String>()),
                );
            }
            ("ONNX model", Some(from_summary(&summary, None)))
        }
        File::Model(None) => {
            let reason = onnx::read(path).err().unwrap_or_default();
            return Err(Error::NotAModel {
                path: path.display().to_string(),
                reason: format!("{reason}; compiled engines end in .engine or .plan"),
            });
        }
    };
    if let Some(io) = &io {
        if let Some(version) = &io.tensorrt {
            row("TensorRT", version.clone());
        }
        if let Some(architecture) = &io.architecture {
            row("GPU", format!("compute capability {architecture}"));
        }
        if let Err(error) = io.check_filter(&source::name_of(path)) {
            row("use", error.to_string());
        }
    }
    rows.extend(cached(path));
    rows.retain(|row| !row.value.is_empty());
    Ok(Inspected {
        kind: kind.into(),
        io,
        rows,
    })
}

fn from_summary(summary: &onnx::Summary, architecture: Option<String>) -> Io {
    Io {
        inputs: summary.inputs.iter().map(Tensor::from).collect(),
        outputs: summary.outputs.iter().map(Tensor::from).collect(),
        tensorrt: None,
        architecture: architecture.filter(|text| !text.is_empty()),
    }
}

/// An engine's inputs and outputs; without any, a line that says what to write.
fn engine(path: &Path, row: &mut dyn FnMut(&'static str, String)) -> Result<Option<Io>, Error> {
    let manifest = Manifest::beside(path)?.unwrap_or_default();
    match source::describe(path, &manifest) {
        Ok((io, whence)) => {
            row(
                "described by",
                match whence {
                    Whence::Sidecar(path) => path.display().to_string(),
                    Whence::Name(path) => format!("its name, and model-type in {}", path.display()),
                },
            );
            Ok(Some(io))
        }
        Err(Error::NotAModel { reason, .. }) => {
            row("described by", format!("nothing: {reason}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What it was compiled for, when it lies in a cache.
fn cached(path: &Path) -> Vec<Row> {
    let Some(record) = path.parent().and_then(super::store::read_record) else {
        return Vec::new();
    };
    let mut rows = vec![Row {
        name: "compiled from",
        value: record.path.clone(),
    }];
    if let Some(seconds) = record.build_seconds {
        rows.push(Row {
            name: "compiled in",
            value: format!("{seconds:.0} s"),
        });
    }
    let parts = record.key.parts();
    rows.extend(parts.map(|(name, value)| Row {
        name: "key",
        value: format!("{name}: {value}"),
    }));
    rows
}

impl Inspected {
    /// As a table: names on the left.
    pub fn text(&self) -> String {
        let mut lines = vec![("kind", self.kind.clone())];
        let mut last = "";
        for (table, tensors) in [
            ("inputs", self.io.as_ref().map(|io| &io.inputs)),
            ("outputs", self.io.as_ref().map(|io| &io.outputs)),
        ] {
            for tensor in tensors.into_iter().flatten() {
                lines.push((if last == table { "" } else { table }, tensor_line(tensor)));
                last = table;
            }
        }
        for row in &self.rows {
            lines.push((if last == row.name { "" } else { row.name }, row.value.clone()));
            last = row.name;
        }
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let indent = " ".repeat(width + 2);
        let lines = lines
            .iter()
            .map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &format!("\n{indent}"))));
        lines.collect()
    }

    /// The sidecar that would describe it.
    pub fn sidecar(&self) -> Option<String> {
        self.io.as_ref().map(sidecar::text)
    }
}

/// `image  float32 [batch, 3, 512, 512]  batch 1 to 8, best 4`.
fn tensor_line(tensor: &Tensor) -> String {
    let mut line = format!("{}  {}", tensor.name, tensor.text());
    let mut ranges = Vec::new();
    for (place, dim) in tensor.shape.iter().enumerate() {
        if let (Dim::Dynamic(name), Some(range)) = (dim, &tensor.range) {
            ranges.push(format!(
                "{name} {} to {}, best {}",
                range.min[place], range.max[place], range.opt[place]
            ));
        }
    }
    if !ranges.is_empty() {
        line.push_str(&format!("  {}", ranges.join("; ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    #[test]
    fn engines_models_and_archives_are_shown() {
        let folder = Folder::new("inspect");
        let engine = folder.path().join("a.engine");
        std::fs::write(&engine, "engine").unwrap();
        let text = inspect(&engine).unwrap().text();
        assert!(text.starts_with("kind          compiled TensorRT engine\n"), "{text}");
        assert!(
            text.contains("nothing: it is a compiled TensorRT engine, which does not say"),
            "{text}"
        );
        let described = sidecar::TEMPLATE.replacen('{', "{\"trt\": \"10.16.1\", \"hardware_architecture\": \"89\",", 1);
        std::fs::write(sidecar::path_of(&engine), described).unwrap();
        let found = inspect(&engine).unwrap();
        let text = found.text();
        for line in [
            "inputs        image  float32 [batch, 3, 512, 512]  batch 1 to 4, best 4\n",
            "outputs       result  float32 [batch, 3, height, width]\n",
            "TensorRT      10.16.1\n",
            "GPU           compute capability 89\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(sidecar::parse(found.sidecar().unwrap().as_bytes()).ok(), found.io);

        archive::tests::archive(&engine, &[("archive/data.pkl", b"x"), ("archive/data/0", &[7; 1000])]);
        let text = inspect(&engine).unwrap().text();
        assert!(text.contains("archive/data/0, 1000 bytes"), "{text}");

        let model = format!("{}/src/engine/testdata/two_inputs.onnx", env!("CARGO_MANIFEST_DIR"));
        let text = inspect(Path::new(&model)).unwrap().text();
        assert!(text.contains("kind     ONNX model\n"), "{text}");
        assert!(
            inspect(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
        std::fs::write(folder.path().join("x.onnx"), "hello").unwrap();
        let text = inspect(&folder.path().join("x.onnx")).unwrap_err().to_string();
        assert!(text.contains("it is no ONNX file"), "{text}");
    }

    #[test]
    fn a_unet_is_shown_and_told_apart_from_filters() {
        let folder = Folder::new("inspect-unet");
        let stem = "sd15_$dyn-b-1-4-2-h-512-1024-768-w-512-1024-768_00001_";
        std::fs::write(folder.path().join(format!("{stem}.engine")), "engine").unwrap();
        std::fs::write(folder.path().join(format!("{stem}.toml")), "model-type = 'sd1'").unwrap();
        let text = inspect(&folder.path().join(format!("{stem}.engine"))).unwrap().text();
        for part in [
            "x  float16 [batch, 4, height, width]  batch 1 to 4, best 2; height 64 to 128, best 96; width 64",
            "timesteps  float16 [batch]",
            "context  float16 [batch, tokens, 768]",
            "UNet of a diffusion model",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
