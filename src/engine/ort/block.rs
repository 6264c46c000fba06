//! Tensors in main memory, where they are until dropped.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ::ort::memory::MemoryInfo;
use ::ort::value::{DynValueTypeMarker, Shape, TensorRefMut, ValueRefMut};

use crate::engine::Error;
use crate::tensor::{DType, f16};

/// Memory of a tensor, for the largest batch: zeroed at first, and where it is until dropped.
pub(super) struct Block {
    start: NonNull<Line>,
    lines: usize,
    pub(super) dtype: DType,
    /// Elements of one image's share.
    pub(super) share: usize,
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
    pub(super) fn new(dtype: DType, share: usize, count: usize) -> Result<Self, Error> {
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
    pub(super) fn value(
        &self,
        first: usize,
        shape: &[usize],
    ) -> ::ort::Result<ValueRefMut<'static, DynValueTypeMarker>> {
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

    pub(super) fn slice<T: Plainly>(&self, first: usize, len: usize) -> &[T] {
        self.check::<T>(first, len);
        // SAFETY: in bounds and of the right type, as just checked; nobody writes while the block is borrowed, since
        // runs hold the lane exclusively.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<T>().add(first), len) }
    }

    pub(super) fn slice_mut<T: Plainly>(&mut self, first: usize, len: usize) -> &mut [T] {
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

    /// The first so many bytes.
    #[cfg(feature = "cuda")]
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.len * self.dtype.size(), "{len} bytes of {}", self.len);
        // SAFETY: in bounds, as just asserted, and initialised; nobody writes while the block is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), len) }
    }

    /// Copies image `from` to each slot of `to`.
    pub(super) fn repeat(&mut self, from: usize, to: std::ops::Range<usize>) {
        let bytes = self.share * self.dtype.size();
        let whole = self.len * self.dtype.size();
        // SAFETY: the whole block as bytes, borrowed exclusively.
        let all = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast::<u8>(), whole) };
        for slot in to {
            all.copy_within(from * bytes..(from + 1) * bytes, slot * bytes);
        }
    }

    /// Sets the elements of these slots, each from its number within its image.
    pub(super) fn fill(&mut self, slots: std::ops::Range<usize>, value: impl Fn(usize) -> f32) {
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
pub(super) trait Plainly: Copy {
    const DTYPE: DType;
}

macro_rules! plainly {
    ($($ty:ty: $dtype:ident),*) => { $(impl Plainly for $ty { const DTYPE: DType = DType::$dtype; })* };
}
plainly!(u8: U8, f16: F16, f32: F32, i32: I32, i64: I64);
