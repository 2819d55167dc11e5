//! From the arguments of a function that makes a tensor to a checked view into the file.
//!
//! Follows `torch._utils._rebuild_tensor_v2` and `_v3`, and the persistent identifiers of `torch.serialization`.

use std::ops::Range;

use safetensors::Dtype;

use super::archive::Archive;
use super::error::shorten;
use super::globals::{Global, Rebuild};
use super::node::{Id, Node, Tree};
use super::{PickleError, PickledTensor};

const MAX_RANK: usize = 64;
/// How often a tensor may wrap another one, as a parameter does.
const MAX_WRAPS: usize = 4;
/// A view that repeats elements may have this many however small its storage is.
const MAX_REPEATED: usize = 1 << 20;

/// The checked view of the tensor that `rebuild` makes from the tuple at `args`. `name` is for messages.
pub(super) fn resolve(
    tree: &Tree,
    archive: &Archive,
    name: &str,
    rebuild: Rebuild,
    args: Id,
) -> Result<PickledTensor, PickleError> {
    let resolver = Resolver { tree, archive, name };
    let (rebuild, args) = resolver.unwrap_parameter(rebuild, args)?;
    resolver.view(rebuild, args)
}

struct Resolver<'t, 'a> {
    tree: &'t Tree<'a>,
    archive: &'t Archive<'a>,
    name: &'t str,
}

/// A storage in the file.
struct Storage {
    /// `None` for untyped bytes.
    dtype: Option<Dtype>,
    /// Its bytes in the file, as many as the pickle claims.
    range: Range<usize>,
}

/// Which elements of a storage a tensor is.
struct Layout {
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl<'t> Resolver<'t, '_> {
    fn error(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Tensor { name: shorten(self.name), reason: reason.into() }
    }

    fn args(&self, args: Id) -> &'t [Id] {
        self.tree.sequence(args).unwrap_or_default()
    }

    /// Follows parameters to the tensor that they hold.
    fn unwrap_parameter(&self, mut rebuild: Rebuild, mut args: Id) -> Result<(Rebuild, Id), PickleError> {
        for _ in 0..MAX_WRAPS {
            if rebuild != Rebuild::Parameter {
                return Ok((rebuild, args));
            }
            match self.args(args).first().map(|&first| self.tree.get(first)) {
                Some(&Node::Tensor(inner, inner_args)) => (rebuild, args) = (inner, inner_args),
                _ => return Err(self.error("is a parameter that holds no tensor")),
            }
        }
        Err(self.error("is a parameter inside too many others"))
    }

    fn view(&self, rebuild: Rebuild, args: Id) -> Result<PickledTensor, PickleError> {
        let &[storage, offset, shape, stride, ref rest @ ..] = self.args(args) else {
            return Err(self.error("is made from too few arguments"));
        };
        let layout = self.layout(offset, shape, stride)?;
        let storage = self.storage(storage)?;
        let dtype = match rebuild {
            Rebuild::WithDtype => rest.get(2).and_then(|&dtype| self.dtype(dtype)),
            _ => storage.dtype,
        };
        let dtype = dtype.ok_or_else(|| self.error("has no known element type"))?;
        let range = self.elements(&layout, dtype.bitsize() / 8, &storage.range)?;
        Ok(PickledTensor { dtype, shape: layout.shape, stride: layout.stride, range })
    }

    fn dtype(&self, id: Id) -> Option<Dtype> {
        match self.tree.get(id) {
            Node::Global(Global::Dtype(dtype)) => Some(*dtype),
            _ => None,
        }
    }

    fn layout(&self, offset: Id, shape: Id, stride: Id) -> Result<Layout, PickleError> {
        let offset = self.number(offset).ok_or_else(|| self.error("has no valid offset"))?;
        let shape = self.numbers(shape).ok_or_else(|| self.error("has no valid shape"))?;
        let stride = self.numbers(stride).ok_or_else(|| self.error("has no valid strides"))?;
        if shape.len() != stride.len() {
            return Err(self.error(format!("has {} dimensions but {} strides", shape.len(), stride.len())));
        }
        Ok(Layout { offset, shape, stride })
    }

    fn number(&self, id: Id) -> Option<usize> {
        match self.tree.get(id) {
            Node::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn numbers(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.tree.sequence(id).filter(|items| items.len() <= MAX_RANK)?;
        items.iter().map(|&item| self.number(item)).collect()
    }

    /// The storage of the persistent identifier `('storage', class, key, location, length)`.
    fn storage(&self, id: Id) -> Result<Storage, PickleError> {
        let not_a_storage = || self.error("refers to what is no storage");
        let Node::Persistent(id) = *self.tree.get(id) else { return Err(not_a_storage()) };
        let &[kind, class, key, _location, len] = self.args(id) else { return Err(not_a_storage()) };
        let (Node::Str(kind), Node::Str(key)) = (self.tree.get(kind), self.tree.get(key)) else {
            return Err(not_a_storage());
        };
        let Node::Global(Global::Storage(dtype)) = *self.tree.get(class) else { return Err(not_a_storage()) };
        if kind != "storage" {
            return Err(not_a_storage());
        }
        let len = self.number(len).ok_or_else(not_a_storage)?;
        let range = self.storage_bytes(key, len, dtype.map_or(1, |dtype| dtype.bitsize() / 8))?;
        Ok(Storage { dtype, range })
    }

    fn storage_bytes(&self, key: &str, len: usize, size: usize) -> Result<Range<usize>, PickleError> {
        let key = shorten(key); // PyTorch's are numbers; a long one would be copied for every tensor that names it
        let range = self.archive.storage(&key)?;
        let range =
            range.ok_or_else(|| self.error(format!("needs the archive entry `data/{key}`, which is missing")))?;
        let end = len.checked_mul(size).and_then(|bytes| range.start.checked_add(bytes));
        match end.filter(|&end| end <= range.end) {
            Some(end) => Ok(range.start..end),
            None => Err(self.error(format!(
                "needs {len} elements of {size} bytes, but its storage `data/{key}` has {} bytes",
                range.len()
            ))),
        }
    }

    /// The bytes from the first to the last element of `size` bytes, which must all be in `storage`.
    fn elements(&self, layout: &Layout, size: usize, storage: &Range<usize>) -> Result<Range<usize>, PickleError> {
        let outside = || self.error(format!("of shape {:?} reaches outside of its storage", layout.shape));
        if layout.shape.contains(&0) {
            return Ok(storage.start..storage.start);
        }
        let available = storage.len() / size;
        let count = layout.shape.iter().try_fold(1_usize, |count, &len| count.checked_mul(len)).ok_or_else(outside)?;
        let end = layout.end().filter(|&end| end <= available).ok_or_else(outside)?;
        if count > available.max(MAX_REPEATED) {
            return Err(self.error(format!("of shape {:?} repeats a storage of {available} elements", layout.shape)));
        }
        Ok(storage.start + layout.offset * size..storage.start + end * size)
    }
}

impl Layout {
    /// One past the last element, counted in the storage. Expects no dimension of length 0.
    fn end(&self) -> Option<usize> {
        let mut last = self.offset;
        for (&len, &stride) in self.shape.iter().zip(&self.stride) {
            last = last.checked_add((len - 1).checked_mul(stride)?)?;
        }
        last.checked_add(1)
    }
}
