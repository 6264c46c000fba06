//! One request, one answer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep};

use super::body::{AnswerBody, ReadHold, WriteHold};
use super::link::{Busy, Link};
use super::registry::{Entry, Registry};
use super::{Denied, Refusal};
use crate::trickle::channel::{Append, Delete, Head, OpenRead, OpenWrite, Writing};
use crate::trickle::wire::{NEXT, Route, Wanted, header, number, route, status, text, value};

/// How often a channel that ends while it is being found is looked for again.
const TRIES: usize = 3;

pub(super) async fn answer(
    registry: &Arc<Registry>,
    link: &Arc<Link>,
    busy: Busy,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let method = known(request.method());
    let mut response = respond(registry, link, request).await;
    if let Some(origin) = registry
        .config
        .cors
        .as_deref()
        .and_then(|origin| HeaderValue::from_str(origin).ok())
    {
        cors(response.headers_mut(), origin);
    }
    let code = response.status().as_u16();
    let mut answers = registry.counters.answers.lock().unwrap_or_else(PoisonError::into_inner);
    *answers.entry((method, code)).or_default() += 1;
    drop(answers);
    Ok(response.map(|body| body.holding(busy)))
}

async fn respond(registry: &Arc<Registry>, link: &Arc<Link>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (method, route) = (request.method().clone(), route(&registry.base, request.uri().path()));
    if method == Method::OPTIONS && registry.config.cors.is_some() {
        return plain(StatusCode::NO_CONTENT);
    }
    if matches!(route, Route::Unknown) {
        return refuse(status::NO_CHANNEL, text::NO_PAGE);
    }
    let reads = matches!(method, Method::GET | Method::HEAD);
    let token = match reads {
        true => &registry.config.subscribe_token,
        false => &registry.config.publish_token,
    };
    if let Some(token) = token
        && !bears(&request, token.expose())
    {
        let what = if reads { "reading" } else { "publishing" };
        let reason = format!("{what} needs the header Authorization: Bearer TOKEN, with the right token");
        let mut response = closing(refuse(status::UNAUTHORIZED, &reason));
        set(&mut response, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    if reads && !request.body().is_end_stream() {
        // Nobody would read it, and until somebody does it is not seen whether the peer is still there.
        return early(link, refuse(status::BAD, text::NO_BODY));
    }
    match (route, method) {
        (Route::BadName, _) => refuse(status::BAD, text::BAD_CHANNEL),
        (Route::Channel(name), Method::POST) => create(registry, &name, &request),
        (Route::Channel(name), Method::DELETE) => delete(registry, &name),
        (Route::Channel(_), _) => not_allowed("DELETE, POST"),
        (Route::Segment(name, seq), Method::POST) => publish(registry, link, &name, &seq, request).await,
        (Route::Segment(name, seq), Method::GET) => read(registry, &name, &seq, false).await,
        (Route::Segment(name, seq), Method::HEAD) => read(registry, &name, &seq, true).await,
        (Route::Segment(name, seq), Method::DELETE) => delete_segment(registry, &name, &seq),
        (Route::Segment(..), _) => not_allowed("DELETE, GET, HEAD, POST"),
        (Route::Unknown, _) => refuse(status::NO_CHANNEL, text::NO_PAGE),
    }
}

fn create(registry: &Registry, name: &str, request: &Request<Incoming>) -> Response<AnswerBody> {
    if registry.find(name).is_none() && !registry.config.autocreate {
        return refuse(status::NO_CHANNEL, text::NO_CHANNEL);
    }
    match registry.create(name, given(request, header::EXPECT_CONTENT), true) {
        Ok(_) => plain(StatusCode::OK),
        Err(refusal) => refused(&refusal),
    }
}

fn delete(registry: &Registry, name: &str) -> Response<AnswerBody> {
    match registry.delete(name, true) {
        Ok(true) => plain(StatusCode::OK),
        Ok(false) => refuse(status::BAD, text::BAD_CHANNEL),
        Err(refusal) => refused(&refusal),
    }
}

fn delete_segment(registry: &Registry, name: &str, seq: &str) -> Response<AnswerBody> {
    let Some(entry) = registry.find(name) else {
        return refuse(status::NO_CHANNEL, text::NO_CHANNEL);
    };
    match number(seq).and_then(Wanted::to_delete) {
        None => refuse(status::BAD, text::BAD_SEQ),
        Some(seq) => match entry.with(|ring| ring.delete(seq)) {
            Delete::Ended => plain(StatusCode::OK),
            Delete::Missing => refuse(status::BAD, text::BAD_SEGMENT),
        },
    }
}

async fn read(registry: &Registry, name: &str, seq: &str, head_only: bool) -> Response<AnswerBody> {
    let Some(entry) = registry.find(name) else {
        return refuse(status::NO_CHANNEL, text::NO_CHANNEL);
    };
    if seq == NEXT {
        let latest = entry.with(|ring| ring.next_write());
        let mut response = Response::new(AnswerBody::text(latest.to_string()));
        set(&mut response, CONTENT_TYPE, HeaderValue::from_static(value::TEXT));
        set_number(&mut response, header::LATEST, latest);
        return response;
    }
    let Some(wanted) = number(seq).and_then(Wanted::to_read) else {
        return refuse(status::BAD, text::BAD_SEQ);
    };
    let hold = match entry.with(|ring| ring.open_read(wanted)) {
        OpenRead::Opened(reader) => ReadHold::new(entry, reader),
        OpenRead::Missing { latest } => return missing(wanted, latest),
        OpenRead::Full => {
            let most = registry.config.channel.max_readers;
            return refuse(
                status::FULL,
                &format!("the channel has {most} readers, which is all it may"),
            );
        }
        OpenRead::Closed => return refuse(status::NO_CHANNEL, text::NO_CHANNEL),
    };
    match poll_fn(|cx| hold.poll_head(cx)).await {
        Head::Data { seq, latest } => {
            let mime = content_type(registry, &hold.entry);
            let mut response = match head_only {
                true => plain(StatusCode::OK),
                false => Response::new(AnswerBody::segment(hold)),
            };
            set(&mut response, CONTENT_TYPE, mime);
            set_number(&mut response, header::SEQ, seq);
            if let Some(latest) = latest {
                set_number(&mut response, header::LATEST, latest);
            }
            response
        }
        Head::Empty { seq, latest, closed } => {
            let mut response = plain(StatusCode::OK);
            set_number(&mut response, header::SEQ, seq);
            set_number(&mut response, header::LATEST, latest);
            if closed {
                set_closed(&mut response);
            }
            response
        }
        // It is waited for.
        Head::Wait => refuse(status::BROKEN, text::BROKEN),
    }
}

fn missing(wanted: Wanted, latest: u64) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::text(text::MISSING));
    *response.status_mut() = code(status::MISSING);
    response
        .extensions_mut()
        .insert(ReasonPhrase::from_static(status::MISSING_REASON.as_bytes()));
    set(&mut response, CONTENT_TYPE, HeaderValue::from_static(value::TEXT));
    set_number(&mut response, header::LATEST, latest);
    let seq = HeaderValue::from_str(&wanted.to_string()).unwrap_or(HeaderValue::from_static("0"));
    set(&mut response, HeaderName::from_static(header::SEQ), seq);
    response
}

async fn publish(
    registry: &Arc<Registry>,
    link: &Link,
    name: &str,
    seq: &str,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let reset = !given(&request, header::RESET).is_empty();
    let mime = given(&request, CONTENT_TYPE.as_str());
    for _ in 0..TRIES {
        let found = match registry.find(name) {
            Some(entry) => entry,
            None if registry.config.autocreate => match registry.create(name, mime, false) {
                Ok(entry) => entry,
                Err(refusal) => return early(link, refused(&refusal)),
            },
            None => return early(link, refuse(status::NO_CHANNEL, text::NO_CHANNEL)),
        };
        let Some(wanted) = number(seq).and_then(Wanted::to_write) else {
            return early(link, refuse(status::BAD, text::BAD_SEQ));
        };
        let wanted = match wanted {
            Wanted::Number(seq) => Some(seq),
            Wanted::Next | Wanted::Current => None,
        };
        match found.with(|ring| ring.open_write(wanted, reset)) {
            OpenWrite::Opened { writer, seq, shared } => {
                if shared {
                    tracing::warn!(channel = name, seq, "two publishers write the same segment");
                }
                let hold = WriteHold::new(registry, found, writer);
                return receive(link, hold, seq, request.into_body()).await;
            }
            OpenWrite::Ended { seq } => return early(link, done(seq, false)),
            OpenWrite::Full => {
                let most = registry.config.channel.max_writers;
                let reason = format!("the channel has {most} publishers, which is all it may");
                return early(link, refuse(status::FULL, &reason));
            }
            OpenWrite::Closed => (),
        }
    }
    early(link, refuse(status::NO_CHANNEL, text::NO_CHANNEL))
}

/// What comes next in a request's body.
enum Event {
    Frame(Option<Result<Frame<Bytes>, hyper::Error>>),
    Ended { closed: bool },
    Interim,
    Silent,
}

async fn receive(link: &Link, mut hold: WriteHold, seq: u64, mut body: Incoming) -> Response<AnswerBody> {
    let registry = hold.registry.clone();
    let config = &registry.config;
    let tell_lost = config.channel.dialect.tell_lost_writers;
    let mut begun = false;
    let mut last = Instant::now();
    let mut interim: Pin<Box<Sleep>> = Box::pin(sleep(config.interim));
    let mut silence = config.silence.map(|time| (time, Box::pin(sleep(time))));
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                return Poll::Ready(Event::Frame(frame));
            }
            if (!begun || tell_lost)
                && let Writing::Ended { closed } = hold.poll_writing(cx)
            {
                return Poll::Ready(Event::Ended { closed });
            }
            if !begun && interim.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Interim);
            }
            if begun
                && let Some((_, silence)) = &mut silence
                && silence.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Event::Silent);
            }
            Poll::Pending
        })
        .await;
        match event {
            Event::Frame(Some(Ok(frame))) => {
                // Trailers say nothing to us.
                let Ok(bytes) = frame.into_data() else { continue };
                if bytes.is_empty() {
                    continue;
                }
                match hold.append(bytes) {
                    Some(Append::Stored | Append::Dropped) => begun = true,
                    Some(Append::Ended { closed }) => return early(link, done(seq, closed)),
                    Some(Append::TooLarge) => {
                        let most = config.channel.max_segment;
                        tracing::warn!(
                            channel = hold.entry.name,
                            seq,
                            most,
                            "a segment was ended: it is too large"
                        );
                        let reason = format!("a segment may have {most} bytes; begin another one sooner");
                        return early(link, refuse(status::TOO_LARGE, &reason));
                    }
                    None => {
                        tracing::warn!(
                            channel = hold.entry.name,
                            seq,
                            "a segment was ended: the memory is full"
                        );
                        let _ = hold.finish();
                        let reason = format!("the server holds {} bytes, which is all it may", config.max_memory);
                        return early(link, refuse(status::FULL, &reason));
                    }
                }
                last = Instant::now();
            }
            Event::Frame(None) => {
                let finished = hold.finish();
                let response = done(seq, finished.closed);
                return if finished.empty { closing(response) } else { response };
            }
            Event::Frame(Some(Err(error))) => {
                tracing::debug!(channel = hold.entry.name, seq, %error, "a segment broke off");
                return early(link, refuse(status::BROKEN, text::BROKEN));
            }
            Event::Ended { closed } => return early(link, done(seq, closed)),
            Event::Interim => {
                link.interim();
                interim.as_mut().reset(Instant::now() + config.interim);
            }
            Event::Silent => {
                let Some((time, silence)) = &mut silence else { continue };
                if last.elapsed() >= *time {
                    tracing::warn!(
                        channel = hold.entry.name,
                        seq,
                        ?time,
                        "a segment broke off: its publisher is silent"
                    );
                    return early(link, refuse(408, &format!("nothing came for {time:?}")));
                }
                silence.as_mut().reset(last + *time);
            }
        }
    }
}

/// The answer to a segment.
fn done(seq: u64, closed: bool) -> Response<AnswerBody> {
    let mut response = plain(StatusCode::OK);
    set_number(&mut response, header::SEQ, seq);
    if closed {
        set_closed(&mut response);
    }
    response
}

/// An answer before the end of the request. The connection is of no use afterwards.
fn early(link: &Link, response: Response<AnswerBody>) -> Response<AnswerBody> {
    link.early();
    closing(response)
}

fn closing(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    set(&mut response, CONNECTION, HeaderValue::from_static("close"));
    response
}

fn plain(code: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::text(Bytes::new()));
    *response.status_mut() = code;
    response
}

fn refuse(status: u16, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::text(format!("{text}\n")));
    *response.status_mut() = code(status);
    set(&mut response, CONTENT_TYPE, HeaderValue::from_static(value::TEXT));
    let (name, value) = ("x-content-type-options", "nosniff");
    set(
        &mut response,
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    response
}

fn refused(refusal: &Refusal) -> Response<AnswerBody> {
    match refusal {
        Refusal::BadChannel => refuse(status::BAD, text::BAD_CHANNEL),
        Refusal::BadType => refuse(status::BAD, &refusal.to_string()),
        Refusal::Channels(_) | Refusal::Stopped => refuse(status::FULL, &refusal.to_string()),
        Refusal::Denied(Denied::Failed(text)) => refuse(status::BROKEN, text),
        Refusal::Denied(Denied::Status(code @ 400..=499, text)) => refuse(*code, text),
        Refusal::Denied(Denied::Status(_, text)) => refuse(status::BAD, text),
    }
}

fn not_allowed(methods: &'static str) -> Response<AnswerBody> {
    let mut response = refuse(status::METHOD, text::METHOD);
    set(&mut response, ALLOW, HeaderValue::from_static(methods));
    response
}

fn cors(headers: &mut hyper::HeaderMap, origin: HeaderValue) {
    let ours = "Content-Type, Lp-Trickle-Seq, Lp-Trickle-Latest, Lp-Trickle-Closed";
    let theirs = "Authorization, Content-Type, Expect-Content, Lp-Trickle-Reset";
    for (name, value) in [
        ("access-control-allow-origin", origin),
        (
            "access-control-allow-methods",
            HeaderValue::from_static("GET, HEAD, POST, DELETE"),
        ),
        ("access-control-allow-headers", HeaderValue::from_static(theirs)),
        ("access-control-expose-headers", HeaderValue::from_static(ours)),
        ("vary", HeaderValue::from_static("Origin")),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn content_type(registry: &Registry, entry: &Entry) -> HeaderValue {
    let unknown = match registry.config.channel.dialect.empty_type {
        true => "",
        false => value::UNKNOWN_TYPE,
    };
    HeaderValue::from_str(&entry.mime)
        .ok()
        .filter(|mime| !mime.is_empty())
        .unwrap_or(HeaderValue::from_static(unknown))
}

fn set(response: &mut Response<AnswerBody>, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

fn set_number(response: &mut Response<AnswerBody>, name: &'static str, number: u64) {
    set(response, HeaderName::from_static(name), HeaderValue::from(number));
}

fn set_closed(response: &mut Response<AnswerBody>) {
    let name = HeaderName::from_static(header::CLOSED);
    set(response, name, HeaderValue::from_static(value::TERMINATED));
}

fn given<'a>(request: &'a Request<Incoming>, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// True if the request carries the token. Takes as long for a wrong one that is nearly right.
fn bears(request: &Request<Incoming>, token: &str) -> bool {
    let value = given(request, AUTHORIZATION.as_str());
    let (scheme, given) = value.split_once(' ').unwrap_or_default();
    let (given, token) = (given.trim().as_bytes(), token.as_bytes());
    let differ = given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b));
    scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differ == 0
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
