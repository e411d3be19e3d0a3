//! Resolves the packages of a variant against its sources, without building it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::slice;

use anyhow::{Context, Result, anyhow, ensure};
use protocol::Package;

use super::build::{Build, Describe};
use super::commands::{environment, run_commands};
use super::init::Toolbox;
use crate::log_file::LogFile;
use crate::variant::{CheckSource, VariantFile, did_you_mean};

/// The run variable with the names that the sources do not have.
const MISSING: &str = "missing";

/// What a variant would be built from.
pub(crate) struct Checked {
    /// The sandbox, for display.
    pub sandbox: String,
    /// The packages of the tree and of the boot loaders.
    pub packages: Vec<Package>,
}

/// Returns the Commands of a check.
///
/// # Errors
/// Fails if the variant has none.
pub(super) fn commands<'a>(build: &'a Build<'_>) -> Result<&'a CheckSource> {
    let variant = &build.variant;
    variant.check.as_ref().with_context(|| {
        format!("the variant {} has no field \"check\", so it cannot be checked", variant.variant)
    })
}

/// Resolves all packages.
///
/// # Errors
/// Fails if a package does not exist, or if the packages cannot be installed together.
pub(super) fn run(
    build: &Build<'_>,
    commands: &CheckSource,
    toolbox: &Toolbox,
    log: &mut LogFile,
) -> Result<Checked> {
    let (sandbox, env) = (&*toolbox.sandbox, environment(build));
    let report = run_commands(build, slice::from_ref(&commands.names), sandbox, &env, log)?;
    let missing = missing(&build.variant, report.run_vars.get(MISSING).map_or("", String::as_str));
    if !missing.is_empty() {
        return Err(anyhow!(NoPackages(missing)));
    }
    let report = run_commands(build, slice::from_ref(&commands.resolve), sandbox, &env, log)?;
    let packages = Package::parse_list(&report.build_manifest)?;
    ensure!(!packages.is_empty(), "the Command that resolves the packages has printed none");
    // A package can be part of the tree and of the boot loaders.
    let mut seen = BTreeSet::new();
    let packages: Vec<Package> =
        packages.into_iter().filter(|package| seen.insert(package.to_string())).collect();
    Ok(Checked { sandbox: toolbox.describe(), packages })
}

/// A package that the sources do not have.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    name: String,
    /// The part of the error that suggests another name; empty if none is similar.
    hint: String,
    /// The file that names the package.
    file: PathBuf,
}

/// The error of a variant with packages that its sources do not have.
#[derive(Debug)]
struct NoPackages(Vec<Missing>);

impl fmt::Display for NoPackages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Missing { name, hint, file }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let file = file.display();
            write!(f, "{separator}the sources have no package {name:?}{hint}, which {file} names")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoPackages {}

/// Reads the value of the run variable.
fn missing(variant: &VariantFile, listed: &str) -> Vec<Missing> {
    let mut lines = listed.lines();
    let names = lines.next().unwrap_or_default();
    let known: Vec<&str> = lines.collect();
    let names = names.split_ascii_whitespace();
    names
        .map(|name| Missing {
            name: name.to_owned(),
            hint: did_you_mean(name, &known),
            file: file_with(variant, name),
        })
        .collect()
}

/// Returns the drop-in that names a package, or else the file of the variant.
fn file_with(variant: &VariantFile, name: &str) -> PathBuf {
    let quoted = [format!("'{name}'"), format!("\"{name}\"")];
    let names_it = |file: &&PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        quoted.iter().any(|quoted| text.contains(quoted))
    };
    let mut drop_ins = variant.sources.iter().skip(1);
    drop_ins.find(names_it).or(variant.sources.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variant::Variants;
    use protocol::Arch;
    use std::path::Path;

    #[test]
    fn names_the_package_the_file_and_the_nearest_name() {
        let own = tempfile::tempdir().unwrap();
        let drop_in = own.path().join("deb.d/tools.jsonnet");
        fs::create_dir(own.path().join("deb.d")).unwrap();
        fs::write(&drop_in, "{ packages: ['tcpdmp'] }").unwrap();
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(built_in.clone(), Some(own.path())).unwrap();
        let variant = VariantFile::load(&variants, &"deb".parse().unwrap(), Arch::Amd64).unwrap();
        assert!(missing(&variant, "").is_empty());
        let error = NoPackages(missing(&variant, "tcpdmp xyzzy\nbash\ntcpdump\n")).to_string();
        assert_eq!(
            error,
            format!(
                "the sources have no package \"tcpdmp\" (did you mean \"tcpdump\"?), which {} names; \
                 the sources have no package \"xyzzy\", which {} names",
                drop_in.display(),
                built_in.join("deb.jsonnet").display()
            )
        );
    }
}
