//! Sandboxes without a daemon: a directory, namespaces and `chroot`.
//!
//! Each script runs below two helper processes. They need no `unsafe` code and leave nothing behind:
//!
//! 1. `builder sandbox enter`, started by the builder, unshares the mount, PID, IPC and UTS
//!    namespaces.
//! 2. `builder sandbox init` is PID 1 of the new PID namespace. It mounts the file systems, changes
//!    root and starts the script.
//!
//! The kernel kills both helpers when their parent ends (`PR_SET_PDEATHSIG`). All processes of the
//! namespace die with PID 1, and the mounts are gone with the last process. Ctrl-C or SIGKILL
//! therefore need no cleanup by the builder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{chroot, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use sys_mount::{Mount, MountFlags};

use super::interface::{BaseTree, Finished, PATH, SHELL, Sandbox, Script, WORK};
use crate::log_file::LogFile;

/// The device nodes that are bind-mounted from the host.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The path of this program. It stays valid if the file is replaced while the program runs.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The name of the root file system in the work directory.
const ROOT: &str = "sandbox";

/// A sandbox whose root file system is a directory.
#[derive(Debug)]
pub struct NamespaceSandbox {
    root: PathBuf,
    work: PathBuf,
    builder: PathBuf,
    /// Further files and directories that scripts see, and their paths in the sandbox.
    binds: Vec<(PathBuf, PathBuf)>,
}

impl NamespaceSandbox {
    /// Unpacks `base` into the work directory.
    pub fn create(base: &dyn BaseTree, work: &Path, log: &mut LogFile) -> Result<Self> {
        let root = work.join(ROOT);
        base.unpack(&root, log)?;
        let builder = THIS_PROGRAM.into();
        Ok(Self { root, work: work.to_owned(), builder, binds: Vec::new() })
    }

    /// Returns the sandbox that an earlier build left in the work directory, if there is one.
    pub fn open(work: &Path) -> Option<Self> {
        let root = work.join(ROOT);
        let builder = THIS_PROGRAM.into();
        let sandbox = Self { root, work: work.to_owned(), builder, binds: Vec::new() };
        sandbox.root.is_dir().then_some(sandbox)
    }

    /// Returns the command that runs a program in the sandbox, without the program.
    fn command(&self, env: &BTreeMap<String, String>) -> Command {
        let mut command = Command::new(&self.builder);
        command.args(["sandbox", "enter", "--root"]).arg(&self.root);
        command.arg("--work").arg(&self.work);
        for (from, to) in &self.binds {
            command.arg("--bind").args([from, to]);
        }
        command.arg("--").env_clear().envs(env).env("PATH", PATH);
        command
    }

    /// Sets the program that is started with `sandbox enter`. Tests need this, because they run in a
    /// program other than the builder.
    pub fn with_builder(self, builder: &Path) -> Self {
        Self { builder: builder.to_owned(), ..self }
    }

    /// Shows a file or directory of this machine as `to` in the sandbox. Scripts can write to it.
    pub fn with_bind(mut self, from: &Path, to: &Path) -> Self {
        self.binds.push((from.to_owned(), to.to_owned()));
        self
    }
}

impl Sandbox for NamespaceSandbox {
    fn run(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished> {
        let mut command = self.command(script.env);
        command.args(script.argv()).stdin(Stdio::null());
        let (status, stdout) = log.stream(&mut command).context("starting the sandbox")?;
        Ok(Finished { code: exit_code(status).into(), stdout })
    }

    fn shell(&self, env: &BTreeMap<String, String>) -> Result<i32> {
        let mut command = self.command(env);
        command.arg(SHELL).envs(std::env::var_os("TERM").map(|term| ("TERM", term)));
        Ok(exit_code(command.status().context("starting the sandbox")?).into())
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
    /// Unshare namespaces and start "init" in them
    Enter(Launch),
    /// Mount file systems, change root and start the program
    Init(Launch),
}

/// A program to run, and the directories that it sees.
#[derive(Debug, clap::Args)]
struct Launch {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    work: PathBuf,
    /// Pairs of a path of this machine and a path in the sandbox
    #[arg(long, num_args = 2)]
    bind: Vec<PathBuf>,
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

impl Entry {
    /// Runs the step and returns the exit code of the program.
    pub fn run(self) -> Result<u8> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .context("setting the parent-death signal")?;
        match self.step {
            Step::Enter(launch) => launch.enter(),
            Step::Init(launch) => launch.init(),
        }
    }
}

impl Launch {
    fn enter(self) -> Result<u8> {
        let spaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        unshare(spaces).context(
            "unsharing namespaces (this needs root, and CAP_SYS_ADMIN inside a container)",
        )?;
        let mut command = Command::new(THIS_PROGRAM);
        command.args(["sandbox", "init", "--root"]).arg(&self.root).arg("--work").arg(&self.work);
        for pair in self.bind.chunks(2) {
            command.arg("--bind").args(pair);
        }
        let status = command.arg("--").args(&self.argv).status();
        let status = status.context("starting the first process of the namespace")?;
        Ok(exit_code(status))
    }

    fn init(self) -> Result<u8> {
        mount_private_root()?;
        self.mount_all().context("mounting the file systems of the sandbox")?;
        chroot(&self.root).with_context(|| format!("changing root to {}", self.root.display()))?;
        std::env::set_current_dir("/")?;
        let Some((program, arguments)) = self.argv.split_first() else {
            bail!("no program to run was given");
        };
        // A child process instead of exec: PID 1 of a namespace ignores signals that have no handler.
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("starting {program} in the sandbox"))?;
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
        // The sandbox uses the host's resolver. The file of the base may be a link that leads out of the
        // sandbox, so it is removed instead of overwritten.
        let resolv_conf = at("etc/resolv.conf");
        if resolv_conf.symlink_metadata().is_ok() {
            fs::remove_file(&resolv_conf).context("removing /etc/resolv.conf of the sandbox")?;
        }
        fs::copy("/etc/resolv.conf", resolv_conf).context("copying /etc/resolv.conf")?;
        fs::create_dir_all(at(WORK))?;
        bind(&self.work, &at(WORK))?;
        let (pairs, _) = self.bind.as_chunks::<2>();
        for [from, to] in pairs {
            let to = self.root.join(to.strip_prefix("/").unwrap_or(to));
            create_mount_point(from, &to)
                .with_context(|| format!("creating the mount point {}", to.display()))?;
            bind(from, &to)?;
        }
        Ok(())
    }
}

/// Returns the exit code as shells report it: 128 + N after signal N.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Makes all mounts private, so that new mounts of this namespace do not propagate to the host.
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

/// Creates a file or a directory, of the same kind as `source`.
fn create_mount_point(source: &Path, target: &Path) -> std::io::Result<()> {
    if source.is_dir() {
        return fs::create_dir_all(target);
    }
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::options().create(true).append(true).open(target).map(drop)
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    Mount::builder()
        .flags(MountFlags::BIND)
        .mount(source, target)
        .with_context(|| format!("binding {} to {}", source.display(), target.display()))?;
    Ok(())
}
