//! Which encoder and decoder to take: the first that works on this machine, hardware first.

use gst::prelude::*;

use crate::packages;

mod candidates;
pub mod playout;
pub mod rtp;

use candidates::Candidate;

/// A video format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// H.264.
    H264,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
    /// H.265.
    H265,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 5] = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::H265];
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Codec::H264 => "H.264",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::H265 => "H.265",
        })
    }
}

/// What the encoded video is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A file to look at: constant quality.
    File,
    /// A live stream: constant bit rate, no frame held back.
    Live {
        /// Bits per second.
        bitrate: u32,
    },
}

/// An encoder or decoder that works here.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The element, ready to be put into a pipeline.
    pub element: gst::Element,
    /// Its factory.
    pub name: &'static str,
    /// Whether it runs on a device of its own.
    pub hardware: bool,
}

/// None works.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {codec} {kind} works here: {}; {}", tried.join(", "), packages::advice(packages::of_element(advised)))]
pub struct NoCodec {
    /// The format.
    pub codec: Codec,
    /// `encoder` or `decoder`.
    pub kind: &'static str,
    /// What was tried, and why it was not taken.
    pub tried: Vec<String>,
    advised: &'static str,
}

/// The names that [`encoder`] tries, in order.
pub fn encoders(codec: Codec) -> impl Iterator<Item = &'static str> {
    candidates::of(codec).encoders.iter().map(|candidate| candidate.name)
}

/// The names that [`decoder`] tries, in order.
pub fn decoders(codec: Codec) -> impl Iterator<Item = &'static str> {
    candidates::of(codec).decoders.iter().map(|candidate| candidate.name)
}

/// The best encoder that works here, with settings for its purpose.
pub fn encoder(codec: Codec, purpose: Purpose) -> Result<Choice, NoCodec> {
    let formats = candidates::of(codec);
    choose(codec, "encoder", formats.encoders, purpose, formats.advised_encoder)
}

/// The best decoder that works here.
pub fn decoder(codec: Codec) -> Result<Choice, NoCodec> {
    let formats = candidates::of(codec);
    choose(
        codec,
        "decoder",
        formats.decoders,
        Purpose::File,
        formats.advised_decoder,
    )
}

/// Asks an encoder that runs for another bit rate, in bits per second.
pub fn set_bitrate(encoder: &gst::Element, bitrate: u32) {
    let name = encoder.factory().map(|factory| factory.name()).unwrap_or_default();
    let candidate = Codec::ALL
        .iter()
        .flat_map(|codec| candidates::of(*codec).encoders)
        .find(|candidate| candidate.name == name);
    let Some(candidate) = candidate else { return };
    // Of its settings for a live stream, the ones that the rate decides.
    let settings = |bitrate| (candidate.settings)(Purpose::Live { bitrate });
    let (wanted, other) = (settings(bitrate), settings(bitrate / 2));
    for ((name, value), (_, differs)) in wanted.iter().zip(&other) {
        if value != differs {
            set_if_taken(encoder, name, value);
        }
    }
}

fn choose(
    codec: Codec,
    kind: &'static str,
    candidates: &[Candidate],
    purpose: Purpose,
    advised: &'static str,
) -> Result<Choice, NoCodec> {
    let mut tried = Vec::new();
    for candidate in candidates {
        match attempt(candidate, purpose) {
            Ok(element) => {
                return Ok(Choice {
                    element,
                    name: candidate.name,
                    hardware: candidate.hardware,
                });
            }
            Err(why) => tried.push(format!("{} {why}", candidate.name)),
        }
    }
    Err(NoCodec {
        codec,
        kind,
        tried,
        advised,
    })
}

/// An encoder in the registry may stand for a device that is not there: READY opens it.
fn attempt(candidate: &Candidate, purpose: Purpose) -> Result<gst::Element, &'static str> {
    let factory = gst::ElementFactory::find(candidate.name).ok_or("is not installed")?;
    let element = factory.create().build().map_err(|_| "cannot be loaded")?;
    let opened = element.set_state(gst::State::Ready);
    // Back at once: who takes it decides when it opens.
    let closed = element.set_state(gst::State::Null);
    if opened.is_err() || closed.is_err() {
        return Err("does not open its device");
    }
    for (name, value) in (candidate.settings)(purpose) {
        set_if_taken(&element, name, &value);
    }
    Ok(element)
}

/// Sets a property, unless this version of the element lacks it or takes no such value: an encoder with a setting of its
/// own is better than none.
fn set_if_taken(element: &gst::Element, name: &str, value: &str) {
    let Some(spec) = element.find_property(name) else {
        return;
    };
    match glib::Value::deserialize_with_pspec(value, &spec) {
        Ok(value) if spec.flags().contains(glib::ParamFlags::WRITABLE) && spec.value_is_valid(&value) => {
            element.set_property_from_value(name, &value);
        }
        _ => gst::warning!(
            gst::CAT_RUST,
            obj = element,
            "{name} cannot be set to {value}: it stays as it is"
        ),
    }
}

/// An AAC encoder and its name; None where there is none.
pub fn aac_encoder() -> Option<(gst::Element, &'static str)> {
    ["fdkaacenc", "avenc_aac", "voaacenc", "faac"]
        .into_iter()
        .find_map(|name| Some((gst::ElementFactory::make(name).build().ok()?, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_that_an_encoder_does_not_take_leaves_it_as_it_is() {
        crate::register().unwrap();
        let odd = candidates::software("x264enc", |_| {
            candidates::set(&[
                ("speed-preset", "no-such-preset"),
                ("key-int-max", "many"),
                ("bitrate", "4000000000"),
                ("no-such-property", "1"),
                ("name", "odd"),
            ])
        });
        let element = attempt(&odd, Purpose::File).unwrap();
        let plain = gst::ElementFactory::make("x264enc").build().unwrap();
        for property in ["speed-preset", "key-int-max", "bitrate"] {
            let value = |element: &gst::Element| element.property_value(property).serialize().unwrap();
            assert_eq!(value(&element), value(&plain), "{property}");
        }
        assert_eq!(element.name(), "odd");
    }

    /// Every value is one that the element takes.
    #[test]
    fn what_is_installed_takes_its_settings() {
        crate::register().unwrap();
        for codec in Codec::ALL {
            for purpose in [Purpose::File, Purpose::Live { bitrate: 2_000_000 }] {
                for candidate in candidates::of(codec).encoders {
                    let Ok(element) = attempt(candidate, purpose) else {
                        continue;
                    };
                    for (name, value) in (candidate.settings)(purpose) {
                        let Some(spec) = element.find_property(name) else {
                            continue;
                        };
                        let wanted = glib::Value::deserialize_with_pspec(&value, &spec);
                        let wanted = wanted.unwrap_or_else(|_| panic!("{} takes no {name}={value}", candidate.name));
                        assert_eq!(
                            element.property_value(name).serialize().unwrap(),
                            wanted.serialize().unwrap(),
                            "{} {name}",
                            candidate.name
                        );
                    }
                }
                encoder(codec, purpose).unwrap();
            }
            decoder(codec).unwrap();
        }
    }

    #[test]
    fn bit_rates_are_in_the_encoders_own_unit() {
        crate::register().unwrap();
        for (codec, name, property, value) in [
            (Codec::H264, "x264enc", "bitrate", "1500"),
            (Codec::H264, "openh264enc", "bitrate", "1500000"),
            (Codec::Vp8, "vp8enc", "target-bitrate", "1500000"),
        ] {
            let candidate = candidates::of(codec).encoders.iter().find(|c| c.name == name).unwrap();
            let settings = (candidate.settings)(Purpose::Live { bitrate: 1_500_000 });
            assert!(settings.contains(&(property, value.to_owned())), "{name}");
        }
    }

    #[test]
    fn without_any_the_error_says_what_was_tried_and_what_to_install() {
        crate::register().unwrap();
        let none = [candidates::software("comfynoenc", |_| Vec::new())];
        let error = choose(Codec::H264, "encoder", &none, Purpose::File, "x264enc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no H.264 encoder works here: comfynoenc is not installed; install it (Debian: apt install gstreamer1.0-plugins-ugly)"
        );
    }
}
