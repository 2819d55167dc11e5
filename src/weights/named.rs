//! Tensors by name, each either ready or still in the file it will be read from.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tch::{Kind, Tensor};

use crate::{native::MappedFile, nn::Source};

/// Named tensors; those in a file are read when they are taken, so that a model larger than memory's half can be built.
#[derive(Default)]
pub struct NamedTensors {
    entries: BTreeMap<String, Entry>,
    /// Which file each name came from; kept after the tensor was taken, for messages.
    origins: BTreeMap<String, Arc<PathBuf>>,
}

enum Entry {
    Stored(Stored),
    Ready(Tensor),
}

/// A tensor's place in a mapped file.
pub struct Stored {
    /// The file.
    pub file: Arc<MappedFile>,
    /// Element kind.
    pub kind: Kind,
    /// Shape.
    pub shape: Vec<i64>,
    /// Byte range in the file, as long as shape and kind say.
    pub range: std::ops::Range<usize>,
}

impl Stored {
    fn read(&self) -> Tensor {
        Tensor::from_data_size(&self.file[self.range.clone()], &self.shape, self.kind)
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
        self.entries.insert(name, Entry::Stored(stored));
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.entries.insert(name.into(), Entry::Ready(tensor));
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
        self.entries.get(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.shape.clone(),
            Entry::Ready(tensor) => tensor.size(),
        })
    }

    /// The element kind of `name`, without reading it.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.entries.get(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.kind,
            Entry::Ready(tensor) => tensor.kind(),
        })
    }

    /// A copy of `name`, leaving it in place.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.entries.get(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.read(),
            Entry::Ready(tensor) => tensor.shallow_clone(),
        })
    }

    /// Where `name` came from, for messages.
    pub fn origin_of(&self, name: &str) -> Option<String> {
        self.origins.get(name).map(|path| path.display().to_string())
    }

    /// Moves an entry under another name, or away.
    pub(super) fn rename(&mut self, from: &str, to: Option<String>) {
        let Some(entry) = self.entries.remove(from) else { return };
        let origin = self.origins.remove(from);
        if let Some(to) = to {
            if let Some(origin) = origin {
                self.origins.insert(to.clone(), origin);
            }
            self.entries.insert(to, entry);
        }
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
}

impl Source for NamedTensors {
    fn take(&mut self, name: &str) -> Option<Tensor> {
        self.entries.remove(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.read(),
            Entry::Ready(tensor) => tensor,
        })
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
        let entries = tensors.into_iter().map(|(name, tensor)| (name, Entry::Ready(tensor))).collect();
        NamedTensors { entries, origins: BTreeMap::new() }
    }
}
