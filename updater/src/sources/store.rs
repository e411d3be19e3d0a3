//! Where a host keeps what it has accepted from its sources: on the data partition, or else on the ESP, or else
//! in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files::{Limits, read_all, remove, write};
use super::kept::{FILE_MAX, Kept};
use crate::data::MOUNT_POINT;
use crate::esp::{Access, Esp, in_own_namespace};
use crate::host::Host;
use crate::mount_info;

/// Where records are kept until the next boot.
const MEMORY: &str = "/run";
/// How long to wait for a writer of the ESP. An update may write for hours, so a record stays in memory then.
const ESP_WAIT: Duration = Duration::from_secs(10);
/// What may be kept on the ESP. Its space is for releases.
const ESP_LIMITS: Limits = Limits { record: 64 * 1024, total: 256 * 1024 };
/// What may be kept elsewhere.
const LIMITS: Limits = Limits { record: FILE_MAX, total: 16 * FILE_MAX };

/// A place for records, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The data partition.
    Data,
    /// The EFI system partition.
    Esp,
    /// `/run`, until the next boot.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "on the data partition",
            Self::Esp => "on the ESP",
            Self::Memory => "in memory",
        })
    }
}

/// The records of a host.
pub(crate) struct Store {
    host: Host,
    /// The directory of `--esp`.
    esp: Option<PathBuf>,
}

/// A record, and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kept: Kept,
    /// All places that have a record of this source.
    pub(crate) places: BTreeSet<Place>,
}

/// Where a record was written, and why not to a better place.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) place: Option<Place>,
    pub(crate) problem: Option<String>,
}

impl Found {
    /// Creates an empty record of a source that has none.
    pub(super) fn new(source: &str) -> Self {
        Self { kept: Kept::new(source), places: BTreeSet::new() }
    }

    /// Returns whether the next boot would lose the record.
    pub(super) fn is_only_in_memory(&self) -> bool {
        self.places == BTreeSet::from([Place::Memory])
    }
}

impl Store {
    pub(crate) fn new(host: &Host, esp: Option<&Path>) -> Self {
        Self { host: host.clone(), esp: esp.map(Path::to_owned) }
    }

    /// Reads all records. What cannot be read is logged, and counts as missing.
    pub(crate) fn load(&self) -> BTreeMap<String, Found> {
        let mut all = BTreeMap::<String, Found>::new();
        for place in [Place::Data, Place::Esp, Place::Memory] {
            for (source, kept) in self.load_from(place) {
                match all.get_mut(&source) {
                    None => {
                        all.insert(source, Found { kept, places: [place].into() });
                    }
                    Some(found) => {
                        found.places.insert(place);
                        // A record without content may have the same number; see `remove_from`.
                        let rank = |kept: &Kept| (kept.sequence, !kept.has_no_content());
                        if rank(&kept) > rank(&found.kept) {
                            found.kept = kept;
                        }
                    }
                }
            }
        }
        all
    }

    fn load_from(&self, place: Place) -> BTreeMap<String, Kept> {
        let read = |esp: &Esp| {
            read_all(esp, &mut |problem| {
                log::warn!("what is kept {place} cannot be read, and counts as missing: {problem}");
            })
        };
        match self.with(place, Access::Read, read) {
            Ok(found) => found.unwrap_or_default(),
            Err(problem) => {
                log::warn!("what is kept {place} cannot be read, and counts as missing: {problem}");
                BTreeMap::new()
            }
        }
    }

    /// Writes a record to the best place that takes it, with a higher number than before, and removes it from the
    /// other places that had one.
    pub(crate) fn save(&self, kept: &mut Kept, places: &mut BTreeSet<Place>, now: u64) -> Saved {
        // The time makes the number higher than one in a place that cannot be read now.
        kept.sequence = now.max(kept.sequence.saturating_add(1));
        let mut problems = Vec::new();
        for place in [Place::Data, Place::Esp, Place::Memory] {
            match self.save_to(place, kept) {
                Ok(false) => {}
                Ok(true) => {
                    self.remove_from(places.iter().copied().filter(|other| *other != place), kept);
                    *places = [place].into();
                    let problem = (!problems.is_empty()).then(|| problems.join("; "));
                    return Saved { place: Some(place), problem };
                }
                Err(problem) => problems.push(format!("it cannot be kept {place}: {problem}")),
            }
        }
        Saved { place: None, problem: Some(problems.join("; ")) }
    }

    /// Returns whether the place exists and has the record now.
    fn save_to(&self, place: Place, kept: &Kept) -> Result<bool, String> {
        let limits = if place == Place::Esp { ESP_LIMITS } else { LIMITS };
        let access = Access::Write { wait: ESP_WAIT };
        let write = |esp: &Esp| write(esp, kept, limits).map_err(|error| error.to_string());
        self.with(place, access, write)?.transpose().map(|done| done.is_some())
    }

    /// Removes the record of a source from places that have an older one. Where even that is not possible, the one
    /// with the higher number counts.
    fn remove_from(&self, places: impl Iterator<Item = Place>, kept: &Kept) {
        for place in places {
            let access = Access::Write { wait: ESP_WAIT };
            // An older Pattern must not return after the next boot, so this stays.
            let stub = kept.without_content();
            let replace = |esp: &Esp| match place {
                Place::Esp if !kept.is_empty() => {
                    write(esp, &stub, ESP_LIMITS).map_err(|error| error.to_string())
                }
                _ => remove(esp, &kept.source).map_err(|error| error.to_string()),
            };
            match self.with(place, access, replace) {
                Ok(None | Some(Ok(()))) => {}
                Ok(Some(Err(problem))) | Err(problem) => {
                    log::warn!("an older record of {:?} stays {place}: {problem}", kept.source);
                }
            }
        }
    }

    /// Removes all records of a source.
    pub(crate) fn forget(&self, source: &str, places: &BTreeSet<Place>) {
        self.remove_from(places.iter().copied(), &Kept::new(source));
    }

    /// Runs a function on the file system of a place. Returns `None` if this host does not have the place.
    fn with<T: Send>(
        &self,
        place: Place,
        access: Access,
        run: impl FnOnce(&Esp) -> T + Send,
    ) -> Result<Option<T>, String> {
        let open = |directory: Option<&Path>, access| {
            Esp::open(&self.host, directory, access).map_err(|error| error.to_string())
        };
        match place {
            // The ESP is mounted, and Commands must not run in the namespace of the mount.
            Place::Esp => {
                in_own_namespace(|| Ok(open(self.esp.as_deref(), access)?.map(|esp| run(&esp))))
                    .unwrap_or_else(|| Err("the thread that mounts it panicked".to_owned()))
            }
            Place::Data | Place::Memory => {
                let path = if place == Place::Data { MOUNT_POINT } else { MEMORY };
                let root = self.host.path(path);
                if place == Place::Data && !self.is_mounted(path) || !root.is_dir() {
                    return Ok(None);
                }
                if let Access::Write { .. } = access {
                    private_directory(&root)?;
                }
                // These directories stand in for the ESP. Only one process writes to them at a time; see `lock`.
                Ok(open(Some(&root), Access::Read)?.map(|esp| run(&esp)))
            }
        }
    }

    /// Returns whether a file system is mounted at this path. Without it, the directory is in memory.
    fn is_mounted(&self, path: &str) -> bool {
        let mounts = mount_info::read(&self.host.path(mount_info::FILE)).unwrap_or_default();
        mounts.iter().any(|mount| mount.target == Path::new(path))
    }
}

/// Creates the directory of the records, accessible to root only.
fn private_directory(root: &Path) -> Result<(), String> {
    let directory = root.join("etchaos/sources");
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    created.map_err(|error| format!("cannot create {}: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct World {
        directory: tempfile::TempDir,
        store: Store,
    }

    fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        for path in ["esp", "host/run", "host/proc/self", "host/var/lib/etchaos/data"] {
            std::fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        let host = Host::new(directory.path().join("host"));
        let store = Store::new(&host, Some(&directory.path().join("esp")));
        World { directory, store }
    }

    impl World {
        fn mount_data(&self) {
            let mounts = "36 35 98:0 / / rw - ext4 /dev/root rw\n37 36 253:2 / /var/lib/etchaos/data rw - ext4 /dev/vda3 rw\n";
            std::fs::write(self.directory.path().join("host/proc/self/mountinfo"), mounts).unwrap();
        }

        fn files(&self, root: &str) -> usize {
            let path = self.directory.path().join(root).join("etchaos/sources");
            std::fs::read_dir(path).map_or(0, Iterator::count)
        }

        fn counts(&self) -> [usize; 3] {
            ["host/var/lib/etchaos/data", "esp", "host/run"].map(|root| self.files(root))
        }
    }

    fn kept(size: usize) -> Kept {
        let mut kept = Kept { newest: Some(5), ..Kept::new("web") };
        kept.commands.replace(Some(vec![json!({"id": "x".repeat(size)})]));
        kept
    }

    #[test]
    fn prefers_the_data_partition_and_moves_records_there() {
        let world = world();
        let mut kept = kept(10);
        let mut places = BTreeSet::new();
        let saved = world.store.save(&mut kept, &mut places, 100);
        assert_eq!((saved.place, saved.problem), (Some(Place::Esp), None));
        assert_eq!((world.counts(), kept.sequence), ([0, 1, 0], 100));
        world.mount_data();
        let mut found = world.store.load().remove("web").unwrap();
        assert_eq!((&found.kept, &found.places), (&kept, &[Place::Esp].into()));
        // The clock went back.
        let saved = world.store.save(&mut found.kept, &mut found.places, 50);
        assert_eq!((saved.place, found.kept.sequence), (Some(Place::Data), 101));
        // The ESP has no content any more, but still the time of the newest Pattern.
        let on_esp = world.store.load_from(Place::Esp).remove("web").unwrap();
        assert!(on_esp.has_no_content() && on_esp.newest == Some(5));
        let found = world.store.load().remove("web").unwrap();
        assert_eq!(found.kept.sequence, 101);
        assert!(!found.kept.has_no_content());
        world.store.forget("web", &found.places);
        assert_eq!(world.counts(), [0, 0, 0]);
    }

    #[test]
    fn keeps_in_memory_what_is_too_large_for_the_esp() {
        let world = world();
        let (mut kept, mut places) = (kept(10), BTreeSet::new());
        world.store.save(&mut kept, &mut places, 1);
        kept.commands.replace(Some(vec![json!({"id": "x".repeat(70_000)})]));
        let saved = world.store.save(&mut kept, &mut places, 1);
        assert_eq!(saved.place, Some(Place::Memory));
        let problem = saved.problem.unwrap();
        assert!(
            problem.contains("cannot be kept on the ESP") && problem.contains("65536"),
            "{problem}"
        );
        assert_eq!(world.store.load()["web"].kept, kept);
        // After a reboot, the Pattern that was replaced does not return.
        std::fs::remove_dir_all(world.directory.path().join("host/run/etchaos")).unwrap();
        let found = &world.store.load()["web"].kept;
        assert!(found.has_no_content() && found.newest == Some(5), "{found:?}");
    }

    #[test]
    fn keeps_in_memory_what_cannot_be_written() {
        let world = world();
        std::fs::write(world.directory.path().join("esp/etchaos"), "a file").unwrap();
        let saved = world.store.save(&mut kept(10), &mut BTreeSet::new(), 1);
        assert_eq!(saved.place, Some(Place::Memory));
        assert!(saved.problem.unwrap().contains("on the ESP"));
        std::fs::write(world.directory.path().join("host/run/etchaos/x"), "").unwrap();
        std::fs::remove_dir_all(world.directory.path().join("host/run")).unwrap();
        let saved = world.store.save(&mut kept(10), &mut BTreeSet::new(), 1);
        assert_eq!(saved.place, None);
        assert!(saved.problem.is_some());
    }

    #[test]
    fn a_directory_that_is_no_mount_is_not_the_data_partition() {
        let world = world();
        assert!(!world.store.is_mounted(MOUNT_POINT));
        world.mount_data();
        assert!(world.store.is_mounted(MOUNT_POINT));
        assert!(!world.store.is_mounted("/var/lib/etchaos"));
    }
}
