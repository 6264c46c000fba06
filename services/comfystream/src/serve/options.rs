//! What the service is told: by flags, by the environment, by a file; the first of these that says something counts.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use comfy_pipelines::infergraph;
use serde::Deserialize;

use super::wish::Leaky;

/// Serve the page and the APIs: cameras of browsers go through a model and back
///
/// Every option may also stand in the file, under the same name, and in the environment, as COMFYSTREAM_NAME.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Options {
    /// File with options, in TOML. Unknown keys are refused.
    #[arg(long, env = "COMFYSTREAM_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where HTTP is served. Default 127.0.0.1:8889: this machine only.
    #[arg(long, env = "COMFYSTREAM_LISTEN", value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// Address part of --listen, as ComfyStream's server has it.
    #[arg(long, env = "COMFYSTREAM_HOST", value_name = "ADDRESS")]
    pub(super) host: Option<String>,
    /// Port part of --listen, as ComfyStream's server has it.
    #[arg(long, env = "COMFYSTREAM_PORT", value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// UDP ports for media: first-last, or a list, of which the least and the greatest count. Default: any.
    #[arg(long, env = "COMFYSTREAM_MEDIA_PORTS", value_name = "PORTS")]
    pub(super) media_ports: Option<String>,

    /// Model to load at the start: an .onnx file or builtin:invert; its name is the file's, without the ending. The
    /// first is the default. May be given several times. Default: none, frames pass unchanged.
    #[arg(long, env = "COMFYSTREAM_MODEL", value_name = "MODEL", value_delimiter = ' ')]
    pub(super) model: Vec<String>,
    /// Folder whose .onnx files may be asked for by name. Each is loaded when it is.
    #[arg(long, env = "COMFYSTREAM_MODELS", value_name = "FOLDER")]
    pub(super) models: Option<PathBuf>,
    /// Name of the model of sessions that ask for none; `none` for no model. Default: the first --model.
    #[arg(long, env = "COMFYSTREAM_DEFAULT_MODEL", value_name = "NAME")]
    pub(super) default_model: Option<String>,
    /// Most frames that share one run of the model, 1 to 64. Default 1.
    #[arg(long, env = "COMFYSTREAM_BATCH_SIZE", value_name = "FRAMES")]
    pub(super) batch_size: Option<u32>,
    /// Batches collected before the first frame leaves, 0 to --max-batches. Default 0.
    #[arg(long, env = "COMFYSTREAM_THRESHOLD", value_name = "BATCHES")]
    pub(super) threshold: Option<u32>,
    /// Batches that the flight buffer holds, 1 to 64: the more, the older frames get that wait for a slow model. Default 1.
    #[arg(long, env = "COMFYSTREAM_MAX_BATCHES", value_name = "BATCHES")]
    pub(super) max_batches: Option<u32>,
    /// What happens when it is full. Default oldest.
    #[arg(long, env = "COMFYSTREAM_LEAKY", value_name = "WHICH")]
    pub(super) leaky: Option<Leaky>,
    /// Processor threads of one run of a model, 0 to 256; 0: half of the cores. Default 0.
    #[arg(long, env = "COMFYSTREAM_THREADS", value_name = "COUNT")]
    pub(super) threads: Option<u32>,
    /// What runs models. Default auto: the best that works.
    #[arg(long, env = "COMFYSTREAM_BACKEND", value_name = "BACKEND")]
    pub(super) backend: Option<Backend>,
    /// Number of the GPU, 0 to 63. Default 0.
    #[arg(long, env = "COMFYSTREAM_DEVICE", value_name = "NUMBER")]
    pub(super) device: Option<u32>,
    /// Stream to publish under a name: file, rtsp://, srt://, v4l2://, trickle://, test:. May be given several times.
    #[arg(
        long = "source",
        env = "COMFYSTREAM_SOURCE",
        value_name = "NAME=URI",
        value_delimiter = ' '
    )]
    #[serde(skip)]
    pub(super) sources: Vec<String>,
    /// The same in the file, with a model each.
    #[arg(skip)]
    pub(super) source: Vec<SourceOptions>,

    /// STUN server, stun:host:port. May be given several times. Default: none.
    #[arg(long, env = "COMFYSTREAM_STUN", value_name = "URL", value_delimiter = ' ')]
    pub(super) stun: Vec<String>,
    /// TURN server, turn:host:port or turns:host:port, with ?transport=tcp if so wanted. May be given several times.
    #[arg(long, env = "COMFYSTREAM_TURN", value_name = "URL", value_delimiter = ' ')]
    pub(super) turn: Vec<String>,
    /// Who we are to the TURN servers; with --turn-secret, what follows the time in the name.
    #[arg(long, env = "COMFYSTREAM_TURN_USER", value_name = "NAME")]
    pub(super) turn_user: Option<String>,
    /// Password at the TURN servers. Every browser that may use the service gets to know it; --turn-secret is better.
    #[arg(
        long,
        env = "COMFYSTREAM_TURN_CREDENTIAL",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub(super) turn_credential: Option<String>,
    /// Secret shared with the TURN servers (coturn: static-auth-secret), from which passwords that end are made.
    #[arg(long, env = "COMFYSTREAM_TURN_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub(super) turn_secret: Option<String>,
    /// How long such a password is good. Default 3600.
    #[arg(long, env = "COMFYSTREAM_TURN_TTL", value_name = "SECONDS")]
    pub(super) turn_ttl: Option<f64>,
    /// Let peers connect over TCP, too.
    #[arg(long, env = "COMFYSTREAM_ICE_TCP", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) ice_tcp: Option<bool>,
    /// The only address that is offered to peers. Default: all of this machine.
    #[arg(long, env = "COMFYSTREAM_ICE_ADDRESS", value_name = "ADDRESS")]
    pub(super) ice_address: Option<IpAddr>,
    /// How long packets wait for one that is missing, 0 to 2000. Default 40.
    #[arg(long, env = "COMFYSTREAM_JITTER", value_name = "MILLISECONDS")]
    pub(super) jitter: Option<u32>,
    /// Let who watches hold pictures for even motion. Default: they are asked to show each at once.
    #[arg(long, env = "COMFYSTREAM_SMOOTH", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) smooth: Option<bool>,
    /// Least bit rate of the video that is sent. Default 100000.
    #[arg(long, env = "COMFYSTREAM_BITRATE_MIN", value_name = "BIT/S")]
    pub(super) bitrate_min: Option<u32>,
    /// Bit rate before anything was measured. Default 2000000.
    #[arg(long, env = "COMFYSTREAM_BITRATE_START", value_name = "BIT/S")]
    pub(super) bitrate_start: Option<u32>,
    /// Greatest bit rate. Default 8000000.
    #[arg(long, env = "COMFYSTREAM_BITRATE_MAX", value_name = "BIT/S")]
    pub(super) bitrate_max: Option<u32>,
    /// Video formats, the best liked first, of VP8, H264, VP9, AV1, H265. Default: all, in this order.
    #[arg(
        long = "codecs",
        env = "COMFYSTREAM_CODECS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub(super) codecs: Vec<String>,

    /// Only who bears this may use the service. On the command line others can see it. Required where others reach the
    /// service, unless --no-token is given.
    #[arg(long, env = "COMFYSTREAM_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Let anybody who reaches the service use it.
    #[arg(long, env = "COMFYSTREAM_NO_TOKEN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) no_token: Option<bool>,
    /// Origin whose web pages may use the service, * for any. May be given several times. Default: its own only.
    #[arg(long, env = "COMFYSTREAM_CORS", value_name = "ORIGIN", value_delimiter = ' ')]
    pub(super) cors: Vec<String>,

    /// Sessions at most. Default: four per core, and none more while the service itself uses more than 85 % of the
    /// processor; with this option the number alone counts.
    #[arg(long, env = "COMFYSTREAM_MAX_SESSIONS", value_name = "COUNT")]
    pub(super) max_sessions: Option<usize>,
    /// HTTP connections at most. Default 1024.
    #[arg(long, env = "COMFYSTREAM_MAX_CONNECTIONS", value_name = "COUNT")]
    pub(super) max_connections: Option<usize>,
    /// Bytes of an SDP offer at most. Default 131072.
    #[arg(long, env = "COMFYSTREAM_MAX_SDP", value_name = "BYTES")]
    pub(super) max_sdp: Option<usize>,
    /// Bytes of a request's body at most, workflows included. Default 2097152.
    #[arg(long, env = "COMFYSTREAM_MAX_BODY", value_name = "BYTES")]
    pub(super) max_body: Option<usize>,
    /// Bytes of a message on a data channel at most. Default 65536.
    #[arg(long, env = "COMFYSTREAM_MAX_MESSAGE", value_name = "BYTES")]
    pub(super) max_message: Option<usize>,
    /// Messages of one session per second; twice as many at once. Default 50.
    #[arg(long, env = "COMFYSTREAM_MESSAGE_RATE", value_name = "COUNT")]
    pub(super) message_rate: Option<u32>,
    /// Time in which a peer must connect. Default 30.
    #[arg(long, env = "COMFYSTREAM_CONNECT_TIME", value_name = "SECONDS")]
    pub(super) connect_time: Option<f64>,
    /// Time for the head of a request, and for its body. Default 10.
    #[arg(long, env = "COMFYSTREAM_REQUEST_TIME", value_name = "SECONDS")]
    pub(super) request_time: Option<f64>,
    /// Time for sessions and requests to end when the service is told to stop. Default 5.
    #[arg(long, env = "COMFYSTREAM_DRAIN", value_name = "SECONDS")]
    pub(super) drain: Option<f64>,

    /// Put each stream's id on gauge stream_fps of /metrics.
    #[arg(long, env = "COMFYSTREAM_STREAM_ID_LABEL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) stream_id_label: Option<bool>,
    /// What is logged: error, warn, info, debug, or a list of target=level. Default info.
    #[arg(long, alias = "log-level", env = "COMFYSTREAM_LOG", value_name = "FILTER")]
    pub(super) log: Option<String>,
}

/// A stream that no peer sends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceOptions {
    /// What it is published as.
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) uri: String,
    /// Name of its model, `none` for none. Default: the default model.
    #[serde(default)]
    pub(crate) model: Option<String>,
}

/// What runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// The best that works.
    Auto,
    /// ONNX Runtime on the processor.
    Cpu,
    /// Its CUDA provider.
    Cuda,
    /// Its TensorRT provider.
    #[value(name = "tensorrt")]
    Tensorrt,
    /// TensorRT for RTX.
    Rtx,
}

impl From<Backend> for infergraph::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Cpu => Self::Cpu,
            Backend::Cuda => Self::Cuda,
            Backend::Tensorrt => Self::TensorRt,
            Backend::Rtx => Self::Rtx,
        }
    }
}

/// Takes each option from the first that has it.
macro_rules! prefer {
    ($first:ident, $second:ident: $($name:ident),* $(,)?; $($list:ident),* $(,)?) => {
        $( $first.$name = $first.$name.take().or($second.$name.take()); )*
        $( if $first.$list.is_empty() { $first.$list = std::mem::take(&mut $second.$list); } )*
    };
}

impl Options {
    /// With what the file adds.
    pub(super) fn complete(mut self) -> anyhow::Result<Self> {
        if let Some(path) = self.config.take() {
            let mut file = read(&path)?;
            // Who gives an address in one form does not want the other form of the file.
            if self.listen.is_some() {
                (file.host, file.port) = (None, None);
            } else if (self.host.is_some() || self.port.is_some())
                && let Some(listen) = file.listen.take()
            {
                self.host.get_or_insert_with(|| listen.ip().to_string());
                self.port.get_or_insert(listen.port());
            }
            prefer!(self, file: listen, host, port, media_ports, models, default_model, batch_size, threshold,
                max_batches, leaky, threads, backend, device, turn_user, turn_credential, turn_secret, turn_ttl, ice_tcp,
                ice_address, jitter, smooth, bitrate_min, bitrate_start, bitrate_max, token, no_token, max_sessions,
                max_connections, max_sdp, max_body, max_message, message_rate, connect_time, request_time, drain,
                stream_id_label, log; model, stun, turn, codecs, cors, source);
        }
        Ok(self)
    }
}

fn read(path: &Path) -> anyhow::Result<Options> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}: not understood", path.display()))
}
