//! A MotionLoRA needs few clips and few parameters.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::super::{
    Finding, Lab,
    finding::{
        Plot, Show,
        Target::{AtLeast, Between},
        Unit::{Bytes, Count, Share, Times},
    },
    measure::{Similarity, amount_of_camera, cameras, share_of_all, share_of_camera},
    named,
    training::updates,
};
use crate::{
    clip::Clip,
    data::{augment::Motion, shapes::Scene},
};

pub(super) const EXPERIMENT: &str = "MotionLoRAs of three camera moves, from few reference clips and of low ranks, on the \
    module of the first claim. The share of animations of standing scenes, on chequers, whose fitted camera motion is of the \
    right kind; two of them together; each at half its scale.";

/// The moves, of which the first two are also done together.
const MOVES: [Motion; 3] = [Motion::ZoomIn, Motion::PanLeft, Motion::RollClockwise];

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let scenes = lab.standing(lab.budget().camera_prompts);
    let (counts, ranks) = (lab.budget().references.clone(), lab.budget().ranks.clone());
    let most = *counts.last().context("a budget has numbers of references")?;
    let middle = ranks[ranks.len() / 2];
    let mut found = Finding::default();
    let still = shoot(lab, "without-motion-lora", &scenes, &[])?;
    let mut rows = vec![("without MotionLoRA".to_owned(), still.clone())];
    let unmoved = cameras(&still);
    let mut kept: Vec<(Motion, PathBuf, Vec<Similarity>)> = Vec::new();
    for motion in MOVES {
        let name = named(&motion);
        found.note(format!("{name} without MotionLoRA"), Share, share_of_camera(&unmoved, motion));
        let references = cameras(&lab.reference_clips(motion)?);
        found.note(format!("{name} in its reference clips"), Share, share_of_camera(&references, motion));
        for &clips in &counts {
            for &rank in &ranks {
                let lora = lab.motion_lora(motion, clips, rank)?;
                let order = format!("with-{name}-{clips}-clips-rank-{rank}");
                let made = shoot(lab, &order, &scenes, &[(&lora, 1.0)])?;
                let moved = cameras(&made);
                let share = share_of_camera(&moved, motion);
                found.number(cell(motion, clips, rank), Share, share, (clips == most).then_some(AtLeast(0.9)));
                if (clips, rank) == (most, middle) {
                    rows.push((name.clone(), made));
                    kept.push((motion, lora, moved));
                }
            }
        }
        found.plots.push(plot(motion, &counts, &ranks));
    }
    for &rank in &ranks {
        let lora = lab.motion_lora(MOVES[0], most, rank)?;
        found.note(format!("updates at rank {rank}"), Count, updates(&lora)? as f64);
        let size = fs::metadata(&lora).with_context(|| format!("{}: cannot be read", lora.display()))?.len();
        found.note(format!("size of rank {rank}"), Bytes, size as f64);
    }
    let [(one, first, _), (other, second, _), ..] = kept.as_slice() else { unreachable!("there are three moves") };
    let together = shoot(lab, "two-together", &scenes, &[(first, 1.0), (second, 1.0)])?;
    let name = format!("{} and {} together", named(one), named(other));
    found.claim(format!("{name}, both shown"), Share, share_of_all(&cameras(&together), &[*one, *other]), AtLeast(0.5));
    rows.push((name, together));
    for (motion, lora, whole) in &kept {
        let half = shoot(lab, &format!("half-{}", named(motion)), &scenes, &[(lora, 0.5)])?;
        let name = format!("{} at scale 0.5, amount over that at 1", named(motion));
        let (part, all) = (amount_of_camera(&cameras(&half), *motion), amount_of_camera(whole, *motion));
        // Of what does not show there is no half.
        let shows = whole.first().is_some_and(|one| all >= one.least(*motion));
        let ratio = if shows { part / all } else { f64::NAN };
        found.claim(name, Times, ratio, Between(0.3, 0.7));
        rows.push((format!("{} at scale 0.5", named(motion)), half));
    }
    let title = format!("MotionLoRAs of rank {middle} from {most} clips; the same prompts and noise");
    found.shows.push(Show::of_first(6, title, scenes.iter().map(Scene::caption).collect(), rows));
    Ok(found)
}

fn shoot(lab: &mut Lab, name: &str, scenes: &[Scene], loras: &[(&PathBuf, f64)]) -> Result<Vec<Clip>> {
    let module = lab.module()?;
    let mut order = lab.order(name, Some(module), scenes);
    order.motion_loras = loras.iter().map(|(path, scale)| ((*path).clone(), *scale)).collect();
    lab.shoot(&order)
}

fn cell(motion: Motion, clips: usize, rank: i64) -> String {
    format!("{}, {clips} clips, rank {rank}", named(&motion))
}

fn plot(motion: Motion, counts: &[usize], ranks: &[i64]) -> Plot {
    let curve = |rank: &i64| {
        let numbers = counts.iter().map(|&clips| cell(motion, clips, *rank));
        (format!("rank {rank}"), numbers.collect())
    };
    Plot {
        title: format!("Share that shows {}", named(&motion)),
        axis: "reference clips".into(),
        places: counts.iter().map(ToString::to_string).collect(),
        curves: ranks.iter().map(curve).collect(),
    }
}
