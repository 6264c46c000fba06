//! What is a buffer of a private context worth in the primary one? GStreamer's decoders make contexts of their own, and
//! CUDA's documentation promises nothing about using their memory elsewhere.
//!
//! A kernel that follows a pointer it may not follow ruins the context of the whole process, so that this part is run in
//! a process of its own, and the kernel comes last.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use comfy_core::cuda::{Device, DeviceBuffer, Pinned, Stream};
use comfy_core::tensor::{DType, DevicePlane};

use super::Setting;
use super::frames::noise;
use crate::clock::Clock;
use crate::driver::Private;
use crate::figures::rounded;
use crate::schema::{ContextRow, Contexts};

/// Queues what is tried.
type Queue<'a> = &'a mut dyn FnMut() -> Result<()>;

/// In a process of its own.
pub(crate) fn measure(setting: &Setting) -> Result<Contexts> {
    let device = setting.gpu()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("contexts")
        .args(["--device", &device.ordinal().to_string()]);
    if setting.dry_run {
        command.arg("--dry-run");
    }
    let output = command.output().context("running this program once more")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("what the second process wrote")
}

/// In this one, which is of no use to anybody afterwards.
pub(crate) fn here(device: &Arc<Device>, dry_run: bool) -> Result<Contexts> {
    // A frame of 1080p as NV12, in rows of 2048 bytes.
    let (row, rows) = if dry_run { (256, 16) } else { (2048, 1620) };
    let (bytes, count) = (row * rows, if dry_run { 3 } else { 100 });
    let pattern = noise(bytes, 6);
    let stream = Arc::new(Stream::new(device)?);
    let clock = Clock::on(Some(&stream))?;
    let foreign = Private::new(device, &pattern)?;
    let own = DeviceBuffer::new(device, bytes)?;
    let target = DeviceBuffer::new(device, bytes)?;
    foreign.copy_to(own.address(), bytes, &stream)?;
    stream.synchronize()?;
    let kernels = device.kernels()?;
    let inverted: Vec<u8> = pattern.iter().map(|byte| !byte).collect();
    let plane = |address: u64| DevicePlane { address, stride: row };
    let (own, to) = (own.address(), target.address());
    let tried: [(&str, &[u8], Queue<'_>); 5] = [
        ("beside it: a copy within the primary context", &pattern, &mut || {
            Ok(stream.copy(own, to, bytes)?)
        }),
        (
            "beside it: a kernel reads memory of the primary context",
            &inverted,
            &mut || Ok(kernels.invert(&stream, DType::U8, own, to, bytes)?),
        ),
        ("a peer copy brings it over", &pattern, &mut || {
            foreign.copy_to(to, bytes, &stream)
        }),
        ("a peer copy brings it over by rows", &pattern, &mut || {
            let (from, to) = (plane(foreign.address()), plane(to));
            foreign.copy_rows_to(from, to, (row, rows), &stream)
        }),
        ("a kernel of the primary context reads it", &inverted, &mut || {
            Ok(kernels.invert(&stream, DType::U8, foreign.address(), to, bytes)?)
        }),
    ];
    let mut made = Vec::new();
    for (what, expected, queue) in tried {
        let result = stream
            .fill(to, 0x55, bytes)
            .map_err(anyhow::Error::from)
            .and_then(|()| clock.row(count, queue))
            .and_then(|us| Ok((us, read(&stream, to, bytes)? == expected)));
        made.push(match result {
            Ok((us, right)) => ContextRow {
                what: what.into(),
                us: Some(rounded(us)),
                right,
                refused: None,
            },
            Err(error) => ContextRow {
                what: what.into(),
                us: None,
                right: false,
                refused: Some(format!("{error:#}")),
            },
        });
    }
    Ok(Contexts {
        bytes: bytes as u64,
        rows: made,
    })
}

fn read(stream: &Stream, from: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut host = Pinned::for_download(stream.device(), bytes)?;
    stream.download(from, &mut host, 0..bytes)?;
    stream.synchronize()?;
    Ok(host.as_slice().to_vec())
}
