//! Whole pipelines, run to their end.

use std::path::PathBuf;

use gst::prelude::*;

use crate::PATIENCE;

/// How a pipeline ended, and what it said on the way.
#[derive(Debug)]
pub struct Ended {
    /// Everything from the bus, in order.
    pub messages: Vec<gst::Message>,
}

impl Ended {
    /// Error messages, in order.
    pub fn errors(&self) -> Vec<(glib::Error, String)> {
        let errors = self.messages.iter().filter_map(|message| match message.view() {
            gst::MessageView::Error(error) => Some((error.error(), error.debug().unwrap_or_default().to_string())),
            _ => None,
        });
        errors.collect()
    }

    /// Warning messages, in order.
    pub fn warnings(&self) -> Vec<glib::Error> {
        let warnings = self.messages.iter().filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error()),
            _ => None,
        });
        warnings.collect()
    }

    /// Element messages with this name.
    pub fn elements(&self, name: &str) -> Vec<gst::Structure> {
        let found = self.messages.iter().filter_map(|message| match message.view() {
            gst::MessageView::Element(element) => element.structure().filter(|s| s.name() == name),
            _ => None,
        });
        found.map(ToOwned::to_owned).collect()
    }

    /// Fails unless it came to EOS without an error.
    pub fn expect_eos(self) -> Self {
        let errors = self.errors();
        assert!(errors.is_empty(), "the pipeline failed: {errors:?}");
        self
    }

    /// Fails unless our elements posted exactly one error, before anyone else did, and gives it. A source adds one of
    /// its own ("Internal data stream error") whenever its push fails.
    pub fn expect_one_error(&self) -> glib::Error {
        let ours = self.messages.iter().filter(|message| {
            let element = message.src().and_then(|source| source.downcast_ref::<gst::Element>());
            let factory = element.and_then(|element| element.factory());
            message.type_() == gst::MessageType::Error
                && factory.is_some_and(|f| f.name().starts_with("comfy") || f.name().starts_with("trickle"))
        });
        let (count, errors) = (ours.count(), self.errors());
        assert_eq!(count, 1, "expected one error of ours: {errors:?}");
        errors[0].0.clone()
    }
}

/// Where pipelines are kept as text.
pub fn launch_folder() -> PathBuf {
    crate::models::root().join("pipelines/launch")
}

/// The text of a launch file, without its comment.
pub fn launch_text(name: &str) -> String {
    let path = launch_folder().join(format!("{name}.launch"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join(" ")
}

/// The element of a pipeline that this factory made.
pub fn made_by(pipeline: &gst::Pipeline, factory: &str) -> gst::Element {
    let mut elements = pipeline.iterate_elements().into_iter().flatten();
    let found = elements.find(|element| element.factory().is_some_and(|made| made.name() == factory));
    found.unwrap_or_else(|| panic!("there is no {factory}"))
}

/// A pipeline from gst-launch text.
pub fn parse(text: &str) -> gst::Pipeline {
    crate::init();
    let element = gst::parse::launch(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match element.downcast() {
        Ok(pipeline) => pipeline,
        // A single element is not wrapped by the parser.
        Err(element) => {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).expect("a new pipeline is empty");
            pipeline
        }
    }
}

/// Plays until EOS or an error, then stops.
pub fn run(pipeline: &gst::Pipeline) -> Ended {
    let ended = play_to_end(pipeline);
    pipeline.set_state(gst::State::Null).expect("every element stops");
    ended
}

/// Plays until EOS or an error. Not yet in NULL, so that statistics can be read; the caller stops it.
pub fn play_to_end(pipeline: &gst::Pipeline) -> Ended {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let mut messages = Vec::new();
    // A refused state change has its reason on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    loop {
        let Some(message) = bus.timed_pop(PATIENCE) else {
            dump(pipeline);
            panic!("neither EOS nor an error; what was said: {messages:#?}");
        };
        let end = matches!(message.type_(), gst::MessageType::Eos | gst::MessageType::Error);
        messages.push(message);
        if end {
            break;
        }
    }
    // A second error would follow while elements stop; in NULL the bus is emptied.
    if messages.last().is_some_and(|m| m.type_() == gst::MessageType::Error) {
        let _ = pipeline.set_state(gst::State::Ready);
    }
    messages.extend(bus.iter());
    Ended { messages }
}

fn dump(pipeline: &gst::Pipeline) {
    for element in pipeline.iterate_elements().into_iter().flatten() {
        let (result, current, pending) = element.state(gst::ClockTime::ZERO);
        eprintln!("{}: {current:?}, pending {pending:?}, {result:?}", element.name());
        if element.find_property("stats").is_some() {
            eprintln!("    {:?}", element.property_value("stats"));
        }
    }
}

/// Waits for a message that satisfies `wanted`; fails at the deadline, or at an error.
pub fn wait_message(bus: &gst::Bus, what: &str, wanted: impl Fn(&gst::Message) -> bool) -> gst::Message {
    loop {
        let message = bus
            .timed_pop(PATIENCE)
            .unwrap_or_else(|| panic!("waited in vain for {what}"));
        if wanted(&message) {
            return message;
        }
        if let gst::MessageView::Error(error) = message.view() {
            panic!("an error instead of {what}: {} {:?}", error.error(), error.debug());
        }
    }
}

/// Asks for a state that is reached when data comes.
pub fn go_async(element: &impl IsA<gst::Element>, state: gst::State) {
    element.set_state(state).expect("the change is accepted");
}

/// Sets the state and waits until it is reached.
pub fn go(element: &impl IsA<gst::Element>, state: gst::State) {
    element.set_state(state).expect("the change is accepted");
    let (result, current, _) = element.state(PATIENCE);
    result.expect("the change succeeds");
    assert_eq!(current, state);
}
