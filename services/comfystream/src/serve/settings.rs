//! What follows from the options, checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_core::trickle::wire::Token;
use comfy_pipelines::codec::Codec;
use comfy_pipelines::infergraph;
use comfy_pipelines::rtc::{self, Bitrate};

use super::ice::{self, Ice, Proof};
use super::names;
use super::options::{Backend, Options, SourceOptions};
use super::wish::{Change, Leaky, Wish};

const DEFAULT_PORT: u16 = 8889;

/// What the service does, and how far.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) models: Models,
    /// Of sessions that say nothing.
    pub(crate) wish: Wish,
    pub(crate) sources: Vec<SourceOptions>,
    /// Without servers: those are in `ice`.
    pub(crate) rtc: rtc::Config,
    pub(crate) ice: Ice,
    pub(crate) token: Option<Token>,
    pub(crate) cors: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) drain: Duration,
    pub(crate) stream_id_label: bool,
    pub(crate) log: String,
    pub(crate) warnings: Vec<String>,
}

/// Which models there are, and how they are run.
#[derive(Debug, Clone)]
pub(crate) struct Models {
    /// Name and file or `builtin:` name.
    pub(crate) loaded: Vec<(String, String)>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) backend: infergraph::Backend,
    pub(crate) device: u32,
    pub(crate) threads: u32,
}

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    pub(crate) sessions: usize,
    /// Whether the load of the processor decides, too.
    pub(crate) load_counts: bool,
    pub(crate) connections: usize,
    pub(crate) sdp: usize,
    pub(crate) body: usize,
    pub(crate) message: usize,
    pub(crate) message_rate: u32,
    pub(crate) connect: Duration,
    pub(crate) request: Duration,
}

impl Options {
    /// What follows from them.
    pub(crate) fn settings(self) -> anyhow::Result<Settings> {
        let options = self.complete()?;
        let listen = listen(options.listen, options.host.as_deref(), options.port)?;
        let loaded = loaded(&options.model)?;
        let default_model = match options.default_model.as_deref() {
            Some("none") => None,
            Some(name) => Some(name.to_owned()),
            None => loaded.first().map(|(name, _)| name.clone()),
        };
        let wish = Wish {
            model: default_model,
            batch_size: options.batch_size.unwrap_or(1),
            threshold: options.threshold.unwrap_or(0),
            max_batches: options.max_batches.unwrap_or(1),
            leaky: options.leaky.unwrap_or(Leaky::Oldest),
            paused: false,
            width: None,
            height: None,
        };
        let wish = wish
            .with(&Change::default())
            .map_err(|failure| anyhow::anyhow!("{}; {}", failure.message.replace('_', "-"), failure.hint))?;
        let within = |name, value, max| -> anyhow::Result<u32> {
            if value <= max {
                return Ok(value);
            }
            bail!("{name}: {value} is too much; expected 0 to {max}")
        };
        let models = Models {
            loaded,
            folder: options.models,
            backend: options.backend.unwrap_or(Backend::Auto).into(),
            device: within("device", options.device.unwrap_or(0), 63)?,
            threads: within("threads", options.threads.unwrap_or(0), 256)?,
        };
        let defaults = rtc::Config::default();
        let rtc = rtc::Config {
            ports: options.media_ports.as_deref().map(ports).transpose()?,
            address: options.ice_address,
            tcp: options.ice_tcp.unwrap_or(false),
            jitter: match options.jitter {
                Some(jitter) => Duration::from_millis(within("jitter", jitter, 2000)?.into()),
                None => defaults.jitter,
            },
            smooth: options.smooth.unwrap_or(defaults.smooth),
            bitrate: bitrate(
                options.bitrate_min.unwrap_or(defaults.bitrate.min),
                options.bitrate_start,
                options.bitrate_max.unwrap_or(defaults.bitrate.max),
                defaults.bitrate.start,
            )?,
            codecs: match options.codecs.as_slice() {
                [] => defaults.codecs,
                names => codecs(names)?,
            },
            ..defaults
        };
        let ice = ice(
            options.stun,
            options.turn,
            Credentials {
                user: options.turn_user,
                password: options.turn_credential,
                secret: options.turn_secret,
                life: seconds("turn-ttl", options.turn_ttl)?.unwrap_or(Duration::from_secs(3600)),
            },
        )?;
        let token = token(options.token)?;
        let mut warnings = Vec::new();
        if !listen.ip().is_loopback() {
            match (&token, options.no_token) {
                (None, Some(true)) => warnings.push(format!(
                    "anybody who reaches {listen} may use this machine: give a token, or listen on 127.0.0.1"
                )),
                (None, _) => bail!(
                    "listen: others reach {listen}, and there is no token; give one with --token or COMFYSTREAM_TOKEN, or say --no-token to let anybody in"
                ),
                (Some(_), _) => {
                    warnings.push("tokens travel in the clear: put a proxy that speaks TLS in front".into())
                }
            }
        }
        for origin in &options.cors {
            check_origin(origin)?;
        }
        let positive = |name, value: Option<usize>, otherwise| match value {
            Some(0) => bail!("{name}: at least 1 is needed"),
            value => Ok(value.unwrap_or(otherwise)),
        };
        let limits = Limits {
            sessions: positive("max-sessions", options.max_sessions, cores() * 4)?,
            load_counts: options.max_sessions.is_none(),
            connections: positive("max-connections", options.max_connections, 1024)?,
            sdp: positive("max-sdp", options.max_sdp, 128 << 10)?,
            body: positive("max-body", options.max_body, 2 << 20)?,
            message: positive("max-message", options.max_message, 64 << 10)?,
            message_rate: match options.message_rate {
                Some(0) => bail!("message-rate: at least 1 is needed"),
                rate => rate.unwrap_or(50),
            },
            connect: seconds("connect-time", options.connect_time)?.unwrap_or(Duration::from_secs(30)),
            request: seconds("request-time", options.request_time)?.unwrap_or(Duration::from_secs(10)),
        };
        Ok(Settings {
            listen,
            models,
            wish,
            sources: sources(&options.sources, options.source)?,
            rtc,
            ice,
            token,
            cors: options.cors,
            limits,
            drain: seconds("drain", options.drain)?.unwrap_or(Duration::from_secs(5)),
            stream_id_label: options.stream_id_label.unwrap_or(false),
            log: options.log.unwrap_or_else(|| "info".into()),
            warnings,
        })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn listen(listen: Option<SocketAddr>, host: Option<&str>, port: Option<u16>) -> anyhow::Result<SocketAddr> {
    match (listen, host, port) {
        (Some(listen), None, None) => Ok(listen),
        (Some(_), ..) => bail!("listen: it says what host and port say, too; give one or the other"),
        (None, host, port) => {
            let host = match host.unwrap_or("127.0.0.1") {
                "localhost" => "127.0.0.1",
                host => host,
            };
            let address: IpAddr = host
                .parse()
                .with_context(|| format!("host: {host:?} is no address; expected one like 127.0.0.1 or 0.0.0.0"))?;
            Ok(SocketAddr::new(address, port.unwrap_or(DEFAULT_PORT)))
        }
    }
}

/// `a-b`, or ComfyStream's list, of which webrtcbin can keep to the least and the greatest.
fn ports(text: &str) -> anyhow::Result<(u16, u16)> {
    let wrong = || format!("media-ports: {text:?} is neither a range like 5000-5010 nor a list like 5000,5001");
    let port = |text: &str| text.trim().parse().ok().filter(|port: &u16| *port > 0);
    let all: Option<Vec<u16>> = match text.split_once('-') {
        Some((first, last)) => [first, last].into_iter().map(port).collect(),
        None => text.split(',').map(port).collect(),
    };
    let all = all.with_context(wrong)?;
    let (first, last) = all.iter().min().zip(all.iter().max()).with_context(wrong)?;
    if text.contains('-') && all[0] > all[1] {
        bail!("{}", wrong());
    }
    Ok((*first, *last))
}

fn loaded(models: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut loaded: Vec<(String, String)> = Vec::new();
    for model in models.iter().filter(|model| !model.is_empty()) {
        let name = names::of_model(model).with_context(|| format!("model: {model:?} has no name"))?;
        if !model.starts_with("builtin:") && !std::path::Path::new(model).is_file() {
            bail!("model: there is no file {model}; expected an .onnx file, or builtin:invert");
        }
        if let Some((_, other)) = loaded.iter().find(|(known, _)| *known == name) {
            bail!("model: {other} and {model} would both be called {name}; rename one of the files");
        }
        loaded.push((name, model.clone()));
    }
    Ok(loaded)
}

fn bitrate(min: u32, start: Option<u32>, max: u32, otherwise: u32) -> anyhow::Result<Bitrate> {
    if min == 0 || min > max {
        bail!("bitrate-min: {min} is not within 1 and bitrate-max, {max}");
    }
    let start = start.unwrap_or(otherwise.clamp(min, max));
    if !(min..=max).contains(&start) {
        bail!("bitrate-start: {start} is not within bitrate-min and bitrate-max, {min} to {max}");
    }
    Ok(Bitrate { min, start, max })
}

fn codecs(names: &[String]) -> anyhow::Result<Vec<Codec>> {
    let mut codecs = Vec::new();
    for name in names {
        let plain = name.trim().replace('.', "").to_ascii_uppercase();
        let codec = Codec::ALL
            .into_iter()
            .find(|codec| names::of_codec(*codec) == plain)
            .with_context(|| format!("codecs: {name:?} is none of VP8, H264, VP9, AV1, H265"))?;
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    Ok(codecs)
}

/// What is said about TURN.
struct Credentials {
    user: Option<String>,
    password: Option<String>,
    secret: Option<String>,
    life: Duration,
}

fn ice(stun: Vec<String>, turn: Vec<String>, credentials: Credentials) -> anyhow::Result<Ice> {
    for url in &stun {
        if !ice::url(url, &["stun", "stuns"]) {
            bail!("stun: {url:?} is no STUN server; expected one like stun:stun.example:3478");
        }
    }
    for url in &turn {
        if !ice::url(url, &["turn", "turns"]) {
            bail!("turn: {url:?} is no TURN server; expected one like turn:turn.example:3478");
        }
    }
    let proof = match (credentials.secret, credentials.user, credentials.password) {
        (Some(_), _, Some(_)) => bail!("turn-secret: there is a turn-credential, too; give one or the other"),
        (Some(secret), name, None) => Proof::Timed {
            secret,
            name,
            life: credentials.life,
        },
        (None, Some(username), Some(credential)) => Proof::Fixed { username, credential },
        (None, None, None) if turn.is_empty() => Proof::None,
        (None, None, None) => {
            bail!("turn: a TURN server wants to know who we are; give turn-secret, or turn-user and turn-credential")
        }
        (None, Some(_), None) => bail!("turn-user: there is no turn-credential, nor a turn-secret"),
        (None, None, Some(_)) => bail!("turn-credential: there is no turn-user"),
    };
    if turn.is_empty() && !matches!(proof, Proof::None) {
        bail!("turn: it is not given, and what proves us to it is");
    }
    Ok(Ice { stun, turn, proof })
}

fn token(value: Option<String>) -> anyhow::Result<Option<Token>> {
    match value {
        // An empty variable in a unit file must not open the service to everybody, nor close it to all.
        Some(text) if text.is_empty() => bail!("token is empty; give it a value, or leave it out"),
        Some(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            bail!("token has characters that no HTTP header may have")
        }
        Some(text) => Ok(Some(text.into())),
        None => Ok(None),
    }
}

fn check_origin(origin: &str) -> anyhow::Result<()> {
    let host = origin.split_once("://").map(|(_, host)| host);
    if origin == "*" || origin == "null" || host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
        return Ok(());
    }
    bail!("cors: {origin:?} is no origin; expected one like https://page.example, without a path, or *")
}

fn sources(flags: &[String], file: Vec<SourceOptions>) -> anyhow::Result<Vec<SourceOptions>> {
    let mut sources = Vec::new();
    for flag in flags.iter().filter(|flag| !flag.is_empty()) {
        let (name, uri) = flag
            .split_once('=')
            .with_context(|| format!("source: {flag:?} has no name; expected NAME=URI"))?;
        sources.push(SourceOptions {
            name: name.into(),
            uri: uri.into(),
            model: None,
        });
    }
    sources.extend(file);
    for (index, source) in sources.iter().enumerate() {
        if !names::valid(&source.name) {
            bail!("source: {:?} is no name; {}", source.name, names::RULE);
        }
        if source.uri.is_empty() {
            bail!("source: {} has no URI", source.name);
        }
        if sources[..index].iter().any(|other| other.name == source.name) {
            bail!("source: there are two called {}", source.name);
        }
    }
    Ok(sources)
}

/// A time that makes sense: more than nothing, less than a year.
fn seconds(name: &str, value: Option<f64>) -> anyhow::Result<Option<Duration>> {
    const YEAR: f64 = 365.0 * 86_400.0;
    let Some(value) = value else { return Ok(None) };
    if (0.001..=YEAR).contains(&value) {
        return Ok(Some(Duration::from_secs_f64(value)));
    }
    bail!("{name}: {value} is no time; expected seconds from 0.001 to {YEAR}")
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
