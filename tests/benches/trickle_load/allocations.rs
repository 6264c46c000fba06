//! What does our server ask of the allocator for each chunk? In this process, on the server's threads alone.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Result;
use comfy_core::trickle::server::{Config, Server};
use serde_json::{Value, json};

use crate::fan::answered;
use crate::http::{Chunk, END, Line, Target};

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread is counted.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counted.
struct Counting;

fn count(size: usize) {
    // A thread that ends has no such flag any more.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(size as u64, Relaxed);
    }
}

// SAFETY: each call is handed on unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller's call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller's call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as the caller's call.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller's call.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Chunks of a segment before counting, and counted.
const SETTLING: usize = 200;
const CHUNKS: usize = 2000;

/// Publishes one segment in chunks of 1,000 bytes, each read by all readers before the next is written, so that no
/// two chunks are ever joined on the way; counts from one chunk to a later one.
fn of(readers: usize) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(|| COUNTED.set(true))
        .build()?;
    let (listener, server) = runtime.block_on(async {
        let server = Server::new(Config {
            autocreate: true,
            ..Config::default()
        })?;
        anyhow::Ok((tokio::net::TcpListener::bind("127.0.0.1:0").await?, server))
    })?;
    let target: Target = format!("http://{}/", listener.local_addr()?).parse()?;
    runtime.spawn(async move { server.serve(listener, None, std::future::pending()).await });

    let mut publisher = Line::new(target.address, 4096)?;
    target.create(&mut publisher, "count")?;
    publisher.write(&target.post("count", 0))?;
    let mut chunk = Chunk::new(1000, true);
    publisher.write(chunk.now())?;
    let lines: Result<Vec<Line>> = (0..readers)
        .map(|_| {
            let mut line = Line::new(target.address, 16 << 10)?;
            line.write(&target.get("count", 0))?;
            line.head()?;
            line.chunk(&mut |_, _| ())?;
            Ok(line)
        })
        .collect();
    let mut lines = lines?;
    let (mut calls, mut bytes) = (0, 0);
    for number in 0..SETTLING + CHUNKS {
        if number == SETTLING {
            (calls, bytes) = (CALLS.load(Relaxed), BYTES.load(Relaxed));
        }
        publisher.write(chunk.now())?;
        for line in &mut lines {
            line.chunk(&mut |_, _| ())?;
        }
    }
    (calls, bytes) = (CALLS.load(Relaxed) - calls, BYTES.load(Relaxed) - bytes);
    publisher.write(END)?;
    answered(&mut publisher)?;
    runtime.shutdown_background();
    let per = |value: u64, of: usize| value as f64 / of as f64;
    Ok(json!({
        "readers": readers,
        "per_chunk": per(calls, CHUNKS),
        "bytes_per_chunk": per(bytes, CHUNKS),
        "per_delivery": per(calls, CHUNKS * readers),
    }))
}

/// For 1, 8 and 32 readers.
pub(crate) fn measure() -> Result<Value> {
    [1, 8, 32]
        .into_iter()
        .map(of)
        .collect::<Result<Vec<_>>>()
        .map(Value::from)
}
