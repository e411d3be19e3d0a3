//! Registries that ask for a password.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use builder::oci::Logins;
use serde_json::json;

use crate::proxy::{Fault, Proxy};
use crate::registry::{Registry, free_address};
use crate::{Pulled, anonymous, pull, sample};

const PASSWORD: &str = "hunter2:secret";

/// Returns the login of the user "reader" for a registry.
pub(crate) fn from_environment(registry: &str, password: &str) -> Logins {
    Logins::from_variables(|name| match name {
        "ETCHAOS_REGISTRY" => Some(registry.to_owned()),
        "ETCHAOS_REGISTRY_USER" => Some("reader".to_owned()),
        "ETCHAOS_REGISTRY_PASSWORD" => Some(password.to_owned()),
        _ => None,
    })
    .unwrap()
}

fn check_log(pulled: &Pulled) {
    assert!(!pulled.log.contains("hunter2"), "{}", pulled.log);
    assert_eq!(pulled.read("etc/b"), "4");
}

#[test]
fn logs_in_with_the_environment_or_the_configuration_of_docker() {
    let Some(registry) = Registry::with_password("reader", PASSWORD) else { return };
    registry.push("test", "1", &sample());
    let image = format!("{}/test:1", registry.host);
    check_log(&pull(&image, from_environment(&registry.host, PASSWORD)).unwrap());

    let directory = tempfile::tempdir().unwrap();
    let basic = BASE64_STANDARD.encode(format!("reader:{PASSWORD}"));
    let config = json!({"auths": {&registry.host: {"auth": basic}}}).to_string();
    fs::write(directory.path().join("config.json"), config).unwrap();
    let logins = Logins::from_variables(|name| {
        (name == "DOCKER_CONFIG").then(|| directory.path().to_str().unwrap().to_owned())
    });
    check_log(&pull(&image, logins.unwrap()).unwrap());
}

#[test]
fn explains_refusals_without_the_password() {
    let Some(registry) = Registry::with_password("reader", PASSWORD) else { return };
    registry.push("test", "1", &sample());
    let image = format!("{}/test:1", registry.host);
    let error = pull(&image, anonymous()).err().unwrap();
    for text in
        ["requires a login", &format!("docker login {}", registry.host), "ETCHAOS_REGISTRY="]
    {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    let error = pull(&image, from_environment(&registry.host, "hunter2-wrong")).err().unwrap();
    for text in ["401 Unauthorized", "refuses the user \"reader\"", "check the password"] {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
    // The password is for one registry only.
    let error = pull(&image, from_environment("other.example", PASSWORD)).err().unwrap();
    assert!(error.contains("requires a login"), "{error}");
}

#[test]
fn answers_that_repeat_the_password_do_not_show_it() {
    let Some(registry) = Registry::with_password("reader", PASSWORD) else { return };
    registry.push("test", "1", &sample());
    let basic = BASE64_STANDARD.encode(format!("reader:{PASSWORD}"));
    let said =
        json!({"errors": [{"code": "DENIED", "message": format!("Basic {basic} is {PASSWORD}")}]});
    let proxy = Proxy::start(&registry.host, "/v2/", Fault::Deny(said.to_string().into_bytes()));
    let logins = from_environment(&proxy.host, PASSWORD);
    let error = pull(&format!("{}/test:1", proxy.host), logins).err().unwrap();
    assert!(error.contains("DENIED Basic *** is ***"), "{error}");
    assert!(!error.contains("hunter2") && !error.contains(&basic), "{error}");
}

#[test]
fn passwords_do_not_follow_redirects() {
    let Some(registry) = Registry::with_password("reader", PASSWORD) else { return };
    let image = sample();
    registry.push("test", "1", &image);
    // The store of the layers is another server, which everyone can read.
    let open = registry.beside(&free_address(), json!({}));
    let store = Proxy::start(&open.host, "blobs/", Fault::TruncateFirst(0, 0));
    let blob = format!("blobs/{}", image.layer(0));
    let to = format!("http://{}/v2/test/{blob}", store.host);
    let front = Proxy::start(&registry.host, &blob, Fault::Redirect(to));
    let logins = from_environment(&front.host, PASSWORD);
    check_log(&pull(&format!("{}/test:1", front.host), logins).unwrap());
    assert!(front.logins() >= 3, "the registry needs the password");
    assert_eq!((store.requests(), store.logins()), (1, 0));
}
