//! The tree that a pickle describes: nodes in an arena, which refer to each other by position.
//!
//! Lists and dictionaries can be filled after they are referred to, so the "tree" may share nodes and hold cycles.

use std::borrow::Cow;

use super::PickleError;
use super::globals::{Global, Rebuild};

const MAX_NODES: usize = 1 << 20;
const MAX_ITEMS: usize = 1 << 22;

/// A node's position in its [`Tree`].
pub(super) type Id = u32;

/// One value.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Str(Cow<'a, str>),
    /// A tuple.
    Tuple(Box<[Id]>),
    /// A list.
    List(Vec<Id>),
    /// Keys and values, in the order of the file.
    Dict(Vec<(Id, Id)>),
    /// A function or class of the allow-list.
    Global(Global),
    /// A reference to something outside of the pickle, described by the node.
    Persistent(Id),
    /// A tensor, as the function that makes it and the tuple of its arguments.
    Tensor(Rebuild, Id),
    /// Anything that weights do not need: bytes, sets, large numbers, objects.
    Opaque,
}

/// The nodes of a pickle.
#[derive(Default)]
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    items: usize,
    /// The value of the whole pickle.
    pub(super) root: Id,
}

impl<'a> Tree<'a> {
    /// Adds a node, whose items are counted against the limit.
    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Id, PickleError> {
        let id = self.nodes.len();
        if id >= MAX_NODES {
            return Err(PickleError::Limit { what: "values in data.pkl", limit: MAX_NODES });
        }
        if let Node::Tuple(items) = &node {
            self.count(items.len())?;
        }
        self.nodes.push(node);
        Ok(id as Id)
    }

    /// The node at `id`, which this tree gave out.
    pub(super) fn get(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// Appends `items` to the list at `id`; an opaque value swallows them. `false` if it is neither.
    pub(super) fn extend_list(&mut self, id: Id, items: &[Id]) -> Result<bool, PickleError> {
        self.count(items.len())?;
        match &mut self.nodes[id as usize] {
            Node::List(list) => list.extend_from_slice(items),
            Node::Opaque => (),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sets `items` (key, value, key, value, ...) in the dictionary at `id`; an opaque value swallows them. `false` if
    /// it is neither.
    pub(super) fn extend_dict(&mut self, id: Id, items: &[Id]) -> Result<bool, PickleError> {
        self.count(items.len())?;
        match &mut self.nodes[id as usize] {
            Node::Dict(dict) => dict.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value))),
            Node::Opaque => (),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The items of the tuple or list at `id`.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::Tuple(items) => Some(items),
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    fn count(&mut self, items: usize) -> Result<(), PickleError> {
        self.items = self.items.saturating_add(items);
        if self.items > MAX_ITEMS {
            return Err(PickleError::Limit { what: "items in data.pkl's collections", limit: MAX_ITEMS });
        }
        Ok(())
    }
}
