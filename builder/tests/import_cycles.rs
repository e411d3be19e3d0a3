//! Checks that the modules of each crate form no import cycle of more than two files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Collects all paths of a file, except those of its test modules.
struct Paths(Vec<Module>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    /// Skips `pub(super)`, which imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        expand(&item.tree, &mut Vec::new(), &mut self.0);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn expand(tree: &UseTree, prefix: &mut Module, paths: &mut Vec<Module>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            expand(&path.tree, prefix, paths);
            prefix.pop();
        }
        UseTree::Name(name) => paths.push([&prefix[..], &[name.ident.to_string()]].concat()),
        UseTree::Rename(name) => paths.push([&prefix[..], &[name.ident.to_string()]].concat()),
        UseTree::Glob(_) => paths.push(prefix.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| expand(tree, prefix, paths)),
    }
}

/// Returns the absolute form of a path, without `crate`, or nothing for paths of other crates.
fn resolve(path: &[String], module: &Module, graph: &Graph) -> Option<Module> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child => {
            let child = [&module[..], &[child.to_owned()]].concat();
            return graph.contains_key(&child).then(|| [&module[..], path].concat());
        }
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                base.pop();
            }
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

/// Returns which files of a crate import which. The crate root does not count as imported.
fn graph(source: &Path) -> Graph {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(source) {
        let path = entry.unwrap().into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Module =
                name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if matches!(module.last().unwrap().as_str(), "mod" | "lib" | "main") {
                module.pop();
            }
            if !module.iter().any(|part| part == "tests") {
                files.insert(module, syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
            }
        }
    }
    let mut graph: Graph = files.keys().map(|module| (module.clone(), BTreeSet::new())).collect();
    for (module, file) in files {
        let mut paths = Paths(Vec::new());
        file.items.iter().for_each(|item: &Item| paths.visit_item(item));
        let imported: BTreeSet<Module> = paths
            .0
            .iter()
            .filter_map(|path| resolve(path, &module, &graph))
            .filter_map(|path| {
                let prefixes = (1..=path.len()).rev().map(|end| path[..end].to_vec());
                prefixes.into_iter().find(|prefix| graph.contains_key(prefix))
            })
            .filter(|imported| *imported != module)
            .collect();
        graph.insert(module, imported);
    }
    graph
}

fn reachable(graph: &Graph, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut queue: Vec<&Module> = graph[from].iter().collect();
    while let Some(module) = queue.pop() {
        if found.insert(module.clone()) {
            queue.extend(&graph[module]);
        }
    }
    found
}

/// Returns the groups of more than two files in which each file imports each other, directly or not.
fn cycles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let reachable: BTreeMap<_, _> =
        graph.keys().map(|module| (module, reachable(graph, module))).collect();
    let group = |module: &Module| -> Vec<String> {
        let members = reachable[module].iter().filter(|other| reachable[other].contains(module));
        members.map(|member| member.join("::")).collect()
    };
    graph.keys().map(group).filter(|group| group.len() > 2).collect()
}

#[test]
fn finds_cycle_of_three_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c;");
    write("a.rs", "use crate::b::{self, B}; pub(super) struct A;");
    write("b.rs", "pub fn b() { crate::c::c() }");
    write("c.rs", "#[cfg(test)] mod tests { use crate::a::A; }");
    assert!(cycles(&graph(directory.path())).is_empty());
    write("c.rs", "pub fn c() -> super::a::A { todo!() }");
    let expected = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(cycles(&graph(directory.path())), BTreeSet::from([expected]));
}

#[test]
fn no_crate_has_import_cycles() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for name in ["protocol", "updater", "testbed", "builder"] {
        let cycles = cycles(&graph(&workspace.join(name).join("src")));
        found.extend(cycles.iter().map(|cycle| format!("{name}: {}", cycle.join(", "))));
    }
    assert!(found.is_empty(), "import cycles of more than two files:\n{}", found.join("\n"));
}
