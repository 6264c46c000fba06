//! What is somebody else's: memory of other contexts, and main memory of unknown origin.

use cudarc::driver::sys::{self, CUDA_MEMCPY3D_PEER, CUmemorytype, CUpointer_attribute, CUresult};

use super::{Device, Error, Stream, check};
use crate::tensor::{DevicePlane, Handle};

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

impl Stream {
    /// Copies `rows` rows of `row` bytes each out of another context of the same process, each side with its own stride.
    pub fn copy_plane_from_context(
        &self,
        context: Handle,
        from: DevicePlane,
        to: DevicePlane,
        row: usize,
        rows: usize,
    ) -> Result<(), Error> {
        if row == 0 || rows == 0 {
            return Ok(());
        }
        if from.stride < row || to.stride < row {
            return Err(Error::Argument {
                what: "copying rows of another context",
                reason: format!(
                    "rows of {row} bytes overlap with strides of {} and {} bytes",
                    from.stride, to.stride
                ),
            });
        }
        self.device().bind()?;
        // SAFETY: a description of numbers and null pointers, all of which are values.
        let mut copy: CUDA_MEMCPY3D_PEER = unsafe { std::mem::zeroed() };
        copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
        copy.srcDevice = from.address;
        copy.srcContext = context.raw() as sys::CUcontext;
        copy.srcPitch = from.stride;
        copy.srcHeight = rows;
        copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
        copy.dstDevice = to.address;
        copy.dstContext = self.device().raw_context() as sys::CUcontext;
        copy.dstPitch = to.stride;
        copy.dstHeight = rows;
        copy.WidthInBytes = row;
        copy.Height = rows;
        copy.Depth = 1;
        // SAFETY: the description is read during the call. The other context is alive, as its handle vouches; what else
        // it names is addresses on the device.
        let answer = unsafe { sys::cuMemcpy3DPeerAsync(&copy, self.handle()) };
        check(self.device().ordinal(), "copying out of another context", answer)
    }
}
