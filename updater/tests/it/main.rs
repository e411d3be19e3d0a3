//! The real binary, against ESP folders and servers on loopback.

mod bad_input;
mod config;
mod disk;
mod listen;
mod network;
mod network_download;
mod network_manifest;
mod network_proxy;
mod power;
mod server;
mod update;
mod world;
