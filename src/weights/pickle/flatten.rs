//! From the tree to names: every tensor by the keys on the way to it, and the small values near the root.
//!
//! A shared node is met once for each way to it, as tied weights are, so a small file can describe an endless tree. The
//! work is capped: visits, depth, and the bytes of all that is returned.

use std::collections::HashSet;

use super::archive::Archive;
use super::error::shorten;
use super::node::{Id, Node, Tree};
use super::tensors;
use super::{PickleError, Pickled};

const MAX_VISITS: usize = 1 << 21;
const MAX_DEPTH: usize = 128;
/// Bytes of names, shapes and values.
const MAX_BYTES: usize = 64 << 20;
const MAX_VALUE_BYTES: usize = 1 << 10;
/// What a tensor takes beside its name and shape.
const TENSOR_BYTES: usize = 128;
/// The name of a tensor that is the whole file.
const ROOT_TENSOR: &str = "tensor";

/// Names all that is in `tree`.
pub(super) fn flatten(tree: &Tree, archive: &Archive) -> Result<Pickled, PickleError> {
    let mut walk =
        Walk { tree, archive, frames: Vec::new(), path: String::new(), visits: 0, bytes: 0, found: Pickled::default() };
    if let Node::Tensor(..) = tree.get(tree.root) {
        walk.path.push_str(ROOT_TENSOR);
    }
    walk.enter(tree.root)?;
    while walk.advance()? {}
    refuse_duplicates(&walk.found)?;
    Ok(walk.found)
}

/// `{"a": {"b": x}}` and `{"a.b": x}` have the same name, and so have the keys `1` and `"1"`.
fn refuse_duplicates(found: &Pickled) -> Result<(), PickleError> {
    let mut names = HashSet::with_capacity(found.tensors.len());
    match found.tensors.iter().find(|(name, _)| !names.insert(name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            Err(PickleError::Tensor { name: shorten(name), reason: "shares its name with another tensor".to_owned() })
        }
    }
}

/// A collection that is being walked.
struct Frame {
    id: Id,
    next: usize,
    path_len: usize,
}

struct Walk<'t, 'a> {
    tree: &'t Tree<'a>,
    archive: &'t Archive<'a>,
    frames: Vec<Frame>,
    path: String,
    visits: usize,
    bytes: usize,
    found: Pickled,
}

/// What leads from a collection to one of its items.
enum Step {
    Key(Id),
    Index(usize),
}

impl Walk<'_, '_> {
    /// Takes one step; `false` at the end of the walk.
    fn advance(&mut self) -> Result<bool, PickleError> {
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        self.path.truncate(frame.path_len);
        let (id, index) = (frame.id, frame.next);
        frame.next += 1;
        match self.item(id, index) {
            None => drop(self.frames.pop()),
            Some((step, child)) => {
                self.count_visit()?;
                if self.extend_path(step)? {
                    self.enter(child)?;
                }
            }
        }
        Ok(true)
    }

    fn item(&self, id: Id, index: usize) -> Option<(Step, Id)> {
        match self.tree.get(id) {
            Node::Dict(items) => items.get(index).map(|&(key, child)| (Step::Key(key), child)),
            _ => self.tree.sequence(id)?.get(index).map(|&child| (Step::Index(index), child)),
        }
    }

    /// Adds a part to the path; `false` for a key that makes no name, such as a class.
    fn extend_path(&mut self, step: Step) -> Result<bool, PickleError> {
        let number;
        let part = match step {
            Step::Index(index) => {
                number = index.to_string();
                &number
            }
            Step::Key(key) => match self.tree.get(key) {
                Node::Str(text) => text.as_ref(),
                Node::Int(int) => {
                    number = int.to_string();
                    &number
                }
                _ => return Ok(false),
            },
        };
        if self.frames.len() > 1 {
            self.path.push('.');
        }
        self.bytes = charge(self.bytes, part.len())?;
        self.path.push_str(part);
        Ok(true)
    }

    /// Records the node at `id` under the current path, or goes into it.
    fn enter(&mut self, id: Id) -> Result<(), PickleError> {
        match self.tree.get(id) {
            Node::Dict(_) | Node::List(_) | Node::Tuple(_) => self.open(id),
            &Node::Tensor(rebuild, args) => {
                let tensor = tensors::resolve(self.tree, self.archive, &self.path, rebuild, args)?;
                self.bytes = charge(self.bytes, self.path.len() + 16 * tensor.shape.len() + TENSOR_BYTES)?;
                self.found.tensors.push((self.path.clone(), tensor));
                Ok(())
            }
            node => match self.is_near_root().then(|| value(node)).flatten() {
                Some(value) => self.record(value),
                None => Ok(()),
            },
        }
    }

    fn open(&mut self, id: Id) -> Result<(), PickleError> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(PickleError::Limit { what: "levels of nesting", limit: MAX_DEPTH });
        }
        self.frames.push(Frame { id, next: 0, path_len: self.path.len() });
        Ok(())
    }

    /// Whether the item at hand is in the root dictionary or in a dictionary in that.
    fn is_near_root(&self) -> bool {
        let is_dict = |frame: &Frame| matches!(self.tree.get(frame.id), Node::Dict(_));
        matches!(self.frames.len(), 1 | 2) && self.frames.iter().all(is_dict)
    }

    fn record(&mut self, value: String) -> Result<(), PickleError> {
        self.bytes = charge(self.bytes, self.path.len() + value.len() + TENSOR_BYTES)?;
        self.found.values.insert(self.path.clone(), value);
        Ok(())
    }

    fn count_visit(&mut self) -> Result<(), PickleError> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(PickleError::Limit { what: "values on all ways through data.pkl", limit: MAX_VISITS });
        }
        Ok(())
    }
}

/// `used` and `bytes` together, within the limit.
fn charge(used: usize, bytes: usize) -> Result<usize, PickleError> {
    match used.checked_add(bytes) {
        Some(total) if total <= MAX_BYTES => Ok(total),
        _ => Err(PickleError::Limit { what: "bytes of names and shapes", limit: MAX_BYTES }),
    }
}

/// The text of a small value.
fn value(node: &Node) -> Option<String> {
    match node {
        Node::Bool(value) => Some(value.to_string()),
        Node::Int(value) => Some(value.to_string()),
        Node::Float(value) => Some(value.to_string()),
        Node::Str(value) if value.len() <= MAX_VALUE_BYTES => Some(value.as_ref().to_owned()),
        _ => None,
    }
}
