//! Memory of the device, pinned main memory, and what is copied between them.
//!
//! Allocating stops the device, so that both kinds are made when a lane is set up, never per frame. So does freeing,
//! which waits for the work that is queued.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUDA_MEMCPY2D, CUDA_MEMCPY3D_PEER, CUmemorytype, CUresult};

use super::{Device, Error, Stream, check};
use crate::tensor::DevicePlane;

/// Memory on the device.
#[derive(Debug)]
pub struct DeviceBuffer {
    address: u64,
    len: usize,
    device: Arc<Device>,
}

impl DeviceBuffer {
    /// Bytes that hold anything at first. The address is a multiple of 256.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<DeviceBuffer, Error> {
        device.bind()?;
        let mut address = 0;
        // SAFETY: a number is written to where the pointer says, a local variable; the context is bound.
        let answer = unsafe { sys::cuMemAlloc_v2(&mut address, len.max(1)) };
        check_allocation(device, "memory of its own", len, answer)?;
        Ok(DeviceBuffer {
            address,
            len,
            device: device.clone(),
        })
    }

    /// Bytes that are 0 once the call returns.
    pub fn zeroed(device: &Arc<Device>, len: usize) -> Result<DeviceBuffer, Error> {
        let buffer = DeviceBuffer::new(device, len)?;
        // SAFETY: the range is the allocation's own.
        let answer = unsafe { sys::cuMemsetD8_v2(buffer.address, 0, len.max(1)) };
        check(device.ordinal(), "setting memory to 0", answer)?;
        // The call may come back before the memory is set.
        device.synchronize()?;
        Ok(buffer)
    }

    /// Its first byte, on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: the allocation is ours, and used no more.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// Main memory that the device reads and writes by itself, so that a copy is queued like other work.
#[derive(Debug)]
pub struct Pinned {
    data: *mut u8,
    len: usize,
    device: Arc<Device>,
}

// SAFETY: it owns its memory, as a Box does; the device's accesses are the owner's to order.
unsafe impl Send for Pinned {}
// SAFETY: behind a shared reference it is only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// To be written here and read by the device. Reading it here is very slow: it goes past the caches.
    pub fn for_upload(device: &Arc<Device>, len: usize) -> Result<Pinned, Error> {
        Pinned::with_flags(device, len, sys::CU_MEMHOSTALLOC_WRITECOMBINED)
    }

    /// To be written by the device and read here.
    pub fn for_download(device: &Arc<Device>, len: usize) -> Result<Pinned, Error> {
        Pinned::with_flags(device, len, 0)
    }

    fn with_flags(device: &Arc<Device>, len: usize, flags: u32) -> Result<Pinned, Error> {
        device.bind()?;
        let mut data = std::ptr::null_mut();
        // SAFETY: a pointer is written to where the pointer says, a local variable; the context is bound.
        let answer = unsafe { sys::cuMemHostAlloc(&mut data, len.max(1), flags) };
        check_allocation(device, "pinned main memory", len, answer)?;
        let data = data.cast::<u8>();
        // The driver does not say what it holds, and reading that would be undefined.
        // SAFETY: the allocation has at least this many bytes.
        unsafe { data.write_bytes(0, len) };
        Ok(Pinned {
            data,
            len,
            device: device.clone(),
        })
    }

    /// What it holds; what a download that is still queued will write is not there yet.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the allocation has this many bytes, all written once, and lives as long as the borrow.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// To write, when no upload from it is queued.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has a reference.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.data
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: the allocation is ours, and used no more.
            let _ = unsafe { sys::cuMemFreeHost(self.data.cast()) };
        }
    }
}

/// Rows of a plane in main memory, from the first one's first byte on.
#[derive(Debug, Clone, Copy)]
pub struct HostPlane {
    /// The first byte.
    pub data: *mut u8,
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Copies are queued, and done later. Those from and to pinned memory return at once; with other main memory the driver
/// may wait until the copy is done.
impl Stream {
    /// Copies a range of pinned memory to the device.
    pub fn upload(&self, from: &Pinned, range: Range<usize>, to: u64) -> Result<(), Error> {
        check_range("an upload", from, &range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.device().bind()?;
        // SAFETY: the range lies in the allocation, as was just checked.
        let answer =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.data.add(range.start).cast(), range.len(), self.handle()) };
        check(self.device().ordinal(), "copying to the device", answer)
    }

    /// Copies from the device to a range of pinned memory.
    pub fn download(&self, from: u64, to: &mut Pinned, range: Range<usize>) -> Result<(), Error> {
        check_range("a download", to, &range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.device().bind()?;
        // SAFETY: the range lies in the allocation, as was just checked.
        let answer =
            unsafe { sys::cuMemcpyDtoHAsync_v2(to.data.add(range.start).cast(), from, range.len(), self.handle()) };
        check(self.device().ordinal(), "copying from the device", answer)
    }

    /// Copies bytes on the device.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        self.device().bind()?;
        // SAFETY: both are addresses on the device, and nothing on this side.
        let answer = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.handle()) };
        check(self.device().ordinal(), "copying on the device", answer)
    }

    /// Sets bytes on the device.
    pub fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        self.device().bind()?;
        // SAFETY: it is an address on the device, and nothing on this side.
        let answer = unsafe { sys::cuMemsetD8Async(address, byte, bytes, self.handle()) };
        check(self.device().ordinal(), "setting memory", answer)
    }

    /// Copies `rows` rows of `row` bytes each on the device, each side with its own stride.
    pub fn copy_plane(&self, from: DevicePlane, to: DevicePlane, row: usize, rows: usize) -> Result<(), Error> {
        // SAFETY: both are addresses on the device, and nothing on this side.
        unsafe { self.copy_rows(Side::Device(from), Side::Device(to), row, rows) }
    }

    /// Copies rows on the device out of memory of another context (a `CUcontext`, see [`Device::context_of`]).
    ///
    /// # Safety
    ///
    /// The context is alive, and stays so until the copy is done.
    pub unsafe fn copy_foreign_plane(
        &self,
        context: u64,
        from: DevicePlane,
        to: DevicePlane,
        row: usize,
        rows: usize,
    ) -> Result<(), Error> {
        if row == 0 || rows == 0 {
            return Ok(());
        }
        check_strides(from.stride, to.stride, row)?;
        let copy = CUDA_MEMCPY3D_PEER {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: from.address,
            srcArray: std::ptr::null_mut(),
            srcContext: context as sys::CUcontext,
            srcPitch: from.stride,
            srcHeight: rows,
            dstXInBytes: 0,
            dstY: 0,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: to.address,
            dstArray: std::ptr::null_mut(),
            dstContext: self.device().raw_context() as sys::CUcontext,
            dstPitch: to.stride,
            dstHeight: rows,
            WidthInBytes: row,
            Height: rows,
            Depth: 1,
        };
        self.device().bind()?;
        // SAFETY: the description is read during the call; the one context is as the caller says, the other is ours.
        let answer = unsafe { sys::cuMemcpy3DPeerAsync(&copy, self.handle()) };
        check(self.device().ordinal(), "copying rows of another context", answer)
    }

    /// Copies rows out of pinned memory, the first of which begins at `offset`.
    pub fn upload_plane(
        &self,
        from: &Pinned,
        offset: usize,
        stride: usize,
        to: DevicePlane,
        (row, rows): (usize, usize),
    ) -> Result<(), Error> {
        let data = rows_of("an upload", from, offset, stride, (row, rows))?;
        // SAFETY: the rows lie in the allocation, as was just checked.
        unsafe { self.copy_rows(Side::Host(HostPlane { data, stride }), Side::Device(to), row, rows) }
    }

    /// Copies rows into pinned memory, the first of which begins at `offset`.
    pub fn download_plane(
        &self,
        from: DevicePlane,
        to: &mut Pinned,
        offset: usize,
        stride: usize,
        (row, rows): (usize, usize),
    ) -> Result<(), Error> {
        let data = rows_of("a download", to, offset, stride, (row, rows))?;
        // SAFETY: the rows lie in the allocation, as was just checked.
        unsafe { self.copy_rows(Side::Device(from), Side::Host(HostPlane { data, stride }), row, rows) }
    }

    /// Copies rows out of whatever main memory.
    ///
    /// # Safety
    ///
    /// The rows can be read, and stay so until the copy is done.
    pub unsafe fn upload_plane_from(
        &self,
        from: HostPlane,
        to: DevicePlane,
        row: usize,
        rows: usize,
    ) -> Result<(), Error> {
        // SAFETY: as the caller says.
        unsafe { self.copy_rows(Side::Host(from), Side::Device(to), row, rows) }
    }

    /// Copies rows into whatever main memory.
    ///
    /// # Safety
    ///
    /// The rows can be written, and nobody else reads or writes them until the copy is done.
    pub unsafe fn download_plane_to(
        &self,
        from: DevicePlane,
        to: HostPlane,
        row: usize,
        rows: usize,
    ) -> Result<(), Error> {
        // SAFETY: as the caller says.
        unsafe { self.copy_rows(Side::Device(from), Side::Host(to), row, rows) }
    }

    /// # Safety
    ///
    /// What is in main memory can be read, or written, until the copy is done.
    unsafe fn copy_rows(&self, from: Side, to: Side, row: usize, rows: usize) -> Result<(), Error> {
        if row == 0 || rows == 0 {
            return Ok(());
        }
        check_strides(from.stride(), to.stride(), row)?;
        let mut copy = CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: from.kind(),
            srcHost: std::ptr::null(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: from.stride(),
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: to.kind(),
            dstHost: std::ptr::null_mut(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: to.stride(),
            WidthInBytes: row,
            Height: rows,
        };
        match from {
            Side::Host(plane) => copy.srcHost = plane.data.cast(),
            Side::Device(plane) => copy.srcDevice = plane.address,
        }
        match to {
            Side::Host(plane) => copy.dstHost = plane.data.cast(),
            Side::Device(plane) => copy.dstDevice = plane.address,
        }
        self.device().bind()?;
        // SAFETY: the description is read during the call; what it points to is as the caller says.
        let answer = unsafe { sys::cuMemcpy2DAsync_v2(&copy, self.handle()) };
        check(self.device().ordinal(), "copying rows", answer)
    }
}

/// One end of a copy.
#[derive(Clone, Copy)]
enum Side {
    Host(HostPlane),
    Device(DevicePlane),
}

impl Side {
    fn stride(&self) -> usize {
        match self {
            Side::Host(plane) => plane.stride,
            Side::Device(plane) => plane.stride,
        }
    }

    fn kind(&self) -> CUmemorytype {
        match self {
            Side::Host(_) => CUmemorytype::CU_MEMORYTYPE_HOST,
            Side::Device(_) => CUmemorytype::CU_MEMORYTYPE_DEVICE,
        }
    }
}

fn check_allocation(device: &Device, what: &'static str, bytes: usize, answer: CUresult) -> Result<(), Error> {
    if answer == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(Error::OutOfMemory {
            device: device.ordinal(),
            bytes,
            what,
        });
    }
    check(device.ordinal(), "allocating memory", answer)
}

fn check_range(what: &'static str, memory: &Pinned, range: &Range<usize>) -> Result<(), Error> {
    if range.start <= range.end && range.end <= memory.len {
        return Ok(());
    }
    Err(Error::Argument {
        what,
        reason: format!("bytes {range:?} are not within {} of pinned memory", memory.len),
    })
}

fn check_strides(from: usize, to: usize, row: usize) -> Result<(), Error> {
    if from >= row && to >= row {
        return Ok(());
    }
    Err(Error::Argument {
        what: "copying rows",
        reason: format!("rows of {row} bytes overlap with strides of {from} and {to} bytes"),
    })
}

fn rows_of(
    what: &'static str,
    memory: &Pinned,
    offset: usize,
    stride: usize,
    (row, rows): (usize, usize),
) -> Result<*mut u8, Error> {
    let end = stride
        .saturating_mul(rows.saturating_sub(1))
        .saturating_add(row)
        .saturating_add(offset);
    check_range(what, memory, &(offset..end))?;
    // SAFETY: the offset lies in the allocation, as was just checked.
    Ok(unsafe { memory.data.add(offset) })
}
