//! The domain adapter keeps the look of the videos out of the motion module.

use anyhow::Result;

use super::super::{
    Finding, Lab,
    finding::{
        Plot, Show,
        Target::{AtLeast, AtMost},
        Unit::{Plain, Times},
    },
    measure::watermark,
};
use crate::{
    clip::Clip,
    data::shapes::{STRENGTH, Scene, veil},
};

pub(super) const EXPERIMENT: &str = "Two modules, trained with and without stage 1, the second for fewer updates (what it \
    has not learned yet of the watermark makes the claim harder). Energy of the watermark in their animations, the first at \
    adapter scales from 0 to 1.";

const SCALES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// A fall that does not count, in shares of the energy without the adapter: the noise of so few prompts.
const NOISE: f64 = 0.02;

/// The least energy without stage 1 to compare with, as a share of that of the clips.
const FAINTEST: f64 = 0.1;

pub(super) fn examine(lab: &mut Lab) -> Result<Finding> {
    let (adapter, module, other) = (lab.adapter()?, lab.module()?, lab.module_without_adapter()?);
    let scenes = lab.any_scenes(lab.budget().look_prompts);
    let mut rows: Vec<(String, Vec<Clip>)> = Vec::new();
    for scale in SCALES {
        let mut order = lab.order(&format!("adapter-at-{scale}"), Some(module.clone()), &scenes);
        order.adapter = Some((adapter.clone(), scale));
        rows.push((format!("adapter at {scale}"), lab.shoot(&order)?));
    }
    let order = lab.order("without-adapter", Some(other), &scenes);
    let without = lab.shoot(&order)?;

    let energies: Vec<f64> = rows.iter().map(|(_, clips)| watermark(clips)).collect();
    let (energy, rendered) = (watermark(&without), lab.rendered(&scenes));
    let marked: Vec<Clip> = rendered.iter().map(|clip| veil(clip, STRENGTH)).collect();
    let mut found = Finding::default();
    // Where the module trained without stage 1 brings no watermark, there is nothing to keep out.
    let ratio = if energy >= FAINTEST * watermark(&marked) { energies[0] / energy } else { f64::NAN };
    found.claim("energy at scale 0, over that without stage 1", Times, ratio, AtMost(0.2));
    let rises = energies.windows(2).all(|pair| pair[1] - pair[0] >= -NOISE * energy);
    found.claim("energy rises with the scale (1 is yes)", Plain, f64::from(u8::from(rises)), AtLeast(1.0));
    for (scale, energy) in SCALES.iter().zip(&energies) {
        found.note(name(*scale), Plain, *energy);
    }
    found.note(WITHOUT, Plain, energy);
    found.note(CLEAN, Plain, watermark(&rendered));
    found.note("energy of veiled clips", Plain, watermark(&marked));
    found.plots.push(plot());
    rows.push(("trained without stage 1".into(), without));
    let prompts = scenes.iter().map(Scene::caption).collect();
    found.shows.push(Show::of_first(6, "The same prompts and noise at each scale", prompts, rows));
    Ok(found)
}

const WITHOUT: &str = "energy, trained without stage 1";
const CLEAN: &str = "energy of clean clips";

fn name(scale: f64) -> String {
    format!("energy at scale {scale}")
}

fn plot() -> Plot {
    let level = |name: &str| SCALES.map(|_| name.to_owned()).to_vec();
    Plot {
        title: "Energy of the watermark".into(),
        axis: "adapter scale".into(),
        places: SCALES.map(|scale| scale.to_string()).to_vec(),
        curves: vec![
            ("with stage 1".into(), SCALES.map(name).to_vec()),
            ("trained without stage 1".into(), level(WITHOUT)),
            ("clean clips".into(), level(CLEAN)),
        ],
    }
}
