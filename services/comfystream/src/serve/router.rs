//! Which address is answered by what.

use std::any::Any;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::Failure;
use super::openapi::{self, Document};
use super::request::Live;
use super::{api, guard, offer, page, whip};

/// All that is served.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, document) = routes(&app);
    let document = Arc::new(document);
    let inner = routes
        .route("/openapi.json", get(async move || Json(document.as_ref().clone())))
        .method_not_allowed_fallback(async || method_not_allowed())
        .fallback(page::serve)
        .with_state(app.clone())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app, guard::cors));
    // As a fallback, because addresses are changed before they are looked up.
    Router::new()
        .fallback_service(inner)
        // What failed is logged where it is known why.
        .layer(TraceLayer::new_for_http().on_failure(()))
        .layer(map_request(strip))
}

fn routes(app: &Arc<App>) -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    let open = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(api::health))
        .routes(routes!(api::config));
    let guarded = OpenApiRouter::new()
        .routes(routes!(offer::offer))
        .routes(routes!(offer::prompt))
        .routes(routes!(whip::publish, whip::publish_options))
        .routes(routes!(whip::publish_named, whip::publish_named_options))
        .routes(routes!(whip::publish_patch, whip::publish_end))
        .routes(routes!(whip::watch, whip::watch_options))
        .routes(routes!(whip::watch_named, whip::watch_named_options))
        .routes(routes!(whip::watch_patch, whip::watch_end))
        .routes(routes!(api::models))
        .routes(routes!(api::sources))
        .routes(routes!(api::sessions))
        .routes(routes!(api::session, api::end))
        .routes(routes!(api::streams))
        .routes(routes!(api::stream))
        .routes(routes!(api::prometheus))
        .route_layer(from_fn_with_state(app.clone(), guard::token));
    let (routes, mut document) = open.merge(guarded).split_for_parts();
    openapi::complete(&mut document);
    (routes, document)
}

/// The address is right, and the method is not. Which are, the router adds.
pub(crate) fn method_not_allowed() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address knows no such method",
        "Allow lists those that it knows",
    )
}

fn panicked(what: Box<dyn Any + Send>) -> Response {
    let text = what
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| what.downcast_ref::<&str>().copied());
    tracing::error!("a request panicked: {}", text.unwrap_or("for no known reason"));
    Failure::internal("a part of the service panicked").into_response()
}

/// Takes `/live` away, and remembers it.
async fn strip(mut request: Request) -> Request {
    if let Some(uri) = stripped(request.uri()) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(Live(true));
    }
    request
}

fn stripped(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix("/live")?;
    let path = match rest {
        "" => "/",
        rest if rest.starts_with('/') => rest,
        _ => return None,
    };
    match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_is_taken_away_once() {
        for (path, rest) in [
            ("/live", Some("/")),
            ("/live/", Some("/")),
            ("/live/offer?x=/live", Some("/offer?x=/live")),
            ("/live/live/x", Some("/live/x")),
            ("/lively", None),
            ("/offer", None),
        ] {
            let uri = stripped(&path.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), rest, "{path}");
        }
    }
}
