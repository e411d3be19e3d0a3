//! What is no longer wanted is removed.

use serde_json::json;

use super::host::Host;

#[test]
fn removes_what_the_successor_has_not() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a"), host.command("b")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["a", "b"]);
    host.publish(host.token(50, json!([host.command("b"), host.command("c")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["b", "c"]);
    let change = &host.status()["lastChange"];
    assert_eq!((&change["changed"], &change["removed"]), (&json!(["c"]), &json!(["a"])));
    // An empty Pattern removes everything.
    host.publish(host.token(40, json!([])));
    host.run().ended(0);
    assert!(host.state().is_empty());
}

#[test]
fn a_removal_that_fails_is_tried_again_and_not_forgotten() {
    let host = Host::new();
    let stuck = host.world.path("stuck");
    std::fs::write(&stuck, "").unwrap();
    let mut a = host.command("a");
    a["remove"] = json!(format!(
        "test ! -e {} && rm {}",
        stuck.display(),
        host.world.path("state/a").display()
    ));
    host.publish(host.token(100, json!([a])));
    host.run().ended(0);
    host.publish(host.token(90, json!([host.command("b")])));
    host.run().ended(1);
    // Nothing runs after a removal failed.
    assert_eq!(host.state(), ["a"]);
    let status = host.status();
    assert_eq!((&status["removalOutstanding"], &status["failed"]), (&json!(true), &json!(["a"])));
    // Another successor, and a reboot that keeps the files.
    host.publish(host.token(80, json!([host.command("c")])));
    std::fs::remove_dir_all(host.world.path("host/run")).unwrap();
    std::fs::create_dir(host.world.path("host/run")).unwrap();
    host.run().ended(1);
    std::fs::remove_file(&stuck).unwrap();
    host.run().ended(0);
    assert_eq!(host.state(), ["c"]);
    assert_eq!(host.status()["removalOutstanding"], json!(false));
}

#[test]
fn removes_the_commands_of_a_source_that_is_removed_from_the_configuration() {
    let host = Host::new();
    let mut web = host.web();
    web["commands"] = json!([host.command("static")]);
    host.configure(json!({"web": web}));
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["a", "static"]);
    host.configure(json!({}));
    // A volume with a configuration may appear late.
    host.world.write("host/proc/uptime", "599.00 1.00\n");
    host.world.run(&["sources", "--all"]);
    assert_eq!(host.state(), ["a", "static"]);
    host.world.write("host/proc/uptime", "601.00 1.00\n");
    // A source of the configuration that is broken may have it. What is kept runs again.
    host.world.write("host/usr/lib/etchaos/updater.json", "{");
    std::fs::remove_file(host.world.path("state/a")).unwrap();
    host.world.run(&["sources", "--all"]);
    assert_eq!(host.state(), ["a", "static"]);
    host.world.write("host/usr/lib/etchaos/updater.json", "{}");
    host.world.run(&["sources", "--all"]);
    assert!(host.state().is_empty());
    let kept = std::fs::read_dir(host.world.esp("etchaos/sources")).unwrap().count();
    assert_eq!(kept, 0);
    assert_eq!(host.status(), json!(null));
}

#[test]
fn a_broken_configuration_does_not_replace_what_is_kept() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    // The image has another source of this name, over which the ESP has the one that was used.
    let image = json!({"sources": {"web": {"commands": [host.command("other")]}}});
    host.world.write("host/usr/lib/etchaos/updater.json", image.to_string());
    host.world.write("esp/etchaos/config.json", "{");
    host.world.run(&["sources", "--all"]);
    assert_eq!(host.state(), ["a"]);
    host.world.write("esp/etchaos/config.json", "{}");
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["other"]);
}

#[test]
fn a_source_that_is_not_pulled_any_more_loses_its_pattern() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    host.configure(json!({"web": {"commands": [host.command("static")]}}));
    host.run().ended(0);
    assert_eq!(host.state(), ["static"]);
}

#[test]
fn what_a_revoked_key_signed_is_not_run_to_remove_it() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let next = Host { key: protocol::PrivateKey::generate(), ..host };
    next.configure(json!({"web": next.web()}));
    next.publish(next.token(50, json!([next.command("b")])));
    let ran = next.run().ended(0);
    assert!(ran.stderr.contains("earlier Pattern are not removed"), "{}", ran.stderr);
    assert_eq!(next.state(), ["a", "b"]);
}

#[test]
fn other_variables_are_another_pattern() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let mut web = host.web();
    web["vars"] = json!({"port": 80});
    host.configure(json!({"web": web}));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    assert_eq!(host.status()["removalOutstanding"], json!(false));
}

#[test]
fn jsonnet_with_other_variables_has_other_commands() {
    let host = Host::new();
    let directory = host.world.path("state");
    let main = "local name = (import 'name.libsonnet');\n{ run: [{ id: name, check: 'test -e DIR/' + name, change: 'touch DIR/' + name, remove: 'rm DIR/' + name }] }";
    let main = main.replace("DIR", &directory.display().to_string());
    let name = "std.native('getConfig')().vars.name";
    let files = [("/main.jsonnet", main.as_str()), ("/name.libsonnet", name)];
    let mut claims = host.claims(100, json!([]));
    claims.etcha_pattern = Some(protocol::pattern::PatternFiles {
        entrypoint: "/main.jsonnet".into(),
        files: files.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
    });
    claims.etcha_run_vars.insert("name".into(), json!("of-token"));
    host.publish(host.sign(&claims));
    host.run().ended(0);
    assert_eq!(host.state(), ["of-token"]);
    for name in ["one", "two"] {
        let mut web = host.web();
        web["vars"] = json!({"name": name});
        host.configure(json!({"web": web}));
        host.run().ended(0);
        assert_eq!(host.state(), [name]);
    }
}
