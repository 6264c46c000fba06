mod check;
mod garbage;
mod info;
mod parse;
mod plan;

use serde_json::{Value, json};

use super::*;

/// The samples, each with what planning it gives: the number of steps, or None if this build cannot run it.
const SAMPLES: [(&str, Option<usize>); 4] = [
    (include_str!("../testdata/pass-through.json"), Some(0)),
    (include_str!("../testdata/invert.json"), Some(1)),
    (include_str!("../testdata/invert-ui-format.json"), Some(1)),
    (include_str!("../testdata/unsupported-ksampler.json"), None),
];

/// A node of the API format.
fn node(class_type: &str, inputs: Value) -> Value {
    json!({ "class_type": class_type, "inputs": inputs })
}

/// A chain from LoadTensor to SaveTensor, through nodes with one input each.
fn chain(through: &[(&str, &str)]) -> Workflow {
    let mut graph = json!({ "0": node("LoadTensor", json!({})) });
    for (index, (class_type, input)) in through.iter().enumerate() {
        graph[(index + 1).to_string()] = node(class_type, json!({ *input: [index.to_string(), 0] }));
    }
    let last = through.len().to_string();
    graph["900"] = node("SaveTensor", json!({ "images": [last, 0] }));
    Workflow::from_json(&graph).expect("a graph")
}

fn graph(value: Value) -> Workflow {
    Workflow::from_json(&value).expect("a graph")
}

/// What goes wrong on the way to a plan.
fn fault(value: &Value) -> Error {
    let plan = Workflow::from_json(value).and_then(|workflow| workflow.check()?.plan());
    plan.expect_err("a fault")
}
