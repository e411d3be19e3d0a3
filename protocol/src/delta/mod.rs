//! Deltas: patches from a file of one release to the same file of another. `docs/delta.md` describes the
//! format and its design.
//!
//! A delta takes into account that parts of both files are compressed. It lists *extents* of the source, which are
//! decompressed where they are zstd frames; their contents together are the *expanded source*. The new
//! content is described by its differences from the expanded source, and is compressed again where the
//! target has a frame. The result of each compression is compared with a digest, because zstd gives the same
//! bytes only for the same version and level. What the target has in common with the source, including
//! compressed blocks, is copied as it is.
//!
//! [`apply`] reads a delta once from its beginning to its end and writes the target in order. Its memory and
//! time are bounded, whatever the delta says. It does not verify the result as a whole: the caller must
//! compare the digest of the target.

mod apply;
mod codec;
mod encode;
mod error;
mod header;
mod limits;
mod source;
mod stream;
#[cfg(test)]
mod tests;

pub use apply::apply;
pub use codec::{BLOCK_MAX, Codec, Recompress};
pub use encode::{Delta, Extent, Operation, Segment};
pub use error::DeltaError;
pub use header::{FRAME_MAX, Header, memory_of};
pub use limits::{DELTA_MAX, FORMAT, Limits};
