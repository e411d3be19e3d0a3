//! Publishing with the real program: what hosts see, what publishers read in docs/keys.md, and faults.

#[path = "../judge/mod.rs"]
mod judge;

#[path = "../s3/mod.rs"]
mod s3;

mod bucket;
mod destinations;
mod etcha;
mod host;
mod hostile;
mod inspected;
mod keys;
mod killed;
mod random;
mod retained;
mod server;
mod several;
mod updater;
mod verified;
mod world;
