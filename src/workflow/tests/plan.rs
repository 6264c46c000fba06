use super::*;

#[test]
fn samples_are_planned_or_refused_as_their_names_say() {
    for (text, steps) in SAMPLES {
        let plan = Workflow::parse(text.as_bytes()).unwrap().check().unwrap().plan();
        assert_eq!(plan.ok().map(|plan| plan.steps.len()), steps);
    }
}

#[test]
fn steps_are_counted_and_cancel_out() {
    let invert = ("ImageInvert", "image");
    for (through, steps, passes) in [
        (vec![], 0, true),
        (vec![("Reroute", "")], 0, true),
        (vec![invert], 1, false),
        (vec![invert, invert], 2, true),
        (
            vec![
                invert,
                ("Reroute", ""),
                invert,
                ("StartPerformanceTimerNode", "image"),
                invert,
            ],
            3,
            false,
        ),
        (vec![("PerformanceTimerNode", "images")], 0, true),
        (vec![invert; 800], 800, true),
    ] {
        let plan = chain(&through).check().unwrap().plan().unwrap();
        assert_eq!(plan.steps, vec![Step::Invert; steps]);
        assert_eq!(plan.is_pass_through(), passes);
    }
}

#[test]
fn plan_says_how_many_frames_the_workflow_wants() {
    for (class_type, inputs, wanted) in [
        ("LoadTensor", json!({}), None),
        ("LoadTensor", json!({ "batch_size": 4 }), Some(4)),
        ("LoadBatchTensor", json!({}), Some(2)),
        ("LoadBatchTensor", json!({ "batch_size": 8 }), Some(8)),
    ] {
        let workflow = graph(json!({
            "1": node(class_type, inputs),
            "2": node("SaveBatchTensor", json!({ "images": ["1", 0] })),
        }));
        assert_eq!(workflow.check().unwrap().plan().unwrap().batch_size, wanted);
    }
}

#[test]
fn report_names_every_node_that_feeds_an_output() {
    let value: Value = serde_json::from_str(SAMPLES[3].0).unwrap();
    let error = fault(&value);
    assert_eq!(
        error.to_string(),
        "this build cannot run CheckpointLoaderSimple, VAEEncode, CLIPTextEncode, KSampler, VAEDecode (node 2: it is \
         none of the nodes that run here); use LoadTensor, ImageInvert and SaveTensor only, or pick an ONNX model by name"
    );
    let Error::Unsupported { report } = error else {
        panic!("{error}")
    };
    assert_eq!(report.nodes.len(), 8);
    let node = |id: &str| {
        let node = report.nodes.iter().find(|node| node.id == id).unwrap();
        serde_json::to_value(node).unwrap()
    };
    assert_eq!(
        node("1"),
        json!({ "id": "1", "class_type": "LoadTensor", "title": "Camera", "status": "native" })
    );
    assert_eq!(
        node("6"),
        json!({ "id": "6", "class_type": "KSampler", "status": "missing", "why": "it is none of the nodes that run here" })
    );
    assert_eq!(
        node("8"),
        json!({ "id": "8", "class_type": "SaveTensor", "title": "Screen", "status": "native" })
    );
}

#[test]
fn known_nodes_in_the_wrong_place_say_what_to_do() {
    let camera = || node("LoadTensor", json!({}));
    let screen = |from: &str| node("SaveTensor", json!({ "images": [from, 0] }));
    for (nodes, class_type, part) in [
        (
            json!({ "2": screen("1"), "3": screen("1") }),
            "SaveTensor",
            "(node 3: a stream has one output, and that is node 2 already",
        ),
        (
            json!({ "2": node("LoadImage", json!({})), "3": node("PrimaryInputLoadImage", json!({})), "4": screen("2") }),
            "LoadImage",
            "(node 2: a picture from a file is not read here; remove it, or make it PrimaryInputLoadImage",
        ),
        (
            json!({ "2": screen("1"), "3": node("LoadAudioTensor", json!({})), "4": node("SaveAudioTensor", json!({ "audio": ["3", 0] })) }),
            "LoadAudioTensor, SaveAudioTensor",
            "audio and text are not processed here",
        ),
        (
            json!({ "2": node("Reroute", json!({})), "3": screen("2") }),
            "Reroute",
            "(node 2: nothing is wired to it",
        ),
        (
            json!({ "2": node("Reroute", json!({ "a": ["1", 0], "b": ["1", 0] })), "3": screen("2") }),
            "Reroute",
            "(node 2: more than one node is wired to it",
        ),
        (
            json!({ "2": node("Reroute", json!({ "": ["1", 0] })), "3": node("LoadTensor", json!({ "batch_size": ["2", 0] })), "4": screen("3") }),
            "LoadTensor",
            "(node 3: its input batch_size is wired; give it a plain value)",
        ),
        (
            json!({ "2": screen("1"), "3": node("DepthAnythingTensorrt", json!({ "images": ["1", 0] })) }),
            "DepthAnythingTensorrt",
            "(node 3: it is none of the nodes that run here)",
        ),
    ] {
        let mut nodes = nodes;
        nodes["1"] = camera();
        let error = fault(&nodes).to_string();
        assert!(
            error.starts_with(&format!("this build cannot run {class_type} (")),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn names_in_messages_are_short_and_few() {
    let mut nodes =
        json!({ "1": node("LoadTensor", json!({})), "0": node("SaveTensor", json!({ "images": ["2", 0] })) });
    for id in 2..50 {
        let class_type = format!("{}\n\u{202e}{id}", "名".repeat(500));
        let from = if id == 49 { "1".into() } else { (id + 1).to_string() };
        nodes[id.to_string()] = node(&class_type, json!({ "x": [from, 0] }));
    }
    let error = fault(&nodes).to_string();
    assert!(error.contains("and 43 more"), "{error}");
    assert!(error.chars().count() < 600, "{error}");
    assert!(!error.contains(['\n', '\u{202e}']), "{error}");
}
