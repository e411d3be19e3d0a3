//! The subcommands: their options, and what they do.

mod args;
mod build;
mod check;
mod checkout;
mod delta;
mod inspect;
mod part;
mod reissue;
mod reproduce;
mod session;
mod variants;
mod verify;

pub(crate) use args::{native, targets};
pub(crate) use build::{BuildArgs, PublishArgs, RunArgs, TestArgs};
pub(crate) use check::CheckArgs;
pub(crate) use checkout::{Checkout, workspace};
pub(crate) use delta::Delta;
pub(crate) use inspect::InspectArgs;
pub(crate) use reissue::{BridgeArgs, RenewArgs, WithdrawArgs};
pub(crate) use reproduce::ReproduceArgs;
pub(crate) use variants::VariantsArgs;
pub(crate) use verify::VerifyArgs;
