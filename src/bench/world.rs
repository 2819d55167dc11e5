//! A base and a motion module of random weights; only the tokenizer is in files.

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Case;
use crate::{
    assemble::{Base, Motion, Pool},
    sample::{Cast, Request},
    tokenizer::Vocabulary,
};

/// What users have in files.
pub(super) struct World {
    pub(super) base: Base,
    pool: Pool,
    _tokenizer: TempDir,
}

impl World {
    pub(super) fn new(case: &Case) -> Result<World> {
        let (sizes, folder) = (case.scale.sizes(), tempfile::tempdir().context("a temporary folder cannot be made")?);
        Vocabulary::bundled().write(folder.path(), &sizes.text)?;
        let pool = Pool::new(case.seed, case.device, case.kind);
        Ok(World { base: Base::random(sizes, pool.clone(), folder.path()), pool, _tokenizer: folder })
    }

    pub(super) fn cast(&self, case: &Case) -> Cast {
        Cast { motion: Some(Motion::random(case.architecture(), &self.base.unet, &self.pool)), ..Cast::default() }
    }
}

/// What is asked for: clip number `row`.
pub(super) fn request(case: &Case, row: i64) -> Request {
    Request {
        prompt: "a red circle moving left".into(),
        negative_prompt: String::new(),
        seed: case.seed + row,
        steps: case.steps,
        guidance_scale: if case.guided { 7.5 } else { 1.0 },
        width: case.size,
        height: case.size,
        frames: case.frames,
    }
}
