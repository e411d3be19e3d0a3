//! Validation of values.

use super::super::fragment::Fragment;
use super::super::listen_tls::Pem;
use super::*;
use protocol::PrivateKey;

fn settings(json: &str) -> Result<Settings, ConfigError> {
    let mut merged = Merged::default();
    merged.add(
        &Source::Default,
        Fragment::from_json(br#"{"listen": {"address": "0.0.0.0:4000"}}"#).unwrap(),
    );
    merged.add(&Source::Esp, Fragment::from_json(json.as_bytes()).unwrap());
    Settings::try_from(&merged)
}

#[test]
fn cdn_is_a_url_or_a_directory() {
    let cdn = |text: &str| settings(&format!(r#"{{"cdn": "{text}"}}"#)).map(|s| s.cdn[0].clone());
    assert_eq!(cdn("https://x.example/os/").unwrap(), "https://x.example/os");
    assert_eq!(cdn("http://[::1]:8080").unwrap(), "http://[::1]:8080");
    assert_eq!(cdn("/srv/cdn/").unwrap(), "/srv/cdn");
    assert_eq!(cdn("file:///srv/cdn").unwrap(), "/srv/cdn");
    for bad in ["", "cdn", "ftp://x", "https://u:secret@x", "https://x/?token=secret", "file://x"] {
        let error = cdn(bad).unwrap_err().to_string();
        assert!(error.contains("\"cdn\" from ESP"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn only_sources_with_a_key_may_push() {
    assert!(settings("{}").unwrap().listen.is_none());
    let empty = r#"{"listen": {"sources": {"ci": {"keys": []}}}}"#;
    assert!(settings(empty).unwrap().listen.is_none());
    let key = PrivateKey::generate().public().to_string();
    let named = format!(r#"{{"listen": {{"sources": {{"ci": {{"keys": ["{key}"]}}}}}}}}"#);
    assert_eq!(settings(&named).unwrap().listen.unwrap().address.port(), 4000);
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\\n{}\\n-----END PUBLIC KEY-----\\n",
        key.split(':').nth(1).unwrap()
    );
    for one in [&key, &pem, key.rsplit_once(':').unwrap().0, &format!("{key} (2)")] {
        let json = format!(
            r#"{{"keys": "{one}", "listen": {{"sources": {{"ci": {{"keys": "{one}"}}}}}}}}"#
        );
        let settings = settings(&json).unwrap();
        let (listen, trusted) = (settings.listen.unwrap(), settings.keys);
        assert_eq!(listen.sources["ci"].ids().count(), 1, "{one}");
        assert!(trusted.ids().eq(listen.sources["ci"].ids()), "{one}");
    }
    let slash = named.replace("\"ci\"", "\"../ci\"");
    assert!(settings(&slash).is_err());
}

#[test]
fn sources_are_merged_with_those_that_push() {
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().public().clone());
    let json = format!(
        r#"{{"listen": {{"sources": {{"web": {{"keys": ["{theirs}"]}}, "ops": {{"keys": ["{theirs}"]}}, "off": {{"keys": []}}}}}},
            "sources": {{"web": {{"keys": ["{ours}"], "pull": ["https://x/web.jwt", "/mnt/web.jwt"], "interval": "5min",
                "commands": [{{"id": "a", "check": "true"}}], "vars": {{"port": 80}}, "unhealthy": true}}}}}}"#
    );
    let sources = settings(&json).unwrap().sources;
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["ops", "web"]);
    let web = &sources["web"];
    assert_eq!(web.pull, ["https://x/web.jwt", "/mnt/web.jwt"]);
    assert_eq!((web.interval.as_secs(), web.unhealthy), (300, true));
    assert_eq!(web.keys.ids().collect::<Vec<_>>(), [ours.id()]);
    assert_eq!(web.all_keys().ids().collect::<Vec<_>>(), [ours.id(), theirs.id()]);
    assert_eq!((sources["ops"].interval.as_secs(), sources["ops"].unhealthy), (3600, false));
    assert!(sources["ops"].keys.is_empty());
}

#[test]
fn errors_do_not_show_a_misplaced_private_key() {
    let key = PrivateKey::generate().reveal();
    let error = settings(&format!(r#"{{"keys": ["{key}"]}}"#)).unwrap_err().to_string();
    assert!(!error.contains(key.split(':').nth(1).unwrap()), "{error}");
}

#[test]
fn errors_do_not_show_values() {
    for json in [
        r#"{"variant": "SECRET"}"#,
        r#"{"allowedOrigins": ["SECRET"]}"#,
        r#"{"keys": ["ed25519private:SECRET"]}"#,
        r#"{"listen": {"sources": {"ci/SECRET": {"keys": []}}}}"#,
        r#"{"listen": {"sources": {"ci": {"keys": ["SECRET:x:y"]}}}}"#,
        r#"{"cdn": ["/x", "https://user:SECRET@x"]}"#,
        r#"{"proxy": "http://user:SEC/RET@proxy:1"}"#,
        r#"{"proxy": "https://user:SECRET@proxy:1"}"#,
        r#"{"noProxy": ["SECRET/"]}"#,
        r#"{"ca": ["SECRET"]}"#,
        r#"{"rateLimit": "SECRET"}"#,
        r#"{"health": {"units": ["SECRET"]}}"#,
        r#"{"health": {"checks": ["SECRET\u0000"]}}"#,
        r#"{"health": {"deadline": "SECRET"}}"#,
        r#"{"reboot": {"window": "\u0001SECRET", "duration": "2h"}}"#,
        r#"{"reboot": {"window": "Sat", "duration": "SECRET"}}"#,
        r#"{"metrics": "SECRET"}"#,
        r#"{"listen": {"tls": {"certificate": "SECRET", "key": "/key"}}}"#,
        r#"{"listen": {"tls": {"certificate": "/certificate", "key": "SECRET"}}}"#,
        r#"{"hostname": "SECRET!"}"#,
        r#"{"interfaces": {"SECRET!": {"match": {"name": "*"}}}}"#,
        r#"{"interfaces": {"lan": {"match": {"name": "SECRET!"}}}}"#,
        r#"{"interfaces": {"lan": {"match": {"name": "*"}, "addresses": ["SECRET"]}}}"#,
        r#"{"ntp": ["SECRET!"]}"#,
        r#"{"sources": {"a/SECRET": {}}}"#,
        r#"{"sources": {"a": {"pull": "https://x/?SECRET"}}}"#,
        r#"{"sources": {"a": {"keys": ["SECRET:x:y"]}}}"#,
        r#"{"sources": {"a": {"interval": "SECRET"}}}"#,
        r#"{"sources": {"a": {"commands": [{"id": "x", "change": "SECRET", "onChange": {"x": "SECRET"}}]}}}"#,
    ] {
        let error = settings(json).unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
    }
}

#[test]
fn errors_name_key_and_source() {
    for (json, key) in [
        (r#"{"variant": "../x"}"#, "variant"),
        (r#"{"cdn": "http://127.0.0.1:70000"}"#, "cdn"),
        (r#"{"cdn": "https://x:0/os"}"#, "cdn"),
        (r#"{"allowedOrigins": ["https://x:65536"]}"#, "allowedOrigins"),
        (r#"{"proxy": "http://proxy:0"}"#, "proxy"),
        (r#"{"proxy": "http://u:p@proxy:70000"}"#, "proxy"),
        (r#"{"allowedOrigins": ["https://x/path"]}"#, "allowedOrigins"),
        (r#"{"keys": ["x"]}"#, "keys"),
        (r#"{"cdn": ["/x", "x"]}"#, "cdn"),
        (r#"{"proxy": "proxy:3128"}"#, "proxy"),
        (r#"{"noProxy": ["a,b"]}"#, "noProxy"),
        (r#"{"noProxy": ["10.0.0.0/33"]}"#, "noProxy"),
        (r#"{"noProxy": ["x.example:0"]}"#, "noProxy"),
        (r#"{"ca": ["ca.pem"]}"#, "ca"),
        (r#"{"rateLimit": 1023}"#, "rateLimit"),
        (r#"{"rateLimit": "2MB"}"#, "rateLimit"),
        (r#"{"health": {"units": ["docker"]}}"#, "health.units"),
        (r#"{"health": {"checks": [" "]}}"#, "health.checks"),
        (r#"{"health": {"deadline": "59s"}}"#, "health.deadline"),
        (r#"{"health": {"deadline": "25h"}}"#, "health.deadline"),
        (r#"{"reboot": {"window": "", "duration": "2h"}}"#, "reboot"),
        (r#"{"reboot": {"window": "Sat 02:00", "duration": "2weeks"}}"#, "reboot"),
        (r#"{"metrics": "/var/lib/x.txt"}"#, "metrics"),
        (r#"{"metrics": "x.prom"}"#, "metrics"),
        (
            r#"{"listen": {"tls": {"certificate": "crt.pem", "key": "/x"}}}"#,
            "listen.tls.certificate",
        ),
        (r#"{"listen": {"tls": {"certificate": "/x", "key": "/x/"}}}"#, "listen.tls.key"),
        (
            r#"{"listen": {"tls": {"certificate": "/x", "key": "-----BEGIN CERTIFICATE-----"}}}"#,
            "listen.tls.key",
        ),
        (r#"{"hostname": "a_b"}"#, "hostname"),
        (r#"{"interfaces": {"A": {"match": {"name": "*"}}}}"#, "interfaces"),
        (r#"{"interfaces": {"lan": {"match": {}}}}"#, "interfaces.lan.match"),
        (r#"{"ntp": ["a b"]}"#, "ntp"),
        (r#"{"sources": {"a/b": {}}}"#, "sources"),
        (r#"{"sources": {"a": {"pull": "https://x/a.jwt"}}}"#, "sources.a.keys"),
        (r#"{"sources": {"a": {"pull": "x"}}}"#, "sources.a.pull"),
        (r#"{"sources": {"a": {"keys": ["x"]}}}"#, "sources.a.keys"),
        (r#"{"sources": {"a": {"interval": "59s"}}}"#, "sources.a.interval"),
        (r#"{"sources": {"a": {"commands": [{"chek": "x"}]}}}"#, "sources.a.commands"),
        (
            r#"{"sources": {"a": {"vars": {"x": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}}}}"#,
            "sources.a.vars",
        ),
        (r#"{"sources": {"a": {"interval": "8d"}}}"#, "sources.a.interval"),
    ] {
        let error = settings(json).unwrap_err().to_string();
        assert!(error.contains(&format!("\"{key}\" from ESP")), "{error}");
    }
}

#[test]
fn allowed_origins_must_be_https() {
    let origins = |cdn: &str, origin: &str| {
        settings(&format!(r#"{{"cdn": "{cdn}", "allowedOrigins": ["https://a", "{origin}"]}}"#))
            .map(|settings| settings.allowed_origins)
    };
    for cdn in ["https://x", "http://x", "/mnt/usb"] {
        assert_eq!(origins(cdn, "https://b:8443").unwrap(), ["https://a", "https://b:8443"]);
        for http in ["http://b", "http://b:8080", "http://127.0.0.1:8000"] {
            let error = origins(cdn, http).unwrap_err().to_string();
            for part in ["\"allowedOrigins\" from ESP", "http is not accepted", "set \"cdn\""] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}

#[test]
fn reads_network_settings() {
    let network = settings(
        r#"{"cdn": ["https://a/", "/mnt/usb"], "proxy": "http://u:p%40@proxy:3128/", "noProxy": [".lan", "10.0.0.1", "*", "10.0.0.0/8", "*.x.example:8443", "[2001:db8::]/32"], "ca": ["/etc/ca.pem"], "rateLimit": "2M"}"#,
    );
    let Settings { cdn, network, .. } = network.unwrap();
    assert_eq!(cdn, ["https://a", "/mnt/usb"]);
    assert_eq!(network.proxy.as_deref(), Some("http://u:p%40@proxy:3128"));
    assert_eq!(
        network.no_proxy,
        [".lan", "10.0.0.1", "*", "10.0.0.0/8", "*.x.example:8443", "[2001:db8::]/32"]
    );
    assert_eq!(network.authorities, [PathBuf::from("/etc/ca.pem")]);
    assert_eq!(network.rate_limit.unwrap().get(), 2 << 20);
    assert_eq!(settings("{}").unwrap().network, Network::default());
    for bad in ["http://proxy", "socks5://p:1", "http://p:1/x", "http://:80", "http://a:b:c@p:1"] {
        assert_eq!(proxy_url(bad), None, "{bad}");
    }
    assert!(proxy_url("http://[::1]:3128").is_some() && proxy_url("http://[::1]").is_none());
}

#[test]
fn writes_origins_in_their_shortest_form() {
    let json = r#"{"cdn": ["HTTPS://CDN.example:443/Os/", "http://X:80", "http://[0::1]:80/a%2Fb"],
        "allowedOrigins": ["https://Mirror.example:443"]}"#;
    let settings = settings(json).unwrap();
    assert_eq!(settings.cdn, ["https://cdn.example/Os", "http://x", "http://[::1]/a%2Fb"]);
    assert_eq!(settings.allowed_origins, ["https://mirror.example"]);
}

#[test]
fn reads_health_settings() {
    assert_eq!(settings("{}").unwrap().health, HealthPolicy::default());
    let json = r#"{"health": {"units": ["docker.service", "a@b-\\x2d.timer"], "checks": ["true"], "deadline": "1h 30min"}}"#;
    let health = settings(json).unwrap().health;
    assert_eq!(health.units, ["docker.service", "a@b-\\x2d.timer"]);
    assert_eq!(health.checks, ["true"]);
    assert_eq!(health.deadline.as_secs(), 5400);
    for bad in
        ["-x.service", "--now.service", "x@.service", "x.y", ".service", "a b.service", "a/b.mount"]
    {
        assert!(!is_unit(bad), "{bad}");
    }
    assert!(!is_unit(&format!("{}.service", "x".repeat(255))));
}

#[test]
fn reboot_is_a_name_or_a_window() {
    let reboot = |json: &str| settings(&format!(r#"{{"reboot": {json}}}"#)).map(|s| s.reboot);
    assert_eq!(settings("{}").unwrap().reboot, Reboot::Idle);
    for (json, expected) in
        [(r#""now""#, Reboot::Now), (r#""idle""#, Reboot::Idle), (r#""never""#, Reboot::Never)]
    {
        assert_eq!(reboot(json).unwrap(), expected);
    }
    let window = reboot(r#"{"window": "Sat 02:00", "duration": "2h"}"#).unwrap();
    assert_eq!(window.to_string(), "window Sat 02:00, open for 2h, if idle");
    assert!(window.is_idle_only());
    let any = reboot(r#"{"window": "Sat 02:00", "duration": 7200, "idle": false}"#).unwrap();
    assert!(!any.is_idle_only());
    for (json, message) in [
        (r#"{"window": "Sat 02:00", "duration": "9min"}"#, "10min to 7d"),
        (r#"{"window": "Sat 02:00", "duration": "8d"}"#, "10min to 7d"),
    ] {
        let error = reboot(json).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn listen_uses_tls_unless_it_must_not() {
    let key = PrivateKey::generate().public().to_string();
    let tls = |tls: &str| {
        let json = format!(r#"{{"listen": {{{tls} "sources": {{"ci": {{"keys": ["{key}"]}}}}}}}}"#);
        settings(&json).unwrap().listen.unwrap().tls
    };
    assert_eq!(tls(""), Tls::SelfSigned);
    assert_eq!(tls(r#""tls": true,"#), Tls::SelfSigned);
    assert_eq!(tls(r#""tls": false,"#), Tls::Off);
    let own = tls(
        r#""tls": {"certificate": "/x.crt", "key": "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"},"#,
    );
    assert!(matches!(&own, Tls::Own { certificate: Pem::File(_), key: Pem::Text(_) }), "{own:?}");
    assert!(!format!("{own:?}").contains("SECRET"));
}

#[test]
fn limits_the_number_of_sources() {
    let of = |count: usize| {
        let sources: Vec<String> = (0..count).map(|n| format!(r#""s{n}": {{}}"#)).collect();
        settings(&format!(r#"{{"sources": {{{}}}}}"#, sources.join(", ")))
    };
    assert_eq!(of(64).unwrap().sources.len(), 64);
    let error = of(65).unwrap_err().to_string();
    assert!(error.contains("at most 64 sources"), "{error}");
}
