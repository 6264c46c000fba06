//! GPUs of NVIDIA: a device, streams, memory, and the kernels that convert frames on the device.
//!
//! Nothing of CUDA is needed to build. The driver is looked for when [`Device::open`] is called, and a machine without
//! one gets [`Error::NoDriver`]. The kernels travel as PTX text, which the driver compiles for the GPU it has.
//!
//! In reading order: [`device`], [`stream`], [`memory`], [`kernels`].
//!
//! Work is queued on a [`Stream`] and done later, in the order of the stream; what fails then shows as an error of a
//! later call. A device address is a plain number. A wrong one makes wrong pixels or fails on the device, never on this
//! side, so functions that take one are safe. Functions that take a pointer to main memory or a handle of somebody
//! else are not: the driver would follow it here. What queued work reads or writes has to live until it is done.
#![allow(unsafe_code)]

pub mod device;
pub mod kernels;
pub mod memory;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stream;
#[cfg(test)]
pub(crate) mod tests;

use cudarc::driver::sys::CUresult;

pub use device::Device;
pub use kernels::{Blend, DeviceTensor, Frames, Kernels};
pub use memory::{DeviceBuffer, Pinned};
pub use stream::{Event, Stream, waits};

use crate::tensor::ConvertError;

/// What a GPU, or the lack of one, answers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This machine has no driver: no GPU of NVIDIA, or a container into which it is not passed.
    #[error(
        "no CUDA driver is found (libcuda.so.1): install NVIDIA's driver, 535 or newer; a container needs NVIDIA's \
         container toolkit"
    )]
    NoDriver,
    /// There is a driver, and no such device.
    #[error("there is no CUDA device {ordinal}, of {count} that this process sees (CUDA_VISIBLE_DEVICES hides some)")]
    NoDevice {
        /// Which one was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The device or its driver is older than what the kernels are made for.
    #[error("CUDA device {device} cannot run the kernels: {reason}")]
    Unsupported {
        /// The device's number.
        device: usize,
        /// What it lacks, and what helps.
        reason: String,
    },
    /// Memory of the device, or pinned main memory, has run out.
    #[error(
        "CUDA device {device} has no {bytes} bytes left for {what}: end other programs on it, or use smaller batches"
    )]
    OutOfMemory {
        /// The device's number.
        device: usize,
        /// What was asked for.
        bytes: usize,
        /// Which kind of memory.
        what: &'static str,
    },
    /// The driver refused a call, or says what became of work that was queued earlier.
    #[error("CUDA device {device}: {what} failed with {code}: {text}")]
    Driver {
        /// The device's number.
        device: usize,
        /// What was asked for.
        what: &'static str,
        /// The driver's number.
        code: u32,
        /// The driver's words.
        text: String,
    },
    /// An argument that cannot be meant; nothing was queued.
    #[error("{what}: {reason}")]
    Argument {
        /// What was asked for.
        what: &'static str,
        /// Why it cannot be done.
        reason: String,
    },
    /// The descriptions of frame and tensor do not fit each other; nothing was queued.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl Error {
    /// Whether the device is of no more use to this process: every later call will fail, too.
    pub fn is_fatal(&self) -> bool {
        // Memory errors, time-outs, illegal addresses and instructions, and launch failures spoil the context for good.
        let spoils = |code: u32| matches!(code, 214 | 700 | 702 | 709 | 710 | 714..=719);
        matches!(self, Error::Driver { code, .. } if spoils(*code))
    }
}

/// The driver's answer as a result.
fn check(device: usize, what: &'static str, answer: CUresult) -> Result<(), Error> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(failed(device, what, answer))
}

fn failed(device: usize, what: &'static str, answer: CUresult) -> Error {
    let text = cudarc::driver::DriverError(answer).error_string().map_or_else(
        |_| "an error without a name".into(),
        |text| text.to_string_lossy().into_owned(),
    );
    Error::Driver {
        device,
        what,
        code: answer as u32,
        text,
    }
}
