//! A registry on another address than the loopback one, which needs TLS. It runs in a network namespace.

use std::env;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::judge::{judge, skip};
use crate::registry::Registry;
use crate::{anonymous, pull, sample};

/// The address of the registry, of a network that is only for documentation.
const ADDRESS: &str = "192.0.2.1";

/// Names the directory with the certificate. Set in the namespace.
const CHILD: &str = "ETCHAOS_TEST_REGISTRY_TLS";

/// Makes the key `NAME.key` and its certificate `NAME.pem`, which is signed by the same key.
pub(crate) fn certificate(directory: &Path, name: &str, options: &[&str]) -> Option<()> {
    let path = |extension: &str| format!("{}/{name}.{extension}", directory.display());
    let (key, certificate) = (path("key"), path("pem"));
    let fixed =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"];
    let files = ["-keyout", &key, "-out", &certificate];
    judge("openssl", &[&fixed[..], &files, options].concat()).map(drop)
}

/// Runs a test of this file in a network namespace of its own. `trusted` is the certificate that it trusts.
fn run_in_namespace(test: &str, directory: &str, trusted: &str) {
    let setup =
        format!("ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork", "sh", "-c", &setup])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, directory)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn verifies_the_certificate_of_the_registry() {
    if let Ok(directory) = env::var(CHILD) {
        return in_namespace(&directory);
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("a network namespace needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let names = format!("subjectAltName=IP:{ADDRESS}");
    let options = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
    for name in ["good", "other"] {
        if certificate(directory.path(), name, &options).is_none() {
            return;
        }
    }
    let (here, test) =
        (directory.path().to_str().unwrap(), "tls::verifies_the_certificate_of_the_registry");
    run_in_namespace(test, here, &path("good.pem"));
    run_in_namespace(test, here, &path("other.pem"));
}

fn in_namespace(directory: &str) {
    let Some(registry) = Registry::start() else { return };
    registry.push("test", "1", &sample());
    let tls = json!({
        "certificate": format!("{directory}/good.pem"), "key": format!("{directory}/good.key"),
    });
    let other = registry.beside(&format!("{ADDRESS}:5000"), json!({"tls": tls}));
    let result = pull(&format!("{}/test:1", other.host), anonymous());
    if env::var("SSL_CERT_FILE").unwrap().ends_with("good.pem") {
        assert_eq!(result.unwrap().read("etc/a"), "1");
        // This registry redirects for layers.
        let url = "http://192.0.2.1:5003/";
        let parts = json!({
            "tls": tls,
            "middleware": {"storage": [{"name": "redirect", "options": {"baseurl": url}}]},
        });
        let redirecting = registry.beside(&format!("{ADDRESS}:5002"), parts);
        let error = pull(&format!("{}/test:1", redirecting.host), anonymous()).err().unwrap();
        assert!(error.contains("redirects to a URL without TLS, expected https"), "{error}");
    } else {
        let error = result.err().unwrap();
        assert!(error.contains("name that authority in SSL_CERT_FILE"), "{error}");
    }
    // Only on the loopback address can a registry be one without TLS.
    let plain = registry.beside(&format!("{ADDRESS}:5001"), json!({}));
    let error = pull(&format!("{}/test:1", plain.host), anonymous()).err().unwrap();
    assert!(error.contains("no answer"), "{error}");
}
