//! The real binary, against ESP folders and servers on loopback.

mod bad_input;
mod config;
mod docs;
mod listen;
mod manual;
mod reboot;
mod server;
mod status;
mod units;
mod update;
mod world;
