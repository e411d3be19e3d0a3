//! Sources of Patterns and Commands: what they push, what this host pulls from them, and what the configuration has.
//!
//! 1. `pull` fetches Patterns, in a sandbox. `accept` decides which of them are accepted, and which of those that
//!    are pushed are kept.
//! 2. `kept` is the format of what is kept of a source, `files` writes it in an order that survives a power cut,
//!    and `store` chooses the file system.
//! 3. `run` chooses the sources that run, one after the other. `work` runs what is in force of a source, and removes
//!    what it replaces with `predecessors`. `lock` lets one process do so at a time.
//! 4. `results` records what was done, for `status`.

mod accept;
mod files;
mod kept;
mod lock;
mod predecessors;
mod pull;
mod results;
mod run;
mod store;
mod work;

pub use self::accept::{Refusal, acceptable, is_kept};
pub use self::files::{Limits, WriteError, read_all, remove, write};
pub use self::kept::{Accepted, FILE_MAX, Kept, KeptError, PREVIOUS_MAX, Succession, Way};
pub(crate) use self::lock::{Turn, wait_for_turn};
pub(crate) use self::pull::Puller;
pub(crate) use self::results::{PullResult, Pulls, RunState, SourceRuns};
pub(crate) use self::run::{Pushed, Runner, Selection};
pub(crate) use self::store::Store;
