//! The conversions of [`crate::tensor::convert`] on the device.
//!
//! The kernels are in `frames.cu`, one source for the device and for the simulated driver of the tests; `frames.ptx` is
//! made of it by a test (`src/cuda/tests/ptx.rs`) and travels in the binary. A batch is one launch: the frames come as
//! a table in the launch's parameters, so that nothing is gathered first.

mod job;

use std::ffi::{CStr, CString};
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUfunction, CUmodule, CUresult};

use super::{Error, Stream, check};
use crate::tensor::convert::{check_same_size, check_spec, check_tensor};
use crate::tensor::{DType, DeviceImage, Fit, ImageSpec, ImageTensor, PixelFormat};
pub(super) use job::{FRAMES, FromJob, IntoJob, InvertJob, PIXELS};

/// For compute capability 7.5 and newer, by any driver that knows PTX 8.2: 535 and newer.
pub(super) const PTX: &str = include_str!("frames.ptx");
pub(super) const ENTRIES: [&CStr; 3] = [c"frames_into", c"frames_from", c"invert"];

/// Frames on the device, all of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    /// What their bytes mean.
    pub spec: &'a ImageSpec,
    /// Where they are. Their streams are not looked at: wait for them first.
    pub images: &'a [DeviceImage],
}

/// A batch of image tensors on the device, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTensor {
    /// What one looks like.
    pub image: ImageTensor,
    /// The first one's first element.
    pub address: u64,
    /// How many there are.
    pub slots: usize,
}

/// Frames that are mixed into what a tensor becomes.
#[derive(Debug, Clone, Copy)]
pub struct Blend<'a> {
    /// As many as there are frames to write, of the same description. They may be the same frames.
    pub sources: &'a [DeviceImage],
    /// Their share, 0 to 1. See [`crate::tensor::convert::blend`].
    pub share: f32,
}

/// The kernels, loaded for one device. See [`super::Device::kernels`].
#[derive(Debug)]
pub struct Kernels {
    module: CUmodule,
    into: CUfunction,
    from: CUfunction,
    invert: CUfunction,
    ordinal: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the handles are the driver's, which lets every thread use them.
unsafe impl Send for Kernels {}
// SAFETY: as above; launching changes nothing here.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads them into the current context, which is this one.
    pub(super) fn load(
        context: &Arc<CudaContext>,
        ordinal: usize,
        architecture: (u32, u32),
        driver_version: (u32, u32),
    ) -> Result<Kernels, Error> {
        let unsupported = |reason: String| Error::Unsupported {
            device: ordinal,
            reason,
        };
        if architecture < (7, 5) {
            let (major, minor) = architecture;
            return Err(unsupported(format!(
                "its architecture is {major}.{minor}, and they are made for 7.5 (Turing) and newer"
            )));
        }
        // The driver reads to a zero.
        let text = CString::new(PTX).map_err(|error| unsupported(format!("their text is damaged: {error}")))?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the text ends with a zero and is only read; the handle is written to a local variable.
        let answer = unsafe { sys::cuModuleLoadData(&mut module, text.as_ptr().cast()) };
        if answer == CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION {
            let (major, minor) = driver_version;
            return Err(unsupported(format!(
                "its driver is one of CUDA {major}.{minor}: install driver 535 (CUDA 12.2) or newer"
            )));
        }
        check(ordinal, "loading the kernels", answer)?;
        let mut kernels = Kernels {
            module,
            into: std::ptr::null_mut(),
            from: std::ptr::null_mut(),
            invert: std::ptr::null_mut(),
            ordinal,
            context: context.clone(),
        };
        let functions = [&mut kernels.into, &mut kernels.from, &mut kernels.invert];
        for (function, name) in functions.into_iter().zip(ENTRIES) {
            // SAFETY: the module was just loaded, and the name ends with a zero.
            let answer = unsafe { sys::cuModuleGetFunction(function, module, name.as_ptr()) };
            check(ordinal, "finding a kernel", answer)?;
        }
        Ok(kernels)
    }

    /// Queues the conversion of frames into the first slots of a tensor. The slots behind them, if any, are filled with
    /// the last frame again: a model would stumble over what they happen to hold.
    pub fn into_tensor(
        &self,
        stream: &Stream,
        frames: Frames<'_>,
        tensor: &DeviceTensor,
        fit: Fit,
    ) -> Result<(), Error> {
        let what = "converting frames into a tensor";
        check_frames(what, &frames)?;
        check_batch(what, tensor, frames.images.len())?;
        let Some(last) = frames.images.last() else {
            return Ok(());
        };
        for first in (0..tensor.slots).step_by(FRAMES) {
            let count = FRAMES.min(tensor.slots - first);
            let images = (first..first + count).map(|slot| frames.images.get(slot).unwrap_or(last));
            let job = IntoJob::new(frames.spec, images, tensor, first, fit);
            let grid = [
                tensor.image.width.div_ceil(BLOCK[0] as usize * PIXELS),
                tensor.image.height.div_ceil(BLOCK[1] as usize),
                count,
            ];
            self.launch(stream, self.into, grid, BLOCK, &job)?;
        }
        Ok(())
    }

    /// Queues the conversion of a tensor's first images into as many frames of the same size. Numbers that are not
    /// finite are added to the 32 bits at `counter`, a multiple of 4, which somebody has set to 0.
    pub fn from_tensor(
        &self,
        stream: &Stream,
        tensor: &DeviceTensor,
        frames: Frames<'_>,
        blend: Option<Blend<'_>>,
        counter: u64,
    ) -> Result<(), Error> {
        let what = "converting a tensor into frames";
        check_frames(what, &frames)?;
        check_batch(what, tensor, frames.images.len())?;
        check_same_size(&tensor.image, frames.spec)?;
        let argument = |reason: String| Err(Error::Argument { what, reason });
        if counter == 0 || !counter.is_multiple_of(4) {
            return argument(format!("the counter cannot be at {counter:#x}"));
        }
        if let Some(blend) = &blend {
            check_frames(
                "mixing frames",
                &Frames {
                    images: blend.sources,
                    ..frames
                },
            )?;
            if blend.sources.len() != frames.images.len() || !(0.0..=1.0).contains(&blend.share) {
                let (sources, frames, share) = (blend.sources.len(), frames.images.len(), blend.share);
                return argument(format!("{sources} sources with a share of {share} for {frames} frames"));
            }
        }
        for first in (0..frames.images.len()).step_by(FRAMES) {
            let end = (first + FRAMES).min(frames.images.len());
            let sources = blend.as_ref().map_or(&[][..], |blend| &blend.sources[first..end]);
            let share = blend.as_ref().map_or(0.0, |blend| blend.share);
            let job = FromJob::new(
                frames.spec,
                &frames.images[first..end],
                tensor,
                first,
                (sources, share),
                counter,
            );
            let grid = [
                frames.spec.width.div_ceil(2).div_ceil(BLOCK[0] as usize),
                frames.spec.height.div_ceil(2).div_ceil(BLOCK[1] as usize),
                end - first,
            ];
            self.launch(stream, self.from, grid, BLOCK, &job)?;
        }
        Ok(())
    }

    /// Queues 255 - x of bytes, or 1 - x of f16 or f32, for `count` elements.
    pub fn invert(&self, stream: &Stream, dtype: DType, from: u64, to: u64, count: usize) -> Result<(), Error> {
        let what = "inverting";
        if !matches!(dtype, DType::U8 | DType::F16 | DType::F32) {
            return Err(crate::tensor::ConvertError::DType { got: dtype }.into());
        }
        check_address(what, from, dtype.size())?;
        check_address(what, to, dtype.size())?;
        if count == 0 {
            return Ok(());
        }
        let job = InvertJob::new(dtype, from, to, count);
        self.launch(stream, self.invert, [count.div_ceil(256), 1, 1], [256, 1, 1], &job)
    }

    fn launch<J: Copy>(
        &self,
        stream: &Stream,
        function: CUfunction,
        grid: [usize; 3],
        block: [u32; 3],
        job: &J,
    ) -> Result<(), Error> {
        if stream.device().raw_context() != self.context.cu_ctx() as u64 {
            return Err(Error::Argument {
                what: "launching a kernel",
                reason: format!("the stream is one of device {}", stream.device().ordinal()),
            });
        }
        stream.device().bind()?;
        let [x, y, z] = grid.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        let mut parameters = [std::ptr::from_ref(job).cast_mut().cast()];
        // SAFETY: the kernel has one parameter, of this structure; it is copied during the call.
        let answer = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                block[0],
                block[1],
                block[2],
                0,
                stream.handle(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check(self.ordinal, "launching a kernel", answer)
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the module is ours, and its functions go with this. The driver lets running kernels end first.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// Threads of a block: a warp side by side, in eight rows.
const BLOCK: [u32; 3] = [32, 8, 1];

fn check_frames(what: &'static str, frames: &Frames<'_>) -> Result<(), Error> {
    let spec = frames.spec;
    check_spec(spec)?;
    let sample = if spec.format == PixelFormat::P010 { 2 } else { 1 };
    for image in frames.images {
        for (plane, place) in image.planes.iter().enumerate().take(spec.format.planes()) {
            let (_, row) = spec.format.plane_size(plane, spec.width, spec.height);
            if place.stride < row || place.stride > u32::MAX as usize {
                return Err(crate::tensor::ConvertError::Stride {
                    plane,
                    expected: row,
                    got: place.stride,
                }
                .into());
            }
            check_address(what, place.address, sample)?;
            if !place.stride.is_multiple_of(sample) {
                return Err(Error::Argument {
                    what,
                    reason: format!("rows of 16-bit samples cannot be {} bytes apart", place.stride),
                });
            }
        }
    }
    Ok(())
}

fn check_batch(what: &'static str, tensor: &DeviceTensor, frames: usize) -> Result<(), Error> {
    check_tensor(&tensor.image)?;
    check_address(what, tensor.address, tensor.image.dtype.size())?;
    if frames > tensor.slots {
        return Err(Error::Argument {
            what,
            reason: format!("{frames} frames are more than the tensor's {} images", tensor.slots),
        });
    }
    Ok(())
}

/// Refuses what the device would answer with a failure that ends its context.
fn check_address(what: &'static str, address: u64, size: usize) -> Result<(), Error> {
    if address != 0 && address.is_multiple_of(size as u64) {
        return Ok(());
    }
    Err(Error::Argument {
        what,
        reason: format!("nothing of {size} bytes can be at {address:#x} on the device"),
    })
}
