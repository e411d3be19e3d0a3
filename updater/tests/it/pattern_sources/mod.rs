//! Sources of Patterns: what is pulled, pushed and configured, kept, run again and removed.

mod host;
mod interrupted;
mod kept;
mod pull;
mod push;
mod removal;
mod stored;
