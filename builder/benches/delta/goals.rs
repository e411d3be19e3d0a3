//! The goals that the deltas have to meet.

use super::measure::Figures;

/// The most that a host may fetch in a week with a new kernel, as a part of the files.
const WITH_KERNEL: f64 = 0.04;
/// The same for a host with too little memory for the kernel's delta, which downloads the whole kernel.
const WITH_WHOLE_KERNEL: f64 = 0.1;
/// The most that a host may fetch in a week without a new kernel.
const WITHOUT_KERNEL: f64 = 0.005;
/// The most memory that applying the delta of the initrd may take, in MiB.
const INITRD_MEMORY: f64 = 64.0;
/// Applying a delta may take this many times as long as the download of the whole file over the loopback, and
/// this many seconds more.
const DOWNLOADS: f64 = 2.0;
const MORE_SECONDS: f64 = 10.0;
/// The goal that is known not to be met.
const KERNEL_TIME: &str = "seconds to apply the delta of the vmlinuz";

/// A boot file.
pub(crate) struct File {
    pub(crate) extension: &'static str,
    pub(crate) size: u64,
    /// The figures of its delta; `None` if both releases have the same file.
    pub(crate) delta: Option<Figures>,
    /// The time in seconds of a download of the whole file.
    pub(crate) download: f64,
}

impl File {
    fn delta_bytes(&self) -> u64 {
        self.delta.map_or(0, |delta| delta.bytes)
    }
}

/// A figure and its limit.
struct Goal {
    name: String,
    found: f64,
    limit: f64,
    /// Whether it is known that the goal cannot be met.
    is_known_miss: bool,
}

impl Goal {
    fn is_met(&self) -> bool {
        self.found <= self.limit
    }
}

/// Prints a table of the goals. Returns whether all are met, except for those that are known not to be met.
pub(crate) fn goals(files: &[File]) -> bool {
    let all: u64 = files.iter().map(|file| file.size).sum();
    let part = |bytes: u64| bytes as f64 / all as f64;
    let deltas: u64 = files.iter().map(File::delta_bytes).sum();
    let kernel = files.iter().find(|file| file.extension == "vmlinuz" && file.delta.is_some());
    let mut goals = Vec::new();
    let mut goal = |name: &str, found, limit| {
        // A kernel is compressed again at the highest level, which alone takes 18 s on an idle processor.
        let is_known_miss = name == KERNEL_TIME;
        goals.push(Goal { name: name.to_owned(), found, limit, is_known_miss });
    };
    match kernel {
        Some(kernel) => {
            let whole = deltas - kernel.delta_bytes() + kernel.size;
            goal("part of the files, with a new kernel", part(deltas), WITH_KERNEL);
            goal("part of the files, if the kernel is taken whole", part(whole), WITH_WHOLE_KERNEL);
        }
        None => goal("part of the files, without a new kernel", part(deltas), WITHOUT_KERNEL),
    }
    for File { extension, delta, download, .. } in files {
        let Some(Figures { apply, .. }) = delta else { continue };
        let limit = DOWNLOADS * download + MORE_SECONDS;
        let name = format!("seconds to apply the delta of the {extension}");
        goal(&name, apply.seconds, limit);
        if *extension == "initrd" {
            goal("MiB of memory to apply it", apply.memory as f64, INITRD_MEMORY);
        }
    }
    println!("\n| goal | measured | limit | met |\n|---|---|---|---|");
    for goal in &goals {
        let Goal { name, found, limit, is_known_miss } = goal;
        let met = match (goal.is_met(), is_known_miss) {
            (true, _) => "yes",
            (false, true) => "no, as docs/delta.md explains",
            (false, false) => "no",
        };
        println!("| {name} | {found:.4} | {limit:.4} | {met} |");
    }
    goals.iter().all(|goal| goal.is_met() || goal.is_known_miss)
}
