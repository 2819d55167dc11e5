//! A low-rank file of any kind: its deltas for the UNet and for the text encoder.

use std::{collections::BTreeMap, path::Path};

use super::{Lora, settings::Settings};
use crate::weights::{
    error::WeightsError,
    formats::{Content, Dialect},
    identify::{Identified, LowRankUse},
};

/// What a MotionLoRA, a domain adapter or a LoRA changes.
#[derive(Clone, Debug)]
pub struct LoraFile {
    /// Layers of the UNet and of the motion module.
    pub unet: Lora,
    /// Layers of the text encoder.
    pub text_encoder: Lora,
    /// What it is for.
    pub purpose: LowRankUse,
    /// Whose names it has.
    pub dialect: Dialect,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
}

impl LoraFile {
    /// Reads a low-rank file in whatever names.
    pub fn read(path: &Path) -> Result<LoraFile, WeightsError> {
        LoraFile::of(Identified::read(path)?, path)
    }

    /// The same of a file that is identified.
    pub fn of(file: Identified, path: &Path) -> Result<LoraFile, WeightsError> {
        let (dialect, purpose) = (file.format.dialect, file.low_rank_use().unwrap_or(LowRankUse::Image));
        let mut metadata = file.metadata.clone();
        let settings = Settings::take(&mut metadata, path)?;
        let mut tensors = file.import(Content::LowRank)?;
        let has_alpha = tensors.names().any(|name| name.ends_with(".alpha"));
        let origin = path.display().to_string();
        let mut unet = Lora::from_tensors(tensors.split_off("unet."), &origin)?;
        let mut text_encoder = Lora::from_tensors(tensors.split_off("text_encoder."), &origin)?;
        if let Some(settings) = settings.filter(|_| !has_alpha) {
            unet = unet.rescaled(|path, rank| settings.scale("unet.", path, rank));
            text_encoder = text_encoder.rescaled(|path, rank| settings.scale("text_encoder.", path, rank));
        }
        Ok(LoraFile { unet, text_encoder, purpose, dialect, metadata })
    }

    /// The same with every delta at `alpha = rank`, as the official loader reads every file.
    pub fn ignoring_alpha(self) -> LoraFile {
        LoraFile { unet: self.unet.without_scale(), text_encoder: self.text_encoder.without_scale(), ..self }
    }
}
