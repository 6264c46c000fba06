//! What a demo run did, for people and for programs.

use std::fmt::Write;
use std::path::Path;

use comfy_pipelines::infergraph::Stats;
use comfy_pipelines::process::{Audio, Outcome};
use comfy_pipelines::sidebyside::Check;
use comfy_pipelines::trace::{Fill, Latency, Spread};
use serde::Serialize;

/// Points of the plot of the buffer's fill.
const SPANS: usize = 40;

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    input: Input,
    model: Model,
    output: Output,
    check: Checked,
    speed: Speed,
    batches: Batches,
    /// Milliseconds.
    latency_ms: Latency,
    /// Milliseconds of a mean batch.
    batch_ms: BatchTime,
    /// Frames.
    buffer: Buffer,
    stats: Stats,
    versions: Versions,
    stopped: bool,
}

#[derive(Debug, Serialize)]
struct Input {
    name: String,
    width: u32,
    height: u32,
    format: String,
    fps: f64,
    decoder: Option<String>,
}

#[derive(Debug, Serialize)]
struct Model {
    name: String,
    path: String,
    runtime: String,
    pictures: bool,
    tensors: u64,
}

#[derive(Debug, Serialize)]
struct Output {
    path: String,
    width: u32,
    height: u32,
    bytes: u64,
    encoder: &'static str,
    audio: String,
    contact_sheet: String,
}

#[derive(Debug, Serialize)]
struct Checked {
    frames_in: u64,
    frames_out: u64,
    lost: u64,
    strange: u64,
    changed_times: u64,
    frames_in_file: u64,
    file_deviation_ms: f64,
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Speed {
    /// With decoding, drawing and encoding, without loading the model.
    fps: f64,
    /// Of the input's own pace; absent when that is unknown.
    real_time: Option<f64>,
    /// What the model alone could do: frames by the time of its runs.
    model_fps: f64,
    seconds: f64,
    loading_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Batches {
    size: u32,
    count: u64,
    /// 0 to 1.
    fill: f64,
    full: u64,
    timeout: u64,
    end_of_stream: u64,
    padded_frames: u64,
}

#[derive(Debug, Serialize)]
struct BatchTime {
    convert: f64,
    run: f64,
    convert_back: f64,
}

#[derive(Debug, Serialize)]
struct Buffer {
    capacity: u32,
    underruns: u64,
    #[serde(flatten)]
    fill: Fill,
}

#[derive(Debug, Serialize)]
struct Versions {
    comfystream: &'static str,
    gstreamer: String,
    elements: String,
}

/// What the report cannot learn from the run itself.
pub(crate) struct About<'a> {
    pub(crate) input: &'a str,
    pub(crate) model: &'a str,
    pub(crate) output: &'a Path,
    pub(crate) contact_sheet: &'a Path,
    pub(crate) elements: String,
}

impl Report {
    pub(crate) fn new(about: &About<'_>, outcome: &Outcome) -> Self {
        let summary = outcome.trace.summary(SPANS);
        let info = outcome
            .input_caps
            .as_ref()
            .and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
        let rate = info.as_ref().map_or(0.0, |info| {
            f64::from(info.fps().numer()) / f64::from(info.fps().denom().max(1))
        });
        let infer = &outcome.stats.infer;
        let per_second = |frames: u64, seconds: f64| if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
        let ms = |ns: u64| ns as f64 / 1e6;
        let fps = per_second(outcome.check.frames_out, summary.busy.as_secs_f64());
        let Check {
            frames_in,
            frames_out,
            lost,
            strange,
            changed,
        } = outcome.check;
        let written = outcome.written;
        // Frames on their way when it was stopped were not lost on the way.
        let all = outcome.stopped || (lost == 0 && frames_in == frames_out);
        Self {
            input: Input {
                name: about.input.into(),
                width: info.as_ref().map_or(0, gst_video::VideoInfo::width),
                height: info.as_ref().map_or(0, gst_video::VideoInfo::height),
                format: info.as_ref().map(|info| info.format().to_string()).unwrap_or_default(),
                fps: rate,
                decoder: outcome.decoder.clone(),
            },
            model: Model {
                name: infer.model.clone(),
                path: about.model.into(),
                runtime: infer.runtime.clone(),
                pictures: infer.pictures,
                tensors: infer.tensors,
            },
            output: Output {
                path: about.output.display().to_string(),
                width: outcome.layout.as_ref().map_or(0, |layout| layout.width),
                height: outcome.layout.as_ref().map_or(0, |layout| layout.height),
                bytes: written.bytes,
                encoder: outcome.encoder,
                audio: match &outcome.audio {
                    Audio::None => "none in the input".into(),
                    Audio::Unchanged => "AAC, passed on unchanged".into(),
                    Audio::Encoded(encoder) => format!("AAC, encoded by {encoder}"),
                    Audio::LeftOut(why) => format!("left out: {why}"),
                },
                contact_sheet: about.contact_sheet.display().to_string(),
            },
            check: Checked {
                frames_in,
                frames_out,
                lost,
                strange,
                changed_times: changed,
                frames_in_file: written.frames,
                file_deviation_ms: written.deviation.as_secs_f64() * 1e3,
                // MP4 counts time in ticks of its own, of a fraction of a millisecond.
                passed: all
                    && strange == 0
                    && changed == 0
                    && written.frames == frames_out
                    && written.deviation.as_millis() < 1,
            },
            speed: Speed {
                fps,
                real_time: (rate > 0.0).then(|| fps / rate),
                model_fps: per_second(infer.frames, infer.run_ns as f64 * infer.batches as f64 / 1e9),
                seconds: summary.busy.as_secs_f64(),
                loading_seconds: summary.loading.as_secs_f64(),
            },
            batches: Batches {
                size: outcome.stats.batch.batch_size,
                count: outcome.stats.batch.batches,
                fill: outcome.stats.batch.fill,
                full: outcome.stats.batch.full,
                timeout: outcome.stats.batch.timeout,
                end_of_stream: outcome.stats.batch.eos,
                padded_frames: infer.padded,
            },
            latency_ms: summary.latency,
            batch_ms: BatchTime {
                convert: ms(infer.convert_ns),
                run: ms(infer.run_ns),
                convert_back: ms(infer.output_ns),
            },
            buffer: Buffer {
                capacity: outcome.stats.flight.capacity,
                underruns: outcome.stats.flight.underruns,
                fill: summary.fill,
            },
            stats: outcome.stats.clone(),
            versions: Versions {
                comfystream: env!("CARGO_PKG_VERSION"),
                gstreamer: gst::version_string().to_string(),
                elements: about.elements.clone(),
            },
            stopped: outcome.stopped,
        }
    }

    /// Why the output is not what it should be; None: it is.
    pub(crate) fn fault(&self) -> Option<String> {
        let check = &self.check;
        (!check.passed).then(|| {
            format!(
                "the output is not frame for frame what went in: {} frames in, {} out, {} lost, {} unknown, {} with \
                 other times, {} in the file with times off by up to {:.1} ms; please report this as a bug",
                check.frames_in,
                check.frames_out,
                check.lost,
                check.strange,
                check.changed_times,
                check.frames_in_file,
                check.file_deviation_ms
            )
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        let Self {
            input,
            model,
            output,
            check,
            speed,
            batches,
            latency_ms,
            batch_ms,
            buffer,
            versions,
            ..
        } = self;
        write!(
            to,
            "input     {}: {}x{} {}",
            input.name, input.width, input.height, input.format
        )?;
        if input.fps > 0.0 {
            write!(to, " at {} frames/s", rounded(input.fps))?;
        }
        writeln!(
            to,
            "{}",
            input
                .decoder
                .as_ref()
                .map(|by| format!(", decoded by {by}"))
                .unwrap_or_default()
        )?;
        writeln!(to, "model     {}", model.name)?;
        if !model.pictures {
            writeln!(
                to,
                "          makes no pictures: the input is shown alone; {} tensors were put beside its frames",
                model.tensors
            )?;
        }
        // Why nothing better runs it stands on lines of its own.
        writeln!(to, "runtime   {}", model.runtime.replace("; ", "\n          "))?;
        writeln!(
            to,
            "output    {}: {}x{}, {:.1} MB, encoded by {}",
            output.path,
            output.width,
            output.height,
            output.bytes as f64 / 1e6,
            output.encoder
        )?;
        writeln!(to, "          {}", output.contact_sheet)?;
        writeln!(to, "sound     {}", output.audio)?;
        writeln!(to)?;
        writeln!(
            to,
            "frames    {} in, {} out, {} in the file{}",
            check.frames_in,
            check.frames_out,
            check.frames_in_file,
            if self.stopped { " (stopped before the end)" } else { "" }
        )?;
        if check.passed {
            writeln!(
                to,
                "times     each frame has its own; in the file, read back, within {:.2} ms",
                check.file_deviation_ms
            )?;
        } else {
            writeln!(to, "FAULT     {}", self.fault().unwrap_or_default())?;
        }
        write!(to, "speed     {:.1} frames/s with decoding and encoding", speed.fps)?;
        if let Some(factor) = speed.real_time {
            write!(to, ", {factor:.2} x real time")?;
        }
        writeln!(to)?;
        if speed.model_fps > 0.0 {
            writeln!(
                to,
                "          {:.1} frames/s is the model's own pace beside that work; it was ready after {:.1} s",
                speed.model_fps, speed.loading_seconds
            )?;
        }
        writeln!(
            to,
            "batches   {} of at most {} frames, {:.1} % full: {} full, {} by timeout, {} at the end",
            batches.count,
            batches.size,
            batches.fill * 100.0,
            batches.full,
            batches.timeout,
            batches.end_of_stream
        )?;
        if batches.padded_frames > 0 {
            writeln!(
                to,
                "          {} empty places were run along, for a model of fixed batch size",
                batches.padded_frames
            )?;
        }
        writeln!(
            to,
            "          mean time of one: convert {:.2} ms, run {:.2} ms, convert back {:.2} ms",
            batch_ms.convert, batch_ms.run, batch_ms.convert_back
        )?;
        writeln!(
            to,
            "buffer    {} to {}, mean {:.1}, of {} frames; over time {}",
            buffer.fill.min,
            buffer.fill.max,
            buffer.fill.mean,
            buffer.capacity,
            sparkline(&buffer.fill.over_time, buffer.capacity.into())
        )?;
        writeln!(to)?;
        writeln!(to, "time of a frame, ms      mean      p50      p95      p99      max")?;
        for (name, spread) in [
            ("flight buffer", latency_ms.buffered),
            ("wait for batch", latency_ms.batching),
            ("model", latency_ms.inference),
            ("handing out", latency_ms.unbatching),
            ("all", latency_ms.total),
        ] {
            let Spread {
                mean,
                p50,
                p95,
                p99,
                max,
            } = spread;
            writeln!(to, "  {name:<18}{mean:>9.2}{p50:>9.2}{p95:>9.2}{p99:>9.2}{max:>9.2}")?;
        }
        writeln!(to)?;
        writeln!(
            to,
            "versions  comfystream {}, {}; elements {}",
            versions.comfystream, versions.gstreamer, versions.elements
        )
    }
}

/// Without a fraction where there is none.
fn rounded(rate: f64) -> String {
    let text = format!("{rate:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One character per value, from empty to full.
fn sparkline(values: &[f64], full: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |value: &f64| {
        let share = if full > 0.0 {
            (value / full).clamp(0.0, 1.0)
        } else {
            0.0
        };
        BARS[(share * (BARS.len() - 1) as f64).round() as usize]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_spans_from_empty_to_full() {
        assert_eq!(sparkline(&[0.0, 10.0, 20.0, 30.0], 20.0), "▁▅██");
        assert_eq!(sparkline(&[1.0], 0.0), "▁");
    }

    #[test]
    fn rates_have_no_needless_digits() {
        assert_eq!((rounded(30.0).as_str(), rounded(29.97).as_str()), ("30", "29.97"));
    }
}
