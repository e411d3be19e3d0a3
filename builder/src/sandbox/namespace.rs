//! Containers without a daemon: a directory, namespaces and `chroot`.
//!
//! Every run is three processes, so that nothing here needs `unsafe` and nothing can be left behind:
//!
//! 1. the builder starts itself again as `builder sandbox enter`, which
//! 2. unshares mount, PID, IPC and UTS namespaces and starts `builder sandbox init`, which is PID 1
//!    in there, mounts what a container needs, changes root, and starts
//! 3. the program.
//!
//! The first two are told by the kernel to die with its parent (`PR_SET_PDEATHSIG`). With PID 1 every process
//! of the container dies, and with the last process its mounts go. Ctrl-C or a `kill -9` of the
//! builder need no handler.

use std::fs;
use std::os::unix::fs::{chroot, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use sys_mount::{Mount, MountFlags};

use super::{Finished, PATH, Sandbox, Script, WORK};
use crate::command::Tool;
use crate::log_file::LogFile;

/// Device nodes that programs expect, bound from the host.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// This program, also when its file has been replaced since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A directory with a root file system.
#[derive(Debug)]
pub struct NamespaceSandbox {
    root: PathBuf,
    work: PathBuf,
    builder: PathBuf,
}

impl NamespaceSandbox {
    /// Unpacks `base` into the work directory.
    pub fn create(base: &Path, work: &Path, log: &mut LogFile) -> Result<Self> {
        let root = work.join("container");
        fs::create_dir(&root).with_context(|| format!("creating {}", root.display()))?;
        Tool::new("tar")
            .args(["--extract", "--numeric-owner", "--preserve-permissions", "--file"])
            .arg(base)
            .arg("--directory")
            .arg(&root)
            .run(log)?;
        Ok(Self { root, work: work.to_owned(), builder: THIS_PROGRAM.into() })
    }

    /// Starts another program than this one as `builder sandbox enter`: a test is no builder.
    pub fn entered_by(self, builder: &Path) -> Self {
        Self { builder: builder.to_owned(), ..self }
    }
}

impl Sandbox for NamespaceSandbox {
    fn run(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished> {
        let mut command = Command::new(&self.builder);
        command.args(["sandbox", "enter", "--root"]).arg(&self.root);
        command.arg("--work").arg(&self.work).arg("--").args(script.argv());
        command.env_clear().envs(script.env).env("PATH", PATH).stdin(Stdio::null());
        let (status, stdout) = log.stream(&mut command).context("starting a container")?;
        Ok(Finished { code: exit_code(status).into(), stdout })
    }

    fn describe(&self) -> String {
        "namespace".to_owned()
    }
}

/// The hidden subcommands `builder sandbox enter|init`.
#[derive(Debug, clap::Args)]
pub struct Entry {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, clap::Subcommand)]
enum Step {
    /// Unshares namespaces and starts `init` in them
    Enter(Place),
    /// Mounts, changes root and starts the program
    Init(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    work: PathBuf,
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

impl Entry {
    /// Ends with the exit code of the program, or an error that says why it did not start.
    pub fn run(self) -> Result<u8> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("asking to die with the parent")?;
        match self.step {
            Step::Enter(place) => place.enter(),
            Step::Init(place) => place.init(),
        }
    }
}

impl Place {
    fn enter(self) -> Result<u8> {
        let spaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        unshare(spaces).context(
            "unsharing namespaces (needs root; in a container, the capability SYS_ADMIN)",
        )?;
        let status = Command::new(THIS_PROGRAM)
            .args(["sandbox", "init", "--root"])
            .arg(&self.root)
            .arg("--work")
            .arg(&self.work)
            .arg("--")
            .args(&self.argv)
            .status()
            .context("starting the container's first process")?;
        Ok(exit_code(status))
    }

    fn init(self) -> Result<u8> {
        mount_private_root()?;
        self.mount_all().context("mounting what a container needs")?;
        chroot(&self.root).with_context(|| format!("changing root to {}", self.root.display()))?;
        std::env::set_current_dir("/")?;
        let Some((program, arguments)) = self.argv.split_first() else {
            bail!("no program was named");
        };
        // Not by exec: the first process of a namespace is deaf to signals, its children are not.
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("starting {program} in the container"))?;
        Ok(exit_code(status))
    }

    fn mount_all(&self) -> Result<()> {
        let at = |path: &str| self.root.join(path.trim_start_matches('/'));
        bind(&self.root, &self.root)?;
        mount("proc", "proc", &at("proc"), "")?;
        mount("sysfs", "sysfs", &at("sys"), "")?;
        mount("tmpfs", "tmpfs", &at("dev"), "mode=0755,size=1M")?;
        for name in DEVICES {
            let node = at("dev").join(name);
            fs::write(&node, "")?;
            bind(&Path::new("/dev").join(name), &node)?;
        }
        for (name, to) in
            [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
        {
            symlink(to, at("dev").join(name))?;
        }
        for (name, fstype, options) in
            [("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"), ("shm", "tmpfs", "")]
        {
            fs::create_dir(at("dev").join(name))?;
            mount(fstype, fstype, &at("dev").join(name), options)?;
        }
        symlink("pts/ptmx", at("dev/ptmx"))?;
        mount("tmpfs", "tmpfs", &at("run"), "mode=0755")?;
        // Names are resolved as on the host. A link of the base may lead out of it.
        let resolv_conf = at("etc/resolv.conf");
        if resolv_conf.symlink_metadata().is_ok() {
            fs::remove_file(&resolv_conf).context("removing the container's /etc/resolv.conf")?;
        }
        fs::copy("/etc/resolv.conf", resolv_conf).context("copying /etc/resolv.conf")?;
        fs::create_dir_all(at(WORK))?;
        bind(&self.work, &at(WORK))
    }
}

/// As shells say it: 128 + N after signal N.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// From here on, mounts of this namespace do not reach the host's.
fn mount_private_root() -> Result<()> {
    use nix::mount::MsFlags;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context("making mounts private")
}

fn mount(fstype: &str, source: &str, target: &Path, options: &str) -> Result<()> {
    Mount::builder()
        .fstype(fstype)
        .data(options)
        .mount(source, target)
        .with_context(|| format!("mounting {fstype} on {}", target.display()))?;
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    Mount::builder()
        .flags(MountFlags::BIND)
        .mount(source, target)
        .with_context(|| format!("binding {} to {}", source.display(), target.display()))?;
    Ok(())
}
