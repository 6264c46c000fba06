//! Every pipeline that is written down, in `pipelines/launch/` and in the documents, is parsed and run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_tests::pipeline::{self, Ended, parse, play_to_end, run};
use comfy_tests::temp::Temp;
use comfy_tests::{Relay, Tap, bench, models, undisturbed};
use gst::prelude::*;

/// What a machine without a camera, a screen and the reader's files has instead. Sources without an end get
/// [`FRAMES`] frames besides.
fn substitute(text: &str, folder: &Temp) -> String {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let root = models::root().display().to_string();
    let table = [
        ("v4l2src", "videotestsrc".to_owned()),
        ("device=/dev/video0", "is-live=true".to_owned()),
        ("autovideosink", "fakesink".to_owned()),
        ("location=in.mp4", format!("location={}", file("in.mp4"))),
        ("location=out.mp4", format!("location={}", file("out.mp4"))),
        ("location=.work/media/demo.mp4", format!("location={}", file("in.mp4"))),
        ("model=cartoon.onnx", format!("model={root}/models/cartoon.onnx")),
        ("model=models/", format!("model={root}/models/")),
    ];
    table
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Frames of a source that has no end of its own, and of the clip.
const FRAMES: usize = 30;

/// The same where a queue has to overflow first.
const LONG: usize = 75;

/// Elements that a machine may lack although everything in scripts/packages.txt is installed: a camera's, a screen's, a
/// GPU's, those of a plugin that is not Debian's.
const OF_THE_MACHINE: [&str; 5] = ["v4l2src", "autovideosink", "nvh264dec", "nvh264enc", "whipclientsink"];

/// Frames at each sink, by name; those of `out.mp4` are counted by decoding it.
const LAUNCH_FILES: &[(&str, &[(&str, usize)])] = &[
    ("batch-1", &[("screen", 33)]),
    ("batch-2", &[("screen", 33)]),
    ("batch-4", &[("screen", 33)]),
    ("batch-8", &[("screen", 33)]),
    ("camera", &[("screen", FRAMES)]),
    ("file-in-file-out", &[("out.mp4", FRAMES)]),
    ("leaky-live", &[("screen", LONG)]),
    ("live", &[("screen", FRAMES)]),
    ("one-line", &[("out.mp4", FRAMES)]),
    ("seek-loop", &[("screen", 30)]),
    ("shared-engine", &[("first", 30), ("second", 30)]),
    ("side-by-side", &[("screen", 30)]),
    ("tensor-out", &[("screen", 30)]),
    ("two-sources", &[("first", 30), ("second", 20)]),
    ("upscale", &[("screen", 12)]),
];

/// What needs a trickle server, and another pipeline at the other end of it.
const TRICKLE_FILES: [&str; 4] = ["trickle-infer", "trickle-publish", "trickle-relay", "trickle-subscribe"];

/// What needs a GPU; `cuda.rs` runs `gpu-file` and `gpu-x264` on one that is simulated.
const GPU_FILES: [&str; 5] = ["gpu-camera", "gpu-file", "gpu-trickle", "gpu-webrtc", "gpu-x264"];

/// The server that launch files and documents name.
const SERVER: &str = "trickle://localhost:3389/";

/// A pipeline as gst-launch-1.0 makes it of these words.
fn parse_words(words: &[String]) -> Result<gst::Pipeline, glib::Error> {
    comfy_tests::init();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    gst::parse::launchv(&words).map(|element| element.downcast().expect("several elements make a pipeline"))
}

/// What `$(grep -v '^#' file)` becomes in a shell.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Fails unless it can be parsed as it stands, up to elements that this machine need not have.
fn assert_parses(words: &[String], from: &str) {
    if let Err(error) = parse_words(words) {
        let lacking = OF_THE_MACHINE.iter().any(|name| error.message().contains(name));
        assert!(
            lacking && error.matches(gst::ParseError::NoSuchElement),
            "{from}: {error}\n{}",
            words.join(" ")
        );
    }
}

/// Gives every source an end. False: there is a source that is not of this machine.
fn bound(pipeline: &gst::Pipeline, frames: usize) -> bool {
    pipeline.iterate_recurse().into_iter().flatten().all(|element| {
        let kind = element
            .factory()
            .map(|factory| factory.name().to_string())
            .unwrap_or_default();
        if ["videotestsrc", "audiotestsrc"].contains(&kind.as_str()) && element.property::<i32>("num-buffers") < 0 {
            element.set_property("num-buffers", frames as i32);
        }
        let source = element.element_flags().contains(gst::ElementFlags::SOURCE);
        !source || ["videotestsrc", "audiotestsrc", "filesrc"].contains(&kind.as_str())
    })
}

fn assert_clean(ended: &Ended, from: &str) {
    assert!(ended.errors().is_empty(), "{from}: {:?}", ended.errors());
    assert!(ended.warnings().is_empty(), "{from}: {:?}", ended.warnings());
}

/// A short clip with sound.
fn clip(folder: &Temp) {
    let path = folder.path().join("in.mp4").display().to_string();
    let pipeline = parse(&format!(
        "videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,width=96,height=64,framerate=30/1 \
         ! x264enc speed-preset=ultrafast ! mux. \
         audiotestsrc num-buffers={FRAMES} samplesperbuffer=800 ! audio/x-raw,rate=24000,channels=1 ! avenc_aac ! mux. \
         mp4mux name=mux ! filesink location={path}"
    ));
    run(&pipeline).expect_eos();
}

/// Decoded frames of a file, and whether it has sound.
fn decoded(path: &Path) -> (usize, bool) {
    let pipeline = parse(&format!(
        "filesrc location={} ! decodebin name=d ! video/x-raw ! fakesink name=picture",
        path.display()
    ));
    let tap = Tap::on(&pipeline.by_name("picture").unwrap().static_pad("sink").unwrap());
    let sound = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heard = sound.clone();
    pipeline.by_name("d").unwrap().connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let audio = caps.structure(0).is_some_and(|s| s.name().starts_with("audio/"));
        heard.fetch_or(audio, std::sync::atomic::Ordering::SeqCst);
    });
    run(&pipeline).expect_eos();
    (tap.frames().len(), sound.load(std::sync::atomic::Ordering::SeqCst))
}

#[test]
fn every_launch_file_is_in_the_table_and_says_what_it_shows() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(pipeline::launch_folder()).expect("the folder is there") {
        let path = entry.expect("a file").path();
        assert_eq!(
            path.extension().and_then(|e| e.to_str()),
            Some("launch"),
            "{}",
            path.display()
        );
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("# "), "{} begins with what it shows", path.display());
        assert!(
            text.contains("\n# Parameters: "),
            "{} says its parameters",
            path.display()
        );
        names.push(path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned());
    }
    names.sort();
    let mut known: Vec<_> = LAUNCH_FILES
        .iter()
        .map(|(name, _)| *name)
        .chain(TRICKLE_FILES)
        .chain(GPU_FILES)
        .collect();
    known.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn every_launch_file_parses_as_it_stands() {
    let names = LAUNCH_FILES.iter().map(|(name, _)| *name);
    for name in names.chain(TRICKLE_FILES).chain(GPU_FILES) {
        assert_parses(&words(&pipeline::launch_text(name)), name);
    }
}

#[test]
fn every_launch_file_plays_to_its_end_and_every_frame_arrives() {
    models::runtime();
    comfy_tests::init();
    let folder = Temp::new();
    clip(&folder);
    for (name, sinks) in LAUNCH_FILES {
        let text = substitute(&pipeline::launch_text(name), &folder);
        let pipeline = parse_words(&words(&text)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let frames = if *name == "leaky-live" { LONG } else { FRAMES };
        assert!(
            bound(&pipeline, frames),
            "{name} has a source that the table does not know"
        );
        let taps: BTreeMap<&str, Tap> = sinks
            .iter()
            .filter_map(|(sink, _)| Some((*sink, Tap::on(&pipeline.by_name(sink)?.static_pad("sink")?))))
            .collect();
        let ended = play_to_end(&pipeline);
        assert_clean(&ended, name);
        // What a leaky buffer drops it counts.
        let dropped: u64 = pipeline
            .iterate_recurse()
            .into_iter()
            .flatten()
            .filter(|element| element.find_property("leaky").is_some() && element.find_property("stats").is_some())
            .map(|buffer| bench::stat::<u64>(&buffer, "dropped-overrun") + bench::stat::<u64>(&buffer, "dropped-late"))
            .sum();
        pipeline::go(&pipeline, gst::State::Null);
        match *name {
            "leaky-live" => assert!(dropped > 0, "{name} is to show drops"),
            "camera" => (),
            _ => assert_eq!(dropped, 0, "{name}"),
        }
        for (sink, frames) in *sinks {
            let seen = match taps.get(sink) {
                Some(tap) => tap.frames().len(),
                None => {
                    let (frames, sound) = decoded(&folder.path().join(sink));
                    assert_eq!(sound, *name == "file-in-file-out", "{name}: sound");
                    frames
                }
            };
            assert_eq!(seen as u64 + dropped, *frames as u64, "{name}, {sink}");
        }
    }
}

#[test]
fn trickle_launch_files_bring_every_frame_from_the_publisher_to_the_screen() {
    comfy_tests::init();
    let folder = Temp::new();
    for (through, out) in [
        (None, "cam"),
        (Some("trickle-relay"), "copy"),
        (Some("trickle-infer"), "cam-out"),
    ] {
        let relay = Relay::new();
        let parsed = |name: &str| {
            let text = substitute(&pipeline::launch_text(name), &folder).replace(SERVER, &relay.url(""));
            parse_words(&words(&text)).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let subscribe = parsed("trickle-subscribe");
        let source = pipeline::made_by(&subscribe, "tricklesrc");
        source.set_property("url", relay.url(out));
        let tap = Tap::on(&subscribe.by_name("screen").unwrap().static_pad("sink").unwrap());
        let through = through.map(&parsed);
        let publish = parsed("trickle-publish");
        assert!(bound(&publish, LONG));
        // There already, or who polls for it may come after the first segment.
        for channel in ["cam", "copy", "cam-out"] {
            relay.server.create(channel, "video/MP2T").expect("there is room");
        }
        for waiting in through.iter().chain([&subscribe]) {
            pipeline::go_async(waiting, gst::State::Playing);
        }
        for pipeline in [&publish].into_iter().chain(&through).chain([&subscribe]) {
            let ended = play_to_end(pipeline);
            assert_clean(&ended, out);
        }
        for pipeline in [&publish].into_iter().chain(&through).chain([&subscribe]) {
            pipeline::go(pipeline, gst::State::Null);
        }
        assert_eq!(tap.frames().len(), LONG, "{out}");
    }
}

#[test]
fn live_launch_file_shows_every_frame_in_time() {
    undisturbed(|| {
        let pipeline = parse_words(&words(&pipeline::launch_text("live"))).expect("it parses");
        assert!(bound(&pipeline, FRAMES));
        let ended = play_to_end(&pipeline);
        assert_clean(&ended, "live");
        let stats: gst::Structure = pipeline.by_name("screen").unwrap().property("stats");
        pipeline::go(&pipeline, gst::State::Null);
        let count = |name: &str| stats.get::<u64>(name).unwrap();
        match (count("rendered"), count("dropped")) {
            (rendered, 0) if rendered == FRAMES as u64 => Ok(()),
            _ => Err(stats.to_string()),
        }
    });
}

#[test]
fn seek_loop_launch_file_loops_without_a_gap() {
    const LOOP: u64 = 10;
    let pipeline = parse_words(&words(
        &pipeline::launch_text("seek-loop").replace("num-buffers=30", "name=source"),
    ))
    .expect("it parses");
    let screen = pipeline.by_name("screen").unwrap().static_pad("sink").unwrap();
    let tap = Tap::on(&screen);
    let seek = |flags| {
        let end = gst::ClockTime::SECOND * LOOP / 30;
        let seek = pipeline.seek(
            1.0,
            flags,
            gst::SeekType::Set,
            gst::ClockTime::ZERO,
            gst::SeekType::Set,
            end,
        );
        seek.expect("the seek is accepted");
    };
    pipeline::go(&pipeline, gst::State::Paused);
    tap.clear();
    seek(gst::SeekFlags::FLUSH | gst::SeekFlags::SEGMENT);
    pipeline::go(&pipeline, gst::State::Playing);
    let bus = pipeline.bus().unwrap();
    for turn in 0..5 {
        let what = format!("the end of turn {turn}");
        pipeline::wait_message(&bus, &what, |message| message.type_() == gst::MessageType::SegmentDone);
        seek(if turn < 4 {
            gst::SeekFlags::SEGMENT
        } else {
            gst::SeekFlags::empty()
        });
    }
    pipeline::wait_message(&bus, "EOS", |message| message.type_() == gst::MessageType::Eos);
    let seen = tap.seen();
    let flushed = seen
        .iter()
        .rposition(|s| s.event().is_some_and(|e| e.type_() == gst::EventType::FlushStop));
    // Running times go on without a gap over all turns, because every segment starts where the last one ended.
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    let mut times = Vec::new();
    for seen in &seen[flushed.expect("the first seek flushes")..] {
        if let Some(gst::EventView::Segment(event)) = seen.event().map(|event| event.view()) {
            segment = event.segment().clone().downcast().expect("time");
        }
        if let Some(frame) = seen.frame() {
            times.push(segment.to_running_time(frame.pts()).expect("inside"));
        }
    }
    assert_eq!(times.len() as u64, 6 * LOOP);
    for (before, after) in times.iter().zip(&times[1..]) {
        let step = *after - *before;
        assert!(step.mseconds() == 33, "{before} and {after}");
    }
    pipeline::go(&pipeline, gst::State::Null);
}

// --- documents ----------------------------------------------------------------------------------------------

/// Files in which pipelines may be written down.
fn documents() -> Vec<PathBuf> {
    let root = models::root();
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let folder = |path: PathBuf| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    files.extend(folder(root.join("docs")).filter(|path| path.extension().is_some_and(|e| e == "md")));
    for plugin in folder(root.join("elements")) {
        files.extend(folder(plugin.join("src")).map(|path| path.join("mod.rs")));
    }
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// The gst-launch commands of a document, with continued lines joined and without `gst-launch-1.0` and its options.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").unwrap_or(line).trim()
    });
    let mut commands = Vec::new();
    let mut open: Option<String> = None;
    for line in lines {
        let start = line.strip_prefix("$ ").unwrap_or(line).starts_with("gst-launch-1.0 ");
        let Some(line) = open
            .take()
            .map(|before| before + line)
            .or_else(|| start.then(|| line.to_owned()))
        else {
            continue;
        };
        match line.strip_suffix('\\') {
            Some(more) => open = Some(more.to_owned()),
            None => {
                let command = line.strip_prefix("$ ").unwrap_or(&line);
                // In the background of a shell.
                commands.push(command.strip_suffix('&').unwrap_or(command).trim_end().to_owned());
            }
        }
    }
    let words = |command: &String| {
        let words = glib::shell_parse_argv(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        let words = words.into_iter().map(|word| word.into_string().expect("UTF-8"));
        words.skip(1).skip_while(|word| word.starts_with('-')).collect()
    };
    commands
        .iter()
        .filter(|command| !command.contains("$("))
        .map(words)
        .collect()
}

#[test]
fn commands_of_documents_are_found() {
    let text = "//! ```text\n//! gst-launch-1.0 -e videotestsrc ! 'video/x-raw, width=64' \\\n//!   ! fakesink\n//! ```\n\
                prose about gst-launch-1.0 strings\n\n    $ gst-launch-1.0 fakesrc ! fakesink\n";
    let found = commands(text);
    assert_eq!(
        found[0],
        ["videotestsrc", "!", "video/x-raw, width=64", "!", "fakesink"]
    );
    assert_eq!(found[1], ["fakesrc", "!", "fakesink"]);
    assert_eq!(found.len(), 2);
}

#[test]
fn every_element_shows_a_pipeline() {
    for file in documents().iter().filter(|path| path.ends_with("mod.rs")) {
        let text = std::fs::read_to_string(file).expect("readable");
        if text.contains("//! SECTION: ") {
            assert!(!commands(&text).is_empty(), "{} shows no pipeline", file.display());
        }
    }
}

/// The relay's quick start: what its reader sees of what its publisher sends.
#[test]
fn readme_shows_a_publisher_and_a_reader_that_find_each_other() {
    comfy_tests::init();
    let (folder, relay) = (Temp::new(), Relay::new());
    let readme = std::fs::read_to_string(models::root().join("README.md")).expect("readable");
    let played = |element: &str| {
        let commands = commands(&readme);
        let found = commands.iter().find(|words| words.iter().any(|word| word == element));
        let words = found.unwrap_or_else(|| panic!("README.md shows no {element}")).iter();
        let words: Vec<String> = words
            .map(|word| substitute(word, &folder).replace(SERVER, &relay.url("")))
            .map(|word| word.replace("fakesink", "fakesink name=screen"))
            .flat_map(|word| word.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        parse_words(&words).unwrap_or_else(|error| panic!("{element}: {error}"))
    };
    let (publish, read) = (played("tricklesink"), played("tricklesrc"));
    let tap = Tap::on(&read.by_name("screen").expect("it shows it").static_pad("sink").unwrap());
    pipeline::go_async(&publish, gst::State::Playing);
    pipeline::go_async(&read, gst::State::Playing);
    tap.wait_frames(FRAMES);
    assert!(publish.send_event(gst::event::Eos::new()));
    assert_clean(&play_to_end(&publish), "the publisher");
    assert!(relay.server.delete("cam"));
    assert_clean(&play_to_end(&read), "the reader");
    for pipeline in [publish, read] {
        pipeline::go(&pipeline, gst::State::Null);
    }
}

#[test]
fn every_pipeline_in_a_document_parses_and_plays() {
    models::runtime();
    comfy_tests::init();
    let folder = Temp::new();
    clip(&folder);
    let relay = Relay::new();
    let mut played = 0;
    for file in documents() {
        let text = std::fs::read_to_string(&file).expect("readable");
        for command in commands(&text) {
            let from = file.display().to_string();
            assert_parses(&command, &from);
            let server = |word: &String| substitute(word, &folder).replace(SERVER, &relay.url(""));
            let command: Vec<String> = command.iter().map(server).collect();
            let Ok(pipeline) = parse_words(&command) else { continue };
            if bound(&pipeline, FRAMES) {
                assert_clean(&run(&pipeline), &format!("{from}: {}", command.join(" ")));
                played += 1;
            }
        }
    }
    assert!(played >= 5, "the four elements' own and a publisher's, at least");
}
