//! ComfyStream's own way in: `POST /offer`, and `POST /prompt` for those who come later.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use comfy_core::workflow;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::app::{App, Ask, lock};
use super::body;
use super::error::Failure;
use super::openapi::ErrorBody;
use super::sessions::Kind;
use super::wish::Change;

const JSON: &str = "application/json";

/// An offer, with or without what is to be done.
#[derive(Debug, ToSchema)]
#[allow(
    dead_code,
    reason = "the shapes are read one by one, so that errors name what is wrong"
)]
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OfferBody {
    /// As ComfyStream's page sends it.
    Full(Full),
    /// As RTCPeerConnection has it.
    Plain(Description),
}

/// An offer, and what is to be done with what is sent.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Full {
    /// The offer.
    offer: Description,
    /// A ComfyUI workflow, a list with one, or null for the service's own.
    #[serde(default)]
    prompts: Value,
    /// Size before the model.
    #[serde(default)]
    resolution: Option<Resolution>,
    /// Other settings.
    #[serde(default)]
    settings: Option<Change>,
}

/// An offer of SDP.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Description {
    /// As RTCPeerConnection.createOffer made it.
    sdp: String,
    /// Always `offer`.
    #[allow(dead_code, reason = "there is one, and another is refused when it is read")]
    r#type: OfferType,
}

/// What kind of description it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OfferType {
    /// The only one that is taken.
    Offer,
}

/// Size of pictures.
#[derive(Debug, Deserialize, ToSchema)]
struct Resolution {
    /// In pixels.
    #[schema(minimum = 16, maximum = 4096)]
    width: u32,
    /// In pixels.
    #[schema(minimum = 16, maximum = 4096)]
    height: u32,
}

/// The answer to an offer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    /// For RTCPeerConnection.setRemoteDescription.
    sdp: String,
    /// Always `answer`.
    r#type: &'static str,
    /// The session's.
    id: String,
}

/// Begin a session: send video, and get back what becomes of it.
#[utoipa::path(
    post, path = "/offer", tag = "sessions", request_body = OfferBody,
    responses(
        (status = 200, body = Answer), (status = 400, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn offer(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    body::expect_type(&headers, JSON)?;
    let limits = app.settings.limits;
    let bytes = body::read(body, limits.body, limits.request).await?;
    let full = read(&bytes)?;
    if full.offer.sdp.len() > limits.sdp {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "sdp_too_large",
            format!(
                "the offer has {} bytes; {} are allowed",
                full.offer.sdp.len(),
                limits.sdp
            ),
            "offer fewer tracks and formats",
        ));
    }
    let sdp = full.offer.sdp.clone();
    let (wish, prompts) = app.blocking(move |app| wish(app, full)).await?;
    let (entry, answer) = app
        .open(Ask {
            kind: Kind::Offer,
            name: None,
            offer: sdp,
            wish,
            prompts,
            watched: None,
        })
        .await?;
    Ok(Json(Answer {
        sdp: answer,
        r#type: "answer",
        id: entry.id.clone(),
    }))
}

/// Either shape.
fn read(bytes: &[u8]) -> Result<Full, Failure> {
    let value: Value = body::json(bytes)?;
    let unexpected = |error: serde_json::Error| {
        Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "json_unexpected",
            error.to_string(),
            "GET /openapi.json tells what is expected",
        )
    };
    match value.get("offer") {
        Some(_) => serde_json::from_value(value).map_err(unexpected),
        None => Ok(Full {
            offer: serde_json::from_value(value).map_err(unexpected)?,
            prompts: Value::Null,
            resolution: None,
            settings: None,
        }),
    }
}

/// What is to be done: the service's own wish, then the workflow, then the size, then the settings.
fn wish(app: &App, full: Full) -> Result<(super::wish::Wish, Vec<workflow::Workflow>), Failure> {
    let prompts = workflow::prompts(&full.prompts)?;
    let (mut wish, prompts) = match prompts.is_empty() {
        true => app.default_wish()?,
        false => (app.settings.wish.with(&app.catalog.change(&prompts)?)?, prompts),
    };
    if let Some(Resolution { width, height }) = full.resolution {
        wish = wish.with(&Change::size(width, height))?;
    }
    if let Some(change) = &full.settings {
        wish = wish.with(change)?;
    }
    Ok((wish, prompts))
}

/// Set the workflow of sessions that begin without one.
#[utoipa::path(
    post, path = "/prompt", tag = "sessions", request_body = Value,
    responses(
        (status = 200, body = String, content_type = "text/plain"), (status = 400, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn prompt(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<&'static str, Failure> {
    body::expect_type(&headers, JSON)?;
    let limits = app.settings.limits;
    let bytes = body::read(body, limits.body, limits.request).await?;
    app.blocking(move |app| {
        let prompts = workflow::parse_prompts(&bytes)?;
        app.catalog.change(&prompts)?;
        *lock(&app.prompts) = (!prompts.is_empty()).then_some(prompts);
        Ok("OK")
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: Value) -> Result<Full, u16> {
        read(value.to_string().as_bytes()).map_err(|failure| failure.status.as_u16())
    }

    #[test]
    fn both_shapes_are_read() {
        let plain = status(json!({"sdp": "v=0", "type": "offer"})).expect("plain");
        assert_eq!((plain.offer.sdp.as_str(), plain.prompts), ("v=0", Value::Null));
        let full = status(json!({
            "offer": {"sdp": "v=0", "type": "offer"},
            "prompts": null,
            "resolution": {"width": 512, "height": 256},
            "settings": {"paused": true},
            "more": 1,
        }))
        .expect("full");
        assert_eq!(full.resolution.map(|size| (size.width, size.height)), Some((512, 256)));
        assert_eq!(full.settings.and_then(|change| change.paused), Some(true));
    }

    #[test]
    fn what_is_no_offer_is_refused() {
        for (value, wanted) in [
            (json!({}), 422),
            (json!([]), 422),
            (json!({"sdp": 1, "type": "offer"}), 422),
            (json!({"sdp": "v=0", "type": "answer"}), 422),
            (json!({"offer": null}), 422),
            (
                json!({"offer": {"sdp": "v=0", "type": "offer"}, "resolution": {"width": 1}}),
                422,
            ),
            (
                json!({"offer": {"sdp": "v=0", "type": "offer"}, "settings": {"batch": 1}}),
                422,
            ),
        ] {
            let text = value.to_string();
            assert_eq!(status(value).err(), Some(wanted), "{text}");
        }
        assert_eq!(read(b"{").err().map(|failure| failure.status.as_u16()), Some(400));
    }
}
