//! What a client may change: the answer to `get_nodes`.

use serde_json::{Map, Value, json};

use super::known::{Kind, known};
use super::{Input, Node, Workflow};

/// The value of `nodes` in ComfyStream's control message `nodes_info`: by the workflow's place in the list, then by the
/// node's id, `{"class_type":"KSampler","inputs":{"steps":{"value":1,"type":"INT","widget":null}}}`.
///
/// Inputs that are wired are left out, and so are values that no panel has a control for: null, lists and objects.
///
/// The difference to ComfyStream, which asks ComfyUI's Python classes: type, `min` and `max` are known for its own nodes
/// and for those that run here. For other nodes the type is the value's own, so that a FLOAT that happens to be whole is
/// called INT, and an entry of a list of choices STRING; `min` and `max` are absent then, and `widget` is always null.
pub fn nodes_info(workflows: &[Workflow]) -> Value {
    let workflows = workflows.iter().enumerate().map(|(index, workflow)| {
        let nodes: Map<_, _> = workflow
            .nodes()
            .iter()
            .map(|node| (node.id.clone(), node_info(node)))
            .collect();
        (index.to_string(), Value::Object(nodes))
    });
    Value::Object(workflows.collect())
}

fn node_info(node: &Node) -> Value {
    let class = known(&node.class_type);
    let mut inputs = Map::new();
    for (name, input) in &node.inputs {
        let Input::Value(value) = input else { continue };
        let Some(deduced) = type_of(value) else { continue };
        let kind = class
            .and_then(|class| class.input(name))
            .filter(|kind| !matches!(kind, Kind::Link(_)));
        let mut info = json!({ "value": value, "type": kind.map_or(deduced, Kind::type_name), "widget": null });
        match kind {
            Some(Kind::Int(low, high)) => (info["min"], info["max"]) = (low.into(), high.into()),
            Some(Kind::Float(Some((low, high)))) => (info["min"], info["max"]) = (low.into(), high.into()),
            _ => (),
        }
        inputs.insert(name.clone(), info);
    }
    json!({ "class_type": node.class_type, "inputs": inputs })
}

/// The type that a value has by itself; None if no control shows it.
fn type_of(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(_) => Some("BOOLEAN"),
        Value::Number(number) if number.is_f64() => Some("FLOAT"),
        Value::Number(_) => Some("INT"),
        Value::String(_) => Some("STRING"),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
