use super::*;

/// A graph in which every sink shows the first input.
fn with(inputs: &[&str], outputs: &[&str]) -> Value {
    let mut nodes = serde_json::Map::new();
    for (index, class_type) in inputs.iter().enumerate() {
        nodes.insert((index + 1).to_string(), node(class_type, json!({})));
    }
    for (index, class_type) in outputs.iter().enumerate() {
        nodes.insert(
            (index + 100).to_string(),
            node(class_type, json!({ "images": ["1", 0] })),
        );
    }
    Value::Object(nodes)
}

#[test]
fn comfystream_rules_are_kept_to_the_letter() {
    let (load, primary, tensor) = ("LoadImage", "PrimaryInputLoadImage", "LoadTensor");
    let (preview, save, sink) = ("PreviewImage", "SaveImage", "SaveTensor");
    for (inputs, outputs, wanted) in [
        (
            vec![primary, primary],
            vec![preview],
            "too many primary inputs in prompt",
        ),
        (vec![load, load, tensor], vec![preview], "too many inputs in prompt"),
        (
            vec![tensor, tensor, "LoadAudioTensor"],
            vec![preview],
            "too many inputs in prompt",
        ),
        (
            vec![tensor],
            vec![preview, save, sink, "SaveBatchTensor"],
            "too many outputs in prompt",
        ),
        (vec![], vec![preview], "missing input"),
        (vec![tensor], vec![], "missing output"),
        (vec![], vec![], "missing input"),
        (vec![primary, load, load, load], vec![preview], ""),
        (vec![load, load], vec![preview, save, sink], ""),
    ] {
        let found = graph(with(&inputs, &outputs))
            .check()
            .map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(found, wanted, "{inputs:?} {outputs:?}");
    }
}

#[test]
fn errors_with_a_text_of_their_own_come_with_help() {
    for (inputs, outputs, part) in [
        (
            vec!["PrimaryInputLoadImage"; 2],
            vec!["SaveTensor"],
            "nodes 1, 2 are PrimaryInputLoadImage: keep one",
        ),
        (vec!["LoadImage"; 3], vec!["SaveTensor"], "nodes 1, 2, 3 are inputs"),
        (
            vec!["LoadTensor"],
            vec!["SaveTensor"; 7],
            "nodes 100, 101, 102, 103, 104 and 2 more are outputs",
        ),
        (
            vec![],
            vec!["SaveTensor"],
            "add a node that the stream feeds: LoadTensor, LoadBatchTensor",
        ),
        (
            vec!["LoadTensor"],
            vec![],
            "add a node that shows the result: SaveTensor, SaveBatchTensor",
        ),
    ] {
        let error = graph(with(&inputs, &outputs)).check().unwrap_err();
        let help = error.help().unwrap();
        assert!(help.contains(part), "{help}");
        let error = Error::At {
            index: 0,
            count: 1,
            error: Box::new(error),
        };
        assert_eq!(error.help(), Some(help));
    }
    assert_eq!(Error::TooDeep.help(), None);
}

#[test]
fn pictures_are_converted_where_the_stream_takes_their_place() {
    let classes = |inputs: &[&str], outputs: &[&str]| -> Vec<String> {
        let checked = graph(with(inputs, outputs)).check().unwrap();
        checked
            .workflow()
            .nodes()
            .iter()
            .map(|node| node.class_type.clone())
            .collect()
    };
    assert_eq!(classes(&["LoadImage"], &["PreviewImage"]), ["LoadTensor", "SaveTensor"]);
    assert_eq!(
        classes(&["PrimaryInputLoadImage", "LoadImage"], &["SaveImage"]),
        ["LoadTensor", "LoadImage", "SaveTensor"]
    );
    assert_eq!(
        classes(&["LoadImage", "LoadImage"], &["SaveTensor"]),
        ["LoadImage", "LoadImage", "SaveTensor"]
    );
    assert_eq!(
        classes(&["LoadImage", "LoadTensor"], &["SaveTensor"]),
        ["LoadTensor", "LoadTensor", "SaveTensor"]
    );
    assert_eq!(
        classes(&["LoadBatchTensor"], &["SaveBatchTensor"]),
        ["LoadBatchTensor", "SaveBatchTensor"]
    );
    let checked = graph(json!({
        "1": node("LoadImage", json!({ "image": "a.png" })),
        "2": node("SaveImage", json!({ "images": ["1", 0], "filename_prefix": "x" })),
    }));
    let converted = checked.check().unwrap().workflow().to_json();
    assert_eq!(
        converted,
        json!({ "1": node("LoadTensor", json!({})), "2": node("SaveTensor", json!({ "images": ["1", 0] })) })
    );
}

#[test]
fn picture_beside_the_primary_input_is_converted_only_when_checked_again() {
    let first = graph(with(&["PrimaryInputLoadImage", "LoadImage"], &["SaveTensor"]))
        .check()
        .unwrap();
    let again = first.workflow().check().unwrap();
    let class = |checked: &Checked| checked.workflow().node("2").unwrap().class_type.clone();
    assert_eq!(
        (class(&first), class(&again)),
        ("LoadImage".into(), "LoadTensor".into())
    );
}

#[test]
fn links_have_to_lead_somewhere() {
    let source = node("LoadTensor", json!({}));
    for (nodes, wanted) in [
        (
            json!({ "2": node("SaveTensor", json!({ "images": ["9", 0] })) }),
            "node 2, input images: there is no node 9; wire it anew",
        ),
        (
            json!({ "2": node("SaveTensor", json!({ "images": ["1", 1] })) }),
            "node 2, input images: node 1 (LoadTensor) has no output 1, only 0; wire it anew",
        ),
        (
            json!({
                "2": node("LoadImage", json!({})), "3": node("LoadImage", json!({})),
                "4": node("PrimaryInputLoadImage", json!({})),
                "5": node("SaveTensor", json!({ "images": ["2", 4294967295u32] })),
            }),
            "node 5, input images: node 2 (LoadImage) has no output 4294967295, only 0 to 1; wire it anew",
        ),
        (
            json!({
                "2": node("SaveTensor", json!({ "images": ["1", 0] })),
                "3": node("SaveTensor", json!({ "images": ["2", 0] })),
            }),
            "node 3, input images: node 2 (SaveTensor) has no output 0, nor any other; wire it anew",
        ),
        (
            json!({
                "2": node("LoadImage", json!({})), "3": node("PrimaryInputLoadImage", json!({})),
                "4": node("SaveTensor", json!({ "images": ["2", 1] })),
            }),
            "node 4, input images: expected IMAGE, and node 2 gives MASK; wire it anew",
        ),
        (
            json!({ "2": node("SaveTensor", json!({})) }),
            "node 2 (SaveTensor): nothing is wired to its input images; wire it",
        ),
        (
            json!({ "2": node("SaveTensor", json!({ "images": "x" })) }),
            "node 2 (SaveTensor): nothing is wired to its input images; wire it",
        ),
        (
            json!({
                "2": node("ImageInvert", json!({ "images": ["1", 0] })),
                "3": node("SaveTensor", json!({ "images": ["2", 0] })),
            }),
            "node 2 (ImageInvert): nothing is wired to its input image; wire it",
        ),
        (
            json!({ "2": node("SaveTensor", json!({ "images": ["2", 0] })) }),
            "nodes 2 feed each other in a circle; remove one of the links",
        ),
        (
            json!({
                "2": node("ImageInvert", json!({ "image": ["3", 0] })),
                "3": node("X", json!({ "a": ["4", 0], "b": ["1", 0] })),
                "4": node("ImageInvert", json!({ "image": ["2", 0] })),
                "5": node("SaveTensor", json!({ "images": ["2", 0] })),
            }),
            "nodes 4, 3, 2 feed each other in a circle; remove one of the links",
        ),
    ] {
        let mut nodes = nodes;
        nodes["1"] = source.clone();
        assert_eq!(fault(&nodes).to_string(), wanted);
    }
}

#[test]
fn values_of_known_nodes_have_to_be_right() {
    for (name, value, wanted) in [
        ("timeout_seconds", json!(1), ""),
        ("timeout_seconds", json!(0.1), ""),
        (
            "timeout_seconds",
            json!(0.09),
            "0.09 given, expected a number from 0.1 to 30",
        ),
        (
            "timeout_seconds",
            json!(30.5),
            "30.5 given, expected a number from 0.1 to 30",
        ),
        (
            "timeout_seconds",
            json!("long"),
            "long given, expected a number from 0.1 to 30",
        ),
        ("batch_size", json!(8), ""),
        ("batch_size", json!(9), "9 given, expected a whole number from 1 to 8"),
        ("batch_size", json!(-1), "-1 given, expected a whole number from 1 to 8"),
        (
            "batch_size",
            json!(u64::MAX),
            "18446744073709551615 given, expected a whole number from 1 to 8",
        ),
        (
            "batch_size",
            json!(1.5),
            "1.5 given, expected a whole number from 1 to 8",
        ),
        (
            "batch_size",
            json!([1]),
            "a list given, expected a whole number from 1 to 8",
        ),
        (
            "batch_size",
            json!(null),
            "null given, expected a whole number from 1 to 8",
        ),
        ("unheard-of", json!([null]), ""),
    ] {
        let found = graph(json!({
            "1": node("LoadTensor", json!({ name: value })),
            "2": node("SaveTensor", json!({ "images": ["1", 0] })),
        }));
        let found = found.check().map_or_else(|error| error.to_string(), |_| String::new());
        let wanted = if wanted.is_empty() {
            String::new()
        } else {
            format!("node 1, input {name}: {wanted}")
        };
        assert_eq!(found, wanted);
    }
}

#[test]
fn nodes_that_feed_no_output_are_told_and_need_not_be_sound() {
    let checked = graph(json!({
        "1": node("LoadTensor", json!({})),
        "2": node("SaveTensor", json!({ "images": ["1", 0] })),
        "10": node("KSampler", json!({ "model": ["99", 0] })),
        "11": node("ImageInvert", json!({ "image": ["12", 0] })),
        "12": node("ImageInvert", json!({ "image": ["11", 0] })),
        "13": node("LoadTensor", json!({ "timeout_seconds": -1 })),
        "14": node("DepthAnythingTensorrt", json!({ "engine": "x.engine" })),
        "15": { "class_type": "StartPerformanceTimerNode", "inputs": { "operation": "a" }, "_meta": { "title": "Timer" } },
    }))
    .check()
    .unwrap();
    let unused = checked.unused();
    let ids: Vec<_> = unused.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["10", "11", "12", "13", "14", "15"]);
    assert_eq!(
        serde_json::to_value(&unused[4..]).unwrap(),
        json!([
            { "id": "14", "class_type": "DepthAnythingTensorrt" },
            { "id": "15", "class_type": "StartPerformanceTimerNode", "title": "Timer" },
        ])
    );
    let used: Vec<_> = checked.used().map(|node| node.id.as_str()).collect();
    assert_eq!(used, ["1", "2"]);
    assert!(checked.plan().unwrap().is_pass_through());
}

#[test]
fn used_nodes_come_behind_what_feeds_them() {
    let checked = Workflow::parse(SAMPLES[3].0.as_bytes()).unwrap().check().unwrap();
    let used: Vec<_> = checked.used().map(|node| node.id.clone()).collect();
    assert_eq!(used.len(), 8);
    for (place, node) in checked.used().enumerate() {
        for (_, link) in node.links() {
            let before = used.iter().position(|id| *id == link.node).unwrap();
            assert!(before < place, "{used:?}");
        }
    }
}
