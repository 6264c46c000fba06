//! The part of the ONNX format that is written and read here.
//!
//! [`Model`] and its parts are what a wrapper around a compiled engine consists of. [`read`] walks through any ONNX
//! file, of which it keeps the declarations alone: weights are skipped, so that a file of two gigabytes costs as much
//! memory as one of two kilobytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use prost::Message;

use crate::tensor::{DType, Dim};

/// Largest single declaration that is kept: a tensor, a line of metadata, an attribute.
const MAX_ITEM: u64 = 1 << 20;

/// Most inputs, outputs, lines of metadata and files of weights.
const MAX_ITEMS: usize = 4096;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Model {
    #[prost(int64, tag = "1")]
    pub(in crate::engine) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(in crate::engine) producer_name: String,
    #[prost(message, optional, tag = "7")]
    pub(in crate::engine) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(in crate::engine) opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub(in crate::engine) metadata: Vec<Entry>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(in crate::engine) name: String,
    #[prost(message, repeated, tag = "11")]
    pub(in crate::engine) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(in crate::engine) output: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(in crate::engine) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(in crate::engine) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(in crate::engine) name: String,
    #[prost(string, tag = "4")]
    pub(in crate::engine) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(in crate::engine) attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub(in crate::engine) domain: String,
}

/// `AttributeProto`. Its value is written also where it is 0: a checker wants to see it.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Attribute {
    #[prost(string, tag = "1")]
    pub(in crate::engine) name: String,
    #[prost(int64, optional, tag = "3")]
    pub(in crate::engine) i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(in crate::engine) s: Option<Vec<u8>>,
    #[prost(int32, tag = "20")]
    pub(in crate::engine) kind: i32,
}

impl Attribute {
    pub(in crate::engine) fn int(name: &str, i: i64) -> Self {
        Self {
            name: name.into(),
            i: Some(i),
            s: None,
            kind: 2,
        }
    }

    pub(in crate::engine) fn text(name: &str, text: &str) -> Self {
        Self {
            name: name.into(),
            i: None,
            s: Some(text.into()),
            kind: 3,
        }
    }
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(in crate::engine) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::engine) r#type: Option<Type>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(in crate::engine) element: i32,
    #[prost(message, optional, tag = "2")]
    pub(in crate::engine) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: a number or a name.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(in crate::engine) value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(in crate::engine) name: Option<String>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Opset {
    #[prost(string, tag = "1")]
    pub(in crate::engine) domain: String,
    #[prost(int64, tag = "2")]
    pub(in crate::engine) version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Entry {
    #[prost(string, tag = "1")]
    pub(in crate::engine) key: String,
    #[prost(string, tag = "2")]
    pub(in crate::engine) value: String,
}

/// Type of a tensor's elements: also those that no frame is made of, because engines take them beside frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Element(i32);

/// Names as TensorRT and NumPy write them, and ONNX's numbers.
const ELEMENTS: [(&str, i32); 9] = [
    ("float32", 1),
    ("uint8", 2),
    ("int8", 3),
    ("int32", 6),
    ("int64", 7),
    ("bool", 9),
    ("float16", 10),
    ("float64", 11),
    ("bfloat16", 16),
];

impl Element {
    /// By its name, `float16` or `f16`.
    pub fn named(name: &str) -> Option<Self> {
        let long = match name {
            "f32" => "float32",
            "f16" => "float16",
            "bf16" => "bfloat16",
            "u8" => "uint8",
            "i8" => "int8",
            "i32" => "int32",
            "i64" => "int64",
            name => name,
        };
        let found = ELEMENTS.iter().find(|(name, _)| *name == long);
        found.map(|(_, code)| Self(*code))
    }

    /// All names, for messages.
    pub fn names() -> String {
        ELEMENTS.map(|(name, _)| name).join(", ")
    }

    /// `float16`; `type 23` for one that has no name here.
    pub fn name(self) -> String {
        let found = ELEMENTS.iter().find(|(_, code)| *code == self.0);
        found.map_or_else(|| format!("type {}", self.0), |(name, _)| (*name).into())
    }

    /// The type of this project's tensors, where there is one.
    pub(in crate::engine) fn dtype(self) -> Option<DType> {
        match self.0 {
            1 => Some(DType::F32),
            2 => Some(DType::U8),
            6 => Some(DType::I32),
            7 => Some(DType::I64),
            10 => Some(DType::F16),
            _ => None,
        }
    }
}

/// An input or output as a file declares it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct Declaration {
    pub(in crate::engine) name: String,
    pub(in crate::engine) element: Element,
    pub(in crate::engine) shape: Vec<Dim>,
}

impl From<&Declaration> for ValueInfo {
    fn from(tensor: &Declaration) -> Self {
        let dim = |dim: &Dim| match dim {
            // Sizes are limited where they are read.
            Dim::Fixed(n) => Dimension {
                value: Some(i64::try_from(*n).unwrap_or(i64::MAX)),
                name: None,
            },
            Dim::Dynamic(name) => Dimension {
                value: None,
                name: Some(name.clone()),
            },
        };
        Self {
            name: tensor.name.clone(),
            r#type: Some(Type {
                tensor: Some(TensorType {
                    element: tensor.element.0,
                    shape: Some(Shape {
                        dim: tensor.shape.iter().map(dim).collect(),
                    }),
                }),
            }),
        }
    }
}

impl ValueInfo {
    /// None: it is no tensor.
    fn declaration(self) -> Option<Declaration> {
        let tensor = self.r#type?.tensor?;
        let dim = |dim: Dimension| match dim.value.map(usize::try_from) {
            Some(Ok(n)) => Dim::Fixed(n),
            _ => Dim::Dynamic(dim.name.unwrap_or_default()),
        };
        Some(Declaration {
            name: self.name,
            element: Element(tensor.element),
            shape: tensor.shape.unwrap_or_default().dim.into_iter().map(dim).collect(),
        })
    }
}

/// A node that stands for a compiled engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Context {
    /// The engine's bytes are in the file itself.
    pub(in crate::engine) embedded: bool,
    /// Where they are otherwise, relative to the file.
    pub(in crate::engine) path: String,
    /// The provider that made it.
    pub(in crate::engine) source: String,
    /// `89`, `80+`; empty where it does not say.
    pub(in crate::engine) architecture: String,
}

/// What a file declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::engine) struct Summary {
    pub(in crate::engine) producer: String,
    pub(in crate::engine) inputs: Vec<Declaration>,
    pub(in crate::engine) outputs: Vec<Declaration>,
    pub(in crate::engine) nodes: u64,
    pub(in crate::engine) metadata: BTreeMap<String, String>,
    /// Files of weights beside it, as it names them.
    pub(in crate::engine) external: BTreeSet<String>,
    /// The first of them.
    pub(in crate::engine) context: Option<Context>,
}

/// Reads what a file declares. The error is a clause: what is wrong with it.
pub(in crate::engine) fn read(path: &Path) -> Result<Summary, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    summarize(BufReader::new(file), length)
}

fn summarize<R: Skip>(source: R, length: u64) -> Result<Summary, String> {
    let mut wire = Wire { source, at: 0 };
    let mut summary = Summary::default();
    let mut initializers = BTreeSet::new();
    let mut has_graph = false;
    while let Some(field) = wire.field(length)? {
        match field {
            (2, Value::Bytes(size)) => summary.producer = wire.text(size)?,
            (7, Value::Bytes(size)) => {
                has_graph = true;
                let end = wire.at + size;
                wire.graph(end, &mut summary, &mut initializers)?;
            }
            (14, Value::Bytes(size)) => {
                let entry: Entry = wire.message(size)?;
                summary.metadata.insert(entry.key, entry.value);
                bounded(summary.metadata.len(), "lines of metadata")?;
            }
            (_, value) => wire.pass(value)?,
        }
    }
    if !has_graph {
        return Err("it is no ONNX file: it holds no graph".into());
    }
    // Weights that are listed among the inputs, as old files have it, are nothing to be given.
    summary.inputs.retain(|tensor| !initializers.contains(&tensor.name));
    Ok(summary)
}

fn bounded(count: usize, what: &str) -> Result<(), String> {
    if count > MAX_ITEMS {
        return Err(format!("it declares more than {MAX_ITEMS} {what}"));
    }
    Ok(())
}

/// Going on without reading.
trait Skip: Read {
    fn skip(&mut self, bytes: i64) -> std::io::Result<()>;
}

impl Skip for BufReader<File> {
    fn skip(&mut self, bytes: i64) -> std::io::Result<()> {
        self.seek_relative(bytes)
    }
}

#[cfg(test)]
impl Skip for std::io::Cursor<&[u8]> {
    fn skip(&mut self, bytes: i64) -> std::io::Result<()> {
        std::io::Seek::seek_relative(self, bytes)
    }
}

/// A field's value: only what has a length is of interest.
enum Value {
    Number,
    Bytes(u64),
    Fixed(u64),
}

struct Wire<R> {
    source: R,
    at: u64,
}

impl<R: Skip> Wire<R> {
    /// The next field up to `end`: its number and value. Bytes are still to be read or passed.
    fn field(&mut self, end: u64) -> Result<Option<(u64, Value)>, String> {
        if self.at >= end {
            return if self.at == end { Ok(None) } else { Err(broken()) };
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => Value::Fixed(8),
            2 => Value::Bytes(self.varint()?),
            5 => Value::Fixed(4),
            _ => return Err(broken()),
        };
        match value {
            Value::Bytes(size) | Value::Fixed(size) if size > end.saturating_sub(self.at) => Err(broken()),
            Value::Number if self.at > end => Err(broken()),
            value => Ok(Some((key >> 3, value))),
        }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.source.read_exact(&mut byte).map_err(|_| broken())?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken())
    }

    fn pass(&mut self, value: Value) -> Result<(), String> {
        match value {
            Value::Number => Ok(()),
            Value::Bytes(size) | Value::Fixed(size) => {
                let bytes = i64::try_from(size).map_err(|_| broken())?;
                self.source.skip(bytes).map_err(|error| error.to_string())?;
                self.at += size;
                Ok(())
            }
        }
    }

    fn bytes(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > MAX_ITEM {
            return Err(format!("one of its declarations has {size} bytes"));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| broken())?];
        self.source.read_exact(&mut bytes).map_err(|_| broken())?;
        self.at += size;
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.bytes(size)?).into_owned())
    }

    fn message<M: Message + Default>(&mut self, size: u64) -> Result<M, String> {
        M::decode(self.bytes(size)?.as_slice()).map_err(|_| broken())
    }

    fn graph(&mut self, end: u64, summary: &mut Summary, initializers: &mut BTreeSet<String>) -> Result<(), String> {
        while let Some(field) = self.field(end)? {
            match field {
                (1, Value::Bytes(size)) => {
                    summary.nodes += 1;
                    let context = self.node(size)?;
                    summary.context = summary.context.take().or(context);
                }
                (5, Value::Bytes(size)) => {
                    let name = self.initializer(size, &mut summary.external)?;
                    // Only a name that is an input's, too, matters, and inputs are few.
                    if initializers.len() < 16 * MAX_ITEMS {
                        initializers.insert(name);
                    }
                }
                (11, Value::Bytes(size)) => {
                    summary.inputs.extend(self.message::<ValueInfo>(size)?.declaration());
                    // Weights are among them in old files.
                    bounded(summary.inputs.len() / 16, "inputs")?;
                }
                (12, Value::Bytes(size)) => {
                    summary.outputs.extend(self.message::<ValueInfo>(size)?.declaration());
                    bounded(summary.outputs.len(), "outputs")?;
                }
                (_, value) => self.pass(value)?,
            }
        }
        Ok(())
    }

    /// A tensor of weights: its name, and the file that holds it.
    fn initializer(&mut self, size: u64, external: &mut BTreeSet<String>) -> Result<String, String> {
        let end = self.at + size;
        let mut name = String::new();
        while let Some(field) = self.field(end)? {
            match field {
                (8, Value::Bytes(size)) => name = self.text(size)?,
                (13, Value::Bytes(size)) => {
                    let entry: Entry = self.message(size)?;
                    if entry.key == "location" {
                        external.insert(entry.value);
                        bounded(external.len(), "files of weights")?;
                    }
                }
                (_, value) => self.pass(value)?,
            }
        }
        Ok(name)
    }

    /// What an EPContext node says; None for any other node. Its operator comes before its attributes in every file
    /// that a serializer wrote, since fields are written by number.
    fn node(&mut self, size: u64) -> Result<Option<Context>, String> {
        let end = self.at + size;
        let mut context = None;
        while let Some(field) = self.field(end)? {
            match (field, &mut context) {
                ((4, Value::Bytes(size)), _) => {
                    context = (self.text(size)? == EP_CONTEXT).then(Context::default);
                }
                ((5, Value::Bytes(size)), Some(context)) if size <= MAX_ITEM => {
                    let attribute: Attribute = self.message(size)?;
                    let text = || String::from_utf8_lossy(attribute.s.as_deref().unwrap_or_default()).into_owned();
                    match attribute.name.as_str() {
                        "embed_mode" => context.embedded = attribute.i != Some(0),
                        "ep_cache_context" => context.path = text(),
                        "source" => context.source = text(),
                        "hardware_architecture" => context.architecture = text(),
                        _ => {}
                    }
                }
                ((_, value), _) => self.pass(value)?,
            }
        }
        Ok(context)
    }
}

/// The operator that stands for a compiled engine, of domain `com.microsoft`.
pub(in crate::engine) const EP_CONTEXT: &str = "EPContext";

fn broken() -> String {
    "it is no ONNX file, or a part of one".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(bytes: &[u8]) -> Result<Summary, String> {
        summarize(std::io::Cursor::new(bytes), bytes.len() as u64)
    }

    fn testdata(name: &str) -> Vec<u8> {
        let path = format!("{}/src/engine/testdata/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    fn sample() -> Model {
        let image = Declaration {
            name: "image".into(),
            element: Element::named("f16").unwrap(),
            shape: vec![Dim::Dynamic("batch".into()), Dim::Fixed(3), Dim::Fixed(4)],
        };
        Model {
            ir_version: 8,
            producer_name: "test".into(),
            graph: Some(Graph {
                node: vec![Node {
                    input: vec!["image".into()],
                    output: vec!["result".into()],
                    name: "engine".into(),
                    op_type: EP_CONTEXT.into(),
                    attribute: vec![
                        Attribute::int("embed_mode", 0),
                        Attribute::text("ep_cache_context", "engine"),
                        Attribute::text("source", "TensorrtExecutionProvider"),
                        Attribute::text("hardware_architecture", "89"),
                    ],
                    domain: "com.microsoft".into(),
                }],
                name: "g".into(),
                input: vec![(&image).into()],
                output: vec![(&image).into()],
            }),
            opset_import: vec![Opset {
                domain: String::new(),
                version: 17,
            }],
            metadata: vec![Entry {
                key: "a".into(),
                value: "b".into(),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let read = summary(&sample().encode_to_vec()).unwrap();
        assert_eq!(read.inputs[0].name, "image");
        assert_eq!(read.inputs[0].element.name(), "float16");
        assert_eq!(read.inputs[0].shape[0], Dim::Dynamic("batch".into()));
        assert_eq!(read.inputs[0].shape[1], Dim::Fixed(3));
        assert_eq!((read.producer.as_str(), read.nodes), ("test", 1));
        assert_eq!(read.metadata["a"], "b");
        let context = read.context.unwrap();
        assert!(!context.embedded);
        assert_eq!((context.path.as_str(), context.architecture.as_str()), ("engine", "89"));
    }

    #[test]
    fn models_of_others_are_read() {
        for (name, inputs, outputs) in [("invert", 1, 1), ("two_inputs", 2, 1), ("two_outputs", 1, 2)] {
            let read = summary(&testdata(name)).unwrap();
            assert_eq!((read.inputs.len(), read.outputs.len()), (inputs, outputs), "{name}");
            assert_eq!(read.context, None);
            assert!(read.nodes > 0 && read.external.is_empty());
        }
    }

    #[test]
    fn an_embedded_engine_of_any_size_is_passed_over() {
        let mut model = sample();
        let node = &mut model.graph.as_mut().unwrap().node[0];
        node.attribute[0] = Attribute::int("embed_mode", 1);
        node.attribute[1].s = Some(vec![7; 3 << 20]);
        let context = summary(&model.encode_to_vec()).unwrap().context.unwrap();
        assert!(context.embedded && context.path.is_empty());
    }

    #[test]
    fn files_of_weights_are_listed_and_weights_are_no_inputs() {
        // Graph { initializer: [{ name: "image", external_data: [{ "location", "w.bin" }] }] }, added to the sample's:
        // a message given twice is merged.
        let mut entry = Vec::new();
        Entry {
            key: "location".into(),
            value: "w.bin".into(),
        }
        .encode_length_delimited(&mut entry)
        .unwrap();
        let mut tensor = vec![8 << 3 | 2, 5];
        tensor.extend(b"image");
        tensor.push(13 << 3 | 2);
        tensor.extend(entry);
        let mut graph = vec![5 << 3 | 2, tensor.len() as u8];
        graph.extend(tensor);
        let mut bytes = sample().encode_to_vec();
        bytes.extend([7 << 3 | 2, graph.len() as u8]);
        bytes.extend(graph);
        let read = summary(&bytes).unwrap();
        assert!(read.inputs.is_empty());
        assert_eq!(read.external.into_iter().collect::<Vec<_>>(), ["w.bin"]);
    }

    #[test]
    fn elements_have_a_long_and_a_short_name() {
        for (short, long) in [("f32", "float32"), ("bf16", "bfloat16"), ("u8", "uint8")] {
            assert_eq!(Element::named(short), Element::named(long));
            assert_eq!(Element::named(short).unwrap().name(), long);
        }
        assert_eq!(Element::named("half"), None);
        assert_eq!(Element(99).name(), "type 99");
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [
            &b""[..],
            b"PK\x03\x04",
            b"hello, world",
            &[0x0a, 0xff, 0xff],
            &[0x3a, 0x05, 0x0a],
        ] {
            assert!(summary(bytes).is_err(), "{bytes:?}");
        }
        let whole = sample().encode_to_vec();
        for end in 0..whole.len() {
            // A cut between two fields of the model is a shorter model.
            let _ = summary(&whole[..end]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = summary(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0..200_usize, byte in proptest::num::u8::ANY) {
            let mut bytes = sample().encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = summary(&bytes);
        }
    }
}
