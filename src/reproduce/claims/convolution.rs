//! Temporal Transformer against temporal convolution, with the same number of parameters.

use std::path::Path;

use anyhow::Result;

use super::super::{Finding, Lab, finding::Unit::Count};
use super::{one_clip, prompted};
use crate::weights;

pub(super) const EXPERIMENT: &str = "The first two claims' experiments with `motion_module_type: Convolution` in the place of \
    the Transformer: one-dimensional convolutions along time, of about as many parameters. There is no target.";

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let mut found = Finding::default();
    let modules = [
        ("Transformer", "animations", lab.module()?),
        ("convolution", "animations-of-convolution", lab.convolution()?),
    ];
    let mut rows = Vec::new();
    for (who, name, module) in modules {
        found.note(format!("parameters, {who}"), Count, parameters(&module)?);
        let clips = lab.animations(name, Some(module))?;
        let ending = format!(", {who}");
        prompted::table(&mut found, lab, &ending, &clips, false);
        one_clip::table(&mut found, lab, &ending, &clips, false)?;
        rows.push((who, clips));
    }
    let (scenes, _) = prompted::both(lab);
    let rows: Vec<_> = rows.iter().map(|(who, clips)| (*who, clips.as_slice())).collect();
    found.shows.push(prompted::side_by_side(&scenes, &rows));
    Ok(found)
}

/// Numbers in a module's file, but for its tables of sines.
fn parameters(path: &Path) -> Result<f64> {
    let tensors = weights::read(path)?.tensors;
    let trained = tensors.names().filter(|name| !name.ends_with(".pe"));
    let count = |name: &str| tensors.shape(name).map_or(0, |shape| shape.iter().product::<i64>());
    Ok(trained.map(count).sum::<i64>() as f64)
}
