//! The names and shapes of a network's tensors, without its memory.

use std::collections::BTreeMap;

use crate::{
    nn::{Params, hollow},
    weights::NamedTensors,
};

/// What `new` builds, as names and shapes: nothing is allocated, whatever the sizes.
pub fn outline<M>(new: impl FnOnce(&Params) -> M) -> BTreeMap<String, Vec<i64>> {
    let params = Params::outline();
    new(&params);
    let (store, _) = params.finish();
    store.frozen.into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// Tensors of those names and shapes, without memory, to hold other things against.
pub fn as_tensors(outline: BTreeMap<String, Vec<i64>>) -> NamedTensors {
    outline.into_iter().map(|(name, shape)| (name, hollow(&shape))).collect()
}
