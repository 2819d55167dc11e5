//! PyTorch's zip archives (`.ckpt`, `.pt`, `.pth`, `.bin`), read without running anything that they contain.
//!
//! Such a file is a zip of stored (uncompressed) entries under one folder: `data.pkl`, a pickle that describes the
//! object tree, and `data/KEY`, the raw bytes of each storage. A pickle is a program for a small stack machine that can
//! call any Python function. Here that machine only builds a tree of plain values (`machine`), the functions it may
//! name are a fixed table (`globals`), and none of them is called: a rebuilt tensor is recorded as a view into the file
//! (`tensors`), and whatever weights do not need becomes an opaque value.
//!
//! What a file claims is never trusted: sizes are checked against the file's bytes before anything is allocated, and
//! the work that a small file can ask for is capped ([`PickleError::Limit`]).
//!
//! Knows nothing of what the names mean, and strips no prefix such as `state_dict.`.

mod archive;
mod cursor;
mod error;
mod flatten;
mod globals;
mod machine;
mod node;
mod tensors;

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use archive::Archive;
pub use error::PickleError;

/// What a legacy file (before PyTorch 1.6) starts with after its protocol: `LONG1`, ten bytes, 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// A tensor as a strided view into the bytes of the file that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickledTensor {
    /// The element type.
    pub dtype: Dtype,
    /// The sizes, outermost dimension first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The step of each dimension in elements, as long as `shape`. May be 0 (an expanded view) or out of order (a
    /// transposed one).
    pub stride: Vec<usize>,
    /// Bytes of the file from the first to one past the last element that the view touches, always inside the file;
    /// empty if there are no elements. Element `i` starts `dot(i, stride)` elements after `range.start`, which need not
    /// be aligned.
    pub range: Range<usize>,
}

/// What was found in an archive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pickled {
    /// Every tensor in the file's order under a unique name: keys and positions on the way to it, joined by `.`. A file
    /// that is nothing but one tensor names it `tensor`.
    pub tensors: Vec<(String, PickledTensor)>,
    /// Numbers, truth values (`true`, `false`) and strings of at most 1 KiB in the root dictionary (`epoch`,
    /// `global_step`, `name`) and in the dictionaries directly in it, named like the tensors.
    pub values: BTreeMap<String, String>,
}

/// How a file that PyTorch may have saved is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A zip archive: PyTorch 1.6 and later. The only one that [`read`] reads.
    Zip,
    /// A bare pickle, with the storages after it for files of PyTorch 0.2 to 1.5.
    LegacyPickle,
    /// A tar archive: PyTorch 0.1.
    Tar,
}

/// Tells by its first bytes how `file` is packed, or `None` if it is nothing that PyTorch saves.
///
/// A safetensors file is `None`, whatever its header's length looks like.
pub fn looks_like(file: &[u8]) -> Option<Container> {
    if is_safetensors(file) {
        None
    } else if file.starts_with(b"PK\x03\x04") || file.starts_with(b"PK\x05\x06") {
        Some(Container::Zip)
    } else if is_pickle(file) {
        Some(Container::LegacyPickle)
    } else if file.get(257..262) == Some(b"ustar") {
        Some(Container::Tar)
    } else {
        None
    }
}

/// Eight bytes of a length and a `{`. The length of a header below 4 GiB ends in four zeros, which no file of PyTorch
/// has there together with the brace.
fn is_safetensors(file: &[u8]) -> bool {
    file.get(4..9) == Some(&[0, 0, 0, 0, b'{'])
}

fn is_pickle(file: &[u8]) -> bool {
    let [0x80, protocol @ 2..=5, rest @ ..] = file else { return false };
    let has_opcode = rest.first().is_some_and(|&byte| byte == 0x95 || *protocol < 4 && machine::is_opcode(byte));
    has_opcode || rest.starts_with(&LEGACY_MAGIC)
}

/// Reads the tree of a PyTorch zip archive: where its tensors are, and the small values beside them. No tensor data is
/// touched.
///
/// `file` is the whole file, usually mapped into memory. Needs below 256 MiB of memory besides it, for any content.
///
/// # Errors
/// See [`PickleError`]: a container that is not a zip, a zip that is cut short, compressed or of TorchScript, a pickle
/// that names a function outside the allow-list or is malformed, a tensor that reaches outside its storage. Messages
/// carry no path.
pub fn read(file: &[u8]) -> Result<Pickled, PickleError> {
    match looks_like(file) {
        Some(Container::Zip) => (),
        Some(Container::LegacyPickle) => return Err(PickleError::Legacy { container: "a bare pickle" }),
        Some(Container::Tar) => return Err(PickleError::Legacy { container: "a tar archive" }),
        None => return Err(PickleError::NotPyTorch),
    }
    let archive = Archive::open(file)?;
    let tree = machine::parse(archive.pickle()?)?;
    flatten::flatten(&tree, &archive)
}
