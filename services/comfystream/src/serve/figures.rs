//! Figures of sessions and streams, as the API tells them.

use comfy_pipelines::{session, stream};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::control;
use super::sessions::{Entry, Kind};

/// A session, as `/api/sessions` tells of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    /// Its id.
    pub(crate) id: String,
    /// How it came here.
    pub(crate) kind: Kind,
    /// What it publishes, or watches; null: nothing that has a name.
    pub(crate) name: Option<String>,
    /// When it began, in seconds since 1970.
    pub(crate) created: f64,
    /// Where its stream is.
    pub(crate) state: String,
    /// Name of the model; null: none.
    pub(crate) model: Option<String>,
    /// As in docs/API.md.
    #[schema(value_type = Object)]
    pub(crate) stats: Value,
}

/// Frame rates of a stream, as ComfyStream's server tells them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rates {
    /// Now, in seconds since 1970.
    pub(crate) timestamp: f64,
    /// Frames per second that go out.
    pub(crate) fps: f64,
    /// Mean of the last minute.
    pub(crate) minute_avg_fps: f64,
    /// Its seconds, the oldest first.
    pub(crate) minute_fps_array: Vec<Rate>,
    /// All figures; not in `/streams/stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) stats: Option<Value>,
}

/// Frame rate of one second.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Rate {
    /// When, in seconds since 1970.
    pub(crate) timestamp: f64,
    /// Frames per second.
    pub(crate) fps: f64,
}

/// Tells of a session. May wait.
pub(crate) fn session(entry: &Entry) -> SessionInfo {
    let (stream, session) = (entry.session.stream().stats(), entry.session.stats());
    SessionInfo {
        id: entry.id.clone(),
        kind: entry.kind,
        name: entry.name.clone(),
        created: entry.created,
        state: state(stream.state).into(),
        model: stream.model.clone(),
        stats: all(&stream, Some(&session)),
    }
}

/// Frame rates of a stream.
pub(crate) fn rates(stream: &stream::Stats, now: f64) -> Rates {
    let seconds: Vec<Rate> = stream
        .minute
        .iter()
        .map(|&(timestamp, fps)| Rate { timestamp, fps })
        .collect();
    let mean = seconds.iter().map(|second| second.fps).sum::<f64>() / seconds.len().max(1) as f64;
    Rates {
        timestamp: now,
        fps: stream.fps_out,
        minute_avg_fps: mean,
        minute_fps_array: seconds,
        stats: None,
    }
}

/// All figures; of a stream that no peer sends, those of a peer are missing.
pub(crate) fn all(stream: &stream::Stats, session: Option<&session::Stats>) -> Value {
    let mut all = serde_json::to_value(stream).unwrap_or_default();
    all["state"] = state(stream.state).into();
    all["buffer"] = keep(
        &all["buffer"],
        &[
            "state",
            "fill",
            "peak_fill",
            "capacity",
            "threshold",
            "underruns",
            "overruns",
            "dropped_overrun",
            "dropped_late",
        ],
    );
    if let Some(session) = session {
        all["codec_out"] = json!(session.codec_out);
        all["bitrate_target"] = session.bitrate_target.into();
        all["audio_delay_ms"] = session.audio_delay_ms.into();
        all["latency_ms"] = session.latency_ms.into();
        all["connection"] = session.connection.as_str().into();
        all["frames_out"] = session.frames_out.into();
        all["dropped"] = (stream.dropped + session.dropped).into();
    }
    all
}

fn state(state: stream::State) -> &'static str {
    control::state_name(state).unwrap_or("ended")
}

fn keep(value: &Value, names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| (name.to_string(), value[*name].clone()))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use comfy_pipelines::infergraph::FlightStats;

    use super::*;

    fn stream() -> stream::Stats {
        stream::Stats {
            state: stream::State::PassThrough,
            model: None,
            runtime: String::new(),
            codec_in: Some("VP8".into()),
            width_in: 640,
            height_in: 480,
            width: 640,
            height: 480,
            fps_in: 30.0,
            fps_out: 29.5,
            frames_in: 300,
            frames_out: 295,
            dropped: 3,
            failed: 0,
            buffer: FlightStats::default(),
            batch: stream::Batch::default(),
            infer: stream::Infer::default(),
            stages: stream::Stages::default(),
            minute: vec![(1.0, 10.0), (2.0, 20.0)],
        }
    }

    #[test]
    fn figures_are_those_of_the_contract() {
        let session = session::Stats {
            connection: "connected".into(),
            codec_out: Some("VP8".into()),
            dropped: 2,
            frames_out: 290,
            ..session::Stats::default()
        };
        let all = all(&stream(), Some(&session));
        let mut names: Vec<_> = all.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut wanted = [
            "state",
            "model",
            "runtime",
            "codec_in",
            "codec_out",
            "width_in",
            "height_in",
            "width",
            "height",
            "fps_in",
            "fps_out",
            "frames_in",
            "frames_out",
            "dropped",
            "failed",
            "bitrate_target",
            "audio_delay_ms",
            "connection",
            "buffer",
            "batch",
            "infer",
            "stages",
            "latency_ms",
        ];
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        assert_eq!(
            (all["dropped"].as_u64(), all["frames_out"].as_u64()),
            (Some(5), Some(290))
        );
        assert_eq!(all["state"], "passthrough");
        assert_eq!(all["buffer"].as_object().unwrap().len(), 9);
        assert_eq!(all["stages"]["total"]["p95"], 0.0);
    }

    #[test]
    fn a_minute_has_a_mean() {
        let rates = rates(&stream(), 3.0);
        assert_eq!(
            (rates.minute_avg_fps, rates.fps, rates.minute_fps_array.len()),
            (15.0, 29.5, 2)
        );
        let mut none = stream();
        none.minute.clear();
        assert_eq!(super::rates(&none, 3.0).minute_avg_fps, 0.0);
    }
}
