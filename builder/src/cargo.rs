//! Runs cargo with the pinned toolchain, and without the settings of the build host that change what a
//! compiler writes.
//!
//! Variables of the environment are filtered by [`crate::environment`]. The configuration files of cargo
//! can set the same things, so cargo gets a home directory of its own: its configuration has only the
//! tables that say where packages come from, and its caches are those of the caller.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use crate::command::Tool;
use crate::log_file::LogFile;

/// The tables of cargo's configuration that decide how cargo reaches packages. The versions and digests
/// of the packages are in `Cargo.lock`.
const TABLES: [&str; 6] = ["credential-alias", "http", "net", "registries", "registry", "source"];

/// The names of a configuration file in a directory; cargo prefers the first.
const CONFIG_NAMES: [&str; 2] = ["config", "config.toml"];

/// The caches and credentials that are shared with the caller's home of cargo, and the locks of the caches.
const SHARED_DIRECTORIES: [&str; 2] = ["registry", "git"];
const SHARED_FILES: [&str; 4] =
    ["credentials", "credentials.toml", ".package-cache", ".package-cache-mutate"];

/// cargo with the toolchain that `rust-toolchain.toml` pins.
#[derive(Debug)]
pub(crate) struct Cargo {
    /// The pinned version, such as `1.95.0`.
    version: String,
    /// The home of cargo for builds of images.
    home: PathBuf,
    /// `rustc -V`.
    rustc: String,
    /// Directories whose paths could end up in a program, and the names that replace them.
    remaps: Vec<(PathBuf, String)>,
}

impl Cargo {
    /// Prepares a home of cargo in `directory`, and checks the toolchain.
    ///
    /// # Errors
    /// Fails if `rustc` has another version than the pinned one.
    pub(crate) fn open(workspace: &Path, directory: &Path, log: &mut LogFile) -> Result<Self> {
        let callers = callers_home()?;
        let home = directory.join("cargo-home");
        prepare_home(&callers, workspace, &home)?;
        let version = pinned_version(workspace)?;
        let mut cargo = Self { version, home, rustc: String::new(), remaps: Vec::new() };
        let verbose = cargo.tool("rustc").arg("-vV").run(log).with_context(|| {
            format!("running rustc {}, which rust-toolchain.toml pins", cargo.version)
        })?;
        cargo.rustc = check_version(&verbose, &cargo.version)?;
        cargo.remaps = vec![(callers, "/cargo".into()), (cargo.home.clone(), "/cargo".into())];
        cargo.remaps.push((workspace.to_owned(), "/etchaos".into()));
        // If the source of the standard library is installed, rustc embeds its path.
        if let Some(hash) = verbose.lines().find_map(|line| line.strip_prefix("commit-hash: ")) {
            let sysroot = cargo.tool("rustc").args(["--print", "sysroot"]).run(log)?;
            let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
            cargo.remaps.push((library, format!("/rustc/{hash}")));
        }
        // Of several matches, rustc and gcc use the last. One directory may be inside another.
        cargo.remaps.sort_by_key(|(from, _)| from.as_os_str().len());
        Ok(cargo)
    }

    /// Returns a command for a program of the toolchain.
    ///
    /// It runs in `/`, because cargo reads the configuration in the working directory and its parents.
    pub(crate) fn tool(&self, program: &str) -> Tool {
        Tool::new(program)
            .current_dir(Path::new("/"))
            .env("CARGO_HOME", &self.home)
            // Without a toolchain file in the working directory, this variable selects the toolchain.
            .env("RUSTUP_TOOLCHAIN", &self.version)
    }

    /// Returns whether the toolchain can compile for a target. If the standard library for it is missing, lets
    /// rustup install it.
    pub(crate) fn add_target(&self, triple: &str, log: &mut LogFile) -> Result<bool> {
        if self.has_target(triple, log)? {
            return Ok(true);
        }
        let arguments = ["target", "add", "--toolchain", &self.version, triple];
        if let Err(error) = self.tool("rustup").args(arguments).run(log) {
            log.line(&format!("rustup cannot install the target {triple}: {error:#}"));
            return Ok(false);
        }
        self.has_target(triple, log)
    }

    fn has_target(&self, triple: &str, log: &mut LogFile) -> Result<bool> {
        let arguments = ["--print", "target-libdir", "--target", triple];
        let directory = self.tool("rustc").args(arguments).run(log)?;
        Ok(Path::new(directory.trim()).is_dir())
    }

    /// Returns the home of cargo for builds of images.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Returns `from=to` for every directory whose path could end up in a program.
    pub(crate) fn remaps(&self) -> Vec<String> {
        self.remaps.iter().map(|(from, to)| format!("{}={to}", from.display())).collect()
    }

    /// Returns the programs whose version changes the result, with the first line that each prints. The
    /// arguments are the names, and the commands that print the versions.
    pub(crate) fn toolchain(
        &self,
        commands: &[(&str, Vec<String>)],
        log: &mut LogFile,
    ) -> Result<BTreeMap<String, String>> {
        let mut toolchain = BTreeMap::from([("rustc".to_owned(), self.rustc.clone())]);
        for (name, command) in commands {
            let (program, arguments) = command.split_first().context("the command is empty")?;
            let text = self.tool(program).args(arguments).run(log)?;
            let first = text.lines().next().unwrap_or_default().trim();
            ensure!(!first.is_empty(), "\"{}\" printed nothing", command.join(" "));
            toolchain.insert((*name).to_owned(), first.to_owned());
        }
        Ok(toolchain)
    }
}

/// Returns the home of cargo that the caller uses.
fn callers_home() -> Result<PathBuf> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = match given("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            let home = given("HOME").context("neither CARGO_HOME nor HOME is set")?;
            Path::new(&home).join(".cargo")
        }
    };
    Ok(absolute(home)?)
}

/// Returns the version in `rust-toolchain.toml`.
fn pinned_version(workspace: &Path) -> Result<String> {
    let path = workspace.join("rust-toolchain.toml");
    let version = read(&path)?
        .and_then(|file| Some(file.get("toolchain")?.get("channel")?.as_str()?.to_owned()));
    version.with_context(|| format!("{} does not set toolchain.channel", path.display()))
}

/// Returns the first line of `rustc -vV` if it is the line of this version.
fn check_version(verbose: &str, version: &str) -> Result<String> {
    let line = verbose.lines().next().unwrap_or_default().trim();
    let found = line.strip_prefix("rustc ").and_then(|rest| rest.split(' ').next());
    ensure!(
        found == Some(version),
        "rustc reports the version {line:?}, but rust-toolchain.toml pins {version}, because another \
         compiler writes another image; install that version, for example with \"rustup toolchain \
         install {version}\", or put its programs first in PATH"
    );
    Ok(line.to_owned())
}

/// Writes the configuration, and links the caches of the caller.
fn prepare_home(callers: &Path, workspace: &Path, home: &Path) -> Result<()> {
    let failed = || format!("preparing {} for cargo", home.display());
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(failed);
        }
        _ => fs::create_dir_all(home).with_context(failed)?,
    }
    let config = configuration(callers, workspace)?;
    let config = toml::to_string(&config).context("writing cargo's configuration")?;
    fs::write(home.join("config.toml"), config).with_context(failed)?;
    for name in SHARED_DIRECTORIES {
        fs::create_dir_all(callers.join(name))
            .with_context(|| format!("creating {}", callers.join(name).display()))?;
    }
    for name in SHARED_DIRECTORIES.into_iter().chain(SHARED_FILES) {
        symlink(callers.join(name), home.join(name)).with_context(failed)?;
    }
    Ok(())
}

/// Returns the [`TABLES`] of the configurations that cargo would read in the workspace. A file in a
/// directory has precedence over those in its parents and over the one in the caller's home.
fn configuration(callers: &Path, workspace: &Path) -> Result<Table> {
    let mut directories = vec![callers.to_owned()];
    let ancestors: Vec<&Path> = workspace.ancestors().collect();
    directories.extend(ancestors.iter().rev().map(|directory| directory.join(".cargo")));
    let mut merged = Table::new();
    for directory in directories {
        let names = CONFIG_NAMES.map(|name| directory.join(name));
        let Some(path) = names.into_iter().find(|path| path.exists()) else { continue };
        let config = read(&path)?.unwrap_or_default();
        // cargo reads this file itself, because it runs there.
        let other = config.keys().find(|name| !TABLES.contains(&name.as_str()));
        if let (Some(name), true) = (other, directory == Path::new("/.cargo")) {
            bail!(
                "{} sets {name:?}, which could change the image; move it to another directory",
                path.display()
            );
        }
        for (name, value) in config {
            if let (true, Value::Table(values)) = (TABLES.contains(&name.as_str()), value) {
                let table = merged.entry(name).or_insert_with(|| Value::Table(Table::new()));
                if let Some(table) = table.as_table_mut() {
                    table.extend(values);
                }
            }
        }
    }
    Ok(merged)
}

/// Reads a TOML file, if it exists.
fn read(path: &Path) -> Result<Option<Table>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    // The error of the parser would quote the file, which may have tokens.
    let table = text.parse().ok();
    table.with_context(|| format!("{} is not valid TOML", path.display())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_settings_of_packages_and_network() {
        let directory = tempfile::tempdir().unwrap();
        let callers = directory.path().join("home");
        let workspace = directory.path().join("parent/checkout");
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        fs::create_dir_all(&workspace).unwrap();
        write(
            callers.join("config.toml"),
            "[build]\nrustflags = ['-g']\n[profile.image]\nlto = false\n[env]\nCFLAGS = '-O0'\n\
             [http]\ntimeout = 5\nproxy = 'p'\n",
        );
        write(
            directory.path().join("parent/.cargo/config.toml"),
            "[target.x86_64-unknown-linux-gnu]\nlinker = 'other'\n[http]\nproxy = 'q'\n\
             [source.crates-io]\nreplace-with = 'mirror'\n",
        );
        let home = directory.path().join("ours");
        prepare_home(&callers, &workspace, &home).unwrap();
        let found = read(&home.join("config.toml")).unwrap().unwrap();
        let expected =
            "[http]\ntimeout = 5\nproxy = 'q'\n[source.crates-io]\nreplace-with = 'mirror'";
        assert_eq!(found, expected.parse::<Table>().unwrap());
        assert!(home.join("registry").is_dir());
        // A second build uses the same directory.
        prepare_home(&callers, &workspace, &home).unwrap();
    }

    #[test]
    fn rejects_other_version_than_pinned_one() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let pinned = pinned_version(workspace).unwrap();
        let line = format!("rustc {pinned} (59807616e 2026-04-14)");
        assert_eq!(check_version(&format!("{line}\nbinary: rustc\n"), &pinned).unwrap(), line);
        for other in ["rustc 1.20.0 (x)", &format!("rustc {pinned}-beta.1 (x)"), "", "clang 1"] {
            let error = check_version(other, &pinned).unwrap_err().to_string();
            assert!(error.contains("rustup toolchain install"), "{error}");
        }
    }
}
