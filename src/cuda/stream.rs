//! Streams, on which work is queued, and events, which mark a place in one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};

use super::{Device, Error, check};

static WAITS: AtomicU64 = AtomicU64::new(0);

/// How many times a thread of this process has waited for a stream or an event of this module, for measurements.
pub fn waits() -> u64 {
    WAITS.load(Ordering::Relaxed)
}

/// A queue of work that the device does in order, and beside that of other streams.
#[derive(Debug)]
pub struct Stream {
    raw: CUstream,
    /// Whether it is ours to destroy.
    owned: bool,
    /// Marks a place in another stream, in [`Stream::wait_stream`]. Locked from the mark to the wait: a second thread
    /// would move the mark between them.
    joint: Mutex<Event>,
    device: Arc<Device>,
}

// SAFETY: the driver lets every thread use a stream, and what is beside the handle is Sync itself.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver locks what it has to.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of its own, which waits for no other unless it is told to, the default stream included.
    pub fn new(device: &Arc<Device>) -> Result<Stream, Error> {
        device.bind()?;
        let joint = Mutex::new(Event::new(device)?);
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a handle is written to where the pointer says, a local variable; the context is bound.
        let answer = unsafe { sys::cuStreamCreate(&mut raw, flags) };
        check(device.ordinal(), "making a stream", answer)?;
        Ok(Stream {
            raw,
            owned: true,
            joint,
            device: device.clone(),
        })
    }

    /// Somebody else's stream (a `CUstream`; 0 is the default stream), which is not destroyed with this.
    ///
    /// # Safety
    ///
    /// It is a stream of the device's primary context and outlives this.
    pub unsafe fn adopt(device: &Arc<Device>, raw: u64) -> Result<Stream, Error> {
        Ok(Stream {
            raw: raw as CUstream,
            owned: false,
            joint: Mutex::new(Event::new(device)?),
            device: device.clone(),
        })
    }

    /// The handle (a `CUstream`). It lives as long as this.
    pub fn raw(&self) -> u64 {
        self.raw as u64
    }

    /// Where its work is done.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Marks the end of what is queued so far. An event that marked another place marks this one from now on.
    pub fn record(&self, event: &Event) -> Result<(), Error> {
        self.device.bind()?;
        // SAFETY: both handles are alive, as their owners are borrowed.
        let answer = unsafe { sys::cuEventRecord(event.raw, self.raw) };
        check(self.device.ordinal(), "marking a place in a stream", answer)
    }

    /// What is queued from now on waits for the place that the event marks now. This thread does not wait.
    pub fn wait(&self, event: &Event) -> Result<(), Error> {
        self.device.bind()?;
        // SAFETY: both handles are alive, as their owners are borrowed.
        let answer = unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) };
        check(self.device.ordinal(), "waiting for another stream", answer)
    }

    /// What is queued from now on waits for all that is queued on the other stream (a `CUstream`; 0 is the default
    /// stream) so far. This thread does not wait.
    ///
    /// # Safety
    ///
    /// The other is a stream of the device's primary context, and alive.
    pub unsafe fn wait_stream(&self, other: u64) -> Result<(), Error> {
        if other == self.raw() {
            return Ok(());
        }
        let joint = self.joint.lock().unwrap_or_else(PoisonError::into_inner);
        self.device.bind()?;
        // SAFETY: the event is alive, as it is ours, and the stream is, as the caller says.
        let answer = unsafe { sys::cuEventRecord(joint.raw, other as CUstream) };
        check(self.device.ordinal(), "marking a place in another stream", answer)?;
        self.wait(&joint)
    }

    /// What is queued from now on waits for all that is queued on the other stream so far. This thread does not wait.
    pub fn wait_for(&self, other: &Stream) -> Result<(), Error> {
        // SAFETY: the other stream is alive, as it is borrowed.
        unsafe { self.wait_stream(other.raw()) }
    }

    /// Waits until all that is queued is done. What failed since the last wait shows here. The driver may keep a core
    /// busy meanwhile; [`Event::synchronize`] does not.
    pub fn synchronize(&self) -> Result<(), Error> {
        WAITS.fetch_add(1, Ordering::Relaxed);
        self.device.bind()?;
        // SAFETY: the handle is alive, as it is ours or outlives this.
        let answer = unsafe { sys::cuStreamSynchronize(self.raw) };
        check(self.device.ordinal(), "work that was queued", answer)
    }

    pub(super) fn handle(&self) -> CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned && self.device.bind().is_ok() {
            // What is queued is still done; the driver frees the stream afterwards.
            // SAFETY: the handle is ours, alive, and used no more.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    raw: CUevent,
    device: Arc<Device>,
}

// SAFETY: the driver lets every thread use an event.
unsafe impl Send for Event {}
// SAFETY: as above; the driver locks what it has to.
unsafe impl Sync for Event {}

impl Event {
    /// An event to wait for. A thread that waits sleeps, rather than keep a core busy.
    pub fn new(device: &Arc<Device>) -> Result<Event, Error> {
        use sys::CUevent_flags::{CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING};
        Event::with_flags(device, CU_EVENT_BLOCKING_SYNC as u32 | CU_EVENT_DISABLE_TIMING as u32)
    }

    /// One that notes the time, too, which costs the device a little.
    pub fn with_timing(device: &Arc<Device>) -> Result<Event, Error> {
        Event::with_flags(device, sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32)
    }

    fn with_flags(device: &Arc<Device>, flags: u32) -> Result<Event, Error> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a handle is written to where the pointer says, a local variable; the context is bound.
        let answer = unsafe { sys::cuEventCreate(&mut raw, flags) };
        check(device.ordinal(), "making an event", answer)?;
        Ok(Event {
            raw,
            device: device.clone(),
        })
    }

    /// Waits until the device has come to the mark; not at all when the event marks nothing yet.
    pub fn synchronize(&self) -> Result<(), Error> {
        WAITS.fetch_add(1, Ordering::Relaxed);
        self.device.bind()?;
        // SAFETY: the handle is alive, as it is ours.
        let answer = unsafe { sys::cuEventSynchronize(self.raw) };
        check(self.device.ordinal(), "work that was queued", answer)
    }

    /// Whether the device has come to the mark, or the event marks nothing yet.
    pub fn query(&self) -> Result<bool, Error> {
        self.device.bind()?;
        // SAFETY: the handle is alive, as it is ours.
        match unsafe { sys::cuEventQuery(self.raw) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            answer => check(self.device.ordinal(), "work that was queued", answer).map(|()| true),
        }
    }

    /// The device's time between two marks, both reached, of events with timing.
    pub fn elapsed_since(&self, earlier: &Event) -> Result<Duration, Error> {
        self.device.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: both handles are alive, and the number is written to a local variable.
        let answer = unsafe { sys::cuEventElapsedTime(&mut milliseconds, earlier.raw, self.raw) };
        check(self.device.ordinal(), "measuring the time between two events", answer)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1000.0))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: the handle is ours, alive, and used no more; the driver keeps what waits for it.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
