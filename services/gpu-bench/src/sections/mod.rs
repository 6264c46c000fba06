//! What is measured. Each part answers one question and writes one part of the report.

pub(crate) mod busy;
pub(crate) mod contexts;
pub(crate) mod copies;
pub(crate) mod frames;
pub(crate) mod kernels;
pub(crate) mod models;
pub(crate) mod oracle;
pub(crate) mod tensorrt;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_core::cuda::Device;

use crate::clock::Plan;
use crate::schema::Failure;

/// What all parts are told.
pub(crate) struct Setting {
    /// None: the processor alone, in a dry run.
    pub(crate) device: Option<Arc<Device>>,
    /// Tiny sizes and short times, to see whether everything works.
    pub(crate) dry_run: bool,
    /// The device is the simulated one, which has no CUDA graphs, and runs models on the processor.
    pub(crate) simulated: bool,
    /// Folder of the models that gpu_models.py makes.
    pub(crate) models: Option<PathBuf>,
    /// Folder of the sample models.
    pub(crate) samples: PathBuf,
    /// A Python with torch and diffusers, and the folder of gpu_torch.py.
    pub(crate) python: Option<PathBuf>,
    pub(crate) scripts: PathBuf,
    pub(crate) engine: Option<PathBuf>,
    /// The ONNX file that the engine was made from.
    pub(crate) engine_model: Option<PathBuf>,
    pub(crate) batches: Vec<usize>,
    /// Of one row.
    pub(crate) seconds: f64,
    pub(crate) passes: usize,
}

impl Setting {
    /// The device, for parts that are about nothing else.
    pub(crate) fn gpu(&self) -> Result<&Arc<Device>> {
        self.device
            .as_ref()
            .context("there is no CUDA device, and this part is about nothing else")
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            warm: Duration::from_secs_f64(self.seconds / 2.0),
            time: Duration::from_secs_f64(self.seconds),
            least_calls: if self.dry_run { 3 } else { 40 },
        }
    }

    /// The goals that are stated for an H100 alone, where this is one, or larger.
    pub(crate) fn has_goals(&self) -> bool {
        let name = self.device.as_ref().map_or("", |device| device.name());
        name.contains("H100") || name.contains("H200")
    }
}

/// Notes what failed, and goes on.
pub(crate) fn noted<T>(failures: &mut Vec<Failure>, what: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', " ");
            eprintln!("   not measured: {what}: {reason}");
            failures.push(Failure {
                what: what.to_owned(),
                reason,
            });
            None
        }
    }
}
