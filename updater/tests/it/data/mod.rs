//! The data partition on loop devices, with the real systemd-repart and the real file systems.

mod encrypt;
mod keep;
mod machine;
mod refuse;
