//! The motion module learns motion that follows the prompt.

use anyhow::Result;

use super::super::{
    Finding, Lab,
    finding::{
        Show,
        Target::AtLeast,
        Unit::{Count, Share},
    },
    measure::{Verdict, share, verdicts},
};
use crate::{
    clip::Clip,
    data::shapes::{Scene, Style},
};

pub(super) const EXPERIMENT: &str = "The module is trained on veiled clips with the adapter merged, and sampled without it. \
    The share of clips whose tracked motion is the prompted one, for combinations of shape, colour and motion that were \
    trained on and for held-out ones; beside it the base without a module, each frame from the same noise.";

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let module = lab.module()?;
    let clips = lab.animations("animations", Some(module))?;
    let pictures = lab.animations("pictures", None)?;
    let mut found = Finding::default();
    table(&mut found, lab, "", &clips, true);
    let (scenes, _) = both(lab);
    let alone = verdicts(&pictures, &scenes, Style::Flat);
    found.note("prompted motion, without module", Share, share(&alone, |one| one.moves));
    found.note("shape and colour, without module", Share, share(&alone, |one| one.shows));
    found.note("clips", Count, clips.len() as f64);
    found.shows.push(side_by_side(&scenes, &[("with the module", &clips), ("without, same noise", &pictures)]));
    Ok(found)
}

/// The shares of both halves of `clips`, each name followed by `who`.
pub(super) fn table(found: &mut Finding, lab: &Lab, who: &str, clips: &[Clip], targets: bool) {
    let (scenes, half) = both(lab);
    let verdicts = verdicts(clips, &scenes, Style::Flat);
    let (seen, held_out) = verdicts.split_at(half);
    let moves = |half: &[Verdict]| share(half, |one| one.moves);
    for (name, half, limit) in [("seen", seen, 0.95), ("held out", held_out, 0.85)] {
        let name = format!("prompted motion, {name}{who}");
        found.number(name, Share, moves(half), targets.then_some(AtLeast(limit)));
    }
    found.note(format!("shape and colour{who}"), Share, share(&verdicts, |one| one.shows));
    found.note(format!("all three{who}"), Share, share(&verdicts, |one| one.moves && one.shows));
}

/// All scenes, and how many of them are of combinations that were trained on.
pub(super) fn both(lab: &Lab) -> (Vec<Scene>, usize) {
    let (mut scenes, held_out) = lab.scenes();
    let half = scenes.len();
    scenes.extend(held_out);
    (scenes, half)
}

/// A few of the clips, from both halves.
pub(super) fn side_by_side(scenes: &[Scene], rows: &[(&str, &[Clip])]) -> Show {
    let step = (scenes.len() / 8).max(1);
    let pick = |clips: &[Clip]| clips.iter().step_by(step).take(8).cloned().collect();
    Show {
        title: "The same prompts and noise; the left half of the prompts is of combinations that were trained on"
            .into(),
        prompts: scenes.iter().step_by(step).take(8).map(Scene::caption).collect(),
        rows: rows.iter().map(|(name, clips)| ((*name).to_owned(), pick(clips))).collect(),
    }
}
