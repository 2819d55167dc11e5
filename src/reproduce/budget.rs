//! How much of everything the experiments take.

use serde::Serialize;

/// Sizes of sets, samples and grids.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Clips that adapter and motion module are trained on.
    pub videos: usize,
    /// Stills that a personalised model is trained on.
    pub stills: usize,
    /// Prompts for motion: half of them combinations that were trained on, half held out.
    pub prompts: usize,
    /// Prompts for each personalised model.
    pub style_prompts: usize,
    /// Stills sampled from each personalised model, to compare with.
    pub style_stills: usize,
    /// Prompts for each adapter scale.
    pub look_prompts: usize,
    /// Prompts for each MotionLoRA.
    pub camera_prompts: usize,
    /// Numbers of reference clips of the MotionLoRAs, ascending.
    pub references: Vec<usize>,
    /// Ranks of the MotionLoRAs, ascending.
    pub ranks: Vec<i64>,
    /// Frames per sampled clip.
    pub frames: usize,
    /// Denoising steps.
    pub sampling_steps: i64,
    /// Classifier-free guidance.
    pub guidance_scale: f64,
    /// Clips that are sampled in one batch.
    pub batch: usize,
    /// Updates, at most, of the motion module that is trained without stage 1, of which only the look is measured. What it has
    /// not learned yet of the watermark makes the claim, which divides by it, harder.
    pub updates_without_adapter: i64,
    /// Updates of every training, instead of what its configuration says.
    pub training_steps: Option<i64>,
}

impl Budget {
    /// What the claims are measured with.
    pub fn full() -> Budget {
        Budget {
            videos: 2400,
            stills: 1500,
            prompts: 64,
            style_prompts: 24,
            style_stills: 48,
            look_prompts: 16,
            camera_prompts: 12,
            references: vec![5, 20, 50],
            ranks: vec![2, 8, 32],
            frames: 8,
            sampling_steps: 20,
            guidance_scale: 4.0,
            batch: 8,
            updates_without_adapter: 1200,
            training_steps: None,
        }
    }

    /// Enough to see that everything runs; its numbers mean nothing.
    pub fn quick() -> Budget {
        Budget {
            videos: 8,
            stills: 8,
            prompts: 2,
            style_prompts: 2,
            style_stills: 2,
            look_prompts: 2,
            camera_prompts: 2,
            references: vec![2],
            ranks: vec![2],
            frames: 4,
            sampling_steps: 2,
            training_steps: Some(2),
            ..Budget::full()
        }
    }
}
