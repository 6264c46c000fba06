//! What is wrong with a workflow.

use super::known::Role;
use super::plan::Report;
use super::{MAX_BYTES, MAX_DEPTH, MAX_INPUTS, MAX_NODES, MAX_WORKFLOWS};

/// Most characters of a name, and most names, that a message shows.
const SHOWN: usize = 40;
const LISTED: usize = 5;

/// What is wrong with a workflow, which node it is, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody draws a graph this large: not a workflow, or pictures are embedded in it.
    #[error("workflow of {bytes} bytes: expected at most {MAX_BYTES}; take embedded data out")]
    TooLarge {
        /// Its size, or what of it was counted until it was too much.
        bytes: usize,
    },
    /// Not JSON: cut off, edited by hand, or something else altogether. Names repeated in one object are refused, too,
    /// because one of the two would be lost.
    #[error("workflow is not valid JSON: {reason}; export it again")]
    Json {
        /// What the reader says, with line and column.
        reason: String,
    },
    /// Too many objects and lists within each other.
    #[error("workflow nests more than {MAX_DEPTH} levels deep; export it again, in API format")]
    TooDeep,
    /// Valid JSON, but no graph.
    #[error("{found} is no workflow: expected ComfyUI's API format, or a file that its editor saved")]
    NotAWorkflow {
        /// What there is instead.
        found: String,
    },
    /// More workflows than any client sends.
    #[error("{count} workflows in one request: expected at most {MAX_WORKFLOWS}; send fewer")]
    TooManyWorkflows {
        /// How many.
        count: usize,
    },
    /// More nodes than a graph that runs for every frame can have.
    #[error("workflow of {count} nodes: expected at most {MAX_NODES}; take out what feeds no output")]
    TooManyNodes {
        /// How many.
        count: usize,
    },
    /// More inputs than any node has.
    #[error(
        "node {} has {count} inputs: expected at most {MAX_INPUTS}; take out what it does not use",
        shown(id)
    )]
    TooManyInputsOfNode {
        /// Of the node.
        id: String,
        /// How many.
        count: usize,
    },
    /// The graph would be ambiguous.
    #[error("two nodes have the id {}; give one of them another", shown(id))]
    DuplicateId {
        /// Of both.
        id: String,
    },
    /// A node is not as the format wants it.
    #[error("node {}: {reason}", shown(id))]
    Node {
        /// Of the node.
        id: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A link of the editor's format is not as it should be.
    #[error("link {}: {reason}", shown(id))]
    Link {
        /// Of the link.
        id: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// One workflow of several is wrong.
    #[error("workflow {} of {count}: {error}", index + 1)]
    At {
        /// Which one, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },

    /// ComfyStream's rule: at most one PrimaryInputLoadImage. See [`Error::help`].
    #[error("too many primary inputs in prompt")]
    TooManyPrimaryInputs {
        /// All of them.
        nodes: Vec<String>,
    },
    /// ComfyStream's rule: at most two inputs, unless one is primary. See [`Error::help`].
    #[error("too many inputs in prompt")]
    TooManyInputs {
        /// All of them.
        nodes: Vec<String>,
    },
    /// ComfyStream's rule: at most three outputs. See [`Error::help`].
    #[error("too many outputs in prompt")]
    TooManyOutputs {
        /// All of them.
        nodes: Vec<String>,
    },
    /// ComfyStream's rule: at least one input. See [`Error::help`].
    #[error("missing input")]
    MissingInput,
    /// ComfyStream's rule: at least one output. See [`Error::help`].
    #[error("missing output")]
    MissingOutput,

    /// A node waits for itself.
    #[error("nodes {} feed each other in a circle; remove one of the links", list(nodes))]
    Cycle {
        /// Each feeds the next, and the last one the first.
        nodes: Vec<String>,
    },
    /// A link comes from a node that is not there.
    #[error(
        "node {}, input {}: there is no node {}; wire it anew",
        shown(node),
        shown(input),
        shown(from)
    )]
    NoSuchNode {
        /// Where the link leads.
        node: String,
        /// Under which name.
        input: String,
        /// The node that is not there.
        from: String,
    },
    /// A link comes from an output that its node does not have.
    #[error(
        "node {}, input {}: node {} ({class_type}) has no output {slot}, {}; wire it anew",
        shown(node), shown(input), shown(from),
        match outputs { 0 => "nor any other".into(), 1 => "only 0".into(), n => format!("only 0 to {}", n - 1) },
    )]
    NoSuchSlot {
        /// Where the link leads.
        node: String,
        /// Under which name.
        input: String,
        /// The node it comes from.
        from: String,
        /// Its class.
        class_type: String,
        /// The output that is not there.
        slot: u32,
        /// How many there are.
        outputs: usize,
    },
    /// A link carries something else than its input takes.
    #[error(
        "node {}, input {}: expected {wanted}, and node {} gives {found}; wire it anew",
        shown(node),
        shown(input),
        shown(from)
    )]
    WrongType {
        /// Where the link leads.
        node: String,
        /// Under which name.
        input: String,
        /// What it takes.
        wanted: String,
        /// The node it comes from.
        from: String,
        /// What that gives.
        found: String,
    },
    /// A node that feeds an output lacks what it works on.
    #[error(
        "node {} ({class_type}): nothing is wired to its input {}; wire it",
        shown(node),
        shown(input)
    )]
    Unconnected {
        /// The node.
        node: String,
        /// Its class.
        class_type: String,
        /// The input.
        input: String,
    },
    /// A value that the node does not take.
    #[error("node {}, input {}: {found} given, expected {wanted}", shown(node), shown(input))]
    BadValue {
        /// The node.
        node: String,
        /// The input.
        input: String,
        /// What is there.
        found: String,
        /// What would be right.
        wanted: String,
    },

    /// A sound graph, and this build does not run it.
    #[error("this build cannot run {}; use LoadTensor, ImageInvert and SaveTensor only, or pick an ONNX model by name", report.summary())]
    Unsupported {
        /// Every node that feeds an output.
        report: Report,
    },
}

impl Error {
    /// Which nodes it is, and what to do, for the errors whose texts ComfyStream's clients know by heart.
    pub fn help(&self) -> Option<String> {
        let names = |role: Role| role.classes().join(", ");
        match self {
            Error::TooManyPrimaryInputs { nodes } => Some(format!(
                "nodes {} are PrimaryInputLoadImage: keep one, and make LoadImage of the others",
                list(nodes)
            )),
            Error::TooManyInputs { nodes } => Some(format!(
                "nodes {} are inputs, and a stream feeds two at most: remove some, or make the one that the stream feeds \
                 PrimaryInputLoadImage",
                list(nodes)
            )),
            Error::TooManyOutputs { nodes } => Some(format!(
                "nodes {} are outputs, and there may be three at most: remove some",
                list(nodes)
            )),
            Error::MissingInput => Some(format!("add a node that the stream feeds: {}", names(Role::Source))),
            Error::MissingOutput => Some(format!("add a node that shows the result: {}", names(Role::Sink))),
            Error::At { error, .. } => error.help(),
            _ => None,
        }
    }
}

/// Somebody else's name, short, and in quotes unless it is a plain word or number.
pub(super) fn shown(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":#_-.".contains(&byte);
    if !name.is_empty() && name.len() <= SHOWN && name.bytes().all(plain) {
        return name.into();
    }
    let mut short: String = name.chars().take(SHOWN).collect();
    if short.len() < name.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}

/// The first names, and how many more there are.
pub(super) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<_> = names.iter().take(LISTED).map(|name| shown(name.as_ref())).collect();
    match names.len().saturating_sub(LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
