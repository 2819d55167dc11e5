//! Parts of a network that may be computed again instead of being kept.

use std::{ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Params;
use crate::native::{Block, recompute};

/// What a backward pass computes again instead of keeping it: memory for time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Typed", into = "Typed")]
pub enum Checkpointing {
    /// Nothing: the fastest, and the most memory.
    #[default]
    None,
    /// Residual blocks, as diffusers does.
    Blocks,
    /// Residual blocks, spatial transformers and motion modules, as the official trainer does: the least memory.
    Full,
}

/// As written: a name, or the official switch.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "`none`, `blocks` or `full` (or the official `true`, which is `full`)")]
enum Typed {
    Switch(bool),
    Name(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    None,
    Blocks,
    Full,
}

impl From<Typed> for Checkpointing {
    fn from(typed: Typed) -> Checkpointing {
        match typed {
            Typed::Switch(false) | Typed::Name(Name::None) => Checkpointing::None,
            Typed::Name(Name::Blocks) => Checkpointing::Blocks,
            Typed::Switch(true) | Typed::Name(Name::Full) => Checkpointing::Full,
        }
    }
}

impl From<Checkpointing> for Typed {
    fn from(checkpointing: Checkpointing) -> Typed {
        Typed::Name(match checkpointing {
            Checkpointing::None => Name::None,
            Checkpointing::Blocks => Name::Blocks,
            Checkpointing::Full => Name::Full,
        })
    }
}

/// A block, with the tensors in it that are trained.
#[derive(Debug)]
pub struct Unit<B> {
    block: Arc<B>,
    trained: Vec<Tensor>,
}

impl<B> Unit<B> {
    /// What `build` makes at `params`.
    pub fn new(params: &Params, build: impl FnOnce(&Params) -> B) -> Unit<B> {
        let block = Arc::new(build(params));
        Unit { block, trained: params.trained_here() }
    }
}

impl<B: Block> Unit<B> {
    /// What the block makes of `inputs`; with `again`, and where there is a gradient to come, it keeps nothing but them.
    pub fn forward(&self, inputs: &[Tensor], frames: i64, again: bool) -> Tensor {
        let differentiable = || inputs.iter().chain(&self.trained).any(Tensor::requires_grad);
        if again && differentiable() {
            return recompute(&self.block, inputs, &self.trained, frames);
        }
        // Gradients that the block's own uses of an input give are added up before those of others join them: floating-point
        // sums depend on their order, and a block that is computed again has no other.
        let of_block =
            |input: &Tensor| if input.requires_grad() { input.view_as(input) } else { input.shallow_clone() };
        self.block.run(&inputs.iter().map(of_block).collect::<Vec<_>>(), frames)
    }
}

impl<B> Deref for Unit<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.block
    }
}
