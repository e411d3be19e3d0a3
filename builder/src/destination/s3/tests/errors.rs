//! Errors name the bucket, the answer and the way out, and no secret.

use std::process::Command;
use std::time::{Duration, Instant};

use super::super::server::{ACCESS_KEY, Fault, Proxy, Rule, SECRET_KEY};
use super::*;

/// The variable by which a test starts itself with another clock.
const OTHER_CLOCK: &str = "ETCHAOS_TEST_OTHER_CLOCK_ENDPOINT";

/// Runs every operation, and returns the errors of those that fail.
fn errors(s3: &S3) -> Vec<String> {
    let temporary = tempfile::tempdir().unwrap();
    let small = upload(temporary.path(), "small", 10);
    let large = upload(temporary.path(), "large", LARGE);
    let results = [
        s3.lock().map(drop),
        s3.list("").map(drop),
        s3.read("m.jwt", 9).map(drop),
        s3.measure("m.jwt", 9).map(drop),
        s3.download("m.jwt", 9, &temporary.path().join("to")),
        s3.create(&small).map(drop),
        s3.create(&large).map(drop),
        s3.repair(&large),
        s3.replace("m.jwt", b"x", None),
        s3.replace("m.jwt", b"x", Some(&Version("\"0123\"".into()))),
        s3.remove("m.jwt"),
    ];
    let errors: Vec<String> =
        results.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    for error in &errors {
        for secret in [SECRET_KEY, "hunter2"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
    errors
}

/// Asserts that enough operations fail with all these texts in one error, and all name the bucket.
fn assert_explained(errors: &[String], at_least: usize, texts: &[&str]) {
    let explained = errors.iter().filter(|error| texts.iter().all(|text| error.contains(text)));
    assert!(explained.count() >= at_least, "{texts:?} not in {errors:#?}");
    assert!(errors.iter().all(|error| error.contains("s3://")), "{errors:#?}");
}

#[test]
fn wrong_credentials() {
    let server = Server::start();
    let wrong = [("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let errors_found = errors(&open(&server.endpoint(), &wrong));
    assert_explained(&errors_found, 7, &["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"]);
    let wrong = [("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let errors_found = errors(&open(&server.endpoint(), &wrong));
    assert_explained(&errors_found, 7, &["AWS_ACCESS_KEY_ID"]);
}

#[test]
fn missing_bucket() {
    let server = Server::start();
    let explained = ["s3://missing/x", "404", "NoSuchBucket", "create the bucket"];
    let s3 = open_url("s3://missing/x", &server.endpoint(), &[]).unwrap();
    assert_explained(&errors(&s3), 2, &explained);
    // The test server creates the bucket when it receives a file. Other stores refuse the file.
    let body = "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>";
    let fault = Fault::Answer("404 Not Found", body);
    let proxy = Proxy::start(server.address(), [Rule { contains: "", times: usize::MAX, fault }]);
    let s3 = open_url("s3://missing/x", &proxy.endpoint(), &[]).unwrap();
    assert_explained(&errors(&s3), 8, &explained);
}

#[test]
fn clock_of_this_machine_is_wrong() {
    if let Ok(endpoint) = std::env::var(OTHER_CLOCK) {
        let explained = ["RequestTimeTooSkewed", "the clock of this machine differs"];
        return assert_explained(&errors(&open(&endpoint, &[])), 7, &explained);
    }
    let server = Server::start();
    let test = std::env::current_exe().unwrap();
    let output = Command::new("faketime")
        .args(["-f", "+2h"])
        .arg(test)
        .args(["--exact", "destination::s3::tests::errors::clock_of_this_machine_is_wrong"])
        .env(OTHER_CLOCK, server.endpoint())
        .output();
    match output {
        Err(error) => crate::judge::skip(&format!("cannot run faketime: {error}")),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
    }
}

#[test]
fn overloaded_server() {
    let answer = Fault::Answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
    let rule = Rule { contains: "", times: usize::MAX, fault: answer };
    let proxy = Proxy::start(Server::start().address(), [rule]);
    let s3 = open(&proxy.endpoint(), &[("AWS_MAX_ATTEMPTS", "2")]);
    assert_explained(
        &errors(&s3),
        8,
        &["503 Service Unavailable (SlowDown)", "run the command again later"],
    );
}

#[test]
fn slow_and_silent_servers_do_not_hang() {
    let server = Server::start();
    let fast = [("AWS_TIMEOUT", "200ms"), ("AWS_MAX_ATTEMPTS", "1")];
    let pause = Duration::from_secs(2);
    for fault in [Fault::Silence(pause), Fault::Trickle(pause)] {
        let rule = Rule { contains: "", times: usize::MAX, fault };
        let proxy = Proxy::start(server.address(), [rule]);
        let start = Instant::now();
        let errors = errors(&open(&proxy.endpoint(), &fast));
        assert_explained(&errors, 8, &["too slowly", "AWS_TIMEOUT"]);
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }
}

#[test]
fn unreachable_and_foreign_servers() {
    let twice = ("AWS_MAX_ATTEMPTS", "2");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let found = errors(&open(&format!("http://{closed}"), &[twice]));
    assert_explained(&found, 11, &["refused", "AWS_ENDPOINT_URL_S3", &closed.to_string()]);

    let server = Server::start();
    let found = errors(&open(&server.endpoint().replace("http:", "https:"), &[twice]));
    assert_explained(&found, 11, &["cannot connect"]);

    let page = "<!DOCTYPE html><html><body>Welcome to nginx!</body></html>";
    for status in ["200 OK", "404 Not Found", "405 Method Not Allowed"] {
        let rule = Rule { contains: "", times: usize::MAX, fault: Fault::Answer(status, page) };
        let proxy = Proxy::start(server.address(), [rule]);
        let found = errors(&open(&proxy.endpoint(), &[twice]));
        assert_explained(&found, 3, &["AWS_ENDPOINT_URL_S3"]);
        assert!(found[0].contains("S3 store"), "{}", found[0]);
    }
}

#[test]
fn reset_connections() {
    let rule = Rule { contains: "", times: usize::MAX, fault: Fault::ResetRequest(0) };
    let proxy = Proxy::start(Server::start().address(), [rule]);
    let s3 = open(&proxy.endpoint(), &[("AWS_MAX_ATTEMPTS", "2")]);
    assert_explained(&errors(&s3), 9, &["the connection to the store broke"]);
}

#[test]
fn other_region() {
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong\
                </Message><Region>eu-central-1</Region></Error>";
    for fault in
        [Fault::Answer("301 Moved Permanently", ""), Fault::Answer("400 Bad Request", body)]
    {
        let rule = Rule { contains: "", times: usize::MAX, fault };
        let proxy = Proxy::start(Server::start().address(), [rule]);
        assert_explained(&errors(&open(&proxy.endpoint(), &[])), 8, &["AWS_REGION"]);
    }
}

#[test]
fn session_token_that_the_server_repeats_is_hidden() {
    let token = "hunter2".repeat(100);
    let body =
        format!("<Error><Code>InvalidToken</Code><Message>bad token {token}</Message></Error>");
    let fault = Fault::Answer("400 Bad Request", body.leak());
    let rule = Rule { contains: "", times: usize::MAX, fault };
    let proxy = Proxy::start(Server::start().address(), [rule]);
    let s3 = open(&proxy.endpoint(), &[("AWS_SESSION_TOKEN", &token)]);
    assert_explained(&errors(&s3), 8, &["bad token [secret]", "get new credentials"]);
}

#[test]
fn virtual_machine_gives_credentials() {
    let server = Server::start();
    let keys = format!(
        r#"{{"AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"hunter2",
            "Expiration":"2100-01-01T00:00:00Z"}}"#
    );
    let answer = |contains, text: &str| Rule {
        contains,
        times: usize::MAX,
        fault: Fault::Answer("200 OK", text.to_owned().leak()),
    };
    let metadata = Proxy::start(
        server.address(),
        [
            answer("PUT /latest/api/token", "token"),
            answer("security-credentials/role", &keys),
            answer("security-credentials/", "role"),
        ],
    );
    let no_keys = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let at = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*metadata.endpoint());
    let s3 = open(&server.endpoint(), &[no_keys[0], no_keys[1], at]);
    s3.lock().unwrap();

    let nowhere = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    let start = Instant::now();
    let url = "s3://releases";
    let error = open_url(url, &server.endpoint(), &[no_keys[0], no_keys[1], nowhere]).unwrap_err();
    assert!(error.to_string().contains("found no AWS credentials"), "{error:#}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
