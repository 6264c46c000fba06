//! A GPU, opened once per process.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cudarc::driver::{CudaContext, result, sys};

use super::{Error, Kernels, check, failed};

/// Devices that are open. The primary context is one per process anyway; what hangs on it, the kernels above all, is
/// set up once because of this table.
static OPEN: Mutex<Vec<(usize, Weak<Device>)>> = Mutex::new(Vec::new());

/// A GPU and its primary context, the one that ONNX Runtime and everything else on top of CUDA's runtime use.
pub struct Device {
    // Before the context: a module is unloaded while its context lives.
    kernels: OnceLock<Kernels>,
    context: Arc<CudaContext>,
    ordinal: usize,
    name: String,
    architecture: (u32, u32),
    driver_version: (u32, u32),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("ordinal", &self.ordinal)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Opens a device, or finds it open. The calling thread has its context from then on.
    pub fn open(ordinal: usize) -> Result<Arc<Device>, Error> {
        // Held while a device is opened: two threads would set up two.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, device)| device.strong_count() > 0);
        let found = open.iter().find(|(of, _)| *of == ordinal);
        if let Some(device) = found.and_then(|(_, device)| device.upgrade()) {
            device.bind()?;
            return Ok(device);
        }
        let device = Arc::new(Device::new(ordinal)?);
        open.push((ordinal, Arc::downgrade(&device)));
        Ok(device)
    }

    fn new(ordinal: usize) -> Result<Device, Error> {
        // Asked first: without a library, the first call of any function would panic.
        // SAFETY: loading the driver runs its initialisation, which has no requirement on us.
        require_driver(unsafe { sys::is_culib_present() })?;
        result::init().map_err(|error| failed(ordinal, "starting the driver", error.0))?;
        let count = result::device::get_count().map_err(|error| failed(ordinal, "counting devices", error.0))?;
        let count = usize::try_from(count).unwrap_or(0);
        if ordinal >= count {
            return Err(Error::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).map_err(|error| failed(ordinal, "opening it", error.0))?;
        // SAFETY: the one requirement is that streams are ordered otherwise, and no slice of cudarc's is used here.
        unsafe { context.disable_event_tracking() };
        let asked = |answer: Result<_, cudarc::driver::DriverError>| {
            answer.map_err(|error| failed(ordinal, "asking for its name and kind", error.0))
        };
        let architecture = context
            .compute_capability()
            .map_err(|error| failed(ordinal, "asking for its architecture", error.0))?;
        let mut version = 0;
        // SAFETY: a number is written to where the pointer says, and that is a local variable.
        let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
        check(ordinal, "asking for the driver's version", answer)?;
        Ok(Device {
            kernels: OnceLock::new(),
            name: asked(context.name())?,
            architecture: (architecture.0.unsigned_abs(), architecture.1.unsigned_abs()),
            // 12020 is 12.2.
            driver_version: (version.unsigned_abs() / 1000, version.unsigned_abs() % 1000 / 10),
            context,
            ordinal,
        })
    }

    /// Its number in this process.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// What its maker calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its compute capability, `(9, 0)`.
    pub fn architecture(&self) -> (u32, u32) {
        self.architecture
    }

    /// The newest version of CUDA that the driver knows, `(12, 2)`.
    pub fn driver_version(&self) -> (u32, u32) {
        self.driver_version
    }

    /// The primary context, a `CUcontext`. It lives as long as the device.
    pub fn raw_context(&self) -> u64 {
        self.context.cu_ctx() as u64
    }

    /// Makes its context the calling thread's. Everything in this module does so by itself.
    pub fn bind(&self) -> Result<(), Error> {
        self.context
            .bind_to_thread()
            .map_err(|error| failed(self.ordinal, "making its context the thread's", error.0))
    }

    /// Bytes of memory in all.
    pub fn total_memory(&self) -> Result<usize, Error> {
        self.memory().map(|(_, total)| total)
    }

    /// Bytes of memory that nobody uses at the moment.
    pub fn free_memory(&self) -> Result<usize, Error> {
        self.memory().map(|(free, _)| free)
    }

    fn memory(&self) -> Result<(usize, usize), Error> {
        self.context
            .mem_get_info()
            .map_err(|error| failed(self.ordinal, "asking for its memory", error.0))
    }

    /// The context in which device memory was allocated, a `CUcontext`; None for what is no memory of a device. Kernels
    /// may touch memory of [`Device::raw_context`] alone, copies that of every context.
    pub fn context_of(&self, address: u64) -> Result<Option<u64>, Error> {
        self.bind()?;
        let mut context = std::ptr::null_mut::<std::ffi::c_void>();
        let what = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT;
        // SAFETY: a pointer is written to a local variable; the address is looked up, and not followed.
        let answer = unsafe { sys::cuPointerGetAttribute((&raw mut context).cast(), what, address) };
        match answer {
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => Ok(None),
            answer => {
                check(self.ordinal, "asking whose memory it is", answer)?;
                Ok((!context.is_null()).then_some(context as u64))
            }
        }
    }

    /// Whether this address of main memory is page-locked, so that the device reads and writes it by itself.
    pub fn is_pinned(&self, data: *const u8) -> bool {
        if self.bind().is_err() {
            return false;
        }
        let mut kind = 0_u32;
        // SAFETY: the address is looked up and not followed; the answer is a number, written to a local variable.
        let answer = unsafe {
            sys::cuPointerGetAttribute(
                (&raw mut kind).cast(),
                sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                data as sys::CUdeviceptr,
            )
        };
        // Memory that the driver does not know of is an invalid value to it.
        answer == sys::CUresult::CUDA_SUCCESS && kind == sys::CUmemorytype::CU_MEMORYTYPE_HOST as u32
    }

    /// Waits until everything is done that was queued in its context, on whichever stream.
    pub fn synchronize(&self) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: the call has no argument; it is about the current context, which was just bound.
        check(self.ordinal, "waiting for the device", unsafe {
            sys::cuCtxSynchronize()
        })
    }

    /// The kernels. The first call loads them, which takes the driver a moment: do it before frames flow.
    pub fn kernels(&self) -> Result<&Kernels, Error> {
        if let Some(kernels) = self.kernels.get() {
            return Ok(kernels);
        }
        self.bind()?;
        let loaded = Kernels::load(&self.context, self.ordinal, self.architecture, self.driver_version)?;
        // Of two that are loaded at once, one is unloaded again.
        Ok(self.kernels.get_or_init(|| loaded))
    }
}

/// Says so in words when there is no driver.
fn require_driver(present: bool) -> Result<(), Error> {
    if present { Ok(()) } else { Err(Error::NoDriver) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_is_told_what_to_install() {
        assert_eq!(require_driver(true), Ok(()));
        let text = require_driver(false).unwrap_err().to_string();
        assert!(text.contains("libcuda.so.1") && text.contains("535"), "{text}");
    }
}
