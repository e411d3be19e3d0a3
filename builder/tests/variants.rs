//! The page about variants: what it shows renders, and an image is built from it.

mod judge;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use judge::{judge, skip};
use serde_json::Value;

const BUILDER: &str = env!("CARGO_BIN_EXE_builder");
/// The offset of the ESP, in the form of mtools.
const ESP: &str = "@@2M";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Writes the files that the page shows to a directory: a line with the name in backticks and a colon, an
/// empty line, and a code block.
fn write_files_of_page(to: &Path) -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/variants.md")).unwrap();
    let lines: Vec<&str> = page.lines().collect();
    let mut names = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let name = line.strip_prefix('`').and_then(|line| line.strip_suffix("`:"));
        let Some(name) = name.filter(|name| name.starts_with("own/")) else { continue };
        assert!(lines[index + 1].is_empty() && lines[index + 2].starts_with("```"), "{name}");
        let content = lines[index + 3..].iter().take_while(|line| !line.starts_with("```"));
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        names.push(name.to_owned());
    }
    names
}

fn builder(directory: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(BUILDER).current_dir(directory).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}:\n{text}");
    output
}

fn json(directory: &Path, arguments: &[&str]) -> Value {
    serde_json::from_slice(&builder(directory, arguments).stdout).unwrap()
}

/// Returns whether a list of the JSON has this text.
fn has(list: &Value, text: &str) -> bool {
    list.as_array().unwrap().iter().any(|value| value == text)
}

#[test]
fn renders_what_the_page_shows() {
    let directory = tempfile::tempdir().unwrap();
    let names = write_files_of_page(directory.path());
    assert_eq!(
        names,
        [
            "own/deb.d/tools.jsonnet",
            "own/deb.d/count-sockets",
            "own/router.jsonnet",
            "own/router.nft",
            "own/deb12.d/disk4k.jsonnet"
        ]
    );
    let render = |name: &str| {
        json(directory.path(), &["render", name, "--arch", "amd64", "--variants", "own"])
    };
    let deb = render("deb");
    assert!(has(&deb["packages"], "tcpdump") && has(&deb["units"]["enable"], "sockets.timer"));
    assert_eq!(deb["files"][2]["mode"], "755");
    assert!(deb.to_string().contains("panic=10 mitigations=auto,nosmt"));
    assert!(deb["disk4k"] == false && render("deb12")["disk4k"] == true);
    let router = render("router");
    assert!(has(&router["packages"], "nftables") && !has(&router["packages"], "tcpdump"));
    assert!(!has(&router["packages"], "systemd-timesyncd"));
    assert!(!has(&router["units"]["enable"], "systemd-timesyncd.service"));
    assert!(router["files"][0]["content"].as_str().unwrap().starts_with("table inet router"));
}

#[test]
fn grub_accepts_the_arguments_of_a_drop_in() {
    let directory = tempfile::tempdir().unwrap();
    write_files_of_page(directory.path());
    let deb = json(directory.path(), &["render", "deb", "--arch", "amd64", "--variants", "own"]);
    let script = boot_configuration(&deb);
    let out = directory.path().join("out");
    write_boot_configuration(script, &out);
    for (file, line) in [
        ("grub.cfg", "\nset esp=1234-ABCD\n"),
        ("grub.cfg", " panic=10 mitigations=auto,nosmt\"\n"),
        ("netboot/etchaos/boot-x86_64.cfg", " panic=10 mitigations=auto,nosmt $arguments; then\n"),
    ] {
        let path = out.join(file);
        assert!(fs::read_to_string(&path).unwrap().contains(line), "{file}");
        let Some(_) = judge("grub-script-check", &[path.to_str().unwrap()]) else { return };
    }
}

/// Runs the script with the variables of its part.
fn write_boot_configuration(script: &str, out: &Path) {
    let variables = [("IMAGE_VERSION", "13.1-ab"), ("ESP_UUID", "1234-ABCD")];
    let mut command = Command::new("bash");
    let command = command.args(["-euc", script]).env("OUT", out).envs(variables);
    assert!(command.status().unwrap().success());
}

/// Returns the script of the Command of a rendered variant that writes the boot configuration.
fn boot_configuration(variant: &Value) -> &str {
    let parts = variant["build"].as_array().unwrap();
    let mut commands = parts.iter().flat_map(|part| part["commands"].as_array().unwrap());
    let command = commands.find(|command| command["id"] == "boot configuration").unwrap();
    command["change"].as_str().unwrap()
}

#[test]
fn one_server_can_have_the_boot_scripts_of_both_architectures() {
    let directory = tempfile::tempdir().unwrap();
    let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
    for (arch, script) in [("amd64", "boot-x86_64.cfg"), ("arm64", "boot-arm64.cfg")] {
        let deb = json(directory.path(), &["render", "deb", "--arch", arch]);
        write_boot_configuration(boot_configuration(&deb), &directory.path().join(arch));
        let script = read(&format!("{arch}/netboot/etchaos/{script}"));
        for line in
            ["set version=\"13.1-ab\"", &format!("set files=\"/etchaos/deb_{arch}/$version\"")]
        {
            assert!(script.lines().any(|other| other == line), "no {line:?} in: {script}");
        }
    }
    let stub = read("amd64/netboot.cfg");
    assert!(stub.contains("\nsource /etchaos/boot-$grub_cpu.cfg\n"), "{stub}");
    assert_eq!(stub, read("arm64/netboot.cfg"));
}

#[test]
fn lists_targets_with_what_is_proven() {
    let directory = tempfile::tempdir().unwrap();
    write_files_of_page(directory.path());
    let rows = json(directory.path(), &["variants", "--json", "--variants", "own"]);
    let row = |target: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["target"] == target).unwrap_or_else(|| panic!("{target}"))
    };
    assert_eq!(row("router_amd64")["proven"], "unproven");
    assert_eq!(row("router_amd64")["distribution"], "Debian 13 (trixie), as a router");
    assert_eq!(row("deb_amd64")["proven"], "unproven", "it has a drop-in");
    assert_eq!(row("deb_amd64")["dropIns"][0], "own/deb.d/tools.jsonnet");
    let plain = json(directory.path(), &["variants", "--json"]);
    assert!(plain.to_string().contains("\"booted\"") && !plain.to_string().contains("router"));
    let table = builder(directory.path(), &["variants", "--variants", "own"]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("drop-in of deb_amd64: own/deb.d/tools.jsonnet"), "{table}");
}

#[test]
fn lists_the_commands_of_a_variant_without_building_it() {
    let directory = tempfile::tempdir().unwrap();
    let list = builder(directory.path(), &["build", "deb", "--arch", "amd64", "--list"]).stdout;
    let list = String::from_utf8(list).unwrap();
    for line in ["part       ID", "init       install the tools", "package    early init"] {
        assert!(list.lines().any(|other| other == line), "no {line:?} in: {list}");
    }
    assert!(directory.path().read_dir().unwrap().next().is_none(), "the list has created files");
}

#[test]
fn an_unknown_command_is_an_error_before_anything_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(BUILDER)
        .current_dir(directory.path())
        .args(["build", "deb", "--arch", "amd64", "--only", "refin"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no Command \"refin\" (did you mean \"refine\"?)"), "{text}");
    assert!(text.contains("list the packages"), "{text}");
    assert!(directory.path().read_dir().unwrap().next().is_none(), "the error has created files");
}

#[test]
fn a_broken_variant_does_not_hide_the_others() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("own")).unwrap();
    fs::write(directory.path().join("own/broken.jsonnet"), "{").unwrap();
    let output = Command::new(BUILDER)
        .current_dir(directory.path())
        .args(["variants", "--variants", "own"])
        .output()
        .unwrap();
    let (list, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(list.contains("deb_amd64"), "{list}");
    assert!(errors.contains("broken.jsonnet") && errors.contains("not valid: broken"), "{errors}");
}

#[test]
fn the_table_of_the_readme_is_that_of_the_builder() {
    let rows = json(&repository(), &["variants", "--json"]);
    let words = |proof: &str| match proof {
        "booted" => "booted here",
        "bootstrapped" => "bootstrap proven here",
        _ => "not proven",
    };
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let rows: Vec<Value> = rows.as_array().unwrap().clone();
    let expected: Vec<String> = rows
        .chunk_by(|a, b| a["variant"] == b["variant"])
        .map(|targets| {
            let proven = ["amd64", "arm64"].map(|arch| {
                let target = targets.iter().find(|target| target["arch"] == arch);
                target.map_or("–".into(), |target| words(&text(target, "proven")).to_owned())
            });
            let (name, distribution) =
                (text(&targets[0], "variant"), text(&targets[0], "distribution"));
            let note = if targets[0]["secureBoot"] == true { "" } else { ", without Secure Boot" };
            format!("| `{name}` | {distribution}{note} | {} |", proven.join(" | "))
        })
        .collect();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let head = "| variant | distribution | amd64 | arm64 |";
    let rest = readme.lines().skip_while(|line| *line != head);
    let table: Vec<&str> = rest.skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(table, expected, "README.md differs from \"builder variants\"");
}

/// Builds the image of the page's drop-in. Takes minutes, and needs root and the mirror of the distribution.
#[test]
#[ignore = "builds an image; .ci/nightly runs it"]
fn builds_what_the_page_shows() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a build needs root");
    }
    let directory = tempfile::tempdir_in(repository().join("out")).unwrap();
    write_files_of_page(directory.path());
    for (name, package, files) in [
        ("deb", "tcpdump", &["/usr/libexec/count-sockets"][..]),
        ("router", "nftables", &["/etc/nftables.conf", "/etc/sysctl.d/50-router.conf"]),
    ] {
        builder(directory.path(), &["build", name, "--arch", "amd64", "--variants", "own"]);
        let file = |extension: &str| {
            let path = format!("out/{name}_amd64/etchaos_{name}_amd64.{extension}");
            directory.path().join(path).to_str().unwrap().to_owned()
        };
        let token = fs::read_to_string(file("jwt")).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let packages = claims["etchaosRelease"]["packages"].as_array().unwrap();
        assert!(packages.iter().any(|found| found["name"] == package), "no {package}");
        let Some(contents) = judge("zstd", &["-dc", &file("contents.json.zst")]) else { return };
        for path in files {
            assert!(contents.contains(&format!("\"{path}\"")), "no {path} in the contents list");
        }
        let image = format!("{}{ESP}", file("raw"));
        let Some(grub) = judge("mtype", &["-i", &image, "::/etchaos/grub.cfg"]) else { return };
        assert_eq!(grub.contains("panic=10 mitigations=auto,nosmt\""), name == "deb", "{grub}");
    }
}

/// Looks into a build in both kinds of sandboxes. Needs root and the mirror of the distribution.
#[test]
#[ignore = "builds a part of an image; .ci/nightly runs it"]
fn runs_parts_of_a_build() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a build needs root");
    }
    let directory = tempfile::tempdir_in(repository().join("out")).unwrap();
    let run = |engine: &str, more: &[&str], input: &str| {
        let arguments = [&["build", "deb", "--arch", "amd64", "--engine", engine], more].concat();
        let mut child = Command::new(BUILDER)
            .current_dir(directory.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, error) = run("namespace", &["--only", "kernel version"], "");
    assert!(code == 1 && error.contains("there is no tree"), "{error}");
    let mut engines = vec!["namespace"];
    match builder::sandbox::docker::Connection::open() {
        Ok(_) => engines.push("docker"),
        Err(error) => skip(&format!("no container engine: {error:#}")),
    }
    for engine in engines {
        let script = "echo tree=$ROOT version=$IMAGE_VERSION; test -d $ROOT/usr && exit 7";
        let (code, output, error) = run(engine, &["--shell", "bootstrap"], script);
        assert!(code == 1 && error.contains("exit code 7"), "{engine}: {error}");
        assert!(output.contains("tree=/build/root version=\n"), "{engine}: {output}");
        let (code, output, error) = run(engine, &["--only", "kernel version"], "");
        assert_eq!((code, output.contains("cloud-amd64")), (0, true), "{engine}: {error}");
        let (code, _, error) = run(engine, &["--only", "esp"], "");
        assert!(code == 1 && error.contains("did not get to the stage refine"), "{error}");
    }
}
