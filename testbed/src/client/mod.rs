//! A client of the listener of a host: the address, the trust in its certificate, and HTTP over the
//! connection. [`push`](crate::push) and [`shell`](crate::shell) use it.

mod address;
mod args;
mod connection;
mod reason;
mod trust;

pub(crate) use address::Address;
pub(crate) use args::HostArgs;
pub(crate) use connection::{Answered, ClientError, Phase, Upgraded, connect, post, upgrade};
pub(crate) use reason::{reason, shown};
pub(crate) use trust::Trust;
