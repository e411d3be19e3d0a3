use serde_json::json;

use super::*;
use crate::progress::Bar;

struct Fixture {
    directory: tempfile::TempDir,
    log: LogFile,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::create(&directory.path().join("log"), Bar::start("test")).unwrap();
        Self { directory, log }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.directory.path().join("cache"), true)
    }

    fn store(&self, input: u32, content: &str) {
        let write = |to: &Path| Ok(fs::write(to, content)?);
        self.cache().store(&key(input), input, write).unwrap();
    }

    fn find(&mut self, input: u32) -> Option<(String, u32)> {
        let found = self.cache().find::<u32>(&key(input), &mut self.log)?;
        Some((fs::read_to_string(found.data).unwrap(), found.value))
    }
}

fn key(input: u32) -> Key {
    Key::new("kind", &json!({ "input": input }))
}

#[test]
fn finds_what_was_stored_under_the_same_key() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.find(1), None);
    fixture.store(1, "one");
    assert_eq!(fixture.find(1), Some(("one".into(), 1)));
    assert_eq!(fixture.find(2), None);
    fixture.store(1, "other");
    assert_eq!(fixture.find(1), Some(("other".into(), 1)));
}

#[test]
fn finds_nothing_without_reads_but_stores() {
    let mut fixture = Fixture::new();
    let cache = Cache::new(fixture.directory.path().join("cache"), false);
    cache.store(&key(1), 1, |to| Ok(fs::write(to, "one")?)).unwrap();
    assert!(cache.find::<u32>(&key(1), &mut fixture.log).is_none());
    assert!(fixture.find(1).is_some());
}

#[test]
fn ignores_and_removes_damaged_entries() {
    let mut fixture = Fixture::new();
    let path = |fixture: &Fixture, extension| fixture.cache().path(&key(1), extension);
    for damage in ["changed", "truncated", "missing", "described badly", "of another key"] {
        fixture.store(1, "content");
        let (data, json) = (path(&fixture, "data"), path(&fixture, "json"));
        match damage {
            "changed" => fs::write(&data, "Content").unwrap(),
            "truncated" => fs::write(&data, "").unwrap(),
            "missing" => fs::remove_file(&data).unwrap(),
            "described badly" => fs::write(&json, "{").unwrap(),
            _ => {
                let text = fs::read_to_string(&json).unwrap();
                fs::write(&json, text.replace(&key(1).digest, &key(2).digest)).unwrap();
            }
        }
        assert_eq!(fixture.find(1), None, "{damage}");
        assert!(!json.exists() && !data.exists(), "{damage}");
    }
}

#[test]
fn failed_write_leaves_no_entry() {
    let mut fixture = Fixture::new();
    let write = |to: &Path| {
        fs::write(to, "half")?;
        anyhow::bail!("interrupted")
    };
    assert!(fixture.cache().store(&key(1), 1, write).is_err());
    assert_eq!(fixture.find(1), None);
}

#[test]
fn keeps_the_entries_that_were_used_last() {
    let mut fixture = Fixture::new();
    let kept = u32::try_from(KEPT).unwrap();
    for input in 0..kept {
        fixture.store(input, "content");
    }
    assert!(fixture.find(0).is_some());
    fixture.store(kept, "content");
    assert!(fixture.find(0).is_some() && fixture.find(1).is_none());
    let left = fixture.directory.path().join("cache/kind").read_dir().unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().path().extension().is_some());
    assert_eq!(left.count(), 2 * KEPT);
}

#[test]
fn targets_do_not_remove_entries_of_each_other() {
    let mut fixture = Fixture::new();
    let targets = ["deb_amd64", "deb_arm64"].map(|target| target.parse().unwrap());
    for target in &targets {
        for input in 0..u32::try_from(KEPT).unwrap() {
            let write = |to: &Path| Ok(fs::write(to, "content")?);
            fixture.cache().store(&key(input).of_target(target), input, write).unwrap();
        }
    }
    for target in &targets {
        let found = fixture.cache().find::<u32>(&key(0).of_target(target), &mut fixture.log);
        assert!(found.is_some_and(|found| found.value == 0), "{target}");
    }
    assert_eq!(fixture.find(0), None);
}
