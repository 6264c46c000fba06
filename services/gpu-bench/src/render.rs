//! What does a measurement say, as a part of docs/PERFORMANCE.md? Each figure beside its floor or goal.

use crate::figures::gain;
use crate::schema::{FitRow, ModelTimes, Report, Runner};

/// Of the whole way of a batch by the engine alone.
const BUSY_GOAL: f64 = 0.98;

/// What the page says before anybody has measured.
pub(crate) const UNMEASURED: &str = "\
**Nothing has been measured on a GPU yet.** What is written below about method and goals holds; figures are missing, and
with them the proof of what follows. Tested without a GPU, on a simulated driver or the processor: that the calls are
made, in the right order, on the right memory. Unproven until `make gpu-bench` has run on a machine with one:

| unproven | goal |
|---|---:|
| ONNX Runtime's CUDA provider gives what its processor gives, for every sample model | within 0.01 |
| time per call of `style`, TAESD and an SD1.5-shaped UNet, with CUDA graphs and without, beside PyTorch fp16 | - |
| what batches of 2, 4 and 8 gain, and what two sessions on two streams gain | - |
| a compiled TensorRT engine runs | within 0.01 |
| conversion of a batch of 4 at 512x512 into the tensor and back, on an H100 | < 15 us |
| copies, beside the rate of large pinned ones | - |
| the engine's share of a batch's whole way, without GStreamer | >= 0.98 |
| a pointer of a private context, used in the primary one | - |
";

/// A table of texts.
struct Table(String, usize);

impl Table {
    fn new(heads: &[&str]) -> Self {
        let rule = "---:|".repeat(heads.len() - 1);
        Self(format!("| {} |\n|---|{rule}\n", heads.join(" | ")), heads.len())
    }

    fn line(&mut self, cells: &[String]) {
        assert_eq!(cells.len(), self.1, "{cells:?}");
        self.0 += &format!("| {} |\n", cells.join(" | "));
    }
}

/// With as many digits as mean anything.
fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), figure)
}

fn met(met: bool) -> String {
    if met { "yes".into() } else { "**no**".into() }
}

/// The part between the markers; `file` is the measurement's name without an extension.
pub(crate) fn page(report: &Report, file: &str) -> String {
    let mut parts = vec![machine(report, file)];
    parts.extend(report.oracle.as_ref().map(|rows| {
        let mut table = Table::new(&[
            "model",
            "batch",
            "provider",
            "difference from the processor",
            "goal",
            "met",
        ]);
        for row in rows {
            table.line(&[
                format!("`{}`", row.model),
                row.batch.to_string(),
                row.provider.clone(),
                format!("{:.1e}", row.difference),
                "< 0.01".into(),
                met(row.met),
            ]);
        }
        format!("Right results\n\n{}", table.0)
    }));
    parts.extend(report.models.iter().flatten().map(|model| times(model, report)));
    parts.extend(report.kernels.as_ref().map(|kernels| {
        let mut table = Table::new(&[
            "conversion",
            "batch",
            "CUDA graph",
            "of the floor",
            "us a batch",
            "floor, us",
            "goal, us",
            "met",
        ]);
        for row in &kernels.rows {
            let floor = row.bytes as f64 / kernels.memory_gb_s / 1e3;
            table.line(&[
                format!("{}, {}", row.what, row.conversion),
                row.batch.to_string(),
                if row.graph { "yes" } else { "no" }.into(),
                figure(row.us / floor),
                figure(row.us),
                figure(floor),
                row.goal_us.map_or_else(|| "-".into(), |goal| format!("< {goal}")),
                row.goal_us.map_or_else(|| "-".into(), |goal| met(row.us < goal)),
            ]);
        }
        format!(
            "Conversion on the device; the floor is bytes by the rate of a device copy of 256 MiB, {} GB/s read and \
             written\n\n{}",
            figure(kernels.memory_gb_s),
            table.0
        )
    }));
    parts.extend(report.copies.as_ref().map(|copies| {
        let mut table = Table::new(&["one frame", "way", "memory", "of the floor", "us", "floor, us"]);
        for row in &copies.rows {
            let rate = if row.up { copies.up_gb_s } else { copies.down_gb_s };
            let floor = row.bytes as f64 / rate / 1e3;
            table.line(&[
                row.what.clone(),
                if row.up { "up" } else { "down" }.into(),
                if row.pinned { "pinned" } else { "pageable" }.into(),
                figure(row.us / floor),
                figure(row.us),
                figure(floor),
            ]);
        }
        format!(
            "Copies; the floor is bytes by the rate of pinned copies of 256 MiB, {} GB/s up and {} GB/s down\n\n{}",
            figure(copies.up_gb_s),
            figure(copies.down_gb_s),
            table.0
        )
    }));
    parts.extend(report.busy.as_ref().map(|busy| {
        let mut table = Table::new(&[
            "batch",
            "share, least of the passes",
            "goal",
            "met",
            "frames/s, median",
            "engine alone, median",
            "waits of a thread a batch",
            "allocations a batch",
        ]);
        for row in &busy.rows {
            table.line(&[
                row.batch.to_string(),
                format!("{:.4}", row.share),
                format!(">= {BUSY_GOAL}"),
                met(row.share >= BUSY_GOAL),
                figure(median(&row.fps)),
                figure(median(&row.raw_fps)),
                or_dash(row.waits_per_batch),
                figure(row.allocations_per_batch),
            ]);
        }
        format!(
            "The engine's share of the whole way of a batch, `{}`\n\n{}",
            busy.model, table.0
        )
    }));
    parts.extend(report.tensorrt.as_ref().map(|engine| {
        let mut table = Table::new(&["batch", "time beside the CUDA provider's", "gain of the batch"]);
        for row in &engine.rows {
            table.line(&[row.batch.to_string(), or_dash(row.of_cuda), figure(row.gain)]);
        }
        let right = engine.difference.map_or_else(
            || "not compared with a model".into(),
            |difference| format!("{difference:.1e} from the model on the processor"),
        );
        format!(
            "A compiled TensorRT engine, `{}`: {right}; ratios alone\n\n{}",
            engine.engine, table.0
        )
    }));
    parts.extend(report.contexts.as_ref().map(|contexts| {
        let mut table = Table::new(&["a buffer of a private context", "us", "right", "refused with"]);
        for row in &contexts.rows {
            table.line(&[
                row.what.clone(),
                or_dash(row.us),
                met(row.right),
                row.refused.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        let mib = contexts.bytes as f64 / f64::from(1 << 20);
        format!("Contexts, {mib:.1} MiB each\n\n{}", table.0)
    }));
    if !report.failures.is_empty() {
        let list: String = report
            .failures
            .iter()
            .map(|failure| format!("- {}: {}\n", failure.what, failure.reason))
            .collect();
        parts.push(format!("Not measured, and why\n\n{list}"));
    }
    parts.join("\n")
}

fn machine(report: &Report, file: &str) -> String {
    let (machine, versions) = (&report.machine, &report.versions);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
    format!(
        "{} ({} GiB, compute capability {}), {}, {} cores; driver {} (CUDA {}); ONNX Runtime {}; PyTorch {}; commit {}; \
         {}: [{file}.json](measurements/{file}.json), by `{}`\n",
        text(&machine.gpu),
        machine
            .gpu_memory_gib
            .map_or_else(|| "?".into(), |gib| format!("{gib:.0}")),
        text(&machine.architecture),
        text(&machine.cpu),
        machine.cores,
        text(&versions.driver),
        text(&versions.driver_cuda),
        text(&versions.onnxruntime),
        versions.torch.clone().unwrap_or_else(|| "not there".into()),
        text(&versions.commit),
        report.date,
        report.command,
    )
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median of a row, if it was measured.
fn time(model: &ModelTimes, runner: Runner, graph: bool, batch: usize) -> Option<f64> {
    let row = model
        .rows
        .iter()
        .find(|row| row.runner == runner && row.graph == graph && row.batch == batch)?;
    Some(row.ms.p50)
}

fn runner(fit: &FitRow) -> String {
    let who = match fit.runner {
        Runner::Ours => "ONNX Runtime",
        Runner::Torch => "PyTorch",
    };
    format!("{who}{}", if fit.graph { ", CUDA graph" } else { "" })
}

/// One model: times by batch, the line through them, two streams beside a batch of two.
fn times(model: &ModelTimes, report: &Report) -> String {
    let mut batches: Vec<usize> = model.rows.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let mut table = Table::new(&[
        "batch",
        "beside PyTorch, CUDA graphs",
        "ms a call",
        "CUDA graph",
        "PyTorch fp16",
        "PyTorch, CUDA graph",
        "images/s beside batch 1, CUDA graph",
        "PyTorch, the same",
    ]);
    for batch in batches {
        let at = |runner, graph| time(model, runner, graph, batch);
        let of = |runner| {
            let one = time(model, runner, true, 1)?;
            Some(gain(one, batch, at(runner, true)?))
        };
        let (ours, torch) = (at(Runner::Ours, true), at(Runner::Torch, true));
        table.line(&[
            batch.to_string(),
            or_dash(ours.zip(torch).map(|(ours, torch)| ours / torch)),
            or_dash(at(Runner::Ours, false)),
            or_dash(ours),
            or_dash(at(Runner::Torch, false)),
            or_dash(torch),
            or_dash(of(Runner::Ours)),
            or_dash(of(Runner::Torch)),
        ]);
    }
    let sizes: Vec<String> = model
        .sizes
        .iter()
        .map(|(name, size)| format!("{name} {size}"))
        .collect();
    let right = model.difference.map_or_else(
        || "not compared with the processor".into(),
        |difference| format!("{difference:.1e} from the processor"),
    );
    let mut text = format!("`{}`, fp16, {}; {right}\n\n{}", model.model, sizes.join(", "), table.0);
    if !model.fits.is_empty() {
        let mut table = Table::new(&[
            "T(B) = a + b B",
            "a, ms",
            "b, ms",
            "residual, ms",
            "gain of 2 on the line",
            "expected",
        ]);
        for fit in &model.fits {
            let on_line = 2.0 * (fit.a_ms + fit.b_ms) / (fit.a_ms + 2.0 * fit.b_ms);
            table.line(&[
                runner(fit),
                figure(fit.a_ms),
                figure(fit.b_ms),
                figure(fit.residual_ms),
                figure(on_line),
                expected(&model.model, report).unwrap_or("-").into(),
            ]);
        }
        text += &format!("\n{}", table.0);
    }
    if !model.streams.is_empty() {
        let mut table = Table::new(&[
            "two sessions on two streams, batch 1",
            "images/s beside one session",
            "a batch of 2 beside one session",
            "ms a pair",
            "ms a batch of 2",
        ]);
        for row in &model.streams {
            table.line(&[
                if row.graph { "CUDA graphs" } else { "plain" }.into(),
                figure(gain(row.one_ms, 2, row.pair_ms)),
                figure(gain(row.one_ms, 2, row.batch2_ms)),
                figure(row.pair_ms),
                figure(row.batch2_ms),
            ]);
        }
        text += &format!("\n{}", table.0);
    }
    text
}

/// What was worked out from others' figures before anything was measured: docs/GPU.md has the arithmetic.
fn expected(model: &str, report: &Report) -> Option<&'static str> {
    let gpu = report.machine.gpu.as_deref()?;
    if model != "unet" {
        return None;
    }
    let known = [("H100", "1.37 to 1.54"), ("A100", "1.35"), ("4090", "1.17 to 1.23")];
    known
        .into_iter()
        .find(|(name, _)| gpu.contains(name))
        .map(|(_, gain)| gain)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures that nobody measured.
    pub(crate) fn sample() -> Report {
        let report: Report = serde_json::from_str(include_str!("../testdata/invented.json")).expect("of this schema");
        assert!(report.invented, "test data says that it is");
        report
    }

    #[test]
    fn each_figure_stands_beside_its_floor_or_goal() {
        let page = page(&sample(), "invented");
        for line in [
            // 7.2 of 8.0, and 2 x 7.2 / 10.
            "| 1 | 0.900 | 9.000 | 7.200 | 9.500 | 8.000 | 1.000 | 1.000 |",
            "| 2 | 0.909 | 12.00 | 10.00 | 13.00 | 11.00 | 1.440 | 1.455 |",
            "| ONNX Runtime, CUDA graph | 4.400 | 2.800 | 0.000 | 1.440 | 1.37 to 1.54 |",
            "| CUDA graphs | 1.309 | 1.440 | 11.00 | 10.00 |",
            "| pre+post, NV12 512x512 -> f16 512x512 -> NV12 512x512 | 4 | yes | 1.907 | 10.00 | 5.243 | < 15 | yes |",
            "| pre+post, NV12 512x512 -> f16 512x512 -> NV12 512x512 | 4 | no | 3.815 | 20.00 | 5.243 | < 15 | **no** |",
            "| NV12 512x512 | up | pinned | 1.272 | 10.00 | 7.864 |",
            "| 4 | 0.9850 | >= 0.98 | yes | 990.0 | 1000 | 2.000 | 0.000 |",
            "| `style` | 2 | cuda | 1.0e-3 | < 0.01 | yes |",
            "| 2 | 0.800 | 1.500 |",
            "| a kernel of the primary context reads it | - | **no** | 700: an illegal address |",
            "- pyramids: none were found",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(
            page.starts_with("A GPU like an H100 that does not exist (1 GiB"),
            "{page}"
        );
        // A table begins behind an empty line, or a page shows its bars.
        let lines: Vec<&str> = page.lines().collect();
        for pair in lines.windows(2) {
            assert!(
                !pair[1].starts_with("| ") || pair[0].is_empty() || pair[0].starts_with('|'),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn a_report_survives_its_own_file() {
        let report = sample();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(serde_json::from_str::<Report>(&text.replacen("\"schema\"", "\"scheme\"", 1)).is_err());
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut report = sample();
        (report.models, report.kernels, report.copies, report.busy) = (None, None, None, None);
        (report.oracle, report.tensorrt, report.contexts) = (None, None, None);
        report.failures.clear();
        assert_eq!(page(&report, "invented").lines().count(), 1);
    }
}
