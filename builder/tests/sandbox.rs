//! Both kinds of sandboxes behave the same and leave nothing behind.
//!
//! The tests need the toolbox that a build has cached: set `ETCHAOS_ARTIFACTS` to the directory of a build,
//! such as `out/deb_amd64`. `DOCKER_HOST` names the container engine. Tests that lack something are
//! skipped; with `CI=true`, they fail.

mod base;
mod judge;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base::base;
use builder::log_file::LogFile;
use builder::progress::Bar;
use builder::sandbox::docker::{Connection, DockerSandbox};
use builder::sandbox::namespace::NamespaceSandbox;
use builder::sandbox::{Base, Sandbox, Script};
use judge::skip;
use protocol::pattern::Exec;

struct Fixture {
    directory: tempfile::TempDir,
    log: LogFile,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        let log = LogFile::create(&directory.path().join("log"), Bar::start("test")).unwrap();
        Self { directory, log }
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

fn namespace(fixture: &mut Fixture) -> Option<NamespaceSandbox> {
    let sandbox = NamespaceSandbox::create(&base()?, &fixture.work(), &mut fixture.log).unwrap();
    Some(sandbox.with_builder(Path::new(env!("CARGO_BIN_EXE_builder"))))
}

fn docker(fixture: &mut Fixture) -> Option<DockerSandbox> {
    let tree = base()?;
    match Connection::open() {
        Ok(connection) => {
            let base = Base { image: "localhost/no-such-image", tree: &tree };
            Some(connection.start(&base, &fixture.work(), &mut fixture.log).unwrap())
        }
        Err(error) => {
            skip(&format!("no container engine: {error:#}"));
            None
        }
    }
}

fn run(sandbox: &dyn Sandbox, fixture: &mut Fixture, text: &str) -> (i32, String) {
    let env = BTreeMap::from([("ONLY".to_owned(), "this".to_owned())]);
    let exec = Exec::new("/bin/bash", "-c");
    let script = Script { exec: &exec, text, env: &env };
    let finished = sandbox.run(&script, &mut fixture.log).unwrap();
    (finished.code, finished.stdout)
}

/// Checks the behaviour that all kinds of sandboxes share.
fn check_sandbox(sandbox: &dyn Sandbox, fixture: &mut Fixture) {
    assert_eq!(run(sandbox, fixture, "echo out; echo err >&2; exit 7"), (7, "out\n".into()));
    assert!(
        fixture.log().contains("out\n") && fixture.log().contains("err\n"),
        "{}",
        fixture.log()
    );

    let (_, environment) = run(sandbox, fixture, "env | cut -d= -f1 | sort | tr '\\n' ' '");
    for name in environment.split_whitespace() {
        let known = ["HOME", "HOSTNAME", "ONLY", "PATH", "PWD", "SHLVL", "_"];
        assert!(known.contains(&name), "{name} leaks into the sandbox");
    }
    assert_eq!(run(sandbox, fixture, "cat /etc/debian_version").0, 0);

    fs::write(fixture.work().join("in"), "hello").unwrap();
    assert_eq!(run(sandbox, fixture, "cat /build/in; echo back >/build/out").1, "hello");
    assert_eq!(fs::read_to_string(fixture.work().join("out")).unwrap(), "back\n");

    // Bootstrap tools need these calls. The mount must not be visible outside. The base has no mount(8).
    let (code, text) = run(
        sandbox,
        fixture,
        r#"mkdir -p /build/m && mknod /tmp/null c 1 3 && chroot / true &&
        perl -e 'my ($type, $to, $data) = ("tmpfs", "/build/m", "size=1m");
                 syscall(165, $type, $to, $type, 0, $data) == 0 or die "mount: $!";
                 open(my $file, ">", "/build/m/x") or die $!;
                 print "mounted\n"'"#,
    );
    assert_eq!((code, text.as_str()), (0, "mounted\n"), "{}", fixture.log());
    assert!(!fixture.work().join("m/x").exists());
    assert_eq!(run(sandbox, fixture, "kill -9 $BASHPID").0, 137);
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn namespace_runs_scripts_in_isolation() {
    let mut fixture = Fixture::new();
    let Some(sandbox) = namespace(&mut fixture) else { return };
    check_sandbox(&sandbox, &mut fixture);
}

#[test]
fn docker_runs_scripts_and_container_ends_with_connection() {
    let mut fixture = Fixture::new();
    let Some(sandbox) = docker(&mut fixture) else { return };
    check_sandbox(&sandbox, &mut fixture);
    let id = sandbox.id().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = bollard::Docker::connect_with_defaults().unwrap();
    let exists = || runtime.block_on(engine.inspect_container(&id, None)).is_ok();
    assert!(exists());
    drop(sandbox);
    eventually("the container still exists", || !exists());
}

#[test]
fn killed_builder_leaves_no_process_and_no_mount() {
    let mut fixture = Fixture::new();
    if namespace(&mut fixture).is_none() {
        return;
    }
    // The process ID makes the command line unique.
    let marker = format!("sleep 98{}", std::process::id());
    let root = fixture.work().join("sandbox");
    let mut builder = Command::new(env!("CARGO_BIN_EXE_builder"))
        .args(["sandbox", "enter", "--root"])
        .arg(&root)
        .arg("--work")
        .arg(fixture.work())
        .args(["--", "/bin/bash", "-c", &format!("{marker} & wait")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = || {
        fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).replace('\0', " ").starts_with(&marker)
        })
    };
    eventually("the sandbox did not start", running);
    builder.kill().unwrap();
    builder.wait().unwrap();
    eventually("a process of the sandbox survived", || !running());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
}
