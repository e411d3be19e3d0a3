//! What a failed request means, and what to do about it.

use object_store::client::{HttpError, HttpErrorKind};

/// The maximum number of characters of a message of the server that an error shows.
const MESSAGE_MAX: usize = 200;
/// The maximum number of bytes of a word in such a message.
const WORD_MAX: usize = 100;

/// A failed request.
///
/// `object_store` keeps the answer of the server only in the text of its errors, so it is parsed here.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// The HTTP status, such as `403 Forbidden`.
    status: Option<String>,
    /// The error code of S3, such as `NoSuchBucket`.
    code: Option<String>,
    /// The message of the server.
    message: Option<String>,
    /// The region that the server names.
    region: Option<String>,
    /// The kind of a failure below HTTP.
    transport: Option<HttpErrorKind>,
    /// The innermost cause.
    cause: String,
    /// The whole text, in lower case.
    text: String,
}

impl Failure {
    /// Returns what an error of `object_store` means.
    pub(super) fn of(error: &object_store::Error) -> Self {
        Self::without_secrets(error, &[])
    }

    /// Returns what an error means, for display. A server can send back what it received, which
    /// includes the session token.
    pub(super) fn without_secrets(error: &object_store::Error, secrets: &[String]) -> Self {
        let hide = |text: String| {
            secrets.iter().fold(text, |text, secret| text.replace(secret, "[secret]"))
        };
        let text = hide(error.to_string());
        let mut failure = Self {
            status: status(&text),
            code: element(&text, "Code"),
            message: element(&text, "Message"),
            region: element(&text, "Region"),
            text: text.to_ascii_lowercase(),
            ..Self::default()
        };
        let mut causes: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = causes {
            if let Some(http) = cause.downcast_ref::<HttpError>() {
                failure.transport = Some(http.kind());
            }
            failure.cause = hide(cause.to_string());
            causes = cause.source();
        }
        failure
    }

    fn has_status(&self, number: &str) -> bool {
        self.status.as_ref().is_some_and(|status| status.starts_with(number))
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// Returns whether there is no file at the path. The answer to `HEAD` has no code.
    pub(super) fn is_missing_file(&self) -> bool {
        self.has_status("404")
            && (self.code.is_none() || self.has_code(&["NoSuchKey", "NotFound"]))
            && !self.is_web_page()
    }

    /// Returns whether the store refused a conditional write because of its condition.
    pub(super) fn is_unmet_condition(&self) -> bool {
        self.has_status("412") || (self.has_status("409") && !self.is_concurrent_write())
    }

    /// Returns whether the store refused a conditional write because another one was not decided yet.
    fn is_concurrent_write(&self) -> bool {
        self.has_code(&["ConditionalRequestConflict", "OperationAborted"])
    }

    /// Returns whether it is not known if the store did what was asked.
    pub(super) fn is_undecided(&self) -> bool {
        match self.transport {
            Some(HttpErrorKind::Connect) => false,
            Some(_) => true,
            None => {
                self.has_status("5")
                    || self.is_concurrent_write()
                    || self.has_code(&["RequestTimeout"])
            }
        }
    }

    fn is_web_page(&self) -> bool {
        self.text.contains("<html") || self.text.contains("<!doctype html")
    }

    /// Returns what happened, and what to do about it.
    pub(super) fn explain(&self) -> String {
        format!("{}; {}", self.happened(), self.advice())
    }

    /// Returns what happened.
    pub(super) fn happened(&self) -> String {
        if self.is_web_page() {
            let status = self.status.as_deref().unwrap_or("a request");
            return format!("the server answered {status} with a web page");
        }
        match (&self.status, &self.code, &self.message) {
            (Some(status), Some(code), Some(message)) => {
                format!("the server answered {status} ({}: {})", excerpt(code), excerpt(message))
            }
            (Some(status), Some(code), None) => {
                format!("the server answered {status} ({})", excerpt(code))
            }
            (Some(status), ..) => format!("the server answered {status}"),
            (None, ..) => excerpt(&self.cause),
        }
    }

    fn advice(&self) -> String {
        if let Some(region) = &self.region {
            return format!("the bucket is in another region; set AWS_REGION={}", excerpt(region));
        }
        if let Some(advice) = self.code.as_deref().and_then(advice_for_code) {
            return advice.to_owned();
        }
        self.advice_without_code().to_owned()
    }

    fn advice_without_code(&self) -> &'static str {
        const NOT_S3: &str = "it does not answer like an S3 store; check AWS_ENDPOINT_URL_S3";
        let starts = |digits| self.has_status(digits);
        match self.transport {
            Some(HttpErrorKind::Timeout) => {
                return "the store answers too slowly or not at all; check the network and \
                        AWS_ENDPOINT_URL_S3, or raise AWS_TIMEOUT";
            }
            Some(HttpErrorKind::Connect) if self.cause.contains("certificate") => {
                return "this machine does not trust the TLS certificate of the store; check \
                        AWS_ENDPOINT_URL_S3, or name the certificate of its authority in SSL_CERT_FILE";
            }
            Some(HttpErrorKind::Connect) => {
                return "cannot connect to the store; check the network, AWS_ENDPOINT_URL_S3 and \
                        AWS_REGION";
            }
            Some(_) => return "the connection to the store broke; run the command again",
            None => {}
        }
        if self.is_web_page() || self.text.contains("invalid list response") {
            NOT_S3
        } else if self.text.contains("redirect") || starts("3") {
            "the bucket is in another region or behind another address; check AWS_REGION and \
             AWS_ENDPOINT_URL_S3"
        } else if starts("401") || starts("403") {
            "check the credentials, and that they may list, read, write and delete in the bucket"
        } else if starts("404") {
            "check the name of the bucket and AWS_ENDPOINT_URL_S3"
        } else if starts("412") || starts("409") {
            "another publisher writes to the bucket at the same time; run the command again"
        } else if starts("5") || starts("429") {
            "the store is overloaded or broken; run the command again later"
        } else {
            NOT_S3
        }
    }
}

/// Returns what to do about an error code of S3.
fn advice_for_code(code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidAccessKeyId" | "NotSignedUp" => {
            "the store does not know this access key; check AWS_ACCESS_KEY_ID or AWS_PROFILE, and \
             that AWS_ENDPOINT_URL_S3 is the store of this key"
        }
        "SignatureDoesNotMatch" => {
            "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY or \
             AWS_PROFILE"
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "the session has ended or is invalid; get new credentials, and run the command again"
        }
        "AccessDenied" | "AllAccessDisabled" => {
            "the credentials must allow s3:ListBucket on the bucket, and s3:GetObject, \
             s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects"
        }
        "NoSuchBucket" => "create the bucket, or correct its name in s3://BUCKET/PREFIX",
        "RequestTimeTooSkewed" | "RequestExpired" => {
            "the clock of this machine differs from the clock of the server; set the clock"
        }
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestLimitExceeded" => {
            "the store is overloaded or broken; run the command again later"
        }
        "RequestTimeout" => "the network is too slow; run the command again",
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => {
            "the bucket is in another region; set AWS_REGION"
        }
        "NotImplemented" => {
            "the store lacks a part of S3 that publishing needs, such as conditional writes"
        }
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            "the data changed on its way to the store; run the command again"
        }
        _ => return None,
    })
}

/// Returns the status after the words with which `object_store` introduces it.
fn status(text: &str) -> Option<String> {
    let (_, after) = text.split_once("status code: ")?;
    let end = after.find([':', '\n']).unwrap_or(after.len());
    let status = after[..end].trim();
    let is_status = status.len() >= 3 && status.bytes().take(3).all(|b| b.is_ascii_digit());
    is_status.then(|| excerpt(status))
}

/// Returns the text of the first XML element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = after.split_once(&format!("</{name}>"))?;
    Some(content.trim().to_owned()).filter(|content| !content.is_empty())
}

/// Returns the start of a text from the server, without control characters, and without long words,
/// because these can be session tokens.
fn excerpt(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words = words.filter(|word| !word.is_empty());
    let words: Vec<&str> =
        words.map(|word| if word.len() > WORD_MAX { "…" } else { word }).collect();
    let text = words.join(" ");
    match text.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(answer: &str) -> Failure {
        let source = format!("Server returned non-2xx status code: {answer}").into();
        Failure::of(&object_store::Error::Generic { store: "S3", source })
    }

    #[test]
    fn explains_answers_of_servers() {
        for (answer, expected) in [
            (
                "301 Moved Permanently: <Error><Code>PermanentRedirect</Code></Error>",
                "set AWS_REGION",
            ),
            (
                "400 Bad Request: <Error><Code>AuthorizationHeaderMalformed</Code><Message>the \
                 region is wrong</Message><Region>eu-central-1</Region></Error>",
                "set AWS_REGION=eu-central-1",
            ),
            ("405 Method Not Allowed: <!DOCTYPE html><p>nginx", "with a web page"),
            ("501 Not Implemented: <Code>NotImplemented</Code>", "conditional writes"),
            ("403 Forbidden: ", "check the credentials"),
        ] {
            let explained = failure(answer).explain();
            assert!(explained.contains(expected), "{answer}: {explained}");
        }
    }

    #[test]
    fn distinguishes_missing_files_from_missing_buckets_and_web_pages() {
        assert!(failure("404 Not Found: ").is_missing_file());
        assert!(failure("404 Not Found: <Code>NoSuchKey</Code>").is_missing_file());
        assert!(!failure("404 Not Found: <Code>NoSuchBucket</Code>").is_missing_file());
        assert!(!failure("404 Not Found: <html>").is_missing_file());
        assert!(!failure("403 Forbidden: ").is_missing_file());
    }

    #[test]
    fn shortens_messages_and_removes_control_characters() {
        let message = format!("\u{1b}[2J{} {}", "x".repeat(1000), "word ".repeat(1000));
        let answer = format!("400 Bad: <Code>A\nB</Code><Message>{message}</Message>");
        let explained = failure(&answer).explain();
        assert!(explained.len() < 400 && !explained.contains(['\u{1b}', '\n']), "{explained}");
        assert!(explained.contains("word word") && !explained.contains("xx"), "{explained}");
    }
}
