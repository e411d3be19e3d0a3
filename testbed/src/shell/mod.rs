//! A shell on a host, through its listener; [`protocol::shell`] describes the protocol.

mod command;
mod escape;
mod input;
mod session;
mod terminal;

pub(crate) use command::{Shell, shell};
