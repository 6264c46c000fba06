//! `comfystream engine`, run as a user runs it.

mod support;

use std::path::Path;
use std::process::Output;

use support::comfystream;

const SIDECAR: &str = r#"{
    "inputs": [{
        "name": "image", "dtype": "float16", "shape": ["batch", 3, "height", "width"],
        "min": [1, 3, 512, 512], "opt": [4, 3, 512, 512], "max": [4, 3, 512, 512]
    }],
    "outputs": [{ "name": "result", "dtype": "float16", "shape": ["batch", 3, "height", "width"] }],
    "trt": "10.16.1",
    "hardware_architecture": "89"
}"#;

fn engine(arguments: &[&str], path: &Path) -> Output {
    let mut command = comfystream();
    command.arg("engine").args(arguments).arg(path);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// An engine in a cache, as compiling one leaves it.
fn entry(cache: &Path, name: &str, age: u64) {
    let folder = cache.join(format!("{name}-0123456789abcdef"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.engine"), vec![1; 2048]).unwrap();
    let key = serde_json::json!({
        "path": format!("/models/{name}.onnx"),
        "key": {
            "model": "ab".repeat(32), "precision": "fp16", "profile": "", "onnx_runtime": "1.31.1",
            "tensorrt": "10.16.1", "driver": "580.65", "architecture": "89",
        },
        "build_seconds": 95.2,
    });
    let path = folder.join("key.json");
    std::fs::write(&path, key.to_string()).unwrap();
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let made = file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(age);
    file.set_modified(made).unwrap();
}

#[test]
fn an_engine_is_shown_with_what_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cartoon.engine");
    std::fs::write(&path, "engine").unwrap();
    let bare = text(&engine(&["inspect"], &path));
    assert!(
        bare.contains("cartoon.engine.json") && bare.contains("\"outputs\""),
        "{bare}"
    );
    std::fs::write(folder.path().join("cartoon.engine.json"), SIDECAR).unwrap();
    let shown = text(&engine(&["inspect"], &path));
    for line in [
        "kind          compiled TensorRT engine\n",
        "inputs        image  float16 [batch, 3, 512, 512]  batch 1 to 4, best 4\n",
        "TensorRT      10.16.1\n",
        "GPU           compute capability 89\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let output = engine(&["inspect", "--sidecar"], &path);
    let sidecar: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sidecar["hardware_architecture"], "89");
    let missing = engine(&["inspect"], &folder.path().join("none.engine"));
    assert!(!missing.status.success() && text(&missing).contains("does not exist"));
    let model = text(&engine(&["inspect"], Path::new("models/cartoon.onnx")));
    assert!(model.starts_with("kind") && model.contains("ONNX model"), "{model}");
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    assert!(text(&engine(&["list", "--cache"], cache)).starts_with("nothing is compiled in "));
    entry(cache, "cartoon", 40 * 86400);
    entry(cache, "style", 60);
    std::fs::write(cache.join("notes.txt"), "mine").unwrap();
    let listed = text(&engine(&["list", "--cache"], cache));
    assert!(listed.contains("40 d  /models/cartoon.onnx\n"), "{listed}");
    assert!(
        listed.contains("precision fp16, ONNX Runtime 1.31.1, TensorRT 10.16.1, driver 580.65"),
        "{listed}"
    );
    assert!(
        listed.contains("compiled in 95 s") && listed.contains("there are 2 entries, "),
        "{listed}"
    );
    let json = engine(&["list", "--json", "--cache"], cache);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json[0]["model"], &json[1]["key"]["GPU"]),
        (&"/models/style.onnx".into(), &"89".into())
    );

    assert!(
        !engine(&["prune", "--cache"], cache).status.success(),
        "what to remove has to be said"
    );
    let tried = text(&engine(
        &["prune", "--older-than", "30d", "--dry-run", "--cache"],
        cache,
    ));
    assert!(tried.contains("would remove 1 entry, "), "{tried}");
    let done = text(&engine(&["prune", "--older-than", "30d", "--cache"], cache));
    assert!(
        done.contains("cartoon-0123456789abcdef (") && done.contains("removed 1 entry, 2."),
        "{done}"
    );
    let listed = text(&engine(&["list", "--cache"], cache));
    assert!(listed.contains("style") && !listed.contains("cartoon"), "{listed}");
    let done = text(&engine(&["prune", "--all", "--cache"], cache));
    assert!(done.contains("removed 1 entry"), "{done}");
    assert!(cache.join("notes.txt").is_file());
}

#[test]
fn building_without_a_gpu_says_what_is_missing_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let build = |arguments: &[&str]| {
        let mut all = vec!["build", "--model"];
        all.extend(arguments);
        all.push("--cache");
        engine(&all, &cache)
    };
    let output = build(&["models/cartoon.onnx", "--size", "640x360", "--batch", "1,4"]);
    if output.status.success() {
        return;
    }
    let said = text(&output);
    assert!(
        said.contains("backend tensorrt is not available: cartoon.onnx: "),
        "{said}"
    );
    assert!(!cache.exists(), "{said}");
    let said = text(&build(&["none.onnx"]));
    assert!(said.contains("model file none.onnx does not exist"), "{said}");
    let said = text(&build(&["models/cartoon.onnx", "--size", "640"]));
    assert!(said.contains("such as 1280x720"), "{said}");
    let said = text(&build(&["models/cartoon.onnx"]));
    assert!(said.contains("name it with --size"), "{said}");
    // The model's own batch stands.
    let said = text(&build(&["models/fixed-batch2.onnx", "--size", "64x64"]));
    assert!(
        said.contains("backend tensorrt is not available: fixed-batch2.onnx: "),
        "{said}"
    );
}
