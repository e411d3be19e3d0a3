//! A real registry, Debian's package `docker-registry`, that runs while a test does.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::image::{Image, digest};
use crate::judge::{judge, skip};

/// A registry on the loopback address.
pub(crate) struct Registry {
    /// The address, such as `127.0.0.1:5000`.
    pub(crate) host: String,
    child: Child,
    directory: tempfile::TempDir,
    password_file: Option<tempfile::TempDir>,
    /// The user and the password.
    login: Option<(String, String)>,
}

impl Registry {
    /// Starts a registry that everyone can use. Returns nothing if the test cannot run here; see [`skip`].
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(json!({}))
    }

    /// Starts a registry that asks for a password.
    pub(crate) fn with_password(user: &str, password: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("htpasswd");
        fs::write(&file, judge("htpasswd", &["-Bbn", user, password])?).unwrap();
        let auth = json!({"htpasswd": {"realm": "test", "path": file}});
        let mut registry = Self::start_with(auth)?;
        registry.login = Some((user.to_owned(), password.to_owned()));
        registry.password_file = Some(directory);
        Some(registry)
    }

    /// Starts a registry with this part of its configuration.
    pub(crate) fn start_with(auth: Value) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            skip("docker-registry is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        Some(Self::start_on(&data, directory, &free_address(), json!({"auth": auth})))
    }

    /// Starts another registry with the same images, and with these parts of its configuration.
    pub(crate) fn beside(&self, address: &str, parts: Value) -> Self {
        let data = self.directory.path().join("data");
        Self::start_on(&data, tempfile::tempdir().unwrap(), address, parts)
    }

    fn start_on(data: &Path, directory: tempfile::TempDir, address: &str, parts: Value) -> Self {
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": data}},
            "http": {"addr": address},
        });
        for (name, part) in parts.as_object().unwrap() {
            // An empty part would be an error.
            if *part != json!({}) {
                let config = if name == "tls" { &mut config["http"] } else { &mut config };
                config[name] = part.clone();
            }
        }
        let path = directory.path().join("config.yml");
        // JSON is YAML, too.
        fs::write(&path, config.to_string()).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let child = child.expect("util-linux has setpriv");
        let mut registry =
            Self { host: address.to_owned(), child, directory, password_file: None, login: None };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(path.with_file_name("log")).unwrap();
            assert!(registry.child.try_wait().unwrap().is_none(), "{}", log());
            assert!(start.elapsed() < Duration::from_secs(60), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Pushes an image, as `docker push` does.
    pub(crate) fn push(&self, name: &str, tag: &str, image: &Image) {
        let login = self.login.as_ref();
        let basic =
            login.map(|(user, password)| BASE64_STANDARD.encode(format!("{user}:{password}")));
        let authorization = basic.map(|basic| format!("Basic {basic}")).unwrap_or_default();
        self.push_with(name, tag, image, &authorization);
    }

    /// Pushes an image with a value for the header `Authorization`.
    pub(crate) fn push_with(&self, name: &str, tag: &str, image: &Image, authorization: &str) {
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        let base = format!("http://{}/v2/{name}", self.host);
        for part in &image.parts {
            self.push_with(name, &part.digest(), part, authorization);
        }
        for blob in &image.blobs {
            let request = agent.post(format!("{base}/blobs/uploads/"));
            let answer = request.header("Authorization", authorization).send_empty().unwrap();
            let location = answer.headers()["location"].to_str().unwrap().to_owned();
            let separator = if location.contains('?') { '&' } else { '?' };
            agent
                .put(format!("{location}{separator}digest={}", digest(blob)))
                .header("Authorization", authorization)
                .header("Content-Type", "application/octet-stream")
                .send(&blob[..])
                .unwrap();
        }
        agent
            .put(format!("{base}/manifests/{tag}"))
            .header("Authorization", authorization)
            .header("Content-Type", image.media_type)
            .send(&image.manifest[..])
            .unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address on which nothing listens.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
