//! What this build does for each frame of a stream.

use serde::Serialize;

use super::error::{list, shown};
use super::known::{Role, role};
use super::{Checked, Error, Input, Node};

/// How many pictures LoadBatchTensor takes at a time unless it says so.
const BATCH: u32 = 2;

/// What to do with each frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// In the order of the graph, and as many as it has.
    pub steps: Vec<Step>,
    /// How many frames the workflow wants to have at a time, if it says so. It changes no picture.
    pub batch_size: Option<u32>,
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Step {
    /// ImageInvert: 1 - x for every value x of a picture in 0..1.
    Invert,
}

/// Why a workflow cannot run: every node that feeds an output, each behind those that feed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The nodes.
    pub nodes: Vec<NodeReport>,
}

/// One node of a [`Report`]: `{"id":"3","class_type":"KSampler","status":"missing","why":"..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its id.
    pub id: String,
    /// Its class, after conversion.
    pub class_type: String,
    /// What its author calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether it runs.
    #[serde(flatten)]
    pub status: Status,
}

/// Whether a node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Status {
    /// Here.
    Native,
    /// Nowhere.
    Missing {
        /// What is in the way, and what to do where something can be done.
        why: String,
    },
}

impl Plan {
    /// Whether every frame comes out as it went in: no steps, or steps that undo each other.
    pub fn is_pass_through(&self) -> bool {
        let inverts = self.steps.iter().filter(|step| match step {
            Step::Invert => true,
        });
        inverts.count().is_multiple_of(2)
    }
}

impl Checked {
    /// What to do for each frame.
    ///
    /// This build runs one chain: the stream's pictures, ImageInvert any number of times, one output. Reroute and the
    /// timer nodes of ComfyStream's batches are part of it where they have one link, and hand on what they get.
    pub fn plan(&self) -> Result<Plan, Error> {
        let nodes: Vec<_> = self.used().map(|node| self.report(node)).collect();
        if nodes.iter().any(|node| node.status != Status::Native) {
            let report = Report { nodes };
            return Err(Error::Unsupported { report });
        }
        let mut plan = Plan {
            steps: Vec::new(),
            batch_size: None,
        };
        // Inputs come first. Whatever is not on the way from the stream's input to its output was refused.
        for node in self.used() {
            match role(&node.class_type) {
                Role::Source => plan.batch_size = batch_size(node),
                Role::Invert => plan.steps.push(Step::Invert),
                _ => (),
            }
        }
        Ok(plan)
    }

    fn report(&self, node: &Node) -> NodeReport {
        NodeReport {
            id: node.id.clone(),
            class_type: node.class_type.clone(),
            title: node.title.clone(),
            status: self.why_not(node).map_or(Status::Native, |why| Status::Missing { why }),
        }
    }

    /// Why a node cannot run.
    fn why_not(&self, node: &Node) -> Option<String> {
        let mut links = node.links();
        let wired = match role(&node.class_type) {
            Role::Source => None,
            Role::Sink => {
                let first = self.used().find(|node| role(&node.class_type) == Role::Sink)?;
                if first.id != node.id {
                    return Some(format!(
                        "a stream has one output, and that is node {} already; remove one of them",
                        shown(&first.id)
                    ));
                }
                Some("images")
            }
            Role::Invert => Some("image"),
            Role::Pass => match (links.next(), links.next()) {
                (Some((name, _)), None) => Some(name),
                (None, _) => return Some("nothing is wired to it; wire the picture to it, or remove it".into()),
                _ => return Some("more than one node is wired to it; wire the picture alone".into()),
            },
            Role::LoadImage => {
                return Some(
                    "a picture from a file is not read here; remove it, or make it PrimaryInputLoadImage, which the \
                     stream feeds"
                        .into(),
                );
            }
            Role::OtherSource | Role::OtherSink => {
                return Some("audio and text are not processed here; remove it, and what feeds it alone".into());
            }
            Role::Primary | Role::Preview | Role::Shown | Role::Other => {
                return Some("it is none of the nodes that run here".into());
            }
        };
        // Further links lead to values, which nothing here computes.
        let further = node.links().find(|(name, _)| Some(*name) != wired)?;
        Some(format!(
            "its input {} is wired; give it a plain value",
            shown(further.0)
        ))
    }
}

impl Report {
    /// The classes that are missing, and why the first one is.
    pub(super) fn summary(&self) -> String {
        let missing = self.nodes.iter().filter_map(|node| match &node.status {
            Status::Missing { why } => Some((node, why)),
            Status::Native => None,
        });
        let mut classes: Vec<&str> = Vec::new();
        for (node, _) in missing.clone() {
            if !classes.contains(&node.class_type.as_str()) {
                classes.push(&node.class_type);
            }
        }
        let first = missing.clone().next();
        let why = first.map_or_else(String::new, |(node, why)| format!(" (node {}: {why})", shown(&node.id)));
        format!("{}{why}", list(&classes))
    }
}

fn batch_size(node: &Node) -> Option<u32> {
    match node.inputs.get("batch_size") {
        Some(Input::Value(value)) => value.as_u64().and_then(|size| u32::try_from(size).ok()),
        Some(Input::Link(_)) => None,
        None => (node.class_type == "LoadBatchTensor").then_some(BATCH),
    }
}
