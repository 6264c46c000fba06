//! For who runs the relay: is it well, what does it do. On an address of its own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use comfy_core::trickle::server::{Server, Totals};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// People and collectors at a time.
const MAX_CONNECTIONS: usize = 64;

/// Time for a request to come.
const HEADER: Duration = Duration::from_secs(10);

/// Time for a connection, whatever it does: a collector comes again.
const WHOLE: Duration = Duration::from_secs(120);

/// Channels that the status page shows at most.
const SHOWN: usize = 1000;

const PAGE: &str = include_str!("page.html");

pub(crate) async fn serve(server: Server, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Who finds no place waits until somebody has gone; each goes before long.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin: a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let server = server.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = answer(&server, &request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(WHOLE, connection).await {
                tracing::debug!(%error, "admin: a connection broke");
            }
        });
    }
}

fn answer(server: &Server, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".into());
    }
    match request.uri().path() {
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", PAGE.into()),
        "/healthz" => respond(StatusCode::OK, "text/plain", "ok\n".into()),
        "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4", metrics(&server.totals())),
        "/status.json" => respond(StatusCode::OK, "application/json", status(server)),
        _ => respond(
            StatusCode::NOT_FOUND,
            "text/plain",
            "not here: /, /healthz, /metrics, /status.json\n".into(),
        ),
    }
}

fn respond(code: StatusCode, mime: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(mime));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn status(server: &Server) -> String {
    let totals = server.totals();
    let channels = server.channels();
    let shown = channels.iter().take(SHOWN).map(|channel| {
        json!({
            "name": channel.name,
            "mime": channel.mime,
            "next_write": channel.stats.next_write,
            "readers": channel.stats.readers,
            "writers": channel.stats.writers,
            "bytes_per_second_in": channel.rate_in.round(),
            "bytes_per_second_out": channel.rate_out.round(),
            "held": channel.stats.held,
            "age": channel.age.as_secs(),
            "idle": channel.idle.as_secs(),
        })
    });
    let shown: Vec<_> = shown.collect();
    json!({
        "uptime": totals.uptime.as_secs(),
        "connections": totals.connections,
        "memory": totals.memory,
        "left_out": channels.len() - shown.len(),
        "channels": shown,
    })
    .to_string()
}

fn metrics(totals: &Totals) -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP trickle_{name} {help}\n# TYPE trickle_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "trickle_{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let gauges = [
        (
            "uptime_seconds",
            "Since the relay was started.",
            totals.uptime.as_secs(),
        ),
        ("channels", "Channels.", totals.channels as u64),
        ("connections", "Connections.", totals.connections as u64),
        (
            "readers",
            "Requests that read a segment or wait for one.",
            totals.readers as u64,
        ),
        (
            "writers",
            "Requests that write a segment or are about to.",
            totals.writers as u64,
        ),
        ("memory_bytes", "What all segments cost.", totals.memory as u64),
    ];
    for (name, help, value) in gauges {
        add(name, "gauge", help, &one(value));
    }
    let counters = [
        ("accepted_total", "Connections so far.", totals.accepted),
        ("channels_created_total", "Channels so far.", totals.created),
        (
            "channels_swept_total",
            "Channels ended because nothing was written.",
            totals.swept,
        ),
        ("segments_total", "Segments begun.", totals.segments),
        ("received_bytes_total", "Bytes of segments received.", totals.bytes_in),
        ("sent_bytes_total", "Bytes of segments sent.", totals.bytes_out),
    ];
    for (name, help, value) in counters {
        add(name, "counter", help, &one(value));
    }
    let answers = totals.answers.iter();
    let answers: Vec<_> = answers
        .map(|((method, status), count)| (format!("{{method=\"{method}\",status=\"{status}\"}}"), *count))
        .collect();
    add("answers_total", "counter", "Answers so far.", &answers);
    text
}
