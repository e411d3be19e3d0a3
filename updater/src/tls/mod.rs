//! TLS for servers on this host: the certificate, where it is kept, and connections that use it.
//!
//! A host makes itself a certificate when it first needs one, and keeps it on its ESP, so that it stays the same
//! after a reboot and an update. Nobody else signs it, so clients recognise it by its fingerprint, which
//! `status` shows. The operator may configure another certificate.

mod accept;
mod identity;
mod store;

pub(crate) use accept::{Acceptor, Incoming, binding};
pub(crate) use identity::Identity;
pub(crate) use store::{kept_on_esp, kept_until_reboot, read_own, store, store_until_reboot};
