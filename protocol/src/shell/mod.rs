//! An interactive shell through the listener of a host: how a client asks for it, and the frames in which both
//! sides then exchange input and output. The protocol is our own; Etcha's clients do not know it.
//!
//! # The request
//!
//! The client connects with TLS 1.3 and sends a request for an upgrade (RFC 9110 section 7.8):
//!
//! ```text
//! GET /etchaos/v1/shell/<source> HTTP/1.1
//! Host: <host>
//! Connection: Upgrade
//! Upgrade: etchaos-shell/1
//! Authorization: Bearer <token>
//! ```
//!
//! The token is signed by a key of the source. It has `iat`, and `etchaosShell`, an object whose `binding` is the
//! [`Binding`] of this connection: 32 bytes that TLS derives from its keys (the exporter of RFC 5705 and
//! RFC 8446 section 7.5) with the label [`EXPORTER_LABEL`] and without a context, as hexadecimal digits. Both
//! sides compute it. Nobody else can make a connection that has the same, so a token that somebody sees or relays
//! is worthless on every other connection. This does not depend on the certificate that the client accepts.
//!
//! The host answers with `101 Switching Protocols` and `Upgrade: etchaos-shell/1`. Every other status is a
//! refusal, whose body is that of a push that is refused.
//!
//! # The frames
//!
//! Then both sides send frames: a byte for the type, the length of the payload as two bytes, most significant
//! first, and the payload of at most [`PAYLOAD_MAX`] bytes.
//!
//! | type | name | from | payload |
//! |---|---|---|---|
//! | 1 | open | client | the first frame: empty for a shell with pipes; for one with a terminal, its columns and rows, two bytes each, and the value of TERM |
//! | 2 | input | client | bytes for standard input |
//! | 3 | end of input | client | empty |
//! | 4 | window | client | the new columns and rows of the terminal |
//! | 5 | alive | both | empty; sent every [`ALIVE_SECONDS`], so that each side notices that the other one vanished |
//! | 16 | output | host | bytes of the terminal, or of standard output |
//! | 17 | error output | host | bytes of standard error, without a terminal |
//! | 18 | exit | host | the last frame: the exit code, one byte; 128+N if signal N ended the shell |
//! | 19 | failed | host | the last frame: why there is no shell, in UTF-8 |
//!
//! A side that receives anything else ends the connection, and so does one that receives nothing for
//! [`SILENCE_SECONDS`]. The end of the connection ends the shell, with all of its processes.

mod binding;
mod frame;

pub use binding::{Binding, ShellClaim};
pub use frame::{Decoder, Frame, FrameError, PAYLOAD_MAX, Size, Terminal};

/// The path of requests, before the name of the source.
pub const PATH: &str = "/etchaos/v1/shell/";
/// The value of the header `Upgrade`.
pub const UPGRADE: &str = "etchaos-shell/1";
/// The label of the exporter. Labels with this prefix need no registration (RFC 5705 section 4).
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-etchaos-shell";
/// How many seconds a token is valid after its `iat`. It is signed after the connection was made.
pub const FRESH_SECONDS: u64 = 60;
/// The seconds between two frames that say that a side is alive.
pub const ALIVE_SECONDS: u64 = 15;
/// The seconds without any frame after which a side regards the connection as lost.
pub const SILENCE_SECONDS: u64 = 60;
