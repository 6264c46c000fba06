//! How far from the bus's own speed is the copy of one frame, from pinned and from other memory?

use std::sync::Arc;

use anyhow::Result;
use comfy_core::cuda::{DeviceBuffer, Pinned, Stream};
use comfy_core::tensor::PixelFormat;

use super::Setting;
use super::frames::{self, noise};
use crate::clock::{Clock, host};
use crate::driver;
use crate::figures::rounded;
use crate::schema::{Copies, CopyRow};

pub(crate) fn measure(setting: &Setting) -> Result<Copies> {
    let device = setting.gpu()?;
    let stream = Arc::new(Stream::new(device)?);
    let clock = Clock::on(Some(&stream))?;
    let large = if setting.dry_run { 1 << 20 } else { 256 << 20 };
    let count = if setting.dry_run { 3 } else { 200 };
    let memory = frames::filled(&stream, large)?;
    let (up_gb_s, down_gb_s) = {
        let up = pinned(&stream, large, true)?;
        let mut down = pinned(&stream, large, false)?;
        let rate = |us: f64| rounded(large as f64 / us / 1e3);
        (
            rate(clock.row(4, &mut || Ok(stream.upload(&up, 0..large, memory.address())?))?),
            rate(clock.row(4, &mut || Ok(stream.download(memory.address(), &mut down, 0..large)?))?),
        )
    };
    let mut rows = Vec::new();
    for (what, bytes) in sizes(setting) {
        for up in [true, false] {
            for is_pinned in [true, false] {
                let us = one(&stream, &memory, bytes, up, is_pinned, count)?;
                rows.push(CopyRow {
                    what: what.clone(),
                    bytes: bytes as u64,
                    up,
                    pinned: is_pinned,
                    us: rounded(us),
                });
            }
        }
    }
    stream.synchronize()?;
    Ok(Copies {
        up_gb_s,
        down_gb_s,
        rows,
    })
}

fn sizes(setting: &Setting) -> Vec<(String, usize)> {
    let shrink = if setting.dry_run { 8 } else { 1 };
    let mut sizes = Vec::new();
    for (width, height) in [(512, 512), (1920, 1080)] {
        let (width, height) = (width / shrink, height / shrink);
        for format in [PixelFormat::Nv12, PixelFormat::Rgba] {
            let spec = frames::spec(format, width, height);
            sizes.push((frames::name(&spec), frames::bytes(&spec)));
        }
        sizes.push((format!("f16 tensor {width}x{height}"), width * height * 6));
    }
    sizes
}

/// Microseconds from the call until the copy is done.
fn one(stream: &Stream, memory: &DeviceBuffer, bytes: usize, up: bool, is_pinned: bool, count: usize) -> Result<f64> {
    let address = memory.address();
    match (up, is_pinned) {
        (true, true) => {
            let from = pinned(stream, bytes, true)?;
            host(count, &mut || {
                stream.upload(&from, 0..bytes, address)?;
                Ok(stream.synchronize()?)
            })
        }
        (false, true) => {
            let mut to = pinned(stream, bytes, false)?;
            host(count, &mut || {
                stream.download(address, &mut to, 0..bytes)?;
                Ok(stream.synchronize()?)
            })
        }
        (true, false) => {
            let from = noise(bytes, 3);
            host(count, &mut || driver::upload(stream, &from, address))
        }
        (false, false) => {
            let mut to = noise(bytes, 4);
            host(count, &mut || driver::download(stream, address, &mut to))
        }
    }
}

fn pinned(stream: &Stream, bytes: usize, up: bool) -> Result<Pinned> {
    let mut memory = match up {
        true => Pinned::for_upload(stream.device(), bytes)?,
        false => Pinned::for_download(stream.device(), bytes)?,
    };
    memory.as_mut_slice().copy_from_slice(&noise(bytes, 5));
    Ok(memory)
}
