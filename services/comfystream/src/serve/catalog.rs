//! The models that may be asked for by name.

use axum::http::StatusCode;
use comfy_core::workflow::{Plan, Workflow};
use comfy_pipelines::infergraph::Precision;
use comfy_pipelines::pool::Key;
use comfy_pipelines::stream;

use super::error::Failure;
use super::names;
use super::settings::Models;
use super::wish::{Change, Wish};

const INVERT: &str = "builtin:invert";
/// Most files of the folder that are listed.
const LISTED: usize = 1000;

/// Names and what they stand for.
#[derive(Debug)]
pub(crate) struct Catalog {
    models: Models,
}

impl Catalog {
    pub(crate) fn new(models: Models) -> Self {
        Self { models }
    }

    /// What is loaded at the start.
    pub(crate) fn loaded(&self) -> &[(String, String)] {
        &self.models.loaded
    }

    /// All names, each with its file. Reads the folder.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        let mut list = self.models.loaded.clone();
        let add = |list: &mut Vec<(String, String)>, name: String, path: String| {
            if !list.iter().any(|(known, _)| *known == name) {
                list.push((name, path));
            }
        };
        add(&mut list, "invert".into(), INVERT.into());
        if let Some(folder) = &self.models.folder {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut files: Vec<_> = entries
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "onnx") && path.is_file())
                .collect();
            files.sort();
            files.truncate(LISTED);
            for path in files {
                let path = path.display().to_string();
                if let Some(name) = names::of_model(&path) {
                    add(&mut list, name, path);
                }
            }
        }
        list
    }

    /// What has to be run for a name. Reads the folder.
    pub(crate) fn key(&self, name: &str, batch: u32) -> Result<Key, Failure> {
        let path = if name == INVERT {
            Some(INVERT.to_owned())
        } else {
            let mut list = self.list().into_iter();
            list.find_map(|(known, path)| (known == name).then_some(path))
        };
        let Some(path) = path else {
            return Err(Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "model_missing",
                format!("there is no model called {name:.64}"),
                "GET /api/models lists what there is",
            ));
        };
        Ok(self.key_of(name.strip_prefix("builtin:").unwrap_or(name), path, batch))
    }

    /// What has to be run for a file.
    pub(crate) fn key_of(&self, name: &str, path: String, batch: u32) -> Key {
        Key {
            name: name.into(),
            model: path,
            backend: self.models.backend,
            device: self.models.device,
            precision: Precision::Auto,
            threads: self.models.threads,
            batch,
            timeout: None,
        }
    }

    /// A wish in the words of the pipelines. Reads the folder.
    pub(crate) fn settings(&self, wish: &Wish) -> Result<stream::Settings, Failure> {
        Ok(stream::Settings {
            model: match &wish.model {
                Some(name) => Some(self.key(name, wish.batch_size)?),
                None => None,
            },
            size: wish.size(),
            threshold: wish.threshold,
            max_batches: wish.max_batches,
            leaky: wish.leaky.into(),
            paused: wish.paused,
        })
    }

    /// What workflows ask for.
    pub(crate) fn change(&self, workflows: &[Workflow]) -> Result<Change, Failure> {
        let workflow = match workflows {
            [] => {
                return Ok(Change {
                    model: Some(None),
                    ..Change::default()
                });
            }
            [workflow] => workflow,
            more => {
                return Err(Failure::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "workflow_unsupported",
                    format!("{} workflows at once cannot run here", more.len()),
                    "send one; what they do can be put into one graph",
                ));
            }
        };
        let plan = workflow.check()?.plan()?;
        Ok(self.change_of(&plan))
    }

    fn change_of(&self, plan: &Plan) -> Change {
        let builtin = |name: &str| {
            self.models
                .loaded
                .iter()
                .all(|(known, path)| known != name || path == INVERT)
        };
        let model = match plan.is_pass_through() {
            true => None,
            false if builtin("invert") => Some("invert".into()),
            false => Some(INVERT.into()),
        };
        Change {
            model: Some(model),
            batch_size: plan.batch_size.filter(|size| (1..=64).contains(size)),
            ..Change::default()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use comfy_core::workflow;
    use comfy_pipelines::infergraph::Backend;
    use serde_json::json;

    use super::*;

    pub(crate) fn catalog(loaded: &[(&str, &str)], folder: Option<&std::path::Path>) -> Catalog {
        Catalog::new(Models {
            loaded: loaded
                .iter()
                .map(|(name, path)| (name.to_string(), path.to_string()))
                .collect(),
            folder: folder.map(Into::into),
            backend: Backend::Cpu,
            device: 0,
            threads: 1,
        })
    }

    #[test]
    fn files_of_the_folder_are_known_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.onnx", "a.onnx", "notes.txt", "invert.onnx"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let catalog = catalog(&[("main", "main.onnx")], Some(folder.path()));
        let names: Vec<_> = catalog.list().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["main", "invert", "a", "b"]);
        assert!(catalog.key("a", 4).unwrap().model.ends_with("/a.onnx"));
        assert_eq!(
            catalog.key("invert", 1).unwrap().model,
            INVERT,
            "what comes first counts"
        );
        for name in ["notes", "../a", "", "a.onnx"] {
            assert_eq!(catalog.key(name, 1).unwrap_err().code, "model_missing", "{name}");
        }
    }

    #[test]
    fn workflows_become_models() {
        let graph = |inverts: usize| {
            let mut graph = json!({"1": {"class_type": "LoadTensor", "inputs": {}}});
            for n in 0..inverts {
                graph[(n + 2).to_string()] =
                    json!({"class_type": "ImageInvert", "inputs": {"image": [(n + 1).to_string(), 0]}});
            }
            graph["99"] = json!({"class_type": "SaveTensor", "inputs": {"images": [(inverts + 1).to_string(), 0]}});
            graph
        };
        let plain = catalog(&[], None);
        let change = |catalog: &Catalog, value| catalog.change(&workflow::prompts(&value).unwrap());
        let model = |catalog: &Catalog, value| change(catalog, value).unwrap().model.unwrap();
        assert_eq!(model(&plain, json!(null)), None);
        assert_eq!(model(&plain, graph(0)), None);
        assert_eq!(model(&plain, graph(1)).as_deref(), Some("invert"));
        assert_eq!(model(&plain, json!([graph(2)])), None);
        let other = catalog(&[("invert", "my/invert.onnx")], None);
        let name = model(&other, graph(1)).unwrap();
        assert_eq!(
            other.key(&name, 1).unwrap().model,
            INVERT,
            "not somebody's file of that name"
        );

        let mut unknown = graph(1);
        unknown["2"]["class_type"] = json!("KSampler");
        let failure = change(&plain, unknown).unwrap_err();
        assert_eq!(failure.code, "workflow_unsupported");
        assert_eq!(failure.nodes.as_array().unwrap().len(), 3);
        assert_eq!(
            change(&plain, json!([graph(0), graph(1)])).unwrap_err().code,
            "workflow_unsupported"
        );
    }
}
