//! The threads on which all sockets of this plugin are.

use std::sync::LazyLock;

use gst::{ErrorMessage, error_msg};
use tokio::runtime::{Builder, Runtime};

/// Enough for many streams: a thread only moves bytes between memory and sockets.
const THREADS: usize = 2;

/// The runtime, made when the first element starts. It stays: other elements may use it at any time.
pub(crate) fn runtime() -> Result<&'static Runtime, ErrorMessage> {
    static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
        Builder::new_multi_thread()
            .thread_name("trickle")
            .worker_threads(THREADS)
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| error.to_string())
    });
    RUNTIME.as_ref().map_err(|error| {
        error_msg!(
            gst::ResourceError::Failed,
            ["the threads for the network cannot be started: {error}; check the limits on threads and open files"]
        )
    })
}
