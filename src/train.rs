//! Training: three stages and whole-UNet fine-tuning, one loop. A recipe is data; the loop never asks which stage it runs.

pub mod optim;
