//! What the relay is told: by flags, by the environment, by a file; the first of these that says something counts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use comfy_core::trickle::channel::Dialect;
use comfy_core::trickle::server::Config;
use comfy_core::trickle::wire::{Token, base};
use serde::Deserialize;

use crate::mirror::Mirror;

/// Relays segments: what publishers write, subscribers read while it is written.
///
/// Every option may also stand in the file, under the same name, and in the environment, as TRICKLE_RELAY_NAME.
#[derive(Debug, Default, Parser, Deserialize)]
#[command(version, about)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Options {
    /// File with options, in TOML. Unknown keys are refused.
    #[arg(long, env = "TRICKLE_RELAY_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where publishers and subscribers connect. Default 127.0.0.1:3389: this machine only.
    #[arg(long, env = "TRICKLE_RELAY_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where /healthz, /metrics and the status page are. Default: nowhere.
    #[arg(long, env = "TRICKLE_RELAY_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Path before the channels' names. Default /.
    #[arg(long, env = "TRICKLE_RELAY_BASE", value_name = "PATH")]
    base: Option<String>,
    /// Make channels that somebody publishes to.
    #[arg(long, env = "TRICKLE_RELAY_AUTOCREATE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autocreate: Option<bool>,
    /// Tell in channel _changes which channels come and go.
    #[arg(long, env = "TRICKLE_RELAY_CHANGEFEED", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    changefeed: Option<bool>,
    /// Certificate, with those that vouch for it, in PEM form. With it the relay speaks TLS only.
    #[arg(long, env = "TRICKLE_RELAY_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM form.
    #[arg(long, env = "TRICKLE_RELAY_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Only who bears this may publish, create and delete. On the command line others can see it.
    #[arg(
        long,
        env = "TRICKLE_RELAY_PUBLISH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    publish_token: Option<String>,
    /// Only who bears this may read.
    #[arg(
        long,
        env = "TRICKLE_RELAY_SUBSCRIBE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    subscribe_token: Option<String>,
    /// Origin whose web pages may use the relay, * for any. Default: none.
    #[arg(long, env = "TRICKLE_RELAY_CORS", value_name = "ORIGIN")]
    cors: Option<String>,
    /// Bytes in a segment at most. Default 67108864.
    #[arg(long, env = "TRICKLE_RELAY_MAX_SEGMENT", value_name = "BYTES")]
    max_segment: Option<usize>,
    /// Bytes held at most, all channels together. Default 1073741824.
    #[arg(long, env = "TRICKLE_RELAY_MAX_MEMORY", value_name = "BYTES")]
    max_memory: Option<usize>,
    /// Channels at most. Default 20000.
    #[arg(long, env = "TRICKLE_RELAY_MAX_CHANNELS", value_name = "COUNT")]
    max_channels: Option<usize>,
    /// Readers of a channel at most. Default 1024.
    #[arg(long, env = "TRICKLE_RELAY_MAX_READERS", value_name = "COUNT")]
    max_readers: Option<usize>,
    /// Publishers of a channel at most, waiting ones included. Default 256.
    #[arg(long, env = "TRICKLE_RELAY_MAX_WRITERS", value_name = "COUNT")]
    max_writers: Option<usize>,
    /// Connections at most. Default 50000.
    #[arg(long, env = "TRICKLE_RELAY_MAX_CONNECTIONS", value_name = "COUNT")]
    max_connections: Option<usize>,
    /// A channel in which nothing is written for this long ends. Default 300.
    #[arg(long, env = "TRICKLE_RELAY_IDLE_CHANNEL", value_name = "SECONDS")]
    idle_channel: Option<f64>,
    /// Time between two requests on a connection. Default 600.
    #[arg(long, env = "TRICKLE_RELAY_IDLE_CONNECTION", value_name = "SECONDS")]
    idle_connection: Option<f64>,
    /// Time for the head of a request. Default 10.
    #[arg(long, env = "TRICKLE_RELAY_HEADER_TIME", value_name = "SECONDS")]
    header_time: Option<f64>,
    /// Time in which a reader must take something, if there is something. Default 30.
    #[arg(long, env = "TRICKLE_RELAY_STALL", value_name = "SECONDS")]
    stall: Option<f64>,
    /// Time in which a publisher must send something once a segment has begun. Default: as long as it likes.
    #[arg(long, env = "TRICKLE_RELAY_SILENCE", value_name = "SECONDS")]
    silence: Option<f64>,
    /// Time for requests to end when the relay is told to stop. Default 5.
    #[arg(long, env = "TRICKLE_RELAY_DRAIN", value_name = "SECONDS")]
    drain: Option<f64>,
    /// Channel to bring here from another relay; several URLs take over from each other. May be given several times.
    #[arg(
        long,
        env = "TRICKLE_RELAY_MIRROR",
        value_name = "URL[,URL...]=CHANNEL",
        value_delimiter = ' '
    )]
    mirror: Vec<String>,
    /// Token for the relays that are mirrored.
    #[arg(
        long,
        env = "TRICKLE_RELAY_MIRROR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    mirror_token: Option<String>,
    /// Certificates to trust besides the system's when mirroring, in PEM form.
    #[arg(long, env = "TRICKLE_RELAY_MIRROR_CA", value_name = "FILE")]
    mirror_ca: Option<PathBuf>,
    /// Trust any certificate when mirroring.
    #[arg(long, env = "TRICKLE_RELAY_MIRROR_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mirror_insecure: Option<bool>,
    /// Do as the reference server does also where that is a defect. See docs/TRICKLE.md.
    #[arg(long, env = "TRICKLE_RELAY_LIKE_REFERENCE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    like_reference: Option<bool>,
    /// Single defects of the reference, in the file only.
    #[arg(skip)]
    dialect: DialectOptions,
    /// Threads. Default: as many as there are cores.
    #[arg(long, env = "TRICKLE_RELAY_THREADS", value_name = "COUNT")]
    threads: Option<usize>,
    /// What is logged: error, warn, info, debug, or a list of target=level. Default info.
    #[arg(long, env = "TRICKLE_RELAY_LOG", value_name = "FILTER")]
    log: Option<String>,
}

/// One switch for each difference from the reference; see [`Dialect`].
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct DialectOptions {
    empty_post_goes_back: Option<bool>,
    restart_keeps_old: Option<bool>,
    /// Seconds; 0 = never.
    abort_grace: Option<f64>,
    tell_lost_writers: Option<bool>,
    late_advance: Option<bool>,
    only_begin_is_activity: Option<bool>,
    empty_type: Option<bool>,
}

/// What follows from the options.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) server: Config,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) threads: Option<usize>,
    pub(crate) log: String,
    pub(crate) warnings: Vec<String>,
}

/// Takes each option from the first that has it.
macro_rules! prefer {
    ($first:ident, $second:ident: $($name:ident),* $(,)?) => {
        $( $first.$name = $first.$name.take().or($second.$name.take()); )*
    };
}

impl Options {
    pub(crate) fn settings(mut self) -> anyhow::Result<Settings> {
        if let Some(path) = self.config.take() {
            self.add(read(&path)?);
        }
        let defaults = Config::default();
        let listen = self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 3389)));
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => bail!("tls-cert is given and tls-key is not; a certificate needs its key"),
            (None, Some(_)) => bail!("tls-key is given and tls-cert is not; a key needs its certificate"),
        };
        let base_path = self.base.unwrap_or(defaults.base.clone());
        if base(&base_path).is_none() {
            bail!("base: {base_path:?} is no path; expected something like / or /ai/trickle/");
        }
        if self.threads == Some(0) {
            bail!("threads: at least 1 is needed");
        }
        let mut server = Config {
            base: base_path,
            autocreate: self.autocreate.unwrap_or(false),
            changefeed: self.changefeed.unwrap_or(false),
            max_channels: self.max_channels.unwrap_or(defaults.max_channels),
            max_memory: self.max_memory.unwrap_or(defaults.max_memory),
            max_connections: self.max_connections.unwrap_or(defaults.max_connections),
            idle_channel: seconds("idle-channel", self.idle_channel)?.unwrap_or(defaults.idle_channel),
            idle_connection: seconds("idle-connection", self.idle_connection)?.unwrap_or(defaults.idle_connection),
            header: seconds("header-time", self.header_time)?.unwrap_or(defaults.header),
            stall: seconds("stall", self.stall)?.unwrap_or(defaults.stall),
            silence: seconds("silence", self.silence)?,
            drain: seconds("drain", self.drain)?.unwrap_or(defaults.drain),
            publish_token: token("publish-token", self.publish_token)?,
            subscribe_token: token("subscribe-token", self.subscribe_token)?,
            cors: self.cors,
            ..defaults
        };
        server.sweep = server.sweep.min(server.idle_channel);
        let channel = &mut server.channel;
        channel.max_segment = self.max_segment.unwrap_or(channel.max_segment);
        channel.max_readers = self.max_readers.unwrap_or(channel.max_readers);
        channel.max_writers = self.max_writers.unwrap_or(channel.max_writers);
        channel.dialect = self.dialect.over(match self.like_reference {
            Some(true) => Dialect::reference(),
            Some(false) | None => Dialect::default(),
        })?;
        let upstream = comfy_core::trickle::client::Config {
            token: token("mirror-token", self.mirror_token)?,
            insecure: self.mirror_insecure.unwrap_or(false),
            ca: self.mirror_ca,
            ..Default::default()
        };
        let mirrors = Mirror::all(&self.mirror, &upstream)?;
        let mut warnings = Vec::new();
        if !listen.ip().is_loopback() && server.publish_token.is_none() {
            warnings.push(format!(
                "anybody who reaches {listen} may publish and delete: set publish-token, or listen on 127.0.0.1"
            ));
        }
        if !listen.ip().is_loopback() && tls.is_none() && server.publish_token.is_some() {
            warnings.push("tokens travel in the clear: set tls-cert and tls-key".into());
        }
        if self.admin.is_some_and(|admin| !admin.ip().is_loopback()) {
            warnings.push("the status page asks for no token, and others reach it: let admin be on 127.0.0.1".into());
        }
        if upstream.insecure {
            warnings.push("mirror-insecure: the relays that are mirrored may be anybody".into());
        }
        Ok(Settings {
            listen,
            admin: self.admin,
            tls,
            server,
            mirrors,
            threads: self.threads,
            log: self.log.unwrap_or_else(|| "info".into()),
            warnings,
        })
    }

    /// Adds what another says and we do not.
    fn add(&mut self, mut other: Self) {
        prefer!(self, other: listen, admin, base, autocreate, changefeed, tls_cert, tls_key, publish_token,
            subscribe_token, cors, max_segment, max_memory, max_channels, max_readers, max_writers, max_connections,
            idle_channel, idle_connection, header_time, stall, silence, drain, mirror_token, mirror_ca,
            mirror_insecure, like_reference, threads, log);
        if self.mirror.is_empty() {
            self.mirror = other.mirror;
        }
        self.dialect = other.dialect;
    }
}

impl DialectOptions {
    fn over(self, dialect: Dialect) -> anyhow::Result<Dialect> {
        let grace = match self.abort_grace {
            Some(0.0) => None,
            Some(grace) => seconds("dialect.abort-grace", Some(grace))?,
            None => dialect.abort_grace,
        };
        Ok(Dialect {
            empty_post_goes_back: self.empty_post_goes_back.unwrap_or(dialect.empty_post_goes_back),
            restart_keeps_old: self.restart_keeps_old.unwrap_or(dialect.restart_keeps_old),
            abort_grace: grace,
            tell_lost_writers: self.tell_lost_writers.unwrap_or(dialect.tell_lost_writers),
            late_advance: self.late_advance.unwrap_or(dialect.late_advance),
            only_begin_is_activity: self.only_begin_is_activity.unwrap_or(dialect.only_begin_is_activity),
            empty_type: self.empty_type.unwrap_or(dialect.empty_type),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Options> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}: not understood", path.display()))
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

fn token(name: &str, value: Option<String>) -> anyhow::Result<Option<Token>> {
    match value {
        // An empty variable in a unit file must not open the relay to everybody, nor close it to all.
        Some(text) if text.is_empty() => bail!("{name} is empty; give it a value, or leave it out"),
        Some(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            bail!("{name} has characters that no HTTP header may have")
        }
        Some(text) => Ok(Some(text.into())),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(arguments: &[&str]) -> anyhow::Result<Settings> {
        let all = ["trickle-relay"].iter().chain(arguments);
        Options::try_parse_from(all)?.settings()
    }

    fn file(text: &str, arguments: &[&str]) -> anyhow::Result<Settings> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let path = file.path().display().to_string();
        with(&[&["--config", path.as_str()], arguments].concat())
    }

    #[test]
    fn by_default_only_this_machine_is_served_and_nothing_is_created() {
        let settings = with(&[]).expect("nothing is needed");
        assert!(settings.listen.ip().is_loopback());
        assert_eq!((settings.listen.port(), settings.server.autocreate), (3389, false));
        assert!(settings.server.cors.is_none() && settings.admin.is_none() && settings.warnings.is_empty());
    }

    #[test]
    fn flags_come_before_the_file() {
        let settings = file(
            "listen = '127.0.0.1:1'\nautocreate = true\nmax-channels = 7\nidle-channel = 0.5\n[dialect]\nempty-type = true\n",
            &["--listen", "127.0.0.1:2", "--changefeed", "--autocreate=false"],
        )
        .expect("both are fine");
        assert_eq!((settings.listen.port(), settings.server.max_channels), (2, 7));
        assert!(settings.server.changefeed && !settings.server.autocreate);
        assert_eq!(settings.server.idle_channel, Duration::from_millis(500));
        assert!(settings.server.channel.dialect.empty_type && !settings.server.channel.dialect.late_advance);
        let settings = with(&["--like-reference"]).expect("a flag");
        assert_eq!(settings.server.channel.dialect, Dialect::reference());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, named) in [
            ("lisen = '127.0.0.1:1'", "lisen"),
            ("[dialect]\nempty = true", "empty"),
            ("listen = 'here'", "listen"),
            ("drain = -1", "drain"),
            ("stall = nan", "stall"),
            ("threads = 0", "threads"),
            ("base = '/a b/'", "base"),
            ("publish-token = ''", "publish-token"),
            ("publish-token = \"a\\nb\"", "publish-token"),
            ("tls-cert = 'x'", "tls-key"),
            ("mirror = ['http://host/cam']", "http://host/cam"),
            ("mirror = ['ftp://host/cam=x']", "ftp"),
        ] {
            let error = format!("{:#}", file(text, &[]).expect_err(text));
            assert!(error.contains(named), "{text}: {error}");
        }
        let error = format!("{:#}", with(&["--config", "/nowhere/x.toml"]).expect_err("no file"));
        assert!(error.contains("/nowhere/x.toml"), "{error}");
    }

    #[test]
    fn who_opens_the_relay_to_others_is_warned() {
        assert_eq!(with(&["--listen", "0.0.0.0:3389"]).expect("allowed").warnings.len(), 1);
        let both = ["--listen", "[::]:3389", "--publish-token", "x"];
        assert!(with(&both).expect("allowed").warnings[0].contains("in the clear"));
    }

    #[test]
    fn tokens_are_not_shown() {
        let settings = with(&["--publish-token", "hunter2", "--mirror-token", "hunter2"]).expect("tokens");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
