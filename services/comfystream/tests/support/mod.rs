//! What the tests of the program share: runs of it, clips, and a look at what it wrote.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod service;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use comfy_pipelines::watch::{Event, Watch};
use gst::prelude::*;

/// The program, to be run where relative model paths are those of the repository.
pub(crate) fn comfystream() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comfystream"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    command.stdin(Stdio::null());
    command
}

/// A finished run of `demo`.
pub(crate) struct Demo {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) output: Output,
}

impl Demo {
    pub(crate) fn run(input: &str, model: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = comfystream();
        command.args(["demo", "--input", input, "--model", model, "--out"]);
        command.arg(folder.path().join("out")).args(more);
        Self {
            output: command.output().unwrap(),
            folder,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The report, after a success.
    pub(crate) fn report(&self) -> serde_json::Value {
        assert!(self.output.status.success(), "{}", self.stderr());
        report(&self.file("report.json"))
    }
}

pub(crate) fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Runs a pipeline to its end.
pub(crate) fn play(description: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    run(&pipeline);
}

fn run(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut watch = Watch::new(pipeline);
    loop {
        match watch.next(Some(std::time::Duration::from_secs(60))) {
            Some(Event::Eos) => break,
            Some(Event::Error(failure)) => panic!("{failure}: {:?}", failure.debug),
            Some(_) => (),
            None => panic!("nothing happens"),
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

/// An MP4 clip with a moving picture, at 25 frames per second.
pub(crate) fn clip(folder: &Path, name: &str, size: (u32, u32), frames: u32, sound: bool) -> String {
    let path = folder.join(name).display().to_string();
    let (width, height) = size;
    let mut description = format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,width={width},height={height},framerate=25/1 \
         ! x264enc speed-preset=ultrafast ! h264parse ! mp4mux name=mux ! filesink location=\"{path}\""
    );
    if sound {
        // 1024 samples are a frame of AAC.
        let buffers = frames * 44100 / 25 / 1024;
        description += &format!(
            " audiotestsrc num-buffers={buffers} samplesperbuffer=1024 ! audio/x-raw,rate=44100,channels=1 ! avenc_aac ! aacparse ! mux."
        );
    }
    play(&description);
    path
}

/// What decoding a file gives.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Running times, in nanoseconds.
    pub(crate) times: Vec<u64>,
    pub(crate) size: (u32, u32),
    pub(crate) audio_seconds: f64,
}

/// Decodes a file to its end.
pub(crate) fn decode(path: &Path) -> Decoded {
    gst::init().unwrap();
    let pipeline = gst::Pipeline::new();
    let uri = glib_uri(path);
    let source = gst::ElementFactory::make("uridecodebin")
        .property("uri", uri)
        .build()
        .unwrap();
    pipeline.add(&source).unwrap();
    let decoded = std::sync::Arc::new(std::sync::Mutex::new(Decoded::default()));
    let (bin, seen) = (pipeline.downgrade(), decoded.clone());
    source.connect_pad_added(move |_, pad| {
        let bin = bin.upgrade().unwrap();
        let sink = gst::ElementFactory::make("fakesink").build().unwrap();
        bin.add(&sink).unwrap();
        let video = pad
            .current_caps()
            .unwrap()
            .structure(0)
            .unwrap()
            .name()
            .starts_with("video");
        let seen = seen.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let (buffer, mut seen) = (info.buffer().unwrap(), seen.lock().unwrap());
            if video {
                let info = gst_video::VideoInfo::from_caps(&pad.current_caps().unwrap()).unwrap();
                seen.size = (info.width(), info.height());
                let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
                let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
                seen.times
                    .push(segment.to_running_time(buffer.pts()).unwrap().nseconds());
            } else {
                seen.audio_seconds += buffer.duration().unwrap_or_default().nseconds() as f64 / 1e9;
            }
            gst::PadProbeReturn::Ok
        });
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        sink.sync_state_with_parent().unwrap();
    });
    run(&pipeline);
    std::mem::take(&mut *decoded.lock().unwrap())
}

fn glib_uri(path: &Path) -> String {
    gst::glib::filename_to_uri(path, None).unwrap().into()
}

/// Width and height of a PNG, all of whose pixels can be decoded, and how many colours they have.
pub(crate) fn png(path: &Path) -> (u32, u32, usize) {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let colours: std::collections::BTreeSet<&[u8]> = pixels.chunks(3).collect();
    (info.width, info.height, colours.len())
}

/// A folder of plugins that holds these and no others, and the environment that makes a program see it alone.
pub(crate) fn only(plugins: &[&str]) -> (tempfile::TempDir, Vec<(&'static str, PathBuf)>) {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in plugins {
        let file = gst::Registry::get()
            .find_plugin(name)
            .unwrap_or_else(|| panic!("no plugin {name}"));
        let file = file.filename().unwrap();
        std::os::unix::fs::symlink(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let environment = vec![
        ("GST_PLUGIN_SYSTEM_PATH_1_0", folder.path().to_owned()),
        ("GST_PLUGIN_SYSTEM_PATH", folder.path().to_owned()),
        ("GST_PLUGIN_PATH_1_0", PathBuf::new()),
        ("GST_PLUGIN_PATH", PathBuf::new()),
        ("GST_REGISTRY", folder.path().join("registry.bin")),
        ("GST_REGISTRY_1_0", folder.path().join("registry.bin")),
    ];
    (folder, environment)
}
