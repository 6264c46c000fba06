//! The encoders and decoders we know, and how each is set up.

use super::{Codec, Purpose};

/// What a format is encoded and decoded with, hardware first.
pub(super) struct Formats {
    pub(super) encoders: &'static [Candidate],
    pub(super) decoders: &'static [Candidate],
    /// What to install where none works.
    pub(super) advised_encoder: &'static str,
    pub(super) advised_decoder: &'static str,
}

pub(super) fn of(codec: Codec) -> Formats {
    let formats = |encoders, decoders, advised_encoder, advised_decoder| Formats {
        encoders,
        decoders,
        advised_encoder,
        advised_decoder,
    };
    match codec {
        Codec::H264 => formats(H264_ENCODERS, H264_DECODERS, "x264enc", "avdec_h264"),
        Codec::Vp8 => formats(VP8_ENCODERS, VP8_DECODERS, "vp8enc", "vp8dec"),
        Codec::Vp9 => formats(VP9_ENCODERS, VP9_DECODERS, "vp9enc", "vp9dec"),
        Codec::Av1 => formats(AV1_ENCODERS, AV1_DECODERS, "av1enc", "av1dec"),
        Codec::H265 => formats(H265_ENCODERS, H265_DECODERS, "x265enc", "avdec_h265"),
    }
}

pub(super) struct Candidate {
    pub(super) name: &'static str,
    pub(super) hardware: bool,
    /// Properties of an encoder for a purpose; those that a version lacks are left alone.
    pub(super) settings: fn(Purpose) -> Vec<(&'static str, String)>,
}

const fn hardware(name: &'static str, settings: fn(Purpose) -> Vec<(&'static str, String)>) -> Candidate {
    Candidate {
        name,
        hardware: true,
        settings,
    }
}

pub(super) const fn software(name: &'static str, settings: fn(Purpose) -> Vec<(&'static str, String)>) -> Candidate {
    Candidate {
        name,
        hardware: false,
        settings,
    }
}

/// Frames between key frames: what a seek or a new viewer waits for.
const KEY_INTERVAL: &str = "60";

/// The same for a live stream, whose receivers ask for a key frame when they need one; each costs what ten others do.
const LIVE_KEY_INTERVAL: &str = "3000";

const H264_ENCODERS: &[Candidate] = &[
    hardware("nvh264enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("preset", "hq"),
            ("rc-mode", "constqp"),
            ("qp-const", "22"),
            ("gop-size", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("preset", "low-latency-hq"),
                ("rc-mode", "cbr"),
                ("zerolatency", "true"),
                ("gop-size", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
    hardware("vah264enc", va),
    hardware("vah264lpenc", va),
    hardware("qsvh264enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("rate-control", "cqp"),
            ("qp-i", "22"),
            ("qp-p", "24"),
            ("gop-size", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("rate-control", "cbr"),
                ("low-latency", "true"),
                ("b-frames", "0"),
                ("gop-size", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
    hardware("v4l2h264enc", |_| Vec::new()),
    software("x264enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("pass", "qual"),
            ("quantizer", "20"),
            ("speed-preset", "veryfast"),
            ("key-int-max", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("tune", "zerolatency"),
                ("speed-preset", "superfast"),
                ("sliced-threads", "true"),
                ("bframes", "0"),
                ("rc-lookahead", "0"),
                ("key-int-max", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
    software("openh264enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("rate-control", "quality"),
            ("bitrate", "6000000"),
            ("complexity", "medium"),
            ("gop-size", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("rate-control", "bitrate"),
                ("usage-type", "camera"),
                ("complexity", "low"),
                ("gop-size", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", bitrate.to_string()));
            live
        }
    }),
];

const VP8_ENCODERS: &[Candidate] = &[
    hardware("vavp8enc", va),
    hardware("v4l2vp8enc", |_| Vec::new()),
    software("vp8enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("end-usage", "cq"),
            ("cq-level", "12"),
            ("target-bitrate", "6000000"),
            ("deadline", "1"),
            ("cpu-used", "6"),
            ("keyframe-max-dist", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("end-usage", "cbr"),
                ("deadline", "1"),
                ("cpu-used", "8"),
                ("lag-in-frames", "0"),
                ("error-resilient", "partitions"),
                // Of the mean, in per cent: a key frame that fills the network's queues is the one that gets lost.
                ("max-intra-bitrate", "300"),
                ("keyframe-max-dist", LIVE_KEY_INTERVAL),
            ]);
            live.push(("target-bitrate", bitrate.to_string()));
            live
        }
    }),
];

const H264_DECODERS: &[Candidate] = &[
    hardware("nvh264dec", |_| Vec::new()),
    hardware("vah264dec", |_| Vec::new()),
    hardware("qsvh264dec", |_| Vec::new()),
    hardware("v4l2h264dec", |_| Vec::new()),
    software("avdec_h264", |_| Vec::new()),
    software("openh264dec", |_| Vec::new()),
];

const VP8_DECODERS: &[Candidate] = &[
    hardware("nvvp8dec", |_| Vec::new()),
    hardware("vavp8dec", |_| Vec::new()),
    hardware("v4l2vp8dec", |_| Vec::new()),
    software("vp8dec", |_| Vec::new()),
    software("avdec_vp8", |_| Vec::new()),
];

/// What is gathered for a live stream of VP9, whose encoder has VP8's properties and a few of its own.
const VP9_ENCODERS: &[Candidate] = &[
    hardware("vavp9enc", va),
    software("vp9enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("end-usage", "cq"),
            ("cq-level", "20"),
            ("target-bitrate", "6000000"),
            ("deadline", "1"),
            ("cpu-used", "6"),
            ("row-mt", "true"),
            ("keyframe-max-dist", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("end-usage", "cbr"),
                ("deadline", "1"),
                ("cpu-used", "9"),
                ("lag-in-frames", "0"),
                ("error-resilient", "default"),
                ("max-intra-bitrate", "300"),
                ("row-mt", "true"),
                ("keyframe-max-dist", LIVE_KEY_INTERVAL),
            ]);
            live.push(("target-bitrate", bitrate.to_string()));
            live
        }
    }),
];

const AV1_ENCODERS: &[Candidate] = &[
    hardware("nvav1enc", |purpose| match purpose {
        Purpose::File => set(&[("gop-size", KEY_INTERVAL)]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("preset", "p1"),
                ("tune", "ultra-low-latency"),
                ("rate-control", "cbr"),
                ("zero-reorder-delay", "true"),
                ("gop-size", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
    hardware("vaav1enc", va),
    software("av1enc", |purpose| match purpose {
        Purpose::File => set(&[
            ("cpu-used", "6"),
            ("end-usage", "cq"),
            ("keyframe-max-dist", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("usage-profile", "realtime"),
                ("cpu-used", "10"),
                ("end-usage", "cbr"),
                ("lag-in-frames", "0"),
                ("row-mt", "true"),
                ("keyframe-max-dist", LIVE_KEY_INTERVAL),
            ]);
            live.push(("target-bitrate", kilobits(bitrate)));
            live
        }
    }),
];

const H265_ENCODERS: &[Candidate] = &[
    hardware("nvh265enc", |purpose| match purpose {
        Purpose::File => set(&[("rc-mode", "constqp"), ("qp-const", "24"), ("gop-size", KEY_INTERVAL)]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("preset", "low-latency-hq"),
                ("rc-mode", "cbr"),
                ("zerolatency", "true"),
                ("gop-size", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
    hardware("vah265enc", va),
    hardware("v4l2h265enc", |_| Vec::new()),
    software("x265enc", |purpose| match purpose {
        Purpose::File => set(&[("speed-preset", "superfast"), ("key-int-max", KEY_INTERVAL)]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("tune", "zerolatency"),
                ("speed-preset", "ultrafast"),
                ("key-int-max", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }),
];

const VP9_DECODERS: &[Candidate] = &[
    hardware("nvvp9dec", |_| Vec::new()),
    hardware("vavp9dec", |_| Vec::new()),
    hardware("v4l2vp9dec", |_| Vec::new()),
    software("vp9dec", |_| Vec::new()),
    software("avdec_vp9", |_| Vec::new()),
];

const AV1_DECODERS: &[Candidate] = &[
    hardware("nvav1dec", |_| Vec::new()),
    hardware("vaav1dec", |_| Vec::new()),
    software("dav1ddec", |_| Vec::new()),
    software("av1dec", |_| Vec::new()),
];

const H265_DECODERS: &[Candidate] = &[
    hardware("nvh265dec", |_| Vec::new()),
    hardware("vah265dec", |_| Vec::new()),
    hardware("v4l2h265dec", |_| Vec::new()),
    software("avdec_h265", |_| Vec::new()),
    software("libde265dec", |_| Vec::new()),
];

fn va(purpose: Purpose) -> Vec<(&'static str, String)> {
    match purpose {
        Purpose::File => set(&[
            ("rate-control", "cqp"),
            ("qpi", "22"),
            ("qpp", "24"),
            ("key-int-max", KEY_INTERVAL),
        ]),
        Purpose::Live { bitrate } => {
            let mut live = set(&[
                ("rate-control", "cbr"),
                ("b-frames", "0"),
                ("key-int-max", LIVE_KEY_INTERVAL),
            ]);
            live.push(("bitrate", kilobits(bitrate)));
            live
        }
    }
}

pub(super) fn set(settings: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    settings
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect()
}

fn kilobits(bits: u32) -> String {
    bits.div_ceil(1000).to_string()
}
