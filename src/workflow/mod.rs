//! ComfyUI workflows: read, check, plan.
//!
//! A workflow is a graph of nodes that ComfyUI would run in Python. It comes from the network, in ComfyUI's API format or
//! as its editor saves it, and goes through three steps, each of which says what is wrong and which node it is:
//!
//! 1. [`Workflow::parse`], or [`prompts`] for what clients of ComfyStream send: is it a graph, within limits?
//! 2. [`Workflow::check`]: does it stand for a stream? ComfyStream's conversion rules put the stream where pictures are
//!    loaded and shown; links have to lead somewhere, and not in circles.
//! 3. [`Checked::plan`]: can this build run it? Either what there is to do for each frame, or a [`Report`] of every node
//!    that feeds an output.
//!
//! Nothing is run here, and nothing is passed through in silence: what is not planned is an error.
//!
//! [`nodes_info`] lists the values that a client may change.
//!
//! Conversion rules, limits and their error texts are those of `livepeer/comfystream` at 4e9dace.

mod check;
mod error;
mod info;
mod json;
mod known;
mod parse;
mod plan;
mod ui;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use check::{Checked, Unused};
pub use error::Error;
pub use info::nodes_info;
pub use parse::{parse_prompts, prompts};
pub use plan::{NodeReport, Plan, Report, Status, Step};

/// Longer texts are refused unread.
pub const MAX_BYTES: usize = 1 << 20;
/// Most nodes of one workflow.
pub const MAX_NODES: usize = 1000;
/// Most inputs of one node, links and values together.
pub const MAX_INPUTS: usize = 256;
/// How deep objects and lists may be nested.
pub const MAX_DEPTH: usize = 32;
/// Most workflows in one request.
pub const MAX_WORKFLOWS: usize = 16;

/// A graph of nodes, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workflow {
    /// Sorted by [`order`], each id once.
    nodes: Vec<Node>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Mostly a number; `12:3` within a subgraph.
    pub id: String,
    /// What it does, as ComfyUI names it.
    pub class_type: String,
    /// What its author calls it.
    pub title: Option<String>,
    /// By name.
    pub inputs: BTreeMap<String, Input>,
}

/// What a node is given under one name.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Another node's output.
    Link(Link),
    /// A plain value.
    Value(Value),
}

/// An output of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The node's id.
    pub node: String,
    /// Which of its outputs, from 0.
    pub slot: u32,
}

impl Workflow {
    /// Takes nodes as they come, and refuses two with the same id.
    fn new(mut nodes: Vec<Node>) -> Result<Self, Error> {
        nodes.sort_by(|a, b| order(&a.id, &b.id));
        if let Some(twice) = nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::DuplicateId {
                id: twice[0].id.clone(),
            });
        }
        Ok(Self { nodes })
    }

    /// All nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with an id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.index(id).map(|index| &self.nodes[index])
    }

    /// In API format.
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| (node.id.clone(), node.to_json()));
        Value::Object(nodes.collect())
    }

    /// Where the node with an id is.
    fn index(&self, id: &str) -> Option<usize> {
        self.nodes.binary_search_by(|node| order(&node.id, id)).ok()
    }
}

impl Node {
    fn to_json(&self) -> Value {
        let inputs: Map<_, _> = self
            .inputs
            .iter()
            .map(|(name, input)| match input {
                Input::Link(link) => (name.clone(), json!([link.node, link.slot])),
                Input::Value(value) => (name.clone(), value.clone()),
            })
            .collect();
        let mut node = json!({ "class_type": self.class_type, "inputs": inputs });
        if let Some(title) = &self.title {
            node["_meta"] = json!({ "title": title });
        }
        node
    }

    /// The inputs that are wired, with their names.
    fn links(&self) -> impl Iterator<Item = (&str, &Link)> {
        self.inputs.iter().filter_map(|(name, input)| match input {
            Input::Link(link) => Some((name.as_str(), link)),
            Input::Value(_) => None,
        })
    }
}

/// Numbers by size and before anything else, so that 2 is before 10.
fn order(a: &str, b: &str) -> Ordering {
    let number = |id: &str| id.parse::<u64>().map_or((1, 0), |number| (0, number));
    number(a).cmp(&number(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests;
