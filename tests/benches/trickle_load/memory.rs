//! What does a server hold for channels in which nothing happens, beside what was written to them?

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fan::answered;
use crate::http::{Chunk, END, Line};
use crate::proc;
use crate::server::Server;

/// Segments of a window, and what each holds: 30 writes of 1,000 bytes.
const WINDOW: u64 = 5;
const WRITES: usize = 30;
const WRITE: usize = 1000;

/// Fills the windows of so many channels, a write of each in turn, as if they were all live; then looks at the server's
/// memory while nothing happens. The server should be a new one.
pub(crate) fn measure(server: &Server, channels: usize) -> Result<Value> {
    let pid = server.pid.context("memory needs --pid, the server's process")?;
    let needed = 2 * channels + 64;
    ensure!(
        proc::files() >= needed,
        "{channels} channels need {needed} open files in this process and in the server's; raise it with `ulimit -n {needed}`"
    );
    let target = &server.target;
    let name = |number: usize| format!("idle-{number}");
    let mut steps = Vec::new();
    let mut step = |what: &str| -> Result<u64> {
        let bytes = proc::resident(pid)?;
        steps.push(json!({ "step": what, "bytes": bytes }));
        Ok(bytes)
    };
    step("start")?;
    let mut control = Line::new(target.address, 4096)?;
    for number in 0..channels {
        target.create(&mut control, &name(number))?;
    }
    step("channels made")?;
    let publishers: Result<Vec<Line>> = (0..channels).map(|_| Line::new(target.address, 1024)).collect();
    let mut publishers = publishers?;
    let mut chunk = Chunk::new(WRITE, true);
    for seq in 0..WINDOW {
        for (number, line) in publishers.iter_mut().enumerate() {
            line.write(&target.post(&name(number), seq))?;
        }
        for _ in 0..WRITES {
            for line in &mut publishers {
                line.write(chunk.now())?;
            }
        }
        for line in &mut publishers {
            line.write(END)?;
        }
        for line in &mut publishers {
            answered(line)?;
        }
    }
    let payload = channels as u64 * WINDOW * (WRITES * WRITE) as u64;
    let full = step("windows full")?;
    for (number, line) in publishers.iter_mut().enumerate() {
        line.write(&target.post(&name(number), WINDOW))?;
    }
    let readers: Result<Vec<Line>> = (0..channels)
        .map(|number| {
            let mut line = Line::new(target.address, 1024)?;
            line.write(&target.get(&name(number), WINDOW))?;
            Ok(line)
        })
        .collect();
    let readers = readers?;
    // An answer on a connection that came after them: they have been seen.
    target.create(&mut control, &name(0))?;
    let connected = step("a publisher and a reader waiting in each")?;
    drop((publishers, readers));
    for number in 0..channels {
        target.delete(&mut control, &name(number))?;
    }
    step("channels deleted")?;
    Ok(json!({
        "channels": channels,
        "payload_bytes": payload,
        "full_by_payload": full as f64 / payload as f64,
        "connected_by_payload": connected as f64 / payload as f64,
        "steps": steps,
    }))
}
