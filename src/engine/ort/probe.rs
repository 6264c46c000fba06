//! Any model at all, for measuring: its inputs are filled with noise, and nobody asks what they mean.
//!
//! An engine wants pictures; the UNet of a diffusion model takes latents, a time and a text. A probe opens such a file
//! with its symbolic dimensions given numbers, binds inputs and outputs where they then stay, and runs it: on the
//! processor, or on a stream of a GPU, where a run is queued and nobody waits for it before [`Probe::finish`].
#![allow(unsafe_code)]

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use ::ort::AsPointer;
use ::ort::ep::CUDA;
use ::ort::ep::cuda::ConvAlgorithmSearch;
use ::ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ::ort::session::builder::SessionBuilder;
use ::ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ::ort::value::{DynValueTypeMarker, Shape, TensorRefMut, ValueRefMut};

use super::block::Block;
use super::exit::{self, Owned};
use super::library::{self, text};
use super::session;
use crate::cuda::{DeviceBuffer, Pinned, Stream};
use crate::engine::{Error, OpenRequest};
use crate::tensor::{DType, Dim, f16};

/// Where a probe runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// On the processor.
    Cpu,
    /// On a GPU: each run is queued on this stream, behind what is queued there.
    Cuda(Arc<Stream>),
}

/// What to open, and how.
#[derive(Debug, Clone)]
pub struct ProbeRequest {
    /// Path of a model.
    pub model: PathBuf,
    /// Where it runs.
    pub place: Place,
    /// Sizes of the model's symbolic dimensions, by their names.
    pub dims: Vec<(String, usize)>,
    /// Smallest and largest value of an input, by its name; 0 and 1 for those that are not named.
    pub ranges: Vec<(String, [f32; 2])>,
    /// The same seed makes the same noise.
    pub seed: u64,
    /// Whether [`Probe::replay`] may be called: its runs are recorded as a CUDA graph.
    pub record: bool,
    /// Whether f32 may be rounded to TF32 in products, which is what a user gets.
    pub tf32: bool,
    /// Processor threads of one run; 0: half of the cores, at least one.
    pub threads: usize,
    /// As in [`OpenRequest::library`].
    pub library: Option<PathBuf>,
}

impl ProbeRequest {
    /// On the processor, with values from 0 to 1.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            place: Place::Cpu,
            dims: Vec::new(),
            ranges: Vec::new(),
            seed: 1,
            record: false,
            tf32: true,
            threads: 0,
            library: None,
        }
    }
}

/// An input or output, as it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePort {
    /// Its name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes, all of them numbers.
    pub shape: Vec<usize>,
}

/// A model with its inputs and outputs bound.
pub struct Probe {
    // In the order in which they have to be dropped: the binding holds tensors that point into the memory, and the
    // session works on the stream.
    binding: Owned<IoBinding>,
    inputs: Vec<Bound>,
    outputs: Vec<Bound>,
    options: [RunOptions; 2],
    session: Owned<Session>,
    place: Place,
    name: String,
    record: bool,
    /// What a plain run gave when it was opened.
    reference: Vec<Vec<f32>>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Bound {
    port: ProbePort,
    /// Points into the memory.
    value: ValueRefMut<'static, DynValueTypeMarker>,
    memory: Memory,
}

enum Memory {
    Main(Block),
    Device(DeviceBuffer),
}

impl Probe {
    /// Opens a model, and runs it once with outputs that the runtime allocates, to learn their shapes.
    pub fn open(request: &ProbeRequest) -> Result<Self, Error> {
        let name = request.model.display().to_string();
        if !request.model.is_file() {
            return Err(Error::NotFound { path: name });
        }
        let not_a_model = |reason: String| Error::NotAModel {
            path: name.clone(),
            reason,
        };
        let runtime = library::load(request.library.as_deref())?;
        let _call = exit::enter(None)?;
        // As for other sessions: what a file holds is not ours to trust.
        let opened = catch_unwind(AssertUnwindSafe(|| commit(runtime, request)));
        let mut session = opened
            .unwrap_or_else(|_| Err("it declares a type that is not supported".into()))
            .map_err(&not_a_model)?;
        exit::guard();

        let inputs = session.inputs().iter().map(session::declared);
        let mut blocks = Vec::new();
        for (at, declared) in inputs.enumerate() {
            let port = ProbePort {
                dtype: declared.dtype.map_err(&not_a_model)?,
                shape: fixed(&declared.name, &declared.shape)?,
                name: declared.name,
            };
            let range = request.ranges.iter().find(|(name, _)| *name == port.name);
            let range = range.map_or([0.0, 1.0], |(_, range)| *range);
            let mut block = Block::new(port.dtype, port.shape.iter().product(), 1)?;
            noise(&mut block, request.seed.wrapping_add(at as u64 * 0x9e37), range);
            blocks.push((port, block));
        }
        let (outputs, reference) = plain(&mut session, &blocks).map_err(|error| run_error(&name, text(error)))?;
        exit::guard();
        let mut probe = Self {
            binding: Owned::new(
                session
                    .create_binding()
                    .map_err(|error| run_error(&name, text(error)))?,
            ),
            inputs: Vec::new(),
            outputs: Vec::new(),
            options: [
                options(false).map_err(|error| run_error(&name, text(error)))?,
                options(true).map_err(|error| run_error(&name, text(error)))?,
            ],
            session,
            place: request.place.clone(),
            name,
            record: request.record,
            reference,
        };
        for (port, block) in blocks {
            let bound = probe.place(port, Some(block))?;
            probe.bind_input(&bound).map_err(|error| probe.failed(error))?;
            probe.inputs.push(bound);
        }
        for port in outputs {
            let bound = probe.place(port, None)?;
            probe.bind_output(&bound).map_err(|error| probe.failed(error))?;
            probe.outputs.push(bound);
        }
        Ok(probe)
    }

    /// What it takes.
    pub fn inputs(&self) -> impl Iterator<Item = &ProbePort> {
        self.inputs.iter().map(|bound| &bound.port)
    }

    /// What it gives.
    pub fn outputs(&self) -> impl Iterator<Item = &ProbePort> {
        self.outputs.iter().map(|bound| &bound.port)
    }

    /// One run: queued on a GPU, done when it returns on the processor.
    pub fn run(&mut self) -> Result<(), Error> {
        self.run_with(0)
    }

    /// The same as a CUDA graph. The first calls run plainly and record; what they give is the same.
    pub fn replay(&mut self) -> Result<(), Error> {
        if !self.record {
            return Err(Error::Setting(format!("{} was not opened to be recorded", self.name)));
        }
        self.run_with(1)
    }

    fn run_with(&mut self, options: usize) -> Result<(), Error> {
        let _call = exit::enter(None)?;
        // SAFETY: all three are alive for the call, and the session is the one that the binding was made for, held
        // exclusively. What the bound tensors point into is this probe's, and is not freed while runs are queued:
        // dropping waits for them.
        let done = unsafe {
            let run = ::ort::api().RunWithBinding;
            let status = run(
                self.session.ptr().cast_mut(),
                self.options[options].ptr(),
                self.binding.ptr(),
            );
            ::ort::Error::result_from_status(status)
        };
        done.map_err(|error| self.failed(error))
    }

    /// Waits until every run that was queued is done.
    pub fn finish(&mut self) -> Result<(), Error> {
        match &self.place {
            Place::Cpu => Ok(()),
            Place::Cuda(stream) => stream.synchronize().map_err(|error| self.on_device(&error)),
        }
    }

    /// An output of the last run, as f32, once it is done.
    pub fn read(&mut self, output: usize) -> Result<Vec<f32>, Error> {
        self.finish()?;
        let bound = &self.outputs[output];
        let bytes = bound.port.shape.iter().product::<usize>() * bound.port.dtype.size();
        match &bound.memory {
            Memory::Main(block) => Ok(numbers(bound.port.dtype, block.bytes(bytes))),
            Memory::Device(buffer) => {
                let Place::Cuda(stream) = &self.place else {
                    return Ok(Vec::new());
                };
                let bring = || -> Result<Vec<f32>, crate::cuda::Error> {
                    let mut host = Pinned::for_download(stream.device(), bytes)?;
                    stream.download(buffer.address(), &mut host, 0..bytes)?;
                    stream.synchronize()?;
                    Ok(numbers(bound.port.dtype, host.as_slice()))
                };
                bring().map_err(|error| self.on_device(&error))
            }
        }
    }

    /// What the same output was in the plain run with which it was opened.
    pub fn reference(&self, output: usize) -> &[f32] {
        &self.reference[output]
    }

    /// A place for a tensor where the model runs, holding what `block` holds.
    fn place(&self, port: ProbePort, block: Option<Block>) -> Result<Bound, Error> {
        let len: usize = port.shape.iter().product();
        match &self.place {
            Place::Cpu => {
                let block = match block {
                    Some(block) => block,
                    None => Block::new(port.dtype, len, 1)?,
                };
                let value = block.value(0, &port.shape).map_err(|error| self.failed(error))?;
                Ok(Bound {
                    port,
                    value,
                    memory: Memory::Main(block),
                })
            }
            Place::Cuda(stream) => {
                let bytes = len * port.dtype.size();
                let fill = || -> Result<DeviceBuffer, crate::cuda::Error> {
                    let buffer = DeviceBuffer::new(stream.device(), bytes)?;
                    if let Some(block) = &block {
                        let mut host = Pinned::for_upload(stream.device(), bytes)?;
                        host.as_mut_slice().copy_from_slice(block.bytes(bytes));
                        stream.upload(&host, 0..bytes, buffer.address())?;
                        stream.synchronize()?;
                    }
                    Ok(buffer)
                };
                let buffer = fill().map_err(|error| self.on_device(&error))?;
                let ordinal = i32::try_from(stream.device().ordinal()).unwrap_or(i32::MAX);
                let value = value_at(&buffer, ordinal, &port).map_err(|error| self.failed(error))?;
                Ok(Bound {
                    port,
                    value,
                    memory: Memory::Device(buffer),
                })
            }
        }
    }

    fn bind_input(&mut self, bound: &Bound) -> ::ort::Result<()> {
        // A name that came from the session as a C string has no NUL in it.
        let name = CString::new(bound.port.name.as_str()).unwrap_or_default();
        // SAFETY: binding, name and value are alive. The binding takes its own reference to the value; the memory
        // behind it is the probe's, which drops its binding first. The crate's own function does not return for a
        // tensor that does not own its memory (see `lane`).
        unsafe {
            let bind = ::ort::api().BindInput;
            let status = bind(self.binding.ptr_mut(), name.as_ptr(), AsPointer::ptr(&*bound.value));
            ::ort::Error::result_from_status(status)
        }
    }

    fn bind_output(&mut self, bound: &Bound) -> ::ort::Result<()> {
        let name = CString::new(bound.port.name.as_str()).unwrap_or_default();
        // SAFETY: as for inputs.
        unsafe {
            let bind = ::ort::api().BindOutput;
            let status = bind(self.binding.ptr_mut(), name.as_ptr(), AsPointer::ptr(&*bound.value));
            ::ort::Error::result_from_status(status)
        }
    }

    fn failed(&self, error: ::ort::Error) -> Error {
        run_error(&self.name, text(error))
    }

    fn on_device(&self, error: &crate::cuda::Error) -> Error {
        run_error(&self.name, error.to_string())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // What is queued still reads and writes the memory. A device that has failed does neither.
        let _ = self.finish();
    }
}

fn run_error(model: &str, reason: String) -> Error {
    Error::Run {
        model: model.into(),
        reason,
    }
}

fn commit(runtime: &library::Runtime, request: &ProbeRequest) -> Result<Owned<Session>, String> {
    let open = OpenRequest {
        model: request.model.display().to_string(),
        threads: request.threads,
        ..OpenRequest::default()
    };
    let mut builder: SessionBuilder = session::builder(runtime, &open, true)?;
    for (name, size) in &request.dims {
        let size = i64::try_from(*size).unwrap_or(i64::MAX);
        builder = builder.with_dimension_override(name, size).map_err(text)?;
    }
    if let Place::Cuda(stream) = &request.place {
        let ordinal = i32::try_from(stream.device().ordinal()).unwrap_or(i32::MAX);
        let cuda = CUDA::default()
            .with_device_id(ordinal)
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .with_tf32(request.tf32)
            .with_cuda_graph(request.record);
        // SAFETY: the stream is of the device's primary context, which is the runtime's too, and outlives the session:
        // the probe holds both and drops the session first.
        let cuda = unsafe { cuda.with_compute_stream(stream.raw() as *mut ()) };
        builder = builder
            .with_execution_providers([cuda.build().error_on_failure()])
            .map_err(text)?;
    }
    Ok(Owned::new(builder.commit_from_file(&request.model).map_err(text)?))
}

fn options(record: bool) -> ::ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.disable_device_sync()?;
    // A probe has one shape and so one graph; -1 is a run that has nothing to do with graphs.
    options.set("gpu_graph_id", if record { "1" } else { "-1" })?;
    Ok(options)
}

fn fixed(name: &str, shape: &[Dim]) -> Result<Vec<usize>, Error> {
    let sizes = shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => Ok(*size),
        Dim::Dynamic(symbol) => Err(Error::Setting(format!(
            "input {name} has a dimension `{symbol}` that was given no size"
        ))),
    });
    sizes.collect()
}

type Learnt = (Vec<ProbePort>, Vec<Vec<f32>>);

/// A run with tensors of the runtime's own: what it gives, and in which shape.
fn plain(session: &mut Session, blocks: &[(ProbePort, Block)]) -> ::ort::Result<Learnt> {
    let names: Vec<String> = session
        .outputs()
        .iter()
        .map(|outlet| outlet.name().to_owned())
        .collect();
    let mut feed = Vec::new();
    for (port, block) in blocks {
        feed.push((port.name.clone(), SessionInputValue::from(block.value(0, &port.shape)?)));
    }
    // The place of tensors that the runtime allocates may change from run to run, so this one is no part of a graph. And
    // it is waited for: what it gives is read here, at once.
    let mut options = RunOptions::new()?;
    options.set("gpu_graph_id", "-1")?;
    let made = session.run_with_options(feed, &options)?;
    let (mut ports, mut values) = (Vec::new(), Vec::new());
    for name in names {
        let Some(value) = made.get(&name) else { continue };
        let unsupported = || ::ort::Error::new(format!("output {name} is of a type that is not supported"));
        let shape = value.dtype().tensor_shape().ok_or_else(unsupported)?;
        let shape: Vec<usize> = shape.iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect();
        let (dtype, numbers) = if let Ok((_, data)) = value.try_extract_tensor::<f32>() {
            (DType::F32, data.to_vec())
        } else if let Ok((_, data)) = value.try_extract_tensor::<f16>() {
            (DType::F16, data.iter().map(|v| v.to_f32()).collect())
        } else if let Ok((_, data)) = value.try_extract_tensor::<u8>() {
            (DType::U8, data.iter().map(|v| f32::from(*v)).collect())
        } else if let Ok((_, data)) = value.try_extract_tensor::<i32>() {
            (DType::I32, data.iter().map(|v| *v as f32).collect())
        } else if let Ok((_, data)) = value.try_extract_tensor::<i64>() {
            (DType::I64, data.iter().map(|v| *v as f32).collect())
        } else {
            return Err(unsupported());
        };
        ports.push(ProbePort { name, dtype, shape });
        values.push(numbers);
    }
    Ok((ports, values))
}

/// A tensor in a GPU's memory. It must not outlive the memory.
fn value_at(
    buffer: &DeviceBuffer,
    ordinal: i32,
    port: &ProbePort,
) -> ::ort::Result<ValueRefMut<'static, DynValueTypeMarker>> {
    let device = (AllocationDevice::CUDA, AllocatorType::Device, MemoryType::Default);
    let info = MemoryInfo::new(device.0, ordinal, device.1, device.2)?;
    let shape = Shape::new(port.shape.iter().map(|n| *n as i64));
    let data = buffer.address() as *mut std::ffi::c_void;
    // SAFETY: the buffer was made for this shape, is aligned for every type, and is kept by the caller for as long as
    // the value; every bit pattern is a value of each of these types.
    unsafe {
        Ok(match port.dtype {
            DType::U8 => TensorRefMut::<u8>::from_raw(info, data, shape)?.into_dyn(),
            DType::F16 => TensorRefMut::<f16>::from_raw(info, data, shape)?.into_dyn(),
            DType::F32 => TensorRefMut::<f32>::from_raw(info, data, shape)?.into_dyn(),
            DType::I32 => TensorRefMut::<i32>::from_raw(info, data, shape)?.into_dyn(),
            DType::I64 => TensorRefMut::<i64>::from_raw(info, data, shape)?.into_dyn(),
        })
    }
}

/// Even noise in a range; a GPU is faster on zeros than on what it will be given.
fn noise(block: &mut Block, seed: u64, [low, high]: [f32; 2]) {
    // SplitMix64.
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 40
    };
    let mut value = || low + (high - low) * (next() as f32 / (1 << 24) as f32);
    let len = block.share;
    match block.dtype {
        DType::U8 => block
            .slice_mut::<u8>(0, len)
            .iter_mut()
            .for_each(|to| *to = (value() * 255.0) as u8),
        DType::F16 => block
            .slice_mut(0, len)
            .iter_mut()
            .for_each(|to| *to = f16::from_f32(value())),
        DType::F32 => block.slice_mut::<f32>(0, len).iter_mut().for_each(|to| *to = value()),
        DType::I32 => block
            .slice_mut::<i32>(0, len)
            .iter_mut()
            .for_each(|to| *to = value() as i32),
        DType::I64 => block
            .slice_mut::<i64>(0, len)
            .iter_mut()
            .for_each(|to| *to = value() as i64),
    }
}

fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::U8 => bytes.iter().map(|v| f32::from(*v)).collect(),
        DType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        DType::F32 => each(bytes, f32::from_le_bytes),
        DType::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
    }
}

fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ProbeRequest {
        assert!(
            std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()),
            "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
        );
        let dims = [("batch", 2), ("height", 24), ("width", 32)];
        ProbeRequest {
            dims: dims.map(|(name, size)| (name.to_owned(), size)).to_vec(),
            threads: 1,
            ..ProbeRequest::new(format!("{}/models/{name}.onnx", env!("CARGO_MANIFEST_DIR")))
        }
    }

    #[test]
    fn a_bound_run_gives_what_a_plain_run_gives() {
        for name in ["style", "cartoon", "invert", "invert-u8", "upscale2x", "tensor-out"] {
            let mut probe = Probe::open(&model(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            probe.run().unwrap();
            probe.run().unwrap();
            probe.finish().unwrap();
            for (at, port) in probe.outputs().cloned().collect::<Vec<_>>().iter().enumerate() {
                let got = probe.read(at).unwrap();
                assert_eq!(got.len(), port.shape.iter().product::<usize>(), "{name} {port:?}");
                assert_eq!(got, probe.reference(at), "{name}, output {}", port.name);
                assert!(got.iter().any(|v| *v != got[0]), "{name}: a flat output proves nothing");
            }
        }
    }

    #[test]
    fn noise_is_the_same_for_the_same_seed_and_within_its_range() {
        let mut request = model("invert");
        request.ranges = vec![("image".to_owned(), [0.25, 0.5])];
        let read = |request: &ProbeRequest| {
            let mut probe = Probe::open(request).unwrap();
            probe.run().unwrap();
            probe.read(0).unwrap()
        };
        let first = read(&request);
        assert_eq!(first, read(&request));
        // The model gives 1 - x.
        assert!(first.iter().all(|v| (0.5..=0.75).contains(v)), "{first:?}");
        request.seed += 1;
        assert_ne!(first, read(&request));
    }

    #[test]
    fn what_cannot_be_probed_is_said() {
        let mut request = model("style");
        request.dims.pop();
        let text = Probe::open(&request).unwrap_err().to_string();
        assert!(text.contains("image") && text.contains("width"), "{text}");
        request.model = "no-such-file.onnx".into();
        assert!(matches!(Probe::open(&request), Err(Error::NotFound { .. })));
        let mut probe = Probe::open(&model("style")).unwrap();
        let text = probe.replay().unwrap_err().to_string();
        assert!(text.contains("not opened to be recorded"), "{text}");
    }
}
