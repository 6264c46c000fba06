//! `comfystream demo`, run as a user runs it.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Demo, clip, comfystream, decode, png, report};

const FRAME: u64 = 40_000_000;

#[test]
fn a_clip_comes_out_frame_for_frame_with_its_sound() {
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "clip with space.mp4", (160, 120), 50, true);
    let demo = Demo::run(&input, "builtin:invert", &["--batch", "4"]);
    let report = demo.report();

    let decoded = decode(&demo.file("demo.mp4"));
    assert_eq!(decoded.size, (160 + 4 + 160, 120));
    assert_eq!(decoded.times, (0..50).map(|n| n * FRAME).collect::<Vec<_>>());
    let there = decode(input.as_ref()).audio_seconds;
    assert!(
        (decoded.audio_seconds - there).abs() < 0.03,
        "{} of {there}",
        decoded.audio_seconds
    );
    assert_eq!(report["output"]["audio"], "AAC, passed on unchanged");

    // Four pairs side by side, two rows of them, 400 pixels wide and 300 high each.
    let (width, height, colours) = png(&demo.file("contact-sheet.png"));
    assert_eq!((width, height), (4 * 412 + 12, 2 * (603 + 12) + 12));
    assert!(colours > 10, "{colours}");

    for (field, value) in [
        ("frames_in", 50),
        ("frames_out", 50),
        ("frames_in_file", 50),
        ("lost", 0),
        ("changed_times", 0),
    ] {
        assert_eq!(report["check"][field], value, "{field}");
    }
    assert_eq!(report["check"]["passed"], true);
    assert_eq!(report["batches"]["count"], 13);
    assert_eq!(report["batches"]["full"], 12);
    assert_eq!(report["batches"]["end_of_stream"], 1);
    assert!((report["batches"]["fill"].as_f64().unwrap() - 50.0 / 52.0).abs() < 1e-9);
    assert_eq!(report["buffer"]["capacity"], 20);
    assert_eq!(report["input"]["fps"], 25.0);
    assert!(report["speed"]["fps"].as_f64().unwrap() > 0.0);
    let times = &report["latency_ms"];
    let mean = |stage: &str| times[stage]["mean"].as_f64().unwrap();
    let parts = mean("buffered") + mean("batching") + mean("inference") + mean("unbatching");
    assert!(
        (parts - mean("total")).abs() < 1e-6 * parts.max(1.0),
        "stages add up to {parts}: {times}"
    );

    assert_eq!(std::fs::read(demo.file("report.txt")).unwrap(), demo.output.stdout);
    let lines = demo.stderr();
    assert!(lines.contains("loading builtin:invert"), "{lines}");
    // The sound is a little longer, and the total is estimated from the whole.
    assert!(lines.contains("frames (90 %), "), "{lines}");
    let files = std::fs::read_dir(demo.file("")).unwrap().count();
    assert_eq!(files, 4, "no partial file is left");
}

#[test]
fn odd_sizes_and_silence_are_fine() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("odd.avi").display().to_string();
    support::play(&format!(
        "videotestsrc num-buffers=9 ! video/x-raw,format=I420,width=97,height=65,framerate=25/1 ! jpegenc ! avimux \
         ! filesink location={input}"
    ));
    let demo = Demo::run(&input, "builtin:invert", &["--batch", "2"]);
    let report = demo.report();
    assert_eq!(
        (&report["input"]["width"], &report["input"]["height"]),
        (&97.into(), &65.into())
    );
    assert_eq!(report["output"]["audio"], "none in the input");
    let decoded = decode(&demo.file("demo.mp4"));
    assert_eq!(decoded.times.len(), 9);
    assert_eq!((decoded.size.0 % 2, decoded.size.1 % 2), (0, 0));
}

#[test]
fn video_with_a_note_to_turn_it_is_upright_in_both_panes() {
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "phone.mp4", (96, 64), 9, false);
    // The track's matrix, from none to a quarter turn.
    let matrix = |[a, b, c, d]: [i32; 4]| [a, b, 0, c, d, 0].map(|n| (n << 16).to_be_bytes()).concat();
    let (none, turned) = (matrix([1, 0, 0, 1]), matrix([0, 1, -1, 0]));
    let mut bytes = std::fs::read(&input).unwrap();
    let track = bytes.windows(4).position(|name| name == b"tkhd").unwrap();
    let at = track
        + bytes[track..]
            .windows(none.len())
            .position(|found| found == none)
            .unwrap();
    bytes[at..at + turned.len()].copy_from_slice(&turned);
    std::fs::write(&input, bytes).unwrap();
    let demo = Demo::run(&input, "builtin:invert", &[]);
    demo.report();
    assert_eq!(decode(&demo.file("demo.mp4")).size, (64 + 4 + 64, 96));
}

#[test]
fn interlaced_video_is_drawn_without_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("fields.mkv").display().to_string();
    support::play(&format!(
        "videotestsrc num-buffers=9 ! video/x-raw,format=I420,width=96,height=64,framerate=25/1,interlace-mode=interleaved,field-order=top-field-first \
         ! x264enc interlaced=true ! h264parse ! matroskamux ! filesink location={input}"
    ));
    let demo = Demo::run(&input, "builtin:invert", &[]);
    demo.report();
    assert!(!demo.stderr().contains("CRITICAL"), "{}", demo.stderr());
    assert_eq!(decode(&demo.file("demo.mp4")).times.len(), 9);
}

#[test]
fn a_size_that_changes_on_the_way_is_fitted_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, width, height) in [("a.h264", 96, 64), ("b.h264", 64, 96)] {
        support::play(&format!(
            "videotestsrc num-buffers=7 ! video/x-raw,format=I420,width={width},height={height},framerate=25/1 \
             ! x264enc bframes=0 speed-preset=ultrafast ! video/x-h264,stream-format=byte-stream \
             ! filesink location={}",
            at(name).display()
        ));
    }
    let both = [
        std::fs::read(at("a.h264")).unwrap(),
        std::fs::read(at("b.h264")).unwrap(),
    ]
    .concat();
    std::fs::write(at("both.h264"), both).unwrap();
    let demo = Demo::run(
        &at("both.h264").display().to_string(),
        "builtin:invert",
        &["--batch", "4"],
    );
    let report = demo.report();
    assert_eq!(report["check"]["frames_out"], 14);
    let decoded = decode(&demo.file("demo.mp4"));
    assert_eq!((decoded.times.len(), decoded.size), (14, (96 + 4 + 96, 64)));
}

#[test]
fn sound_in_another_format_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.mkv").display().to_string();
    support::play(&format!(
        "videotestsrc num-buffers=25 ! video/x-raw,width=64,height=48,framerate=25/1 ! vp8enc deadline=1 ! matroskamux name=mux \
         ! filesink location={input} audiotestsrc num-buffers=50 samplesperbuffer=960 ! audio/x-raw,rate=48000 ! vorbisenc ! mux."
    ));
    let demo = Demo::run(&input, "builtin:invert", &[]);
    let report = demo.report();
    assert!(
        report["output"]["audio"]
            .as_str()
            .unwrap()
            .starts_with("AAC, encoded by "),
        "{report}"
    );
    let decoded = decode(&demo.file("demo.mp4"));
    assert_eq!(decoded.times.len(), 25);
    assert!((decoded.audio_seconds - 1.0).abs() < 0.1, "{}", decoded.audio_seconds);
}

#[test]
fn a_model_file_with_its_manifest_is_found_from_where_the_user_stands() {
    need_runtime();
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "clip.mp4", (64, 48), 10, false);
    let demo = Demo::run(&input, "models/upscale2x.onnx", &["--batch", "4", "--backend", "cpu"]);
    let report = demo.report();
    assert_eq!(report["model"]["name"], "upscale2x.onnx");
    assert!(
        report["model"]["runtime"].as_str().unwrap().contains("on cpu"),
        "{report}"
    );
    // Before is enlarged to the height of after.
    assert_eq!(decode(&demo.file("demo.mp4")).size, (128 + 4 + 128, 96));
}

#[test]
fn a_model_without_pictures_shows_the_input_alone() {
    need_runtime();
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "clip.mp4", (64, 48), 10, false);
    let demo = Demo::run(&input, "models/tensor-out.onnx", &[]);
    let report = demo.report();
    assert_eq!(
        (&report["model"]["pictures"], &report["model"]["tensors"]),
        (&false.into(), &20.into())
    );
    assert_eq!(decode(&demo.file("demo.mp4")).size, (64, 48));
    let text = std::fs::read_to_string(demo.file("report.txt")).unwrap();
    assert!(text.contains("makes no pictures"), "{text}");
}

#[test]
fn duration_ends_picture_and_sound() {
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "clip.mp4", (64, 48), 50, true);
    let demo = Demo::run(&input, "builtin:invert", &["--duration", "1"]);
    demo.report();
    let decoded = decode(&demo.file("demo.mp4"));
    assert_eq!(decoded.times.len(), 25);
    assert!((decoded.audio_seconds - 1.0).abs() < 0.05, "{}", decoded.audio_seconds);
}

#[test]
fn an_interrupt_finishes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = clip(folder.path(), "clip.mp4", (64, 48), 600, true);
    let out = folder.path().join("out");
    let mut child = comfystream()
        .args([
            "demo",
            "--input",
            &input,
            "--model",
            "builtin:null?base=20ms",
            "--batch",
            "4",
            "--out",
        ])
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("of 600 frames")));
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    let report = report(&out.join("report.json"));
    assert_eq!(report["stopped"], true);
    let decoded = decode(&out.join("demo.mp4"));
    assert_eq!(report["check"]["frames_in_file"], decoded.times.len());
    assert!((60..600).contains(&decoded.times.len()), "{}", decoded.times.len());
}

#[test]
fn what_cannot_be_done_is_one_line_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let clip = clip(folder.path(), "clip.mp4", (64, 48), 5, false);
    std::fs::write(at("text.mp4"), "not a video at all, but long enough to be looked at").unwrap();
    std::fs::write(at("broken.onnx"), "not a model").unwrap();
    support::play(&format!(
        "audiotestsrc num-buffers=20 ! avenc_aac ! aacparse ! mp4mux ! filesink location={}",
        at("sound.mp4")
    ));
    let missing = at("nothing.mp4");
    for (input, model, parts) in [
        (
            missing.as_str(),
            "builtin:invert",
            vec!["input file", "nothing.mp4 does not exist"],
        ),
        (
            &at("text.mp4"),
            "builtin:invert",
            vec!["text.mp4 cannot be read as video"],
        ),
        (
            &at("sound.mp4"),
            "builtin:invert",
            vec!["sound.mp4 contains no video (but audio)"],
        ),
        (&at(""), "builtin:invert", vec!["is a folder"]),
        (
            "nosuch://a/b",
            "builtin:invert",
            vec!["nosuch://a/b is neither a file nor a URI"],
        ),
        (
            &clip,
            "models/nothing.onnx",
            vec!["model file models/nothing.onnx does not exist", "--model"],
        ),
        (&clip, "builtin:nothing", vec!["builtin:nothing"]),
    ] {
        let demo = Demo::run(input, model, &[]);
        let text = demo.stderr();
        assert_eq!(demo.output.status.code(), Some(1), "{input} {model}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("comfystream: "), "{text}");
        for part in parts {
            assert!(last.contains(part), "{part}: {text}");
        }
        let left = std::fs::read_dir(demo.file("")).into_iter().flatten().count();
        assert_eq!(left, 0, "{input} {model}");
    }
}

#[test]
fn a_broken_model_is_told_by_its_name() {
    need_runtime();
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path(), "clip.mp4", (64, 48), 5, false);
    let model = folder.path().join("broken.onnx").display().to_string();
    std::fs::write(&model, "not a model").unwrap();
    let demo = Demo::run(&clip, &model, &[]);
    assert_eq!(demo.output.status.code(), Some(1));
    let text = demo.stderr();
    assert!(
        text.lines()
            .last()
            .unwrap()
            .contains("broken.onnx is not a usable model"),
        "{text}"
    );
}

#[test]
fn without_an_encoder_the_package_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path(), "clip.mp4", (64, 48), 5, false);
    let (_plugins, environment) = support::only(&["coreelements", "playback", "typefindfunctions", "isomp4"]);
    let output = comfystream()
        .args(["demo", "--input", &clip, "--model", "builtin:invert", "--out"])
        .arg(folder.path().join("out"))
        .envs(environment)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no H.264 encoder works here"), "{text}");
    assert!(text.contains("apt install gstreamer1.0-plugins-ugly"), "{text}");
}

#[test]
fn without_a_decoder_the_package_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path(), "clip.mp4", (64, 48), 5, false);
    let (_plugins, environment) = support::only(&[
        "coreelements",
        "playback",
        "typefindfunctions",
        "isomp4",
        "videoconvertscale",
        "videoparsersbad",
        "x264",
    ]);
    let output = comfystream()
        .args(["demo", "--input", &clip, "--model", "builtin:invert", "--out"])
        .arg(folder.path().join("out"))
        .envs(environment)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("decoder is installed"), "{text}");
    assert!(text.contains("apt install gstreamer1.0-libav"), "{text}");
}

/// These tests do not skip: a run that checked nothing must not look like one that did.
fn need_runtime() {
    assert!(
        std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()),
        "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
    );
}
