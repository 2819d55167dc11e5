//! `animatediff data cache`: clips and captions through the frozen networks, once and for all.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::super::progress::{Progress, say};
use super::super::{clips::setting, usage};
use super::source::Source;
use crate::config;
use crate::device::{DeviceChoice, Precision};
use crate::train::Stage;
use crate::train::caching::{Made, Maker, Order};
use crate::train::interrupt::Interrupt;

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff data cache --base base/ --csv shapes/clips.csv \\
      --video-folder shapes/videos \\
      --set train_data.sample_size=64 --set train_data.sample_stride=1 \\
      --positions 2 -o cache/

Train from it with the same configuration and
  train_data: {cache: cache/}
The first epochs (as many as --positions) are then bit for bit those of a
run without the cache; later ones take up the same positions in another order.
A run refuses the cache of another base, configuration or list of clips. Files
that were replaced by others of their names are told of by
animatediff data check --verify.";

/// Arguments of `animatediff data cache`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Cache {
    #[command(flatten)]
    source: Source,
    /// Base model, whose VAE and text encoder are used (pretrained_model_path)
    #[arg(long, value_name = "DIR|FILE")]
    base: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:n (device)
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Folder of the cache (train_data.cache unless given). Run again, an unfinished one is taken up where it stopped
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Choices of frames that are kept for each clip: epochs of the training
    #[arg(long, value_name = "N", default_value_t = 1)]
    positions: usize,
    /// Keep each of them mirrored, too; for `train_data.horizontal_flip`
    #[arg(long)]
    both_flips: bool,
    /// fp32, which trains exactly as without a cache, or fp16, which is half as large
    #[arg(long, default_value = "fp32", value_parser = parse_dtype)]
    dtype: Precision,
    /// Size of the files; 256 unless given
    #[arg(long, value_name = "MIB")]
    shard_mib: Option<f64>,
}

fn parse_dtype(text: &str) -> Result<Precision, String> {
    match text {
        "fp32" => Ok(Precision::Fp32),
        "fp16" => Ok(Precision::Fp16),
        _ => Err("fp32 or fp16 is expected".into()),
    }
}

impl Cache {
    fn overrides(&self) -> Vec<String> {
        let base = self.base.as_ref().map(|base| setting("pretrained_model_path", &base.display().to_string()));
        let device = self.device.map(|device| setting("device", &device.to_string()));
        // How long a run would last is nothing to a cache.
        let steps = ["max_train_steps=1".to_owned(), "max_train_epoch=-1".to_owned()];
        base.into_iter().chain(device).chain(self.source.overrides()).chain(steps).collect()
    }

    /// Makes the cache, or as much of it as there is time for.
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.positions == 0 {
            return Err(usage("--positions 0 keeps nothing; give at least 1"));
        }
        if self.source.stage == Stage::Vae {
            return Err(usage("--stage vae: the VAE is trained on pixels, and a cache has none"));
        }
        if self.shard_mib.is_some_and(|size| !(size > 0.0 && size <= 65536.0)) {
            return Err(usage("--shard-mib: give a size from above 0 to 65536"));
        }
        let config = config::load(self.source.stage, self.source.config.as_deref(), &self.overrides())?;
        let Some(folder) = self.out.as_ref().or(config.train_data.cache.as_ref()) else {
            return Err(usage("no place is named: give the folder of the cache with -o, or as train_data.cache"));
        };
        if self.both_flips && !config.train_data.horizontal_flip {
            return Err(usage(
                "--both-flips: `train_data.horizontal_flip` is off, so no run would take the mirrored ones",
            ));
        }
        let interrupt = Interrupt::install()?;
        let order = Order {
            positions: self.positions,
            both_flips: self.both_flips,
            half: self.dtype == Precision::Fp16,
            shard_bytes: self.shard_mib.map(|size| (size * f64::from(1 << 20)) as u64),
        };
        let maker = Maker::prepare(self.source.stage, &config, folder, order)?;
        let mut bar = Progress::new(maker.rows(), "cache");
        let made = maker.make(|row| bar.at(row, String::new()), || interrupt.requested().is_some())?;
        bar.finish();
        if made.faults.unreadable() > 0 {
            say(&made.faults.to_string());
        }
        say(&describe(&made));
        match interrupt.requested().filter(|_| made.stopped) {
            Some(signal) => {
                say("stopped by a signal; the same command goes on from here");
                Ok(ExitCode::from(signal.exit_code() as u8))
            }
            None => {
                println!("{}", folder.display());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn describe(made: &Made) -> String {
    let Made { kept, written, damaged, mended, missing, entries, texts, bytes, .. } = made;
    let mut text = format!(
        "{entries} entries of clips and {texts} captions; {written} files written, {kept} kept; {:.1} MiB",
        *bytes as f64 / f64::from(1 << 20)
    );
    if *damaged > 0 {
        text += &format!("; {damaged} were damaged and made anew");
    }
    if *mended > 0 {
        text += &format!("; {mended} lacked clips that can be read now, and were made anew");
    }
    if *missing > 0 {
        text += &format!(
            "; {missing} entries are missing, as their clips cannot be read: mend those, and the same command tries them again"
        );
    }
    text
}
