//! Faults that the client has to survive.

use super::super::server::{Fault, Proxy, Rule};
use super::*;

const SLOW_DOWN: Fault = Fault::Answer(
    "503 Slow Down",
    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
);

fn rule(contains: &'static str, times: usize, fault: Fault) -> Rule {
    Rule { contains, times, fault }
}

/// Uploads a small and a large file and a manifest, and reads them, while one fault happens.
fn publish_despite(rule: Rule) {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(server.address(), [rule.clone()]);
    let s3 = open(&proxy.endpoint(), &[("AWS_TIMEOUT", "3s")]);
    for size in [1000, LARGE] {
        let upload = upload(temporary.path(), &size.to_string(), size);
        // Whether the first of two attempts was successful is not always known.
        s3.create(&upload).unwrap_or_else(|error| panic!("{rule:?}: {error:#}"));
        assert_stored(&s3, &upload);
        let to = temporary.path().join(format!("to-{size}"));
        s3.download(&upload.path, upload.size, &to).unwrap();
        assert_eq!(digest::of_bytes(&std::fs::read(to).unwrap()), upload.sha256);
    }
    s3.replace("m.jwt", b"1", None).unwrap_or_else(|error| panic!("{rule:?}: {error:#}"));
    let version = s3.read("m.jwt", 9).unwrap().unwrap().version;
    s3.replace("m.jwt", b"2", Some(&version)).unwrap();
    assert_eq!(s3.read("m.jwt", 9).unwrap().unwrap().bytes, b"2");
    s3.remove("m.jwt").unwrap();
    assert_eq!(s3.list("").unwrap().len(), 2);
    assert_eq!(server.incomplete_parts(), 0, "{rule:?}");
    assert!(!proxy.requests().is_empty());
}

#[test]
fn overloaded_server_is_asked_again() {
    publish_despite(rule("", 3, SLOW_DOWN));
    publish_despite(rule("PUT ", 3, SLOW_DOWN));
    publish_despite(rule("GET ", 3, SLOW_DOWN));
    publish_despite(rule("uploadId=", 3, SLOW_DOWN));
}

#[test]
fn upload_survives_reset_in_the_middle() {
    publish_despite(rule("PUT ", 1, Fault::ResetRequest(500)));
    publish_despite(rule("partNumber=1", 2, Fault::ResetRequest(3 << 20)));
    publish_despite(rule("POST ", 2, Fault::ResetRequest(0)));
    // Amazon S3 answers so if a request comes too slowly.
    let timeout = Fault::Answer("400 Bad Request", "<Code>RequestTimeout</Code>");
    publish_despite(rule("PUT ", 2, timeout.clone()));
    publish_despite(rule("partNumber=2", 2, timeout));
}

#[test]
fn upload_survives_lost_answers() {
    publish_despite(rule("cdn/1000", 1, Fault::LoseAnswer));
    publish_despite(rule("partNumber=2", 2, Fault::LoseAnswer));
    publish_despite(rule("POST ", 3, Fault::LoseAnswer));
    publish_despite(rule("PUT /releases/cdn/m.jwt", 1, Fault::LoseAnswer));
    publish_despite(rule("DELETE ", 2, Fault::LoseAnswer));
    for contains in ["cdn/1000", "partNumber=2", "POST ", "PUT /releases/cdn/m.jwt", "DELETE "] {
        publish_despite(rule(contains, 1, Fault::CloseWithoutAnswer));
    }
}

/// The store begins to put the parts together, the client gives up waiting, and the store refuses the second
/// request because the first one is not done. This happened on a machine that was slow.
#[test]
fn upload_survives_a_store_that_is_slow_to_complete_it() {
    for refusal in [
        Fault::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
        Fault::Answer("404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>"),
    ] {
        let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
        let first = rule("?uploadId=", 1, Fault::DoLater(std::time::Duration::from_secs(2)));
        let proxy = Proxy::start(server.address(), [first, rule("?uploadId=", 3, refusal)]);
        let s3 = open(&proxy.endpoint(), &[]);
        let upload = upload(temporary.path(), "x", LARGE);
        s3.create(&upload).unwrap_or_else(|error| panic!("{error:#}"));
        assert_stored(&s3, &upload);
        assert_eq!(server.incomplete_parts(), 0);
    }
}

#[test]
fn download_survives_reset_in_the_middle() {
    publish_despite(rule("GET ", 3, Fault::ResetAnswer(2 << 20)));
    publish_despite(rule("GET ", 3, Fault::ResetAnswer(600)));
    publish_despite(rule("HEAD ", 2, Fault::ResetAnswer(10)));
}

#[test]
fn slow_answer_is_awaited_and_missing_answer_is_asked_for_again() {
    let silence = Fault::Silence(std::time::Duration::from_secs(20));
    publish_despite(rule("", 5, Fault::Delay(std::time::Duration::from_millis(200))));
    publish_despite(rule("GET ", 1, silence.clone()));
    publish_despite(rule("PUT ", 1, silence));
}

#[test]
fn lost_answer_is_no_conflict_but_another_publisher_is() {
    let server = Server::start();
    let proxy = Proxy::start(server.address(), []);
    let s3 = open(&proxy.endpoint(), &[]);
    s3.replace("m.jwt", b"1", None).unwrap();
    let version = s3.read("m.jwt", 9).unwrap().unwrap().version;
    proxy.add(rule("PUT ", 1, Fault::LoseAnswer));
    s3.replace("m.jwt", b"2", Some(&version)).unwrap();
    proxy.add(rule("PUT ", 1, Fault::LoseAnswer));
    let error = s3.replace("m.jwt", b"3", Some(&version)).unwrap_err();
    assert!(error.is::<Conflict>(), "{error:#}");
    let conflict = Fault::Answer("409 Conflict", "<Code>ConditionalRequestConflict</Code>");
    proxy.add(rule("PUT ", 1, conflict));
    let version = s3.read("m.jwt", 9).unwrap().unwrap().version;
    s3.replace("m.jwt", b"4", Some(&version)).unwrap();
    assert_eq!(s3.read("m.jwt", 9).unwrap().unwrap().bytes, b"4");
    // Amazon S3 answers so if the file was removed.
    let missing = Fault::Answer("404 Not Found", "<Code>NoSuchKey</Code>");
    proxy.add(rule("PUT ", 1, missing));
    s3.remove("m.jwt").unwrap();
    let error = s3.replace("m.jwt", b"5", Some(&version)).unwrap_err();
    assert!(error.is::<Conflict>(), "{error:#}");
}

#[test]
fn failed_upload_leaves_no_file_and_no_parts() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let forever = rule("partNumber=2", usize::MAX, SLOW_DOWN);
    let proxy = Proxy::start(server.address(), [forever]);
    let s3 = open(&proxy.endpoint(), &[("AWS_MAX_ATTEMPTS", "2")]);
    let error = s3.create(&upload(temporary.path(), "x", LARGE)).unwrap_err().to_string();
    assert!(error.contains("SlowDown") && error.contains("later"), "{error}");
    assert_eq!(s3.measure("x", 9).unwrap(), None);
    assert_eq!(server.incomplete_parts(), 0);
    assert!(proxy.requests().iter().any(|line| line.starts_with("DELETE ")));
}
