//! Sandboxes that are containers of an engine with Docker's API: Docker or Podman.
//!
//! A container runs `cat`, whose standard input is connected to the builder. When the builder ends,
//! even by SIGKILL, the connection closes, `cat` ends, and the engine removes the container.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::exec::{ResizeExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, CreateImageOptionsBuilder,
    StartContainerOptions,
};
use futures_util::StreamExt;
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;

use super::interface::{Base, Finished, PATH, SHELL, Sandbox, Script, WORK};
use super::terminal;
use crate::log_file::LogFile;
use crate::oci::{Logins, Reference};

/// The timeout for connecting to an engine. One that takes longer counts as absent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a single call. The longest one imports a whole root file system; bollard's default
/// of two minutes is too short for that.
const CALL_TIMEOUT: Duration = Duration::from_secs(3600);

/// The capabilities that bootstrap tools need to mount, to create device nodes, and to change root.
/// `--privileged` would grant far more.
const CAPABILITIES: [&str; 3] = ["SYS_ADMIN", "MKNOD", "SYS_CHROOT"];

/// A connection to an engine.
pub struct Connection {
    docker: Docker,
    runtime: Runtime,
    version: String,
}

impl Connection {
    /// Connects to the engine that `DOCKER_HOST` names, or to the default sockets of Docker and
    /// Podman.
    ///
    /// # Errors
    /// Fails if no engine reports its version within a few seconds.
    pub fn open() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connect = async {
            match tokio::time::timeout(CONNECT_TIMEOUT, answering_engine()).await {
                Ok(found) => found,
                Err(_) => bail!("the engine did not answer within {} s", CONNECT_TIMEOUT.as_secs()),
            }
        };
        let (mut docker, version) = runtime.block_on(connect)?;
        docker.set_timeout(CALL_TIMEOUT);
        Ok(Self { docker, runtime, version })
    }

    /// Starts a container from the official image, or from the tree if the engine cannot pull the image.
    pub fn start(self, base: &Base<'_>, work: &Path, log: &mut LogFile) -> Result<DockerSandbox> {
        let image: Reference = base.image.parse()?;
        let image = match self.runtime.block_on(self.pull(&image, log)) {
            Ok(()) => image.for_engine(),
            Err(error) => {
                log.line(&format!("cannot pull {image}: {error:#}; importing a base"));
                let tar = base.tree.tar(log).with_context(|| {
                    format!("making a base, because the engine cannot pull {image} ({error:#})")
                })?;
                self.runtime.block_on(self.import(&tar, log))?
            }
        };
        let (id, stdin) = self
            .runtime
            .block_on(self.create(&image, work))
            .with_context(|| format!("starting a container from {image}"))?;
        Ok(DockerSandbox { connection: self, id, _stdin: stdin })
    }

    async fn pull(&self, image: &Reference, log: &mut LogFile) -> Result<()> {
        let name = image.for_engine();
        let options = CreateImageOptionsBuilder::default().from_image(&name).build();
        // The engine does not read the logins of its command line.
        let logins = Logins::from_environment()?;
        let credentials = logins.find(image).map(|login| DockerCredentials {
            username: Some(login.user.clone()),
            password: Some(login.password.clone()),
            serveraddress: Some(image.host().to_owned()),
            ..DockerCredentials::default()
        });
        let mut answers = self.docker.create_image(Some(options), None, credentials);
        while let Some(answer) = answers.next().await {
            if let Some(status) = answer?.status {
                log.line(&status);
            }
        }
        let digests = self.docker.inspect_image(&name).await?.repo_digests.unwrap_or_default();
        log.line(&format!("pulled {image} ({})", digests.join(", ")));
        Ok(())
    }

    async fn import(&self, tar: &Path, log: &mut LogFile) -> Result<String> {
        let file = tokio::fs::File::open(tar).await?;
        let body = bollard::body_try_stream(tokio_util::io::ReaderStream::new(file));
        let options = CreateImageOptionsBuilder::default().from_src("-").build();
        let mut answers = self.docker.create_image(Some(options), Some(body), None);
        let mut image = None;
        while let Some(answer) = answers.next().await {
            image = answer.context("importing the base")?.status.or(image);
        }
        let image =
            image.context("the engine did not report the identifier of the imported image")?;
        log.line(&format!("imported {image}"));
        Ok(image)
    }

    async fn create(
        &self,
        image: &str,
        work: &Path,
    ) -> Result<(String, Pin<Box<dyn AsyncWrite + Send>>)> {
        let work = work.to_str().context("the work directory's path is not UTF-8")?;
        let unconfined = ["seccomp=unconfined", "apparmor=unconfined"];
        let config = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["cat".to_owned()]),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                // As in the other kind of sandbox, a proxy or a mirror may listen on the loopback address.
                network_mode: Some("host".to_owned()),
                binds: Some(vec![format!("{work}:{WORK}")]),
                cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                // The default profiles forbid mounts, which the capabilities allow.
                security_opt: Some(unconfined.map(str::to_owned).to_vec()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let id = self.docker.create_container(None::<CreateContainerOptions>, config).await?.id;
        let options = AttachContainerOptionsBuilder::default().stdin(true).stream(true).build();
        let AttachContainerResults { input, .. } =
            self.docker.attach_container(&id, Some(options)).await?;
        self.docker.start_container(&id, None::<StartContainerOptions>).await?;
        Ok((id, input))
    }
}

async fn answering_engine() -> Result<(Docker, String)> {
    let mut why = Vec::new();
    for connected in [Docker::connect_with_defaults(), Docker::connect_with_podman_defaults()] {
        let answer = async {
            let docker = connected?.negotiate_version().await?;
            let version = docker.version().await?.version.unwrap_or_default();
            Ok::<_, bollard::errors::Error>((docker, version))
        };
        match answer.await {
            Ok(found) => return Ok(found),
            Err(error) => why.push(error.to_string()),
        }
    }
    bail!("neither Docker nor Podman answers ({})", why.join("; "))
}

/// A running container.
pub struct DockerSandbox {
    connection: Connection,
    id: String,
    /// Closing this stream ends the container.
    _stdin: Pin<Box<dyn AsyncWrite + Send>>,
}

impl DockerSandbox {
    /// Returns the engine's identifier of the container.
    pub fn id(&self) -> &str {
        &self.id
    }

    async fn exec(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished> {
        let docker = &self.connection.docker;
        let env = script.env.iter().map(|(name, value)| format!("{name}={value}"));
        let config = ExecConfig {
            cmd: Some(script.argv()),
            env: Some(env.chain([format!("PATH={PATH}")]).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = docker.create_exec(&self.id, config).await?.id;
        let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await?
        else {
            bail!("the engine detached the program, expected its output streams");
        };
        let (mut out, mut err) = (Lines::default(), Lines::default());
        let mut stdout = Vec::new();
        while let Some(part) = output.next().await {
            match part? {
                LogOutput::StdErr { message } => err.push(&message, log),
                LogOutput::StdOut { message } => {
                    stdout.extend_from_slice(&message);
                    out.push(&message, log);
                }
                _ => {}
            }
        }
        out.flush(log);
        err.flush(log);
        let code = docker.inspect_exec(&exec).await?.exit_code;
        let code = code.and_then(|code| i32::try_from(code).ok());
        let code = code.context("the engine reports no exit code for the program")?;
        Ok(Finished { code, stdout: String::from_utf8_lossy(&stdout).into_owned() })
    }
}

impl DockerSandbox {
    /// Connects standard input and output of this program to a shell in the container.
    async fn attach(&self, env: &BTreeMap<String, String>) -> Result<i32> {
        let docker = &self.connection.docker;
        let is_terminal = terminal::is_terminal();
        let term = std::env::var("TERM").ok().map(|term| format!("TERM={term}"));
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let config = ExecConfig {
            cmd: Some(vec![SHELL.to_owned()]),
            env: Some(env.chain([format!("PATH={PATH}")]).chain(term).collect()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(is_terminal),
            ..ExecConfig::default()
        };
        let exec = docker.create_exec(&self.id, config).await?.id;
        let StartExecResults::Attached { output, input } = docker.start_exec(&exec, None).await?
        else {
            bail!("the engine detached the shell, expected its streams");
        };
        if let Some((height, width)) = terminal::size().filter(|_| is_terminal) {
            docker.resize_exec(&exec, ResizeExecOptions { height, width }).await?;
        }
        terminal::connect(input, output).await?;
        let code = docker.inspect_exec(&exec).await?.exit_code;
        let code = code.and_then(|code| i32::try_from(code).ok());
        code.context("the engine reports no exit code for the shell")
    }
}

impl Sandbox for DockerSandbox {
    fn run(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished> {
        self.connection
            .runtime
            .block_on(self.exec(script, log))
            .context("running a program in the container")
    }

    fn shell(&self, env: &BTreeMap<String, String>) -> Result<i32> {
        let attached = self.connection.runtime.block_on(self.attach(env));
        attached.context("running a shell in the container")
    }

    fn describe(&self) -> String {
        format!("docker (engine {})", self.connection.version)
    }
}

/// Splits a stream into the lines of a log.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8], log: &mut LogFile) {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            log.line(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn flush(&mut self, log: &mut LogFile) {
        if !self.0.is_empty() {
            let rest = std::mem::take(&mut self.0);
            log.line(String::from_utf8_lossy(&rest).trim_end());
        }
    }
}
