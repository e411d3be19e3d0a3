//! The environment variables and files that configure an S3 client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The maximum size of a configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The variables whose names start with `AWS_`, and the home directory.
///
/// It has no `Debug`, because the variables contain secrets.
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Returns the environment of this process.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
            Some((name, value.into_string().ok()?))
        });
        Self::new(variables.collect(), std::env::home_dir())
    }

    /// Returns an environment of these variables and this home directory.
    pub(crate) fn new(variables: BTreeMap<String, String>, home: Option<PathBuf>) -> Self {
        Self { variables, home }
    }

    /// Returns the value of a variable. An empty variable counts as not set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns whether a variable is `true` or `1`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// Returns the settings of the profile that `AWS_PROFILE` names. The credentials file takes
    /// precedence over the configuration file.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or if no file has the profile that `AWS_PROFILE` names.
    pub(super) fn profile(&self) -> Result<BTreeMap<String, String>> {
        let name = self.get("AWS_PROFILE").unwrap_or("default");
        let config = self.file("AWS_CONFIG_FILE", "config")?;
        let credentials = self.file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = sections(&config, name, true);
        let credentials = sections(&credentials, name, false);
        ensure!(
            self.get("AWS_PROFILE").is_none() || config.is_some() || credentials.is_some(),
            "AWS_PROFILE is {name:?}, but neither ~/.aws/credentials nor ~/.aws/config has this \
             profile; correct AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE or AWS_CONFIG_FILE"
        );
        let mut settings = config.unwrap_or_default();
        settings.extend(credentials.unwrap_or_default());
        Ok(settings)
    }

    /// Reads the file that a variable names, or a file of `~/.aws`. A file that does not exist is
    /// empty.
    fn file(&self, variable: &str, name: &str) -> Result<String> {
        let path = match self.get(variable) {
            Some(path) => PathBuf::from(path),
            None => match &self.home {
                Some(home) => home.join(".aws").join(name),
                None => return Ok(String::new()),
            },
        };
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.with_context(|| format!("reading the AWS settings in {}", path.display())),
        }
    }
}

/// Reads a text file of limited size.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the settings of a profile, or `None` if the file has no section for it. In the
/// configuration file, the section of a profile other than `default` is called `profile NAME`.
fn sections(text: &str, profile: &str, is_config: bool) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(header) = line.trim().strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            let long = header.strip_prefix("profile").filter(|name| name.starts_with([' ', '\t']));
            is_inside = match long {
                Some(name) => is_config && name.trim().trim_matches('"') == profile,
                None => header == profile && (!is_config || profile == "default"),
            };
            if is_inside {
                found.get_or_insert_default();
            }
        } else if let Some(found) = found.as_mut().filter(|_| is_inside)
            // An indented line belongs to a nested section, such as `s3 =`.
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.insert(key.trim().to_ascii_lowercase(), value_of(value).to_owned());
        }
    }
    found
}

/// Returns a value without the space around it and without a comment, which follows a space.
fn value_of(text: &str) -> &str {
    let comment = [" #", " ;", "\t#", "\t;"].iter().filter_map(|start| text.find(start)).min();
    text[..comment.unwrap_or(text.len())].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# comment\n[default]\nregion = eu-west-1 # Ireland\n\
        [profile cdn]\nregion=us-west-2\ns3 =\n  endpoint_url = http://nested\n\
        endpoint_url = https://s3.example.com\n[other]\nregion = wrong\n";
    const CREDENTIALS: &str = "[cdn]\naws_access_key_id = AKID\n\
        aws_secret_access_key=a/b+c==\n; comment\n[default]\nregion = eu-north-1\n";

    fn environment(profile: Option<&str>) -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        let profile = profile.map(|name| ("AWS_PROFILE".to_owned(), name.to_owned()));
        let environment =
            Environment::new(profile.into_iter().collect(), Some(home.path().to_owned()));
        (home, environment)
    }

    #[test]
    fn reads_the_profile_from_both_files() {
        let (_home, environment) = environment(Some("cdn"));
        let profile = environment.profile().unwrap();
        let get = |key: &str| profile.get(key).map(String::as_str);
        assert_eq!(get("aws_access_key_id"), Some("AKID"));
        assert_eq!(get("aws_secret_access_key"), Some("a/b+c=="));
        assert_eq!(get("region"), Some("us-west-2"));
        assert_eq!(get("endpoint_url"), Some("https://s3.example.com"));
    }

    #[test]
    fn credentials_file_takes_precedence_and_default_is_the_default() {
        let (_home, environment) = environment(None);
        assert_eq!(environment.profile().unwrap()["region"], "eu-north-1");
    }

    #[test]
    fn rejects_a_profile_that_no_file_has() {
        for name in ["missing", "other", "profile cdn"] {
            let (_home, environment) = environment(Some(name));
            let error = environment.profile().unwrap_err().to_string();
            assert!(error.contains("AWS_PROFILE"), "{error}");
        }
    }

    #[test]
    fn missing_files_and_empty_variables_count_as_not_set() {
        let variables = [("AWS_PROFILE".to_owned(), String::new())];
        let environment = Environment::new(variables.into(), Some("/nonexistent".into()));
        assert!(environment.profile().unwrap().is_empty());
    }
}
