//! Tensors by name, each either ready or still in the file it will be read from.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use tch::{Kind, Tensor};

use super::finite::all_finite_in_parallel;
use crate::{
    native::MappedFile,
    nn::{Source, hollow},
};

/// Named tensors; those in a file are read when they are taken, so that a model larger than memory's half can be built.
#[derive(Default)]
pub struct NamedTensors {
    entries: BTreeMap<String, Entry>,
    /// Which file each name came from; kept after the tensor was taken, for messages.
    origins: BTreeMap<String, Arc<PathBuf>>,
}

struct Entry {
    value: Value,
    /// What is done to it when it is read, in order.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Value {
    Stored(Arc<Stored>),
    Ready(Rc<Tensor>),
}

/// Done to a tensor when it is read; the shape stays, and the kind becomes float32.
type Change = Rc<dyn Fn(Tensor) -> Tensor>;

/// A tensor's place in a mapped file.
pub struct Stored {
    /// The file.
    pub file: Arc<MappedFile>,
    /// Element kind.
    pub kind: Kind,
    /// Shape.
    pub shape: Vec<i64>,
    /// Distance between neighbours along each axis, in elements, where they do not lie one after the other.
    pub stride: Option<Vec<i64>>,
    /// Byte range in the file that holds all elements.
    pub range: Range<usize>,
}

impl Stored {
    fn read(&self) -> Tensor {
        let bytes = &self.file[self.range.clone()];
        let tensor = match &self.stride {
            None => Tensor::from_data_size(bytes, &self.shape, self.kind),
            Some(stride) => {
                let elements = (bytes.len() / self.kind.elt_size_in_bytes()) as i64;
                let flat = Tensor::from_data_size(bytes, &[elements], self.kind);
                flat.as_strided(&self.shape, stride, 0).contiguous()
            }
        };
        self.file.release(self.range.clone());
        tensor
    }
}

impl Entry {
    fn new(value: Value) -> Entry {
        Entry { value, changes: Vec::new() }
    }

    fn shape(&self) -> Vec<i64> {
        match &self.value {
            Value::Stored(stored) => stored.shape.clone(),
            Value::Ready(tensor) => tensor.size(),
        }
    }

    fn kind(&self) -> Kind {
        match &self.value {
            _ if !self.changes.is_empty() => Kind::Float,
            Value::Stored(stored) => stored.kind,
            Value::Ready(tensor) => tensor.kind(),
        }
    }

    fn read(&self) -> Tensor {
        let tensor = match &self.value {
            Value::Stored(stored) => stored.read(),
            Value::Ready(tensor) => tensor.shallow_clone(),
        };
        self.changes.iter().fold(tensor, |tensor, change| change(tensor.to_kind(Kind::Float)))
    }
}

impl NamedTensors {
    /// No tensors.
    pub fn new() -> NamedTensors {
        NamedTensors::default()
    }

    /// Adds a tensor that lies in a file.
    pub fn insert_stored(&mut self, name: String, stored: Stored, origin: Arc<PathBuf>) {
        self.origins.insert(name.clone(), origin);
        self.entries.insert(name, Entry::new(Value::Stored(Arc::new(stored))));
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.entries.insert(name.into(), Entry::new(Value::Ready(Rc::new(tensor))));
    }

    /// Has `change` done to `name` whenever it is read, on its values in float32; it must keep the shape.
    pub fn change(&mut self, name: &str, change: impl Fn(Tensor) -> Tensor + 'static) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.changes.push(Rc::new(change));
        }
    }

    /// Gives `name` another shape of as many elements.
    pub(super) fn reshape(&mut self, name: &str, shape: &[i64]) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let plain = match &entry.value {
            Value::Stored(stored) if stored.stride.is_none() && entry.changes.is_empty() => Some(Arc::clone(stored)),
            _ => None,
        };
        entry.value = match plain {
            Some(stored) => Value::Stored(Arc::new(Stored {
                file: Arc::clone(&stored.file),
                kind: stored.kind,
                shape: shape.to_vec(),
                stride: None,
                range: stored.range.clone(),
            })),
            None => {
                let tensor = entry.read().reshape(shape);
                entry.changes.clear();
                Value::Ready(Rc::new(tensor))
            }
        };
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of `name`, without reading it.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(Entry::shape)
    }

    /// The element kind of `name`, without reading it.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.entries.get(name).map(Entry::kind)
    }

    /// The element kind that `name` is kept in, whatever is done to it when it is read.
    pub fn stored_kind(&self, name: &str) -> Option<Kind> {
        self.entries.get(name).map(|entry| match &entry.value {
            Value::Stored(stored) => stored.kind,
            Value::Ready(tensor) => tensor.kind(),
        })
    }

    /// A copy of `name`, leaving it in place.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.entries.get(name).map(Entry::read)
    }

    /// The bytes of `name` as they lie in its file, if it does, one after the other.
    pub fn bytes(&self, name: &str) -> Option<(Kind, &[u8])> {
        match &self.entries.get(name)?.value {
            Value::Stored(stored) if stored.stride.is_none() => Some((stored.kind, &stored.file[stored.range.clone()])),
            _ => None,
        }
    }

    /// Where `name` came from, for messages.
    pub fn origin_of(&self, name: &str) -> Option<String> {
        self.origins.get(name).map(|path| path.display().to_string())
    }

    /// Where the first tensor came from that came from somewhere.
    pub fn origin(&self) -> Option<&Path> {
        self.origins.values().next().map(|path| path.as_path())
    }

    /// Moves `from` into `other`, under the name `to`.
    pub fn hand_over(&mut self, from: &str, to: &str, other: &mut NamedTensors) {
        let Some(entry) = self.entries.remove(from) else { return };
        if let Some(origin) = self.origins.remove(from) {
            other.origins.insert(to.to_owned(), origin);
        }
        other.entries.insert(to.to_owned(), entry);
    }

    /// Takes over all of `other`; its tensors win.
    pub fn extend(&mut self, other: NamedTensors) {
        self.entries.extend(other.entries);
        self.origins.extend(other.origins);
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// Those whose names begin with `prefix`, without it; the others stay.
    pub fn split_off(&mut self, prefix: &str) -> NamedTensors {
        let names: Vec<String> = self.names().filter(|name| name.starts_with(prefix)).map(String::from).collect();
        let mut part = NamedTensors::new();
        for name in names {
            self.hand_over(&name, &name[prefix.len()..], &mut part);
        }
        part
    }

    /// The names that begin with `prefix`, without it, and the shapes of their tensors: something to look at, of no values.
    pub fn shapes_below(&self, prefix: &str) -> NamedTensors {
        let below = |name: &str| Some((name.strip_prefix(prefix)?.to_owned(), hollow(&self.shape(name)?)));
        self.names().filter_map(below).collect()
    }

    /// The same under names that begin with `prefix`.
    pub fn prefixed(mut self, prefix: &str) -> NamedTensors {
        let names: Vec<String> = self.names().map(String::from).collect();
        let mut all = NamedTensors::new();
        for name in names {
            self.hand_over(&name, &format!("{prefix}{name}"), &mut all);
        }
        all
    }
}

impl fmt::Debug for NamedTensors {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.debug_map().entries(self.entries.iter().map(|(name, entry)| (name, (entry.kind(), entry.shape())))).finish()
    }
}

impl Source for NamedTensors {
    fn take(&mut self, name: &str) -> Option<Tensor> {
        self.entries.remove(name).map(|entry| entry.read())
    }

    fn is_finite(&self, name: &str) -> Option<bool> {
        self.entries.get(name).filter(|entry| entry.changes.is_empty())?;
        self.bytes(name).map(|(kind, bytes)| all_finite_in_parallel(kind, bytes))
    }

    fn left(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn origin(&self, name: &str) -> Option<String> {
        self.origin_of(name)
    }
}

impl FromIterator<(String, Tensor)> for NamedTensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> NamedTensors {
        let ready = |tensor| Entry::new(Value::Ready(Rc::new(tensor)));
        let entries = tensors.into_iter().map(|(name, tensor)| (name, ready(tensor))).collect();
        NamedTensors { entries, origins: BTreeMap::new() }
    }
}
