//! What there is: health, models, sources, sessions, figures.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use comfy_pipelines::pool::Readiness;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::app::{App, lock};
use super::error::Failure;
use super::figures::{self, Rates, SessionInfo};
use super::ice::IceServer;
use super::openapi::ErrorBody;
use super::request::Named;
use super::sessions::Kind;
use super::{clock, guard, metrics, names, whip};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// The worst of its models.
    #[schema(value_type = String)]
    status: Readiness,
    models: Vec<ModelHealth>,
    sessions: usize,
    max_sessions: usize,
    version: &'static str,
    /// With status 503 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    error: Option<Value>,
}

/// How a model is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelHealth {
    name: String,
    #[schema(value_type = String)]
    state: Readiness,
    text: String,
}

/// Whether sessions may come.
#[utoipa::path(get, path = "/health", tag = "service", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health, headers(("Retry-After" = i32)))))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let readiness = app.blocking(|app| Ok(app.readiness())).await?;
    let status = worst(readiness.iter().map(|(_, state, _)| *state));
    let failure = match status {
        Readiness::Ready => None,
        Readiness::Loading => Some(("loading", "a model is being loaded", "try again in a while")),
        Readiness::Error => Some((
            "model_failed",
            "a model cannot run",
            "its text says why; `comfystream doctor` may help",
        )),
    };
    let failure =
        failure.map(|(code, message, hint)| Failure::new(StatusCode::SERVICE_UNAVAILABLE, code, message, hint));
    let health = Health {
        status,
        models: readiness
            .into_iter()
            .map(|(name, state, text)| ModelHealth { name, state, text })
            .collect(),
        sessions: app.sessions.count(),
        max_sessions: app.sessions.max(),
        version: VERSION,
        error: failure.as_ref().map(Failure::value),
    };
    Ok(match failure {
        None => Json(health).into_response(),
        Some(failure) => {
            let mut response = failure.into_response();
            *response.body_mut() = Json(health).into_response().into_body();
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response
        }
    })
}

fn worst(states: impl Iterator<Item = Readiness>) -> Readiness {
    states.fold(Readiness::Ready, |worst, state| match (worst, state) {
        (Readiness::Error, _) | (_, Readiness::Error) => Readiness::Error,
        (Readiness::Loading, _) | (_, Readiness::Loading) => Readiness::Loading,
        (Readiness::Ready, Readiness::Ready) => Readiness::Ready,
    })
}

/// Models that may be asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    models: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    name: String,
    path: String,
    /// `ready`, `loading`, `error`; `idle`: it is loaded when it is asked for.
    state: &'static str,
    /// Whether sessions have it that ask for none.
    default: bool,
    text: String,
}

/// The models that may be asked for by name.
#[utoipa::path(get, path = "/api/models", tag = "service", responses((status = 200, body = Models)))]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<Json<Models>, Failure> {
    let models = app.blocking(|app| {
        let wish = &app.settings.wish;
        let model = |(name, path): (String, String)| {
            let key = app.catalog.key_of(&name, path.clone(), wish.batch_size);
            let kept = app.catalog.loaded().iter().any(|(known, _)| *known == name);
            let (state, text) = match app.pool.readiness(&key) {
                Some(report) => match report.readiness {
                    Readiness::Ready => ("ready", report.text),
                    Readiness::Loading => ("loading", report.text),
                    Readiness::Error => ("error", report.text),
                },
                None if kept => ("loading", "waiting for its turn".into()),
                None => ("idle", "loaded when it is asked for".into()),
            };
            Model {
                default: wish.model.as_ref() == Some(&name),
                name,
                path,
                state,
                text,
            }
        };
        Ok(app.catalog.list().into_iter().map(model).collect())
    });
    Ok(Json(Models { models: models.await? }))
}

/// Streams that may be watched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sources {
    sources: Vec<Source>,
}

/// A stream that may be watched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Source {
    name: String,
    /// `whip`, `config` or `session`.
    kind: &'static str,
    viewers: usize,
    width: u32,
    height: u32,
    fps: f64,
}

/// The streams that may be watched by name.
#[utoipa::path(get, path = "/api/sources", tag = "service", responses((status = 200, body = Sources)))]
pub(crate) async fn sources(State(app): State<Arc<App>>) -> Result<Json<Sources>, Failure> {
    let sources = app.blocking(|app| {
        let mut streams: Vec<_> = lock(&app.sources)
            .iter()
            .map(|(options, source)| (options.name.clone(), "config", source.stream().clone()))
            .collect();
        for entry in app.sessions.all() {
            let kind = match entry.kind {
                Kind::Whip => "whip",
                Kind::Offer => "session",
                Kind::Whep => continue,
            };
            let name = entry.name.clone().unwrap_or_else(|| entry.id.clone());
            streams.push((name, kind, entry.session.stream().clone()));
        }
        let source = |(name, kind, stream): (String, _, Arc<comfy_pipelines::stream::Stream>)| {
            let (stats, viewers) = (stream.stats(), stream.viewers());
            Source {
                name,
                kind,
                viewers,
                width: stats.width,
                height: stats.height,
                // A model does not run for nobody, and what comes in would come out.
                fps: if viewers == 0 { stats.fps_in } else { stats.fps_out },
            }
        };
        Ok(streams.into_iter().map(source).collect())
    });
    Ok(Json(Sources {
        sources: sources.await?,
    }))
}

/// What a page has to know before it begins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Config {
    /// Empty for who does not bear the token.
    ice_servers: Vec<IceServer>,
    /// The best liked first.
    codecs: Vec<&'static str>,
    #[schema(value_type = Object)]
    limits: Value,
    token_required: bool,
    version: &'static str,
}

/// What a page has to know before it begins. Without the token, ICE servers are left out.
#[utoipa::path(get, path = "/api/config", tag = "service", security(()), responses((status = 200, body = Config)))]
pub(crate) async fn config(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let limits = &app.settings.limits;
    let config = Config {
        ice_servers: match guard::allowed(&app, &headers) {
            true => app.settings.ice.servers(clock::unix() as u64),
            false => Vec::new(),
        },
        codecs: app
            .settings
            .rtc
            .codecs
            .iter()
            .map(|codec| names::of_codec(*codec))
            .collect(),
        limits: json!({
            "max_sessions": limits.sessions,
            "sdp_bytes": limits.sdp,
            "body_bytes": limits.body,
            "message_bytes": limits.message,
            "messages_per_second": limits.message_rate,
            "connect_seconds": limits.connect.as_secs_f64(),
        }),
        token_required: app.settings.token.is_some(),
        version: VERSION,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(config)).into_response()
}

/// Sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    sessions: Vec<SessionInfo>,
}

/// All sessions.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", responses((status = 200, body = SessionList)))]
pub(crate) async fn sessions(State(app): State<Arc<App>>) -> Result<Json<SessionList>, Failure> {
    let sessions = app.blocking(|app| Ok(app.sessions.all().iter().map(|entry| figures::session(entry)).collect()));
    Ok(Json(SessionList {
        sessions: sessions.await?,
    }))
}

/// A session.
#[utoipa::path(get, path = "/api/sessions/{name}", tag = "sessions", params(Named),
    responses((status = 200, body = SessionInfo), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn session(State(app): State<Arc<App>>, id: Named) -> Result<Json<SessionInfo>, Failure> {
    let entry = app.sessions.get(&id.name).ok_or_else(|| whip::missing(&id.name))?;
    app.blocking(move |_| Ok(Json(figures::session(&entry)))).await
}

/// End a session.
#[utoipa::path(delete, path = "/api/sessions/{name}", tag = "sessions", params(Named),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn end(State(app): State<Arc<App>>, id: Named) -> Result<StatusCode, Failure> {
    let entry = app.sessions.get(&id.name).ok_or_else(|| whip::missing(&id.name))?;
    whip::close(&app, &entry);
    Ok(StatusCode::NO_CONTENT)
}

/// Frame rates of all streams.
#[utoipa::path(get, path = "/streams/stats", tag = "sessions",
    responses((status = 200, body = BTreeMap<String, Rates>)))]
pub(crate) async fn streams(State(app): State<Arc<App>>) -> Result<Json<BTreeMap<String, Rates>>, Failure> {
    let rates = app.blocking(|app| {
        let now = clock::unix();
        let all = app.sessions.all().into_iter().filter(|entry| entry.kind != Kind::Whep);
        Ok(all
            .map(|entry| (entry.id.clone(), figures::rates(&entry.session.stream().stats(), now)))
            .collect())
    });
    Ok(Json(rates.await?))
}

/// Frame rates and all other figures of a stream, by its session's id or by the name of a source.
#[utoipa::path(get, path = "/stream/{name}/stats", tag = "sessions", params(Named),
    responses((status = 200, body = Rates), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn stream(State(app): State<Arc<App>>, id: Named) -> Result<Json<Rates>, Failure> {
    let rates = app.blocking(move |app| {
        let entry = app.sessions.get(&id.name);
        let (stream, session) = match (&entry, app.stream(&id.name)) {
            (Some(entry), _) => (entry.session.stream().stats(), Some(entry.session.stats())),
            (None, Some(stream)) => (stream.stats(), None),
            (None, None) => {
                return Err(Failure::new(
                    StatusCode::NOT_FOUND,
                    "stream_missing",
                    format!("there is no stream {:.64}", id.name),
                    "GET /streams/stats lists what there is",
                ));
            }
        };
        let mut rates = figures::rates(&stream, clock::unix());
        rates.stats = Some(figures::all(&stream, session.as_ref()));
        Ok(Json(rates))
    });
    rates.await
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn prometheus(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let text = app.blocking(|app| Ok(metrics::render(app))).await?;
    Ok((
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_model_counts() {
        use Readiness::{Error, Loading, Ready};
        for (states, wanted) in [
            (vec![], Ready),
            (vec![Ready, Loading, Ready], Loading),
            (vec![Loading, Error], Error),
            (vec![Error, Loading, Ready], Error),
        ] {
            assert_eq!(worst(states.iter().copied()), wanted, "{states:?}");
        }
    }
}
