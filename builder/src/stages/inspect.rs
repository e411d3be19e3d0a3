//! Looks into a build: a shell in the sandbox as a stage left it, and single Commands.

use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use protocol::pattern::{Command, Entry};

use super::build::{Build, Directories};
use super::commands::{environment, run_commands};
use super::runner::Stages;
use super::{bootstrap, init, package, refine, variables};
use crate::progress::message;
use crate::sandbox::{NamespaceSandbox, Sandbox, WORK};
use crate::variant::{PARTS, VariantFile, did_you_mean};

/// A stage after which a shell can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Until {
    /// The container with its tools
    Init,
    /// The root tree of the distribution
    Bootstrap,
    /// The root tree of EtchaOS
    Refine,
    /// The parts of the image
    Package,
}

/// Runs the stages until one, and opens a shell in the sandbox as that stage left it, also if it failed. The
/// shell has the environment of the Commands.
pub(crate) fn shell(build: &Build<'_>, stages: &mut Stages<'_>, until: Until) -> Result<()> {
    let toolbox = stages.stage("init", |log| init::run(build, log))?;
    let sandbox = Rc::clone(&toolbox.sandbox);
    let mut env = environment(build);
    let result = run_rest(build, stages, toolbox, until, &mut env);
    if let Err(error) = &result {
        message(&format!("error: {error:#}"));
    }
    message(&format!(
        "a shell in the sandbox: the tree is $ROOT, and {WORK} is {}; end it with \"exit\"",
        build.directories.work.display()
    ));
    let code = sandbox.shell(&env)?;
    result?;
    ensure!(code == 0, "the shell ended with exit code {code}");
    Ok(())
}

/// Runs the stages after init, and adds the variables of refine to the environment.
fn run_rest(
    build: &Build<'_>,
    stages: &mut Stages<'_>,
    toolbox: init::Toolbox,
    until: Until,
    env: &mut BTreeMap<String, String>,
) -> Result<()> {
    if until < Until::Bootstrap {
        return Ok(());
    }
    let tree = stages.stage("bootstrap", |log| bootstrap::run(build, toolbox, log))?;
    if until < Until::Refine {
        return Ok(());
    }
    let image = stages.stage("refine", |log| refine::run(build, tree, log))?;
    env.clone_from(&image.env);
    if until < Until::Package {
        return Ok(());
    }
    stages.stage("package", |log| package::run(build, image, log))?;
    Ok(())
}

/// Runs the Commands with this ID alone, on the tree that the last build of the target left. Returns their
/// output.
///
/// # Errors
/// Fails if no Command has the ID, if the last build did not get far enough, or if a Command fails.
pub(crate) fn only(build: &Build<'_>, stages: &Stages<'_>, id: &str) -> Result<String> {
    let found = find(&build.variant, id)?;
    let work = &build.directories.work;
    let mut env = environment(build);
    if found.iter().any(|(part, _)| needs_variables(part)) {
        env.extend(variables::load(work)?);
    }
    stages.step("only", |log| {
        let sandbox: Rc<dyn Sandbox> = match NamespaceSandbox::open(work) {
            Some(sandbox) => Rc::new(sandbox),
            // The container of the last build is gone. Its tree is in the work directory.
            None if work.join("root").is_dir() => init::start(build, log)?.sandbox,
            None => bail!(
                "there is no tree in {}; run \"builder build {}\" first",
                work.display(),
                build.target.variant
            ),
        };
        let commands: Vec<Entry> = found.into_iter().map(|(_, command)| alone(command)).collect();
        let report = run_commands(build, &commands, &*sandbox, &env, log)?;
        Ok(report.results.into_iter().map(|result| result.output + "\n").collect())
    })
}

/// Returns a Command that runs without the Commands that would trigger it.
fn alone(command: &Command) -> Entry {
    let always = command.always || command.check.is_none();
    Entry::Command(Box::new(Command { always, ..command.clone() }))
}

/// Returns the Commands with an ID, and their parts.
///
/// # Errors
/// Fails if there is none; the error lists all IDs.
pub(crate) fn find<'a>(
    variant: &'a VariantFile,
    id: &str,
) -> Result<Vec<(&'static str, &'a Command)>> {
    let all = commands(variant);
    let found: Vec<_> = all.iter().filter(|(_, command)| command.id == id).copied().collect();
    if found.is_empty() {
        let known: Vec<&str> = all.iter().map(|(_, command)| command.id.as_str()).collect();
        let hint = did_you_mean(id, &known);
        let name = &variant.variant;
        return Err(anyhow!(
            "the variant {name} has no Command {id:?}{hint}; it has: {}",
            known.join(", ")
        ));
    }
    Ok(found)
}

/// Returns all Commands of a build in their order, with the parts that they belong to.
pub(crate) fn commands(variant: &VariantFile) -> Vec<(&'static str, &Command)> {
    let mut all = Vec::new();
    for part in PARTS {
        collect(part, variant.part(part), &mut all);
    }
    all
}

fn collect<'a>(
    part: &'static str,
    entries: &'a [Entry],
    all: &mut Vec<(&'static str, &'a Command)>,
) {
    for entry in entries {
        match entry {
            Entry::List(list) => collect(part, list, all),
            Entry::Command(group) if !group.commands.is_empty() => {
                collect(part, &group.commands, all);
            }
            Entry::Command(command) => all.push((part, command)),
        }
    }
}

/// Returns whether the Commands of a part need the variables of refine.
fn needs_variables(part: &str) -> bool {
    !["init", "bootstrap"].contains(&part)
}

/// Moves the tree of a build that failed to where later builds leave it, and says where that is.
pub(crate) fn keep(directories: &Directories) -> Result<()> {
    let kept = directories.artifacts.join("kept");
    let failed = || format!("keeping the tree in {}", kept.display());
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(failed)?;
    }
    fs::rename(&directories.work, &kept).with_context(failed)?;
    let kept = kept.display();
    message(&format!("the tree is kept in {kept}/root"));
    if NamespaceSandbox::open(&directories.artifacts.join("kept")).is_some() {
        message(&format!(
            "a shell in its sandbox: builder sandbox enter --root {kept}/sandbox --work {kept} -- /bin/bash"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variant::Variants;
    use protocol::Arch;
    use std::path::Path;

    fn deb() -> VariantFile {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(built_in, None).unwrap();
        VariantFile::load(&variants, &"deb".parse().unwrap(), Arch::Amd64).unwrap()
    }

    #[test]
    fn lists_the_commands_of_all_parts() {
        let deb = deb();
        let all = commands(&deb);
        let parts: Vec<&str> = all.iter().map(|(part, _)| *part).collect();
        assert!(PARTS.iter().all(|part| parts.contains(part)), "{parts:?}");
        assert!(all.iter().all(|(_, command)| command.change.is_some()));
    }

    #[test]
    fn an_unknown_id_lists_the_known_ones_and_the_nearest() {
        let deb = deb();
        let error = find(&deb, "list the package").unwrap_err().to_string();
        for text in ["did you mean \"list the packages\"?", "it has: install the tools", "esp"] {
            assert!(error.contains(text), "{text:?} in: {error}");
        }
        assert_eq!(find(&deb, "refine").unwrap().len(), 1);
    }

    #[test]
    fn a_command_alone_needs_no_trigger() {
        let command = |check: Option<&str>| Command {
            id: "a".into(),
            check: check.map(str::to_owned),
            ..Command::default()
        };
        for (check, expected) in [(None, true), (Some("true"), false)] {
            let Entry::Command(alone) = alone(&command(check)) else { panic!("a list") };
            assert_eq!(alone.always, expected);
        }
    }

    #[test]
    fn a_kept_tree_replaces_the_one_before() {
        let out = tempfile::tempdir().unwrap();
        let target = "deb_amd64".parse().unwrap();
        for content in ["first", "second"] {
            let directories = Directories::create(out.path(), &target).unwrap();
            fs::write(directories.work.join("file"), content).unwrap();
            keep(&directories).unwrap();
            assert!(!directories.work.exists());
            let kept = directories.artifacts.join("kept/file");
            assert_eq!(fs::read_to_string(kept).unwrap(), content);
        }
    }
}
