//! What a pipeline says on its bus, as typed events.

use std::time::Duration;

use gst::prelude::*;

use crate::packages;

/// A word of a pipeline.
#[derive(Debug)]
pub enum Event {
    /// It has failed.
    Error(Failure),
    /// It goes on, and something is not as it should be.
    Warning(Failure),
    /// A decoder, demuxer or other plugin is not installed; an error follows unless the rest does without.
    Missing(Missing),
    /// A longer task: loading a model, for one.
    Progress {
        /// Who is at work.
        element: String,
        /// Started, going on, complete, or failed.
        kind: gst::ProgressType,
        /// The task, as the element names it: `model`.
        code: String,
        /// For people.
        text: String,
    },
    /// An element's own message.
    Element {
        /// Whose.
        element: String,
        /// That element and the bins around it.
        path: String,
        /// What it says.
        structure: gst::Structure,
    },
    /// Posted by the program itself, to wake whoever waits for the bus.
    Application(gst::Structure),
    /// Everything has been written.
    Eos,
}

/// An error or a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The element that posted it.
    pub element: String,
    /// That element and the bins around it: `/GstPipeline:p/GstURIDecodeBin:source/...`.
    pub path: String,
    /// What it says.
    pub text: String,
    /// Where in its code, for a bug report.
    pub debug: Option<String>,
    /// Plugins that were asked for before and are not installed; usually the cause.
    pub missing: Vec<Missing>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.missing.is_empty() {
            return write!(f, "{}: {}", self.element, self.text.trim_end_matches('.'));
        }
        let missing: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        f.write_str(&missing.join("; "))
    }
}

/// Something that is not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// In words: `H.264 (High Profile) decoder`.
    pub what: String,
    /// The Debian package that brings it.
    pub package: Option<&'static str>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no {} is installed; {}", self.what, packages::advice(self.package))
    }
}

/// Reads a pipeline's bus, and answers for it what every program would answer in the same way.
#[derive(Debug)]
pub struct Watch {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    missing: Vec<Missing>,
}

impl Watch {
    /// Of this pipeline. There should be one.
    pub fn new(pipeline: &gst::Pipeline) -> Self {
        Self {
            pipeline: pipeline.clone(),
            bus: pipeline.bus().expect("a pipeline has a bus"),
            missing: Vec::new(),
        }
    }

    /// What was found to be missing so far.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The next event; None when `deadline` passes without one. Latency is redistributed on the way.
    pub fn next(&mut self, deadline: Option<Duration>) -> Option<Event> {
        let end = deadline.map(|deadline| {
            gst::get_timestamp()
                + gst::ClockTime::try_from(deadline).unwrap_or(gst::ClockTime::from_seconds(u32::MAX.into()))
        });
        loop {
            let rest = end.map(|end| end.saturating_sub(gst::get_timestamp()));
            let message = self.bus.timed_pop(rest)?;
            if let Some(event) = self.read(&message) {
                return Some(event);
            }
        }
    }

    fn read(&mut self, message: &gst::Message) -> Option<Event> {
        use gst::MessageView::*;
        let element = || message.src().map(|src| src.name().to_string()).unwrap_or_default();
        let path = || {
            message
                .src()
                .map(|src| src.path_string().to_string())
                .unwrap_or_default()
        };
        match message.view() {
            Eos(_) => Some(Event::Eos),
            Error(error) => Some(Event::Error(Failure {
                element: element(),
                path: path(),
                text: error.error().message().to_owned(),
                debug: error.debug().map(Into::into),
                missing: self.missing.clone(),
            })),
            Warning(warning) => Some(Event::Warning(Failure {
                element: element(),
                path: path(),
                text: warning.error().message().to_owned(),
                debug: warning.debug().map(Into::into),
                missing: Vec::new(),
            })),
            Latency(_) => {
                // Fails while the pipeline stops, when nobody needs it.
                let _ = self.pipeline.recalculate_latency();
                None
            }
            Progress(progress) => {
                let (kind, code, text) = progress.get();
                Some(Event::Progress {
                    element: element(),
                    kind,
                    code: code.into(),
                    text: text.into(),
                })
            }
            Element(_) => {
                let structure = message.structure()?;
                if structure.name() == "missing-plugin" {
                    let missing = missing(structure);
                    self.missing.push(missing.clone());
                    return Some(Event::Missing(missing));
                }
                Some(Event::Element {
                    element: element(),
                    path: path(),
                    structure: structure.to_owned(),
                })
            }
            Application(_) => Some(Event::Application(message.structure()?.to_owned())),
            _ => None,
        }
    }
}

/// From GStreamer's own description of what it lacks.
fn missing(structure: &gst::StructureRef) -> Missing {
    let what = structure.get::<String>("name").unwrap_or_else(|_| "plugin".into());
    let kind = structure.get::<String>("type").unwrap_or_default();
    let package = match structure.get::<gst::Caps>("detail") {
        Ok(caps) => caps.structure(0).map(|format| packages::of_format(format.name())),
        Err(_) => structure
            .get::<String>("detail")
            .ok()
            .and_then(|detail| match kind.as_str() {
                "element" => packages::of_element(&detail),
                "urisource" if detail.starts_with("http") => packages::of_element("souphttpsrc"),
                _ => None,
            }),
    };
    Missing { what, package }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(pipeline: &gst::Pipeline, text: &str) {
        let structure: gst::Structure = text.parse().unwrap();
        pipeline
            .post_message(gst::message::Element::builder(structure).src(pipeline).build())
            .unwrap();
    }

    #[test]
    fn a_missing_decoder_is_named_with_its_package() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::with_name("p");
        let mut watch = Watch::new(&pipeline);
        let caps = gst::Caps::builder("video/x-h264").build();
        let structure = gst::Structure::builder("missing-plugin")
            .field("type", "decoder")
            .field("detail", caps)
            .field("name", "H.264 decoder")
            .build();
        pipeline
            .post_message(gst::message::Element::builder(structure).src(&pipeline).build())
            .unwrap();
        pipeline
            .post_message(
                gst::message::Error::builder(gst::CoreError::MissingPlugin, "Your installation is missing a plug-in.")
                    .src(&pipeline)
                    .build(),
            )
            .unwrap();
        assert!(matches!(watch.next(None), Some(Event::Missing(_))));
        let Some(Event::Error(failure)) = watch.next(None) else {
            panic!()
        };
        assert_eq!(
            failure.to_string(),
            "no H.264 decoder is installed; install it (Debian: apt install gstreamer1.0-libav)"
        );
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        assert!(Watch::new(&pipeline).next(Some(Duration::ZERO)).is_none());
    }

    #[test]
    fn words_of_elements_come_as_they_are() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::with_name("p");
        post(&pipeline, "comfyflightbuffer, state=(string)running;");
        let Some(Event::Element { element, structure, .. }) = Watch::new(&pipeline).next(None) else {
            panic!()
        };
        assert_eq!(
            (element.as_str(), structure.name().as_str()),
            ("p", "comfyflightbuffer")
        );
    }
}
