//! Properties.

use comfy_core::trickle::client::SubscribeSettings;
use comfy_core::trickle::subscriber;
use gst::prelude::*;
use gst::{ErrorMessage, error_msg};

use super::{LagPolicy, OnMissing};
use crate::access::Access;

const PROP_URL: &str = "url";
const PROP_START_SEQ: &str = "start-seq";
const PROP_ON_MISSING: &str = "on-missing";
const PROP_IS_LIVE: &str = "is-live";
const PROP_MAX_LAG: &str = "max-lag";
const PROP_LAG_POLICY: &str = "lag-policy";
const PROP_MAX_FAILURES: &str = "max-failures";
const PROP_MAX_BYTES: &str = "max-bytes";
pub(super) const PROP_STATS: &str = "stats";

const DEFAULT_START_SEQ: &str = "current";
const DEFAULT_ON_MISSING: OnMissing = OnMissing::Eos;
const DEFAULT_IS_LIVE: bool = true;
const DEFAULT_MAX_LAG: u64 = 0;
const DEFAULT_LAG_POLICY: LagPolicy = LagPolicy::Jump;
const DEFAULT_MAX_FAILURES: u32 = 5;
const DEFAULT_MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) url: Option<String>,
    start_seq: Option<String>,
    on_missing: OnMissing,
    pub(super) is_live: bool,
    max_lag: u64,
    lag_policy: LagPolicy,
    max_failures: u32,
    max_bytes: u64,
    pub(super) access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            start_seq: Some(DEFAULT_START_SEQ.into()),
            on_missing: DEFAULT_ON_MISSING,
            is_live: DEFAULT_IS_LIVE,
            max_lag: DEFAULT_MAX_LAG,
            lag_policy: DEFAULT_LAG_POLICY,
            max_failures: DEFAULT_MAX_FAILURES,
            max_bytes: DEFAULT_MAX_BYTES,
            access: Access::default(),
        }
    }
}

impl Settings {
    /// For the client.
    pub(super) fn subscribe(&self) -> Result<SubscribeSettings, ErrorMessage> {
        let start = self.start_seq.as_deref().unwrap_or(DEFAULT_START_SEQ);
        let start = start.parse().map_err(|()| {
            error_msg!(
                gst::ResourceError::Settings,
                ("start-seq: {start:?} is no segment: next, current or the number of one, 0 or above")
            )
        })?;
        Ok(SubscribeSettings {
            policy: subscriber::Settings {
                start,
                wait_for_channel: self.on_missing == OnMissing::Wait,
                max_lag: (self.max_lag > 0).then_some(self.max_lag),
                lag: match self.lag_policy {
                    LagPolicy::Jump => subscriber::LagPolicy::Jump,
                    LagPolicy::Error => subscriber::LagPolicy::Error,
                    LagPolicy::Earliest => subscriber::LagPolicy::Earliest,
                },
                failures: (self.max_failures > 0).then_some(self.max_failures),
                ..subscriber::Settings::default()
            },
            max_queued: self.max_bytes as usize,
            ..SubscribeSettings::default()
        })
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            PROP_URL => self.url = value.get().expect("type checked by GObject"),
            PROP_START_SEQ => self.start_seq = value.get().expect("type checked by GObject"),
            PROP_ON_MISSING => self.on_missing = value.get().expect("type checked by GObject"),
            PROP_IS_LIVE => self.is_live = value.get().expect("type checked by GObject"),
            PROP_MAX_LAG => self.max_lag = value.get().expect("type checked by GObject"),
            PROP_LAG_POLICY => self.lag_policy = value.get().expect("type checked by GObject"),
            PROP_MAX_FAILURES => self.max_failures = value.get().expect("type checked by GObject"),
            PROP_MAX_BYTES => self.max_bytes = value.get().expect("type checked by GObject"),
            name => self.access.set(name, value),
        }
    }

    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            PROP_URL => self.url.to_value(),
            PROP_START_SEQ => self.start_seq.to_value(),
            PROP_ON_MISSING => self.on_missing.to_value(),
            PROP_IS_LIVE => self.is_live.to_value(),
            PROP_MAX_LAG => self.max_lag.to_value(),
            PROP_LAG_POLICY => self.lag_policy.to_value(),
            PROP_MAX_FAILURES => self.max_failures.to_value(),
            PROP_MAX_BYTES => self.max_bytes.to_value(),
            name => self.access.get(name),
        }
    }
}

pub(super) fn properties() -> Vec<glib::ParamSpec> {
    let mut properties = vec![
        glib::ParamSpecString::builder(PROP_URL)
            .nick("URL")
            .blurb("Address of the channel, trickle://HOST[:PORT]/[BASE/]CHANNEL, trickles:// with TLS; several, separated by commas, for fail-over: the next is tried when one fails")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder(PROP_START_SEQ)
            .nick("Start Sequence")
            .blurb("The segment to begin with: current = the one being written, from its first byte, which shows a picture at once; next = the next one to begin, the least behind; or a number")
            .default_value(DEFAULT_START_SEQ)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default(PROP_ON_MISSING, DEFAULT_ON_MISSING)
            .nick("On Missing")
            .blurb("What happens when the channel does not exist, at the start or after the server was away: the stream ends, or waits until somebody publishes. A channel that is deleted while it is read ends the stream in each case")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder(PROP_IS_LIVE)
            .nick("Is Live")
            .blurb("Behave as a live source: data only in PLAYING, stamped with the time it arrived at. Off for batch processing of what a channel holds")
            .default_value(DEFAULT_IS_LIVE)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder(PROP_MAX_LAG)
            .nick("Maximum Lag")
            .blurb("Segments that this reader may be behind before lag-policy applies (0 = as many as the server keeps)")
            .default_value(DEFAULT_MAX_LAG)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default(PROP_LAG_POLICY, DEFAULT_LAG_POLICY)
            .nick("Lag Policy")
            .blurb("What happens when this reader is further behind than it may be. What is skipped is counted, and marked with DISCONT")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder(PROP_MAX_FAILURES)
            .nick("Maximum Failures")
            .blurb("Failed requests in a row, half a second apart, after which reading is an error, or the next address is tried (0 = try for ever)")
            .default_value(DEFAULT_MAX_FAILURES)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder(PROP_MAX_BYTES)
            .nick("Maximum Bytes")
            .blurb("Bytes that may wait to be taken by what comes after; when they are reached the connection is not read, and the server leaves this reader behind")
            .minimum(1)
            .maximum(1 << 32)
            .default_value(DEFAULT_MAX_BYTES)
            .mutable_ready()
            .build(),
    ];
    properties.extend(Access::properties(
        "Sent to the server as a bearer token, for servers that do not let everybody read (null = none)",
    ));
    properties.push(
        glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
            .nick("Statistics")
            .blurb("Counts since the last start: segments read, empty, skipped, torn and resumed, jumps, failures, bytes read and dropped, keepalives left out; the current segment and how many it is behind")
            .read_only()
            .build(),
    );
    properties
}
