//! A strict JSON reader, which rejects ambiguous text.
//!
//! RFC 8259 section 4 lets a reader of `{"a": 1, "a": 2}` take either value, so two readers of one
//! signed text may disagree about its meaning. RFC 7515 section 4 and RFC 7519 section 4 allow a
//! reader to reject such a text. This reader does so on every level.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use crate::excerpt::excerpt;

/// The maximum nesting depth of objects and lists. A manifest needs four levels, a Pattern with
/// nested groups about twenty.
const DEPTH_MAX: usize = 32;

/// Reads a JSON text.
///
/// # Errors
/// Fails as `serde_json` does, and also with ``duplicate field `name` `` if an object has two members
/// with the same name after unescaping, or if the text nests more than 32 levels deep.
pub fn from_slice<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Unambiguous { levels: DEPTH_MAX }.deserialize(&mut reader)?;
    reader.end()?;
    serde_json::from_slice(json)
}

/// A visitor that checks any value for duplicate names and depth, and discards it.
#[derive(Clone, Copy)]
struct Unambiguous {
    /// The number of levels that may still be opened.
    levels: usize,
}

impl Unambiguous {
    fn descend<E: Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        let levels = levels
            .ok_or_else(|| E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")))?;
        Ok(Self { levels })
    }
}

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.descend()?;
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inside = self.descend()?;
        let mut names = BTreeSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if let Some(name) = names.replace(name) {
                let name = excerpt(&name).escape_debug().to_string();
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            object.next_value_seed(inside)?;
        }
        Ok(())
    }
}

/// A value that must be an object. For a struct, serde would also accept a list of the field values.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// For `deserialize_with`: reads a field that must be an object if it is present. Lists and `null` are
/// errors.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| Some(value))
}

/// For `deserialize_with`: reads a list whose elements must be objects.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let objects: Vec<Object<T>> = Vec::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// For `deserialize_with`: reads a unit variant of an enum, which must be a string. serde would also
/// accept `{"variant": null}`.
pub(crate) fn unit_variant<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn error_of(json: &str) -> String {
        from_slice::<Value>(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn rejects_duplicate_names_on_every_level() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"[{"x":[[{"a":{},"a":[]}]]}]"#,
        ] {
            assert!(error_of(json).contains("duplicate field `a`"), "{json}");
        }
        assert!(from_slice::<Value>(br#"[{"a":1},{"a":1,"A":{"a":1}}]"#).is_ok());
    }

    #[test]
    fn rejects_deep_nesting_and_trailing_text() {
        let nested = |open: &str, close: &str, n: usize| open.repeat(n) + "1" + &close.repeat(n);
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            assert!(from_slice::<Value>(nested(open, close, DEPTH_MAX).as_bytes()).is_ok());
            assert!(error_of(&nested(open, close, DEPTH_MAX + 1)).contains("nested deeper"));
            // A million opening brackets are rejected without reading to the end or overflowing the stack.
            assert!(error_of(&open.repeat(1 << 20)).contains("nested deeper"));
        }
        assert!(error_of("{} {}").contains("trailing"));
        assert!(error_of("\u{feff}{}").contains("expected value"));
    }

    proptest! {
        #[test]
        fn reads_accepted_text_as_serde_json_does(json in "[\\[\\]{}\":,a\\\\u01 .e-]{0,40}") {
            if let Ok(value) = from_slice::<Value>(json.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&json).unwrap());
            }
        }
    }
}
