//! Follows `docs/first-host.md` word for word: the commands run in one shell, as a reader types them, and their
//! output is compared with the page. Only two things are not those of the reader: the publisher's server is one
//! of this test, and so is the image with the name `nginx`, because the test has no registry.

#[path = "../judge/mod.rs"]
mod judge;
mod network;
mod page;
mod releases;
mod session;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use judge::skip;
use network::{Publisher, SERVER, is_done_in_namespace, start_name_server};
use page::{Block, blocks, is_output, parse, repository};
use releases::releases;
use session::Session;

/// The blocks that run, and how many seconds each may take without KVM on a machine that also does other work.
const RUN: [(&str, u64); 10] = [
    ("download", 60),
    ("unpack", 60),
    ("configure", 20),
    ("boot", 20),
    ("serve", 900),
    ("push", 60),
    ("before", 60),
    ("reboot", 900),
    ("update", 1200),
    ("end", 120),
];
/// The blocks that do not run here, with the reason. shellcheck reads them.
const NOT_RUN: [(&str, &str); 4] = [
    ("build", ".ci/run has compiled these programs"),
    ("libvirt", "libvirt needs a daemon"),
    ("proxmox", "Proxmox is a distribution of its own"),
    ("openstack", "there is no cloud here"),
];
/// The page of nginx, as far as the commands look at it.
const SITE: &str = "<title>Welcome to nginx!</title>\n";
/// Puts an image with the name of the page into Docker of the host. The server has its root file system.
const IMPORT: &str = r#"docker image inspect nginx >/dev/null 2>&1 ||
    docker import --change 'CMD ["/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]' \
        http://os.example.org/nginx.tar nginx"#;

#[test]
fn finds_blocks_and_outputs() {
    let page = "text\n```sh a\nx\n```\n\n```text output\ny\n```\n```json\n{}\n```\n";
    let block = |language: &str, name: &str, text: &str, output: Option<&str>| Block {
        language: language.into(),
        name: name.into(),
        text: text.into(),
        output: output.map(str::to_owned),
    };
    let expected = [block("sh", "a", "x\n", Some("y\n")), block("json", "", "{}\n", None)];
    assert_eq!(parse(page), expected);
}

#[test]
fn compares_outputs_with_placeholders() {
    for (expected, found) in [
        ("a\nb\n", "a\nb"),
        ("a …, c\n", "a b, b, c\n"),
        ("…\n", "x\n"),
        ("a…b…c", "a1b2c"),
        ("a…b…c", "abbc"),
    ] {
        assert!(is_output(expected, found), "{expected:?} {found:?}");
    }
    for (expected, found) in
        [("a", "ab"), ("a\n", "a\nb\n"), ("a …, c", "a b, d"), ("…b", "bc"), ("a…b…c", "a1c")]
    {
        assert!(!is_output(expected, found), "{expected:?} {found:?}");
    }
}

#[test]
fn answers_queries_for_the_server_only() {
    let query = |name: &str, kind: u8| {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.bytes());
        }
        bytes.extend([0, 0, kind, 0, 1]);
        network::answer(&bytes).unwrap()
    };
    let found = query("OS.example.org", 1);
    assert_eq!((&found[..2], found[3] & 15, found[7]), (&[7, 9][..], 0, 1));
    assert!(found.ends_with(&[192, 0, 2, 80]));
    assert_eq!((query(SERVER, 28)[3] & 15, query(SERVER, 28)[7]), (0, 0));
    assert_eq!(query("registry.example", 1)[3] & 15, 3);
    for bad in [&[][..], &[0; 12], &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 200, 1]] {
        assert_eq!(network::answer(bad), None);
    }
}

#[test]
fn a_shell_keeps_variables_and_ends_with_the_first_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut session = Session::start(directory.path(), Path::new("/nonexistent"));
    let timeout = Duration::from_secs(60);
    assert_eq!(session.run("one", "x=7\nf() { echo \"$x\"; }\n", timeout).unwrap(), "");
    assert_eq!(session.run("two", "f\necho b >&2\n", timeout).unwrap(), "7\n");
    let error = session.run("three", "echo c\nfalse | true\necho d\n", timeout).unwrap_err();
    assert!(error.contains("a command failed") && error.contains("output\nc\n---"), "{error}");
    let mut session = Session::start(directory.path(), Path::new("/nonexistent"));
    let error = session.run("slow", "sleep 60\n", Duration::from_millis(100)).unwrap_err();
    assert!(error.contains("no end after"), "{error}");
}

/// Every block of commands runs, in this order, or is named as one that does not run.
#[test]
fn every_block_is_run_or_named() {
    let blocks = blocks();
    let commands: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    let is_not_run = |name: &&str| NOT_RUN.iter().any(|(other, _)| other == name);
    let names = commands.iter().map(|block| block.name.as_str());
    let run: Vec<&str> = names.filter(|name| !is_not_run(name)).collect();
    assert_eq!(run, RUN.map(|(name, _)| name));
    for (name, _) in NOT_RUN {
        let block = commands.iter().find(|block| block.name == name);
        assert_eq!(block.expect(name).output, None, "{name} does not run, so it shows no output");
    }
    let outputs = commands.iter().filter(|block| block.output.is_some()).count();
    assert!(outputs >= 5, "{outputs}");
    let languages = ["sh", "json", "text"];
    assert!(blocks.iter().all(|block| languages.contains(&block.language.as_str())), "{blocks:?}");
}

#[test]
fn shellcheck_accepts_the_commands() {
    let blocks = blocks().into_iter().filter(|block| block.language == "sh");
    let commands: String = blocks.map(|block| block.text).collect();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("page.sh");
    fs::write(&script, commands).unwrap();
    judge::judge("shellcheck", &["--shell=bash", script.to_str().unwrap()]);
}

/// The configurations that the page shows. `updater/tests/it/docs.rs` reads them as a host does.
#[test]
fn configurations_are_json() {
    let mut count = 0;
    for block in blocks() {
        let json = match (block.language.as_str(), block.name.as_str()) {
            ("sh", "configure") => {
                let text = block.text.split("<<EOF\n").nth(1).unwrap();
                text.split("\nEOF\n").next().unwrap().to_owned()
            }
            ("json", _) => block.text,
            ("text", "user-data") => block.text.strip_prefix("#etchaos\n").unwrap().to_owned(),
            _ => continue,
        };
        let value: Value =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{}: {error}", block.name));
        assert!(value.is_object(), "{}", block.name);
        count += 1;
    }
    assert_eq!(count, 3);
}

/// Writes the root file system of the image with the name `nginx`. Returns whether this is possible.
fn write_image(to: &Path) -> bool {
    let root = tempfile::tempdir().unwrap();
    let mut paths = ["/bin/busybox", "/usr/bin/busybox"].into_iter();
    let Some(busybox) = paths.find(|path| Path::new(path).exists()) else {
        skip("busybox is not installed");
        return false;
    };
    fs::copy(busybox, root.path().join("busybox")).unwrap();
    fs::create_dir(root.path().join("www")).unwrap();
    fs::write(root.path().join("www/index.html"), SITE).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(to).arg("--directory").arg(root.path()).arg(".");
    assert!(tar.status().unwrap().success());
    true
}

/// Puts the image into Docker of the host as soon as the host answers. The next run of the page's own command then
/// finds it.
fn import_image(directory: &Path, programs: &Path) {
    let (directory, testbed) = (directory.to_owned(), programs.join("testbed"));
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(3));
            let mut push = Command::new(&testbed);
            push.args(["push", "127.0.0.1", "ops", IMPORT, "--key", "@ops.key", "--insecure"]);
            let output = push.current_dir(&directory).stdin(Stdio::null()).output().unwrap();
            let log = [&output.stdout[..], &output.stderr].concat();
            fs::write(directory.join("import.log"), log).unwrap();
            if output.status.success() {
                break;
            }
        }
    });
}

#[test]
#[ignore = "needs root, QEMU, and two published releases; .ci/run has them"]
fn the_page_works() {
    if is_done_in_namespace("the_page_works") {
        return;
    }
    let (cdn, programs) = (repository().join("out/cdn"), repository().join("target/release"));
    let Some([first, second]) = releases(&cdn) else {
        return skip(&format!("{} has no two different releases", cdn.display()));
    };
    let directory = tempfile::tempdir().unwrap();
    let (site, work) = (directory.path().join("site"), directory.path().join("work"));
    fs::create_dir(&site).unwrap();
    fs::create_dir(&work).unwrap();
    symlink(cdn.join("deb_amd64"), site.join("deb_amd64")).unwrap();
    let manifest = site.join("etchaos_deb_amd64.jwt");
    fs::write(&manifest, &first.token).unwrap();
    if !write_image(&site.join("nginx.tar")) {
        return;
    }
    fs::copy(repository().join("out/keys/signing.pub"), work.join("signing.pub")).unwrap();
    start_name_server();
    let _publisher = Publisher::start(&site);

    let mut session = Session::start(&work, &programs);
    for block in blocks().into_iter().filter(|block| block.language == "sh") {
        let run = RUN.iter().find(|(name, _)| *name == block.name);
        let Some((name, seconds)) = run else { continue };
        match *name {
            "serve" => import_image(&work, &programs),
            "update" => fs::write(&manifest, &second.token).unwrap(),
            _ => {}
        }
        let found = session.run(name, &block.text, Duration::from_secs(*seconds));
        let found = found.unwrap_or_else(|problem| {
            let (import, console) =
                (session.tail("import.log", 20), session.tail("console.log", 60));
            panic!("{problem}--- import of the image\n{import}\n--- console\n{console}");
        });
        let expected = block.output.unwrap_or_default();
        assert!(is_output(&expected, &found), "{name}: expected:\n{expected}found:\n{found}");
        if *name == "update" {
            second.check_origins(&first, &fs::read_to_string(site.with_extension("log")).unwrap());
        }
        let _ = writeln!(std::io::stderr(), "{name}: as on the page");
    }
}
