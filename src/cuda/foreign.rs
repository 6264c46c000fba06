//! Main memory of unknown origin.

use cudarc::driver::sys::{self, CUmemorytype, CUpointer_attribute, CUresult};

use super::Device;

impl Device {
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
                CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                data as sys::CUdeviceptr,
            )
        };
        // Memory that the driver does not know of is an invalid value to it.
        answer == CUresult::CUDA_SUCCESS && kind == CUmemorytype::CU_MEMORYTYPE_HOST as u32
    }
}
