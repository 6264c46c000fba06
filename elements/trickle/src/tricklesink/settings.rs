//! Properties.

use std::time::Duration;

use comfy_core::trickle::client::PublishSettings;
use comfy_core::trickle::wire::MAX_SEQ;
use comfy_core::trickle::{publisher, ts};
use gst::prelude::*;

use super::{Create, Cut, Leaky, Start};
use crate::access::Access;

const PROP_URL: &str = "url";
const PROP_SEGMENT_DURATION: &str = "segment-duration";
const PROP_MAX_SEGMENT_DURATION: &str = "max-segment-duration";
const PROP_CUT: &str = "cut";
const PROP_CREATE: &str = "create";
const PROP_DELETE_ON_EOS: &str = "delete-on-eos";
const PROP_START: &str = "start";
const PROP_START_SEQ: &str = "start-seq";
const PROP_MAX_BYTES: &str = "max-bytes";
const PROP_MAX_SEGMENTS: &str = "max-segments";
const PROP_LEAKY: &str = "leaky";
const PROP_MAX_WAIT: &str = "max-wait";
const PROP_EOS_TIMEOUT: &str = "eos-timeout";
const PROP_MAX_FAILURES: &str = "max-failures";
pub(super) const PROP_STATS: &str = "stats";

const SECOND: u64 = 1_000_000_000;

const DEFAULT_SEGMENT_DURATION: u64 = SECOND;
const DEFAULT_MAX_SEGMENT_DURATION: u64 = 10 * SECOND;
const DEFAULT_CUT: Cut = Cut::Auto;
const DEFAULT_CREATE: Create = Create::Auto;
const DEFAULT_DELETE_ON_EOS: bool = false;
const DEFAULT_START: Start = Start::Reset;
const DEFAULT_START_SEQ: u64 = 0;
const DEFAULT_MAX_BYTES: u64 = 4 << 20;
const DEFAULT_MAX_SEGMENTS: u32 = 3;
const DEFAULT_LEAKY: Leaky = Leaky::None;
const DEFAULT_MAX_WAIT: u64 = SECOND / 2;
const DEFAULT_EOS_TIMEOUT: u64 = 5 * SECOND;
const DEFAULT_MAX_FAILURES: u32 = 0;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) url: Option<String>,
    pub(super) segment_duration: u64,
    max_segment_duration: u64,
    pub(super) cut: Cut,
    pub(super) create: Create,
    pub(super) delete_on_eos: bool,
    start: Start,
    start_seq: u64,
    max_bytes: u64,
    max_segments: u32,
    pub(super) leaky: Leaky,
    pub(super) max_wait: u64,
    pub(super) eos_timeout: u64,
    max_failures: u32,
    pub(super) access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            segment_duration: DEFAULT_SEGMENT_DURATION,
            max_segment_duration: DEFAULT_MAX_SEGMENT_DURATION,
            cut: DEFAULT_CUT,
            create: DEFAULT_CREATE,
            delete_on_eos: DEFAULT_DELETE_ON_EOS,
            start: DEFAULT_START,
            start_seq: DEFAULT_START_SEQ,
            max_bytes: DEFAULT_MAX_BYTES,
            max_segments: DEFAULT_MAX_SEGMENTS,
            leaky: DEFAULT_LEAKY,
            max_wait: DEFAULT_MAX_WAIT,
            eos_timeout: DEFAULT_EOS_TIMEOUT,
            max_failures: DEFAULT_MAX_FAILURES,
            access: Access::default(),
        }
    }
}

impl Settings {
    /// For the client.
    pub(super) fn publish(&self, mime: &str, one_by_one: bool) -> PublishSettings {
        PublishSettings {
            policy: publisher::Settings {
                start: match self.start {
                    Start::Reset => publisher::Start::Reset,
                    Start::Next => publisher::Start::Next,
                    Start::Seq => publisher::Start::Number(self.start_seq),
                },
                in_flight: self.max_segments as usize,
                failures: (self.max_failures > 0).then_some(self.max_failures),
                ..publisher::Settings::default()
            },
            mime: mime.into(),
            one_by_one,
            max_queued: self.max_bytes as usize,
            ..PublishSettings::default()
        }
    }

    /// For the cutter.
    pub(super) fn ts(&self) -> ts::Settings {
        ts::Settings {
            duration: Duration::from_nanos(self.segment_duration),
            max: Duration::from_nanos(self.max_segment_duration),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            PROP_URL => self.url = value.get().expect("type checked by GObject"),
            PROP_SEGMENT_DURATION => self.segment_duration = value.get().expect("type checked by GObject"),
            PROP_MAX_SEGMENT_DURATION => self.max_segment_duration = value.get().expect("type checked by GObject"),
            PROP_CUT => self.cut = value.get().expect("type checked by GObject"),
            PROP_CREATE => self.create = value.get().expect("type checked by GObject"),
            PROP_DELETE_ON_EOS => self.delete_on_eos = value.get().expect("type checked by GObject"),
            PROP_START => self.start = value.get().expect("type checked by GObject"),
            PROP_START_SEQ => self.start_seq = value.get().expect("type checked by GObject"),
            PROP_MAX_BYTES => self.max_bytes = value.get().expect("type checked by GObject"),
            PROP_MAX_SEGMENTS => self.max_segments = value.get().expect("type checked by GObject"),
            PROP_LEAKY => self.leaky = value.get().expect("type checked by GObject"),
            PROP_MAX_WAIT => self.max_wait = value.get().expect("type checked by GObject"),
            PROP_EOS_TIMEOUT => self.eos_timeout = value.get().expect("type checked by GObject"),
            PROP_MAX_FAILURES => self.max_failures = value.get().expect("type checked by GObject"),
            name => self.access.set(name, value),
        }
    }

    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            PROP_URL => self.url.to_value(),
            PROP_SEGMENT_DURATION => self.segment_duration.to_value(),
            PROP_MAX_SEGMENT_DURATION => self.max_segment_duration.to_value(),
            PROP_CUT => self.cut.to_value(),
            PROP_CREATE => self.create.to_value(),
            PROP_DELETE_ON_EOS => self.delete_on_eos.to_value(),
            PROP_START => self.start.to_value(),
            PROP_START_SEQ => self.start_seq.to_value(),
            PROP_MAX_BYTES => self.max_bytes.to_value(),
            PROP_MAX_SEGMENTS => self.max_segments.to_value(),
            PROP_LEAKY => self.leaky.to_value(),
            PROP_MAX_WAIT => self.max_wait.to_value(),
            PROP_EOS_TIMEOUT => self.eos_timeout.to_value(),
            PROP_MAX_FAILURES => self.max_failures.to_value(),
            name => self.access.get(name),
        }
    }
}

fn time(name: &str, nick: &'static str, blurb: &'static str, default: u64) -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_ready()
        .build()
}

pub(super) fn properties() -> Vec<glib::ParamSpec> {
    let mut properties = vec![
        glib::ParamSpecString::builder(PROP_URL)
            .nick("URL")
            .blurb("Address of the channel, trickle://HOST[:PORT]/[BASE/]CHANNEL; trickles:// with TLS")
            .mutable_ready()
            .build(),
        time(
            PROP_SEGMENT_DURATION,
            "Segment Duration",
            "Nanoseconds after which a segment ends at the next key picture, which is asked for upstream then. Readers that begin wait for the beginning of a segment (0 = at every key picture)",
            DEFAULT_SEGMENT_DURATION,
        ),
        time(
            PROP_MAX_SEGMENT_DURATION,
            "Maximum Segment Duration",
            "Nanoseconds after which a segment of MPEG-TS ends at the next picture of any kind, because no key picture came; readers cannot begin at such a segment (0 = wait for a key picture for ever)",
            DEFAULT_MAX_SEGMENT_DURATION,
        ),
        glib::ParamSpecEnum::builder_with_default(PROP_CUT, DEFAULT_CUT)
            .nick("Cut")
            .blurb("Where segments begin: MPEG-TS wants key pictures, a control or event channel one message per segment")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default(PROP_CREATE, DEFAULT_CREATE)
            .nick("Create")
            .blurb("Whether the channel is created, with the type of the caps, before something is published")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder(PROP_DELETE_ON_EOS)
            .nick("Delete On EOS")
            .blurb("End the channel at EOS, so that its readers get EOS, too; without it they wait for another publisher")
            .default_value(DEFAULT_DELETE_ON_EOS)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default(PROP_START, DEFAULT_START)
            .nick("Start")
            .blurb("The number of the first segment; the server is asked for the next one")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder(PROP_START_SEQ)
            .nick("Start Sequence")
            .blurb("The number of the first segment with start=seq")
            .maximum(MAX_SEQ)
            .default_value(DEFAULT_START_SEQ)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder(PROP_MAX_BYTES)
            .nick("Maximum Bytes")
            .blurb("Bytes that may wait to be sent; when they are reached, leaky decides")
            .minimum(1)
            .maximum(1 << 32)
            .default_value(DEFAULT_MAX_BYTES)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder(PROP_MAX_SEGMENTS)
            .nick("Maximum Segments")
            .blurb("Segments that may wait for the server's answer, the one being written included; when they are reached, leaky decides")
            .minimum(1)
            .maximum(64)
            .default_value(DEFAULT_MAX_SEGMENTS)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default(PROP_LEAKY, DEFAULT_LEAKY)
            .nick("Leaky")
            .blurb("What happens when there is no room because the server is slow or gone: wait, or drop up to where the next segment may begin. What is dropped is counted")
            .mutable_ready()
            .build(),
        time(
            PROP_MAX_WAIT,
            "Maximum Wait",
            "Nanoseconds that upstream is made to wait for room with leaky=none; then the segment is dropped, and the following ones at once until there is room (0 = drop at once)",
            DEFAULT_MAX_WAIT,
        ),
        time(
            PROP_EOS_TIMEOUT,
            "EOS Timeout",
            "Nanoseconds that EOS waits for the server's last answers; then there is a warning, and what is not answered is counted as unanswered",
            DEFAULT_EOS_TIMEOUT,
        ),
        glib::ParamSpecUInt::builder(PROP_MAX_FAILURES)
            .nick("Maximum Failures")
            .blurb("Segments lost in a row after which publishing is an error (0 = try for ever, with growing pauses up to five seconds)")
            .default_value(DEFAULT_MAX_FAILURES)
            .mutable_ready()
            .build(),
    ];
    properties.extend(Access::properties(
        "Sent to the server as a bearer token, for servers that do not let everybody publish (null = none)",
    ));
    properties.push(
        glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
            .nick("Statistics")
            .blurb("Counts since the last start: segments begun, done, lost, retried, unanswered at EOS, dropped for want of room; bytes taken, left out between segments, and waiting; whether the server answers")
            .read_only()
            .build(),
    );
    properties
}
