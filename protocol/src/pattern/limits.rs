//! The limits of Patterns. A Pattern is signed, but a mistake in Jsonnet makes a large one quickly.

/// The maximum nesting depth of groups and lists.
pub(super) const DEPTH_MAX: usize = 8;
/// The maximum number of Commands in each list of a Pattern, groups included.
pub(super) const COMMANDS_MAX: usize = 1000;
/// The maximum number of targets of a Command in each of `onChange`, `onFail` and `onRemove`.
pub(super) const TARGETS_MAX: usize = 100;
/// The maximum number of targets in each list of a Pattern. Each is compared with all Commands of the list.
pub(super) const ALL_TARGETS_MAX: usize = 2000;
/// The maximum size of an id, a name or a target in bytes. The id of a Command that is a text is that text.
pub(super) const NAME_MAX: usize = 4096;
/// The maximum size of a script, and of the environment variables of an exec or a Command, in bytes. Linux
/// does not start a program with a larger argument (`MAX_ARG_STRLEN`, execve(2)).
pub(super) const SCRIPT_MAX: usize = 128 * 1024 - 1;
/// The maximum size of the standard input of a script in bytes.
pub(super) const STDIN_MAX: usize = 4 << 20;
/// The maximum size of a regular expression in bytes, and of its compiled form.
pub(super) const REGEX_MAX: usize = 1024;
/// See [`REGEX_MAX`].
pub(super) const REGEX_COMPILED_MAX: usize = 256 * 1024;
/// The maximum nesting depth of a regular expression.
pub(super) const REGEX_DEPTH_MAX: u32 = 32;
/// The maximum size of an environment variable that a Command sets, in bytes. The rest is cut off.
pub(super) const EXPORT_MAX: usize = 32 * 1024;
/// The maximum size of all environment variables that Commands set, in bytes. Linux limits the arguments and
/// the environment of a program to a quarter of the stack's limit, 2 MiB (execve(2)).
pub(super) const EXPORTS_MAX: usize = 1 << 20;
