//! A client of the listener of a host: the address, the trust in its certificate, and HTTP over the
//! connection. [`push`](crate::push) uses it.

mod address;
mod args;
mod connection;
mod trust;

pub(crate) use address::Address;
pub(crate) use args::HostArgs;
pub(crate) use connection::{Answered, ClientError, Phase, connect, post};
pub(crate) use trust::Trust;
