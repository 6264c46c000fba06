//! Never a panic, always an end, and messages of bounded size.

use proptest::prelude::*;

use super::*;

/// Everything that is done with what a client sends.
fn use_all(text: &[u8]) {
    match parse_prompts(text) {
        Ok(workflows) => workflows.iter().for_each(use_one),
        Err(error) => say(&error),
    }
}

fn use_one(workflow: &Workflow) {
    assert!(workflow.nodes().len() <= MAX_NODES);
    let again = Workflow::from_json(&workflow.to_json());
    // Printing may make it longer, not otherwise different.
    assert!(
        again.as_ref() == Ok(workflow) || matches!(again, Err(Error::TooLarge { .. })),
        "{again:?}"
    );
    let _ = nodes_info(std::slice::from_ref(workflow));
    match workflow.check().and_then(|checked| Ok((checked.plan()?, checked))) {
        Ok((plan, checked)) => {
            let inverts = checked.used().filter(|node| node.class_type == "ImageInvert").count();
            assert_eq!(plan.steps.len(), inverts);
            assert_eq!(plan.is_pass_through(), inverts % 2 == 0);
            assert!(checked.used().all(|node| known::known(&node.class_type).is_some()));
            // Conversion changes nothing a second time, unless the primary input that kept others from it is gone.
            if !workflow
                .nodes()
                .iter()
                .any(|node| node.class_type == "PrimaryInputLoadImage")
            {
                assert_eq!(checked.workflow().check().as_ref(), Ok(&checked));
            }
        }
        Err(error) => say(&error),
    }
}

fn say(error: &Error) {
    for text in [Some(error.to_string()), error.help()].into_iter().flatten() {
        assert!(text.chars().count() < 1500 && !text.contains('\n'), "{text}");
    }
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[0-9]".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("(class_type|inputs|nodes|links|id|type|[0-9]|.{0,4})", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A graph of few classes, wired at random.
fn arbitrary_graph() -> impl Strategy<Value = Value> {
    let mut classes: Vec<_> = known::CLASSES.iter().map(|class| class.name).collect();
    classes.extend(["ImageInvert", "LoadTensor", "SaveTensor", "KSampler"]);
    let value = prop_oneof![
        4 => (0..8u8, 0..2u8).prop_map(|(node, slot)| json!([node.to_string(), slot])),
        1 => arbitrary_json(),
    ];
    let name = prop::sample::select(vec!["image", "images", "", "audio", "batch_size", "timeout_seconds"]);
    let inputs = prop::collection::btree_map(name, value, 0..3);
    let node = (prop::sample::select(classes), inputs).prop_map(|(class_type, inputs)| node(class_type, json!(inputs)));
    prop::collection::vec(node, 0..8).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate().map(|(id, node)| (id.to_string(), node));
        Value::Object(nodes.collect())
    })
}

/// The place of a value in a document, by walking so many steps.
fn replace(value: &mut Value, path: &[usize], with: Value) {
    let within: Vec<&mut Value> = match value {
        Value::Object(map) => map.values_mut().collect(),
        Value::Array(list) => list.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = within.len();
    match path {
        [step, rest @ ..] if count > 0 => {
            let next = within.into_iter().nth(step % count).expect("there are that many");
            replace(next, rest, with);
        }
        _ => *value = with,
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        use_all(text.as_bytes());
    }

    #[test]
    fn no_json_panics(value in arbitrary_json()) {
        use_all(value.to_string().as_bytes());
        if let Ok(workflows) = prompts(&value) {
            workflows.iter().for_each(use_one);
        }
    }

    #[test]
    fn no_graph_panics(value in arbitrary_graph()) {
        use_all(value.to_string().as_bytes());
    }

    #[test]
    fn no_sample_with_other_bytes_panics(
        which in 0..SAMPLES.len(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut text = SAMPLES[which].0.as_bytes().to_vec();
        let at = at.index(text.len());
        text.splice(at..(at + with.len()).min(text.len()), with);
        use_all(&text);
    }

    #[test]
    fn no_sample_with_other_values_panics(
        which in 0..SAMPLES.len(), path in prop::collection::vec(0..64usize, 0..6), with in arbitrary_json(),
    ) {
        let mut value: Value = serde_json::from_str(SAMPLES[which].0).expect("a sample");
        replace(&mut value, &path, with);
        use_all(value.to_string().as_bytes());
    }
}

#[test]
fn a_million_nodes_in_a_circle_are_refused() {
    let count = 1_000_000;
    let text: String = (0..count)
        .map(|id| {
            format!(
                "\"{id}\":{{\"class_type\":\"ImageInvert\",\"inputs\":{{\"image\":[\"{}\",0]}}}},",
                (id + 1) % count
            )
        })
        .collect();
    let error = Workflow::parse(format!("{{{}}}", text.trim_end_matches(',')).as_bytes()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    // Read by somebody else already.
    let nodes: serde_json::Map<_, _> = (0..count).map(|id| (id.to_string(), Value::Null)).collect();
    assert_eq!(
        Workflow::from_json(&Value::Object(nodes)),
        Err(Error::TooManyNodes { count })
    );
    let nodes = Value::Array(vec![Value::Null; count]);
    assert_eq!(
        Workflow::from_json(&json!({ "nodes": nodes })),
        Err(Error::TooManyNodes { count })
    );
}

#[test]
fn the_largest_circle_is_found_and_shown_short() {
    let mut nodes =
        json!({ "a": node("LoadTensor", json!({})), "b": node("SaveTensor", json!({ "images": ["0", 0] })) });
    let count = MAX_NODES - 2;
    for id in 0..count {
        nodes[id.to_string()] = node("ImageInvert", json!({ "image": [((id + 1) % count).to_string(), 0] }));
    }
    let error = fault(&nodes);
    assert!(
        matches!(&error, Error::Cycle { nodes } if nodes.len() == count),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "nodes 997, 996, 995, 994, 993 and 993 more feed each other in a circle; remove one of the links"
    );
}

#[test]
fn every_node_wired_to_every_other_is_planned_or_refused_at_once() {
    let nodes: serde_json::Map<_, _> = (0..200usize)
        .map(|id| {
            let inputs: serde_json::Map<_, _> = (0..id)
                .map(|from| (from.to_string(), json!([from.to_string(), 0])))
                .collect();
            (id.to_string(), node("X", Value::Object(inputs)))
        })
        .collect();
    let mut nodes = Value::Object(nodes);
    nodes["a"] = node("LoadTensor", json!({}));
    nodes["b"] = node("SaveTensor", json!({ "images": ["199", 0] }));
    let Error::Unsupported { report } = fault(&nodes) else {
        panic!("it runs")
    };
    assert_eq!(report.nodes.len(), 201);
}
