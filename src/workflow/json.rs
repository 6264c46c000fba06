//! JSON within limits, each name of an object once.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Error, MAX_BYTES, MAX_DEPTH, error};

/// Reads a document. Unlike serde_json alone, it refuses a name that appears twice in one object.
pub(super) fn read(text: &[u8]) -> Result<Value, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge { bytes: text.len() });
    }
    let mut too_deep = false;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Level {
        left: MAX_DEPTH,
        too_deep: &mut too_deep,
    }
    .deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) if too_deep => Err(Error::TooDeep),
        Err(error) => Err(Error::Json {
            reason: error.to_string(),
        }),
    }
}

/// The limits that [`read`] keeps, for a document that somebody else has read.
pub(super) fn check(value: &Value) -> Result<(), Error> {
    fn walk(value: &Value, left: usize, bytes: &mut usize) -> Result<(), Error> {
        // What it takes in text, at least.
        *bytes += match value {
            Value::String(text) => text.len() + 2,
            Value::Object(map) => map.keys().map(|name| name.len() + 4).sum::<usize>() + 2,
            Value::Array(list) => list.len() + 1,
            Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        };
        if *bytes > MAX_BYTES {
            return Err(Error::TooLarge { bytes: *bytes });
        }
        let mut within = |values: &mut dyn Iterator<Item = &Value>| {
            let left = left.checked_sub(1).ok_or(Error::TooDeep)?;
            for value in values {
                walk(value, left, bytes)?;
            }
            Ok(())
        };
        match value {
            Value::Object(map) => within(&mut map.values()),
            Value::Array(list) => within(&mut list.iter()),
            _ => Ok(()),
        }
    }
    walk(value, MAX_DEPTH, &mut 0)
}

/// Reads one value, with so many levels left for what is in it.
struct Level<'a> {
    left: usize,
    too_deep: &'a mut bool,
}

impl Level<'_> {
    /// What reads the values in this one.
    fn within<E: serde::de::Error>(&mut self) -> Result<Level<'_>, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Level {
                left,
                too_deep: self.too_deep,
            }),
            None => {
                *self.too_deep = true;
                Err(E::custom("too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.within()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if values.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "{} appears twice in one object",
                    error::shown(&name)
                )));
            }
            let value = map.next_value_seed(self.within()?)?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}
