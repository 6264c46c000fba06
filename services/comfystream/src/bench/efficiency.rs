//! How much of the engine's own speed is left in a pipeline, and which batch is worth its wait?
//!
//! The engine is opened once. Passes of the chain and of the bare engine (`Lane::run` in a loop, on a batch that is
//! filled once) take turns, so that a disturbed minute disturbs both; the median of the ratios counts.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use comfy_core::engine::{Lane, LaneRequest};
use comfy_core::tensor::{Image, ImageSpec, IntoTensor, Matrix, PixelFormat, Plane};
use serde_json::{Value, json};

use super::chain::{Chain, Shared};
use super::frames::Frames;
use super::report::{Table, median, number, progress};
use super::{machine, plot};

/// What is measured.
pub(super) struct Plan<'a> {
    pub(super) model: &'a str,
    pub(super) batches: &'a [usize],
    pub(super) threads: u32,
    pub(super) seconds: f64,
    pub(super) passes: usize,
}

/// One batch size.
pub(super) struct Line {
    pub(super) batch: usize,
    pub(super) fps: f64,
    pub(super) raw_fps: f64,
    /// Median of the ratios of neighbouring passes.
    pub(super) ratio: f64,
    pub(super) ratios: Vec<f64>,
    /// Times as fast as the first batch size, which is 1 as a rule.
    pub(super) improvement: f64,
    /// fps(N) / fps(1) / N: 1 on an ideal machine that runs N images in the time of one.
    pub(super) efficiency: f64,
}

impl Line {
    fn ms_per_image(&self) -> f64 {
        1000.0 / self.fps
    }
}

/// All batch sizes of one model.
pub(super) struct Batches {
    pub(super) model: String,
    pub(super) runtime: String,
    pub(super) lines: Vec<Line>,
}

fn filled(shared: &Shared, batch: usize, frames: &Frames) -> Result<Box<dyn Lane>> {
    let request = LaneRequest {
        width: frames.size.width,
        height: frames.size.height,
        batch,
    };
    let mut lane = shared.engine.lane(&request)?;
    if shared.engine.is_identity() {
        return Ok(lane);
    }
    let spec = ImageSpec {
        format: PixelFormat::Rgb,
        width: frames.size.width,
        height: frames.size.height,
        matrix: Matrix::Bt601,
        range: comfy_core::tensor::ColorRange::Full,
    };
    let mut into = IntoTensor::new(spec, lane.geometry().input)?;
    for slot in 0..batch {
        let map = frames.buffers[slot % frames.buffers.len()]
            .map_readable()
            .context("a frame in memory")?;
        let mut image = Image::default();
        image.planes[0] = Plane {
            data: &map,
            stride: map.len() / frames.size.height,
        };
        into.run(&image, lane.input(slot))?;
    }
    Ok(lane)
}

fn raw(lane: &mut dyn Lane, batch: usize, frames: usize) -> Result<f64> {
    let runs = frames.div_ceil(batch).max(1);
    let begin = Instant::now();
    for _ in 0..runs {
        lane.run(batch)?;
    }
    Ok((runs * batch) as f64 / begin.elapsed().as_secs_f64())
}

/// What runs the model, without where it lies and why no other does.
fn runtime(text: &str) -> String {
    let end = text.find(", from ").or_else(|| text.find(';')).unwrap_or(text.len());
    text[..end].to_owned()
}

/// Measures every batch size.
pub(super) fn measure(plan: &Plan<'_>, frames: &Frames) -> Result<Batches> {
    eprintln!(
        "{}: {} frames of {} in memory",
        plan.model,
        frames.buffers.len(),
        frames.size
    );
    let shared = Shared::open(plan.model, plan.threads)?;
    let mut lines: Vec<Line> = Vec::new();
    for batch in plan.batches {
        let mut lane = filled(&shared, *batch, frames)?;
        let mut chain = Chain::new(&shared, *batch, frames)?;
        let speed = raw(&mut *lane, *batch, 2 * batch)?;
        let count = ((speed * plan.seconds) as usize).max(4 * batch);
        let (mut fps, mut raw_fps, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pass in 0..plan.passes {
            progress(&format!(
                "batch {batch}: pass {} of {}, {count} frames",
                pass + 1,
                plan.passes
            ));
            let piped = chain.frames_per_second(count)?;
            let bare = raw(&mut *lane, *batch, count)?;
            fps.push(piped);
            raw_fps.push(bare);
            ratios.push(piped / bare);
        }
        let fps = median(&fps);
        progress("");
        eprintln!("   batch {batch}: {fps:.1} frames per second");
        let improvement = fps / lines.first().map_or(fps, |line| line.fps);
        lines.push(Line {
            batch: *batch,
            fps,
            raw_fps: median(&raw_fps),
            ratio: median(&ratios),
            ratios,
            improvement,
            efficiency: improvement * lines.first().map_or(*batch, |line| line.batch) as f64 / *batch as f64,
        });
    }
    Ok(Batches {
        model: plan.model.into(),
        runtime: runtime(&shared.engine.spec().runtime),
        lines,
    })
}

/// As `batch.N.*`.
pub(super) fn json(table: &Batches) -> Value {
    let lines = table.lines.iter().map(|line| {
        let figures = json!({
            "fps": number(line.fps),
            "ms_per_image": number(line.ms_per_image()),
            "efficiency": number(line.efficiency),
            "improvement": number(line.improvement),
            "raw_fps": number(line.raw_fps),
            "ratio_to_raw": number(line.ratio),
            "ratios": line.ratios.iter().map(|ratio| number(*ratio)).collect::<Vec<_>>(),
        });
        (line.batch.to_string(), figures)
    });
    Value::Object(lines.collect())
}

fn table(batches: &Batches) -> Table {
    let mut table = Table::new(&[
        "batch",
        "pipeline / engine alone",
        "frames/s",
        "ms per image",
        "beside batch 1",
        "batch efficiency",
        "engine alone, frames/s",
    ]);
    for line in &batches.lines {
        table.line([
            line.batch.to_string(),
            format!("{:.3}", line.ratio),
            format!("{:.1}", line.fps),
            format!("{:.2}", line.ms_per_image()),
            format!("{:.2} x", line.improvement),
            format!("{:.2}", line.efficiency),
            format!("{:.1}", line.raw_fps),
        ]);
    }
    table
}

/// For a terminal.
pub(super) fn text(batches: &Batches) -> String {
    format!("{} ({})\n{}", batches.model, batches.runtime, table(batches).text())
}

/// Which batch to take.
pub(super) fn verdict(batches: &Batches) -> String {
    let best = batches.lines.iter().max_by(|a, b| a.fps.total_cmp(&b.fps));
    let Some(best) = best else { return String::new() };
    // A larger batch makes each frame wait for more others: it has to be worth that.
    let enough = batches
        .lines
        .iter()
        .find(|line| line.fps >= 0.97 * best.fps)
        .unwrap_or(best);
    format!(
        "Batch {} gives {:.1} frames per second, {:.2} times batch {}; the first frame of a batch waits for {} others.",
        enough.batch,
        enough.fps,
        enough.improvement,
        batches.lines.first().map_or(1, |line| line.batch),
        enough.batch - 1
    )
}

/// The part of `make bench`.
pub(super) fn all(report: &mut Value, frames: &Frames, folder: &Path) -> Result<()> {
    let sizes = [1, 2, 4, 8];
    let plan = |model, seconds, passes| Plan {
        model,
        batches: &sizes,
        threads: 0,
        seconds,
        passes,
    };
    let style = measure(&plan("models/style.onnx", 2.5, 3), frames)?;
    let null = measure(&plan("builtin:null?base=5ms&per-image=2ms", 1.0, 3), frames)?;
    let copy = measure(&plan("builtin:null?base=5ms&per-image=2ms&copy=true", 1.0, 3), frames)?;
    let least = |batches: &Batches| {
        number(
            batches
                .lines
                .iter()
                .map(|line| line.ratio)
                .fold(f64::INFINITY, f64::min),
        )
    };
    report["efficiency"] = json!({ "style": least(&style), "null": least(&null), "null_copy": least(&copy) });
    report["batch"] = json(&style);
    report["batch_null"] = json(&null);
    report["batch_null_copy"] = json(&copy);
    report["versions"]["engine"] = json!(style.runtime);
    let mut tables = String::new();
    for batches in [&style, &null, &copy] {
        tables += &format!(
            "`{}` ({})\n\n{}\n",
            batches.model,
            batches.runtime,
            table(batches).markdown()
        );
    }
    report["tables"]["efficiency"] = json!(tables.trim_end());
    plot::write(
        &folder.join("batch.svg"),
        &plot::batches(&style, &machine::line(report)),
    )
}
