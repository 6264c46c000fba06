//! The nodes that this build knows by name: ComfyStream's own, those of its batches, and what it runs.

use serde_json::Value;

/// What a class is to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Becomes the stream's input, whatever else there is.
    Primary,
    /// Becomes the stream's input if it is the only one.
    LoadImage,
    /// The stream's pictures.
    Source,
    /// Audio of the stream.
    OtherSource,
    /// Becomes a sink.
    Preview,
    /// The stream's result.
    Sink,
    /// Audio or text of the result.
    OtherSink,
    /// Runs for its own sake in ComfyUI, and is no output of the stream.
    Shown,
    /// One minus the picture.
    Invert,
    /// Gives what it gets.
    Pass,
    /// Anything else that is known.
    Other,
}

/// What an input takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A link, of this type.
    Link(&'static str),
    /// A whole number within bounds, both inclusive.
    Int(i64, i64),
    /// A number, within bounds where there are any.
    Float(Option<(f64, f64)>),
    /// Text.
    Text,
    /// Yes or no.
    Bool,
}

/// One class.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) role: Role,
    /// In the order of ComfyUI's editor.
    pub(super) inputs: &'static [(&'static str, Kind)],
    /// Types; None: not known.
    pub(super) outputs: Option<&'static [&'static str]>,
}

/// Any type.
pub(super) const ANY: &str = "*";

const BATCH: (&str, Kind) = ("batch_size", Kind::Int(1, 8));
const IMAGES: (&str, Kind) = ("images", Kind::Link("IMAGE"));
const TIMEOUT: (&str, Kind) = ("timeout_seconds", Kind::Float(Some((0.1, 30.0))));
const OPERATION: (&str, Kind) = ("operation", Kind::Text);
const PICTURE: &[&str] = &["IMAGE"];
const PICTURE_AND_MASK: &[&str] = &["IMAGE", "MASK"];

/// `batch_size` of LoadTensor and `split_batch` are of ComfyStream's unmerged batching. The types of its audio nodes
/// changed between versions, so they are left open.
pub(super) const CLASSES: &[Class] = &[
    class("LoadTensor", Role::Source, &[TIMEOUT, BATCH], Some(PICTURE)),
    class("LoadBatchTensor", Role::Source, &[BATCH], Some(PICTURE)),
    class(
        "PrimaryInputLoadImage",
        Role::Primary,
        &[("image", Kind::Text)],
        Some(PICTURE_AND_MASK),
    ),
    class(
        "LoadImage",
        Role::LoadImage,
        &[("image", Kind::Text)],
        Some(PICTURE_AND_MASK),
    ),
    class(
        "LoadAudioTensor",
        Role::OtherSource,
        &[
            ("buffer_size", Kind::Float(None)),
            ("timeout_seconds", Kind::Float(None)),
        ],
        Some(&[ANY]),
    ),
    class(
        "SaveTensor",
        Role::Sink,
        &[IMAGES, ("split_batch", Kind::Bool)],
        Some(&[]),
    ),
    class("SaveBatchTensor", Role::Sink, &[IMAGES], Some(&[])),
    class("PreviewImage", Role::Preview, &[IMAGES], Some(&[])),
    class(
        "SaveImage",
        Role::Preview,
        &[IMAGES, ("filename_prefix", Kind::Text)],
        Some(&[]),
    ),
    class(
        "SaveAudioTensor",
        Role::OtherSink,
        &[("audio", Kind::Link(ANY))],
        Some(&[]),
    ),
    class(
        "SaveTextTensor",
        Role::OtherSink,
        &[("data", Kind::Text), ("remove_linebreaks", Kind::Bool)],
        Some(&[]),
    ),
    // Its author declared it an output, so ComfyUI runs it wherever it stands.
    class(
        "DepthAnythingTensorrt",
        Role::Shown,
        &[("images", Kind::Link("IMAGE")), ("engine", Kind::Text)],
        None,
    ),
    class(
        "ImageInvert",
        Role::Invert,
        &[("image", Kind::Link("IMAGE"))],
        Some(PICTURE),
    ),
    class("Reroute", Role::Pass, &[], Some(&[ANY])),
    class("StartPerformanceTimerNode", Role::Pass, &[OPERATION], None),
    class(
        "PerformanceTimerNode",
        Role::Pass,
        &[OPERATION, BATCH, ("num_images", Kind::Int(1, 100))],
        None,
    ),
    class(
        "PitchShifter",
        Role::Other,
        &[
            ("audio", Kind::Link(ANY)),
            ("pitch_shift", Kind::Float(Some((0.0, 12.0)))),
        ],
        Some(&[ANY]),
    ),
    class("ComfyStreamUIPreview", Role::Other, &[], Some(&[])),
];

const fn class(
    name: &'static str,
    role: Role,
    inputs: &'static [(&'static str, Kind)],
    outputs: Option<&'static [&'static str]>,
) -> Class {
    Class {
        name,
        role,
        inputs,
        outputs,
    }
}

/// What is known about a class.
pub(super) fn known(class_type: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == class_type)
}

/// What a class is to a stream; [`Role::Other`] if it is not known.
pub(super) fn role(class_type: &str) -> Role {
    known(class_type).map_or(Role::Other, |class| class.role)
}

impl Class {
    /// What an input takes, if it is known.
    pub(super) fn input(&self, name: &str) -> Option<Kind> {
        self.inputs
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    /// The inputs that nothing works without, with their types.
    pub(super) fn needed(&self) -> impl Iterator<Item = &'static str> {
        self.inputs
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Link(_)))
            .map(|(name, _)| *name)
    }

    /// The names of values, in the order in which the editor saves them.
    pub(super) fn widgets(&self) -> impl Iterator<Item = &'static str> {
        self.inputs
            .iter()
            .filter(|(_, kind)| !matches!(kind, Kind::Link(_)))
            .map(|(name, _)| *name)
    }
}

impl Role {
    /// Those that have it, by name.
    pub(super) fn classes(self) -> Vec<&'static str> {
        CLASSES
            .iter()
            .filter(|class| class.role == self)
            .map(|class| class.name)
            .collect()
    }
}

impl Kind {
    /// As ComfyUI calls it.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Kind::Link(name) => name,
            Kind::Int(..) => "INT",
            Kind::Float(_) => "FLOAT",
            Kind::Text => "STRING",
            Kind::Bool => "BOOLEAN",
        }
    }

    /// What a value has to be, if it is not.
    pub(super) fn refuses(self, value: &Value) -> Option<String> {
        let (good, wanted) = match self {
            Kind::Link(_) => return None,
            Kind::Int(low, high) => (
                value.as_i64().is_some_and(|number| (low..=high).contains(&number)),
                format!("a whole number from {low} to {high}"),
            ),
            Kind::Float(None) => (value.is_number(), "a number".into()),
            Kind::Float(Some((low, high))) => (
                value.as_f64().is_some_and(|number| (low..=high).contains(&number)),
                format!("a number from {low} to {high}"),
            ),
            Kind::Text => (value.is_string(), "text".into()),
            Kind::Bool => (value.is_boolean(), "true or false".into()),
        };
        (!good).then_some(wanted)
    }
}
