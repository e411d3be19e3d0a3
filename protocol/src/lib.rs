//! The definitions that the builder and the updater of EtchaOS share.
//!
//! This crate does no I/O and reads no clock: bytes, keys and times are arguments, and decisions are
//! results. The only exception is [`keys::PrivateKey::generate`], which reads random bytes from the
//! operating system.
//!
//! - [`target`], [`role`]: variants, architectures, and the names of a release's files
//! - [`keys`], [`token`]: key strings, signing and verifying tokens (compact JWS)
//! - [`json`]: a strict JSON reader
//! - [`claims`], [`release`], [`manifest`]: the content of a manifest
//! - [`url`]: the URLs of a manifest that a host may fetch
//! - [`proxy`]: the URLs of proxies, and which part of them is secret
//! - [`compare`]: the differences between two releases
//! - [`delta`]: deltas between the files of two releases
//! - [`digest`]: SHA-256 in the form that manifests use
//! - [`date`]: Unix seconds as dates in UTC
//! - [`pattern`]: Etcha's Commands and the order in which they run
//! - [`esp`], [`grubenv`]: the layout of the EFI system partition, and GRUB's environment block
//! - [`boot_order`]: the decisions of grub.cfg

pub mod boot_order;
pub mod claims;
pub mod compare;
pub mod date;
pub mod delta;
pub mod digest;
pub mod esp;
mod excerpt;
pub mod grubenv;
pub mod json;
pub mod keys;
pub mod manifest;
pub mod pattern;
pub mod proxy;
pub mod release;
pub mod role;
pub mod shell;
pub mod target;
pub mod token;
pub mod url;

pub use claims::Claims;
pub use keys::{KeyRing, PrivateKey, PublicKey};
pub use manifest::Manifest;
pub use release::{Artifact, Package, Release};
pub use role::Role;
pub use target::{Arch, Target, Variant};
pub use token::Verified;
