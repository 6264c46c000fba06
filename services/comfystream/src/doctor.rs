//! `comfystream doctor`: what this machine has, what it lacks, and what to do about that.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use comfy_core::cuda;
use comfy_core::engine::ort;
use comfy_pipelines::codec::{self, Codec, Purpose};
use comfy_pipelines::packages;
use comfy_pipelines::register::{self, Origin};
use gst::prelude::*;
use serde::Serialize;

use crate::{libraries, selftest};

/// Say what this machine has, what it lacks, and what to do about that; exit 1 when a model cannot run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// There, and works.
    Ok,
    /// Not there, and not needed to run a model on the processor.
    Absent,
    /// Not there or not working, and needed.
    Missing,
}

#[derive(Debug, Serialize)]
struct Finding {
    group: &'static str,
    name: String,
    status: Status,
    found: String,
    /// What to do; None: nothing.
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    version: &'static str,
    /// Whether a model can run on the processor.
    ok: bool,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let findings = examine()?;
    let diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        ok: findings.iter().all(|finding| finding.status != Status::Missing),
        findings,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print!("{}", diagnosis.text());
    }
    Ok(if diagnosis.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn examine() -> Result<Vec<Finding>> {
    gst::init()?;
    // What other programs see, before ours makes its own elements known.
    let seen = register::found();
    let origin = comfy_pipelines::register();
    let mut findings = gstreamer(seen.as_ref(), &origin);
    findings.extend(media());
    findings.extend(webrtc());
    let runtime = ort::found(origin.as_ref().ok().and_then(library).as_deref());
    findings.extend(onnx_runtime(&runtime));
    findings.extend(gpu(&runtime));
    findings.extend(self_tests(runtime.is_ok()));
    Ok(findings)
}

fn gstreamer(seen: Option<&Origin>, origin: &Result<Origin, register::Error>) -> Vec<Finding> {
    let version = gst::version();
    let group = "GStreamer";
    let mut findings = vec![if (version.0, version.1) >= (1, 22) {
        ok(group, "version", gst::version_string())
    } else {
        missing(
            group,
            "version",
            gst::version_string(),
            "install GStreamer 1.22 or newer (Debian 12 has it)",
        )
    }];
    findings.push(match origin {
        Ok(origin) => ok(group, "comfy elements", origin),
        Err(error) => missing(group, "comfy elements", "none", error),
    });
    findings.push(match seen {
        Some(Origin::File { path, version }) if version != env!("CARGO_PKG_VERSION") => absent(
            group,
            "gst-launch-1.0",
            format!("finds version {version} in {}", path.display()),
            "run `make install`, or remove that file: it is of another version than this program",
        ),
        Some(Origin::File { path, .. }) => ok(group, "gst-launch-1.0", format!("finds them in {}", path.display())),
        _ => absent(
            group,
            "gst-launch-1.0",
            "does not find them; this program does without",
            plugin_path_advice(),
        ),
    });
    findings
}

fn plugin_path_advice() -> String {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.to_owned()));
    match beside.filter(|folder| folder.join("libgstcomfy.so").is_file()) {
        Some(folder) => format!("export GST_PLUGIN_PATH={}", folder.display()),
        None => "run `make install`, or set GST_PLUGIN_PATH to the folder of libgstcomfy.so".into(),
    }
}

/// What `demo` reads and writes with.
fn media() -> Vec<Finding> {
    const GROUP: &str = "files";
    let element = |name: &str| element(GROUP, name, true);
    let mut findings: Vec<Finding> = [
        "uridecodebin",
        "videoconvert",
        "qtdemux",
        "h264parse",
        "mp4mux",
        "aacparse",
    ]
    .map(element)
    .into();
    for (name, needed, choice) in [
        ("H.264 decoder", true, codec::decoder(Codec::H264)),
        ("H.264 encoder", true, codec::encoder(Codec::H264, Purpose::File)),
        ("VP8 decoder", false, codec::decoder(Codec::Vp8)),
        ("VP8 encoder", false, codec::encoder(Codec::Vp8, Purpose::File)),
    ] {
        findings.push(chosen(GROUP, name, needed, choice));
    }
    findings.push(match codec::aac_encoder() {
        Some((_, name)) => ok(GROUP, "AAC encoder", name),
        None => absent(
            GROUP,
            "AAC encoder",
            "none: sound that is not AAC is left out",
            packages::advice(packages::of_element("avenc_aac")),
        ),
    });
    for name in ["matroskademux", "tsdemux", "oggdemux", "souphttpsrc", "videoflip"] {
        findings.push(self::element(GROUP, name, false));
    }
    findings
}

fn chosen(group: &'static str, name: &str, needed: bool, choice: Result<codec::Choice, codec::NoCodec>) -> Finding {
    match choice {
        Ok(choice) => {
            let kind = if choice.hardware { "hardware" } else { "software" };
            ok(group, name, format!("{} ({kind})", choice.name))
        }
        Err(error) => lacking(group, name, needed, "none", error),
    }
}

/// What `serve` speaks to browsers with.
fn webrtc() -> Vec<Finding> {
    const GROUP: &str = "WebRTC";
    let mut findings: Vec<Finding> = [
        "webrtcbin",
        "nicesrc",
        "dtlssrtpenc",
        "srtpenc",
        "sctpenc",
        "rtpvp8pay",
        "rtph264pay",
        "rtpvp9pay",
        "rtpopusdepay",
        "rtpopuspay",
        "opusdec",
        "opusenc",
    ]
    .map(|name| element(GROUP, name, false))
    .into();
    for codec in Codec::ALL {
        let live = Purpose::Live { bitrate: 2_000_000 };
        let (encoder, decoder) = (codec::encoder(codec, live), codec::decoder(codec));
        findings.push(chosen(GROUP, &format!("{codec} encoder"), false, encoder));
        findings.push(chosen(GROUP, &format!("{codec} decoder"), false, decoder));
    }
    findings
}

fn element(group: &'static str, name: &str, needed: bool) -> Finding {
    let factory = gst::ElementFactory::find(name);
    match factory.map(|factory| factory.plugin()) {
        Some(plugin) => ok(
            group,
            name,
            plugin
                .map(|plugin| format!("plugin {}", plugin.plugin_name()))
                .unwrap_or_default(),
        ),
        None => lacking(
            group,
            name,
            needed,
            "none",
            packages::advice(packages::of_element(name)),
        ),
    }
}

/// The folder that comfyinfer looks into.
fn library(origin: &Origin) -> Option<PathBuf> {
    let file = match origin {
        Origin::File { path, .. } => path.clone(),
        Origin::Linked => std::env::current_exe().ok()?,
    };
    file.parent().map(Path::to_owned)
}

fn onnx_runtime(runtime: &Result<ort::Found, comfy_core::engine::Error>) -> Vec<Finding> {
    const GROUP: &str = "ONNX Runtime";
    match runtime {
        Ok(found) => vec![
            ok(
                GROUP,
                "library",
                format!("{} in {}", found.version, found.path.display()),
            ),
            ok(GROUP, "providers", found.providers.join(", ")),
        ],
        // The error lists the places, one per line.
        Err(error) => vec![missing(GROUP, "library", "none", error)],
    }
}

fn gpu(runtime: &Result<ort::Found, comfy_core::engine::Error>) -> Vec<Finding> {
    const GROUP: &str = "GPU";
    let mut findings = Vec::new();
    let nodes = nodes();
    findings.push(if nodes.is_empty() {
        absent(
            GROUP,
            "device",
            "no /dev/nvidia* or /dev/dri/renderD*",
            "nothing, unless this machine has a GPU: then install its driver, or give the container access to it",
        )
    } else {
        ok(GROUP, "device", nodes.join(", "))
    });
    findings.push(match cuda::Device::open(0) {
        Ok(device) => {
            let ((major, minor), (cuda, part)) = (device.architecture(), device.driver_version());
            let name = device.name();
            ok(
                GROUP,
                "CUDA driver",
                format!("{name}, architecture {major}.{minor}, driver of CUDA {cuda}.{part}"),
            )
        }
        Err(cuda::Error::NoDriver) => absent(
            GROUP,
            "CUDA driver",
            "no libcuda.so.1",
            "for an NVIDIA GPU, install its driver, 535 or newer (Debian: apt install nvidia-driver)",
        ),
        Err(error) => missing(GROUP, "CUDA driver", "a driver, and no GPU that it opens", error),
    });
    for (name, files, advice) in [
        (
            "CUDA runtime",
            &["libcudart.so.13", "libcudart.so.12"][..],
            "for an NVIDIA GPU, install the CUDA that your ONNX Runtime is built for: 13 for 1.31",
        ),
        (
            "cuDNN",
            &["libcudnn.so.9"],
            "for an NVIDIA GPU, install cuDNN 9, built for the same CUDA",
        ),
        (
            "TensorRT",
            &["libnvinfer.so.10"],
            "for an NVIDIA GPU, install TensorRT 10 (NVIDIA's libnvinfer10 package)",
        ),
    ] {
        findings.push(match files.iter().find_map(|file| libraries::find(file)) {
            Some(path) => ok(GROUP, name, real(&path)),
            None => absent(GROUP, name, format!("no {}", files[0]), advice),
        });
    }
    findings.push(match gst::ElementFactory::find("cudaupload") {
        Some(_) => ok(
            GROUP,
            "GStreamer",
            "nvcodec has its elements: frames can stay on the GPU",
        ),
        None => absent(
            GROUP,
            "GStreamer",
            "nvcodec registers no elements",
            "for an NVIDIA GPU, install gstreamer1.0-plugins-bad; in a container, set \
             NVIDIA_DRIVER_CAPABILITIES=compute,video,utility",
        ),
    });
    if let Ok(found) = runtime {
        let providers: Vec<&str> = found
            .providers
            .iter()
            .copied()
            .filter(|provider| *provider != "cpu")
            .collect();
        findings.push(if providers.is_empty() {
            absent(
                GROUP,
                "providers",
                "this ONNX Runtime is built for the processor alone",
                "for an NVIDIA GPU, set ORT_DYLIB_PATH to libonnxruntime.so of the onnxruntime-gpu package",
            )
        } else {
            ok(GROUP, "providers", providers.join(", "))
        });
    }
    findings
}

/// A link's target says the version.
fn real(path: &Path) -> String {
    std::fs::canonicalize(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

fn nodes() -> Vec<String> {
    let of = |folder: &str, starts: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| {
                name.strip_prefix(starts)
                    .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
            })
            .map(|name| format!("{folder}/{name}"))
            .collect()
    };
    let mut nodes = of("/dev", "nvidia");
    nodes.extend(of("/dev/dri", "renderD"));
    nodes.sort();
    nodes
}

fn self_tests(has_runtime: bool) -> Vec<Finding> {
    const GROUP: &str = "self test";
    let test = |name: &str, result: Result<String>| match result {
        Ok(runtime) => ok(
            GROUP,
            name,
            format!("8 frames came out right; {}", without_reasons(&runtime)),
        ),
        Err(error) => missing(
            GROUP,
            name,
            format!("failed: {error:#}"),
            "put right what is missing above; if nothing is, please report a bug with this output",
        ),
    };
    let mut findings = vec![test("builtin:invert", selftest::builtin())];
    if has_runtime {
        findings.push(test("invert.onnx", selftest::model()));
    }
    findings
}

/// What runs the model, without why nothing better does.
fn without_reasons(runtime: &str) -> &str {
    runtime.split(';').next().unwrap_or_default()
}

fn ok(group: &'static str, name: &str, found: impl ToString) -> Finding {
    Finding {
        group,
        name: name.into(),
        status: Status::Ok,
        found: found.to_string(),
        advice: None,
    }
}

fn absent(group: &'static str, name: &str, found: impl ToString, advice: impl ToString) -> Finding {
    lacking(group, name, false, found, advice)
}

fn missing(group: &'static str, name: &str, found: impl ToString, advice: impl ToString) -> Finding {
    lacking(group, name, true, found, advice)
}

fn lacking(group: &'static str, name: &str, needed: bool, found: impl ToString, advice: impl ToString) -> Finding {
    Finding {
        group,
        name: name.into(),
        status: if needed { Status::Missing } else { Status::Absent },
        found: found.to_string(),
        advice: Some(advice.to_string()),
    }
}

impl Diagnosis {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut group = "";
        for finding in &self.findings {
            if finding.group != group {
                group = finding.group;
                lines.push(group.to_owned());
            }
            let mark = match finding.status {
                Status::Ok => "ok",
                Status::Absent => "-",
                Status::Missing => "MISSING",
            };
            lines.push(format!("  {mark:<8} {:<16} {}", finding.name, finding.found));
            if let Some(advice) = &finding.advice {
                lines.push(format!(
                    "           {:<16} -> {}",
                    "",
                    advice.replace('\n', "\n                               ")
                ));
            }
        }
        let bad = self
            .findings
            .iter()
            .filter(|finding| finding.status == Status::Missing)
            .count();
        lines.push(match bad {
            0 => "Models can run on this machine.".into(),
            1 => "One thing is MISSING; what to do stands after its arrow.".into(),
            n => format!("{n} things are MISSING; what to do stands after their arrows."),
        });
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_with_what_to_do() {
        let text = Diagnosis {
            version: "1",
            ok: false,
            findings: vec![
                ok("files", "mp4mux", "plugin isomp4"),
                missing("files", "H.264 encoder", "none", "install it"),
                absent("GPU", "CUDA driver", "no libcuda.so.1", "install a driver"),
            ],
        }
        .text();
        assert_eq!(
            text,
            "files\n  ok       mp4mux           plugin isomp4\n  MISSING  H.264 encoder    none\n\
             \x20                           -> install it\nGPU\n  -        CUDA driver      no libcuda.so.1\n\
             \x20                           -> install a driver\n\
             One thing is MISSING; what to do stands after its arrow.\n"
        );
    }
}
