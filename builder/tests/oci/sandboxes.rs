//! Builds whose sandbox is made from an image, by both engines.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use builder::sandbox::docker::Connection;
use protocol::Arch;

use crate::image::{gzip, runnable, zstd};
use crate::judge::skip;
use crate::registry::{Registry, free_address};

/// A variant whose tools are bash and the programs in the image.
const VARIANT: &str = "local etchaos = import 'lib/etchaos.libsonnet';
etchaos.extend(import 'deb.jsonnet', {
  name: 'tiny',
  container: CONTAINER,
  init: 'true',
  tools: 'echo tools',
  indexes: 'echo indexes',
})
";

/// What a build printed, and the log of its stage init.
struct Built {
    success: bool,
    output: String,
    log: String,
}

/// Builds the stage init of the variant in a directory, and runs a script in its sandbox.
fn build(directory: &Path, container: &str, arguments: &[&str], login: &[(&str, &str)]) -> Built {
    let variants = directory.join("own");
    fs::create_dir_all(&variants).unwrap();
    fs::write(variants.join("tiny.jsonnet"), VARIANT.replace("CONTAINER", container)).unwrap();
    let arch = Arch::native().unwrap().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_builder"))
        .current_dir(directory)
        .args(["build", "tiny", "--shell", "init", "--arch", &arch])
        .arg("--workspace")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .arg("--variants")
        .arg(&variants)
        .args(arguments)
        .envs(login.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let script = b"read -r line </etc/marker; echo \"found: $line\"\n";
    // A build that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(script);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let log = directory.join(format!("out/tiny_{arch}/logs/1-init.log"));
    Built {
        success: output.status.success(),
        output: String::from_utf8_lossy(&text).into_owned(),
        log: fs::read_to_string(log).unwrap_or_default(),
    }
}

/// Returns whether builds are possible here.
fn can_build() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("a build needs root");
    }
    is_root && Arch::native().is_some()
}

fn is_from_image(built: &Built) {
    assert!(built.success && built.output.contains("found: from the image"), "{}", built.output);
}

#[test]
fn a_variant_without_a_bootstrap_program_is_built_in_its_image() {
    let Some(registry) = Registry::start().filter(|_| can_build()) else { return };
    let image = runnable(zstd);
    registry.push("tiny", "1", &image);
    let directory = tempfile::tempdir().unwrap();
    let container = format!("{{ image: '{}/tiny:1' }}", registry.host);
    let engine = ["--engine", "namespace"];
    let built = build(directory.path(), &container, &engine, &[]);
    is_from_image(&built);
    let made = format!("the sandbox was made from {}/tiny:1@{}", registry.host, image.digest());
    assert!(built.log.contains(&made), "{}", built.log);

    // The next build uses the toolbox of the first one, and still knows the image.
    drop(registry);
    let built = build(directory.path(), &container, &engine, &[]);
    is_from_image(&built);
    assert!(built.log.contains(&made) && built.log.contains("of the cache"), "{}", built.log);

    let built = build(directory.path(), &container, &["--engine", "namespace", "--no-cache"], &[]);
    assert!(!built.success && built.output.contains("that it runs"), "{}", built.output);
}

#[test]
fn an_image_can_be_chosen_instead_of_the_bootstrap_program() {
    let Some(registry) = Registry::start().filter(|_| can_build()) else { return };
    let image = runnable(zstd);
    registry.push("mirror/tiny", "1", &image);
    let directory = tempfile::tempdir().unwrap();
    let container = "{ image: 'localhost/none', bootstrap: ['false'], hostPackages: ['none'] }";
    let reference = format!("{}/mirror/tiny@{}", registry.host, image.digest());
    let built =
        build(directory.path(), container, &["--engine", "namespace", "--image", &reference], &[]);
    is_from_image(&built);
    assert!(built.log.contains(&format!("the sandbox was made from {reference}")), "{}", built.log);

    let built = build(directory.path(), container, &["--image", "Not An Image"], &[]);
    assert!(!built.success && built.output.contains("such as debian:trixie"), "{}", built.output);
}

#[test]
fn passwords_reach_neither_the_output_nor_a_file() {
    let Some(registry) = Registry::with_password("reader", "hunter2").filter(|_| can_build())
    else {
        return;
    };
    registry.push("tiny", "1", &runnable(zstd));
    let directory = tempfile::tempdir().unwrap();
    let container = format!("{{ image: '{}/tiny:1' }}", registry.host);
    for (password, success) in [("hunter2", true), ("hunter2-wrong", false)] {
        let login = [
            ("ETCHAOS_REGISTRY", registry.host.as_str()),
            ("ETCHAOS_REGISTRY_USER", "reader"),
            ("ETCHAOS_REGISTRY_PASSWORD", password),
        ];
        let engine = ["--engine", "namespace", "--no-cache"];
        let built = build(directory.path(), &container, &engine, &login);
        assert_eq!(built.success, success, "{}", built.output);
        assert!(!built.output.contains("hunter2"), "{}", built.output);
    }
    let found =
        Command::new("grep").args(["-rl", "hunter2"]).arg(directory.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files with the password");
}

#[test]
fn a_container_engine_pulls_the_image() {
    let Some(registry) = Registry::start().filter(|_| can_build()) else { return };
    if let Err(error) = Connection::open() {
        return skip(&format!("no container engine: {error:#}"));
    }
    let image = runnable(gzip);
    registry.push("tiny", "1", &image);
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}/tiny", registry.host);
    for reference in [format!("{name}:1"), format!("{name}@{}", image.digest())] {
        let built = build(
            directory.path(),
            "{ image: 'localhost/none' }",
            &["--engine", "docker", "--image", &reference],
            &[],
        );
        is_from_image(&built);
        assert!(built.log.contains(&format!("pulled {reference} (")), "{}", built.log);
    }
    // An engine that cannot pull an image, such as an older one whose layers have zstd, gets the one that the
    // builder pulled.
    registry.push("tiny", "zstd", &runnable(zstd));
    let container = format!("{{ image: '{name}:zstd' }}");
    is_from_image(&build(directory.path(), &container, &["--engine", "docker"], &[]));
    let absent = free_address();
    let built = build(
        directory.path(),
        &format!("{{ image: '{absent}/tiny:1' }}"),
        &["--engine", "docker"],
        &[],
    );
    assert!(!built.success, "{}", built.output);
    for text in ["because the engine cannot pull", &format!("pulling the image {absent}/tiny:1")] {
        assert!(built.output.contains(text), "no {text:?} in: {}", built.output);
    }
}
