//! What the builder and the updater of EtchaOS must agree on.
//!
//! No I/O and no clock: bytes, keys and time come in as arguments, decisions come out. The one
//! exception is [`keys::PrivateKey::generate`], which asks the operating system for randomness.
//!
//! - [`target`]: variant and architecture, and the file names that follow from them
//! - [`keys`], [`token`]: key strings, signing and verifying compact JWS
//! - [`json`]: JSON that can be read in one way only
//! - [`claims`], [`release`]: what a manifest says
//! - [`url`]: which URLs of a manifest a host may follow
//! - [`compare`]: is this the same release, and if not, what differs
//! - [`digest`]: SHA-256 as manifests write it
//! - [`date`]: Unix seconds as dates that people read
//! - [`pattern`]: Etcha's Commands and the order they run in
//! - [`esp`], [`grubenv`]: the layout of the EFI system partition and GRUB's environment block
//! - [`boot_order`]: the decisions of grub.cfg

pub mod boot_order;
pub mod claims;
pub mod compare;
pub mod date;
pub mod digest;
pub mod esp;
pub mod grubenv;
pub mod json;
pub mod keys;
pub mod pattern;
pub mod release;
pub mod target;
pub mod token;
pub mod url;

pub use claims::{Claims, Manifest};
pub use keys::{KeyRing, PrivateKey, PublicKey};
pub use release::{Artifact, Package, Release, Role};
pub use target::{Arch, Target, Variant};
pub use token::Verified;
