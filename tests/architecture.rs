//! Which way the arrows point, and other promises about the tree that a compiler does not keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use comfy_tests::models::root;

/// Longest source file that needs no explanation.
const LINES: usize = 800;

/// Names of packages, one a line, that `cargo tree` finds for this machine.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--prefix=none", "--format={p}"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// For each package all packages that its build needs, tests left out, and whatever the others' builds add to them.
fn needs() -> BTreeMap<String, BTreeSet<String>> {
    // What macros are made with is not linked.
    let ours = tree(&["--workspace", "--depth=0"]);
    ours.into_iter()
        .map(|name| {
            let mut found = tree(&["--all-features", "--edges=normal,no-proc-macro", "--package", &name]);
            found.remove(&name);
            (name, found)
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let needs = needs();
    let forbidden: [(&str, &[&str]); 7] = [
        (
            "comfy-core",
            &[
                "gstreamer",
                "gstreamer-sys",
                "glib",
                "glib-sys",
                "parking_lot",
                "clap",
                "gst-plugin-comfy",
                "gst-plugin-trickle",
            ],
        ),
        (
            "gst-plugin-comfy",
            &["comfy-pipelines", "comfystream", "clap", "anyhow"],
        ),
        (
            "gst-plugin-trickle",
            &[
                "gst-plugin-comfy",
                "comfy-pipelines",
                "comfystream",
                "trickle-relay",
                "clap",
                "anyhow",
            ],
        ),
        ("comfy-pipelines", &["comfystream", "clap"]),
        ("comfystream", &["trickle-relay", "comfy-gpu-bench"]),
        (
            "comfy-gpu-bench",
            &[
                "gstreamer",
                "gstreamer-sys",
                "glib",
                "glib-sys",
                "tokio",
                "gst-plugin-comfy",
                "comfy-pipelines",
                "comfystream",
                "trickle-relay",
            ],
        ),
        (
            "trickle-relay",
            &[
                "gstreamer",
                "gstreamer-sys",
                "glib",
                "glib-sys",
                "gst-plugin-comfy",
                "comfy-pipelines",
                "comfystream",
            ],
        ),
    ];
    for (package, others) in forbidden {
        let found = needs
            .get(package)
            .unwrap_or_else(|| panic!("{package} is in the workspace"));
        for other in others.iter().chain(&["comfy-tests", "comfy-examples"]) {
            assert!(
                !found.contains(*other),
                "{package} depends on {other}: that arrow runs back"
            );
        }
    }
    // Nobody needs the services, the tests or the examples.
    for (package, found) in &needs {
        for leaf in [
            "comfystream",
            "trickle-relay",
            "comfy-gpu-bench",
            "comfy-tests",
            "comfy-examples",
        ] {
            assert!(!found.contains(leaf) || package == leaf, "{package} depends on {leaf}");
        }
    }
}

/// Rust sources of the repository, with paths as git would show them.
fn sources() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder can be read") {
            let path: PathBuf = entry.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let built = name.starts_with('.') || name == "target" || path.join("CACHEDIR.TAG").exists();
            if path.is_dir() && !built {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let shown = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((shown, std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    found
}

#[test]
fn long_files_are_explained_in_the_architecture() {
    let explained = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let long = sources()
        .into_iter()
        .filter(|(path, text)| text.lines().count() > LINES && !explained.contains(path));
    let long: Vec<String> = long
        .map(|(path, text)| format!("{path}: {}", text.lines().count()))
        .collect();
    assert!(
        long.is_empty(),
        "longer than {LINES} lines and not named in ARCHITECTURE.md: {long:?}. Something in there is a part of its own"
    );
}

#[test]
fn tests_that_the_architecture_names_exist() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let sources = sources();
    // Quoted words of several parts are names of tests; paths and properties have dots, slashes or hyphens.
    let named = page.split('`').skip(1).step_by(2).filter(|word| {
        word.matches('_').count() >= 4
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    });
    let mut count = 0;
    for name in named {
        count += 1;
        let definition = format!("fn {name}() {{");
        assert!(
            sources
                .iter()
                .any(|(path, text)| path.starts_with("tests") && text.contains(&definition)),
            "ARCHITECTURE.md names the test {name}, which is not there"
        );
    }
    assert!(count > 40, "only {count} tests were found on the page");
}

#[test]
fn no_test_is_switched_off_and_nothing_sleeps() {
    // In pieces, so that this file does not find itself.
    let (ignored, sleep) = (concat!("#[", "ignore"), concat!("thread::", "sleep"));
    for (path, text) in sources() {
        assert!(
            !text.contains(ignored),
            "{path}: a test that does not run proves nothing"
        );
        if Path::new(&path).starts_with("tests") || Path::new(&path).starts_with("elements") {
            assert!(!text.contains(sleep), "{path}: wait for the event itself");
        }
    }
}

#[test]
fn sample_models_have_manifests() {
    for entry in std::fs::read_dir(root().join("models")).expect("models/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "onnx") {
            assert!(
                path.with_extension("toml").is_file(),
                "{} has no manifest",
                path.display()
            );
        }
    }
}
