//! Lanes whose tensors are on a GPU, bound once per batch size at addresses that never change.
//!
//! The session runs on a stream of ours, behind the kernels that fill its input, and nobody waits for it before the
//! outputs are asked for. Where the provider can record a run as a CUDA graph, it is believed only after a test:
//! graphs that replay their first picture for ever are a known fault. It keeps what it records by thread, and would
//! record anew on another one, in the middle of a stream, while others allocate: so only the thread that made a lane
//! replays, and on any other the lane runs plainly.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use ::ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ::ort::session::RunOptions;
use ::ort::value::{DynValueTypeMarker, Shape, TensorRefMut, ValueRefMut};

use super::Shared;
use super::block::Block;
use super::exit::{self, Owned};
use super::lane::{Bound, Stop, learn, lock};
use super::library::text;
use super::shapes::{self, Share, Sizes};
use crate::cuda::{Device, DeviceBuffer, Pinned, Stream};
use crate::engine::device::{DeviceLane, Graphs, Report, Source, Target};
use crate::engine::frames::{Frames, failed};
use crate::engine::turn::Halt;
use crate::engine::{Error, Geometry, Interrupt, LaneRequest};
use crate::tensor::{DType, ImageSpec, TensorRef, Written, f16};

/// The GPU's side of a session.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) device: Arc<Device>,
    /// The session's work is queued here.
    pub(super) compute: Stream,
    /// Whether the session was opened so that its runs can be recorded.
    pub(super) can_record: bool,
    /// Where the tensors of this device are to the runtime.
    pub(super) reach: Reach,
    graphs: AtomicU8,
}

/// How the runtime reaches the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By the address, through a provider that runs there.
    Device,
    /// The simulated device's memory is this far from its addresses, and the processor runs the model.
    #[cfg(feature = "sim")]
    Shadow(usize),
}

impl Side {
    /// The GPU of this number, with a stream for a session, or why there is none.
    pub(super) fn open(ordinal: u32, reach: Reach) -> Result<Self, String> {
        let open = || -> Result<Self, crate::cuda::Error> {
            let device = Device::open(ordinal as usize)?;
            Ok(Self {
                compute: Stream::new(&device)?,
                device,
                can_record: false,
                reach,
                graphs: AtomicU8::new(UNKNOWN),
            })
        };
        open().map_err(|error| error.to_string())
    }

    /// The stream of the session's work, as ONNX Runtime wants it.
    pub(super) fn stream(&self) -> *mut () {
        self.compute.raw() as *mut ()
    }
}

/// What is known of graphs, once per engine.
const UNKNOWN: u8 = 0;
const RIGHT: u8 = 1;
const WRONG: u8 = 2;

pub(super) struct OrtDeviceLane {
    // Bindings hold tensors that point into the memory below: fields are dropped in order, so they come first.
    /// By chunk, then by size.
    bound: Owned<Vec<Vec<Run>>>,
    frames: Frames,
    input: DeviceBuffer,
    outputs: Vec<DeviceBuffer>,
    /// In main memory, for the outputs that are no picture.
    tensors: Vec<Option<Pinned>>,
    shared: Arc<Shared>,
    geometry: Geometry,
    shares: Vec<Share>,
    sizes: Sizes,
    stop: Arc<Stop>,
    graphs: Graphs,
    /// The thread that has recorded.
    thread: ThreadId,
}

/// One batch size at one place, and what its runs are started with.
struct Run {
    bound: Bound,
    /// Without recording, and with.
    plain: RunOptions,
    recorded: Option<RunOptions>,
}

#[cfg(test)]
thread_local! {
    /// On this thread recordings replay their first picture for ever.
    pub(super) static STUCK: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Numbers graphs over all lanes of all sessions: the provider keeps them by number.
static GRAPHS: Mutex<u32> = Mutex::new(1);

fn numbers() -> MutexGuard<'static, u32> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OrtDeviceLane {
    pub(super) fn new(shared: Arc<Shared>, request: &LaneRequest) -> Result<Self, Error> {
        let spec = &shared.spec;
        let side = shared.side.as_ref().ok_or_else(|| no_side(&shared))?;
        let device = &side.device;
        let on_device = |error: crate::cuda::Error| failed(&spec.name, &error);
        let sizes = Sizes::new(spec.batch, request.batch)?;
        let (smallest, capacity) = (sizes.smallest(), sizes.capacity);
        let image = shapes::input(spec, request)?;
        let stop = Arc::new(Stop::new(Halt::new(shared.turn.clone()))?);
        let _call = exit::enter(Some(stop.clone()))?;
        let mut sample = Block::new(image.dtype, image.len(), smallest)?;
        let (shares, geometry) = learn(&shared, &image, smallest, &mut sample, &stop)?;

        let room = |dtype: DType, share: usize| {
            let bytes = share.checked_mul(capacity).and_then(|n| n.checked_mul(dtype.size()));
            let bytes = bytes.ok_or_else(|| Error::Setting(format!("{capacity} images do not fit into any memory")))?;
            DeviceBuffer::new(device, bytes).map_err(on_device)
        };
        let input = room(image.dtype, image.len())?;
        let mut outputs = Vec::new();
        let mut tensors = Vec::new();
        for (at, (port, share)) in spec.outputs.iter().zip(&shares).enumerate() {
            let output = room(port.dtype, share.len())?;
            let is_picture = geometry.output.is_some_and(|(picture, _)| picture == at);
            let host = (!is_picture).then(|| Pinned::for_download(device, output.len()));
            tensors.push(host.transpose().map_err(on_device)?);
            outputs.push(output);
        }
        let frames = Frames::new(
            &spec.name,
            device,
            &LaneRequest {
                batch: capacity,
                ..*request
            },
        )?;
        let mut lane = Self {
            bound: Owned::new(Vec::new()),
            frames,
            input,
            outputs,
            tensors,
            geometry,
            shares,
            sizes,
            stop,
            graphs: Graphs::Off("the provider does not record runs"),
            thread: std::thread::current().id(),
            shared: shared.clone(),
        };
        for first in lane.sizes.begins(capacity) {
            let sizes = lane.sizes.each().iter().map(|size| lane.bind(first, *size));
            let bound = sizes.collect::<Result<Vec<_>, _>>()?;
            lane.bound.push(bound);
        }
        lane.warm_up()?;
        exit::guard();
        Ok(lane)
    }

    fn side(&self) -> &Side {
        self.shared
            .side
            .as_ref()
            .expect("a lane is made only where there is one")
    }

    fn bind(&self, first: usize, size: usize) -> Result<Run, Error> {
        let session = lock(&self.shared.session);
        let spec = &self.shared.spec;
        let side = self.side();
        let bind = || -> ::ort::Result<Run> {
            let mut binding = session.create_binding()?;
            let image = &self.geometry.input;
            let at = |buffer: &DeviceBuffer, dtype: DType, share: usize| {
                buffer.address() + (first * share * dtype.size()) as u64
            };
            let input = value(
                side,
                at(&self.input, image.dtype, image.len()),
                image.dtype,
                &shapes::full(spec, image, size),
            )?;
            for ((port, share), buffer) in spec.outputs.iter().zip(&self.shares).zip(&self.outputs) {
                let address = at(buffer, port.dtype, share.len());
                binding.bind_output(port.name.as_str(), value(side, address, port.dtype, &share.full(size))?)?;
            }
            // A name that came from the session as a C string has no NUL in it.
            let name = CString::new(spec.inputs[0].name.as_str()).unwrap_or_default();
            let mut bound = Bound { binding, input, name };
            bound.bind_input()?;
            // A later chunk is short only at the end of a batch, and then runs plainly.
            let recorded = match side.can_record && (first == 0 || size == self.sizes.chunk()) {
                true => {
                    let mut number = numbers();
                    *number += 1;
                    Some(options(Some(*number))?)
                }
                false => None,
            };
            Ok(Run {
                bound,
                plain: options(None)?,
                recorded,
            })
        };
        bind().map_err(|error| self.shared.run_error(text(error)))
    }

    /// Runs every size once, and finds out about graphs.
    fn warm_up(&mut self) -> Result<(), Error> {
        let first = self.pattern(97)?;
        for at in 0..self.sizes.each().len() {
            self.put(&first, at)?;
            self.run_size(0, at, false)?;
        }
        if !self.side().can_record {
            return Ok(());
        }
        if self.side().graphs.load(Ordering::Acquire) != WRONG {
            // Recording may fail where plain runs do not: while it goes on nobody else may allocate.
            let right = self.graphs_are_right(&first).unwrap_or(false);
            let word = if right { RIGHT } else { WRONG };
            self.side().graphs.store(word, Ordering::Release);
            if !right {
                self.put(&first, 0)?;
                self.run_size(0, 0, false)?;
            }
        }
        self.graphs = match self.side().graphs.load(Ordering::Acquire) {
            RIGHT => Graphs::On,
            _ => Graphs::Off("recorded runs failed, or gave other results than plain ones"),
        };
        Ok(())
    }

    /// Records every size, and compares recorded runs with plain ones on two inputs that the model tells apart.
    fn graphs_are_right(&mut self, first: &Block) -> Result<bool, Error> {
        let second = self.pattern(89)?;
        for chunk in 0..self.bound.len() {
            for at in 0..self.sizes.each().len() {
                if self.bound[chunk][at].recorded.is_none() {
                    continue;
                }
                let mut plain = Vec::new();
                for input in [first, &second] {
                    self.put_at(input, chunk, at)?;
                    self.run_size(chunk, at, false)?;
                    plain.push(self.results()?);
                }
                // The provider runs plainly before it records: the later ones are replays.
                for (input, expected) in [(first, 0), (first, 0), (first, 0), (&second, 1), (first, 0)] {
                    self.put_at(input, chunk, at)?;
                    self.run_size(chunk, at, true)?;
                    if self.results()? != plain[expected] {
                        return Ok(false);
                    }
                }
                if plain[0] == plain[1] {
                    // The test has shown nothing.
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// One image's worth of numbers in the model's range, dark and bright next to each other.
    fn pattern(&self, step: usize) -> Result<Block, Error> {
        let image = self.geometry.input;
        let largest = self.sizes.chunk();
        let mut block = Block::new(image.dtype, image.len(), largest)?;
        block.fill(0..largest, |at| {
            (at * step % 251) as f32 * image.scale[0] + image.bias[0]
        });
        Ok(block)
    }

    fn put(&mut self, pattern: &Block, size_at: usize) -> Result<(), Error> {
        self.put_at(pattern, 0, size_at)
    }

    /// Brings a pattern into the input tensor, at set-up only: it allocates.
    fn put_at(&mut self, pattern: &Block, chunk: usize, size_at: usize) -> Result<(), Error> {
        let image = self.geometry.input;
        let share = image.len() * image.dtype.size();
        let bytes = share * self.sizes.each()[size_at];
        let address = self.input.address() + (chunk * self.sizes.chunk() * share) as u64;
        let stream = self.frames.stream();
        let put = || -> Result<(), crate::cuda::Error> {
            let mut host = Pinned::for_upload(stream.device(), bytes)?;
            host.as_mut_slice().copy_from_slice(pattern.bytes(bytes));
            stream.upload(&host, 0..bytes, address)?;
            stream.synchronize()
        };
        put().map_err(|error| failed(&self.shared.spec.name, &error))
    }

    /// Every output as bytes.
    fn results(&self) -> Result<Vec<Vec<u8>>, Error> {
        let name = &self.shared.spec.name;
        let side = self.side();
        let bring = |output: &DeviceBuffer| -> Result<Vec<u8>, crate::cuda::Error> {
            let stream = self.frames.stream();
            let mut host = Pinned::for_download(stream.device(), output.len())?;
            side.compute.synchronize()?;
            stream.download(output.address(), &mut host, 0..output.len())?;
            stream.synchronize()?;
            Ok(host.as_slice().to_vec())
        };
        let results = self.outputs.iter().map(bring);
        results.collect::<Result<_, _>>().map_err(|error| failed(name, &error))
    }

    /// Queues one run, by itself.
    fn run_size(&mut self, chunk: usize, size_at: usize, recorded: bool) -> Result<(), Error> {
        let mark = self.stop.halt.mark();
        let shared = self.shared.clone();
        let turn = shared.turn.take(&self.stop.halt, mark)?;
        let session = lock(&shared.session);
        let side = shared.side.as_ref().expect("as in `side`");
        side.settle().map_err(|error| failed(&shared.spec.name, &error))?;
        let run = &mut self.bound[chunk][size_at];
        let options = match &run.recorded {
            Some(options) if recorded => options,
            _ => &run.plain,
        };
        #[cfg(test)]
        if recorded && STUCK.get() {
            return Ok(());
        }
        let result = run.bound.run(&session, options, true);
        drop(session);
        drop(turn);
        self.stop.halt.check(mark)?;
        result.map_err(|error| shared.run_error(text(error)))
    }
}

impl Side {
    /// Before the processor runs what the device was to run, what was queued for it has to be there.
    fn settle(&self) -> Result<(), crate::cuda::Error> {
        match self.reach {
            Reach::Device => Ok(()),
            #[cfg(feature = "sim")]
            Reach::Shadow(_) => self.compute.synchronize(),
        }
    }
}

fn options(graph: Option<u32>) -> ::ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.disable_device_sync()?;
    let number = graph.map_or_else(|| "-1".to_owned(), |number| number.to_string());
    options.set("gpu_graph_id", number)?;
    Ok(options)
}

/// A tensor at this address. It must not outlive the memory there.
fn value(
    side: &Side,
    address: u64,
    dtype: DType,
    shape: &[usize],
) -> ::ort::Result<ValueRefMut<'static, DynValueTypeMarker>> {
    let shape = Shape::new(shape.iter().map(|n| *n as i64));
    let ordinal = i32::try_from(side.device.ordinal()).unwrap_or(i32::MAX);
    let (info, address) = match side.reach {
        Reach::Device => {
            let info = MemoryInfo::new(
                AllocationDevice::CUDA,
                ordinal,
                AllocatorType::Device,
                MemoryType::Default,
            )?;
            (info, address as usize)
        }
        #[cfg(feature = "sim")]
        Reach::Shadow(offset) => (MemoryInfo::default(), address as usize + offset),
    };
    let data = address as *mut std::ffi::c_void;
    // SAFETY: the caller says where, and keeps it for as long as the value. Device memory is aligned for every type,
    // and every bit pattern is a value of each of them.
    unsafe {
        Ok(match dtype {
            DType::U8 => TensorRefMut::<u8>::from_raw(info, data, shape)?.into_dyn(),
            DType::F16 => TensorRefMut::<f16>::from_raw(info, data, shape)?.into_dyn(),
            DType::F32 => TensorRefMut::<f32>::from_raw(info, data, shape)?.into_dyn(),
            DType::I32 => TensorRefMut::<i32>::from_raw(info, data, shape)?.into_dyn(),
            DType::I64 => TensorRefMut::<i64>::from_raw(info, data, shape)?.into_dyn(),
        })
    }
}

fn no_side(shared: &Shared) -> Error {
    shared.run_error("it does not run on a GPU, and frames in a GPU's memory were to be given to it".into())
}

impl DeviceLane for OrtDeviceLane {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn load(&mut self, spec: &ImageSpec, frames: &[Source<'_>]) -> Result<(), Error> {
        assert!(
            frames.len() <= self.sizes.capacity,
            "{} frames in a batch of {}",
            frames.len(),
            self.sizes.capacity
        );
        let filled = self.sizes.filled(frames.len());
        let (tensor, address) = (self.geometry.input, self.input.address());
        self.frames.load(spec, frames, &tensor, address, filled)
    }

    fn run(&mut self, count: usize) -> Result<(), Error> {
        assert!(
            count <= self.sizes.capacity,
            "{count} images in a batch of {}",
            self.sizes.capacity
        );
        let _call = exit::enter(Some(self.stop.clone()))?;
        let recorded = self.graphs == Graphs::On && self.thread == std::thread::current().id();
        let shared = self.shared.clone();
        let side = shared.side.as_ref().expect("as in `side`");
        self.frames.before(&side.compute)?;
        let mut done = Ok(());
        for first in self.sizes.begins(count) {
            let (chunk, _, size_at) = self.sizes.run(first, count);
            done = self.run_size(chunk, size_at, recorded);
            if done.is_err() {
                break;
            }
        }
        // Also behind a run that failed: some of it may be at work.
        self.frames.after(&side.compute)?;
        done
    }

    fn wait(&mut self) -> Result<(), Error> {
        self.frames.wait()
    }

    fn store(&mut self, spec: &ImageSpec, frames: &mut [Target<'_>]) -> Result<Written, Error> {
        self.bring_tensors()?;
        let Some((port, tensor)) = self.geometry.output else {
            return Ok(Written::default());
        };
        let address = self.outputs[port].address();
        self.frames.store(spec, frames, &tensor, address)
    }

    fn output(&self, port: usize, slot: usize) -> TensorRef<'_> {
        assert!(
            slot < self.sizes.capacity,
            "slot {slot} of a batch of {}",
            self.sizes.capacity
        );
        let share = self.shares[port].len();
        let dtype = self.shared.spec.outputs[port].dtype;
        let memory = self.tensors[port].as_ref().expect("pictures are stored, not read");
        let bytes = &memory.as_slice()[slot * share * dtype.size()..][..share * dtype.size()];
        elements(dtype, bytes)
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.stop.clone()
    }

    fn report(&self) -> Report {
        Report {
            graphs: self.graphs,
            crossings: self.frames.crossings(),
        }
    }
}

impl OrtDeviceLane {
    fn bring_tensors(&mut self) -> Result<(), Error> {
        let name = self.shared.spec.name.clone();
        let mut any = false;
        for (host, output) in self.tensors.iter_mut().zip(&self.outputs) {
            let Some(host) = host else { continue };
            any = true;
            let len = output.len();
            let brought = self.frames.stream().download(output.address(), host, 0..len);
            brought.map_err(|error| failed(&name, &error))?;
        }
        match any {
            true => self
                .frames
                .stream()
                .synchronize()
                .map_err(|error| failed(&name, &error)),
            false => Ok(()),
        }
    }
}

/// Bytes as the elements that they are.
fn elements(dtype: DType, bytes: &[u8]) -> TensorRef<'_> {
    // SAFETY: every bit pattern is a value of each of these types. Page-locked memory begins at a page, and a share of
    // it at a multiple of the element's size, so nothing is cut off at either end.
    unsafe {
        match dtype {
            DType::U8 => TensorRef::U8(bytes),
            DType::F16 => TensorRef::F16(bytes.align_to().1),
            DType::F32 => TensorRef::F32(bytes.align_to().1),
            DType::I32 => TensorRef::I32(bytes.align_to().1),
            DType::I64 => TensorRef::I64(bytes.align_to().1),
        }
    }
}
