//! Why an archive was refused.

use thiserror::Error;

/// Why an archive was refused. The messages name the entry, tensor or global and the next step, and leave the path to
/// the caller.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The first bytes are none that PyTorch writes.
    #[error("is not a PyTorch file: it starts neither like a zip archive nor like a pickle")]
    NotPyTorch,

    /// A file of PyTorch before 1.6, or a pickle that PyTorch did not write.
    #[error(
        "is {container}, as PyTorch saved before version 1.6; open it in PyTorch and save it again with \
         `torch.save(torch.load(path, weights_only=True), new)`"
    )]
    Legacy {
        /// What the file is instead of a zip archive.
        container: &'static str,
    },

    /// A program for TorchScript (`torch.jit.save`), not a file of weights.
    #[error(
        "is a TorchScript archive (it has `{entry}`), a program rather than weights; open it in PyTorch with \
         `torch.jit.load` and save its `state_dict()` with `torch.save`"
    )]
    TorchScript {
        /// The entry that gives it away.
        entry: String,
    },

    /// The zip structure is damaged, cut short or not PyTorch's.
    #[error("is not a whole PyTorch archive: {reason}; download or save it again")]
    Archive {
        /// What is wrong.
        reason: String,
    },

    /// An entry whose name is no plain relative path, or is there twice.
    #[error(
        "has the archive entry {entry:?}, which {reason}; PyTorch writes no such entry, so get the file from another \
         source"
    )]
    EntryName {
        /// The entry's name, shortened if it is long.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An entry that is needed is compressed or encrypted.
    #[error(
        "has the compressed or encrypted entry `{entry}`, but PyTorch stores entries as they are; save it again \
         with `torch.save`"
    )]
    Compressed {
        /// The entry.
        entry: String,
    },

    /// The storages are not little-endian.
    #[error("was saved with byte order {found:?}, expected \"little\"; save it again on a little-endian machine")]
    ByteOrder {
        /// What the entry `byteorder` says, shortened if it is long.
        found: String,
    },

    /// The pickle names a function or class outside the allow-list.
    #[error(
        "the pickle asks for `{module}.{name}`, which no weight file needs; nothing was run. Get the model from \
         another source, as safetensors"
    )]
    Forbidden {
        /// The Python module.
        module: String,
        /// The name in it.
        name: String,
    },

    /// `data.pkl` is no well-formed pickle, or one that uses what PyTorch never writes.
    #[error("data.pkl is malformed at byte {at}: {reason}; download or save the file again")]
    Malformed {
        /// Offset in `data.pkl`.
        at: usize,
        /// What is wrong.
        reason: String,
    },

    /// Something is far larger than in any file of weights.
    #[error("has more than {limit} {what}, far more than a file of weights; save only its weights with `torch.save`")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The largest count that is accepted.
        limit: usize,
    },

    /// A tensor's description is not usable.
    #[error("tensor `{name}` {reason}; save the file again")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// `text` for a message: at most 200 characters, none of which moves a terminal's cursor.
pub(super) fn shorten(text: &str) -> String {
    let visible = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    let mut short: String = text.chars().take(200).map(visible).collect();
    if text.chars().nth(200).is_some() {
        short.push_str("...");
    }
    short
}
