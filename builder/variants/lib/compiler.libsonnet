// The sandbox that compiles the updater for another architecture than that of the build host, if rustup cannot
// install a target. It is Debian for every variant, because the updater is a static program.
{
  local compiler = self,

  suite:: 'trixie',

  // The architecture of the image, that of the build host, and the names of GNU's compilers.
  target:: std.extVar('arch'),
  host:: if compiler.target == 'amd64' then 'arm64' else 'amd64',
  gnu:: { amd64: 'x86-64-linux-gnu', arm64: 'aarch64-linux-gnu' },

  // Debian's Rust for web browsers is newer than the rest of the release.
  packages:: [
    'rustc-web',
    'cargo-web',
    'libstd-rust-web-dev:' + compiler.target,
    'gcc-' + compiler.gnu[compiler.target],
    'libc6-dev-%s-cross' % compiler.target,
  ],

  // The builder appends the path of the output, and the sources if a mirror was given.
  bootstrap: [
    'mmdebstrap',
    '--variant=apt',
    '--architectures=%s,%s' % [compiler.host, compiler.target],
    '--include=' + std.join(',', compiler.packages),
    // The sandbox is made again if it is lost, so nothing needs to wait for the disk.
    '--dpkgopt=force-unsafe-io',
    '--dpkgopt=path-exclude=/usr/share/doc/*',
    '--dpkgopt=path-exclude=/usr/share/man/*',
    '--dpkgopt=path-exclude=/usr/share/locale/*',
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    compiler.suite,
  ],
  hostPackages: ['mmdebstrap', 'debian-archive-keyring'],

  // {MIRROR} is the URL that the operator gave. The mirror of a variant that is not Debian has none of these.
  sources: [
    'deb {MIRROR} %s main' % compiler.suite,
    'deb {MIRROR} %s-updates main' % compiler.suite,
  ],
  securitySources: ['deb {MIRROR}-security %s-security main' % compiler.suite],
}
