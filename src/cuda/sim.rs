//! The simulated driver: a CUDA device without a GPU, for tests.
//!
//! [`load`] compiles `sim/driver.c` and loads it under the driver's name, so that whatever looks for the driver in this
//! process from then on finds it: this module, and GStreamer's. It has to come first. The top of `driver.c` says what
//! it is strict about.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use super::Stream;

/// The simulated driver in this process.
#[derive(Debug)]
pub struct Sim {
    library: Library,
    /// Held by the test whose turn it is.
    turn: Mutex<()>,
}

/// What was asked of the driver since the last reset, and what there is now.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub htod_bytes: u64,
    pub htod_calls: u64,
    pub dtoh_bytes: u64,
    pub dtoh_calls: u64,
    pub dtod_bytes: u64,
    pub dtod_calls: u64,
    /// Copies that waited, as their main memory was not pinned.
    pub pageable_calls: u64,
    pub fills: u64,
    pub launches: u64,
    pub allocations: u64,
    pub pinned_allocations: u64,
    /// Waits of a thread for a stream, an event, a context.
    pub stream_waits: u64,
    pub event_waits: u64,
    pub context_waits: u64,
    /// From here on: what there is now, which a reset leaves.
    pub live_allocations: u64,
    pub live_bytes: u64,
    pub live_pinned: u64,
    pub live_streams: u64,
    pub live_events: u64,
    pub live_modules: u64,
    /// Contexts other than the primary one.
    pub live_contexts: u64,
    /// How many times the primary context is retained.
    pub retained: u64,
}

static LOADED: OnceLock<Result<Sim, String>> = OnceLock::new();

/// How far the memory of the simulated device is from its addresses, if there is one in this process: what stands for a
/// provider that runs on the device reads and writes it there.
pub fn shadow() -> Option<usize> {
    let sim = LOADED.get()?.as_ref().ok()?;
    // SAFETY: the function's type is that of the source.
    let offset = unsafe { sim.function::<unsafe extern "C" fn() -> u64>(c"sim_shadow")() };
    usize::try_from(offset).ok()
}

/// Compiles the driver into a folder, which may be removed afterwards, and loads it. Only the first call in a process
/// does anything.
pub fn load(folder: &Path) -> Result<&'static Sim, String> {
    LOADED.get_or_init(|| build(folder)).as_ref().map_err(Clone::clone)
}

fn build(folder: &Path) -> Result<Sim, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/sim/driver.c");
    let driver = folder.join("libcuda.so.1");
    // Contraction would round differently from the device, whose code is made without it.
    let kernels = [
        "-O2",
        "-std=gnu11",
        "-ffp-contract=off",
        "-fvisibility=hidden",
        "-pthread",
    ];
    let mut command = compiler();
    command
        .args(kernels)
        .arg("-Wl,-soname,libcuda.so.1")
        .arg("-o")
        .arg(&driver)
        .arg(source);
    run(command.arg("-lm"))?;
    // Some look for this name first, and on a machine with a driver would find that one.
    let alias = folder.join("libcuda.so");
    let mut command = compiler();
    command
        .arg("-Wl,-soname,libcuda.so")
        .arg("-Wl,--no-as-needed")
        .arg("-o")
        .arg(&alias);
    run(command.args(["-x", "c", "/dev/null", "-x", "none"]).arg(&driver))?;
    let library = open(&driver)?;
    // Both stay for good: addresses of theirs are everywhere.
    std::mem::forget(open(&alias)?);
    Ok(Sim {
        library,
        turn: Mutex::new(()),
    })
}

fn compiler() -> Command {
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-shared", "-fPIC"]);
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn open(path: &Path) -> Result<Library, String> {
    // SAFETY: it was just compiled from our source, and does nothing when it is loaded.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| error.to_string())
}

impl Sim {
    /// Waits until no other test in this process uses the device, and resets it.
    pub fn turn(&'static self) -> Turn {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.reset();
        Turn { sim: self, _turn: turn }
    }

    fn reset(&self) {
        // SAFETY: the function's type is that of the source.
        unsafe { self.function::<unsafe extern "C" fn()>(c"sim_reset")() }
    }

    /// Bytes of a kernel's parameters; 0: there is no such kernel.
    pub fn parameters(&self, kernel: &std::ffi::CStr) -> usize {
        // SAFETY: the function's type is that of the source, and the name ends with a zero.
        unsafe {
            self.function::<unsafe extern "C" fn(*const std::ffi::c_char) -> usize>(c"sim_parameters")(kernel.as_ptr())
        }
    }

    /// # Safety
    ///
    /// The type is that of the function in the source.
    unsafe fn function<F: Copy>(&self, name: &std::ffi::CStr) -> F {
        // SAFETY: as the caller says.
        let symbol: Symbol<F> = unsafe { self.library.get(name.to_bytes_with_nul()) }
            .unwrap_or_else(|error| panic!("the simulated driver lacks {name:?}: {error}"));
        *symbol
    }
}

/// A test's turn at the device. At its end, everything goes on and works again.
#[derive(Debug)]
pub struct Turn {
    sim: &'static Sim,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    /// What was counted since the turn began.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        // SAFETY: the function's type is that of the source, and so is the structure it fills.
        unsafe {
            self.sim
                .function::<unsafe extern "C" fn(*mut Counters)>(c"sim_counters")(&mut counters)
        };
        counters
    }

    /// Stops a stream, or every stream, before its next piece of work. What waits for it waits until the answer is
    /// dropped, freeing memory included: drop it before buffers.
    pub fn stall(&self, stream: Option<&Stream>) -> Stalled<'_> {
        let stream = stream.map_or(0, Stream::raw);
        self.set_stalled(stream, true);
        Stalled { turn: self, stream }
    }

    fn set_stalled(&self, stream: u64, stalled: bool) {
        // SAFETY: the function's type is that of the source; the handle is compared and not followed.
        unsafe { self.sim.function::<unsafe extern "C" fn(u64, i32)>(c"sim_stall")(stream, stalled.into()) }
    }

    /// After so many more, launches fail when their turn in the stream comes, which ruins the context.
    pub fn fail_launches_after(&self, count: u32) {
        self.fail_after(count.into(), -1, -1);
    }

    /// After so many more, launches are refused.
    pub fn refuse_launches_after(&self, count: u32) {
        self.fail_after(-1, count.into(), -1);
    }

    /// After so many more, allocations find no memory.
    pub fn fail_allocations_after(&self, count: u32) {
        self.fail_after(-1, -1, count.into());
    }

    fn fail_after(&self, launches: i64, refused: i64, allocated: i64) {
        // SAFETY: the function's type is that of the source.
        unsafe {
            self.sim
                .function::<unsafe extern "C" fn(i64, i64, i64)>(c"sim_fail_after")(
                launches, refused, allocated
            );
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.sim.reset();
    }
}

/// A stop, until it is dropped.
#[derive(Debug)]
#[must_use = "what is stalled goes on as soon as this is dropped"]
pub struct Stalled<'a> {
    turn: &'a Turn,
    stream: u64,
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.turn.set_stalled(self.stream, false);
    }
}
