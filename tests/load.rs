//! The load generator, as `make bench` and `make soak` run it, for seconds instead of minutes.

use std::process::Command;

/// What it prints; it must end well.
fn trickle_load(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trickle_load"))
        .args(arguments)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[test]
fn short_soak_ends_with_every_segment_accounted_for() {
    // Other tests may take the processors away: lag proves little here, the rest does.
    let said = trickle_load(&["soak", "--minutes", "0.08", "--readers", "3", "--lag-slack", "1000"]);
    assert!(said.ends_with("\nflat\n"), "{said}");
}

#[test]
fn load_generator_measures_any_server_by_its_url() {
    let out = comfy_tests::temp::Temp::new();
    let relay = comfy_tests::Relay::new();
    let url = format!("http://{}/", relay.address);
    let json = out.path().join("load.json");
    let json = json.to_str().expect("UTF-8");
    let said = trickle_load(&[
        "--url",
        &url,
        "--part",
        "fan",
        "--readers",
        "2",
        "--rounds",
        "1",
        "--seconds",
        "0.4",
        "--json",
        json,
    ]);
    assert!(said.contains("paced") && said.contains("full"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON");
    let at = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64);
    assert!(
        at("/paced/readers_2/server/first_byte_us/p50").is_some_and(|us| us > 0.0),
        "{report}"
    );
    assert!(
        at("/full/readers_2/floor/mb_per_s").is_some_and(|rate| rate > 0.0),
        "{report}"
    );
    // Without its process nobody knows what it costs.
    assert_eq!(at("/full/readers_2/server/server_cpu_s_per_gb"), None);
}

#[test]
fn chunks_are_allocated_once_whoever_reads_them() {
    let said = trickle_load(&["--part", "allocations"]);
    let per_chunk: Vec<f64> = said
        .lines()
        .filter_map(|line| line.split("readers").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect();
    let [one, _, many] = per_chunk[..] else {
        panic!("three lines: {said}")
    };
    assert!(one < 8.0 && many < one + 1.0, "{said}");
}
