//! Arranges the differences in sections, which text and Markdown show in the same order.
//!
//! The texts are not escaped here.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use protocol::Package;

use super::change::{Change, Lists, Named};
use super::figures::{Figure, FigureChanges, Unit};
use super::files::{File, FileChange, Files};
use super::packages::{self, Packages};
use super::settings::{Keys, Presence, Setting};
use super::units::{State, Units};
use super::{Diff, Image};
use crate::contents::Kind;

/// A part of the differences.
pub(super) struct Section {
    /// The title.
    pub title: &'static str,
    /// The titles of the columns.
    pub columns: &'static [&'static str],
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// The settings with their differences, below the rows.
    pub settings: Vec<Setting>,
    /// A sentence below the title.
    pub note: Option<&'static str>,
}

/// Returns the sections that are not empty.
pub(super) fn sections(diff: &Diff) -> Vec<Section> {
    let mut all = vec![
        Section::new("Sizes", &["part", "old", "new", "difference", "ratio"], sizes(&diff.sizes)),
        Section::new("Kernel, recipe and toolchain", &["part", "old", "new"], parts(diff)),
        Section::new("Packages", PACKAGES, packages(&diff.packages)),
        Section::new("Boot loader packages", PACKAGES, packages(&diff.bootloader)),
    ];
    if let Some(image) = &diff.image {
        all.extend(image_sections(image));
    }
    all.extend(diff.figures.as_ref().map(figures));
    all.retain(|section| !section.rows.is_empty() || !section.settings.is_empty());
    all
}

/// Returns the sentence for releases without a list of files, if there are any.
pub(super) fn note(diff: &Diff) -> Option<String> {
    let releases = match diff.unlisted[..] {
        [] => return None,
        [one] => format!("the {one} release has"),
        _ => "both releases have".to_owned(),
    };
    Some(format!(
        "Only the manifests were compared, because {releases} no list of files. Units, settings and \
         files are not shown."
    ))
}

const PACKAGES: &[&str] = &["", "package", "old", "new", "source"];

fn image_sections(image: &Image) -> [Section; 4] {
    let keys = image.keys.as_ref().map(keys).unwrap_or_default();
    let mut settings = Section::new("Settings", &[], Vec::new());
    settings.settings.clone_from(&image.settings);
    let files = lists(&image.files, file, file_change);
    [
        Section::new("Trusted keys", &["", "key"], keys),
        Section::new("Units", &["", "unit", "old", "new"], units(&image.units)),
        settings,
        Section::new("Files", &["", "path", "difference"], files),
    ]
}

impl Section {
    fn new(title: &'static str, columns: &'static [&'static str], rows: Vec<Vec<String>>) -> Self {
        Self { title, columns, rows, settings: Vec::new(), note: None }
    }
}

/// Returns the rows of all lists, each with a sign in the first column.
fn lists<T, C>(
    lists: &Lists<T, C>,
    one: impl Fn(&T) -> Vec<String>,
    both: impl Fn(&C) -> Vec<String>,
) -> Vec<Vec<String>> {
    let sign = |sign: &str, row: Vec<String>| [vec![sign.to_owned()], row].concat();
    let added = lists.added.iter().map(|item| sign("+", one(item)));
    let removed = lists.removed.iter().map(|item| sign("-", one(item)));
    let changed = lists.changed.iter().map(|item| sign("~", both(item)));
    added.chain(removed).chain(changed).collect()
}

fn sizes(sizes: &[Named<u64>]) -> Vec<Vec<String>> {
    let is_changed = sizes.iter().any(|size| size.from != size.to);
    let row = |size: &Named<u64>| {
        let difference = size.from.zip(size.to).map(|(from, to)| match to.cmp(&from) {
            Ordering::Greater => format!("+{}", grouped(to - from)),
            Ordering::Equal => "0".to_owned(),
            Ordering::Less => format!("-{}", grouped(from - to)),
        });
        // Sizes have up to 8 GiB, which f64 represents exactly.
        let ratio = size.from.zip(size.to).filter(|(from, _)| *from > 0);
        let ratio = ratio.map(|(from, to)| times(to as f64 / from as f64));
        [Some(size.name.clone()), size.from.map(grouped), size.to.map(grouped), difference, ratio]
            .map(Option::unwrap_or_default)
            .to_vec()
    };
    if is_changed { sizes.iter().map(row).collect() } else { Vec::new() }
}

/// Returns the section of the figures, which has no rows if both releases have no figure in common.
fn figures(changes: &FigureChanges) -> Section {
    let value = |unit: Unit, value: f64| match unit {
        Unit::Seconds => format!("{value:.1} s"),
        Unit::MiB => format!("{value:.0} MiB"),
    };
    let row = |Figure { name, unit, from, to, ratio }: &Figure| {
        let ratio = ratio.map(times).unwrap_or_default();
        vec![name.clone(), value(*unit, *from), value(*unit, *to), ratio]
    };
    let mut rows: Vec<Vec<String>> = changes.values.iter().map(row).collect();
    if !rows.is_empty() {
        let machines = [&changes.old, &changes.new].map(ToString::to_string);
        rows.push([&["machine".to_owned()], &machines[..], &[String::new()]].concat());
    }
    let note = match changes.old == changes.new {
        true => "The times compare only if both were measured on the same machine.",
        false => "The times were measured on different machines and do not compare.",
    };
    let columns = &["figure", "old", "new", "ratio"];
    Section { note: Some(note), ..Section::new("Figures", columns, rows) }
}

/// Returns a ratio, for display.
fn times(ratio: f64) -> String {
    format!("× {ratio:.2}")
}

fn parts(diff: &Diff) -> Vec<Vec<String>> {
    let row = |name: &str, change: &Option<Change<String>>| {
        change.as_ref().map(|change| vec![name.to_owned(), change.from.clone(), change.to.clone()])
    };
    let toolchain = diff.toolchain.iter().map(|program| {
        let version = |version: &Option<String>| version.clone().unwrap_or_default();
        vec![program.name.clone(), version(&program.from), version(&program.to)]
    });
    let target = Change::between(diff.old.target.clone(), diff.new.target.clone());
    let fixed = [row("target", &target), row("kernel", &diff.kernel), row("recipe", &diff.recipe)];
    fixed.into_iter().flatten().chain(toolchain).collect()
}

fn packages(found: &Packages) -> Vec<Vec<String>> {
    let row = |package: &Package, is_new: bool| {
        let (old, new) = match is_new {
            true => (String::new(), package.version.clone()),
            false => (package.version.clone(), String::new()),
        };
        vec![package.name.clone(), old, new, packages::source(package).unwrap_or_default()]
    };
    let sign = |sign: &str, row: Vec<String>| [vec![sign.to_owned()], row].concat();
    let added = found.added.iter().map(|package| sign("+", row(package, true)));
    let removed = found.removed.iter().map(|package| sign("-", row(package, false)));
    let changed = found.changed.iter().map(|change| {
        let source = change.source.clone().unwrap_or_default();
        sign("~", vec![change.name.clone(), change.from.clone(), change.to.clone(), source])
    });
    added.chain(removed).chain(changed).collect()
}

fn keys(keys: &Keys) -> Vec<Vec<String>> {
    let added = keys.added.iter().map(|key| vec!["+".to_owned(), key.clone()]);
    let removed = keys.removed.iter().map(|key| vec!["-".to_owned(), key.clone()]);
    added.chain(removed).collect()
}

fn units(units: &Units) -> Vec<Vec<String>> {
    let state = |state: State| match state {
        State::Enabled => "enabled".to_owned(),
        State::Disabled => "disabled".to_owned(),
        State::Masked => "masked".to_owned(),
    };
    let added = units.added.iter().map(|unit| ("+", &unit.name, String::new(), state(unit.state)));
    let removed =
        units.removed.iter().map(|unit| ("-", &unit.name, state(unit.state), String::new()));
    let changed = units.changed.iter().map(|unit| match (&unit.state, &unit.wanted_by) {
        (Some(change), _) => ("~", &unit.name, state(change.from), state(change.to)),
        (None, Some(Change { from, to })) => {
            let list = |names: &BTreeSet<String>| {
                names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
            };
            ("~", &unit.name, list(from), list(to))
        }
        (None, None) => ("~", &unit.name, String::new(), String::new()),
    });
    added
        .chain(removed)
        .chain(changed)
        .map(|(sign, name, old, new)| vec![sign.to_owned(), name.clone(), old, new])
        .collect()
}

fn file(file: &File) -> Vec<String> {
    let what = match file.kind {
        Kind::File => format!("{} bytes", grouped(file.size)),
        other => kind(other).to_owned(),
    };
    vec![file.path.clone(), what]
}

fn file_change(file: &FileChange) -> Vec<String> {
    vec![file.path.clone(), describe(file)]
}

/// Returns one line for each file that differs.
pub(super) fn lines(files: &Files) -> impl Iterator<Item = String> {
    lists(files, file, file_change).into_iter().map(|row| row.join("  "))
}

/// Returns what differs, in one line.
fn describe(file: &FileChange) -> String {
    let mut parts = Vec::new();
    if let Some(Change { from, to }) = &file.kind {
        parts.push(format!("{} → {}", kind(*from), kind(*to)));
    } else if let Some(Change { from, to }) = &file.size {
        parts.push(match from == to {
            true => format!("content, {} bytes", grouped(*to)),
            false => format!("content, {} → {} bytes", grouped(*from), grouped(*to)),
        });
    }
    for (name, change) in [("mode", &file.mode), ("owner", &file.owner), ("target", &file.target)] {
        if let Some(Change { from, to }) = change {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            parts.push(format!("{name} {} → {}", value(from), value(to)));
        }
    }
    if let Some(Change { from, to }) = &file.xattrs {
        let names = from.keys().chain(to.keys()).filter(|name| from.get(*name) != to.get(*name));
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        parts.push(format!("attributes {}", names.into_iter().collect::<Vec<_>>().join(" ")));
    }
    parts.join("; ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Special => "special file",
    }
}

/// Returns the word for the presence of a setting, for display.
pub(super) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Added => "added",
        Presence::Removed => "removed",
        Presence::Changed => "changed",
    }
}

/// Returns a number with commas between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
