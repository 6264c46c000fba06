//! Figures for Prometheus: counted where things happen, sampled each second where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use comfy_pipelines::stream::{Stages, Stats};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use super::app::{App, lock};
use super::clock;
use super::load;
use super::sessions::Kind;

const STAGE: &str = "comfystream_stage_seconds";
/// A gauge of a stream that has gone goes after this time.
const FORGOTTEN: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(1);
/// In seconds, from a tenth of a millisecond.
const BUCKETS: [f64; 14] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0,
];

/// Takes what is counted from here on.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(STAGE.into()), &BUCKETS)
        .context("the buckets are fixed")?
        .idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN))
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics are counted elsewhere already")?;
    describe_counter!("comfystream_sessions_total", "Sessions so far.");
    describe_counter!("comfystream_sessions_failed_total", "Sessions that failed.");
    describe_counter!("comfystream_offers_refused_total", "Offers that were refused, by code.");
    describe_counter!("comfystream_stream_errors_total", "Errors of streams that lived on.");
    describe_counter!("comfystream_messages_total", "Messages on control channels.");
    describe_counter!(
        "comfystream_messages_dropped_total",
        "Messages that came too fast and were not looked at."
    );
    describe_counter!("comfystream_frames_in_total", "Frames that came in.");
    describe_counter!("comfystream_frames_out_total", "Frames that went out.");
    describe_counter!(
        "comfystream_frames_dropped_total",
        "Frames that were dropped on the way."
    );
    describe_counter!("comfystream_frames_failed_total", "Frames that a model failed on.");
    describe_gauge!("comfystream_sessions", "Sessions now.");
    describe_gauge!(
        "comfystream_processor_share",
        "Share of the processor that the service uses, 0 to 1."
    );
    describe_gauge!(
        "stream_fps",
        "Frames per second that go out; without stream_id, the mean of all streams."
    );
    describe_histogram!(
        STAGE,
        "Median wait of a stream's frames in a stage over ten seconds, sampled each second."
    );
    Ok(handle)
}

/// What is to be told to who asks.
pub(crate) fn render(app: &App) -> String {
    gauge!("comfystream_sessions").set(app.sessions.count() as f64);
    gauge!("comfystream_processor_share").set(lock(&app.load).share());
    app.prometheus.run_upkeep();
    app.prometheus.render()
}

/// Samples until the service ends.
pub(crate) async fn sample(app: Arc<App>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut seen = BTreeMap::new();
    loop {
        ticks.tick().await;
        if let Some(ticks) = load::ticks() {
            lock(&app.load).sample(clock::now(), ticks, cores);
        }
        let streams = app.blocking(|app| Ok(streams(app))).await.unwrap_or_default();
        count(&mut seen, &streams, app.settings.stream_id_label);
    }
}

fn streams(app: &App) -> Vec<(String, Stats)> {
    let mut streams: Vec<_> = lock(&app.sources)
        .iter()
        .map(|(options, source)| (options.name.clone(), source.stream().clone()))
        .collect();
    let sessions = app.sessions.all().into_iter().filter(|entry| entry.kind != Kind::Whep);
    streams.extend(sessions.map(|entry| (entry.id.clone(), entry.session.stream().clone())));
    streams.into_iter().map(|(id, stream)| (id, stream.stats())).collect()
}

/// What was counted of a stream before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen([u64; 4]);

const COUNTERS: [&str; 4] = [
    "comfystream_frames_in_total",
    "comfystream_frames_out_total",
    "comfystream_frames_dropped_total",
    "comfystream_frames_failed_total",
];

impl Seen {
    fn of(stats: &Stats) -> Self {
        Self([stats.frames_in, stats.frames_out, stats.dropped, stats.failed])
    }

    /// What came since then. A stream that begins anew counts from nothing.
    fn since(self, before: Self) -> [u64; 4] {
        std::array::from_fn(|n| self.0[n].checked_sub(before.0[n]).unwrap_or(self.0[n]))
    }
}

fn count(seen: &mut BTreeMap<String, Seen>, streams: &[(String, Stats)], labelled: bool) {
    seen.retain(|id, _| streams.iter().any(|(other, _)| other == id));
    for (id, stats) in streams {
        let now = Seen::of(stats);
        let before = seen.insert(id.clone(), now).unwrap_or_default();
        for (name, more) in COUNTERS.into_iter().zip(now.since(before)) {
            counter!(name).increment(more);
        }
        for (stage, median) in medians(&stats.stages) {
            if median > 0.0 {
                histogram!(STAGE, "stage" => stage).record(median / 1e3);
            }
        }
        if labelled {
            gauge!("stream_fps", "stream_id" => id.clone()).set(stats.fps_out);
        }
    }
    if !labelled {
        let sum: f64 = streams.iter().map(|(_, stats)| stats.fps_out).sum();
        gauge!("stream_fps").set(sum / streams.len().max(1) as f64);
    }
}

/// In milliseconds.
fn medians(stages: &Stages) -> [(&'static str, f64); 7] {
    [
        ("decode", stages.decode.p50),
        ("buffer", stages.buffer.p50),
        ("model", stages.model.p50),
        ("convert", stages.convert.p50),
        ("encode", stages.encode.p50),
        ("send", stages.send.p50),
        ("total", stages.total.p50),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_go_back() {
        let before = Seen([10, 9, 1, 0]);
        assert_eq!(Seen([12, 10, 1, 0]).since(before), [2, 1, 0, 0]);
        assert_eq!(Seen([3, 2, 0, 0]).since(before), [3, 2, 0, 0], "it began anew");
    }
}
