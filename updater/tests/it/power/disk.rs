//! A FAT disk in memory that can lose power. Writes are pending until they are flushed; after a power
//! cut, any subset of the pending writes may have reached the disk. Data, chains of clusters, sizes and
//! names are separate writes of one sector each, and a cluster is one sector. Free sectors are reused at
//! once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Cursor};
use std::path::PathBuf;

use nix::errno::Errno;
use updater::files::{Capacity, Entry, FileError, FileSystem, OpenFile, ReadSeek};

pub(super) const SECTOR: usize = 512;
/// Small enough for several flushes in a file of a few sectors.
const FLUSH_EVERY: u64 = 4 * SECTOR as u64;

type Id = usize;
const ROOT: Id = 0;

#[derive(Clone, Default, Hash)]
struct Node {
    is_directory: bool,
    names: BTreeMap<String, Id>,
    chain: Vec<usize>,
    size: usize,
}

/// The content of a disk.
#[derive(Clone, Default, Hash)]
struct Image {
    nodes: Vec<Node>,
    sectors: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone)]
enum Write {
    Name { directory: Id, name: String, to: Option<Id> },
    Chain { file: Id, chain: Vec<usize> },
    Size { file: Id, size: usize },
    Data { sector: usize, bytes: Vec<u8> },
}

impl Image {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Name { directory, name, to: Some(to) } => {
                self.nodes[*directory].names.insert(name.clone(), *to);
            }
            Write::Name { directory, name, to: None } => {
                self.nodes[*directory].names.remove(name);
            }
            Write::Chain { file, chain } => self.nodes[*file].chain = chain.clone(),
            Write::Size { file, size } => self.nodes[*file].size = *size,
            Write::Data { sector, bytes } => {
                self.sectors.insert(*sector, bytes.clone());
            }
        }
    }

    fn find(&self, path: &str) -> Option<Id> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |id, name| self.entry(id, name).map(|(_, id)| *id))
    }

    /// Returns an entry of a directory, with the name that is stored. FAT ignores the case of names.
    fn entry(&self, directory: Id, name: &str) -> Option<(&String, &Id)> {
        self.nodes[directory].names.iter().find(|(stored, _)| stored.eq_ignore_ascii_case(name))
    }

    /// Returns every file that has a name.
    fn files(&self) -> Vec<Id> {
        let mut found = Vec::new();
        let mut directories = vec![ROOT];
        while let Some(directory) = directories.pop() {
            for id in self.nodes[directory].names.values() {
                if self.nodes[*id].is_directory { directories.push(*id) } else { found.push(*id) }
            }
        }
        found
    }

    /// Returns whether the file has fewer clusters than its size needs.
    fn is_short(&self, file: Id) -> bool {
        self.nodes[file].chain.len() < self.nodes[file].size.div_ceil(SECTOR)
    }
}

/// A fault of the disk, or of a program that does not flush.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    #[default]
    None,
    /// A flush of a file does nothing, except for grubenv.
    FilesAreNotFlushed,
    /// A flush of a directory does nothing.
    DirectoriesAreNotFlushed,
}

/// A mounted disk.
pub(super) struct Disk {
    /// The content with the pending writes, as programs see it.
    now: RefCell<Image>,
    /// The content without the pending writes.
    flushed: RefCell<Image>,
    pending: RefCell<Vec<Write>>,
    /// The number of writing operations until the power fails.
    remaining: Cell<usize>,
    done: Cell<usize>,
    /// The reason for which Linux would have remounted the disk read-only.
    pub read_only_reason: RefCell<Option<String>>,
    pub fault: Cell<Fault>,
    /// Free space, in bytes.
    pub free: Cell<u64>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let root = Node { is_directory: true, ..Node::default() };
        Self::of(Image { nodes: vec![root], ..Image::default() })
    }

    fn of(image: Image) -> Self {
        Self {
            now: RefCell::new(image.clone()),
            flushed: RefCell::new(image),
            pending: RefCell::default(),
            remaining: Cell::new(usize::MAX),
            done: Cell::new(0),
            read_only_reason: RefCell::default(),
            fault: Cell::default(),
            free: Cell::new(1 << 20),
        }
    }

    /// Returns a copy. Panics if writes are pending.
    pub(super) fn copy(&self) -> Self {
        assert!(self.pending.borrow().is_empty());
        Self::of(self.flushed.borrow().clone())
    }

    /// Makes the power fail after this many writing operations.
    pub(super) fn fail_after(&self, operations: usize) {
        self.remaining.set(operations);
    }

    /// Returns the number of writing operations so far.
    pub(super) fn operations(&self) -> usize {
        self.done.get()
    }

    /// Returns the number of pending writes.
    pub(super) fn pending(&self) -> usize {
        self.pending.borrow().len()
    }

    /// Returns the disk after a power cut: everything that was flushed, and each pending write for whose
    /// index `reached` returns true.
    pub(super) fn after_power_cut(&self, reached: impl Fn(usize) -> bool) -> Self {
        let mut image = self.flushed.borrow().clone();
        for (index, write) in self.pending.borrow().iter().enumerate() {
            if reached(index) {
                image.apply(write);
            }
        }
        Self::of(image)
    }

    /// Returns the disk after the end of the program or an orderly shutdown, with all writes.
    pub(super) fn unmounted(&self) -> Self {
        Self::of(self.now.borrow().clone())
    }

    /// Returns a hash of the flushed content.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.flushed.borrow().hash(&mut hasher);
        hasher.finish()
    }

    /// Returns whether any file has fewer clusters than its size needs. Linux would remount such a disk
    /// read-only.
    pub(super) fn has_short_chains(&self) -> bool {
        let image = self.now.borrow();
        image.files().into_iter().any(|file| image.is_short(file))
    }

    /// Repairs the disk as `fsck.vfat -a` does: makes sizes and chains agree, and gives each cluster one
    /// owner.
    pub(super) fn fsck(&self) {
        let mut image = self.now.borrow_mut();
        let mut used = BTreeSet::new();
        for file in image.files() {
            let node = &mut image.nodes[file];
            node.chain.truncate(node.size.div_ceil(SECTOR));
            let own = node.chain.iter().take_while(|sector| used.insert(**sector)).count();
            node.chain.truncate(own);
            node.size = node.size.min(own * SECTOR);
        }
        *self.flushed.borrow_mut() = image.clone();
    }

    /// Writes a file and flushes everything. Used to set up a test, and for the writes of GRUB.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let (directory, _) = path.rsplit_once('/').unwrap_or_default();
        updater::files::create_directories(self, directory).unwrap();
        updater::files::overwrite(self, path, bytes).unwrap();
        let now = self.now.borrow().clone();
        *self.flushed.borrow_mut() = now;
        self.pending.borrow_mut().clear();
    }

    /// Changes the names in a directory to capital letters, as a system without long names writes them.
    pub(super) fn capitalize(&self, directory: &str) {
        let id = self.node(directory).unwrap();
        for image in [&self.now, &self.flushed] {
            let names = &mut image.borrow_mut().nodes[id].names;
            *names = names.iter().map(|(name, id)| (name.to_ascii_uppercase(), *id)).collect();
        }
    }

    /// Returns the content of a file, or `None` if it cannot be read.
    pub(super) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path).ok()?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn write(&self, write: Write) {
        self.now.borrow_mut().apply(&write);
        self.pending.borrow_mut().push(write);
    }

    /// Flushes the pending writes that `is_chosen` selects.
    fn flush(&self, is_chosen: impl Fn(&Write) -> bool) {
        let (chosen, rest) = self.pending.take().into_iter().partition(is_chosen);
        let chosen: Vec<Write> = chosen;
        let mut flushed = self.flushed.borrow_mut();
        chosen.iter().for_each(|write| flushed.apply(write));
        *self.pending.borrow_mut() = rest;
    }

    /// Counts a writing operation. Fails if the disk is read-only or the power is off.
    fn operation(&self) -> io::Result<()> {
        if self.read_only_reason.borrow().is_some() {
            return Err(Errno::EROFS.into());
        }
        match self.remaining.get() {
            0 => Err(io::Error::other("the power is off")),
            remaining => {
                self.remaining.set(remaining - 1);
                self.done.set(self.done.get() + 1);
                Ok(())
            }
        }
    }

    /// Makes the disk read-only.
    fn make_read_only(&self, why: String) -> io::Error {
        self.read_only_reason.borrow_mut().get_or_insert(why);
        Errno::EROFS.into()
    }

    fn node(&self, path: &str) -> Result<Id, FileError> {
        let missing = || error(path, io::ErrorKind::NotFound.into());
        self.now.borrow().find(path).ok_or_else(missing)
    }

    fn new_node(&self, path: &str, is_directory: bool) -> Result<Id, FileError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.node(directory)?;
        self.operation().map_err(|why| error(path, why))?;
        assert!(self.now.borrow().find(path).is_none(), "{path} already exists");
        let id = self.now.borrow().nodes.len();
        // A new node is not a pending write, because without a name it is unreachable.
        for image in [&self.now, &self.flushed] {
            image.borrow_mut().nodes.push(Node { is_directory, ..Node::default() });
        }
        self.write(Write::Name { directory, name: name.to_owned(), to: Some(id) });
        Ok(id)
    }

    fn free_sector(&self) -> usize {
        let image = self.now.borrow();
        let used: BTreeSet<usize> =
            image.files().into_iter().flat_map(|id| image.nodes[id].chain.clone()).collect();
        (0..).find(|sector| !used.contains(sector)).unwrap()
    }

    fn remove(&self, path: &str) -> Result<(), FileError> {
        let id = self.node(path)?;
        self.operation().map_err(|why| error(path, why))?;
        if self.now.borrow().is_short(id) {
            return Err(error(
                path,
                self.make_read_only(format!("{path} was removed, but its chain is too short")),
            ));
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.node(directory)?;
        let stored = self.now.borrow().entry(directory, name).map(|(stored, _)| stored.clone());
        self.write(Write::Name { directory, name: stored.expect("it was found"), to: None });
        self.write(Write::Chain { file: id, chain: Vec::new() });
        Ok(())
    }
}

fn error(path: &str, why: io::Error) -> FileError {
    FileError { operation: "use", path: PathBuf::from(path), error: why }
}

impl FileSystem for Disk {
    fn metadata(&self, path: &str) -> Result<Option<Entry>, FileError> {
        let image = self.now.borrow();
        Ok(image.find(path).map(|id| match &image.nodes[id] {
            Node { is_directory: true, .. } => Entry::Directory,
            Node { size, .. } => Entry::File { size: *size as u64 },
        }))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, FileError> {
        let id = self.node(directory)?;
        Ok(self.now.borrow().nodes[id].names.keys().cloned().collect())
    }

    fn open(&self, path: &str) -> Result<Box<dyn ReadSeek + '_>, FileError> {
        let id = self.node(path)?;
        let image = self.now.borrow();
        if image.is_short(id) {
            return Err(error(
                path,
                self.make_read_only(format!("{path} was read, but its chain is too short")),
            ));
        }
        let node = &image.nodes[id];
        let mut bytes = Vec::new();
        for sector in &node.chain {
            bytes.extend(image.sectors.get(sector).cloned().unwrap_or(vec![0xf6; SECTOR]));
        }
        bytes.truncate(node.size);
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn create(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError> {
        let id = self.new_node(path, false)?;
        Ok(Box::new(Opened { disk: self, id, path: path.to_owned() }))
    }

    fn edit(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError> {
        let id = self.node(path)?;
        Ok(Box::new(Opened { disk: self, id, path: path.to_owned() }))
    }

    fn create_directory(&self, path: &str) -> Result<(), FileError> {
        self.new_node(path, true).map(|_| ())
    }

    fn remove_file(&self, path: &str) -> Result<(), FileError> {
        self.remove(path)
    }

    fn remove_directory(&self, path: &str) -> Result<(), FileError> {
        for name in self.list(path)? {
            let path = format!("{path}/{name}");
            match self.metadata(&path)? {
                Some(Entry::Directory) => self.remove_directory(&path)?,
                _ => self.remove(&path)?,
            }
        }
        self.remove(path)
    }

    fn sync_directory(&self, directory: &str) -> Result<(), FileError> {
        let id = self.node(directory)?;
        self.operation().map_err(|why| error(directory, why))?;
        if self.fault.get() != Fault::DirectoriesAreNotFlushed {
            self.flush(|write| match write {
                Write::Name { directory, .. } => *directory == id,
                Write::Chain { .. } => true,
                _ => false,
            });
        }
        Ok(())
    }

    fn capacity(&self) -> Result<Capacity, FileError> {
        Ok(Capacity { cluster: SECTOR as u64, free: self.free.get() })
    }

    fn flush_every(&self) -> u64 {
        FLUSH_EVERY
    }
}

struct Opened<'a> {
    disk: &'a Disk,
    id: Id,
    path: String,
}

impl Opened<'_> {
    fn node(&self) -> Node {
        self.disk.now.borrow().nodes[self.id].clone()
    }
}

impl OpenFile for Opened<'_> {
    /// Writes each sector as a separate operation, so that the power may fail between any two of them.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (disk, file) = (self.disk, self.id);
        let mut offset = usize::try_from(offset).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            disk.operation()?;
            let Node { mut chain, size, .. } = self.node();
            assert!(offset <= size, "write beyond the end of {}", self.path);
            let (index, within) = (offset / SECTOR, offset % SECTOR);
            let (piece, after) = rest.split_at(rest.len().min(SECTOR - within));
            if offset + piece.len() > size && chain.len() != size.div_ceil(SECTOR) {
                let why = format!(
                    "{} was extended, but its number of clusters does not fit its size",
                    self.path
                );
                return Err(disk.make_read_only(why));
            }
            if index == chain.len() {
                chain.push(disk.free_sector());
                disk.write(Write::Chain { file, chain: chain.clone() });
            }
            let sector = chain[index];
            let before = disk.now.borrow().sectors.get(&sector).cloned();
            let mut bytes = before.unwrap_or(vec![0xf6; SECTOR]);
            bytes[within..within + piece.len()].copy_from_slice(piece);
            disk.write(Write::Data { sector, bytes });
            offset += piece.len();
            if offset > size {
                disk.write(Write::Size { file, size: offset });
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let (disk, file) = (self.disk, self.id);
        disk.operation()?;
        let Node { mut chain, size: before, .. } = self.node();
        let size = usize::try_from(length).unwrap();
        assert!(size <= before, "set_len would extend {}", self.path);
        if chain.len() < size.div_ceil(SECTOR) {
            return Err(disk.make_read_only(format!(
                "{} was truncated, but its chain is too short",
                self.path
            )));
        }
        chain.truncate(size.div_ceil(SECTOR));
        disk.write(Write::Size { file, size });
        disk.write(Write::Chain { file, chain });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let (disk, file) = (self.disk, self.id);
        disk.operation()?;
        if disk.fault.get() == Fault::FilesAreNotFlushed && !self.path.ends_with("grubenv") {
            return Ok(());
        }
        let chain = self.node().chain;
        disk.flush(|write| match write {
            Write::Data { sector, .. } => chain.contains(sector),
            Write::Size { file: other, .. } => *other == file,
            // The FAT holds the chains of all files, and is flushed as a whole.
            Write::Chain { .. } => true,
            Write::Name { .. } => false,
        });
        Ok(())
    }
}
