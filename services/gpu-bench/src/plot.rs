//! What does T(B) look like? Points and the lines through them, as SVG written by hand.

use crate::schema::{ModelTimes, Report, Runner};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const COLOURS: [(Runner, bool, &str, &str); 4] = [
    (Runner::Ours, true, "ONNX Runtime, CUDA graph", "#2b6cb0"),
    (Runner::Ours, false, "ONNX Runtime", "#90cdf4"),
    (Runner::Torch, true, "PyTorch, CUDA graph", "#c05621"),
    (Runner::Torch, false, "PyTorch", "#fbd38d"),
];

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A round step that cuts `most` into at most five.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// The heaviest model's times, and what the batch brings. None without models.
pub(crate) fn svg(report: &Report) -> Option<String> {
    let slowest = |model: &ModelTimes| model.rows.iter().map(|row| row.ms.p50).fold(0.0, f64::max);
    let models = report.models.as_ref()?.iter().filter(|model| !model.rows.is_empty());
    let model = models.max_by(|a, b| slowest(a).total_cmp(&slowest(b)))?;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='DejaVu Sans, Verdana, sans-serif'>\n<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n<text x='60' y='32' font-size='19' font-weight='bold'>{}: time by batch, and what a batch brings</text>\n",
        escaped(&model.model)
    );
    panel(
        &mut svg,
        60.0,
        "ms a call, with T(B) = a + b B",
        model,
        &|_, time, _| time,
    );
    panel(
        &mut svg,
        540.0,
        "Images per second beside batch 1",
        model,
        &|batch, time, one| batch * one / time,
    );
    for (index, (runner, graph, name, colour)) in COLOURS.iter().enumerate() {
        if model
            .rows
            .iter()
            .any(|row| row.runner == *runner && row.graph == *graph)
        {
            let x = 60.0 + 220.0 * index as f64;
            svg += &format!(
                "<rect x='{x}' y='412' width='12' height='12' fill='{colour}'/><text x='{}' y='422.5' font-size='13'>{name}</text>\n",
                x + 18.0
            );
        }
    }
    let machine = &report.machine;
    svg += &format!(
        "<text x='60' y='448' font-size='11' fill='#555'>{}, {}; commit {}; {}</text>\n</svg>\n",
        escaped(machine.gpu.as_deref().unwrap_or("the processor")),
        escaped(machine.cpu.as_deref().unwrap_or("?")),
        escaped(report.versions.commit.as_deref().unwrap_or("?")),
        escaped(&report.date)
    );
    Some(svg)
}

/// One panel; `value` of (batch, time, time of batch 1).
fn panel(svg: &mut String, left: f64, title: &str, model: &ModelTimes, value: &dyn Fn(f64, f64, f64) -> f64) {
    let (top, bottom, width) = (70.0, 370.0, 370.0);
    let mut series = Vec::new();
    for (runner, graph, _, colour) in COLOURS {
        let rows = model
            .rows
            .iter()
            .filter(|row| row.runner == runner && row.graph == graph);
        let times: Vec<(f64, f64)> = rows.map(|row| (row.batch as f64, row.ms.p50)).collect();
        let Some(one) = times.iter().find(|(batch, _)| *batch == 1.0).map(|(_, time)| *time) else {
            continue;
        };
        let points = times
            .iter()
            .map(|(batch, time)| (*batch, value(*batch, *time, one)))
            .collect::<Vec<_>>();
        let fit = model.fits.iter().find(|fit| fit.runner == runner && fit.graph == graph);
        let line = fit
            .map(|fit| [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(|b| (b, value(b, fit.a_ms + fit.b_ms * b, one))));
        series.push((colour, points, line));
    }
    let most_batch = model.rows.iter().map(|row| row.batch).max().unwrap_or(1).max(2) as f64;
    let most = series
        .iter()
        .flat_map(|(_, points, _)| points)
        .map(|(_, value)| *value)
        .fold(0.0, f64::max);
    let step = step(most * 1.08);
    let most = (most * 1.08 / step).ceil().max(1.0) * step;
    let x = |batch: f64| left + width * batch / (most_batch + 0.5);
    let y = |value: f64| bottom - (bottom - top) * value / most;
    *svg += &format!("<text x='{left}' y='56' font-size='15' font-weight='bold'>{title}</text>\n");
    let mut at = 0.0;
    while at <= most * 1.0001 {
        let digits = if step < 1.0 { 2 } else { 0 };
        *svg += &format!(
            "<line x1='{left}' x2='{}' y1='{:.1}' y2='{:.1}' stroke='#ddd'/><text x='{}' y='{:.1}' font-size='12' text-anchor='end' fill='#555'>{at:.digits$}</text>\n",
            left + width,
            y(at),
            y(at),
            left - 6.0,
            y(at) + 4.0
        );
        at += step;
    }
    for (colour, points, line) in &series {
        if let Some(line) = line {
            let path: Vec<String> = line
                .iter()
                .filter(|(batch, value)| *batch <= most_batch && *value <= most && value.is_finite())
                .map(|(batch, value)| format!("{:.1},{:.1}", x(*batch), y(*value)))
                .collect();
            *svg += &format!(
                "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='1.5'/>\n",
                path.join(" ")
            );
        }
        for (batch, value) in points {
            *svg += &format!(
                "<circle cx='{:.1}' cy='{:.1}' r='4' fill='{colour}'/>\n",
                x(*batch),
                y(*value)
            );
        }
    }
    let mut batches: Vec<usize> = model.rows.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    for batch in batches {
        *svg += &format!(
            "<text x='{:.1}' y='{}' font-size='13' text-anchor='middle'>{batch}</text>\n",
            x(batch as f64),
            bottom + 18.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_within_its_panel() {
        let report = crate::render::tests::sample();
        let svg = svg(&report).unwrap();
        // Nine rows in each of two panels.
        assert_eq!(svg.matches("<circle").count(), 18, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        for text in svg.split("cy='").skip(1) {
            let y: f64 = text.split('\'').next().unwrap().parse().unwrap();
            assert!((70.0..=370.0).contains(&y), "{y}");
        }
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        let mut without = report;
        without.models = None;
        assert_eq!(super::svg(&without), None);
    }
}
