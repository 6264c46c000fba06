//! State changes with a deadline: no element may keep a program from going on, or from ending.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use gst::prelude::*;

/// Why a state was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An element refused. Its reason is in an error message on the bus.
    #[error("{element} cannot go to {state:?}; its error message says why")]
    Refused {
        /// What was asked to change.
        element: String,
        /// To which state.
        state: gst::State,
    },
    /// The deadline passed.
    #[error("{element} is not {state:?} after {} s; still waited for: {}", after.as_secs_f64(), waiting.join(", "))]
    Late {
        /// What was asked to change.
        element: String,
        /// To which state.
        state: gst::State,
        /// The deadline.
        after: Duration,
        /// The elements in it that are not there yet.
        waiting: Vec<String>,
    },
}

/// Changes `element`'s state and waits for it, no longer than `deadline`.
///
/// A change downwards runs on a thread of its own, because an element that hangs would take the caller with it.
/// Pipelines with a live source are done when they are in PAUSED, without a preroll.
pub fn set(
    element: &impl IsA<gst::Element>,
    state: gst::State,
    deadline: Duration,
) -> Result<gst::StateChangeSuccess, Error> {
    let element = element.upcast_ref::<gst::Element>();
    let refused = || Error::Refused {
        element: element.name().into(),
        state,
    };
    let late = || Error::Late {
        element: element.name().into(),
        state,
        after: deadline,
        waiting: not_in(element, state),
    };
    let timeout = gst::ClockTime::try_from(deadline).unwrap_or(gst::ClockTime::MAX);
    if state >= element.current_state() {
        return match element.set_state(state).map_err(|_| refused())? {
            gst::StateChangeSuccess::Async => match element.state(timeout) {
                (Ok(gst::StateChangeSuccess::Async), ..) => Err(late()),
                (Ok(success), ..) => Ok(success),
                (Err(_), ..) => Err(refused()),
            },
            success => Ok(success),
        };
    }
    let (done, wait) = sync_channel(1);
    let worker = element.clone();
    let spawned = std::thread::Builder::new().name("state-change".into()).spawn(move || {
        // Nobody listens after the deadline, and that is no fault.
        let _ = done.send(worker.set_state(state));
    });
    if spawned.is_err() {
        return element.set_state(state).map_err(|_| refused());
    }
    match wait.recv_timeout(deadline) {
        Ok(result) => result.map_err(|_| refused()),
        Err(_) => Err(late()),
    }
}

fn not_in(element: &gst::Element, state: gst::State) -> Vec<String> {
    let Some(bin) = element.downcast_ref::<gst::Bin>() else {
        return vec![element.name().into()];
    };
    bin.iterate_elements()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|child| child.current_state() != state)
        .map(|child| child.name().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(text: &str) -> gst::Pipeline {
        gst::init().unwrap();
        gst::parse::launch(text).unwrap().downcast().unwrap()
    }

    #[test]
    fn a_pipeline_goes_up_and_down() {
        let pipeline = pipeline("videotestsrc num-buffers=1 ! fakesink");
        set(&pipeline, gst::State::Playing, Duration::from_secs(20)).unwrap();
        assert_eq!(pipeline.current_state(), gst::State::Playing);
        set(&pipeline, gst::State::Null, Duration::from_secs(20)).unwrap();
        assert_eq!(pipeline.current_state(), gst::State::Null);
    }

    #[test]
    fn who_is_waited_for_is_named() {
        let pipeline = pipeline("fakesink name=thirsty appsrc name=dry ! fakesink");
        let error = set(&pipeline, gst::State::Paused, Duration::from_millis(1)).unwrap_err();
        let Error::Late { waiting, .. } = &error else {
            panic!("{error}")
        };
        assert!(waiting.contains(&"thirsty".to_owned()), "{error}");
        set(&pipeline, gst::State::Null, Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let pipeline = pipeline("filesrc location=/does/not/exist ! fakesink");
        let error = set(&pipeline, gst::State::Paused, Duration::from_secs(20)).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        set(&pipeline, gst::State::Null, Duration::from_secs(20)).unwrap();
    }
}
