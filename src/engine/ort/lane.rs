//! Lanes: tensors that are allocated once and bound once per batch size.
//!
//! A lane owns one block of memory per input and output, large enough for its
//! largest batch. Every batch size binds a prefix of the same blocks, so a run allocates no tensor and copies
//! nothing. Inputs are bound through the C function: the crate's own `bind_input` clones a tensor that does not own
//! its memory, and that clone never returns (it waits for a lock that its caller holds).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::ort::AsPointer;
use ::ort::memory::MemoryInfo;
use ::ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ::ort::value::{DynValueTypeMarker, Shape, TensorRefMut, ValueRefMut};

use super::Shared;
use super::exit::{self, End, Owned};
use super::library::text;
use super::shapes::{self, Share};
use crate::engine::turn::{Halt, Mark};
use crate::engine::{Error, Geometry, Interrupt, Lane, LaneRequest};
use crate::tensor::{DType, TensorMut, TensorRef, f16};

/// A session's state is kept by ONNX Runtime, which a panic on this side does not leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct OrtLane {
    // Bindings hold tensors that point into the blocks below: fields are dropped in order, so they come first.
    /// By chunk, then by size.
    bound: Owned<Vec<Vec<Bound>>>,
    input: Block,
    outputs: Vec<Block>,
    shared: Arc<Shared>,
    geometry: Geometry,
    shares: Vec<Share>,
    /// Sizes of one run, ascending. The last one is a chunk: a larger batch takes several runs.
    sizes: Vec<usize>,
    capacity: usize,
    stop: Arc<Stop>,
}

impl OrtLane {
    pub(super) fn new(shared: Arc<Shared>, request: &LaneRequest) -> Result<Self, Error> {
        let spec = &shared.spec;
        let sizes = shapes::sizes(spec.batch, request.batch);
        let (Some(smallest), Some(chunk)) = (sizes.first().copied(), sizes.last().copied()) else {
            return Err(Error::Setting("a batch of no images".into()));
        };
        let capacity = request.batch.div_ceil(chunk) * chunk;
        let image = shapes::input(spec, request)?;
        let mut input = Block::new(image.dtype, image.len(), capacity)?;
        let stop = Arc::new(Stop::new(Halt::new(shared.turn.clone()))?);
        let mark = stop.halt.mark();
        let _call = exit::enter(Some(stop.clone()))?;

        // What a model does not say about its outputs, it shows.
        input.fill(0..capacity, |_| image.bias[0]);
        let learn = Plain {
            shared: &shared,
            shape: shapes::full(spec, &image, smallest),
            block: &input,
        };
        let learnt = learn.run(&stop, mark)?;
        let shares = shapes::shares(spec, smallest, &learnt)?;
        let geometry = shapes::geometry(spec, image, &shares)?;

        let mut outputs = Vec::new();
        for (port, share) in spec.outputs.iter().zip(&shares) {
            outputs.push(Block::new(port.dtype, share.len(), capacity)?);
        }
        let mut lane = Self {
            bound: Owned::new(Vec::new()),
            input,
            outputs,
            geometry,
            shares,
            sizes,
            capacity,
            stop,
            shared: shared.clone(),
        };
        for first in (0..capacity).step_by(chunk) {
            let sizes = lane.sizes.iter().map(|size| lane.bind(first, *size));
            let bound = sizes.collect::<Result<Vec<_>, _>>()?;
            lane.bound.push(bound);
        }
        lane.warm_up()?;
        // Kernels make static objects as they first run.
        exit::guard();
        Ok(lane)
    }

    /// Runs every size once, on something that is not the picture from which the shapes were learnt.
    fn warm_up(&mut self) -> Result<(), Error> {
        let image = self.geometry.input;
        // Dark and bright next to each other, so that a small picture has both; none at the very top of the range.
        self.input.fill(0..self.capacity, |at| {
            (at * 97 % 251) as f32 * image.scale[0] + image.bias[0]
        });
        let mark = self.stop.halt.mark();
        for at in 0..self.sizes.len() {
            self.run_bound(0, at, mark)?;
        }
        Ok(())
    }

    fn bind(&self, first: usize, size: usize) -> Result<Bound, Error> {
        let session = lock(&self.shared.session);
        let spec = &self.shared.spec;
        let bind = || -> ::ort::Result<Bound> {
            let mut binding = session.create_binding()?;
            let shape = shapes::full(spec, &self.geometry.input, size);
            let input = self.input.value(first, &shape)?;
            for ((port, share), block) in spec.outputs.iter().zip(&self.shares).zip(&self.outputs) {
                binding.bind_output(port.name.as_str(), block.value(first, &share.full(size))?)?;
            }
            // A name that came from the session as a C string has no NUL in it.
            let name = CString::new(spec.inputs[0].name.as_str()).unwrap_or_default();
            let mut bound = Bound { binding, input, name };
            bound.bind_input()?;
            Ok(bound)
        };
        bind().map_err(|error| self.shared.run_error(text(error)))
    }

    /// One run of one chunk.
    fn run_bound(&mut self, chunk: usize, size_at: usize, mark: Mark) -> Result<(), Error> {
        let shared = self.shared.clone();
        let options = self.stop.options();
        let turn = shared.turn.take(&self.stop.halt, mark)?;
        let session = lock(&shared.session);
        let result = self.bound[chunk][size_at].run(&session, &options, shared.on_cpu);
        drop(session);
        drop(turn);
        // The runtime has words of its own for a run that was ended.
        self.stop.halt.check(mark)?;
        result.map_err(|error| self.explain(text(error), chunk, size_at))
    }

    /// When an output did not fit into its tensor, says which one.
    ///
    /// The runtime's wording differs between versions, so any talk of shapes is followed up by a run that shows them;
    /// where that shows nothing, the runtime's own words stand.
    fn explain(&self, reason: String, chunk: usize, size_at: usize) -> Error {
        let size = self.sizes[size_at];
        let spec = &self.shared.spec;
        if reason.to_lowercase().contains("shape") {
            let shape = shapes::full(spec, &self.geometry.input, size);
            let plain = Plain {
                shared: &self.shared,
                shape,
                block: &self.input,
            };
            match plain.run_at(&self.stop, self.stop.halt.mark(), chunk * self.chunk()) {
                Err(Error::Interrupted) => return Error::Interrupted,
                Err(_) => {}
                Ok(now) => {
                    if let Some(error) = shapes::changed(spec, &self.shares, size, &now) {
                        return error;
                    }
                }
            }
        }
        self.shared.run_error(reason)
    }

    fn chunk(&self) -> usize {
        self.sizes.last().copied().unwrap_or(1)
    }
}

impl Lane for OrtLane {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn input(&mut self, slot: usize) -> TensorMut<'_> {
        assert!(slot < self.capacity, "slot {slot} of a batch of {}", self.capacity);
        let (dtype, share) = (self.input.dtype, self.input.share);
        match dtype {
            DType::U8 => TensorMut::U8(self.input.slice_mut(slot * share, share)),
            DType::F16 => TensorMut::F16(self.input.slice_mut(slot * share, share)),
            DType::F32 => TensorMut::F32(self.input.slice_mut(slot * share, share)),
            DType::I32 | DType::I64 => unreachable!("an image of integers does not fit, and was refused"),
        }
    }

    fn run(&mut self, count: usize) -> Result<(), Error> {
        assert!(count <= self.capacity, "{count} images in a batch of {}", self.capacity);
        let mark = self.stop.halt.mark();
        let _call = exit::enter(Some(self.stop.clone()))?;
        let chunk = self.chunk();
        let mut first = 0;
        while first < count {
            let images = chunk.min(count - first);
            let size_at = self.sizes.partition_point(|size| *size < images);
            self.input
                .repeat(first + images - 1, first + images..first + self.sizes[size_at]);
            self.run_bound(first / chunk, size_at, mark)?;
            first += chunk;
        }
        Ok(())
    }

    fn output(&self, port: usize, slot: usize) -> TensorRef<'_> {
        assert!(slot < self.capacity, "slot {slot} of a batch of {}", self.capacity);
        let block = &self.outputs[port];
        let share = block.share;
        match block.dtype {
            DType::U8 => TensorRef::U8(block.slice(slot * share, share)),
            DType::F16 => TensorRef::F16(block.slice(slot * share, share)),
            DType::F32 => TensorRef::F32(block.slice(slot * share, share)),
            DType::I32 => TensorRef::I32(block.slice(slot * share, share)),
            DType::I64 => TensorRef::I64(block.slice(slot * share, share)),
        }
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.stop.clone()
    }
}

/// The tensors of one run, bound to a session.
struct Bound {
    binding: IoBinding,
    /// Points into the lane's input block.
    input: ValueRefMut<'static, DynValueTypeMarker>,
    name: CString,
}

impl Bound {
    fn bind_input(&mut self) -> ::ort::Result<()> {
        // SAFETY: binding, name and value are alive and valid: each is owned by `self` and was made by its own
        // constructor. The binding takes its own reference to the value; the memory behind it belongs to the lane,
        // which drops its bindings first.
        unsafe {
            let status =
                (::ort::api().BindInput)(self.binding.ptr_mut(), self.name.as_ptr(), AsPointer::ptr(&*self.input));
            ::ort::Error::result_from_status(status)
        }
    }

    fn run(&mut self, session: &Session, options: &RunOptions, on_cpu: bool) -> ::ort::Result<()> {
        if !on_cpu {
            // Elsewhere binding is what copies the input to the device.
            self.bind_input()?;
            self.binding.synchronize_inputs()?;
        }
        // SAFETY: all three are alive for the call. The session is the one that the binding was made for, and its lock
        // is held by the caller, so nobody else runs it. Nobody reads or writes the blocks that the bound tensors
        // point into: the caller holds the lane exclusively. The crate's `run_binding` makes the same call and then
        // wraps each output anew, which is all that is left out.
        unsafe {
            let run = ::ort::api().RunWithBinding;
            ::ort::Error::result_from_status(run(session.ptr().cast_mut(), options.ptr(), self.binding.ptr()))
        }
    }
}

/// A run with outputs that the runtime allocates, to see their shapes.
struct Plain<'a> {
    shared: &'a Shared,
    shape: Vec<usize>,
    block: &'a Block,
}

impl Plain<'_> {
    fn run(&self, stop: &Stop, mark: Mark) -> Result<Vec<Vec<usize>>, Error> {
        self.run_at(stop, mark, 0)
    }

    fn run_at(&self, stop: &Stop, mark: Mark, first: usize) -> Result<Vec<Vec<usize>>, Error> {
        let options = stop.options();
        let _turn = self.shared.turn.take(&stop.halt, mark)?;
        let mut session = lock(&self.shared.session);
        let mut run = || -> ::ort::Result<Vec<Vec<usize>>> {
            let input = SessionInputValue::from(self.block.value(first, &self.shape)?);
            let outputs = session.run_with_options([input], &options)?;
            let dims = |name: &str| {
                let shape = outputs.get(name).and_then(|value| value.dtype().tensor_shape());
                shape
                    .map(|shape| shape.iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect())
                    .unwrap_or_default()
            };
            Ok(self.shared.spec.outputs.iter().map(|port| dims(&port.name)).collect())
        };
        let result = run();
        stop.halt.check(mark)?;
        result.map_err(|error| self.shared.run_error(text(error)))
    }
}

/// Ends a lane's runs.
struct Stop {
    halt: Halt,
    /// Those that the run in progress was started with, and later ones will be. Resuming puts new ones here: a run
    /// that was told to end still does.
    options: Mutex<Arc<RunOptions>>,
}

impl Stop {
    fn new(halt: Halt) -> Result<Self, Error> {
        let options = RunOptions::new().map_err(|error| Error::Runtime(text(error)))?;
        Ok(Self {
            halt,
            options: Mutex::new(Arc::new(options)),
        })
    }

    fn options(&self) -> Arc<RunOptions> {
        lock(&self.options).clone()
    }
}

impl Interrupt for Stop {
    fn stop(&self) {
        let options = lock(&self.options);
        self.halt.stop();
        // It sets a flag, and cannot fail. Should it, the run in progress ends later, still as interrupted.
        let _ = options.terminate();
    }

    fn resume(&self) {
        let mut options = lock(&self.options);
        match RunOptions::new() {
            Ok(fresh) => *options = Arc::new(fresh),
            // Then the old ones serve on, at the price that a run in progress may not have noticed.
            Err(_) => drop(options.unterminate()),
        }
        self.halt.resume();
    }
}

impl End for Stop {
    fn end(&self) {
        self.stop();
    }
}

/// Memory of a tensor, for the largest batch: zeroed at first, and where it is until dropped.
struct Block {
    start: NonNull<Line>,
    lines: usize,
    dtype: DType,
    /// Elements of one image's share.
    share: usize,
    /// Elements of all.
    len: usize,
}

/// One cache line, so that blocks begin where vector instructions like it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

// SAFETY: the block is the only owner of its memory, as a Box is; the tensors that point into it are used only by
// runs, for which the lane is held exclusively.
unsafe impl Send for Block {}

impl Block {
    fn new(dtype: DType, share: usize, count: usize) -> Result<Self, Error> {
        let too_large = || {
            Error::Setting(format!(
                "{count} images of {share} elements of {dtype} do not fit into this machine's memory"
            ))
        };
        let len = share.checked_mul(count).ok_or_else(too_large)?;
        let bytes = len.checked_mul(dtype.size()).ok_or_else(too_large)?;
        let lines = bytes.div_ceil(size_of::<Line>()).max(1);
        let mut memory = Vec::new();
        memory.try_reserve_exact(lines).map_err(|_| too_large())?;
        memory.resize(lines, Line([0; 64]));
        let start = NonNull::from(Box::leak(memory.into_boxed_slice())).cast();
        Ok(Self {
            start,
            lines,
            dtype,
            share,
            len,
        })
    }

    /// A tensor of this shape that begins with image number `first`. It must not outlive the block.
    fn value(&self, first: usize, shape: &[usize]) -> ::ort::Result<ValueRefMut<'static, DynValueTypeMarker>> {
        let offset = first * self.share;
        let len: usize = shape.iter().product();
        assert!(
            offset + len <= self.len,
            "a tensor of {len} elements at {offset} of {}",
            self.len
        );
        let shape = Shape::new(shape.iter().map(|n| *n as i64));
        // SAFETY: in bounds, as just asserted, and aligned for every type, being a multiple of its size from a
        // cache line's start. The memory is the processor's, as the default memory information says, and every bit
        // pattern is a value of each of these types. The caller keeps the block for as long as the value.
        unsafe {
            let data = self.start.as_ptr().cast::<u8>().add(offset * self.dtype.size()).cast();
            let info = MemoryInfo::default();
            Ok(match self.dtype {
                DType::U8 => TensorRefMut::<u8>::from_raw(info, data, shape)?.into_dyn(),
                DType::F16 => TensorRefMut::<f16>::from_raw(info, data, shape)?.into_dyn(),
                DType::F32 => TensorRefMut::<f32>::from_raw(info, data, shape)?.into_dyn(),
                DType::I32 => TensorRefMut::<i32>::from_raw(info, data, shape)?.into_dyn(),
                DType::I64 => TensorRefMut::<i64>::from_raw(info, data, shape)?.into_dyn(),
            })
        }
    }

    fn slice<T: Plainly>(&self, first: usize, len: usize) -> &[T] {
        self.check::<T>(first, len);
        // SAFETY: in bounds and of the right type, as just checked; nobody writes while the block is borrowed, since
        // runs hold the lane exclusively.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<T>().add(first), len) }
    }

    fn slice_mut<T: Plainly>(&mut self, first: usize, len: usize) -> &mut [T] {
        self.check::<T>(first, len);
        // SAFETY: as in `slice`, and the block is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast::<T>().add(first), len) }
    }

    fn check<T: Plainly>(&self, first: usize, len: usize) {
        assert!(T::DTYPE == self.dtype, "{} read as {}", self.dtype, T::DTYPE);
        assert!(
            first.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} elements at {first} of {}",
            self.len
        );
    }

    /// Copies image `from` to each slot of `to`.
    fn repeat(&mut self, from: usize, to: std::ops::Range<usize>) {
        let bytes = self.share * self.dtype.size();
        let whole = self.len * self.dtype.size();
        // SAFETY: the whole block as bytes, borrowed exclusively.
        let all = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast::<u8>(), whole) };
        for slot in to {
            all.copy_within(from * bytes..(from + 1) * bytes, slot * bytes);
        }
    }

    /// Sets the elements of these slots, each from its number within its image.
    fn fill(&mut self, slots: std::ops::Range<usize>, value: impl Fn(usize) -> f32) {
        use crate::tensor::image::Element as _;

        let share = self.share;
        let (first, len) = (slots.start * share, slots.len() * share);
        let each = (0..len).map(|at| value(at % share.max(1)));
        match self.dtype {
            DType::U8 => self
                .slice_mut(first, len)
                .iter_mut()
                .zip(each)
                .for_each(|(to, v)| *to = u8::from_f32(v)),
            DType::F16 => self
                .slice_mut(first, len)
                .iter_mut()
                .zip(each)
                .for_each(|(to, v)| *to = f16::from_f32(v)),
            DType::F32 => self
                .slice_mut(first, len)
                .iter_mut()
                .zip(each)
                .for_each(|(to, v)| *to = v),
            DType::I32 | DType::I64 => {}
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.lines);
        // SAFETY: it was leaked from a box of this length in `new`, and nobody else frees it.
        drop(unsafe { Box::from_raw(memory) });
    }
}

/// Element types of which every bit pattern is a value.
trait Plainly: Copy {
    const DTYPE: DType;
}

macro_rules! plainly {
    ($($ty:ty: $dtype:ident),*) => { $(impl Plainly for $ty { const DTYPE: DType = DType::$dtype; })* };
}
plainly!(u8: U8, f16: F16, f32: F32, i32: I32, i64: I64);
