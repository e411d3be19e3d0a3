//! Keeps `docs/` consistent with the code: commands and configurations parse, JSON output has the
//! documented keys, and the quoted messages occur in the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use protocol::esp::Slot::B;
use protocol::token::sign;
use protocol::{Package, PrivateKey, Release};
use serde_json::Value;
use updater::cli::Cli;
use updater::config::{Fragment, Merged, Settings, Source, UserData};

use crate::world::{World, claims, release};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Returns the code blocks of a page that have this language, each with the name that follows the
/// language.
fn blocks(page: &str, language: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (found_language, name) = info.split_once(' ').unwrap_or((info, ""));
        if found_language == language {
            found.push((name.to_owned(), block.join("\n")));
        }
    }
    found
}

#[test]
fn documented_commands_parse() {
    let mut count = 0;
    for name in ["docs/operators.md", "README.md"] {
        for (_, block) in blocks(&page(name), "sh") {
            for line in block.lines().filter(|line| line.starts_with("etchaos-updater")) {
                // None of the documented commands contains quotes.
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
                count += 1;
            }
        }
    }
    assert!(count >= 10, "only {count} commands were found");
}

#[test]
fn documented_configurations_are_valid() {
    let blocks = blocks(&page("docs/operators.md"), "json");
    assert!(blocks.len() >= 8, "only {} were found", blocks.len());
    for (_, json) in blocks {
        let fragment =
            Fragment::from_json(json.as_bytes()).unwrap_or_else(|e| panic!("{e}: {json}"));
        let mut merged = Merged::default();
        merged.add(&Source::Esp, fragment);
        Settings::try_from(&merged).unwrap_or_else(|e| panic!("{e}: {json}"));
    }
}

/// Returns the text of a block of docs/first-host.md.
fn first_host(language: &str, name: &str) -> String {
    let blocks = blocks(&page("docs/first-host.md"), language);
    blocks.into_iter().find(|(found, _)| found == name).unwrap().1
}

/// The configurations of docs/first-host.md, with a key in the place of the one that the reader creates. User data
/// is recognised as a host recognises it.
#[test]
fn configurations_of_the_first_host_are_valid() {
    let key = PrivateKey::generate().public().to_string();
    let commands = first_host("sh", "configure");
    let file = commands.split("<<EOF\n").nth(1).unwrap().split("\nEOF\n").next().unwrap();
    let file = file.replace("$(cat ops.pub)", &key).into_bytes();
    let data = UserData::classify(first_host("text", "user-data").as_bytes());
    let UserData::Config(cloud) = data else { panic!("{data:?}") };
    let static_network = first_host("json", "static").into_bytes();
    for json in [file, cloud, static_network] {
        let text = String::from_utf8_lossy(&json);
        let fragment = Fragment::from_json(&json).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut merged = Merged::default();
        merged.add(&Source::Esp, fragment);
        Settings::try_from(&merged).unwrap_or_else(|e| panic!("{e}: {text}"));
    }
}

#[test]
fn configuration_keys_are_documented() {
    let world = World::new();
    let config = world.run(&["config", "--json"]).ended(0).json();
    let help = world.run(&["--help"]).ended(0).stdout;
    let page = page("docs/operators.md");
    // Lists of sources, which are no keys.
    let others = ["broken", "ignored", "listen.sources", "listen.address"];
    for key in paths(&config).iter().filter(|key| !others.iter().any(|o| key.starts_with(o))) {
        let key = key.trim_end_matches(".value").trim_end_matches(".source");
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not in docs/operators.md");
        assert!(help.contains(key), "{key} is not in --help");
    }
}

/// Returns the paths to all members of nested objects that are not objects. Does not descend into lists.
fn paths(json: &Value) -> BTreeSet<String> {
    let Value::Object(map) = json else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for (key, value) in map {
        let below = paths(value);
        if below.is_empty() {
            found.insert(key.clone());
        }
        found.extend(below.iter().map(|path| format!("{key}.{path}")));
    }
    found
}

pub(crate) fn keys(json: &Value) -> BTreeSet<String> {
    json.as_object().unwrap_or_else(|| panic!("{json}")).keys().cloned().collect()
}

/// Returns the example of this name in docs/json.md.
pub(crate) fn documented(name: &str) -> Value {
    let blocks = blocks(&page("docs/json.md"), "json");
    let (_, json) = blocks.iter().find(|(found, _)| found == name).unwrap();
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn json_output_has_the_documented_keys() {
    let world = World::new();
    world.publish(2);
    for (name, arguments, code) in [
        ("check", &["check", "--json"][..], 10),
        ("verify", &["verify", "--json"], 0),
        ("update", &["update", "--json"], 0),
        ("config", &["config", "--json"], 0),
        ("host-settings", &["host-settings", "--json"], 0),
        ("confirm", &["confirm", "--json"], 0),
        ("status", &["status", "--json"], 0),
        ("health", &["health", "--json"], 0),
        ("fallback", &["fallback", "--json"], 0),
        ("listen", &["listen", "--json"], 3),
        ("sources", &["sources", "--json"], 3),
        ("pulls", &["sources", "--pull", "--json"], 3),
    ] {
        let found = world.run(arguments).ended(code).json();
        assert_eq!(keys(&found), keys(&documented(name)), "{name}");
    }
    // Nested objects that are always present.
    world.set_sessions(r#"[{"session":"1","user":"ann","class":"user"}]"#);
    world.run(&["update"]).ended(0);
    fs::remove_file(world.esp("etchaos/b/initrd")).unwrap();
    world.run(&["check", "--config", "/nonexistent"]).failed(&["/nonexistent"]);
    let (found, expected) =
        (world.run(&["status", "--json"]).ended(0).json(), documented("status"));
    for key in ["running", "trial", "slots", "lastPoll", "lastError", "reboot", "verified"] {
        assert_eq!(keys(&found[key]), keys(&expected[key]), "{key}");
    }
    for key in ["a", "b"] {
        assert_eq!(keys(&found["slots"][key]), keys(&expected["slots"][key]), "{key}");
    }
    assert_eq!(keys(&found["reboot"]["waiting"]), keys(&expected["reboot"]["waiting"]));
    assert_eq!(world.state().trial.unwrap().slot, B);
    let rollback = world.run(&["rollback", "--json"]).ended(0).json();
    assert_eq!(keys(&rollback), keys(&documented("rollback")));
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(keys(&status["failed"]), keys(&documented("failed")));
}

/// Returns the kinds of differences in this list, each with its keys.
fn kinds(differences: &Value) -> BTreeSet<(String, BTreeSet<String>)> {
    let list = differences.as_array().unwrap_or_else(|| panic!("{differences}"));
    list.iter().map(|one| (one["kind"].as_str().unwrap().to_owned(), paths(one))).collect()
}

#[test]
fn differences_have_the_documented_keys() {
    let all = kinds(&documented("differences"));
    for name in ["check", "update"] {
        let shown = kinds(&documented(name)["differences"]);
        assert!(shown.is_subset(&all) && !shown.is_empty(), "{name}: {shown:?}");
    }
    let world = World::new();
    let packages = |text| Package::parse_list(text).unwrap();
    let running = Release {
        build: 0,
        variant: "ubu".parse().unwrap(),
        recipe: "cd".repeat(32),
        packages: packages("adduser 3 all\nbash 5.1 amd64"),
        ..release(1)
    };
    world.write("esp/etchaos/a/release.jwt", sign(&world.key, &claims(&running)).unwrap());
    world.publish(2);
    let offered = Release { packages: packages("bash 5.2 amd64\nzlib1g 1.3 amd64"), ..release(2) };
    world.publish_manifest(&offered);
    let found = world.run(&["check", "--json"]).ended(10).json();
    assert_eq!(kinds(&found["differences"]), all);
}

/// Returns the text of all files in these directories.
fn sources(directories: &[&str]) -> String {
    let files =
        directories.iter().flat_map(|directory| crate::world::tree(&root().join(directory)));
    files.map(|(path, _)| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn tests_named_in_the_threat_model_exist() {
    let sources = sources(&[
        "builder/src",
        "builder/tests",
        "updater/src",
        "updater/tests",
        "protocol/src",
        "protocol/tests",
        "testbed/tests",
    ]);
    let page = page("THREATMODEL.md");
    let section = page.split("## Tests").nth(1).unwrap();
    // Text in backticks is `file.rs: name, name`, or only a file or directory.
    let named = section.split('`').skip(1).step_by(2).filter_map(|text| text.split_once(": "));
    let names: Vec<&str> = named.flat_map(|(_, names)| names.split(", ")).collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}

#[test]
fn steps_are_documented() {
    let source = page("updater/src/commands/report.rs");
    let names = source.split("fn step_name").nth(1).unwrap();
    let names: Vec<&str> = names.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(names.len() >= 10, "{names:?}");
    let page = page("docs/json.md");
    // A downgrade is reported as an error, not as a step.
    for name in names.into_iter().filter(|name| *name != "downgrade") {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/json.md");
    }
    for state in ["empty", "complete", "partial", "damaged"] {
        assert!(page.contains(&format!("`{state}`")), "{state} is not in docs/json.md");
    }
}

#[test]
fn documented_messages_occur_in_the_sources() {
    let sources = sources(&["updater/src", "protocol/src"]).replace("\\\"", "\"");
    let page = page("docs/operators.md");
    let section = page.split("## Troubleshooting").nth(1).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<&str> = rows.map(|row| row.split("` |").next().unwrap()).collect();
    assert!(messages.len() >= 25, "{messages:?}");
    for message in messages {
        for part in message.split('…') {
            assert!(sources.contains(part), "no source says {part:?}");
        }
    }
}
