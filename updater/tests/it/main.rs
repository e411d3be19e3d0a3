//! The real binary, against ESP folders and servers on loopback.

mod bad_input;
mod config;
mod listen;
mod power;
mod server;
mod update;
mod world;
