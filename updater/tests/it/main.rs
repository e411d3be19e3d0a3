//! Integration tests. They run the real binary on ESPs in temporary directories, with servers on loopback.

mod age;
mod bad_input;
mod config;
mod disk;
mod docs;
mod expiry;
mod listen;
mod manual;
mod network;
mod network_addresses;
mod network_download;
mod network_manifest;
mod network_proxy;
mod network_raw;
mod network_redirect;
mod power;
mod reboot;
mod rotation;
mod server;
mod states;
mod status;
mod trial;
mod units;
mod update;
mod world;
mod wrong_file;
