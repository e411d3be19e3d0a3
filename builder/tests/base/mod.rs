//! The root file system of sandboxes in tests: the toolbox that a build keeps in its cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use builder::log_file::LogFile;
use builder::sandbox::BaseTree;

use crate::judge::skip;

/// A tar file in the cache of a build.
#[derive(Debug)]
pub(crate) struct Cached(pub(crate) PathBuf);

impl BaseTree for Cached {
    fn unpack(&self, to: &Path, _: &mut LogFile) -> anyhow::Result<()> {
        std::fs::create_dir(to)?;
        let status = Command::new("tar")
            .args(["--extract", "--numeric-owner", "--preserve-permissions", "--file"])
            .args([&self.0, Path::new("--directory"), to])
            .status()?;
        anyhow::ensure!(status.success(), "tar ended with {status}");
        Ok(())
    }

    fn tar(&self, _: &mut LogFile) -> anyhow::Result<PathBuf> {
        Ok(self.0.clone())
    }
}

/// Returns the toolbox of the build that `ETCHAOS_ARTIFACTS` names. Returns nothing if the test cannot run
/// here; see [`skip`].
pub(crate) fn base() -> Option<Cached> {
    let Some(artifacts) = std::env::var_os("ETCHAOS_ARTIFACTS") else {
        skip("ETCHAOS_ARTIFACTS does not name the directory of a build");
        return None;
    };
    if !nix::unistd::geteuid().is_root() {
        skip("sandboxes need root");
        return None;
    }
    let target = Path::new(&artifacts).file_name().expect("the directory of a build is named");
    let cache = Path::new(&artifacts).join("../cache/init").join(target).read_dir();
    let mut files = cache.expect("a build keeps its toolbox").map(|file| file.unwrap().path());
    let is_data = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "data");
    Some(Cached(files.find(is_data).expect("a build keeps its toolbox")))
}
