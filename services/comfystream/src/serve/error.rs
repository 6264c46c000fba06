//! What a request gets when it does not get what it asked for: one shape, one table of codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use comfy_core::workflow;
use comfy_pipelines::{infergraph, rtc};
use serde_json::{Value, json};

/// Seconds after which a busy service may be asked again.
const RETRY: u32 = 5;

/// A refusal, for people and for programs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// What failed, and which one.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
    /// The nodes of a workflow that cannot run; null otherwise.
    pub(crate) nodes: Value,
}

impl Failure {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: hint.into(),
            nodes: Value::Null,
        }
    }

    /// The service is at fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            message,
            "look into the service's log; if it says nothing that you can put right, please report a bug",
        )
    }

    /// The object that stands under `error`.
    pub(crate) fn value(&self) -> Value {
        let mut value = json!({"code": self.code, "message": self.message, "hint": self.hint});
        if !self.nodes.is_null() {
            value["nodes"] = self.nodes.clone();
        }
        value
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.value()}))).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY.into());
            }
            _ => (),
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Splits "what failed; what to do", the form of all our errors.
fn split(text: &str, otherwise: &str) -> (String, String) {
    match text.rsplit_once("; ") {
        Some((message, hint)) => (message.into(), hint.into()),
        None => (text.into(), otherwise.into()),
    }
}

impl From<rtc::Error> for Failure {
    fn from(error: rtc::Error) -> Self {
        use rtc::Error;
        let text = error.to_string();
        let (status, code, hint) = match error {
            Error::Offer(_) => (
                StatusCode::BAD_REQUEST,
                "offer_malformed",
                "send the SDP that RTCPeerConnection.createOffer made",
            ),
            Error::Unfit(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "offer_unfit",
                "offer one video track, with ICE and DTLS",
            ),
            Error::NoCodec { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "codec_missing",
                "offer another video format, or install what is named; `comfystream doctor` tells what there is",
            ),
            Error::Refused { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "offer_refused",
                "send the SDP that RTCPeerConnection.createOffer made, unchanged",
            ),
            Error::Late { .. } => (StatusCode::SERVICE_UNAVAILABLE, "webrtc_late", "try again"),
            Error::Candidate(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "candidate_malformed",
                "send the candidates as RTCPeerConnection made them",
            ),
            Error::Ended => (StatusCode::NOT_FOUND, "session_ended", "begin another"),
            Error::Graph(error) => return error.into(),
            Error::Channel(_) => return Failure::internal(text),
            _ => return Failure::internal(text),
        };
        let (message, hint) = split(&text, hint);
        Self::new(status, code, message, hint)
    }
}

impl From<infergraph::Error> for Failure {
    fn from(error: infergraph::Error) -> Self {
        let text = error.to_string();
        match error {
            infergraph::Error::Setting { .. } => {
                let (message, hint) = split(&text, "choose a value in that range");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "setting_range", message, hint)
            }
            infergraph::Error::NoElement { .. } => {
                let (message, hint) = split(&text, "`comfystream doctor` tells what is missing");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "element_missing", message, hint)
            }
            _ => Failure::internal(text),
        }
    }
}

impl From<workflow::Error> for Failure {
    fn from(error: workflow::Error) -> Self {
        let help = error.help();
        let text = error.to_string();
        let (message, hint) = match help {
            Some(help) => (text, help),
            None => split(&text, "export the workflow again, in API format"),
        };
        let (status, code) = match &error {
            workflow::Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "workflow_too_large"),
            workflow::Error::Json { .. } => (StatusCode::BAD_REQUEST, "json_malformed"),
            workflow::Error::Unsupported { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "workflow_unsupported"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "workflow_invalid"),
        };
        let mut failure = Self::new(status, code, message, hint);
        if let workflow::Error::Unsupported { report } = &error {
            failure.nodes = serde_json::to_value(&report.nodes).unwrap_or_default();
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let failure = Failure::from(rtc::Error::Unfit("there is no video".into()));
        assert_eq!(failure.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(failure.value()["code"], "offer_unfit");
        assert!(!failure.hint.is_empty());
        let setting = infergraph::Error::Setting {
            name: "threads",
            value: 300,
            expected: "0 to 256",
        };
        let failure = Failure::from(setting);
        assert_eq!(failure.message, "threads is 300");
        assert_eq!(failure.hint, "it must be 0 to 256");
    }

    #[test]
    fn headers_that_the_status_asks_for_are_there() {
        for (status, name) in [
            (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE),
            (StatusCode::SERVICE_UNAVAILABLE, header::RETRY_AFTER),
        ] {
            let response = Failure::new(status, "x", "y", "z").into_response();
            assert!(response.headers().contains_key(name), "{status}");
        }
    }
}
