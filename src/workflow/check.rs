//! A graph as a stream's graph.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::error::shown;
use super::known::{ANY, Kind, Role, known, role};
use super::parse::kind;
use super::{Error, Input, Link, Node, Workflow};

/// Most inputs without a primary one, and most outputs, by ComfyStream's rules.
const MAX_STREAM_INPUTS: usize = 2;
const MAX_STREAM_OUTPUTS: usize = 3;

/// A workflow that stands for a stream: converted, every link of the nodes that matter in place, no circle among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub(super) workflow: Workflow,
    /// The nodes that feed an output, inputs first.
    pub(super) used: Vec<usize>,
}

/// A node that feeds no output: never run, as in ComfyUI, but perhaps not what its author meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// Its id.
    pub id: String,
    /// Its class.
    pub class_type: String,
    /// What its author calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Workflow {
    /// Applies ComfyStream's conversion rules, and follows every link back from the outputs.
    ///
    /// PrimaryInputLoadImage, or else the only LoadImage, becomes LoadTensor; PreviewImage and SaveImage become
    /// SaveTensor. As in ComfyStream the limits count all nodes, and as in ComfyUI only those that feed an output have
    /// to be sound.
    pub fn check(&self) -> Result<Checked, Error> {
        let workflow = self.convert()?;
        let used = workflow.used()?;
        for &index in &used {
            workflow.check_node(&workflow.nodes[index])?;
        }
        Ok(Checked { workflow, used })
    }

    fn convert(&self) -> Result<Workflow, Error> {
        let of = |roles: &[Role]| -> Vec<String> {
            let counted = self.nodes.iter().filter(|node| roles.contains(&role(&node.class_type)));
            counted.map(|node| node.id.clone()).collect()
        };
        let primary = of(&[Role::Primary]);
        let inputs = of(&[Role::Primary, Role::LoadImage, Role::Source, Role::OtherSource]);
        let outputs = of(&[Role::Preview, Role::Sink, Role::OtherSink]);
        let images = of(&[Role::LoadImage]);
        if primary.len() > 1 {
            return Err(Error::TooManyPrimaryInputs { nodes: primary });
        }
        if primary.is_empty() && inputs.len() > MAX_STREAM_INPUTS {
            return Err(Error::TooManyInputs { nodes: inputs });
        }
        if outputs.len() > MAX_STREAM_OUTPUTS {
            return Err(Error::TooManyOutputs { nodes: outputs });
        }
        if inputs.is_empty() {
            return Err(Error::MissingInput);
        }
        if outputs.is_empty() {
            return Err(Error::MissingOutput);
        }
        let only_image = primary.is_empty() && images.len() == 1;
        let convert = |node: &Node| {
            let mut node = node.clone();
            match role(&node.class_type) {
                Role::Primary => node.become_source(),
                Role::LoadImage if only_image => node.become_source(),
                Role::Preview => {
                    node.class_type = "SaveTensor".into();
                    node.inputs.retain(|name, _| name == "images");
                }
                _ => (),
            }
            node
        };
        Ok(Workflow {
            nodes: self.nodes.iter().map(convert).collect(),
        })
    }

    /// The nodes that feed an output, inputs first. Fails on links from nowhere, and on circles.
    fn used(&self) -> Result<Vec<usize>, Error> {
        let ends = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| match role(&node.class_type) {
                Role::Sink | Role::OtherSink => true,
                // One that lies about unwired fails in ComfyUI, without harm to the others.
                Role::Shown => node.links().next().is_some(),
                _ => false,
            });
        let mut used = Vec::new();
        // Absent: not met yet. False: on the way from an end to here. True: done.
        let mut met = BTreeMap::new();
        for (end, _) in ends {
            if met.contains_key(&end) {
                continue;
            }
            // Each with what it still waits for. No recursion: a graph may be as deep as it has nodes.
            let mut way = vec![(end, self.feeds(end)?)];
            met.insert(end, false);
            while let Some((index, waits)) = way.last_mut() {
                let index = *index;
                let Some(next) = waits.pop() else {
                    met.insert(index, true);
                    used.push(index);
                    way.pop();
                    continue;
                };
                match met.get(&next) {
                    Some(true) => (),
                    None => {
                        met.insert(next, false);
                        way.push((next, self.feeds(next)?));
                    }
                    Some(false) => {
                        let circle = way.iter().map(|(index, _)| *index).skip_while(|index| *index != next);
                        // Against the walk, which goes from outputs to inputs.
                        let mut nodes: Vec<_> = circle.map(|index| self.nodes[index].id.clone()).collect();
                        nodes.reverse();
                        return Err(Error::Cycle { nodes });
                    }
                }
            }
        }
        Ok(used)
    }

    /// The nodes that feed one, the first last.
    fn feeds(&self, index: usize) -> Result<Vec<usize>, Error> {
        let node = &self.nodes[index];
        let mut feeds = Vec::new();
        for (input, link) in node.links() {
            let from = self.index(&link.node).ok_or_else(|| Error::NoSuchNode {
                node: node.id.clone(),
                input: input.into(),
                from: link.node.clone(),
            })?;
            feeds.push(from);
        }
        feeds.reverse();
        Ok(feeds)
    }

    fn check_node(&self, node: &Node) -> Result<(), Error> {
        let class = known(&node.class_type);
        for name in class.into_iter().flat_map(|class| class.needed()) {
            if !matches!(node.inputs.get(name), Some(Input::Link(_))) {
                return Err(Error::Unconnected {
                    node: node.id.clone(),
                    class_type: node.class_type.clone(),
                    input: name.into(),
                });
            }
        }
        for (name, input) in &node.inputs {
            let takes = class.and_then(|class| class.input(name));
            match input {
                Input::Link(link) => self.check_link(node, name, link, takes)?,
                Input::Value(value) => {
                    if let Some(wanted) = takes.and_then(|kind| kind.refuses(value)) {
                        return Err(Error::BadValue {
                            node: node.id.clone(),
                            input: name.clone(),
                            found: plain(value),
                            wanted,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn check_link(&self, node: &Node, input: &str, link: &Link, takes: Option<Kind>) -> Result<(), Error> {
        let Some(from) = self.node(&link.node) else {
            return Ok(());
        };
        let Some(outputs) = known(&from.class_type).and_then(|class| class.outputs) else {
            return Ok(());
        };
        let Some(gives) = usize::try_from(link.slot).ok().and_then(|slot| outputs.get(slot)) else {
            return Err(Error::NoSuchSlot {
                node: node.id.clone(),
                input: input.into(),
                from: from.id.clone(),
                class_type: from.class_type.clone(),
                slot: link.slot,
                outputs: outputs.len(),
            });
        };
        match takes.map(Kind::type_name) {
            Some(wanted) if wanted != *gives && wanted != ANY && *gives != ANY => Err(Error::WrongType {
                node: node.id.clone(),
                input: input.into(),
                wanted: wanted.into(),
                from: from.id.clone(),
                found: (*gives).into(),
            }),
            _ => Ok(()),
        }
    }
}

/// A value, short.
fn plain(value: &Value) -> String {
    match value {
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::String(text) => shown(text),
        other => kind(other).into(),
    }
}

impl Node {
    fn become_source(&mut self) {
        self.class_type = "LoadTensor".into();
        self.inputs.clear();
    }
}

impl Checked {
    /// As converted. It is checked: checking it again may convert a LoadImage that stood beside the primary input.
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// The nodes that feed an output, each behind those that feed it.
    pub fn used(&self) -> impl Iterator<Item = &Node> {
        self.used.iter().map(|index| &self.workflow.nodes[*index])
    }

    /// The nodes that feed no output, in the order of their numbers.
    pub fn unused(&self) -> Vec<Unused> {
        let mut used = vec![false; self.workflow.nodes.len()];
        self.used.iter().for_each(|index| used[*index] = true);
        let nodes = self.workflow.nodes.iter().zip(used).filter(|(_, used)| !used);
        nodes
            .map(|(node, _)| Unused {
                id: node.id.clone(),
                class_type: node.class_type.clone(),
                title: node.title.clone(),
            })
            .collect()
    }
}
