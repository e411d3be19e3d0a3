//! The modules of a crate import each other without cycles of more than two files.
//!
//! A module's file is a node. An edge leads to the file of every module that its `use` items and paths
//! (`crate::`, `self::`, `super::`, or a child module's name) name. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};
use walkdir::WalkDir;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The largest cycle that is allowed: a pair of files that belong together.
const CYCLE_MAX: usize = 2;

#[test]
fn modules_have_no_import_cycle_of_more_than_two_files() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for name in ["protocol", "updater", "testbed", "builder"] {
        let graph = graph(&workspace.join(name).join("src"));
        assert!(graph.len() > 5, "{name} has only {} modules", graph.len());
        let cycles = cycles(&graph).into_iter().filter(|cycle| cycle.len() > CYCLE_MAX);
        found.extend(cycles.map(|cycle| format!("{name}: {}", cycle.join(", "))));
    }
    assert!(found.is_empty(), "these files import each other in a cycle:\n{}", found.join("\n"));
}

#[test]
fn finds_a_cycle_of_three_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c; mod d;");
    write("a.rs", "use crate::b::{self, B}; pub struct A;");
    write("b.rs", "pub struct B(super::c::C);");
    write("c.rs", "use super::*; fn f() { crate::a::f() }");
    write("d.rs", "#[cfg(test)] mod tests { use crate::a::A; } use crate::a::A;");
    assert_eq!(cycles(&graph(directory.path())), [["a", "b", "c"]]);
}

/// Returns the import graph of the crate with this source directory.
fn graph(source: &Path) -> Graph {
    let mut files = BTreeMap::new();
    for entry in WalkDir::new(source).sort_by_file_name() {
        let path = entry.unwrap().into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Vec<String> =
                relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            if !module.is_empty() && !module.contains(&"tests".to_owned()) {
                files.insert(module, path);
            }
        }
    }
    let mut graph = Graph::new();
    for (module, path) in &files {
        let syntax = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        let mut imports = Imports { module, paths: Vec::new() };
        imports.visit_file(&syntax);
        let targets = imports.paths.iter().filter_map(|path| {
            let longest = (1..=path.len()).rev().map(|length| path[..length].to_vec());
            longest.into_iter().find(|prefix| files.contains_key(prefix))
        });
        let targets = targets.filter(|target| target != module).map(|target| target.join("::"));
        graph.insert(module.join("::"), targets.collect());
    }
    graph
}

/// Collects the paths that a file names, as absolute paths in its crate.
struct Imports<'a> {
    module: &'a [String],
    paths: Vec<Vec<String>>,
}

impl Imports<'_> {
    fn add(&mut self, path: &[String]) {
        let Some(first) = path.first() else { return };
        let absolute = match first.as_str() {
            "crate" => path[1..].to_vec(),
            "super" => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                let parent = &self.module[..self.module.len().saturating_sub(supers)];
                [parent, &path[supers..]].concat()
            }
            "self" => [self.module, &path[1..]].concat(),
            // A child module, if there is one of this name.
            _ => [self.module, path].concat(),
        };
        self.paths.push(absolute);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                self.add_tree(&[prefix, &[path.ident.to_string()]].concat(), &path.tree);
            }
            UseTree::Name(name) => self.add(&[prefix, &[name.ident.to_string()]].concat()),
            UseTree::Rename(rename) => self.add(&[prefix, &[rename.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(prefix, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_test = match item {
            Item::Mod(ItemMod { attrs, .. }) => attrs.iter().any(is_cfg_test),
            _ => false,
        };
        if !is_test {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let parts: Vec<String> =
                path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(&parts);
        }
        visit::visit_path(self, path);
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

/// Returns the sets of modules that can reach each other, of two modules or more.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reachable: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|start| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
            while let Some(module) = left.pop() {
                let next = graph.get(module).into_iter().flatten();
                left.extend(next.filter(|target| seen.insert(*target)));
            }
            (start, seen)
        })
        .collect();
    let mut cycles = BTreeSet::new();
    for (module, seen) in &reachable {
        let cycle: Vec<String> = seen
            .iter()
            .filter(|other| reachable.get(*other).is_some_and(|back| back.contains(module)))
            .map(|other| (*other).clone())
            .collect();
        if cycle.len() > 1 {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}
