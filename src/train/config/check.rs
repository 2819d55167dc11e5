//! What a configuration must not say: keys that contradict each other, the stage, or what can be done.

use super::{Config, ema, lr, timestep_bias};
use crate::{data, device::Precision, diffusion::PredictionType, nn::Checkpointing, train::Stage};

/// Clips of a step in one process, above which a number is a mistake.
const MOST_CLIPS: usize = 1 << 20;
/// The same of epochs.
const MOST_EPOCHS: i64 = 1_000_000_000;

/// A key and what to do about it.
type Wrong = (&'static str, String);

fn wrong(key: &'static str, message: impl Into<String>) -> Result<(), Wrong> {
    Err((key, message.into()))
}

impl Config {
    /// What contradicts itself or the stage: the key, and what to do.
    pub fn check(&self, stage: Stage) -> Result<(), Wrong> {
        self.check_stage(stage)?;
        self.check_length()?;
        self.check_data(stage)?;
        self.check_objective()?;
        self.check_updates()?;
        self.check_lora()?;
        self.check_saving()
    }

    /// Keys that say something and that `stage` has no use for: one file may serve several stages.
    pub fn unused(&self, stage: Stage) -> Vec<&'static str> {
        let (own, data, plain) = (Config::for_stage(stage), &self.train_data, data::Config::default());
        let low_rank = matches!(stage, Stage::Adapter | Stage::MotionLora);
        let pictures = matches!(stage, Stage::Adapter | Stage::Image | Stage::Vae);
        let keys = [
            ("lora", !low_rank && self.lora != own.lora),
            ("vae", stage != Stage::Vae && self.vae != own.vae),
            ("snr_gamma", stage == Stage::Vae && self.snr_gamma.is_some()),
            ("noise_offset", stage == Stage::Vae && self.noise_offset != 0.0),
            ("debiased_estimation_loss", stage == Stage::Vae && self.debiased_estimation_loss),
            ("timestep_bias_strategy", stage == Stage::Vae && self.timestep_bias() != own.timestep_bias()),
            ("cache_latents", stage == Stage::Vae && self.cache_latents),
            (
                "noise_scheduler_kwargs",
                stage == Stage::Vae && self.noise_scheduler_kwargs != own.noise_scheduler_kwargs,
            ),
            ("gradient_checkpointing", stage == Stage::Vae && self.gradient_checkpointing != Checkpointing::None),
            ("validation_data", stage == Stage::Vae && self.validation_data != own.validation_data),
            (
                "cfg_random_null_text_ratio",
                stage == Stage::Vae && self.cfg_random_null_text_ratio != own.cfg_random_null_text_ratio,
            ),
            ("train_data.sample_stride", pictures && data.sample_stride != plain.sample_stride),
            ("train_data.sample_n_frames", pictures && data.sample_n_frames != plain.sample_n_frames),
        ];
        keys.into_iter().filter_map(|(key, unused)| unused.then_some(key)).collect()
    }

    /// What the stage is given, and what it must not be.
    fn check_stage(&self, stage: Stage) -> Result<(), Wrong> {
        let low_rank = matches!(stage, Stage::Adapter | Stage::MotionLora);
        if self.image_finetune.is_some_and(|image| image != (stage == Stage::Image)) {
            let command = if stage == Stage::Image { "train motion" } else { "train image" };
            return wrong("image_finetune", format!("this file is for `{command}`, not for `train {stage}`"));
        }
        if self.pretrained_model_path.as_os_str().is_empty() {
            return wrong(
                "pretrained_model_path",
                "no base model is named; set it, or give --base DIR (`animatediff init` makes a random one)",
            );
        }
        if low_rank && self.trainable_modules.is_some() {
            return wrong("trainable_modules", "this stage trains low-rank pairs only; remove the key");
        }
        if self.init_lora.is_some() && !low_rank {
            return wrong("init_lora", "only `train adapter` and `train motionlora` train a LoRA; remove the key");
        }
        if stage == Stage::MotionLora && self.motion.is_none() {
            return wrong("motion", "a MotionLoRA is trained on a motion module: set it, or give --motion FILE");
        }
        if self.motion.is_some() && matches!(stage, Stage::Adapter | Stage::Image | Stage::Vae) {
            return wrong("motion", "this stage trains on pictures, without a motion module; remove the key");
        }
        if self.unet_additional_kwargs.is_some() && matches!(stage, Stage::Adapter | Stage::Image | Stage::Vae) {
            return wrong("unet_additional_kwargs", "this stage has no motion module; remove the key");
        }
        if self.adapter.is_some() && stage == Stage::Adapter {
            return wrong("adapter", "this stage trains an adapter; to go on from one, use init_lora");
        }
        if self.adapter.is_some() && stage == Stage::Image {
            return wrong("adapter", "the base that is trained would keep it for good; remove the key");
        }
        if self.adapter.is_some() && stage == Stage::Vae {
            return wrong("adapter", "the VAE has no attention for an adapter; remove the key");
        }
        if self.adapter.is_none() && self.adapter_scale != 1.0 {
            return wrong("adapter_scale", "no `adapter` is named; name one, or remove the key");
        }
        if self.unet_checkpoint_path.is_some() && stage == Stage::Vae {
            return wrong("unet_checkpoint_path", "this stage trains the VAE alone; remove the key");
        }
        if self.train_text_encoder && stage != Stage::Image {
            return wrong("train_text_encoder", "only `train image` can train the text encoder; remove the key");
        }
        Ok(())
    }

    /// How long is trained, and on how many clips at a time.
    fn check_length(&self) -> Result<(), Wrong> {
        if self.max_train_steps > 0 && self.max_train_epoch > 0 {
            return wrong("max_train_epoch", "both this and max_train_steps are set; set one of them to -1");
        }
        if self.max_train_steps <= 0 && self.max_train_epoch <= 0 {
            return wrong("max_train_steps", "how long to train? Set this or max_train_epoch");
        }
        if self.train_batch_size == 0 || self.gradient_accumulation_steps == 0 {
            return wrong("train_batch_size", "this and gradient_accumulation_steps must be at least 1");
        }
        let clips = self.train_batch_size.checked_mul(self.gradient_accumulation_steps);
        if clips.is_none_or(|clips| clips > MOST_CLIPS) {
            let most = format!("times gradient_accumulation_steps, at most {MOST_CLIPS} clips a step are expected");
            return wrong("train_batch_size", most);
        }
        if self.max_train_epoch > MOST_EPOCHS {
            return wrong("max_train_epoch", format!("at most {MOST_EPOCHS} are expected"));
        }
        Ok(())
    }

    /// Where the clips come from.
    fn check_data(&self, stage: Stage) -> Result<(), Wrong> {
        if !(0.0..=1.0).contains(&self.cfg_random_null_text_ratio) {
            return wrong("cfg_random_null_text_ratio", "a share between 0 and 1 is expected");
        }
        if self.num_workers == 0 {
            return wrong("num_workers", "at least 1 thread is expected");
        }
        if self.train_data.cache.is_some() && stage == Stage::Vae {
            return wrong("train_data.cache", "the VAE is trained on pixels, and a cache has none; remove the key");
        }
        if self.train_data.cache.is_some() && self.cache_latents {
            return wrong("cache_latents", "`train_data.cache` holds the latents already; remove one of them");
        }
        if self.encode_ahead == Some(true) {
            let idle = [
                (self.train_data.cache.is_some(), "`train_data.cache` leaves nothing to encode"),
                (self.cache_latents, "`cache_latents` encodes each clip only once"),
                (self.train_text_encoder, "the text encoder changes with every update"),
                (stage == Stage::Vae, "the VAE changes with every update"),
            ];
            if let Some((_, why)) = idle.iter().find(|(idle, _)| *idle) {
                return wrong("encode_ahead", format!("{why}; remove one of them"));
            }
        }
        Ok(())
    }

    /// Noise, weights of the loss and the draw of timesteps.
    fn check_objective(&self) -> Result<(), Wrong> {
        if !(self.noise_offset.is_finite() && self.noise_offset >= 0.0) {
            return wrong("noise_offset", "a number of at least 0 is expected");
        }
        let steps = self.validation_data.num_inference_steps;
        if let Err((key, message)) = self.noise_scheduler_kwargs.check(steps) {
            return match key {
                "steps" => wrong("validation_data.num_inference_steps", message),
                _ => wrong("noise_scheduler_kwargs", format!("`{key}`: {message}")),
            };
        }
        if self.snr_gamma.is_some_and(|gamma| !(gamma.is_finite() && gamma > 0.0)) {
            return wrong("snr_gamma", "a number above 0 is expected, or null for no weighting");
        }
        if self.debiased_estimation_loss && self.snr_gamma.is_some() {
            return wrong("debiased_estimation_loss", "snr_gamma is set too; keep one weighting");
        }
        if self.debiased_estimation_loss && self.noise_scheduler_kwargs.prediction_type != PredictionType::Epsilon {
            return wrong("debiased_estimation_loss", "it is for `prediction_type: epsilon`; remove the key");
        }
        let bias = self.timestep_bias();
        if bias.strategy == timestep_bias::Strategy::None && bias != Config::default().timestep_bias() {
            return wrong("timestep_bias_strategy", "`earlier` or `later` is expected where the bias has a size");
        }
        if !(bias.multiplier.is_finite() && bias.multiplier > 0.0) {
            return wrong("timestep_bias_multiplier", "a number above 0 is expected");
        }
        if bias.strategy != timestep_bias::Strategy::None && bias.multiplier == 1.0 {
            return wrong("timestep_bias_multiplier", "1 biases nothing; how many times as often is that end drawn?");
        }
        if !(bias.portion > 0.0 && bias.portion <= 1.0) {
            return wrong("timestep_bias_portion", "a share above 0 and at most 1 is expected");
        }
        if !(self.vae.kl_weight.is_finite() && self.vae.kl_weight >= 0.0) {
            return wrong("vae", "`kl_weight` must be a number of at least 0");
        }
        Ok(())
    }

    /// The optimizer, its rates, averages, and steps that go wrong.
    fn check_updates(&self) -> Result<(), Wrong> {
        if !self.learning_rate.is_finite() || self.learning_rate < 0.0 {
            return wrong("learning_rate", "a number of at least 0 is expected");
        }
        if !self.max_grad_norm.is_finite() || self.max_grad_norm <= 0.0 {
            return wrong("max_grad_norm", "a number above 0 is expected");
        }
        if ![self.adam_beta1, self.adam_beta2].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return wrong("adam_beta1", "this and adam_beta2 must be at least 0 and below 1");
        }
        if !(self.adam_epsilon > 0.0 && self.adam_weight_decay >= 0.0) {
            return wrong("adam_epsilon", "above 0 is expected, and adam_weight_decay of at least 0");
        }
        if self.lr_power != 1.0 && self.lr_scheduler != lr::Kind::Polynomial {
            return wrong("lr_power", "only `lr_scheduler: polynomial` has a power; remove the key");
        }
        if !(self.lr_power.is_finite() && self.lr_power >= 0.0) {
            return wrong("lr_power", "a number of at least 0 is expected: with less the rate would rise");
        }
        if self.lr_num_cycles != 1.0 && self.lr_scheduler != lr::Kind::CosineWithRestarts {
            return wrong("lr_num_cycles", "only `lr_scheduler: cosine_with_restarts` has cycles; remove the key");
        }
        if self.max_bad_steps == 0 {
            return wrong("max_bad_steps", "at least 1 is expected: how many steps may be skipped in a row?");
        }
        if let Err(message) = self.ema.check() {
            return wrong("ema", message);
        }
        if !self.use_ema && self.ema != ema::Config::default() {
            return wrong("ema", "`use_ema` is not set; set it to true, or remove the key");
        }
        Ok(())
    }

    /// The low-rank pairs.
    fn check_lora(&self) -> Result<(), Wrong> {
        if self.lora.rank < 1 {
            return wrong("lora.rank", "at least 1 is expected");
        }
        if self.lora.rank > 4096 {
            return wrong("lora.rank", "at most 4096 is expected: a rank above the layers' width gains nothing");
        }
        if self.lora.alpha.is_some_and(|alpha| !alpha.is_finite() || alpha <= 0.0) {
            return wrong("lora.alpha", "a number above 0 is expected, or null for the rank");
        }
        Ok(())
    }

    /// What is shown and kept, and how.
    fn check_saving(&self) -> Result<(), Wrong> {
        if self.save_precision == Precision::Auto {
            return wrong("save_precision", "fp32, fp16 or bf16 is expected");
        }
        if self.validation_steps_tuple.iter().any(|&step| step < 1) {
            return wrong("validation_steps_tuple", "steps are counted from 1");
        }
        if self.keep_checkpoints == 0 {
            return wrong("keep_checkpoints", "at least 1 is expected");
        }
        if self.keep_every == 0 || self.keep_every < -1 {
            return wrong("keep_every", "a number of steps is expected, or -1");
        }
        Ok(())
    }
}
