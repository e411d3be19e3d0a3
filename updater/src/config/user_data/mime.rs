//! MIME multipart messages (RFC 2046 section 5.1), as tools for cloud-init write them.

use super::super::text::decode_base64;

/// The type of a part that is a configuration.
pub(super) const TYPE: &str = "text/etchaos";
/// The maximum number of parts. Messages have a part for each script and each file.
const PARTS_MAX: usize = 256;
/// The maximum number of messages around a part: tools put a message into another one.
const DEPTH_MAX: usize = 4;
/// The maximum number of lines of a header.
const HEADER_LINES_MAX: usize = 100;

/// A part of a message.
pub(super) struct Part {
    /// The type in lower case, without parameters.
    pub(super) content_type: String,
    /// The decoded body, or the body as it is if it cannot be decoded.
    pub(super) body: Vec<u8>,
    /// Why the body cannot be decoded.
    pub(super) problem: Option<&'static str>,
}

/// Returns the parts of a message, also those of messages in it, or an error if it is damaged. Returns
/// `None` if the text does not begin with a header that has a type.
pub(super) fn parts(text: &[u8]) -> Option<Result<Vec<Part>, String>> {
    let (header, body) = Header::read(text)?;
    if header.content_type().is_empty() {
        return None;
    }
    if header.is_multipart() && header.boundary().is_none() {
        return Some(Err("it is a MIME message without a boundary".to_owned()));
    }
    let mut found = Vec::new();
    header.add_parts(body, DEPTH_MAX, &mut found);
    Some(match found.len() > PARTS_MAX {
        true => Err(format!("it is a MIME message with more than {PARTS_MAX} parts")),
        false => Ok(found),
    })
}

/// The fields of a header, with names in lower case.
struct Header(Vec<(String, String)>);

impl Header {
    /// Splits a text into the header and the body. Returns `None` if the text begins with something else.
    fn read(text: &[u8]) -> Option<(Self, &[u8])> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        for _ in 0..HEADER_LINES_MAX {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = after;
            let line = str::from_utf8(line).ok()?.trim_end();
            if line.is_empty() {
                return Some((Self(fields), rest));
            }
            // mbox files, which some tools write, begin with such a line.
            if fields.is_empty() && line.starts_with("From ") {
                continue;
            }
            // A line that begins with a space continues the field (RFC 5322 section 2.2.3).
            if line.starts_with([' ', '\t']) {
                fields.last_mut()?.1.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':')?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if name.is_empty() || !name.bytes().all(is_name) {
                return None;
            }
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        None
    }

    fn field(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn content_type(&self) -> String {
        let kind = self.field("content-type").split(';').next().unwrap_or_default();
        kind.trim().to_ascii_lowercase()
    }

    /// Returns the parameter `boundary` (RFC 2046 section 5.1.1).
    fn boundary(&self) -> Option<String> {
        let parameters = self.field("content-type").split(';').skip(1);
        let mut pairs = parameters.filter_map(|parameter| parameter.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
        let value = value.trim().trim_matches('"');
        (1..=70).contains(&value.len()).then(|| value.to_owned())
    }

    fn is_multipart(&self) -> bool {
        self.content_type().starts_with("multipart/")
    }

    /// Adds the parts of the message with this header and body. A message that is damaged, or in too many
    /// others, is a part itself. Stops at [`PARTS_MAX`] and one more.
    fn add_parts(&self, body: &[u8], depth: usize, found: &mut Vec<Part>) {
        let boundary = self.boundary().filter(|_| self.is_multipart() && depth > 0);
        let Some(boundary) = boundary else { return found.push(self.part(body)) };
        for text in split(body, boundary.as_bytes()) {
            if found.len() > PARTS_MAX {
                return;
            }
            if let Some((header, body)) = Self::read(text) {
                header.add_parts(body, depth - 1, found);
            }
        }
    }

    /// Returns the part with this header and body.
    fn part(&self, body: &[u8]) -> Part {
        let encoding = self.field("content-transfer-encoding").to_ascii_lowercase();
        let decoded = match encoding.as_str() {
            "" | "7bit" | "8bit" | "binary" => Ok(body.to_vec()),
            "base64" => {
                decode_base64(body).ok_or("the part with the configuration is not valid base64")
            }
            _ => Err(
                "the part with the configuration has a Content-Transfer-Encoding other than base64, 7bit or 8bit",
            ),
        };
        let (body, problem) = match decoded {
            Ok(body) => (body, None),
            Err(problem) => (body.to_vec(), Some(problem)),
        };
        Part { content_type: self.content_type(), body, problem }
    }
}

/// Returns the texts between the lines of a boundary. Stops at [`PARTS_MAX`] and one more.
fn split<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    // The start of the current part; there is none before the first boundary.
    let mut start = None;
    let mut at = 0;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let next = at + line.len();
        let after = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
        let after = after.map(<[u8]>::trim_ascii);
        if let Some(b"" | b"--") = after {
            parts.extend(start.map(|start| &body[start..at]));
            start = Some(next);
            if after != Some(b"") || parts.len() > PARTS_MAX {
                return parts;
            }
        }
        at = next;
    }
    // The last boundary is missing if the message was cut.
    parts.extend(start.map(|start| &body[start..]));
    parts
}
