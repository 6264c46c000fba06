//! The control channel: what a message asks for, and what is answered. Nothing is done here.
//!
//! The messages without a prefix are those of ComfyStream's server, and their answers are the ones that its clients
//! expect; those with `comfy:` are ours.

use axum::http::StatusCode;
use comfy_core::workflow::{self, Workflow};
use comfy_pipelines::stream;
use serde_json::{Map, Value, json};
use std::time::Duration;

use super::error::Failure;
use super::wish::{Change, Wish};

/// Shortest and longest time between two messages with figures.
const INTERVALS: std::ops::RangeInclusive<u64> = 100..=10_000;
/// How much of an unknown type is repeated.
const SHOWN: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// The values of the workflow that may be changed.
    Nodes,
    /// Another workflow.
    Prompts(Vec<Workflow>),
    /// Another size before the model.
    Resolution(u32, u32),
    /// The last picture is to stand.
    Pause,
    /// And no longer.
    Resume,
    /// No workflow any more.
    Stop,
    /// Other settings.
    Settings(Change),
    /// Figures, so often; None: no longer.
    Stats(Option<Duration>),
    /// The time.
    Ping(Value),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// These are the nodes.
    Nodes(Value),
    /// It is done, and this is wanted now.
    Settings(Wish),
    /// It is this late, in seconds since 1970.
    Time(f64),
}

/// A message that is not understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// Its type, where it has one.
    request: Option<String>,
    failure: Box<Failure>,
}

/// Reads a message.
pub(crate) fn read(text: &str) -> Result<Request, Refusal> {
    let refuse = |request: Option<&str>, failure: Failure| Refusal {
        request: request.map(|name| name.chars().take(SHOWN).collect()),
        failure: failure.into(),
    };
    let message: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| refuse(None, malformed(format!("not a JSON object: {error}"))))?;
    let Some(kind) = message.get("type").and_then(Value::as_str).map(str::to_owned) else {
        return Err(refuse(None, malformed("the message has no type".into())));
    };
    body(&kind, message).map_err(|failure| refuse(Some(&kind), failure))
}

fn body(kind: &str, mut message: Map<String, Value>) -> Result<Request, Failure> {
    Ok(match kind {
        "get_nodes" => Request::Nodes,
        "update_prompts" => {
            let prompts = message.get("prompts").filter(|prompts| !prompts.is_null());
            let prompts = prompts.ok_or_else(|| malformed("Missing 'prompts' in control message".into()))?;
            Request::Prompts(workflow::prompts(prompts)?)
        }
        "update_resolution" => {
            let (Some(width), Some(height)) = (message.get("width"), message.get("height")) else {
                return Err(malformed("Missing 'width' or 'height' in control message".into()));
            };
            let side = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
            match (side(width), side(height)) {
                (Some(width), Some(height)) => Request::Resolution(width, height),
                _ => return Err(malformed("width and height must be whole numbers".into())),
            }
        }
        "pause_prompts" => Request::Pause,
        "resume_prompts" => Request::Resume,
        "stop_prompts" => Request::Stop,
        "comfy:settings" => {
            message.remove("type");
            let change = serde_json::from_value(Value::Object(message));
            Request::Settings(change.map_err(|error| malformed(error.to_string()))?)
        }
        "comfy:stats" => match message.get("interval_ms").and_then(Value::as_u64) {
            Some(0) => Request::Stats(None),
            Some(interval) if INTERVALS.contains(&interval) => Request::Stats(Some(Duration::from_millis(interval))),
            _ => return Err(malformed("interval_ms must be 0, or 100 to 10000".into())),
        },
        "comfy:ping" => match message.remove("sent") {
            Some(sent @ Value::Number(_)) => Request::Ping(sent),
            _ => return Err(malformed("sent must be a number".into())),
        },
        _ => {
            return Err(Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "message_unknown",
                format!("there is no message of type {kind:.64}"),
                "docs/API.md lists the messages",
            ));
        }
    })
}

fn malformed(message: String) -> Failure {
    Failure::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "message_malformed",
        message,
        "docs/API.md lists the messages",
    )
}

impl Request {
    /// As it came.
    fn kind(&self) -> &'static str {
        match self {
            Request::Nodes => "get_nodes",
            Request::Prompts(_) => "update_prompts",
            Request::Resolution(..) => "update_resolution",
            Request::Pause => "pause_prompts",
            Request::Resume => "resume_prompts",
            Request::Stop => "stop_prompts",
            Request::Settings(_) => "comfy:settings",
            Request::Stats(_) => "comfy:stats",
            Request::Ping(_) => "comfy:ping",
        }
    }

    /// What is sent back when it was done, or could not be.
    pub(crate) fn answer(&self, outcome: Result<Outcome, Failure>) -> Vec<Value> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => return refused(Some(self.kind()), &failure),
        };
        vec![match (self, outcome) {
            (Request::Ping(sent), Outcome::Time(time)) => json!({"type": "comfy:pong", "sent": sent, "time": time}),
            (Request::Stats(interval), _) => {
                let interval = interval.map_or(0, |interval| interval.as_millis());
                json!({"type": "comfy:stats", "success": true, "interval_ms": interval as u64})
            }
            (_, Outcome::Nodes(nodes)) => json!({"type": "nodes_info", "nodes": nodes}),
            (Request::Settings(_), Outcome::Settings(wish)) => {
                json!({"type": "comfy:settings", "success": true, "settings": wish})
            }
            (request, _) => {
                let kind = legacy(request.kind()).unwrap_or(request.kind());
                json!({"type": kind, "success": true})
            }
        }]
    }
}

impl Refusal {
    /// What is sent back.
    pub(crate) fn answer(&self) -> Vec<Value> {
        refused(self.request.as_deref(), &self.failure)
    }
}

/// The answer that ComfyStream's clients expect.
fn legacy(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "update_prompts" => "prompts_updated",
        "update_resolution" => "resolution_updated",
        "pause_prompts" => "prompts_paused",
        "resume_prompts" => "prompts_resumed",
        "stop_prompts" => "prompts_stopped",
        _ => return None,
    })
}

fn refused(request: Option<&str>, failure: &Failure) -> Vec<Value> {
    let mut answers = Vec::new();
    let old = request.and_then(legacy);
    if let Some(kind) = old {
        answers.push(json!({"type": kind, "success": false, "error": failure.message}));
    }
    // Their answers have no room for nodes.
    if old.is_none() || !failure.nodes.is_null() {
        let mut answer = error(failure, false);
        if let Some(request) = request {
            answer["request"] = request.into();
        }
        answers.push(answer);
    }
    answers
}

/// Something failed.
pub(crate) fn error(failure: &Failure, fatal: bool) -> Value {
    let mut message = json!({"type": "error", "error": failure.value()});
    if fatal {
        message["fatal"] = true.into();
    }
    message
}

/// What is told of a stream without being asked; None: nothing.
pub(crate) fn push(event: &stream::Event) -> Option<Value> {
    Some(match event {
        stream::Event::State { state, text, progress } => {
            let mut message = json!({"type": "comfy:state", "state": state_name(*state)?, "text": text});
            if let Some(progress) = progress {
                message["progress"] = json!(progress);
            }
            message
        }
        stream::Event::Buffer {
            state,
            fill,
            capacity,
            threshold,
            expected_ms,
        } => {
            let mut message = json!({
                "type": "comfy:buffer", "state": state, "fill": fill, "capacity": capacity, "threshold": threshold,
            });
            if let Some(expected) = expected_ms {
                message["expected_ms"] = json!(expected);
            }
            message
        }
        stream::Event::Failed(text) => error(
            &Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "stream_failed",
                text.as_str(),
                "choose another model or other settings; the session goes on",
            ),
            false,
        ),
        // Nobody can do anything about it in a browser: it is logged.
        stream::Event::Warning(_) => return None,
    })
}

/// What a state is called on the channel; None: the session's end says it.
pub(crate) fn state_name(state: stream::State) -> Option<&'static str> {
    use stream::State;
    Some(match state {
        State::Waiting => "connecting",
        State::Loading => "loading",
        State::Filling => "filling",
        State::Running => "running",
        State::Paused => "paused",
        State::PassThrough => "passthrough",
        State::Failed => "failed",
        State::Ended => return None,
    })
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
