//! Each numbered program runs without arguments, ends by itself, and prints what it is about.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of them takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Every program, and lines that it prints.
const EXAMPLES: &[(&str, &str, &[&str])] = &[
    (
        "01_policy",
        env!("CARGO_BIN_EXE_01_policy"),
        &[
            "batch of 4 (Full): [0, 1, 2, 3]",
            "batch of 2 (Eos): [16, 17]",
            "18 frames in, 18 out, in 5 batches of at most 4; at most 8 waited",
        ],
    ),
    (
        "02_engine",
        env!("CARGO_BIN_EXE_02_engine"),
        &[
            "invert-u8.onnx on ONNX Runtime",
            "picture 0: [255, 245, 235",
            "both are the negative of what went in",
        ],
    ),
    (
        "03_appsrc_appsink",
        env!("CARGO_BIN_EXE_03_appsrc_appsink"),
        &["frame 9 at 0:00:00.360000000: 246", "all 10 frames came back in order"],
    ),
    (
        "04_file",
        env!("CARGO_BIN_EXE_04_file"),
        &["cartoon.onnx is ready for 320x240", "30 frames in 8 batches, "],
    ),
    (
        "05_stats_on_bus",
        env!("CARGO_BIN_EXE_05_stats_on_bus"),
        &[
            "progress Complete: invert.onnx is ready for 160x120",
            "message comfyflightbuffer",
            "state=(string)running",
            "latency live=true",
            "frames=(guint64)45",
            "frames-out=(guint64)45",
        ],
    ),
    (
        "06_two_streams",
        env!("CARGO_BIN_EXE_06_two_streams"),
        &[
            "src_2 appears",
            "src_2 goes",
            "stream 0: 48 frames",
            "stream 1: 36 frames",
            "stream 2: 10 frames",
        ],
    ),
    (
        "07_tensors",
        env!("CARGO_BIN_EXE_07_tensors"),
        &["0:00:00.166666666  stats f32[6] = ", "brightest i64[1] = "],
    ),
];

/// Runs a program to its end, or ends it at the deadline.
fn run(path: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(path)
        .args(arguments)
        .env("G_DEBUG", "fatal-warnings")
        .env_remove("GST_PLUGIN_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo has built it");
    let id = child.id();
    let (done, end) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let hangs = end.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if hangs {
            let _ = Command::new("kill").arg("-9").arg(id.to_string()).status();
        }
        hangs
    });
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.expect("piped").read_to_end(&mut bytes);
            bytes
        })
    };
    let stdout = read(stdout.map(|pipe| Box::new(pipe) as _));
    let stderr = read(stderr.map(|pipe| Box::new(pipe) as _));
    let status = child.wait().expect("it ends");
    drop(done);
    assert!(!watchdog.join().expect("the watchdog ends"), "{path} did not end");
    Output {
        status,
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
    }
}

#[test]
fn every_example_runs_without_arguments_and_prints_what_it_is_about() {
    let library = std::env::var_os("ORT_DYLIB_PATH");
    assert!(
        library.is_some(),
        "ORT_DYLIB_PATH is not set: run `make setup`, then `make test`"
    );
    for (name, path, lines) in EXAMPLES {
        let start = Instant::now();
        let output = run(path, &[]);
        let (text, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{name}: {}\n{text}\n{errors}", output.status);
        assert_eq!(errors, "", "{name} complains");
        for line in *lines {
            assert!(text.contains(line), "{name} does not print `{line}`:\n{text}");
        }
        println!("{name}: {:.1?}", start.elapsed());
    }
}

#[test]
fn every_example_is_in_this_list_and_is_documented() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the examples are here") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("//! "), "{name} begins with what it shows");
        assert!(text.contains(&format!("//! `{name}")), "{name} says how it is called");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, EXAMPLES.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
}

#[test]
fn example_with_too_many_arguments_says_how_it_is_called_and_fails() {
    for (name, path, _) in EXAMPLES {
        let output = run(path, &["--help"]);
        assert!(!output.status.success(), "{name}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(&format!("usage: {name}")), "{name}: {errors}");
    }
}

#[test]
fn example_with_a_model_that_is_not_there_says_so_and_fails() {
    for (name, path, _) in EXAMPLES {
        let arguments: &[&str] = match *name {
            "01_policy" => continue,
            "04_file" => &["in.mp4", "/no-such-folder/out.mp4", "no-such.onnx"],
            _ => &["no-such.onnx"],
        };
        let output = run(path, arguments);
        assert!(!output.status.success(), "{name}");
        let errors = String::from_utf8_lossy(&output.stderr);
        // 04_file can neither read nor write either, and whichever is noticed first is told.
        let told = ["no-such.onnx", "in.mp4", "/no-such-folder/out.mp4"]
            .iter()
            .any(|missing| errors.contains(missing));
        assert!(told, "{name}: {errors}");
    }
}
