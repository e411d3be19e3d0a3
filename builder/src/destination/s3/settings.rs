//! The settings of an S3 client, collected from the environment.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey as Key;

use super::address::check_endpoint;
use super::environment::Environment;

/// How often a request is sent until it counts as failed, unless `AWS_MAX_ATTEMPTS` says otherwise.
const ATTEMPTS: usize = 8;

/// Where credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// An access key of the environment or of a profile.
    AccessKey,
    /// A token in a file, such as that of a CI system, which is exchanged for a session.
    WebIdentity,
    /// The container in which this process runs.
    Container,
    /// The virtual machine in which this process runs.
    Instance,
}

/// The settings of an S3 client. There is no `Debug`, because they contain secrets.
pub(super) struct Settings {
    /// The settings for `object_store`.
    pub values: Vec<(Key, String)>,
    /// The endpoint, if it is not that of AWS.
    pub endpoint: Option<String>,
    /// How often a request is sent until it counts as failed.
    pub attempts: usize,
    /// Where the credentials come from.
    pub source: Source,
    /// The strings that no message may contain.
    pub secrets: Vec<String>,
}

/// The variables that are passed on unchanged.
const VARIABLES: [(&str, Key); 9] = [
    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", Key::VirtualHostedStyleRequest),
    ("AWS_REQUEST_PAYER", Key::RequestPayer),
    ("AWS_TIMEOUT", Key::Client(ClientConfigKey::Timeout)),
    ("AWS_READ_TIMEOUT", Key::Client(ClientConfigKey::ReadTimeout)),
    ("AWS_CONNECT_TIMEOUT", Key::Client(ClientConfigKey::ConnectTimeout)),
    ("AWS_ROLE_SESSION_NAME", Key::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", Key::StsEndpoint),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", Key::MetadataEndpoint),
];

impl Settings {
    /// Collects the settings.
    ///
    /// # Errors
    /// Fails if a setting has the wrong form, or if credentials are incomplete.
    pub(super) fn collect(environment: &Environment) -> Result<Self> {
        let profile = environment.profile()?;
        let mut values: Vec<(Key, String)> = VARIABLES
            .iter()
            .filter_map(|(name, key)| Some((*key, environment.get(name)?.to_owned())))
            .collect();
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let region = region.iter().find_map(|name| environment.get(name));
        if let Some(region) = region.or_else(|| profile.get("region").map(String::as_str)) {
            values.push((Key::Region, region.to_owned()));
        }
        let endpoint = endpoint(environment, &profile)?;
        if let Some((url, is_http_allowed)) = &endpoint {
            values.push((Key::Endpoint, url.clone()));
            let allow_http = Key::Client(ClientConfigKey::AllowHttp);
            values.push((allow_http, is_http_allowed.to_string()));
        }
        let (source, credentials) = credentials(environment, &profile)?;
        let secrets = [Key::SecretAccessKey, Key::Token];
        let secrets = credentials.iter().filter(|(key, _)| secrets.contains(key));
        let secrets = secrets.map(|(_, secret)| secret.clone()).collect();
        values.extend(credentials);
        let attempts = attempts(environment)?;
        let endpoint = endpoint.map(|(url, _)| url);
        Ok(Self { values, endpoint, attempts, source, secrets })
    }
}

/// Returns the URL of the endpoint, and whether HTTP without TLS is allowed for it.
fn endpoint(
    environment: &Environment,
    profile: &BTreeMap<String, String>,
) -> Result<Option<(String, bool)>> {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let mut set = variables.iter().filter_map(|name| Some((*name, environment.get(name)?)));
    let of_profile = profile.get("endpoint_url").map(|url| ("endpoint_url", url.as_str()));
    let Some((name, url)) = set.next().or(of_profile) else { return Ok(None) };
    let is_http_allowed = check_endpoint(url, name, environment.is_true("AWS_ALLOW_HTTP"))?;
    Ok(Some((url.trim_end_matches('/').to_owned(), is_http_allowed)))
}

/// Returns how often a request is sent.
fn attempts(environment: &Environment) -> Result<usize> {
    let Some(text) = environment.get("AWS_MAX_ATTEMPTS") else { return Ok(ATTEMPTS) };
    let attempts = text.parse().ok().filter(|attempts| (1..=100).contains(attempts));
    attempts
        .with_context(|| format!("AWS_MAX_ATTEMPTS is {text:?}; expected a number from 1 to 100"))
}

/// Returns the source of the credentials, and what `object_store` needs to know about it.
///
/// The order is that of the AWS command line: the environment before the profile, and the services of
/// a cloud last.
fn credentials(
    environment: &Environment,
    profile: &BTreeMap<String, String>,
) -> Result<(Source, Vec<(Key, String)>)> {
    let of_profile = |name: &str| profile.get(name).map(String::as_str);
    let keys = access_key(|name| environment.get(&name.to_ascii_uppercase()))?;
    if let Some(keys) = keys {
        return Ok((Source::AccessKey, keys));
    }
    let token = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE");
    if let (Some(file), Some(role)) = (token, environment.get("AWS_ROLE_ARN")) {
        let values = [(Key::WebIdentityTokenFile, file), (Key::RoleArn, role)];
        return Ok((Source::WebIdentity, owned(values)));
    }
    ensure!(
        token.is_none(),
        "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not; set both, or neither"
    );
    if let Some(keys) = access_key(of_profile)? {
        return Ok((Source::AccessKey, keys));
    }
    for key in ["sso_session", "sso_start_url", "credential_process", "role_arn"] {
        ensure!(
            !profile.contains_key(key),
            "the AWS profile {:?} gets its credentials through {key}, which this program cannot do; \
             run it after: eval \"$(aws configure export-credentials --format env)\"",
            environment.get("AWS_PROFILE").unwrap_or("default")
        );
    }
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
    ];
    let container = container.iter().find_map(|(name, key)| Some((*key, environment.get(name)?)));
    if let Some(uri) = container {
        return Ok((Source::Container, owned([uri])));
    }
    if environment.is_true("AWS_EC2_METADATA_DISABLED") {
        bail!(NO_CREDENTIALS);
    }
    Ok((Source::Instance, Vec::new()))
}

/// The error if there are no credentials.
pub(super) const NO_CREDENTIALS: &str = "found no AWS credentials; set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile in ~/.aws/credentials, or \
    AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN";

/// Returns an access key and its session token, if `get` has them under their usual names.
fn access_key<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Vec<(Key, String)>>> {
    let (id, secret) = (get("aws_access_key_id"), get("aws_secret_access_key"));
    let (id, secret) = match (id, secret) {
        (None, None) => return Ok(None),
        (Some(id), Some(secret)) => (id, secret),
        _ => bail!(
            "only one of aws_access_key_id and aws_secret_access_key is set; set both, or neither"
        ),
    };
    let mut values = owned([(Key::AccessKeyId, id), (Key::SecretAccessKey, secret)]);
    values.extend(get("aws_session_token").map(|token| (Key::Token, token.to_owned())));
    Ok(Some(values))
}

fn owned<const N: usize>(values: [(Key, &str); N]) -> Vec<(Key, String)> {
    values.map(|(key, value)| (key, value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(variables: &[(&str, &str)]) -> Result<Settings> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::collect(&Environment::new(variables.collect(), None))
    }

    fn value(settings: &Settings, key: Key) -> Option<&str> {
        settings.values.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn specific_variables_take_precedence() {
        let settings = collect(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "hunter3"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_REGION", "eu-west-2"),
            ("AWS_ENDPOINT_URL", "https://general"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000/"),
            ("AWS_MAX_ATTEMPTS", "3"),
        ])
        .unwrap();
        assert_eq!(settings.source, Source::AccessKey);
        assert_eq!(settings.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(settings.attempts, 3);
        assert_eq!(settings.secrets, ["hunter2", "hunter3"]);
        assert_eq!(value(&settings, Key::Region), Some("eu-west-2"));
        assert_eq!(value(&settings, Key::WebIdentityTokenFile), None);
        assert_eq!(value(&settings, Key::Client(ClientConfigKey::AllowHttp)), Some("true"));
    }

    #[test]
    fn finds_the_source_of_credentials() {
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn")];
        assert_eq!(collect(&web).unwrap().source, Source::WebIdentity);
        let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
        assert_eq!(collect(&container).unwrap().source, Source::Container);
        assert_eq!(collect(&[]).unwrap().source, Source::Instance);
    }

    #[test]
    fn rejects_incomplete_settings() {
        for (variables, expected) in [
            (vec![("AWS_ACCESS_KEY_ID", "id")], "set both"),
            (vec![("AWS_SECRET_ACCESS_KEY", "hunter2")], "set both"),
            (vec![("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")], "AWS_ROLE_ARN"),
            (vec![("AWS_EC2_METADATA_DISABLED", "true")], "found no AWS credentials"),
            (vec![("AWS_MAX_ATTEMPTS", "0")], "AWS_MAX_ATTEMPTS"),
            (vec![("AWS_ENDPOINT_URL", "http://s3.example.com")], "AWS_ALLOW_HTTP"),
            (vec![("AWS_ENDPOINT_URL", "https://k:hunter2@host")], "credentials"),
        ] {
            let error = collect(&variables).err().unwrap().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn rejects_profiles_that_need_the_aws_command_line() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), "[default]\nsso_session = x\n").unwrap();
        let environment = Environment::new(BTreeMap::new(), Some(home.path().to_owned()));
        let error = Settings::collect(&environment).err().unwrap().to_string();
        assert!(error.contains("export-credentials"), "{error}");
    }
}
