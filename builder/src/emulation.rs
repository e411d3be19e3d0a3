//! Programs for another architecture than that of the build host, which the kernel runs in an emulator.
//!
//! The kernel finds the emulator of a program in the handlers of binfmt_misc (kernel document
//! `admin-guide/binfmt-misc.rst`). Programs of a root tree run with a changed root, where the emulator does
//! not exist. So the handler needs the flag `F`, with which the kernel opens the emulator when the handler is
//! registered.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use protocol::Arch;

/// The file system that lists the handlers.
const FILE_SYSTEM: &str = "binfmt_misc";
/// Where it is mounted. Handlers also work where it is not mounted.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Debian's package with the emulators and the descriptions of their handlers.
pub(crate) const PACKAGE: &str = "qemu-user-static";

/// The size of the part of an ELF header that tells the architecture.
const HEADER: usize = 20;

/// Whether the kernel runs programs for an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It does, also inside of a root tree.
    Ready,
    /// The list of handlers is not mounted.
    NotMounted,
    /// All handlers are disabled.
    Disabled,
    /// No handler is registered.
    NotRegistered,
    /// The handler has no flag `F`.
    NotFixed,
}

/// Returns the name of an architecture in the names of QEMU's programs.
fn qemu_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    }
}

/// Returns the path of the file that describes the handler, which the package of the emulator contains.
pub(crate) fn rule(arch: Arch) -> String {
    format!("/usr/lib/binfmt.d/qemu-{}.conf", qemu_name(arch))
}

/// Returns the path of the handler.
pub(crate) fn handler(arch: Arch) -> String {
    format!("{HANDLERS}/qemu-{}", qemu_name(arch))
}

/// Returns whether programs for this architecture run on this machine, in every root tree.
pub(crate) fn is_ready(arch: Arch) -> bool {
    Arch::native() == Some(arch) || state(Path::new(HANDLERS), arch) == State::Ready
}

/// Returns what is missing and the commands that change it, or `None` if nothing is missing.
pub(crate) fn problem(arch: Arch) -> Option<(&'static str, String)> {
    let (handlers, rule, handler) = (HANDLERS, rule(arch), handler(arch));
    let mount = format!("mount -t {FILE_SYSTEM} {FILE_SYSTEM} {handlers}");
    let register = format!("cat {rule} >{handlers}/register");
    match state(Path::new(HANDLERS), arch) {
        State::Ready => None,
        State::NotMounted => Some((
            "binfmt_misc is not mounted",
            format!("modprobe {FILE_SYSTEM}; {mount} && {{ [ -e {handler} ] || {register}; }}"),
        )),
        State::Disabled => Some(("binfmt_misc is disabled", format!("echo 1 >{handlers}/status"))),
        State::NotRegistered => Some(("no emulator is registered with binfmt_misc", register)),
        State::NotFixed => Some((
            "the emulator is registered without the flag F, so that it does not run in a root tree",
            format!("echo -1 >{handler} && {register}"),
        )),
    }
}

/// Makes the kernel run programs for this architecture, until the next boot. systemd-binfmt does the same at
/// each boot.
///
/// # Errors
/// Fails if a handler exists that does not suffice: another program depends on it.
pub(crate) fn enable(arch: Arch) -> Result<()> {
    let handlers = Path::new(HANDLERS);
    if state(handlers, arch) == State::NotMounted {
        // Without the module, the mount point does not exist. With it, an error has no effect.
        let _ = Command::new("modprobe").arg(FILE_SYSTEM).status();
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
        nix::mount::mount(Some(FILE_SYSTEM), handlers, Some(FILE_SYSTEM), flags, none)
            .with_context(|| format!("mounting {FILE_SYSTEM} on {HANDLERS}"))?;
    }
    if state(handlers, arch) == State::NotRegistered {
        let rule = rule(arch);
        let text = fs::read_to_string(&rule).with_context(|| format!("reading {rule}"))?;
        let line = registration(&text).with_context(|| format!("{rule} describes no handler"))?;
        let register = handlers.join("register");
        fs::write(&register, line).with_context(|| format!("writing {}", register.display()))?;
    }
    let problem = problem(arch);
    let (what, commands) = problem.unwrap_or_default();
    ensure!(what.is_empty(), "this machine does not run {arch} programs: {what}; run: {commands}");
    Ok(())
}

/// Returns the line of a file in binfmt.d(5) that registers a handler, with the flag `F`.
fn registration(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with(':'))?;
    let (_, flags) = line.rsplit_once(':')?;
    Some(if flags.contains('F') { line.to_owned() } else { format!("{line}F") })
}

fn state(handlers: &Path, arch: Arch) -> State {
    let Ok(status) = fs::read_to_string(handlers.join("status")) else { return State::NotMounted };
    if status.trim() != "enabled" {
        return State::Disabled;
    }
    let found = running(handlers, arch).unwrap_or_default();
    match found.iter().any(|handler| flags(handler).contains('F')) {
        true => State::Ready,
        false if found.is_empty() => State::NotRegistered,
        false => State::NotFixed,
    }
}

/// Returns the descriptions of all handlers that run programs for this architecture, whatever their names are.
fn running(handlers: &Path, arch: Arch) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in handlers.read_dir()? {
        // The file "register" cannot be read.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if runs(&text, &elf_header(arch)) {
            found.push(text);
        }
    }
    Ok(found)
}

/// Returns the beginning of a position-independent program for Linux (`ELF-64 Object File Format`, and the
/// list of machines in the ELF gABI).
fn elf_header(arch: Arch) -> [u8; HEADER] {
    let machine = match arch {
        Arch::Amd64 => 62,
        Arch::Arm64 => 183,
    };
    let mut header = [0; HEADER];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16] = 3;
    header[18] = machine;
    header
}

/// Returns whether a handler is enabled and runs programs that begin with `header`.
fn runs(handler: &str, header: &[u8; HEADER]) -> bool {
    let field =
        |name: &str| handler.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
    let Some(magic) = bytes(field("magic ")) else { return false };
    let mask = bytes(field("mask ")).unwrap_or_default();
    let mask = mask.into_iter().chain(std::iter::repeat(0xff));
    let matches = header.iter().zip(&magic).zip(mask).all(|((a, b), mask)| a & mask == b & mask);
    handler.lines().next() == Some("enabled")
        && field("offset ") == "0"
        && magic.len() == HEADER
        && matches
}

fn flags(handler: &str) -> &str {
    handler.lines().find_map(|line| line.strip_prefix("flags:")).map_or("", str::trim)
}

/// Decodes hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let decode = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(decode).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &str = "magic 7f454c460201010000000000000000000200b700";
    const MASK: &str = "mask ffffffffffffff00fffffffffffffffffeffffff";

    fn found(status: Option<&str>, handlers: &[String]) -> State {
        let directory = tempfile::tempdir().unwrap();
        if let Some(status) = status {
            fs::write(directory.path().join("status"), format!("{status}\n")).unwrap();
        }
        for (number, text) in handlers.iter().enumerate() {
            fs::write(directory.path().join(format!("handler{number}")), text).unwrap();
        }
        state(directory.path(), Arch::Arm64)
    }

    fn handler(first: &str, flags: &str) -> String {
        format!("{first}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\n{MAGIC}\n{MASK}\n")
    }

    #[test]
    fn finds_an_enabled_handler_with_the_flag_f() {
        assert_eq!(found(None, &[]), State::NotMounted);
        assert_eq!(found(Some("disabled"), &[handler("enabled", "OPF")]), State::Disabled);
        assert_eq!(found(Some("enabled"), &[]), State::NotRegistered);
        assert_eq!(found(Some("enabled"), &[handler("disabled", "OPF")]), State::NotRegistered);
        assert_eq!(found(Some("enabled"), &[handler("enabled", "OP")]), State::NotFixed);
        let both = [handler("enabled", ""), handler("enabled", "OPF")];
        assert_eq!(found(Some("enabled"), &both), State::Ready);
    }

    #[test]
    fn handlers_of_other_programs_do_not_count() {
        let good = handler("enabled", "F");
        for (from, to) in [
            ("b700", "3e00"),
            ("offset 0", "offset 2"),
            (MAGIC, "extension .exe"),
            (MAGIC, "magic 7f454c4"),
            ("7f454c46", "7f454c47"),
        ] {
            let other = good.replace(from, to);
            assert_eq!(found(Some("enabled"), &[other]), State::NotRegistered, "{from} → {to}");
        }
        assert!(runs(&good, &elf_header(Arch::Arm64)) && !runs(&good, &elf_header(Arch::Amd64)));
    }

    #[test]
    fn registers_with_the_flag_f() {
        let rule = |flags: &str| format!("# comment\n:qemu:M::\\x7f:\\xff:/usr/bin/qemu:{flags}\n");
        let expected = ":qemu:M::\\x7f:\\xff:/usr/bin/qemu:";
        assert_eq!(registration(&rule("OP")).unwrap(), format!("{expected}OPF"));
        assert_eq!(registration(&rule("OPF")).unwrap(), format!("{expected}OPF"));
        assert_eq!(registration(&rule("")).unwrap(), format!("{expected}F"));
        assert_eq!(registration("# nothing\n"), None);
    }
}
