//! The names that compilers give to an architecture.

use protocol::Arch;

/// Returns the name of Rust's target.
pub(crate) fn rust(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    }
}

/// Returns the prefix of the names of GNU's programs, which is also the name of the directory that Debian
/// installs the C library of a foreign architecture in.
pub(crate) fn gnu(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    }
}

/// Returns Debian's packages with the C compiler and with the C library for a foreign architecture.
pub(crate) fn packages(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::Amd64 => ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
        Arch::Arm64 => ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
    }
}
