//! The module plugs into personalised models that it never saw.

use anyhow::Result;

use super::super::{
    Finding, Lab,
    finding::{
        Show,
        Target::{AtLeast, AtMost},
        Unit::{Share, Times},
    },
    measure::{share, style_distance, verdicts},
    named,
};
use crate::{
    clip::Clip,
    data::shapes::{Scene, Style},
    frame::Frame,
};

pub(super) const EXPERIMENT: &str = "Two personalised models, fine-tuned from the base on stills in other styles, and the \
    module of the first claim in each. The share of prompted motion; and how far the frames are from the model's own stills \
    in style, in multiples of how far those are from each other.";

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let module = lab.module()?;
    let scenes = lab.any_scenes(lab.budget().style_prompts);
    let order = lab.order("in-the-base", Some(module.clone()), &scenes);
    let flat = lab.shoot(&order)?;
    let mut found = Finding::default();
    let in_base = share(&verdicts(&flat, &scenes, Style::Flat), |one| one.moves);
    found.note("prompted motion, base", Share, in_base);
    let mut rows = vec![("base".to_owned(), flat.clone())];
    for style in [Style::Outlines, Style::Night] {
        let name = named(&style);
        let base = lab.personalised(style)?;
        let mut order = lab.order(&format!("in-{name}"), Some(module.clone()), &scenes);
        order.base.clone_from(&base);
        let clips = lab.shoot(&order)?;
        let prompts = lab.still_prompts(lab.budget().style_stills);
        let mut order = lab.order(&format!("stills-of-{name}"), None, &[]);
        (order.base, order.prompts, order.frames) = (base, prompts, 1);
        let stills = frames(&lab.shoot(&order)?);

        let verdicts = verdicts(&clips, &scenes, style);
        let moves = share(&verdicts, |one| one.moves);
        found.claim(format!("prompted motion, {name}"), Share, moves, AtLeast(0.85));
        let distance = style_distance(&frames(&clips), &stills);
        found.claim(format!("style distance, {name}"), Times, distance, AtMost(1.2));
        let distance = style_distance(&frames(&flat), &stills);
        found.note(format!("style distance of the base's animations to {name}"), Times, distance);
        found.note(format!("shape and colour, {name}"), Share, share(&verdicts, |one| one.shows));
        rows.push((name, clips));
    }
    let prompts = scenes.iter().map(Scene::caption).collect();
    found.shows.push(Show::of_first(8, "The same module, prompts and noise in three models", prompts, rows));
    Ok(found)
}

fn frames(clips: &[Clip]) -> Vec<Frame> {
    clips.iter().flat_map(|clip| clip.frames.iter().cloned()).collect()
}
