//! Text or JSON to a graph.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Error, Input, Link, MAX_INPUTS, MAX_NODES, MAX_WORKFLOWS, Node, Workflow, json, ui};

/// Reads what a client sends as `prompts`, as text. See [`prompts`].
pub fn parse_prompts(text: &[u8]) -> Result<Vec<Workflow>, Error> {
    json::read(text).and_then(|value| prompts(&value))
}

/// Reads what a client sends as `prompts`: one workflow, a list of them, or null or an empty list for none, which means
/// that the stream passes as it is.
pub fn prompts(value: &Value) -> Result<Vec<Workflow>, Error> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => {
            let count = list.len();
            if count > MAX_WORKFLOWS {
                return Err(Error::TooManyWorkflows { count });
            }
            let read = |(index, value)| {
                Workflow::from_json(value).map_err(|error| Error::At {
                    index,
                    count,
                    error: Box::new(error),
                })
            };
            list.iter().enumerate().map(read).collect()
        }
        value => Workflow::from_json(value).map(|workflow| vec![workflow]),
    }
}

impl Workflow {
    /// Reads a workflow's text, in API format or as the editor saves it.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        json::read(text).and_then(|value| read(&value))
    }

    /// Reads a workflow out of a document that was parsed already. Names that were repeated are lost by then, so
    /// [`Workflow::parse`] is better where there is a choice.
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        // Nodes are counted first: a graph of millions is refused without a look at them.
        count(value)?;
        json::check(value)?;
        read(value)
    }
}

/// Refuses more nodes than there may be.
fn count(value: &Value) -> Result<(), Error> {
    let count = match (value, value.get("nodes")) {
        (_, Some(Value::Array(nodes))) => nodes.len(),
        (Value::Object(nodes), _) => nodes.len(),
        _ => 0,
    };
    match count > MAX_NODES {
        true => Err(Error::TooManyNodes { count }),
        false => Ok(()),
    }
}

fn read(value: &Value) -> Result<Workflow, Error> {
    count(value)?;
    match value {
        Value::Object(file) if file.get("nodes").is_some_and(Value::is_array) => ui::read(file),
        Value::Object(nodes) => {
            let nodes: Result<_, _> = nodes.iter().map(|(id, node)| read_node(id, node)).collect();
            Workflow::new(nodes?)
        }
        other => Err(Error::NotAWorkflow {
            found: kind(other).into(),
        }),
    }
}

/// One node of the API format.
fn read_node(id: &str, node: &Value) -> Result<Node, Error> {
    let refuse = |reason: String| Error::Node { id: id.into(), reason };
    let Value::Object(node) = node else {
        return Err(refuse(format!(
            "{} instead of a node; export the workflow in API format",
            kind(node)
        )));
    };
    let Some(Value::String(class_type)) = node.get("class_type") else {
        return Err(refuse(
            "has no class_type; export the workflow in API format, and send that alone".into(),
        ));
    };
    let inputs = match node.get("inputs") {
        None | Some(Value::Null) => &Map::new(),
        Some(Value::Object(inputs)) => inputs,
        Some(other) => {
            return Err(refuse(format!(
                "inputs is {}, expected an object; export the workflow again",
                kind(other)
            )));
        }
    };
    count_inputs(id, inputs.len())?;
    let mut read = BTreeMap::new();
    for (name, value) in inputs {
        let input = match link(value) {
            None => Input::Value(value.clone()),
            Some(Some(link)) => Input::Link(link),
            Some(None) => {
                return Err(refuse(format!(
                    "input {}: {value} is no link, because outputs are counted from 0; wire it anew",
                    super::error::shown(name)
                )));
            }
        };
        read.insert(name.clone(), input);
    }
    Ok(Node {
        id: id.into(),
        class_type: class_type.clone(),
        title: node
            .get("_meta")
            .and_then(|meta| meta.get("title"))
            .and_then(Value::as_str)
            .map(Into::into),
        inputs: read,
    })
}

/// Refuses more inputs than there may be.
pub(super) fn count_inputs(id: &str, count: usize) -> Result<(), Error> {
    match count > MAX_INPUTS {
        true => Err(Error::TooManyInputsOfNode { id: id.into(), count }),
        false => Ok(()),
    }
}

/// A link, by ComfyUI's rule: a list of a text and a number. None: a value. Some(None): a link to no possible output.
fn link(value: &Value) -> Option<Option<Link>> {
    let Value::Array(pair) = value else { return None };
    let [Value::String(node), Value::Number(slot)] = pair.as_slice() else {
        return None;
    };
    Some(self::slot(slot.as_f64()).map(|slot| Link {
        node: node.clone(),
        slot,
    }))
}

/// The number of an output. Python does not mind 0.0.
pub(super) fn slot(number: Option<f64>) -> Option<u32> {
    // Exact: the conversion saturates, and comparing the result finds what it changed.
    number
        .filter(|number| f64::from(*number as u32) == *number)
        .map(|number| number as u32)
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
