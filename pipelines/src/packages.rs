//! Which Debian package brings what is missing.

/// The Debian package that holds an element, for those that our graphs use.
pub fn of_element(name: &str) -> Option<&'static str> {
    const ELEMENTS: &[(&str, &[&str])] = &[
        (
            "libgstreamer1.0-0",
            &[
                "filesrc",
                "filesink",
                "fakesink",
                "queue",
                "tee",
                "identity",
                "capsfilter",
            ],
        ),
        (
            "gstreamer1.0-plugins-base",
            &[
                "uridecodebin",
                "decodebin",
                "videotestsrc",
                "audiotestsrc",
                "videoconvert",
                "videoscale",
                "audioconvert",
                "audioresample",
                "appsrc",
                "appsink",
                "opusenc",
                "opusdec",
                "oggdemux",
            ],
        ),
        (
            "gstreamer1.0-plugins-good",
            &[
                "mp4mux",
                "qtdemux",
                "matroskademux",
                "avidemux",
                "flvdemux",
                "videoflip",
                "vp8enc",
                "vp8dec",
                "vp9dec",
                "aacparse",
                "wavparse",
                "pngdec",
                "jpegdec",
                "souphttpsrc",
                "v4l2h264enc",
                "v4l2h264dec",
                "rtph264pay",
                "rtpvp8pay",
            ],
        ),
        (
            "gstreamer1.0-plugins-bad",
            &[
                "h264parse",
                "h265parse",
                "openh264enc",
                "openh264dec",
                "nvh264enc",
                "nvh264dec",
                "vah264enc",
                "vah264lpenc",
                "vah264dec",
                "qsvh264enc",
                "qsvh264dec",
                "webrtcbin",
                "tsdemux",
                "voaacenc",
                "fdkaacenc",
            ],
        ),
        ("gstreamer1.0-plugins-ugly", &["x264enc"]),
        (
            "gstreamer1.0-libav",
            &["avdec_h264", "avdec_h265", "avdec_aac", "avdec_vp8", "avenc_aac"],
        ),
        ("gstreamer1.0-vaapi", &["vaapih264enc", "vaapih264dec"]),
        ("gstreamer1.0-nice", &["nicesrc", "nicesink"]),
    ];
    ELEMENTS
        .iter()
        .find(|(_, names)| names.contains(&name))
        .map(|(package, _)| *package)
}

/// The Debian package that reads a format, named by the media type of its caps.
pub fn of_format(media_type: &str) -> &'static str {
    match media_type {
        "video/quicktime" | "video/x-matroska" | "video/webm" | "audio/x-matroska" | "video/x-msvideo"
        | "video/x-flv" | "video/x-vp8" | "video/x-vp9" | "image/jpeg" | "image/png" | "audio/x-flac"
        | "audio/x-wav" => "gstreamer1.0-plugins-good",
        "application/ogg" | "audio/x-opus" | "audio/x-vorbis" | "video/x-theora" => "gstreamer1.0-plugins-base",
        "video/mpegts" | "video/x-av1" | "video/x-dirac" => "gstreamer1.0-plugins-bad",
        // Nearly everything else is read by libav: H.264, H.265, MPEG, WMV, ProRes, AAC, AC-3.
        _ => "gstreamer1.0-libav",
    }
}

/// `install PACKAGE (Debian)`, or a hint where no package is known.
pub fn advice(package: Option<&str>) -> String {
    match package {
        Some(package) => format!("install it (Debian: apt install {package})"),
        None => "install the GStreamer plugin that brings it".into(),
    }
}
