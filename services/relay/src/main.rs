//! `trickle-relay`: what publishers write, subscribers read while it is written. Livepeer's trickle protocol.

mod admin;
mod mirror;
mod settings;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use comfy_core::trickle::server::{Server, tls};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use settings::{Options, Settings};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = options.settings().and_then(|settings| {
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
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = settings.threads {
            runtime.worker_threads(threads);
        }
        let runtime = runtime.enable_all().build().context("no runtime")?;
        runtime.block_on(run(settings))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trickle-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let (stopping, stop) = watch::channel(false);
    // Before anything is promised: who starts us may stop us at once.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let certificate = match &settings.tls {
        Some((cert, key)) => Some(tls(cert, key)?),
        None => None,
    };
    let listener = bind(settings.listen, "listen").await?;
    let address = listener.local_addr()?;
    let server = Server::new(settings.server.clone())?;
    let mut beside = JoinSet::new();
    let mut lines = vec![format!(
        "{}://{address}{}",
        if certificate.is_some() { "https" } else { "http" },
        server.base()
    )];
    if let Some(admin) = settings.admin {
        let listener = bind(admin, "admin").await?;
        lines.push(format!("admin http://{}/", listener.local_addr()?));
        beside.spawn(admin::serve(server.clone(), listener, stop.clone()));
    }
    let mut mirrors = JoinSet::new();
    for mirror in settings.mirrors {
        mirrors.spawn(mirror.run(server.clone(), stop.clone()));
    }
    for warning in settings.warnings {
        tracing::warn!("{warning}");
    }
    // For who started us with port 0. A closed stdout is no reason not to relay.
    let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
    tracing::info!(%address, base = server.base(), "relaying");

    let told = async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("stopping: channels end, requests may finish");
        let _ = stopping.send(true);
        // Mirrors first: nobody wants what they still bring.
        mirrors.shutdown().await;
    };
    server.serve(listener, certificate, told).await;
    beside.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: std::net::SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{option}: cannot listen on {address}; is something else running there?"))
}
