//! What is wanted of a stream, in the words of the API: names instead of keys.

use axum::http::StatusCode;
use clap::ValueEnum;
use comfy_pipelines::infergraph;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::error::Failure;

/// Smallest and largest side of a picture.
const SIDES: std::ops::RangeInclusive<u32> = 16..=4096;

/// What happens when the flight buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Leaky {
    /// Whoever sends waits.
    None,
    /// The oldest frame goes.
    Oldest,
    /// The newest goes.
    Newest,
    /// One goes whose neighbours are close.
    Thin,
}

impl From<Leaky> for infergraph::Leaky {
    fn from(leaky: Leaky) -> Self {
        match leaky {
            Leaky::None => Self::None,
            Leaky::Oldest => Self::Oldest,
            Leaky::Newest => Self::Newest,
            Leaky::Thin => Self::Thin,
        }
    }
}

/// All that can be set of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Wish {
    /// A name of `/api/models`; null: frames pass unchanged.
    pub(crate) model: Option<String>,
    /// Most frames that share one run of the model.
    pub(crate) batch_size: u32,
    /// Batches collected before the first frame leaves.
    pub(crate) threshold: u32,
    /// Batches that the flight buffer holds.
    pub(crate) max_batches: u32,
    /// What happens when it is full.
    pub(crate) leaky: Leaky,
    /// Whether the last picture stands.
    pub(crate) paused: bool,
    /// Width before the model; null: as it comes.
    pub(crate) width: Option<u32>,
    /// Height before the model; null: as it comes.
    pub(crate) height: Option<u32>,
}

/// What is to change; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Change {
    /// A name of `/api/models`; null: frames pass unchanged.
    #[serde(deserialize_with = "named")]
    #[schema(value_type = Option<String>)]
    pub(crate) model: Option<Option<String>>,
    /// Most frames that share one run of the model.
    #[schema(minimum = 1, maximum = 64)]
    pub(crate) batch_size: Option<u32>,
    /// Batches collected before the first frame leaves; at most `max_batches`.
    #[schema(minimum = 0, maximum = 64)]
    pub(crate) threshold: Option<u32>,
    /// Batches that the flight buffer holds.
    #[schema(minimum = 1, maximum = 64)]
    pub(crate) max_batches: Option<u32>,
    /// What happens when it is full.
    pub(crate) leaky: Option<Leaky>,
    /// Whether the last picture stands.
    pub(crate) paused: Option<bool>,
    /// Width before the model, 16 to 4096; null: as it comes.
    #[serde(deserialize_with = "named")]
    #[schema(value_type = Option<u32>, minimum = 16, maximum = 4096)]
    pub(crate) width: Option<Option<u32>>,
    /// Height before the model, 16 to 4096; null: as it comes.
    #[serde(deserialize_with = "named")]
    #[schema(value_type = Option<u32>, minimum = 16, maximum = 4096)]
    pub(crate) height: Option<Option<u32>>,
}

/// Null is something else than nothing said.
fn named<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Change {
    /// To another size.
    pub(crate) fn size(width: u32, height: u32) -> Self {
        Self {
            width: Some(Some(width)),
            height: Some(Some(height)),
            ..Self::default()
        }
    }
}

impl Wish {
    /// Itself with a change, if that makes sense.
    pub(crate) fn with(&self, change: &Change) -> Result<Self, Failure> {
        let wish = Self {
            model: change.model.clone().unwrap_or_else(|| self.model.clone()),
            batch_size: change.batch_size.unwrap_or(self.batch_size),
            threshold: change.threshold.unwrap_or(self.threshold),
            max_batches: change.max_batches.unwrap_or(self.max_batches),
            leaky: change.leaky.unwrap_or(self.leaky),
            paused: change.paused.unwrap_or(self.paused),
            width: change.width.unwrap_or(self.width),
            height: change.height.unwrap_or(self.height),
        };
        wish.check().map(|()| wish)
    }

    fn check(&self) -> Result<(), Failure> {
        let within = |name: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let hint = format!("choose {} to {}", range.start(), range.end());
            Err(refused(format!("{name} is {value}"), hint))
        };
        within("batch_size", self.batch_size, 1..=64)?;
        within("max_batches", self.max_batches, 1..=64)?;
        within("threshold", self.threshold, 0..=self.max_batches)?;
        match (self.width, self.height) {
            (None, None) => Ok(()),
            (Some(width), Some(height)) => {
                within("width", width, SIDES)?;
                within("height", height, SIDES)
            }
            _ => Err(refused(
                "one of width and height is given without the other".into(),
                "give both, or null for both".into(),
            )),
        }
    }

    /// Width and height, where both are wanted.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        self.width.zip(self.height)
    }
}

fn refused(message: String, hint: String) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "setting_range", message, hint)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pass-through.
    pub(crate) fn wish() -> Wish {
        Wish {
            model: None,
            batch_size: 1,
            threshold: 0,
            max_batches: 2,
            leaky: Leaky::Oldest,
            paused: false,
            width: None,
            height: None,
        }
    }

    fn change(text: &str) -> Change {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_named_changes_and_the_rest_stays() {
        let changed = wish()
            .with(&change(r#"{"model":"invert","width":512,"height":256}"#))
            .expect("fine");
        assert_eq!(changed.model.as_deref(), Some("invert"));
        assert_eq!(changed.size(), Some((512, 256)));
        assert_eq!(changed.max_batches, 2);
        assert_eq!(changed.with(&Change::default()), Ok(changed.clone()));
        let back = changed.with(&change(r#"{"model":null,"width":null,"height":null}"#));
        assert_eq!(back, Ok(wish()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, named) in [
            (r#"{"batch_size":0}"#, "batch_size"),
            (r#"{"batch_size":65}"#, "batch_size"),
            (r#"{"threshold":3}"#, "threshold"),
            (r#"{"max_batches":0}"#, "max_batches"),
            (r#"{"width":512}"#, "without the other"),
            (r#"{"width":8,"height":512}"#, "width"),
            (r#"{"width":512,"height":5000}"#, "height"),
        ] {
            let failure = wish().with(&change(text)).expect_err(text);
            assert_eq!(failure.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert!(failure.message.contains(named), "{text}: {failure:?}");
        }
        for text in [r#"{"batch":1}"#, r#"{"leaky":"sometimes"}"#, r#"{"paused":1}"#] {
            assert!(serde_json::from_str::<Change>(text).is_err(), "{text}");
        }
    }
}
