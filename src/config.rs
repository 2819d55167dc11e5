//! Training configurations from their layers: a stage's defaults, a user's file, settings. What the keys mean is
//! [`train::Config`](crate::train::Config)'s to say.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow};

use crate::{
    data,
    train::{Config, Refused, Stage, recipe::Recipe},
    yaml::{self, Layers, UserFile},
};

/// Loads and checks a configuration for `stage`: its defaults, `file`, and `overrides` of the form `key=value`.
///
/// # Errors
/// What is wrong and where it was written; all of them are the user's to mend.
pub fn load(stage: Stage, file: Option<&Path>, overrides: &[String]) -> Result<Config> {
    read(stage, file, overrides, |config, layers| {
        config
            .check(stage)
            .map_err(|(key, message)| Refused(anyhow!("{}: `{key}`: {message}", yaml::origin(layers, key))))
    })
}

/// Loads the data part alone, as `stage` takes it, of a file that may lack the rest.
///
/// # Errors
/// As those of [`load`], without what only training needs.
pub fn load_data(stage: Stage, file: Option<&Path>, overrides: &[String]) -> Result<data::Config> {
    let config = read(stage, file, overrides, |config, layers| {
        let key = "image_finetune";
        match config.image_finetune.filter(|image| *image != (stage == Stage::Image)) {
            None => Ok(()),
            Some(image) => Err(Refused(anyhow!(
                "{}: `{key}`: this file is for `train {}`; choose its stage with --stage",
                yaml::origin(layers, key),
                if image { Stage::Image } else { Stage::Motion }
            ))),
        }
    })?;
    Ok(Recipe::new(stage, &config).train_data(&config))
}

fn read(
    stage: Stage,
    file: Option<&Path>,
    overrides: &[String],
    check: impl FnOnce(&Config, Layers) -> Result<(), Refused>,
) -> Result<Config> {
    let defaults = serde_yaml::to_value(Config::for_stage(stage)).expect("a configuration is plain data");
    let text = match file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|error| Refused(anyhow!("{}: cannot be read: {error}", path.display())))?,
        ),
        None => None,
    };
    let file = file.zip(text.as_deref()).map(|(path, text)| UserFile { path, text });
    let layers = Layers { defaults: Some(&defaults), file, overrides, replaced: &["unet_additional_kwargs"] };
    let config: Config = yaml::load(layers)?;
    check(&config, layers)?;
    config.train_data.check().with_context(|| yaml::origin(layers, "train_data").to_string())?;
    Ok(config)
}
