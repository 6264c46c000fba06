//! What the elements say about themselves, compared with `snapshots/inspect.txt`. A change there is a change of the
//! interface: look at it, then run with `COMFY_UPDATE_SNAPSHOTS=1`.

use std::fmt::Write;

use comfy_tests::models::root;
use gst::prelude::*;

const ELEMENTS: [&str; 6] = [
    "comfyflightbuffer",
    "comfybatch",
    "comfyinfer",
    "comfyunbatch",
    "tricklesink",
    "tricklesrc",
];

fn factory(name: &str) -> gst::ElementFactory {
    comfy_tests::init();
    gst::ElementFactory::find(name).unwrap_or_else(|| panic!("{name} is registered"))
}

/// Properties of the element itself, not of its base classes.
fn properties(element: &gst::Element) -> Vec<glib::ParamSpec> {
    let own = element.type_();
    element
        .list_properties()
        .iter()
        .filter(|p| p.owner_type() == own)
        .cloned()
        .collect()
}

/// In which states a property may be written.
fn window(property: &glib::ParamSpec) -> &'static str {
    let flags = property.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE) {
        "read only"
    } else if flags.contains(glib::ParamFlags::CONSTRUCT_ONLY) {
        "at construction"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PLAYING) {
        "in PLAYING and below"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PAUSED) {
        "in PAUSED and below"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_READY) {
        "in READY and below"
    } else {
        "NOT DECLARED"
    }
}

fn range(property: &glib::ParamSpec) -> String {
    if let Some(p) = property.downcast_ref::<glib::ParamSpecUInt>() {
        return format!(" {} to {}", p.minimum(), p.maximum());
    }
    if let Some(p) = property.downcast_ref::<glib::ParamSpecUInt64>() {
        return format!(" {} to {}", p.minimum(), p.maximum());
    }
    if let Some(p) = property.downcast_ref::<glib::ParamSpecInt64>() {
        return format!(" {} to {}", p.minimum(), p.maximum());
    }
    if let Some(p) = property.downcast_ref::<glib::ParamSpecEnum>() {
        let class = p.enum_class();
        let lines = class
            .values()
            .iter()
            .map(|v| format!("\n            {} = {}: {}", v.value(), v.nick(), v.name()));
        return lines.collect();
    }
    String::new()
}

fn text(value: &glib::Value) -> String {
    // GStreamer complains about serializing a structure that is not there.
    if let Ok(None) = value.get::<Option<gst::Structure>>() {
        return "none".into();
    }
    value
        .serialize()
        .map_or_else(|_| "none".into(), |text| text.to_string())
}

fn describe(name: &str) -> String {
    let factory = factory(name);
    let element = factory.create().build().expect("it can be made");
    let mut out = String::new();
    let meta = |key| factory.metadata(key).unwrap_or("NONE").to_owned();
    writeln!(out, "{name}").unwrap();
    for key in [
        gst::ELEMENT_METADATA_LONGNAME,
        gst::ELEMENT_METADATA_KLASS,
        gst::ELEMENT_METADATA_DESCRIPTION,
    ] {
        writeln!(out, "    {key}: {}", meta(key)).unwrap();
    }
    writeln!(out, "    rank: {:?}", factory.rank()).unwrap();
    for template in factory.static_pad_templates() {
        let (name, direction, presence) = (template.name_template(), template.direction(), template.presence());
        writeln!(out, "    pad {name}: {direction:?}, {presence:?}").unwrap();
        let caps = template.caps();
        if caps.is_any() {
            writeln!(out, "        ANY").unwrap();
        }
        for (structure, features) in caps.iter_with_features() {
            let structure = structure.to_string();
            // Whether a semicolon ends it depends on the version.
            writeln!(out, "        {} [{features}]", structure.trim_end_matches(';')).unwrap();
        }
    }
    for property in properties(&element) {
        let kind = property.value_type();
        writeln!(
            out,
            "    property {} \"{}\": {kind}{}",
            property.name(),
            property.nick(),
            range(&property)
        )
        .unwrap();
        writeln!(out, "        default: {}", text(property.default_value())).unwrap();
        writeln!(out, "        writable: {}", window(&property)).unwrap();
        writeln!(out, "        {}", property.blurb().unwrap_or("NONE")).unwrap();
    }
    out
}

#[test]
fn elements_are_what_the_snapshot_says() {
    let found = ELEMENTS.map(describe).join("\n");
    let path = root().join("tests/snapshots/inspect.txt");
    if std::env::var_os("COMFY_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &found).expect("the snapshot can be written");
        return;
    }
    let wanted = std::fs::read_to_string(&path).expect("the snapshot is there: COMFY_UPDATE_SNAPSHOTS=1 writes it");
    let mut lines = wanted.lines().zip(found.lines()).enumerate();
    let first = lines.find(|(_, (wanted, found))| wanted != found);
    assert!(
        wanted == found,
        "elements differ from tests/snapshots/inspect.txt, first here: {first:?}. If that is meant, run again with \
         COMFY_UPDATE_SNAPSHOTS=1 and commit the file"
    );
}

#[test]
fn properties_explain_themselves_and_declare_their_window() {
    for name in ELEMENTS {
        for property in properties(&factory(name).create().build().unwrap()) {
            let at = format!("{name}.{}", property.name());
            let blurb = property.blurb().unwrap_or_default();
            assert!(blurb.len() > 20 && blurb.contains(' '), "{at}: {blurb}");
            assert!(blurb.starts_with(|c: char| c.is_uppercase()), "{at}: {blurb}");
            let nick = property.nick();
            assert!(
                nick.split(' ').all(|word| word.starts_with(|c: char| c.is_uppercase())),
                "{at}: {nick}"
            );
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(property.name().chars().all(kebab), "{at}");
            assert_ne!(window(&property), "NOT DECLARED", "{at}");
        }
    }
}

#[test]
fn live_values_begin_at_the_declared_defaults() {
    for name in ELEMENTS {
        let element = factory(name).create().build().unwrap();
        for property in properties(&element).iter().filter(|p| p.name() != "stats") {
            let live = element.property_value(property.name());
            assert_eq!(
                text(&live),
                text(property.default_value()),
                "{name}.{}",
                property.name()
            );
        }
    }
}

/// A value other than the default for each property that can be written.
const OTHERS: &[(&str, &[(&str, &str)])] = &[
    (
        "comfyflightbuffer",
        &[
            ("batch-size", "8"),
            ("threshold", "3"),
            ("max-batches", "9"),
            ("leaky", "thin"),
            ("rebuffer", "true"),
        ],
    ),
    (
        "comfybatch",
        &[("batch-size", "8"), ("timeout", "40000000"), ("policy", "round-robin")],
    ),
    (
        "comfyinfer",
        &[
            ("model", "cartoon.onnx"),
            ("backend", "cpu"),
            ("device-id", "1"),
            ("precision", "fp16"),
            ("engine-cache", "folder"),
            ("in-flight", "3"),
            ("threads", "2"),
            ("on-error", "hold"),
            ("shared", "name"),
            ("warmup-policy", "pass-through"),
        ],
    ),
    ("comfyunbatch", &[("pacing", "pts")]),
    (
        "tricklesink",
        &[
            ("url", "trickle://host/cam"),
            ("segment-duration", "2000000000"),
            ("max-segment-duration", "4000000000"),
            ("cut", "duration"),
            ("create", "never"),
            ("delete-on-eos", "true"),
            ("start", "seq"),
            ("start-seq", "7"),
            ("max-bytes", "1000"),
            ("max-segments", "2"),
            ("leaky", "keyframe"),
            ("max-wait", "5"),
            ("eos-timeout", "6"),
            ("max-failures", "3"),
            ("token", "secret"),
            ("insecure-tls", "true"),
            ("ca-file", "file.pem"),
        ],
    ),
    (
        "tricklesrc",
        &[
            ("url", "trickle://host/cam"),
            ("start-seq", "next"),
            ("on-missing", "wait"),
            ("is-live", "false"),
            ("max-lag", "2"),
            ("lag-policy", "earliest"),
            ("max-failures", "3"),
            ("max-bytes", "1000"),
            ("token", "secret"),
            ("insecure-tls", "true"),
            ("ca-file", "file.pem"),
        ],
    ),
];

fn value(element: &gst::Element, property: &str) -> String {
    text(&element.property_value(property)).trim_matches('"').to_owned()
}

#[test]
fn values_read_back_after_they_were_written() {
    for (name, others) in OTHERS {
        let element = factory(name).create().build().unwrap();
        let mut writable: Vec<_> = properties(&element)
            .iter()
            .filter(|property| window(property) != "read only")
            .map(|property| property.name().to_owned())
            .collect();
        writable.sort_unstable();
        let mut known: Vec<_> = others.iter().map(|(property, _)| *property).collect();
        known.sort_unstable();
        assert_eq!(writable, known, "{name}");
        for (property, other) in *others {
            assert_ne!(value(&element, property), *other, "{name}.{property}");
            element.set_property_from_str(property, other);
            assert_eq!(value(&element, property), *other, "{name}.{property}");
        }
    }
}

/// A property that is writable in READY only keeps its value when somebody writes it later.
#[test]
fn write_outside_the_window_is_refused() {
    for (name, others) in OTHERS {
        let element = factory(name).create().build().unwrap();
        match *name {
            "comfyinfer" => element.set_property_from_str("backend", "null"),
            // Nobody is there: a sink has to wait for something to send before it tries, and a source tries again.
            "tricklesink" | "tricklesrc" => element.set_property("url", "trickle://127.0.0.1:1/cam"),
            _ => (),
        }
        // A sink is not there yet when this returns, and has begun all the same.
        element.set_state(gst::State::Paused).unwrap();
        for (property, other) in *others {
            let spec = element.find_property(property).unwrap();
            let before = value(&element, property);
            element.set_property_from_str(property, other);
            let wanted = match window(&spec) {
                "in READY and below" => before.as_str(),
                _ => other,
            };
            assert_eq!(value(&element, property), wanted, "{name}.{property}");
        }
        element.set_state(gst::State::Null).unwrap();
        for (property, other) in *others {
            element.set_property_from_str(property, other);
            assert_eq!(value(&element, property), *other, "{name}.{property}");
        }
    }
}
