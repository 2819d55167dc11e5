//! What a training run is told: the official YAML's keys, and ours.

mod check;

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    autoencoder,
    checkpoint::Keep,
    ema, lr, optim,
    recipe::Stage,
    timestep_bias::{self, TimestepBias},
};
use crate::{
    assemble::BaseFiles,
    data,
    device::{DeviceChoice, Precision},
    diffusion::{self, Weighting},
    model::unet::motion,
    nn::Checkpointing,
};

/// A run. Keys of the official `training.yaml` and `image_finetune.yaml` keep their names, and -1 means "not set" where it
/// does there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Official switch between the image and the motion stage; must agree with the command.
    pub image_finetune: Option<bool>,
    /// Where run folders are made.
    pub output_dir: PathBuf,
    /// Start of the run folder's name; the config file's name otherwise.
    #[serde(deserialize_with = "empty_is_none")]
    pub name: Option<String>,
    /// Base model: a folder in the diffusers layout.
    pub pretrained_model_path: PathBuf,
    /// A domain adapter, merged into the frozen UNet.
    #[serde(deserialize_with = "empty_is_none")]
    pub adapter: Option<PathBuf>,
    /// Scale of that adapter.
    pub adapter_scale: f64,
    /// A motion module: frozen under a MotionLoRA, the starting point of the motion stage.
    #[serde(deserialize_with = "empty_is_none")]
    pub motion: Option<PathBuf>,
    /// A personalised model whose parts replace the base's.
    #[serde(deserialize_with = "empty_is_none")]
    pub dreambooth_path: Option<PathBuf>,
    /// A VAE that replaces the base's.
    #[serde(deserialize_with = "empty_is_none")]
    pub vae_path: Option<PathBuf>,
    /// A UNet (or a checkpoint, of which the UNet is taken) that replaces the base's: an earlier fine-tuning.
    #[serde(deserialize_with = "empty_is_none")]
    pub unet_checkpoint_path: Option<PathBuf>,
    /// A LoRA file of this stage's kind to go on training from.
    #[serde(deserialize_with = "empty_is_none")]
    pub init_lora: Option<PathBuf>,
    /// The motion module's architecture. Absent: what the `motion` file says, or v3 for a new one.
    pub unet_additional_kwargs: Option<motion::Config>,
    /// Noise schedule.
    pub noise_scheduler_kwargs: diffusion::Config,
    /// Clips.
    pub train_data: data::Config,
    /// Samples along the way.
    pub validation_data: Validation,
    /// Every so many steps; -1 never.
    pub validation_steps: i64,
    /// And at these steps.
    pub validation_steps_tuple: Vec<i64>,
    /// Parts of parameter names that are trained (motion, image and VAE stage); `["."]` is everything, and
    /// `["decoder."]` leaves a VAE's latents as they are.
    pub trainable_modules: Option<Vec<String>>,
    /// Rank and alpha of the low-rank stages.
    pub lora: Lora,
    /// Trains the text encoder too (image stage).
    pub train_text_encoder: bool,
    /// Min-SNR weighting with this γ (5 in its paper): steps of little noise count less. Absent: all steps count the same.
    pub snr_gamma: Option<f64>,
    /// Adds so much of a constant to each channel of a clip's noise, drawn anew for each (0.1 is usual): lets a model learn
    /// pictures that are dark or bright as a whole (Guttenberg 2023, "Diffusion with Offset Noise").
    pub noise_offset: f64,
    /// Weighting by 1/√SNR: steps of much noise, where the layout is decided, count more. For models that predict the noise.
    pub debiased_estimation_loss: bool,
    /// Which end of the noise schedule is drawn more often, by diffusers' names: `earlier` (little noise) or `later`.
    pub timestep_bias_strategy: timestep_bias::Strategy,
    /// How many times as often.
    pub timestep_bias_multiplier: f64,
    /// How large a share of the schedule that end is.
    pub timestep_bias_portion: f64,
    /// Objective of the VAE stage.
    pub vae: autoencoder::Objective,
    /// Keeps what the VAE makes of each clip in memory (2 GiB at most), for data that comes again.
    pub cache_latents: bool,
    /// Encodes the next clips in a thread of its own while an update runs. Absent: on a GPU, where it fills the gaps between kernels; a CPU has
    /// none to fill.
    pub encode_ahead: Option<bool>,
    /// Type of the exported weights.
    pub save_precision: Precision,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Multiplies the learning rate by the number of clips per update.
    pub scale_lr: bool,
    /// Steps over which the learning rate rises.
    pub lr_warmup_steps: i64,
    /// Shape of the learning rate, by diffusers' names.
    pub lr_scheduler: lr::Kind,
    /// Restarts of `cosine_with_restarts`.
    pub lr_num_cycles: f64,
    /// Exponent of `polynomial`.
    pub lr_power: f64,
    /// Clips per forward pass of each process.
    pub train_batch_size: usize,
    /// Forward passes per update.
    pub gradient_accumulation_steps: usize,
    /// Passes over the data; -1 goes by steps.
    pub max_train_epoch: i64,
    /// Updates; -1 goes by epochs.
    pub max_train_steps: i64,
    /// Checkpoint every so many epochs; -1 never.
    pub checkpointing_epochs: i64,
    /// Checkpoint every so many steps; -1 only at the end.
    pub checkpointing_steps: i64,
    /// So many of the newest checkpoints are kept, and always one whose weights a later update has shown to be sound: of 1, two.
    pub keep_checkpoints: usize,
    /// And each whose step is a multiple of this, for ever; -1 none.
    pub keep_every: i64,
    /// Gradients are scaled down to this norm.
    pub max_grad_norm: f64,
    /// AdamW's first decay.
    pub adam_beta1: f64,
    /// AdamW's second decay.
    pub adam_beta2: f64,
    /// AdamW's decoupled weight decay.
    pub adam_weight_decay: f64,
    /// AdamW's epsilon.
    pub adam_epsilon: f64,
    /// Keeps AdamW's moments in 8 bits: 2 bytes a parameter in the place of 8, with rounded updates.
    pub use_8bit_adam: bool,
    /// Keeps an exponential moving average of the weights, which samples and exports are then made of.
    pub use_ema: bool,
    /// Of that average.
    pub ema: ema::Config,
    /// Steps in a row without a finite loss and gradient after which a run ends; each is skipped, and its clips are written down.
    pub max_bad_steps: usize,
    /// Whether captions are dropped at all.
    pub cfg_random_null_text: bool,
    /// Share of captions replaced by the empty one.
    pub cfg_random_null_text_ratio: f64,
    /// Threads that decode.
    pub num_workers: usize,
    /// Seed of everything.
    pub global_seed: u64,
    /// Official switch: frozen weights and arithmetic in bf16 on CUDA.
    pub mixed_precision_training: bool,
    /// Precision, where it should not follow from the switch above and the device.
    pub precision: Precision,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Attention is always memory-efficient here; only `true` is meaningful.
    pub enable_xformers_memory_efficient_attention: Always,
    /// What a backward pass computes again instead of keeping it: `none`, `blocks` or `full`.
    pub gradient_checkpointing: Checkpointing,
    /// With several processes: every so many steps their weights are compared by hash; -1 never.
    pub dist_check_steps: i64,
    /// With several processes: how long one waits for another that is there but does nothing, as while rank 0 samples. One that is gone is
    /// known at once.
    pub dist_timeout_minutes: u64,
    /// Names the folder `debug`, and empties it first.
    pub is_debug: bool,
    /// Processes that train together, each on `train_batch_size` clips a pass: what started them says so, not a file.
    #[serde(skip)]
    pub ranks: usize,
}

/// Official `validation_data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Validation {
    /// One sample each.
    pub prompts: Vec<String>,
    /// For all of them.
    pub negative_prompt: String,
    /// DDIM steps.
    pub num_inference_steps: i64,
    /// Guidance.
    pub guidance_scale: f64,
}

/// Rank and alpha, with kohya's meaning: the delta is `alpha / rank · up · down`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lora {
    /// Rank of the pairs.
    pub rank: i64,
    /// Absent: the rank, so that the scale is 1.
    pub alpha: Option<f64>,
}

impl Lora {
    /// `alpha / rank`.
    pub fn scale(&self) -> f64 {
        self.alpha.map_or(1.0, |alpha| alpha / self.rank as f64)
    }
}

/// A switch that can only be on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct Always;

impl TryFrom<bool> for Always {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Always, Self::Error> {
        if value {
            Ok(Always)
        } else {
            Err("attention is always memory-efficient here; remove the key or set it to true")
        }
    }
}

impl From<Always> for bool {
    fn from(_: Always) -> bool {
        true
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            image_finetune: None,
            output_dir: "outputs".into(),
            name: None,
            pretrained_model_path: PathBuf::new(),
            adapter: None,
            adapter_scale: 1.0,
            motion: None,
            dreambooth_path: None,
            vae_path: None,
            unet_checkpoint_path: None,
            init_lora: None,
            unet_additional_kwargs: None,
            noise_scheduler_kwargs: diffusion::Config::default(),
            train_data: data::Config::default(),
            validation_data: Validation::default(),
            validation_steps: -1,
            validation_steps_tuple: Vec::new(),
            trainable_modules: None,
            lora: Lora::default(),
            train_text_encoder: false,
            snr_gamma: None,
            noise_offset: 0.0,
            debiased_estimation_loss: false,
            timestep_bias_strategy: timestep_bias::Strategy::None,
            timestep_bias_multiplier: 1.0,
            timestep_bias_portion: 0.25,
            vae: autoencoder::Objective::default(),
            cache_latents: false,
            encode_ahead: None,
            save_precision: Precision::Fp32,
            learning_rate: 1e-4,
            scale_lr: false,
            lr_warmup_steps: 0,
            lr_scheduler: lr::Kind::Constant,
            lr_num_cycles: 1.0,
            lr_power: 1.0,
            train_batch_size: 1,
            gradient_accumulation_steps: 1,
            max_train_epoch: -1,
            max_train_steps: -1,
            checkpointing_epochs: -1,
            checkpointing_steps: -1,
            keep_checkpoints: 3,
            keep_every: -1,
            max_grad_norm: 1.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_weight_decay: 1e-2,
            adam_epsilon: 1e-8,
            use_8bit_adam: false,
            use_ema: false,
            ema: ema::Config::default(),
            max_bad_steps: 10,
            cfg_random_null_text: true,
            cfg_random_null_text_ratio: 0.1,
            num_workers: 2,
            global_seed: 42,
            mixed_precision_training: true,
            precision: Precision::Auto,
            device: DeviceChoice::Auto,
            enable_xformers_memory_efficient_attention: Always,
            gradient_checkpointing: Checkpointing::None,
            dist_check_steps: 1000,
            dist_timeout_minutes: 60,
            is_debug: false,
            ranks: 1,
        }
    }
}

impl Default for Validation {
    fn default() -> Validation {
        Validation { prompts: Vec::new(), negative_prompt: String::new(), num_inference_steps: 25, guidance_scale: 8.0 }
    }
}

impl Default for Lora {
    fn default() -> Lora {
        Lora { rank: 64, alpha: None }
    }
}

impl Config {
    /// The defaults of a stage, below whatever the user says.
    pub fn for_stage(stage: Stage) -> Config {
        let config = Config::default();
        match stage {
            Stage::Adapter => Config {
                noise_scheduler_kwargs: diffusion::Config::scaled_linear(),
                lora: Lora { rank: 128, alpha: None },
                ..config
            },
            Stage::Motion | Stage::MotionLora => config,
            Stage::Image => {
                Config { noise_scheduler_kwargs: diffusion::Config::scaled_linear(), learning_rate: 1e-5, ..config }
            }
            Stage::Vae => Config { adam_weight_decay: 0.0, ..config },
        }
    }

    /// How timesteps are weighted.
    pub fn weighting(&self) -> Weighting {
        match self.snr_gamma {
            Some(gamma) => Weighting::MinSnr(gamma),
            None if self.debiased_estimation_loss => Weighting::Debiased,
            None => Weighting::Uniform,
        }
    }

    /// How timesteps are drawn.
    pub fn timestep_bias(&self) -> TimestepBias {
        TimestepBias {
            strategy: self.timestep_bias_strategy,
            multiplier: self.timestep_bias_multiplier,
            portion: self.timestep_bias_portion,
        }
    }

    /// AdamW's part.
    pub fn adam(&self) -> optim::Config {
        optim::Config {
            adam_beta1: self.adam_beta1,
            adam_beta2: self.adam_beta2,
            adam_weight_decay: self.adam_weight_decay,
            adam_epsilon: self.adam_epsilon,
            use_8bit_adam: self.use_8bit_adam,
        }
    }

    /// Which checkpoints stay when the last update was made in step `updated`.
    pub fn keep(&self, updated: i64) -> Keep {
        let every = Some(self.keep_every).filter(|&every| every > 0);
        Keep { last: self.keep_checkpoints, every, sound_before: updated }
    }

    /// Clips per update, of all processes together.
    pub fn clips_per_step(&self) -> usize {
        self.clips_per_rank() * self.ranks
    }

    /// Clips per update of each process.
    pub fn clips_per_rank(&self) -> usize {
        self.train_batch_size * self.gradient_accumulation_steps
    }

    /// Updates in all, for a set of `clips` clips.
    pub fn total_steps(&self, clips: usize) -> i64 {
        if self.max_train_steps > 0 {
            return self.max_train_steps;
        }
        (self.max_train_epoch * clips as i64 + self.clips_per_step() as i64 - 1) / self.clips_per_step() as i64
    }

    /// The learning rate's schedule over `steps` updates.
    pub fn lr_schedule(&self, steps: i64) -> lr::Schedule {
        lr::Schedule {
            cycles: self.lr_num_cycles,
            power: self.lr_power,
            ..lr::Schedule::new(self.lr_scheduler, self.lr_warmup_steps, steps)
        }
    }

    /// The files of the base model.
    pub fn base_files(&self) -> BaseFiles {
        BaseFiles {
            base: self.pretrained_model_path.clone(),
            dreambooth: self.dreambooth_path.clone(),
            vae: self.vae_path.clone(),
        }
    }

    /// Peak learning rate, scaled by the clips per update if asked.
    pub fn base_lr(&self) -> f64 {
        if self.scale_lr { self.learning_rate * self.clips_per_step() as f64 } else { self.learning_rate }
    }
}

/// The official files write "" for a path that is not given.
fn empty_is_none<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: From<String>,
    D: Deserializer<'de>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(T::from))
}
