//! Lanes: tensors that are allocated once and bound once per batch size.
//!
//! A lane owns one block of memory per input and output, large enough for its
//! largest batch. Every batch size binds a prefix of the same blocks, so a run allocates no tensor and copies
//! nothing. Inputs are bound through the C function: the crate's own `bind_input` clones a tensor that does not own
//! its memory, and that clone never returns (it waits for a lock that its caller holds).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::ort::AsPointer;
use ::ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ::ort::value::{DynValueTypeMarker, ValueRefMut};

use super::Shared;
use super::block::Block;
use super::exit::{self, End, Owned};
use super::library::text;
use super::shapes::{self, Share, Sizes};
use crate::engine::turn::{Halt, Mark};
use crate::engine::{Error, Geometry, Interrupt, Lane, LaneRequest};
use crate::tensor::{DType, ImageTensor, TensorMut, TensorRef};

/// A session's state is kept by ONNX Runtime, which a panic on this side does not leave half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    sizes: Sizes,
    stop: Arc<Stop>,
}

impl OrtLane {
    pub(super) fn new(shared: Arc<Shared>, request: &LaneRequest) -> Result<Self, Error> {
        let spec = &shared.spec;
        let sizes = Sizes::new(spec.batch, request.batch)?;
        let capacity = sizes.capacity;
        let image = shapes::input(spec, request)?;
        let mut input = Block::new(image.dtype, image.len(), capacity)?;
        let stop = Arc::new(Stop::new(Halt::new(shared.turn.clone()))?);
        let _call = exit::enter(Some(stop.clone()))?;

        let (shares, geometry) = learn(&shared, &image, sizes.smallest(), &mut input, &stop)?;

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
            stop,
            shared: shared.clone(),
        };
        for first in lane.sizes.begins(capacity) {
            let sizes = lane.sizes.each().iter().map(|size| lane.bind(first, *size));
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
        self.input.fill(0..self.sizes.capacity, |at| {
            (at * 97 % 251) as f32 * image.scale[0] + image.bias[0]
        });
        let mark = self.stop.halt.mark();
        for at in 0..self.sizes.each().len() {
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
        let size = self.sizes.each()[size_at];
        let spec = &self.shared.spec;
        if reason.to_lowercase().contains("shape") {
            let shape = shapes::full(spec, &self.geometry.input, size);
            let plain = Plain {
                shared: &self.shared,
                shape,
                block: &self.input,
            };
            match plain.run_at(&self.stop, self.stop.halt.mark(), chunk * self.sizes.chunk()) {
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
}

impl Lane for OrtLane {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn input(&mut self, slot: usize) -> TensorMut<'_> {
        assert!(
            slot < self.sizes.capacity,
            "slot {slot} of a batch of {}",
            self.sizes.capacity
        );
        let (dtype, share) = (self.input.dtype, self.input.share);
        match dtype {
            DType::U8 => TensorMut::U8(self.input.slice_mut(slot * share, share)),
            DType::F16 => TensorMut::F16(self.input.slice_mut(slot * share, share)),
            DType::F32 => TensorMut::F32(self.input.slice_mut(slot * share, share)),
            DType::I32 | DType::I64 => unreachable!("an image of integers does not fit, and was refused"),
        }
    }

    fn run(&mut self, count: usize) -> Result<(), Error> {
        assert!(
            count <= self.sizes.capacity,
            "{count} images in a batch of {}",
            self.sizes.capacity
        );
        let mark = self.stop.halt.mark();
        let _call = exit::enter(Some(self.stop.clone()))?;
        for first in self.sizes.begins(count) {
            let (chunk, images, size_at) = self.sizes.run(first, count);
            let end = first + self.sizes.each()[size_at];
            self.input.repeat(first + images - 1, first + images..end);
            self.run_bound(chunk, size_at, mark)?;
        }
        Ok(())
    }

    fn output(&self, port: usize, slot: usize) -> TensorRef<'_> {
        assert!(
            slot < self.sizes.capacity,
            "slot {slot} of a batch of {}",
            self.sizes.capacity
        );
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
pub(super) struct Bound {
    pub(super) binding: IoBinding,
    /// Points into the lane's input tensor.
    pub(super) input: ValueRefMut<'static, DynValueTypeMarker>,
    pub(super) name: CString,
}

impl Bound {
    pub(super) fn bind_input(&mut self) -> ::ort::Result<()> {
        // SAFETY: binding, name and value are alive and valid: each is owned by `self` and was made by its own
        // constructor. The binding takes its own reference to the value; the memory behind it belongs to the lane,
        // which drops its bindings first.
        unsafe {
            let status =
                (::ort::api().BindInput)(self.binding.ptr_mut(), self.name.as_ptr(), AsPointer::ptr(&*self.input));
            ::ort::Error::result_from_status(status)
        }
    }

    pub(super) fn run(&mut self, session: &Session, options: &RunOptions, on_cpu: bool) -> ::ort::Result<()> {
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

/// What a model does not say about its outputs, it shows: in a run of so many plain pictures, for which `block` has room.
pub(super) fn learn(
    shared: &Shared,
    image: &ImageTensor,
    size: usize,
    block: &mut Block,
    stop: &Stop,
) -> Result<(Vec<Share>, Geometry), Error> {
    let spec = &shared.spec;
    block.fill(0..size, |_| image.bias[0]);
    let shape = shapes::full(spec, image, size);
    let learnt = Plain { shared, shape, block }.run(stop, stop.halt.mark())?;
    let shares = shapes::shares(spec, size, &learnt)?;
    let geometry = shapes::geometry(spec, *image, &shares)?;
    Ok((shares, geometry))
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
pub(super) struct Stop {
    pub(super) halt: Halt,
    /// Those that the run in progress was started with, and later ones will be. Resuming puts new ones here: a run
    /// that was told to end still does.
    options: Mutex<Arc<RunOptions>>,
}

impl Stop {
    pub(super) fn new(halt: Halt) -> Result<Self, Error> {
        let options = fresh().map_err(|error| Error::Runtime(text(error)))?;
        Ok(Self {
            halt,
            options: Mutex::new(Arc::new(options)),
        })
    }

    fn options(&self) -> Arc<RunOptions> {
        lock(&self.options).clone()
    }
}

/// Options of a plain run, also in a session that can record: without a word it would, by itself.
fn fresh() -> ::ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("gpu_graph_id", "-1")?;
    Ok(options)
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
        match fresh() {
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
