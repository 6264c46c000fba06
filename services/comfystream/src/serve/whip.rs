//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-02): media servers by one POST.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::app::{App, Ask, short};
use super::clock;
use super::error::Failure;
use super::openapi::ErrorBody;
use super::patch::{self, Verdict};
use super::request::{Live, Named};
use super::sessions::{Entry, Kind, taken};
use super::{body, guard, names};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// What is published and watched where no name is given.
const UNNAMED: &str = "default";

/// Publish a stream.
#[utoipa::path(
    post, path = "/whip", tag = "whip", operation_id = "publish",
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, content_type = "application/sdp", body = String,
         headers(("Location" = String), ("ETag" = String), ("Link" = String))),
        (status = 400, body = ErrorBody), (status = 406, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn publish(
    app: State<Arc<App>>,
    live: Live,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    begin(&app, Kind::Whip, UNNAMED, live, &headers, body).await
}

/// Publish a stream under a name.
#[utoipa::path(
    post, path = "/whip/{name}", tag = "whip", operation_id = "publish_named", params(Named),
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, content_type = "application/sdp", body = String,
         headers(("Location" = String), ("ETag" = String), ("Link" = String))),
        (status = 400, body = ErrorBody), (status = 406, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn publish_named(
    app: State<Arc<App>>,
    Named { name }: Named,
    live: Live,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    begin(&app, Kind::Whip, &name, live, &headers, body).await
}

/// Watch a stream.
#[utoipa::path(
    post, path = "/whep", tag = "whep", operation_id = "watch",
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, content_type = "application/sdp", body = String,
         headers(("Location" = String), ("ETag" = String), ("Link" = String))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 406, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn watch(
    app: State<Arc<App>>,
    live: Live,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    begin(&app, Kind::Whep, UNNAMED, live, &headers, body).await
}

/// Watch a stream by its name.
#[utoipa::path(
    post, path = "/whep/{name}", tag = "whep", operation_id = "watch_named", params(Named),
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, content_type = "application/sdp", body = String,
         headers(("Location" = String), ("ETag" = String), ("Link" = String))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 406, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    ))]
pub(crate) async fn watch_named(
    app: State<Arc<App>>,
    Named { name }: Named,
    live: Live,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    begin(&app, Kind::Whep, &name, live, &headers, body).await
}

async fn begin(
    app: &Arc<App>,
    kind: Kind,
    name: &str,
    live: Live,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if !names::valid(name) {
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "name_invalid",
            format!("{name:.64?} is no name"),
            names::RULE,
        ));
    }
    body::expect_type(headers, SDP)?;
    body::accepts(headers, SDP)?;
    let limits = app.settings.limits;
    let offer = body::text(body::read(body, limits.sdp, limits.request).await?)?;
    let watched = match kind {
        Kind::Whep => Some(app.stream(name).ok_or_else(|| nobody(name))?),
        Kind::Whip | Kind::Offer => None,
    };
    if kind == Kind::Whip && app.settings.sources.iter().any(|source| source.name == name) {
        return Err(taken(name));
    }
    let wish = app.blocking(App::default_wish);
    let (wish, prompts) = match kind {
        Kind::Whep => (app.settings.wish.clone(), Vec::new()),
        Kind::Whip | Kind::Offer => wish.await?,
    };
    let (entry, answer) = app
        .open(Ask {
            kind,
            name: Some(name.into()),
            offer,
            wish,
            prompts,
            watched,
        })
        .await?;
    let mut response = (StatusCode::CREATED, answer).into_response();
    let at = match kind {
        Kind::Whep => "whep",
        Kind::Whip | Kind::Offer => "whip",
    };
    let location = format!("{}/{at}/session/{}", live.prefix(), entry.id);
    let tag = patch::tag(&entry.session.ice_ufrag());
    set(&mut response, header::CONTENT_TYPE, SDP);
    set(&mut response, header::LOCATION, &location);
    set(&mut response, header::ETAG, &tag);
    set(&mut response, HeaderName::from_static("accept-patch"), FRAGMENT);
    links(app, &mut response);
    Ok(response)
}

fn nobody(name: &str) -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "source_missing",
        format!("nobody publishes {name}"),
        "GET /api/sources lists what there is to watch",
    )
}

/// Which formats are taken, and which servers help peers to find each other.
#[utoipa::path(
    options, path = "/whip", tag = "whip", operation_id = "publish_options",
    responses((status = 204, headers(("Accept-Post" = String), ("Link" = String)))))]
pub(crate) async fn publish_options(app: State<Arc<App>>, headers: HeaderMap) -> Response {
    options(&app, &headers)
}

/// Which formats are taken, and which servers help peers to find each other.
#[utoipa::path(
    options, path = "/whip/{name}", tag = "whip", operation_id = "publish_named_options", params(Named),
    responses((status = 204, headers(("Accept-Post" = String), ("Link" = String)))))]
pub(crate) async fn publish_named_options(app: State<Arc<App>>, headers: HeaderMap) -> Response {
    options(&app, &headers)
}

/// Which formats are taken, and which servers help peers to find each other.
#[utoipa::path(
    options, path = "/whep", tag = "whep", operation_id = "watch_options",
    responses((status = 204, headers(("Accept-Post" = String), ("Link" = String)))))]
pub(crate) async fn watch_options(app: State<Arc<App>>, headers: HeaderMap) -> Response {
    options(&app, &headers)
}

/// Which formats are taken, and which servers help peers to find each other.
#[utoipa::path(
    options, path = "/whep/{name}", tag = "whep", operation_id = "watch_named_options", params(Named),
    responses((status = 204, headers(("Accept-Post" = String), ("Link" = String)))))]
pub(crate) async fn watch_named_options(app: State<Arc<App>>, headers: HeaderMap) -> Response {
    options(&app, &headers)
}

fn options(app: &App, headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set(&mut response, HeaderName::from_static("accept-post"), SDP);
    set(&mut response, header::ALLOW, "OPTIONS,POST");
    // TURN credentials are for those who may use the service.
    if guard::allowed(app, headers) {
        links(app, &mut response);
    }
    response
}

/// Add ICE candidates, or start ICE anew.
#[utoipa::path(
    patch, path = "/whip/session/{name}", tag = "whip", operation_id = "publish_patch", params(Named),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses(
        (status = 200, content_type = "application/trickle-ice-sdpfrag", body = String, headers(("ETag" = String))),
        (status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 412, body = ErrorBody), (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 428, body = ErrorBody),
    ))]
pub(crate) async fn publish_patch(
    app: State<Arc<App>>,
    id: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    amend(&app, Kind::Whip, &id.name, &headers, body).await
}

/// Add ICE candidates, or start ICE anew.
#[utoipa::path(
    patch, path = "/whep/session/{name}", tag = "whep", operation_id = "watch_patch", params(Named),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses(
        (status = 200, content_type = "application/trickle-ice-sdpfrag", body = String, headers(("ETag" = String))),
        (status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 412, body = ErrorBody), (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 428, body = ErrorBody),
    ))]
pub(crate) async fn watch_patch(
    app: State<Arc<App>>,
    id: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    amend(&app, Kind::Whep, &id.name, &headers, body).await
}

async fn amend(app: &Arc<App>, kind: Kind, id: &str, headers: &HeaderMap, body: Body) -> Result<Response, Failure> {
    let entry = find(app, kind, id)?;
    body::expect_type(headers, FRAGMENT)?;
    let limits = app.settings.limits;
    let fragment = body::text(body::read(body, limits.sdp, limits.request).await?)?;
    let verdict = patch::decide(headers, &fragment, &entry.session.ice_ufrag())?;
    let session = entry.session.clone();
    let answer = app.blocking(move |_| match verdict {
        Verdict::Candidates => Ok(session.add_candidates(&fragment).map(|()| None)?),
        Verdict::Restart => Ok(session.restart(&fragment).map(Some).map_err(|error| Failure {
            code: "restart_refused",
            hint: "end this session and begin another".into(),
            ..Failure::from(error)
        })?),
    });
    let mut response = match answer.await? {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(fragment) => {
            let mut response = fragment.into_response();
            set(&mut response, header::CONTENT_TYPE, FRAGMENT);
            response
        }
    };
    set(&mut response, header::ETAG, &patch::tag(&entry.session.ice_ufrag()));
    Ok(response)
}

/// End a session.
#[utoipa::path(
    delete, path = "/whip/session/{name}", tag = "whip", operation_id = "publish_end", params(Named),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn publish_end(app: State<Arc<App>>, id: Named) -> Result<StatusCode, Failure> {
    end(&app, Kind::Whip, &id.name)
}

/// End a session.
#[utoipa::path(
    delete, path = "/whep/session/{name}", tag = "whep", operation_id = "watch_end", params(Named),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn watch_end(app: State<Arc<App>>, id: Named) -> Result<StatusCode, Failure> {
    end(&app, Kind::Whep, &id.name)
}

fn end(app: &App, kind: Kind, id: &str) -> Result<StatusCode, Failure> {
    let entry = find(app, kind, id)?;
    close(app, &entry);
    Ok(StatusCode::OK)
}

/// Ends a session because somebody asked for it; its name is free at once.
pub(crate) fn close(app: &App, entry: &Entry) {
    tracing::info!(session = short(&entry.id), "to be ended");
    app.sessions.free(&entry.id);
    entry.session.close();
}

fn find(app: &App, kind: Kind, id: &str) -> Result<Arc<Entry>, Failure> {
    app.sessions
        .get(id)
        .filter(|entry| entry.kind == kind)
        .ok_or_else(|| missing(id))
}

/// No session has that id.
pub(crate) fn missing(id: &str) -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "session_missing",
        format!("there is no session {id:.64}"),
        "it has ended; begin another",
    )
}

fn links(app: &App, response: &mut Response) {
    for link in app.settings.ice.links(clock::unix() as u64) {
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().append(header::LINK, link);
        }
    }
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
