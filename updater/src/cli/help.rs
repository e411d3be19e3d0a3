//! The ends of the help texts: the configuration, examples and exit codes.

pub(super) const AFTER_HELP: &str = "\
Configuration:
  The configuration is a JSON object, merged from the following sources. A later source replaces
  the value, or the whole list, of an earlier one; only keys, listen.sources and sources are added together.

    1. built-in defaults
    2. /usr/lib/etchaos/updater.json
    3. etchaos/config.json on the ESP
    4. etchaos.config= on the kernel command line
    5. SMBIOS type 11 strings that begin with etchaos=
    6. user data of AWS, Azure, GCP, Hetzner or OpenStack
    7. user data on a volume labelled config-2 or cidata
    8. files given with --config

  The kernel command line and SMBIOS also accept base64 of the JSON. User data is a configuration if
  its first line is #etchaos, or if it is a JSON object and more than half of its keys are among
  these; other user data is ignored. A broken source does not take the values of the others away,
  but if it may set cdn, nothing is installed. Keys:

  cdn             URL (https://… or, because releases are signed, http://…) or absolute directory
                  with the releases, or a list of mirrors in the order in which to try them
  variant         variant to follow; default: the running one
  keys            public keys to trust in addition to those in /usr/lib/etchaos/keys
  allowedOrigins  list of https://host[:port] to which redirects and artifact URLs may lead in
                  addition to the CDN's origin
  proxy           http://[user:password@]host:port; default: https_proxy and http_proxy of the
                  environment
  noProxy         hosts to connect to without the proxy: names, .suffixes or *
  ca              PEM files with certificate authorities to trust in addition to the public ones
  rateLimit       maximum download rate in bytes per second, or with a unit: \"500K\", \"2M\"
  health.units    units that must be active before a new release is confirmed
  health.checks   shell commands that must exit with 0 before a new release is confirmed
  health.deadline time after boot within which a host must become healthy; default: 15min
  reboot          when to boot a new release: idle (default: as soon as no user is logged in and no
                  inhibitor is held), now, never, or a window: {\"window\": \"Sat 02:00\",
                  \"duration\": \"2h\"}, where window is a calendar expression of systemd, and
                  \"idle\": false ignores users and inhibitors
  metrics         file that ends with .prom, for the textfile collector of node-exporter
  listen          server for pushes: {\"address\": \"0.0.0.0:4000\", \"sources\": {NAME: {\"keys\":
                  [\"ed25519public:…\"]}}}; a push is a list of shell commands (an Etcha Pattern),
                  signed with a key of its source; default: no sources, so the server does not run;
                  \"shell\": true in an entry of sources also lets that source open a shell
  listen.tls      true (default): TLS with a certificate that the host makes; false: plain HTTP; or
                  the operator's certificate and key, as files or PEM: {\"certificate\":
                  \"/etc/tls/host.crt\", \"key\": \"/etc/tls/host.key\"}
  data            what is kept over reboots, on a partition that the host creates: {} for Docker and
                  the journal, in the free space of the disk that was booted; {\"disk\": \"/dev/…\"}
                  for an empty disk, and \"fileSystem\": \"xfs\" or \"btrfs\", \"encrypt\": \"tpm\",
                  \"paths\": [\"/var/…\"], \"journal\": false; default: nothing is kept
  hostname        host name, such as web1 or web1.example.org
  interfaces      network interfaces: {NAME: {\"match\": {\"name\": \"en*\"}, \"addresses\":
                  [\"192.0.2.10/24\"], \"gateways\": [\"192.0.2.1\"], \"dns\": [\"192.0.2.53\"]}};
                  match has name, mac or driver; also: domains, dhcp, mtu; default: DHCP
  ntp             time servers; default: those of DHCP and of the image
  sources         what runs after each boot and again: {NAME: {\"pull\": URL of a Pattern or list of
                  URLs, \"keys\": [keys that sign it], \"commands\": [Commands of Etcha],
                  \"interval\": \"1h\" (default), \"vars\": {…}, \"unhealthy\": false (default)}}; what is
                  pushed by a source of the same name in listen.sources runs again, too

Examples:
  A configuration with two mirrors, without automatic reboots, and with a push source:

  {\"cdn\": [\"https://cdn.example/etchaos\", \"/mnt/mirror\"], \"reboot\": \"never\",
   \"listen\": {\"sources\": {\"ci\": {\"keys\": [\"ed25519public:…\"]}}}}

  Show the state of the host:                   etchaos-updater status
  Show what an update would do:                 etchaos-updater update --dry-run
  Update from a USB stick:                      etchaos-updater update --config /mnt/stick.json
  Return to the previous release:               etchaos-updater rollback

Exit codes:
  0    success, or nothing to do
  1    error; verify: something is damaged; health: the host is not healthy; rollback: the other
       slot cannot be booted; sources: a Pattern could not be pulled, or a Command failed;
       config --require: the value is not set
  2    invalid usage
  3    nothing was done, for a reason that is not an error: the running release is not confirmed
       yet, the offered release failed its trial or was rolled back, no push source is configured, or
       no source has a Pattern or Commands
  4    check, update, health, host-settings: success, but a source of the configuration is broken
  10   check: an action is outstanding (install, repair, reboot, or cancel a trial)
  129, 130, 143
       ended by SIGHUP, SIGINT or SIGTERM; the next update resumes
  255  config --require: the value cannot be determined";

pub(super) const CHECK_HELP: &str = "\
Examples:
  etchaos-updater check
  etchaos-updater check --json

Exit codes:
  0    the host is up to date
  1    error
  2    invalid usage
  3    the offered release is not to be installed: the running release is not confirmed yet, or the
       offered one failed its trial or was rolled back
  4    the host is up to date, but a source of the configuration is broken
  10   an action is outstanding: install, repair, reboot, or cancel a trial";
pub(super) const UPDATE_HELP: &str = "\
Examples:
  etchaos-updater update --dry-run
  etchaos-updater update --no-reboot
  etchaos-updater update --config /mnt/stick.json

Exit codes:
  0    success, or nothing to do
  1    error; the running release is unchanged
  2    invalid usage
  3    the offered release was not installed: the running release is not confirmed yet, or the
       offered one failed its trial or was rolled back
  4    success, but a source of the configuration is broken
  129, 130, 143
       ended by SIGHUP, SIGINT or SIGTERM; the next update resumes";
pub(super) const STATUS_HELP: &str = "\
Examples:
  etchaos-updater status
  etchaos-updater status --json

Exit codes:
  0    the status was shown
  1    error, or a source of the configuration is broken
  2    invalid usage";
pub(super) const VERIFY_HELP: &str = "\
Examples:
  etchaos-updater verify
  etchaos-updater --esp /mnt/esp --config rescue.json verify

Exit codes:
  0    no problem was found
  1    a slot is damaged, a source of the configuration is broken, or another error
  2    invalid usage";
pub(super) const CONFIRM_HELP: &str = "\
Examples:
  etchaos-updater confirm

Exit codes:
  0    the running slot is the good slot; or it must not become the good slot, because it was rolled
       back, or was booted without a trial and never confirmed
  1    error
  2    invalid usage";
pub(super) const HEALTH_HELP: &str = "\
Examples:
  etchaos-updater health
  etchaos-updater health --wait

Exit codes:
  0    the host is healthy
  1    the host is not healthy, or error
  2    invalid usage
  4    the host is healthy, but a source of the configuration is broken; with --wait, 0";
pub(super) const ROLLBACK_HELP: &str = "\
Examples:
  etchaos-updater rollback
  etchaos-updater rollback --no-reboot

Exit codes:
  0    the next boot uses the other slot, or a trial was canceled before its first boot
  1    the other slot cannot be booted, or error
  2    invalid usage";
pub(super) const HOST_SETTINGS_HELP: &str = "\
Examples:
  etchaos-updater host-settings

Exit codes:
  0    the settings are applied
  1    error
  2    invalid usage
  4    the settings are applied, but a source of the configuration is broken";
pub(super) const LISTEN_HELP: &str = "\
Examples:
  etchaos-updater listen

Exit codes:
  1    error
  2    invalid usage
  3    no push source with a key is configured";
pub(super) const SOURCES_HELP: &str = "\
Examples:
  etchaos-updater sources --pull --all
  etchaos-updater sources --all

Exit codes:
  0    all Patterns and Commands ran, or none was due
  1    a Pattern could not be pulled, or a Command failed, or error
  2    invalid usage
  3    no source has a Pattern or Commands";
pub(super) const DATA_HELP: &str = "\
Examples:
  etchaos-updater data recovery-key
  etchaos-updater data unlock <recovery.key

Exit codes:
  0    success, or nothing to do
  1    error; unlock: also if the partition is unlocked, but is not mounted, or the TPM will not
       unlock it
  2    invalid usage";
pub(super) const CONFIG_HELP: &str = "\
Examples:
  etchaos-updater config
  etchaos-updater config --json
  etchaos-updater config --require cdn

Exit codes:
  0    the configuration was shown; with --require: the value is set
  1    error, or a source is broken; with --require: the value is not set
  2    invalid usage
  255  with --require: the value is not set or not known, and a source that may have it is broken
       (cdn), or cannot be read now (listen)";
