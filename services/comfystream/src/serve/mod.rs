//! `comfystream serve`: the page and the APIs. Cameras of browsers go through a model and back.
//!
//! In reading order:
//!
//! - [`options`] and [`settings`]: what the service is told; [`ice`]: servers that help peers to find each other.
//! - [`router`]: which address is answered by what; [`guard`]: who may; [`body`] and [`request`]: what comes in;
//!   [`error`]: what is said when it does not; [`openapi`]: the machine-readable form; [`server`]: connections.
//! - [`offer`], [`whip`] with [`patch`]: sessions begin; [`api`]: what there is; [`page`]: the page.
//! - [`app`]: what all share; [`sessions`]: who is there; [`attend`] with [`control`] and [`bucket`]: what a session's
//!   peer asks for; [`catalog`] and [`wish`]: models by name; [`figures`], [`metrics`] and [`load`]: how it is going.

mod api;
mod app;
mod attend;
mod body;
mod bucket;
mod catalog;
mod clock;
mod control;
mod error;
mod figures;
mod guard;
mod ice;
mod load;
mod metrics;
mod names;
mod offer;
mod openapi;
mod options;
mod page;
mod patch;
mod request;
mod router;
mod server;
mod sessions;
mod settings;
mod whip;
mod wish;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use comfy_pipelines::pool::{Pool, Readiness};
use comfy_pipelines::source::Source;
use comfy_pipelines::stream;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use app::{App, lock};
use catalog::Catalog;
use load::Load;
pub(crate) use options::Options as Args;
use sessions::Sessions;
use settings::Settings;
use wish::Change;

/// What a shell calls a program that was interrupted.
const INTERRUPTED: i32 = 130;
/// How often it is looked how far models are.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = args.settings()?;
    let filter = EnvFilter::try_new(&settings.log).with_context(|| {
        format!(
            "log: {:?} is no filter; expected info, or debug, or a list",
            settings.log
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    gst::init()?;
    let origin = comfy_pipelines::register()?;
    tracing::info!("comfy elements: {origin}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .build()
        .context("no runtime")?;
    let done = runtime.block_on(serve(settings));
    // What still blocks is GStreamer's, and must not keep us.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    // Before anything is promised: who starts us may stop us at once.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "listen: cannot listen on {}; is something else running there?",
            settings.listen
        )
    })?;
    let address = listener.local_addr()?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let drain = settings.drain;
    let limits = server::Limits {
        connections: settings.limits.connections,
        head: settings.limits.request,
    };
    let app = start(settings).await?;
    let sampling = tokio::spawn(metrics::sample(app.clone()));
    let watching = tokio::spawn(watch_models(app.clone()));
    let (stopping, stop) = watch::channel(false);
    let serving = tokio::spawn(server::serve(listener, router::router(app.clone()), limits, stop));
    // For who started us with port 0. A closed stdout is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "open {}", link(address));
    tracing::info!(%address, "serving");

    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    tracing::info!("stopping: sessions end, requests may finish");
    let again = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    let _ = stopping.send(true);
    let ending = async {
        for entry in app.sessions.close() {
            entry.session.close();
        }
        for (_, source) in lock(&app.sources).iter() {
            source.close();
        }
        app.sessions.empty().await;
        let _ = serving.await;
    };
    tokio::select! {
        done = tokio::time::timeout(drain, ending) => if done.is_err() {
            tracing::warn!("not all ended within {} s", drain.as_secs_f64());
        },
        () = again => {
            tracing::warn!("told again: ended at once");
            std::process::exit(INTERRUPTED);
        }
    }
    sampling.abort();
    watching.abort();
    tracing::info!("stopped");
    Ok(())
}

/// What a browser is to be told.
fn link(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        // Browsers give cameras to pages of this machine, whatever it is called, and not to others without TLS.
        ip if ip.is_loopback() || ip.is_unspecified() => format!("http://localhost:{port}"),
        _ => format!("http://{address}"),
    }
}

/// Models are loaded and sources opened in the background.
async fn start(settings: Settings) -> anyhow::Result<Arc<App>> {
    let prometheus = metrics::install()?;
    let app = Arc::new(App {
        catalog: Catalog::new(settings.models.clone()),
        sessions: Sessions::new(settings.limits.sessions),
        pool: Pool::new(),
        sources: Mutex::default(),
        prompts: Mutex::default(),
        load: Mutex::new(Load::default()),
        prometheus,
        settings,
    });
    let opened = app.blocking(|app| {
        let wish = &app.settings.wish;
        for (name, path) in app.catalog.loaded() {
            app.pool
                .keep(&app.catalog.key_of(name, path.clone(), wish.batch_size))?;
        }
        // A default model that is not there would fail every session.
        app.catalog.settings(wish)?;
        for options in &app.settings.sources {
            let model = match options.model.as_deref() {
                None => None,
                Some("none") => Some(None),
                Some(name) => Some(Some(name.to_owned())),
            };
            let wish = wish.with(&Change {
                model,
                ..Change::default()
            })?;
            let settings = app.catalog.settings(&wish)?;
            let name = options.name.clone();
            let listener = Arc::new(move |event: stream::Event| match event {
                stream::Event::Failed(text) | stream::Event::Warning(text) => tracing::warn!(source = name, "{text}"),
                stream::Event::State { state, text, .. } => tracing::info!(source = name, ?state, "{text}"),
                stream::Event::Buffer { .. } => (),
            });
            let source = Source::open(&app.pool, &options.name, &options.uri, settings, listener)?;
            lock(&app.sources).push((options.clone(), source));
        }
        Ok(())
    });
    opened
        .await
        .map_err(|failure| anyhow!("{}; {}", failure.message, failure.hint))?;
    Ok(app)
}

/// Tells how far the models are, until all are there or cannot be.
async fn watch_models(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut told = Vec::new();
    loop {
        ticks.tick().await;
        let Ok(now) = app.blocking(|app| Ok(app.readiness())).await else {
            return;
        };
        for (name, state, text) in now.iter().filter(|model| !told.contains(*model)) {
            match state {
                Readiness::Loading | Readiness::Ready => tracing::info!(model = name, ?state, "{text}"),
                Readiness::Error => tracing::error!(model = name, "{text}"),
            }
        }
        if now.iter().all(|(_, state, _)| *state != Readiness::Loading) {
            return;
        }
        told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_an_address_that_works() {
        for (address, wanted) in [
            ("127.0.0.1:1", "http://localhost:1"),
            ("0.0.0.0:2", "http://localhost:2"),
            ("[::]:3", "http://localhost:3"),
            ("192.0.2.1:4", "http://192.0.2.1:4"),
            ("[2001:db8::1]:5", "http://[2001:db8::1]:5"),
        ] {
            assert_eq!(link(address.parse().unwrap()), wanted);
        }
    }
}
