//! What the bench asks of the driver beyond what gst-comfy does: graphs of queued work, private contexts, and copies of
//! memory that is not pinned.
#![allow(unsafe_code)]

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use comfy_core::cuda::memory::HostPlane;
use comfy_core::cuda::{Device, Stream};
use comfy_core::tensor::DevicePlane;
use cudarc::driver::sys::{self, CUresult};

fn check(what: &str, answer: CUresult) -> Result<()> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = cudarc::driver::DriverError(answer).error_string().map_or_else(
        |_| "an error without a name".to_owned(),
        |text| text.to_string_lossy().into_owned(),
    );
    bail!("{what} failed with {}: {text}", answer as u32)
}

/// Work of a stream, recorded once.
pub(crate) struct Graph {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    stream: Arc<Stream>,
}

impl Graph {
    /// Records what `queue` queues on the stream, which is not done yet.
    pub(crate) fn record(stream: &Arc<Stream>, queue: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        stream.device().bind()?;
        let raw = stream.raw() as sys::CUstream;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and this thread's context is its own.
        check("beginning to record", unsafe {
            sys::cuStreamBeginCapture_v2(raw, mode)
        })?;
        let queued = queue();
        let mut made = Self {
            graph: std::ptr::null_mut(),
            exec: std::ptr::null_mut(),
            stream: stream.clone(),
        };
        // SAFETY: as above; the handle is written to our own field. Called also after a failure: the stream records.
        let ended = unsafe { sys::cuStreamEndCapture(raw, &mut made.graph) };
        queued?;
        check("ending to record", ended)?;
        // SAFETY: the graph was just made; the handle is written to our own field.
        let answer = unsafe { sys::cuGraphInstantiateWithFlags(&mut made.exec, made.graph, 0) };
        check("making a graph ready", answer)?;
        Ok(made)
    }

    /// Queues it on its stream.
    pub(crate) fn launch(&self) -> Result<()> {
        // SAFETY: both handles are alive, as they are ours, or owned by what we hold.
        let answer = unsafe { sys::cuGraphLaunch(self.exec, self.stream.raw() as sys::CUstream) };
        check("launching a graph", answer)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.stream.synchronize().is_err() {
            return;
        }
        // SAFETY: the handles are ours, used no more, and not at work.
        unsafe {
            if !self.exec.is_null() {
                let _ = sys::cuGraphExecDestroy(self.exec);
            }
            if !self.graph.is_null() {
                let _ = sys::cuGraphDestroy(self.graph);
            }
        }
    }
}

/// A context beside the primary one, as GStreamer's elements make them, with one buffer in it.
pub(crate) struct Private {
    context: sys::CUcontext,
    address: u64,
    device: Arc<Device>,
}

impl Private {
    /// A buffer that holds these bytes.
    pub(crate) fn new(device: &Arc<Device>, bytes: &[u8]) -> Result<Self> {
        device.bind()?;
        let ordinal = i32::try_from(device.ordinal()).context("a device number")?;
        let mut made = Self {
            context: std::ptr::null_mut(),
            address: 0,
            device: device.clone(),
        };
        let mut handle = 0;
        // SAFETY: numbers and handles are written to local variables and our own fields. A new context becomes the
        // thread's, is taken off again, and is put on and off around each use.
        unsafe {
            check("finding the device", sys::cuDeviceGet(&mut handle, ordinal))?;
            check("making a context", sys::cuCtxCreate_v2(&mut made.context, 0, handle))?;
            let filled = check("allocating", sys::cuMemAlloc_v2(&mut made.address, bytes.len()))
                .and_then(|()| {
                    let data = bytes.as_ptr().cast();
                    check(
                        "copying to the device",
                        sys::cuMemcpyHtoD_v2(made.address, data, bytes.len()),
                    )
                })
                .and_then(|()| check("waiting for the copy", sys::cuCtxSynchronize()));
            let mut off = std::ptr::null_mut();
            check("leaving a context", sys::cuCtxPopCurrent_v2(&mut off))?;
            filled?;
        }
        device.bind()?;
        Ok(made)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The same by rows of so many bytes, the way in which frames come over.
    pub(crate) fn copy_rows_to(
        &self,
        from: DevicePlane,
        to: DevicePlane,
        (row, rows): (usize, usize),
        stream: &Stream,
    ) -> Result<()> {
        // SAFETY: the context is alive, as it is ours, and dropping it waits for what is queued.
        unsafe { stream.copy_foreign_plane(self.context as u64, from, to, row, rows)? };
        Ok(())
    }

    /// Queues a copy out of it to an address of the primary context.
    pub(crate) fn copy_to(&self, to: u64, bytes: usize, stream: &Stream) -> Result<()> {
        self.device.bind()?;
        let primary = self.device.raw_context() as sys::CUcontext;
        // SAFETY: contexts and stream are alive; the rest is addresses on the device.
        let answer = unsafe {
            sys::cuMemcpyPeerAsync(
                to,
                primary,
                self.address,
                self.context,
                bytes,
                stream.raw() as sys::CUstream,
            )
        };
        check("a peer copy", answer)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.device.synchronize();
        if !self.context.is_null() {
            // SAFETY: it is ours and used no more; its memory goes with it.
            let _ = unsafe { sys::cuCtxDestroy_v2(self.context) };
        }
        let _ = self.device.bind();
    }
}

/// Copies main memory of any kind to the device, and waits.
pub(crate) fn upload(stream: &Stream, from: &[u8], to: u64) -> Result<()> {
    let (plane, to) = planes(from.as_ptr().cast_mut(), to, from.len());
    // SAFETY: the bytes are borrowed until the copy is done, which is waited for; they are only read.
    unsafe { stream.upload_plane_from(plane, to, from.len(), 1)? };
    Ok(stream.synchronize()?)
}

/// Copies from the device to main memory of any kind, and waits.
pub(crate) fn download(stream: &Stream, from: u64, to: &mut [u8]) -> Result<()> {
    let (plane, from) = planes(to.as_mut_ptr(), from, to.len());
    // SAFETY: the bytes are borrowed exclusively until the copy is done, which is waited for.
    unsafe { stream.download_plane_to(from, plane, to.len(), 1)? };
    Ok(stream.synchronize()?)
}

fn planes(data: *mut u8, address: u64, len: usize) -> (HostPlane, DevicePlane) {
    (HostPlane { data, stride: len }, DevicePlane { address, stride: len })
}
