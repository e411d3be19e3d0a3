//! The sandbox that compiles the updater for another architecture, where rustup cannot install a target. It is
//! Debian, whatever the variant is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::build::Build;
use crate::cache::{Found, Key, archive};
use crate::command::Tool;
use crate::log_file::{LogFile, Origin};
use crate::sandbox::BaseTree;
use crate::sandbox::namespace::NamespaceSandbox;
use crate::variant::CompilerSource;

/// The word in sources of apt that stands for the URL of the mirror.
const MIRROR: &str = "{MIRROR}";

/// Starts the sandbox.
pub(super) fn start(build: &Build<'_>, log: &mut LogFile) -> Result<NamespaceSandbox> {
    let work = build.directories.work.join("compiler");
    fs::create_dir(&work).with_context(|| format!("creating {}", work.display()))?;
    let tree = CompilerTree { build, command: command(build) };
    log.timed("start the sandbox of the compiler", Origin::Built, |log| {
        NamespaceSandbox::create(&tree, &work, log)
    })
}

/// The command that bootstraps the sandbox, without the path to write.
#[derive(Debug)]
struct Command<'a> {
    program: &'a [String],
    /// The sources of the packages; those of the program if empty.
    sources: Vec<String>,
}

fn command<'a>(build: &'a Build<'_>) -> Command<'a> {
    let compiler = &build.variant.compiler;
    let mirror = build.mirror.as_ref().map(crate::mirror::Mirror::as_str);
    Command {
        program: &compiler.bootstrap,
        sources: sources(compiler, mirror, build.without_security),
    }
}

/// Returns the sources of the packages at the operator's mirror. If it has another distribution, there are none.
fn sources(compiler: &CompilerSource, mirror: Option<&str>, without_security: bool) -> Vec<String> {
    let Some(mirror) = mirror else { return Vec::new() };
    let security = if without_security { &[][..] } else { &compiler.security_sources };
    let sources = compiler.sources.iter().chain(security);
    sources.map(|source| source.replace(MIRROR, mirror)).collect()
}

/// The root file system of the sandbox.
#[derive(Debug)]
struct CompilerTree<'a> {
    build: &'a Build<'a>,
    command: Command<'a>,
}

impl BaseTree for CompilerTree<'_> {
    fn unpack(&self, to: &Path, log: &mut LogFile) -> Result<()> {
        let Command { program, sources } = &self.command;
        let key = Key::new("compiler", &json!({ "program": program, "sources": sources }));
        if let Some(Found { data, value: () }) = self.build.cache.find(&key, log) {
            return archive::unpack(&data, to, log);
        }
        self.bootstrap(to, log)?;
        self.build.cache.store(&key, (), |tar| archive::write(to, tar, log))
    }

    fn tar(&self, log: &mut LogFile) -> Result<PathBuf> {
        // The bootstrap tool writes a tar file if the name ends like this.
        let tar = self.build.directories.work.join("compiler.tar");
        self.bootstrap(&tar, log)?;
        Ok(tar)
    }
}

impl CompilerTree<'_> {
    fn bootstrap(&self, to: &Path, log: &mut LogFile) -> Result<()> {
        let Command { program, sources } = &self.command;
        let (program, arguments) =
            program.split_first().context("compiler.bootstrap of the variant names no program")?;
        let tool = Tool::new(program).args(arguments).arg(to).args(sources);
        tool.env("TMPDIR", &self.build.directories.work)
            .run(log)
            .context("bootstrapping the sandbox of the compiler")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_the_mirror_and_its_security_archive() {
        let list = |text: &str| vec![text.to_owned()];
        let compiler = CompilerSource {
            bootstrap: list("tool"),
            sources: list("deb {MIRROR} suite main"),
            security_sources: list("deb {MIRROR}-security suite-security main"),
            host_packages: Vec::new(),
        };
        let mirror = Some("http://mirror.example/debian");
        let (all, main) = (sources(&compiler, mirror, false), sources(&compiler, mirror, true));
        assert_eq!(all[0], "deb http://mirror.example/debian suite main");
        assert_eq!(all[1], "deb http://mirror.example/debian-security suite-security main");
        assert_eq!(main, all[..1]);
        assert!(sources(&compiler, None, false).is_empty());
    }
}
