//! The value of options that take a key.

/// Returns the text itself or, if it is `@` and a path, the content of that file.
///
/// # Errors
/// Fails if the file cannot be read or is empty.
pub fn key_text(given: &str) -> Result<String, String> {
    match given.strip_prefix('@') {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("reading the key file {path}: {error}"))?;
            match text.trim().is_empty() {
                false => Ok(text),
                true => Err(format!("the key file {path} is empty")),
            }
        }
        None => Ok(given.to_owned()),
    }
}
