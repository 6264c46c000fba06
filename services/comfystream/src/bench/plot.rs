//! What does the batch table look like? As SVG written by hand; as PNG through GStreamer's own SVG decoder.

use std::path::Path;

use anyhow::{Context, Result, bail};
use gst::prelude::*;

use super::efficiency::Batches;
use super::report;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;

/// A round step that cuts `most` into at most five.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// One panel of bars, with numbers on them.
fn panel(
    svg: &mut String,
    left: f64,
    (title, axis): (&str, &str),
    series: &[(&str, &str, Vec<f64>)],
    labels: &[String],
) {
    let (top, bottom, width) = (96.0, 380.0, 370.0);
    let most = series
        .iter()
        .flat_map(|(_, _, values)| values)
        .copied()
        .fold(0.0, f64::max);
    let step = step(most * 1.08);
    let most = (most * 1.08 / step).ceil() * step;
    let y = |value: f64| bottom - (bottom - top) * value / most;
    *svg += &format!("<text x='{left}' y='64' font-size='17' font-weight='bold'>{title}</text>\n");
    for (index, (name, colour, _)) in series.iter().enumerate() {
        let x = left + 150.0 * index as f64;
        *svg += &format!(
            "<rect x='{x}' y='74' width='12' height='12' fill='{colour}'/><text x='{}' y='84.5' font-size='13'>{name}</text>\n",
            x + 18.0
        );
    }
    let mut value = 0.0;
    while value <= most * 1.0001 {
        let (y, digits) = (y(value), if step < 1.0 { 2 } else { 0 });
        *svg += &format!(
            "<line x1='{left}' x2='{}' y1='{y:.1}' y2='{y:.1}' stroke='#ddd'/><text x='{}' y='{:.1}' font-size='12' text-anchor='end' fill='#555'>{value:.digits$}</text>\n",
            left + width,
            left - 6.0,
            y + 4.0
        );
        value += step;
    }
    let group = width / labels.len() as f64;
    let bar = (group * 0.8 / series.len() as f64).min(60.0);
    for (index, label) in labels.iter().enumerate() {
        let middle = left + group * (index as f64 + 0.5);
        for (number, (_, colour, values)) in series.iter().enumerate() {
            let (value, x) = (
                values[index],
                middle + bar * (number as f64 - series.len() as f64 / 2.0),
            );
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            *svg += &format!(
                "<rect x='{:.1}' y='{:.1}' width='{:.1}' height='{:.1}' fill='{colour}'/><text x='{:.1}' y='{:.1}' font-size='11' text-anchor='middle'>{value:.digits$}</text>\n",
                x + 1.0,
                y(value),
                bar - 2.0,
                bottom - y(value),
                x + bar / 2.0,
                y(value) - 4.0
            );
        }
        *svg += &format!(
            "<text x='{middle:.1}' y='{}' font-size='13' text-anchor='middle'>{label}</text>\n",
            bottom + 18.0
        );
    }
    *svg += &format!(
        "<text x='{}' y='{}' font-size='13' text-anchor='middle' fill='#555'>{axis}</text>\n",
        left + width / 2.0,
        bottom + 38.0
    );
}

/// Frames per second and batch efficiency, bar by bar.
pub(super) fn batches(table: &Batches, machine: &str) -> String {
    let column = |of: fn(&super::efficiency::Line) -> f64| -> Vec<f64> { table.lines.iter().map(of).collect() };
    let labels: Vec<String> = table.lines.iter().map(|line| line.batch.to_string()).collect();
    let mut svg = head(&table.model);
    let speeds = [
        ("pipeline", "#2b6cb0", column(|line| line.fps)),
        ("engine alone", "#a0aec0", column(|line| line.raw_fps)),
    ];
    panel(&mut svg, 60.0, ("Frames per second", "batch"), &speeds, &labels);
    let ratios = [
        ("times batch 1", "#2f855a", column(|line| line.improvement)),
        ("batch efficiency", "#d69e2e", column(|line| line.efficiency)),
    ];
    panel(&mut svg, 540.0, ("What the batch brings", "batch"), &ratios, &labels);
    svg += &foot(machine);
    svg
}

fn head(title: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='DejaVu Sans, Verdana, sans-serif'>\n<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n<text x='60' y='32' font-size='19' font-weight='bold'>{}</text>\n",
        escaped(title)
    )
}

fn foot(machine: &str) -> String {
    format!(
        "<text x='60' y='442' font-size='11' fill='#555'>{}</text>\n</svg>\n",
        escaped(machine)
    )
}

/// A relay beside plain TCP, by readers: first byte in microseconds and bytes per second, both of relay and floor.
pub(super) fn relay(labels: &[String], first: [Vec<f64>; 2], rate: [Vec<f64>; 2], machine: &str) -> String {
    let series = |[relay, floor]: [Vec<f64>; 2]| [("relay", "#2b6cb0", relay), ("plain TCP", "#a0aec0", floor)];
    let mut svg = head("One publisher, many readers");
    let title = ("First byte, median, us", "readers");
    panel(&mut svg, 60.0, title, &series(first), labels);
    let title = ("MB/s, all readers together", "readers");
    panel(&mut svg, 540.0, title, &series(rate), labels);
    svg += &foot(machine);
    svg
}

/// Writes .svg as it is, .png through `rsvgdec`.
pub(super) fn write(path: &Path, svg: &str) -> Result<()> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => report::write(path, svg),
        Some("png") => {
            let pipeline = gst::parse::launch(
                "appsrc name=svg caps=image/svg+xml format=time ! rsvgdec ! videoconvert ! pngenc snapshot=true ! appsink name=png sync=false",
            )
            .context("a .png needs GStreamer's rsvgdec and pngenc (Debian: gstreamer1.0-plugins-bad and -good); a .svg needs nothing")?;
            let pipeline = pipeline.downcast::<gst::Pipeline>().expect("several elements");
            let source = pipeline
                .by_name("svg")
                .and_downcast::<gst_app::AppSrc>()
                .expect("named above");
            let sink = pipeline
                .by_name("png")
                .and_downcast::<gst_app::AppSink>()
                .expect("named above");
            pipeline.set_state(gst::State::Playing)?;
            let mut buffer = gst::Buffer::from_slice(svg.to_owned().into_bytes());
            buffer.make_mut().set_pts(gst::ClockTime::ZERO);
            let _ = source.push_buffer(buffer);
            let _ = source.end_of_stream();
            let sample = sink.pull_sample();
            pipeline.set_state(gst::State::Null)?;
            let sample = sample.context("the plot could not be drawn as .png; take .svg")?;
            let map = sample.buffer().context("a picture")?.map_readable()?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, &map[..]).with_context(|| format!("{} cannot be written", path.display()))
        }
        _ => bail!("{}: the plot is .svg or .png", path.display()),
    }
}
