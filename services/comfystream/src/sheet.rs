//! The contact sheet: moments of a video, each before above after.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use comfy_pipelines::sidebyside::{Pair, square, still};
use gst_video::prelude::*;

use crate::moments::Moments;

/// Moments shown, and how many of them side by side.
const MOMENTS: usize = 8;
const COLUMNS: usize = 4;
/// Pixels: the longest side of a picture, the space between moments, and between before and after.
const CELL: u32 = 400;
const GAP: usize = 12;
const SEAM: usize = 3;
const BACKGROUND: [u8; 3] = [0x18, 0x18, 0x18];
/// A model that makes pictures this much larger is about detail, which a picture made small does not show.
const ENLARGED: f64 = 1.5;

/// Collects moments while frames pass.
pub(crate) struct Sheet {
    moments: Mutex<Collected>,
}

struct Collected {
    moments: Moments<Moment>,
    cell: Option<(u32, u32)>,
    /// Why the last one that could not be drawn could not.
    failure: Option<anyhow::Error>,
}

/// RGB pictures of the cell's size, without padding.
struct Moment {
    before: Option<Vec<u8>>,
    after: Vec<u8>,
}

impl Sheet {
    pub(crate) fn new() -> Self {
        Self {
            moments: Mutex::new(Collected {
                moments: Moments::new(MOMENTS),
                cell: None,
                failure: None,
            }),
        }
    }

    /// Sees every pair of frames.
    pub(crate) fn see(&self, pair: &Pair<'_>) {
        let Ok(mut collected) = self.moments.lock() else { return };
        let cell = *collected.cell.get_or_insert_with(|| cell(square(pair.after.info())));
        let Collected { moments, failure, .. } = &mut *collected;
        // One that cannot be drawn leaves a gap in the sheet and none in the video.
        moments.offer(|| Moment::new(pair, cell).map_err(|error| *failure = Some(error)).ok());
    }

    /// Writes what was collected.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut collected = self.moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let moments = std::mem::replace(&mut collected.moments, Moments::new(MOMENTS)).chosen();
        let (Some(cell), false) = (collected.cell, moments.is_empty()) else {
            let why = collected
                .failure
                .take()
                .map_or_else(String::new, |error| format!(": {error:#}"));
            bail!("no frame could be drawn for {}{why}", path.display());
        };
        let (pixels, width, height) = draw(&moments, (cell.0 as usize, cell.1 as usize));
        let write = || -> Result<()> {
            let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width as u32, height as u32);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&pixels)?;
            Ok(writer.finish()?)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(())
    }
}

impl Moment {
    fn new(pair: &Pair<'_>, cell: (u32, u32)) -> Result<Self> {
        let after_size = square(pair.after.info());
        let before_size = pair.before.map(|before| square(before.info()));
        let enlarged = before_size.is_some_and(|size| f64::from(after_size.0) >= f64::from(size.0) * ENLARGED);
        // The share of the picture that fills the cell when it is not made smaller.
        let share = if enlarged {
            let share = (f64::from(cell.0) / f64::from(after_size.0)).min(f64::from(cell.1) / f64::from(after_size.1));
            share.min(1.0)
        } else {
            1.0
        };
        Ok(Self {
            before: pair.before.map(|frame| picture(frame, cell, share)).transpose()?,
            after: picture(pair.after, cell, share)?,
        })
    }
}

/// A size of this shape that fits in a square of [`CELL`].
fn cell((width, height): (u32, u32)) -> (u32, u32) {
    let scale = f64::from(CELL) / f64::from(width.max(height).max(1));
    let side = |n: u32| ((f64::from(n) * scale).round() as u32).max(2);
    (side(width), side(height))
}

/// The middle of a frame, `share` of its sides long, as RGB of the cell's size.
fn picture(
    frame: &gst_video::VideoFrameRef<&gst::BufferRef>,
    (width, height): (u32, u32),
    share: f64,
) -> Result<Vec<u8>> {
    let from = frame.info();
    let to = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height).build()?;
    let mut config = gst_video::VideoConverterConfig::new();
    let part = |side: u32| ((f64::from(side) * share).round() as i32).clamp(1, side as i32);
    let (part_width, part_height) = (part(from.width()), part(from.height()));
    config.set_src_x(((from.width() as i32 - part_width) / 2) & !1);
    config.set_src_y(((from.height() as i32 - part_height) / 2) & !1);
    config.set_src_width(Some(part_width));
    config.set_src_height(Some(part_height));
    let converter = gst_video::VideoConverter::new(&still(from)?, &to, Some(config))?;
    let mut target = gst_video::VideoFrame::from_buffer_writable(gst::Buffer::with_size(to.size())?, &to)
        .map_err(|_| anyhow::anyhow!("a picture cannot be mapped"))?;
    converter.frame_ref(frame, &mut target.as_mut_video_frame_ref());
    let (stride, row) = (to.stride()[0] as usize, width as usize * 3);
    let data = target.plane_data(0)?;
    Ok(data
        .chunks(stride)
        .take(height as usize)
        .flat_map(|line| &line[..row])
        .copied()
        .collect())
}

fn draw(moments: &[Moment], (width, height): (usize, usize)) -> (Vec<u8>, usize, usize) {
    let pairs = moments.iter().any(|moment| moment.before.is_some());
    let high = if pairs { 2 * height + SEAM } else { height };
    let columns = moments.len().min(COLUMNS);
    let rows = moments.len().div_ceil(columns);
    let (full_width, full_height) = (columns * (width + GAP) + GAP, rows * (high + GAP) + GAP);
    let mut pixels = BACKGROUND.repeat(full_width * full_height);
    let mut put = |picture: &[u8], x: usize, y: usize| {
        for (line, row) in picture.chunks_exact(width * 3).enumerate() {
            let at = ((y + line) * full_width + x) * 3;
            pixels[at..at + row.len()].copy_from_slice(row);
        }
    };
    for (number, moment) in moments.iter().enumerate() {
        let x = GAP + number % columns * (width + GAP);
        let y = GAP + number / columns * (high + GAP);
        match &moment.before {
            Some(before) => {
                put(before, x, y);
                put(&moment.after, x, y + height + SEAM);
            }
            None => put(&moment.after, x, y),
        }
    }
    (pixels, full_width, full_height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_shape() {
        assert_eq!(cell((640, 360)), (400, 225));
        assert_eq!(cell((360, 640)), (225, 400));
        assert_eq!(cell((1, 4000)), (2, 400));
    }

    #[test]
    fn before_lies_above_after_with_gaps_around() {
        let moment = |value| Moment {
            before: Some(vec![value; 4 * 2 * 3]),
            after: vec![value + 1; 4 * 2 * 3],
        };
        let moments: Vec<Moment> = (0..5).map(|n| moment(n * 10)).collect();
        let (pixels, width, height) = draw(&moments, (4, 2));
        assert_eq!((width, height), (4 * (4 + GAP) + GAP, 2 * (4 + SEAM + GAP) + GAP));
        let at = |x: usize, y: usize| pixels[(y * width + x) * 3];
        assert_eq!((at(0, 0), at(GAP, GAP), at(GAP, GAP + 2 + SEAM)), (BACKGROUND[0], 0, 1));
        assert_eq!(at(GAP, GAP + 2), BACKGROUND[0]);
        assert_eq!(at(2 * GAP + 4, GAP), 10);
        assert_eq!(at(GAP, 2 * GAP + 4 + SEAM), 40);
    }
}
