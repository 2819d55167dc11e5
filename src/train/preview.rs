//! Pictures of a run: its first batch, and what the model makes of the validation prompts.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Config, autoencoder::Autoencoder, board::Board, denoiser::Denoiser, folder::file_stem};
use crate::{clip::Clip, data::Sample, frame::Frame, sample::Request};

/// Frames per second of the pictures that move, as in the official trainer.
const FPS: f64 = 8.0;

/// Writes each of the first batch's samples as the model sees it: a GIF, or a PNG when it is one frame.
pub fn first_batch(
    dir: &Path,
    board: &mut Board,
    samples: &[Sample],
    frames: impl Fn(&Sample) -> Vec<Frame>,
) -> Result<()> {
    let mut taken = HashSet::new();
    for (index, sample) in samples.iter().enumerate() {
        let mut stem = file_stem(&sample.caption, &format!("0-{index}"));
        if !taken.insert(stem.clone()) {
            stem = format!("{stem}-{index}");
        }
        let clip = Clip { frames: frames(sample), fps: FPS };
        save(&clip, &dir.join(stem), board, &format!("first_batch/{index}"), 0)?;
    }
    Ok(())
}

/// Samples every validation prompt at the run's seed, with the run's own schedule. `stop` is asked after every denoising
/// step; `false` comes back when it ended the work.
pub fn validation(
    dir: &Path,
    board: &mut Board,
    config: &Config,
    frames: usize,
    (step, denoiser): (i64, &Denoiser),
    stop: impl Fn() -> bool,
) -> Result<bool> {
    let validation = &config.validation_data;
    let pipeline = denoiser.pipeline();
    let mut clips = Vec::new();
    for prompt in &validation.prompts {
        let request = Request {
            prompt: prompt.clone(),
            negative_prompt: validation.negative_prompt.clone(),
            seed: config.global_seed as i64,
            steps: validation.num_inference_steps,
            guidance_scale: validation.guidance_scale,
            width: config.train_data.sample_size.width as i64,
            height: config.train_data.sample_size.height as i64,
            frames: frames as i64,
        };
        let noise = pipeline.noise(&request);
        let go_on = |_| if stop() { Err(()) } else { Ok(()) };
        let Ok(latents) = pipeline.denoise(&request, &noise, go_on) else { return Ok(false) };
        clips.push(Clip { frames: pipeline.decode(&latents), fps: FPS });
    }
    // All or nothing: what is stopped is shown anew when the run goes on, and must not be there twice.
    let folder = dir.join(format!("sample-{step}"));
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for (index, clip) in clips.iter().enumerate() {
        save(clip, &folder.join(index.to_string()), board, &format!("samples/{index}"), step)?;
    }
    save(&Clip::grid(&clips, 4), &folder, board, "samples/all", step)?;
    Ok(true)
}

/// Pictures of the last batch, each beside what the VAE makes of it, sixteen at most.
pub fn reconstructions(
    dir: &Path,
    board: &mut Board,
    (step, autoencoder): (i64, &Autoencoder),
    samples: &[Sample],
) -> Result<()> {
    let pairs = autoencoder.reconstruct(&samples[..samples.len().min(16)]);
    let pictures = pairs.into_iter().flat_map(|(picture, again)| [picture, again]);
    let clips: Vec<Clip> = pictures.map(|picture| Clip { frames: vec![picture], fps: FPS }).collect();
    save(&Clip::grid(&clips, 8), &dir.join(format!("sample-{step}")), board, "samples/all", step)?;
    Ok(())
}

/// Saves to `stem` with the fitting extension, and shows it on the board.
fn save(clip: &Clip, stem: &Path, board: &mut Board, tag: &str, step: i64) -> Result<PathBuf> {
    let frame = &clip.frames[0];
    let (width, height) = (frame.width as u32, frame.height as u32);
    let moves = clip.frames.len() > 1;
    let mut path = stem.as_os_str().to_owned();
    path.push(if moves { ".gif" } else { ".png" });
    let path = PathBuf::from(path);
    let read = |path: &Path| fs::read(path).with_context(|| format!("{}: cannot be read back", path.display()));
    if moves {
        clip.save(&path)?;
        board.animation_gif(tag, step, &read(&path)?, width, height)?;
    } else {
        frame.save_png(&path)?;
        board.image_png(tag, step, &read(&path)?, width, height)?;
    }
    Ok(path)
}
