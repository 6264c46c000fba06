//! `comfystream doctor`, run as a user runs it.

mod support;

use support::comfystream;

fn findings(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn finding<'a>(diagnosis: &'a serde_json::Value, group: &str, name: &str) -> &'a serde_json::Value {
    let all = diagnosis["findings"].as_array().unwrap();
    let found = all
        .iter()
        .find(|finding| finding["group"] == group && finding["name"] == name);
    found.unwrap_or_else(|| panic!("no {group} {name} in {diagnosis}"))
}

#[test]
fn a_machine_that_can_run_models_is_told_so() {
    assert!(
        std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()),
        "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
    );
    let output = comfystream().arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("Models can run on this machine.\n"), "{text}");

    let output = comfystream().args(["doctor", "--json"]).output().unwrap();
    let diagnosis = findings(&output);
    assert_eq!(diagnosis["ok"], true);
    for (group, name) in [
        ("GStreamer", "version"),
        ("GStreamer", "comfy elements"),
        ("files", "H.264 encoder"),
        ("ONNX Runtime", "library"),
        ("self test", "builtin:invert"),
        ("self test", "invert.onnx"),
    ] {
        assert_eq!(finding(&diagnosis, group, name)["status"], "ok", "{group} {name}");
    }
    for finding in diagnosis["findings"].as_array().unwrap() {
        assert_eq!(finding["status"] == "ok", finding["advice"].is_null(), "{finding}");
    }
}

#[test]
fn what_is_missing_comes_with_its_package_and_a_failure() {
    let (_plugins, environment) = support::only(&["coreelements"]);
    let output = comfystream()
        .args(["doctor", "--json"])
        .envs(environment)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let diagnosis = findings(&output);
    assert_eq!(diagnosis["ok"], false);
    for (group, name, status, package) in [
        ("files", "uridecodebin", "missing", "gstreamer1.0-plugins-base"),
        ("files", "mp4mux", "missing", "gstreamer1.0-plugins-good"),
        ("files", "H.264 encoder", "missing", "gstreamer1.0-plugins-ugly"),
        ("files", "H.264 decoder", "missing", "gstreamer1.0-libav"),
        ("WebRTC", "webrtcbin", "absent", "gstreamer1.0-plugins-bad"),
        ("WebRTC", "nicesrc", "absent", "gstreamer1.0-nice"),
        ("WebRTC", "opusenc", "absent", "gstreamer1.0-plugins-base"),
    ] {
        let finding = finding(&diagnosis, group, name);
        assert_eq!(finding["status"], status, "{finding}");
        assert!(finding["advice"].as_str().unwrap().contains(package), "{finding}");
    }
}
