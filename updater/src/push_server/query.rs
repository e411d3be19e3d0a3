//! The query of a push: `?check` and `?filter=REGEX`.
//!
//! The query is not signed. It can only make less happen than the token says: fewer Commands run, or none makes a
//! change. A client that sends another query expects a restriction too, so nothing runs if it is not understood.

use protocol::pattern::Filter;

use super::push::PushError;

/// How many characters of an unknown name an error shows.
const NAME_MAX: usize = 32;

/// What a query restricts.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// Whether no change is made, whatever the token says.
    pub check: bool,
    /// The Commands that run; all if it is absent.
    pub filter: Option<Filter>,
}

impl Query {
    /// Reads a query. Etcha's clients write `check` without a value.
    ///
    /// # Errors
    /// Fails if the query has anything else.
    pub(super) fn parse(query: &str) -> Result<Self, PushError> {
        let mut found = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name, value) {
                ("check", "" | "true" | "1") => found.check = true,
                ("filter", value) if found.filter.is_none() => {
                    found.filter = Some(filter(value)?);
                }
                _ => return Err(PushError::Query(name.chars().take(NAME_MAX).collect())),
            }
        }
        Ok(found)
    }
}

/// Reads a regular expression. An empty one selects all Commands.
fn filter(value: &str) -> Result<Filter, PushError> {
    let undecodable = || PushError::Filter("is not percent-encoded UTF-8".into());
    let text = decode(value).ok_or_else(undecodable)?;
    Filter::new(&text).map_err(|error| PushError::Filter(error.to_string()))
}

/// Decodes a value as HTML forms encode it, which is what clients do: `%` and two digits for a byte, `+` for a space.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        bytes.push(match first {
            b'%' => {
                let (digits, others) = rest.split_first_chunk::<2>()?;
                rest = others;
                let digits = std::str::from_utf8(digits).ok()?;
                // The parser also accepts a sign.
                let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?
            }
            b'+' => b' ',
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_check_and_filter() {
        for (query, check) in [("", false), ("&", false), ("check", true), ("&check&check=1", true)]
        {
            let query = Query::parse(query).unwrap();
            assert_eq!((query.check, query.filter.is_none()), (check, true));
        }
        for text in ["filter=%5Eci+%3E+web&check", "check=&filter=^ci%20>%20web"] {
            let query = Query::parse(text).unwrap();
            let filter = query.filter.unwrap();
            assert!(query.check && filter.selects("ci > web > x") && !filter.selects("ci"));
        }
        assert!(Query::parse("filter=").unwrap().filter.unwrap().selects("ci"));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for query in ["x", "check=0", "Check", "?check", "%63heck", "=", "filter=a&filter=b"] {
            assert!(matches!(Query::parse(query), Err(PushError::Query(_))), "{query}");
        }
        let long = format!("filter={}", "a".repeat(2000));
        for query in
            ["filter=(", "filter=%", "filter=%4", "filter=%zz", "filter=%+1", "filter=%ff", &long]
        {
            assert!(matches!(Query::parse(query), Err(PushError::Filter(_))), "{query}");
        }
    }

    proptest! {
        #[test]
        fn decodes_what_clients_encode(text in "\\PC{0,40}", query in "[!-~]{0,40}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded), Some(text));
            let _ = Query::parse(&query);
        }
    }
}
