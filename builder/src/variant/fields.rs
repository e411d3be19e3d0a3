//! Reads fields of rendered Jsonnet, and explains what is wrong with a field.

use anyhow::{Error, Result, anyhow, bail};
use serde_json::{Map, Value};

use super::line::line_of;
use super::nearest::did_you_mean;

/// The maximum length of a value in an error, in characters.
const EXCERPT_MAX: usize = 80;

/// A value of a file, and its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    file: &'a str,
    /// The path in the file, such as `files[0].mode`; empty for the whole file.
    path: String,
    value: &'a Value,
}

/// An object whose fields have known names.
#[derive(Debug)]
pub(super) struct Object<'a> {
    file: &'a str,
    path: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Field<'a> {
    /// Returns the value of a whole file.
    pub(super) fn root(file: &'a str, value: &'a Value) -> Self {
        Self { file, path: String::new(), value }
    }

    /// Returns the object, which has no fields but these.
    pub(super) fn object(&self, allowed: &[&str]) -> Result<Object<'a>> {
        let object = self.any_object()?;
        let unknown = object.fields.keys().find(|name| !allowed.contains(&name.as_str()));
        if let Some(name) = unknown {
            let parent = match self.path.as_str() {
                "" => String::new(),
                path => format!("{path} of "),
            };
            bail!(
                "unknown field {name:?} in {parent}{}{}; allowed: {}",
                place(self.file, name, &object.fields[name]),
                did_you_mean(name, allowed),
                allowed.join(", ")
            );
        }
        Ok(object)
    }

    /// Returns the object, whose other fields are read elsewhere.
    pub(super) fn any_object(&self) -> Result<Object<'a>> {
        match self.value {
            Value::Object(fields) => {
                Ok(Object { file: self.file, path: self.path.clone(), fields })
            }
            _ => Err(self.invalid("an object")),
        }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.invalid("a text"))
    }

    /// Returns the boolean.
    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.invalid("true or false"))
    }

    /// Returns the text if it is valid. `expected` describes a valid one.
    pub(super) fn text_that(
        &self,
        expected: &str,
        is_valid: impl Fn(&str) -> bool,
    ) -> Result<&'a str> {
        let text = self.text()?;
        if is_valid(text) { Ok(text) } else { Err(self.invalid(expected)) }
    }

    /// Returns the elements of the list.
    pub(super) fn list(&self) -> Result<Vec<Field<'a>>> {
        let Value::Array(values) = self.value else { return Err(self.invalid("a list")) };
        let element = |(index, value)| Field {
            file: self.file,
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(values.iter().enumerate().map(element).collect())
    }

    /// Returns an error that says what the field is, and what was expected.
    pub(super) fn invalid(&self, expected: &str) -> Error {
        let found = excerpt(self.value);
        match self.path.as_str() {
            "" => anyhow!("{} is {found}, expected {expected}", self.file),
            path => anyhow!("{path} of {} is {found}, expected {expected}", self.place()),
        }
    }

    /// Returns an error about the field.
    pub(super) fn error(&self, why: &str) -> Error {
        anyhow!("{} of {} is {}, {why}", self.path, self.place(), excerpt(self.value))
    }

    /// Returns the file, with the line of the field if it is known.
    fn place(&self) -> String {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        place(self.file, name.split('[').next().unwrap_or_default(), self.value)
    }
}

impl<'a> Object<'a> {
    /// Returns a field, if the object has it.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        self.fields.get(name).map(|value| Field { file: self.file, path, value })
    }

    /// Returns a field.
    pub(super) fn require(&self, name: &str) -> Result<Field<'a>> {
        self.get(name).ok_or_else(|| match self.path.as_str() {
            "" => anyhow!("{} has no field {name:?}", self.file),
            path => anyhow!("{path} of {} has no field {name:?}", self.file),
        })
    }

    /// Returns the elements of a list, or none if the object does not have the field.
    pub(super) fn list(&self, name: &str) -> Result<Vec<Field<'a>>> {
        self.get(name).map_or(Ok(Vec::new()), |field| field.list())
    }
}

/// Returns the file, with the line of a field if it is known.
fn place(file: &str, name: &str, value: &Value) -> String {
    let source = std::fs::read_to_string(file).unwrap_or_default();
    line_of(&source, name, value).map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
}

/// Returns a value as JSON, whose control characters are escaped, in a length that fits in an error.
fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
