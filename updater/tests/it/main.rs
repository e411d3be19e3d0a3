//! The real binary, against ESP folders and servers on loopback.

mod bad_input;
mod config;
mod listen;
mod reboot;
mod rotation;
mod server;
mod trial;
mod update;
mod world;
