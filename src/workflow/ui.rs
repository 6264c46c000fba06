//! The format in which ComfyUI's editor saves a graph, turned into what the editor would send to be run.
//!
//! - Muted nodes are left out, and links from them. Bypassed ones are left out, too, and a link from one becomes a link
//!   from what it gets of the same type.
//! - Reroute hands on its link, PrimitiveNode its value; notes are left out.
//! - Values are saved without names. The names come from the node's own list of inputs, or from what is known about its
//!   class. Values that stay nameless are left out: such a node cannot run here anyway.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::error::shown;
use super::parse::{count_inputs, kind, slot};
use super::{Error, Input, Link, Node, Workflow, known};

/// Node modes: muted, bypassed. Whatever else there is runs.
const MUTED: i64 = 2;
const BYPASSED: i64 = 4;

/// Most links that are followed through nodes which only hand on, in all. Without a bound, few nodes in a row and many
/// links to their end would take minutes.
const MAX_HOPS: usize = 100_000;

/// What the editor writes behind a seed; it is no input.
const AFTER_SEED: [&str; 4] = ["fixed", "increment", "decrement", "randomize"];

/// A node as it was saved.
struct Saved<'a> {
    id: String,
    class_type: &'a str,
    mode: i64,
    inputs: Vec<Socket<'a>>,
    file: &'a Map<String, Value>,
}

/// An input as it was saved.
struct Socket<'a> {
    name: &'a str,
    kind: &'a str,
    link: Option<String>,
    /// Whether it stands for a value, and can be wired all the same.
    widget: bool,
}

/// A link as it was saved.
struct Wire<'a> {
    from: String,
    slot: u32,
    kind: &'a str,
}

/// Reads a file whose `nodes` is a list.
pub(super) fn read(file: &Map<String, Value>) -> Result<Workflow, Error> {
    let nodes = file
        .get("nodes")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let subgraphs = subgraphs(file);
    let mut saved = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let node = saved_node(index, node)?;
        if subgraphs.contains(node.class_type) {
            return Err(Error::Node {
                id: node.id,
                reason: "is a subgraph; unpack it, or export the workflow in API format".into(),
            });
        }
        if let Some(twice) = saved.insert(node.id.clone(), node) {
            return Err(Error::DuplicateId { id: twice.id });
        }
    }
    let graph = Graph {
        nodes: saved,
        wires: wires(file)?,
        hops: Cell::new(0),
    };
    let runs = |node: &&Saved<'_>| {
        !matches!(node.mode, MUTED | BYPASSED)
            && !matches!(node.class_type, "Reroute" | "PrimitiveNode" | "Note" | "MarkdownNote")
    };
    let nodes: Result<_, _> = graph.nodes.values().filter(runs).map(|node| graph.node(node)).collect();
    Workflow::new(nodes?)
}

/// Everything that was saved.
struct Graph<'a> {
    nodes: BTreeMap<String, Saved<'a>>,
    wires: BTreeMap<String, Wire<'a>>,
    hops: Cell<usize>,
}

/// Where a link leads, seen from its end.
enum Origin {
    Output(Link),
    Value(Value),
    /// To something that was left out.
    Nowhere,
}

impl Graph<'_> {
    fn node(&self, saved: &Saved<'_>) -> Result<Node, Error> {
        let mut inputs = saved.values();
        for socket in &saved.inputs {
            let Some(link) = &socket.link else { continue };
            let input = match self.origin(saved, socket, link)? {
                Origin::Output(link) => Input::Link(link),
                Origin::Value(value) => Input::Value(value),
                Origin::Nowhere => {
                    // Not even the value that the socket hides.
                    inputs.remove(socket.name);
                    continue;
                }
            };
            inputs.insert(socket.name.into(), input);
        }
        count_inputs(&saved.id, inputs.len())?;
        Ok(Node {
            id: saved.id.clone(),
            class_type: saved.class_type.into(),
            title: saved.file.get("title").and_then(Value::as_str).map(Into::into),
            inputs,
        })
    }

    /// Follows a link through whatever only hands on.
    fn origin(&self, node: &Saved<'_>, socket: &Socket<'_>, link: &str) -> Result<Origin, Error> {
        let mut link = link;
        let mut passed = BTreeSet::new();
        loop {
            let Some(wire) = self.wires.get(link) else {
                return Err(Error::Link {
                    id: link.into(),
                    reason: format!(
                        "input {} of node {} has it, and the list of links does not; wire it anew",
                        shown(socket.name),
                        shown(&node.id)
                    ),
                });
            };
            let Some(from) = self.nodes.get(&wire.from) else {
                // Left to the check, which minds only if it matters.
                return Ok(Origin::Output(Link {
                    node: wire.from.clone(),
                    slot: wire.slot,
                }));
            };
            if !passed.insert(&from.id) {
                let nodes = passed.into_iter().cloned().collect();
                return Err(Error::Cycle { nodes });
            }
            let next = match (from.mode, from.class_type) {
                (MUTED, _) => None,
                (_, "Reroute") => from.inputs.first(),
                (BYPASSED, _) => {
                    // The editor tries the input of the same number before any other.
                    let same = from.inputs.get(wire.slot as usize).into_iter();
                    let wanted = if wire.kind.is_empty() { socket.kind } else { wire.kind };
                    same.chain(&from.inputs).find(|input| input.kind == wanted)
                }
                (_, "PrimitiveNode") => {
                    let value = from.file.get("widgets_values").and_then(|values| values.get(0));
                    return Ok(value.map_or(Origin::Nowhere, |value| Origin::Value(wrapped(value))));
                }
                _ => {
                    return Ok(Origin::Output(Link {
                        node: wire.from.clone(),
                        slot: wire.slot,
                    }));
                }
            };
            self.hops.set(self.hops.get() + 1);
            if self.hops.get() > MAX_HOPS {
                return Err(Error::Link {
                    id: link.into(),
                    reason: "too many links pass through Reroute and bypassed nodes; wire them directly".into(),
                });
            }
            match next.and_then(|input| input.link.as_deref()) {
                Some(next) => link = next,
                None => return Ok(Origin::Nowhere),
            }
        }
    }
}

impl Saved<'_> {
    /// Plain values by name.
    fn values(&self) -> BTreeMap<String, Input> {
        let input = |value: &Value| Input::Value(wrapped(value));
        match self.file.get("widgets_values") {
            Some(Value::Object(values)) => values
                .iter()
                .map(|(name, value)| (name.clone(), input(value)))
                .collect(),
            Some(Value::Array(values)) => {
                let mut names: Vec<&str> = self.widgets().collect();
                let bare = without_seed_modes(values);
                if names.len() != bare.len() {
                    // An older editor, which saved no names.
                    names = known::known(self.class_type).map_or_else(Vec::new, |class| class.widgets().collect());
                }
                let named = names.into_iter().zip(bare);
                named.map(|(name, value)| (name.into(), input(value))).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    fn widgets(&self) -> impl Iterator<Item = &str> {
        self.inputs
            .iter()
            .filter(|socket| socket.widget)
            .map(|socket| socket.name)
    }
}

/// Without what the editor writes behind a seed.
fn without_seed_modes(values: &[Value]) -> Vec<&Value> {
    let after_number = |index: usize| index > 0 && values[index - 1].is_number();
    let mode = |value: &Value| value.as_str().is_some_and(|text| AFTER_SEED.contains(&text));
    let bare = values
        .iter()
        .enumerate()
        .filter(|(index, value)| !(mode(value) && after_number(*index)));
    bare.map(|(_, value)| value).collect()
}

/// Lists are wrapped, as the editor does it, so that none is taken for a link.
fn wrapped(value: &Value) -> Value {
    match value {
        Value::Array(_) => json!({ "__value__": value }),
        value => value.clone(),
    }
}

fn saved_node(index: usize, node: &Value) -> Result<Saved<'_>, Error> {
    let place = |reason: &str| Error::Node {
        id: format!("#{}", index + 1),
        reason: format!("{reason}; save the workflow again"),
    };
    let file = node
        .as_object()
        .ok_or_else(|| place(&format!("{} instead of a node", kind(node))))?;
    let id = file.get("id").and_then(id).ok_or_else(|| place("has no id"))?;
    let refuse = |reason: String| Error::Node {
        id: id.clone(),
        reason: format!("{reason}; save the workflow again"),
    };
    let class_type = file
        .get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| refuse("has no type".into()))?;
    let inputs = match file.get("inputs") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(inputs)) => inputs,
        Some(other) => return Err(refuse(format!("inputs is {}, expected a list", kind(other)))),
    };
    count_inputs(&id, inputs.len())?;
    let socket = |input| self::socket(input).ok_or_else(|| refuse(format!("{} is no input", kind(input))));
    let inputs = inputs.iter().map(socket).collect::<Result<_, _>>()?;
    Ok(Saved {
        class_type,
        mode: file.get("mode").and_then(Value::as_i64).unwrap_or(0),
        inputs,
        file,
        id,
    })
}

fn socket(input: &Value) -> Option<Socket<'_>> {
    let name = input.get("name")?.as_str()?;
    let link = match input.get("link") {
        None | Some(Value::Null) => None,
        Some(link) => Some(id(link)?),
    };
    Some(Socket {
        name,
        kind: input.get("type").and_then(Value::as_str).unwrap_or_default(),
        link,
        widget: input.get("widget").is_some_and(Value::is_object),
    })
}

/// Links by id: lists `[id, from, from_slot, to, to_slot, type]`, or objects in newer files.
fn wires(file: &Map<String, Value>) -> Result<BTreeMap<String, Wire<'_>>, Error> {
    let links = match file.get("links") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(links)) => links,
        Some(other) => {
            return Err(Error::NotAWorkflow {
                found: format!("a file whose links are {}", kind(other)),
            });
        }
    };
    let mut wires = BTreeMap::new();
    for (index, link) in links.iter().enumerate() {
        // Editors leave a hole where a link was.
        if link.is_null() {
            continue;
        }
        let part = |place: usize, name: &str| link.get(place).or_else(|| link.get(name));
        let wire = || {
            let wire = Wire {
                from: id(part(1, "origin_id")?)?,
                slot: slot(part(2, "origin_slot")?.as_f64())?,
                kind: part(5, "type").and_then(Value::as_str).unwrap_or_default(),
            };
            Some((id(part(0, "id")?)?, wire))
        };
        let Some((id, wire)) = wire() else {
            return Err(Error::Link {
                id: format!("#{}", index + 1),
                reason: "expected [id, from node, from output, to node, to input, type]; save the workflow again"
                    .into(),
            });
        };
        if wires.contains_key(&id) {
            return Err(Error::Link {
                id,
                reason: "is there twice; save the workflow again".into(),
            });
        }
        wires.insert(id, wire);
    }
    Ok(wires)
}

/// The classes that stand for graphs within the file.
fn subgraphs(file: &Map<String, Value>) -> BTreeSet<&str> {
    let subgraphs = file
        .get("definitions")
        .and_then(|definitions| definitions.get("subgraphs"));
    let subgraphs = subgraphs.and_then(Value::as_array).into_iter().flatten();
    subgraphs.filter_map(|graph| graph.get("id")?.as_str()).collect()
}

/// An id: a number, or text.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}
