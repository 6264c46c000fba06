use super::*;

#[test]
fn nodes_are_read_in_the_order_of_their_numbers() {
    let workflow = Workflow::parse(SAMPLES[1].0.as_bytes()).unwrap();
    let ids: Vec<_> = workflow.nodes().iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["3", "7", "12"]);
    let invert = workflow.node("7").unwrap();
    assert_eq!(
        (invert.class_type.as_str(), invert.title.as_deref()),
        ("ImageInvert", Some("Negative"))
    );
    let link = Link {
        node: "3".into(),
        slot: 0,
    };
    assert_eq!(invert.inputs["image"], Input::Link(link));
    assert_eq!(
        workflow.node("3").unwrap().inputs["image"],
        Input::Value(json!("example.png"))
    );
    assert_eq!(workflow.node("8"), None);
}

#[test]
fn samples_print_as_what_they_are_read_from() {
    for (text, _) in SAMPLES {
        let workflow = Workflow::parse(text.as_bytes()).unwrap();
        let printed = workflow.to_json();
        assert_eq!(Workflow::from_json(&printed).unwrap(), workflow);
        let value: Value = serde_json::from_str(text).unwrap();
        if value.get("nodes").is_none() {
            assert_eq!(printed, value);
        }
    }
}

#[test]
fn lists_that_are_no_links_stay_values() {
    for value in [
        json!([1, 2]),
        json!(["a"]),
        json!(["a", "b"]),
        json!(["a", 0, 0]),
        json!([]),
        json!({ "a": 1 }),
    ] {
        let workflow = graph(json!({ "1": node("X", json!({ "v": value })) }));
        assert_eq!(workflow.nodes()[0].inputs["v"], Input::Value(value));
    }
    // Python counts with 1.0 as well as with 1.
    let workflow = graph(json!({ "1": node("X", json!({ "v": ["é\u{202e}", 1.0] })) }));
    let link = Link {
        node: "é\u{202e}".into(),
        slot: 1,
    };
    assert_eq!(workflow.nodes()[0].inputs["v"], Input::Link(link));
}

#[test]
fn prompts_come_in_every_shape_that_clients_send() {
    let one: Value = serde_json::from_str(SAMPLES[0].0).unwrap();
    let two: Value = serde_json::from_str(SAMPLES[2].0).unwrap();
    for (value, count) in [
        (json!(null), 0),
        (json!([]), 0),
        (one.clone(), 1),
        (two.clone(), 1),
        (json!([one]), 1),
        (json!([one, two]), 2),
    ] {
        assert_eq!(prompts(&value).map(|list| list.len()), Ok(count), "{value}");
        assert_eq!(parse_prompts(value.to_string().as_bytes()), prompts(&value));
    }
    for (value, text) in [
        (
            json!("x"),
            "text is no workflow: expected ComfyUI's API format, or a file that its editor saved",
        ),
        (json!([one, 7]), "workflow 2 of 2: a number is no workflow"),
        (json!([[one]]), "workflow 1 of 1: a list is no workflow"),
        (
            json!(vec![one; 17]),
            "17 workflows in one request: expected at most 16; send fewer",
        ),
    ] {
        let error = prompts(&value).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn mistakes_are_named() {
    for (text, part) in [
        (
            "",
            "workflow is not valid JSON: EOF while parsing a value at line 1 column 0; export it again",
        ),
        ("{\"1\":", "not valid JSON: EOF while parsing"),
        ("{} x", "trailing characters at line 1 column 4"),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": {\"a\": NaN}}}",
            "line 1 column",
        ),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": {\"a\": 1e999}}}",
            "number out of range",
        ),
        ("\u{feff}{}", "expected value at line 1 column 1"),
        ("null", "null is no workflow"),
        ("{\"1\": {}, \"1\": {}}", "1 appears twice in one object at line 1"),
        (
            "{\"1\": 5}",
            "node 1: a number instead of a node; export the workflow in API format",
        ),
        (
            "{\"prompt\": {}, \"client_id\": \"x\"}",
            "instead of a node; export the workflow in API format",
        ),
        (
            "{\"prompt\": {}}",
            "node prompt: has no class_type; export the workflow in API format, and send that alone",
        ),
        ("{\"1\": {\"class_type\": 5}}", "node 1: has no class_type"),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": []}}",
            "node 1: inputs is a list, expected an object",
        ),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": {\"a\": [\"2\", -1]}}}",
            "node 1: input a: [\"2\",-1] is no link, because outputs are counted from 0",
        ),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": {\"a\": [\"2\", 4294967296]}}}",
            "is no link",
        ),
        (
            "{\"1\": {\"class_type\": \"X\", \"inputs\": {\"a\": [\"2\", 1e300]}}}",
            "is no link",
        ),
        (
            "{\"nodes\": [5]}",
            "node #1: a number instead of a node; save the workflow again",
        ),
        ("{\"nodes\": [{}]}", "node #1: has no id"),
        ("{\"nodes\": [{\"id\": 1.5}]}", "node #1: has no id"),
        ("{\"nodes\": [{\"id\": 4}]}", "node 4: has no type"),
        (
            "{\"nodes\": [{\"id\": 4, \"type\": \"X\", \"inputs\": 5}]}",
            "node 4: inputs is a number, expected a list",
        ),
        (
            "{\"nodes\": [{\"id\": 4, \"type\": \"X\", \"inputs\": [5]}]}",
            "node 4: a number is no input",
        ),
        (
            "{\"nodes\": [{\"id\": 4, \"type\": \"X\"}, {\"id\": \"4\", \"type\": \"Y\"}]}",
            "two nodes have the id 4; give one of them another",
        ),
        (
            "{\"nodes\": [{\"id\": 4, \"type\": \"X\", \"inputs\": [{\"name\": \"a\", \"link\": 9}]}]}",
            "link 9: input a of node 4 has it, and the list of links does not",
        ),
        (
            "{\"nodes\": [], \"links\": 5}",
            "a file whose links are a number is no workflow",
        ),
        (
            "{\"nodes\": [], \"links\": [[1, 2]]}",
            "link #1: expected [id, from node,",
        ),
        (
            "{\"nodes\": [], \"links\": [[1, 2, 0, 3, 0], [1, 2, 0, 3, 0]]}",
            "link 1: is there twice",
        ),
        (
            "{\"nodes\": [{\"id\": 1, \"type\": \"u\"}], \"definitions\": {\"subgraphs\": [{\"id\": \"u\"}]}}",
            "node 1: is a subgraph; unpack it",
        ),
    ] {
        let error = Workflow::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(part), "{error}\n  instead of {part}");
    }
    let error = Workflow::parse(b"{\"\xff\": {}}").unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
}

#[test]
fn limits_are_exact() {
    let nodes = |count: usize| -> Value {
        let nodes = (0..count).map(|id| (id.to_string(), node("X", json!({}))));
        Value::Object(nodes.collect())
    };
    assert_eq!(graph(nodes(MAX_NODES)).nodes().len(), MAX_NODES);
    let error = Workflow::from_json(&nodes(MAX_NODES + 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "workflow of 1001 nodes: expected at most 1000; take out what feeds no output"
    );

    let inputs = |count: usize| -> Value {
        let inputs = (0..count).map(|name| (name.to_string(), json!(["1", 0])));
        json!({ "4": node("X", Value::Object(inputs.collect())) })
    };
    assert!(Workflow::from_json(&inputs(MAX_INPUTS)).is_ok());
    let error = Workflow::from_json(&inputs(MAX_INPUTS + 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "node 4 has 257 inputs: expected at most 256; take out what it does not use"
    );

    // Three levels are above the value: the graph, the node, its inputs.
    let deep = |depth: usize| -> Value {
        let value = (0..depth - 3).fold(json!([]), |value, _| json!([value]));
        json!({ "1": node("X", json!({ "a": value[0] })) })
    };
    for (depth, good) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        let value = deep(depth);
        let text = value.to_string();
        assert_eq!(Workflow::from_json(&value), Workflow::parse(text.as_bytes()));
        assert_eq!(Workflow::from_json(&value).is_ok(), good, "{depth}");
    }
    let far: String = std::iter::repeat_n('[', MAX_BYTES).collect();
    assert_eq!(Workflow::parse(far.as_bytes()), Err(Error::TooDeep));

    let blanks = |bytes: usize| [b"{}".to_vec(), vec![b' '; bytes - 2]].concat();
    assert_eq!(Workflow::parse(&blanks(MAX_BYTES)), Ok(Workflow::default()));
    let error = Workflow::parse(&blanks(MAX_BYTES + 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "workflow of 1048577 bytes: expected at most 1048576; take embedded data out"
    );
    let large = json!({ "1": node("X", json!({ "a": "x".repeat(MAX_BYTES) })) });
    assert!(matches!(Workflow::from_json(&large), Err(Error::TooLarge { .. })));
}

#[test]
fn saved_graph_becomes_what_its_editor_would_send() {
    let workflow = Workflow::parse(SAMPLES[2].0.as_bytes()).unwrap();
    assert_eq!(
        workflow.to_json(),
        json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Camera"}},
            "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "stream"}},
        })
    );
}

/// A saved graph of two nodes, the second with one input, wired by link 1, and whatever stands between.
fn saved(between: Value, links: Value) -> Value {
    let mut nodes = vec![
        json!({ "id": 1, "type": "LoadImage" }),
        json!({ "id": 2, "type": "ImageInvert", "inputs": [{ "name": "image", "type": "IMAGE", "link": 1 }] }),
    ];
    nodes.extend(between.as_array().unwrap().iter().cloned());
    json!({ "nodes": nodes, "links": links })
}

#[test]
fn links_of_saved_graphs_are_followed_to_what_runs() {
    let image = |link: i64| json!({ "name": "a", "type": "IMAGE", "link": link });
    let mask = |link: i64| json!({ "name": "m", "type": "MASK", "link": link });
    for (between, links, wanted) in [
        (json!([]), json!([[1, 1, 1, 2, 0, "IMAGE"]]), json!(["1", 1])),
        // Newer files.
        (
            json!([]),
            json!([null, { "id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "IMAGE" }]),
            json!(["1", 0]),
        ),
        // Two bypassed, of which one has an input of another type first.
        (
            json!([
                { "id": 3, "type": "X", "mode": 4, "inputs": [mask(9), image(2)] },
                { "id": 4, "type": "Y", "mode": 4, "inputs": [image(3)] },
            ]),
            json!([
                [1, 3, 0, 2, 0, "IMAGE"],
                [2, 4, 0, 3, 1, "IMAGE"],
                [3, 1, 0, 4, 0, "IMAGE"]
            ]),
            json!(["1", 0]),
        ),
        // Nothing of its type, nothing at all, muted, a muted Reroute.
        (
            json!([{ "id": 3, "type": "X", "mode": 4, "inputs": [mask(9)] }]),
            json!([[1, 3, 0, 2, 0, "IMAGE"]]),
            json!(null),
        ),
        (
            json!([{ "id": 3, "type": "Reroute", "inputs": [] }]),
            json!([[1, 3, 0, 2, 0, "IMAGE"]]),
            json!(null),
        ),
        (
            json!([{ "id": 3, "type": "X", "mode": 2 }]),
            json!([[1, 3, 0, 2, 0, "IMAGE"]]),
            json!(null),
        ),
        (
            json!([{ "id": 3, "type": "Reroute", "mode": 2 }]),
            json!([[1, 3, 0, 2, 0, "IMAGE"]]),
            json!(null),
        ),
        // A value that would pass for a link.
        (
            json!([{ "id": 3, "type": "PrimitiveNode", "widgets_values": [["1", 0]] }]),
            json!([[1, 3, 0, 2, 0, "IMAGE"]]),
            json!({ "__value__": ["1", 0] }),
        ),
        // From nowhere: the check minds if it matters.
        (json!([]), json!([[1, 77, 0, 2, 0, "IMAGE"]]), json!(["77", 0])),
    ] {
        let workflow = graph(saved(between, links));
        let read = workflow.to_json();
        assert_eq!(read["2"]["inputs"].get("image").unwrap_or(&Value::Null), &wanted);
    }
}

#[test]
fn circle_of_what_only_hands_on_is_an_error() {
    let value = saved(
        json!([
            { "id": 3, "type": "Reroute", "inputs": [{ "name": "", "link": 2 }] },
            { "id": 4, "type": "Reroute", "inputs": [{ "name": "", "link": 3 }] },
        ]),
        json!([[1, 3, 0, 2, 0, "*"], [2, 4, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "*"]]),
    );
    let error = Workflow::from_json(&value).unwrap_err().to_string();
    assert_eq!(error, "nodes 3, 4 feed each other in a circle; remove one of the links");
}

#[test]
fn many_links_through_many_reroutes_are_refused_soon() {
    let reroute = |id: usize| json!({ "id": id, "type": "Reroute", "inputs": [{ "name": "", "link": id }] });
    let mut nodes: Vec<_> = (1..500).map(reroute).collect();
    let inputs: Vec<_> = (0..200)
        .map(|name| json!({ "name": name.to_string(), "link": 499 }))
        .collect();
    nodes.extend((500..600).map(|id| json!({ "id": id, "type": "X", "inputs": inputs })));
    let links: Vec<_> = (1..500).map(|id| json!([id, id - 1, 0, id, 0, "*"])).collect();
    let error = Workflow::from_json(&json!({ "nodes": nodes, "links": links }))
        .unwrap_err()
        .to_string();
    assert!(error.contains("too many links pass through Reroute"), "{error}");
}

#[test]
fn values_of_saved_graphs_get_their_names_back() {
    let widget = |name: &str| json!({ "name": name, "type": "X", "widget": { "name": name }, "link": null });
    for (saved, wanted) in [
        // From the node's own list, less what stands behind a seed.
        (
            json!({ "type": "KSampler", "inputs": [widget("seed"), widget("steps"), widget("scheduler")],
                "widgets_values": [7, "randomize", 20, "simple"] }),
            json!({ "seed": 7, "steps": 20, "scheduler": "simple" }),
        ),
        // From what is known about the class, where an older editor saved no list.
        (
            json!({ "type": "LoadTensor", "widgets_values": [2.5] }),
            json!({ "timeout_seconds": 2.5 }),
        ),
        (
            json!({ "type": "PerformanceTimerNode", "widgets_values": ["a", 2, 10] }),
            json!({ "operation": "a", "batch_size": 2, "num_images": 10 }),
        ),
        // Named by the file.
        (
            json!({ "type": "X", "widgets_values": { "rate": 30 } }),
            json!({ "rate": 30 }),
        ),
        // Nobody knows.
        (json!({ "type": "X", "widgets_values": [1, 2] }), json!({})),
        (json!({ "type": "X", "widgets_values": null }), json!({})),
        (
            json!({ "type": "X", "widgets_values": { "a": ["1", 0] } }),
            json!({ "a": { "__value__": ["1", 0] } }),
        ),
    ] {
        let mut node = saved;
        node["id"] = json!(1);
        let workflow = graph(json!({ "nodes": [node] }));
        assert_eq!(workflow.to_json()["1"]["inputs"], wanted);
    }
}
