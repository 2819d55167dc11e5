//! The frames belong to one clip.

use anyhow::Result;

use super::super::{
    Finding, Lab,
    finding::{
        Target::AtMost,
        Unit::{Share, Times},
    },
    measure::{jump_parts, jump_ratio, jumps},
};
use super::prompted::both;
use crate::clip::Clip;

pub(super) const EXPERIMENT: &str = "The animations of the first claim. How much the place of the shape (beyond an even motion), \
    its colour and the background change from frame to frame, in multiples of the rendered clips of the same scenes; \
    beside it in multiples of those after the VAE, and for the base without a module.";

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let module = lab.module()?;
    let clips = lab.animations("animations", Some(module))?;
    let pictures = lab.animations("pictures", None)?;
    let mut found = Finding::default();
    table(&mut found, lab, "", &clips, true)?;
    let rendered = jumps(&lab.rendered(&both(lab).0));
    for (name, value) in jump_parts(jump_ratio(&jumps(&pictures), &rendered)) {
        found.note(format!("{name}, without module"), Times, value);
    }
    Ok(found)
}

/// The jumps of `clips` over those of rendered clips, each name followed by `who`.
pub(super) fn table(found: &mut Finding, lab: &mut Lab, who: &str, clips: &[Clip], targets: bool) -> Result<()> {
    let rendered = lab.rendered(&both(lab).0);
    let again = lab.through_vae(&rendered)?;
    let own = jumps(clips);
    for (name, value) in jump_parts(jump_ratio(&own, &jumps(&rendered))) {
        found.number(format!("{name}{who}"), Times, value, targets.then_some(AtMost(1.5)));
    }
    for (name, value) in jump_parts(jump_ratio(&own, &jumps(&again))) {
        found.note(format!("{name}{who}, over the VAE's"), Times, value);
    }
    found.note(format!("clips with a shape that can be followed{who}"), Share, own.len() as f64 / clips.len() as f64);
    Ok(())
}
