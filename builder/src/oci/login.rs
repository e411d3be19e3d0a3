//! User names and passwords for registries.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::reference::Reference;

/// The environment variables with a login, and the registry that it is for. A password is sent to no other
/// registry.
const VARIABLES: [&str; 3] =
    ["ETCHAOS_REGISTRY", "ETCHAOS_REGISTRY_USER", "ETCHAOS_REGISTRY_PASSWORD"];

/// The maximum size of Docker's configuration, in bytes.
const CONFIG_MAX: u64 = 1 << 20;

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password, or a token that is used as one.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// Returns user and password as the HTTP scheme "Basic" encodes them.
    pub(super) fn basic(&self) -> String {
        BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password))
    }

    fn from_basic(text: &str) -> Option<Self> {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(text.trim()).ok()?).ok()?;
        // Docker pads with NUL.
        let (user, password) = decoded.trim_end_matches('\0').split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

/// The logins of the build host.
#[derive(Debug, Default)]
pub struct Logins {
    /// The login of the environment, and its registry.
    environment: Option<(String, Login)>,
    /// The logins that Docker's command line stored, by registry.
    stored: HashMap<String, Login>,
    /// The registries whose passwords Docker leaves to another program, and its name.
    helpers: HashMap<String, String>,
    /// The program for all other registries.
    helper: Option<String>,
}

/// The file that `docker login` and `podman login` write.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

/// A stored login. An entry without one says that another program has it.
#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Logins {
    /// Reads the logins from the environment and from Docker's configuration.
    ///
    /// # Errors
    /// Fails if the variables are incomplete, or if the configuration cannot be read. Errors do not contain a
    /// password.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the logins from these environment variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let value = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut logins = match config_path(value).map(|path| read_config(&path)).transpose()? {
            Some(config) => Self::from_config(config),
            None => Self::default(),
        };
        let [registry, user, password] = VARIABLES.map(value);
        logins.environment = match (registry, user, password) {
            (None, None, None) => None,
            (Some(registry), Some(user), Some(password)) => {
                Some((normalized(&registry), Login { user, password }))
            }
            (registry, user, password) => {
                let all = VARIABLES.iter().zip([registry, user, password]);
                let missing: Vec<_> =
                    all.filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
                anyhow::bail!(
                    "the environment has a part of a login for a registry; {} is not set, expected {}",
                    missing.join(" and "),
                    VARIABLES.join(", ")
                )
            }
        };
        Ok(logins)
    }

    fn from_config(config: Config) -> Self {
        let login = |auth: Auth| match auth {
            Auth { username: Some(user), password: Some(password), .. } => {
                Some(Login { user, password })
            }
            Auth { auth, .. } => Login::from_basic(&auth?),
        };
        let stored = config.auths.into_iter();
        let helpers = config.cred_helpers.into_iter();
        Self {
            environment: None,
            stored: stored
                .filter_map(|(key, auth)| Some((normalized(&key), login(auth)?)))
                .collect(),
            helpers: helpers.map(|(key, program)| (normalized(&key), program)).collect(),
            helper: config.creds_store,
        }
    }

    /// Returns the login for the registry of an image, if there is one.
    pub fn find(&self, image: &Reference) -> Option<&Login> {
        let host = normalized(image.host());
        let own = self.environment.as_ref().filter(|(registry, _)| *registry == host);
        own.map(|(_, login)| login).or_else(|| self.stored.get(&host))
    }

    /// Returns how to log in to the registry of an image.
    pub(super) fn way_out(&self, image: &Reference) -> String {
        let host = image.host();
        let set = format!(
            "set ETCHAOS_REGISTRY={host}, ETCHAOS_REGISTRY_USER and ETCHAOS_REGISTRY_PASSWORD"
        );
        match self.helpers.get(&normalized(host)).or(self.helper.as_ref()) {
            Some(helper) => format!(
                "{set}; Docker's configuration leaves the password to docker-credential-{helper:.40}, which the \
                 builder does not start"
            ),
            None => format!("run \"docker login {host}\", or {set}"),
        }
    }
}

/// Returns the registry that a key of the configuration means: its host. Old keys are URLs.
fn normalized(key: &str) -> String {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let default = ["index.docker.io", "registry-1.docker.io"];
    if default.contains(&host.as_str()) { "docker.io".to_owned() } else { host }
}

fn config_path(value: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    match value("DOCKER_CONFIG") {
        Some(directory) => Some(Path::new(&directory).join("config.json")),
        None => Some(Path::new(&value("HOME")?).join(".docker/config.json")),
    }
}

fn read_config(path: &Path) -> Result<Config> {
    let failed = || format!("reading the logins of Docker in {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Config::default()),
        file => file.with_context(failed)?,
    };
    let mut text = Vec::new();
    file.take(CONFIG_MAX + 1).read_to_end(&mut text).with_context(failed)?;
    ensure!(text.len() as u64 <= CONFIG_MAX, "{}: more than {CONFIG_MAX} bytes", failed());
    // The error of the parser could quote a password.
    let parsed: Option<Config> = serde_json::from_slice(&text).ok();
    parsed.context("the file is not JSON with an object \"auths\"").with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(variables: &[(&str, &str)]) -> Result<Logins> {
        Logins::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn with_config(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        (directory, path)
    }

    fn found(logins: &Logins, image: &str) -> Option<(String, String)> {
        let login = logins.find(&image.parse().unwrap())?;
        Some((login.user.clone(), login.password.clone()))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.to_owned(), password.to_owned()))
    }

    #[test]
    fn reads_the_configuration_of_docker() {
        let (_directory, path) = with_config(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnBhOnNz"},
                "host.example:5000": {"username": "u", "password": "p"},
                "empty.example": {},
                "broken.example": {"auth": "%"}
            }, "HttpHeaders": {}}"#,
        );
        let logins = logins(&[("DOCKER_CONFIG", &path), ("HOME", "/nonexistent")]).unwrap();
        assert_eq!(found(&logins, "debian"), pair("hub", "pa:ss"));
        assert_eq!(found(&logins, "host.example:5000/a"), pair("u", "p"));
        for image in ["host.example/a", "empty.example/a", "broken.example/a", "other.example/a"] {
            assert_eq!(found(&logins, image), None, "{image}");
        }
        assert!(!format!("{logins:?}").contains("pa:ss"), "{logins:?}");
    }

    #[test]
    fn environment_comes_first_and_is_for_one_registry() {
        let (_directory, path) = with_config(r#"{"auths": {"host.example": {"auth": "YTpi"}}}"#);
        let all = [
            ("DOCKER_CONFIG", path.as_str()),
            ("ETCHAOS_REGISTRY", "host.example"),
            ("ETCHAOS_REGISTRY_USER", "user"),
            ("ETCHAOS_REGISTRY_PASSWORD", "secret"),
        ];
        let complete = logins(&all).unwrap();
        assert_eq!(found(&complete, "host.example/a"), pair("user", "secret"));
        assert_eq!(found(&complete, "debian"), None);

        let error = logins(&all[1..3]).unwrap_err().to_string();
        assert!(error.contains("ETCHAOS_REGISTRY_PASSWORD is not set"), "{error}");
        let error = logins(&[all[3]]).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn names_the_program_that_has_the_password() {
        let (_directory, path) =
            with_config(r#"{"credsStore": "secretservice", "credHelpers": {"a.example": "a"}}"#);
        let logins = logins(&[("DOCKER_CONFIG", &path)]).unwrap();
        let way_out = |image: &str| logins.way_out(&image.parse().unwrap());
        assert!(way_out("debian").contains("docker-credential-secretservice"));
        assert!(way_out("a.example/a").contains("docker-credential-a,"));
    }

    #[test]
    fn broken_configuration_is_an_error_without_its_content() {
        for text in ["{", r#"{"auths": "secret"}"#, r#"{"auths": {"a": {"auth": ["secret"]}}}"#] {
            let (_directory, path) = with_config(text);
            let error = format!("{:#}", logins(&[("DOCKER_CONFIG", &path)]).unwrap_err());
            assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        }
        assert!(logins(&[("HOME", "/nonexistent")]).is_ok());
    }
}
