//! The formats that are read and written, as tables; each table's own file says where its names come from.
//!
//! A format is what a file holds in whose names. Which one a file has is told by its keys: the table that knows most of them.

mod control;
mod image;
mod ldm;
mod low_rank;
mod motion;
mod parts;
mod topology;

use std::fmt;

pub use ldm::{EMA, UNET};
pub use topology::Topology;

use super::map::{Coverage, Table};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A base model in one file; any part may be missing. Ours: `unet.`, `vae.`, `text_encoder.`.
    Checkpoint,
    /// The image UNet.
    UNet,
    /// The VAE.
    Vae,
    /// CLIP's text encoder.
    TextEncoder,
    /// A motion module.
    MotionModule,
    /// Low-rank pairs: a MotionLoRA, a domain adapter or another LoRA. Ours: `unet.`, `text_encoder.`.
    LowRank,
    /// Textual-inversion embeddings.
    Embedding,
    /// A ControlNet.
    ControlNet,
    /// A SparseCtrl encoder.
    SparseCtrl,
}

impl Content {
    /// What it is called, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Content::Checkpoint => "a Stable Diffusion checkpoint",
            Content::UNet => "an image UNet",
            Content::Vae => "a VAE",
            Content::TextEncoder => "a text encoder",
            Content::MotionModule => "a motion module",
            Content::LowRank => "a LoRA",
            Content::Embedding => "a textual-inversion embedding",
            Content::ControlNet => "a ControlNet",
            Content::SparseCtrl => "a SparseCtrl encoder",
        }
    }
}

impl Content {
    /// What it is called, without the article.
    pub fn noun(self) -> &'static str {
        noun(self.name())
    }
}

/// `a thing` without its article.
pub fn noun(name: &'static str) -> &'static str {
    name.split_once(' ').map_or(name, |(_, noun)| noun)
}

/// Whose names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// AnimateDiff's.
    Official,
    /// diffusers' (and transformers').
    Diffusers,
    /// PEFT's own, to be written; they are read as diffusers'.
    Peft,
    /// CompVis' and the single files'.
    Ldm,
    /// kohya's and LyCORIS'.
    Kohya,
    /// A1111's web interface's.
    A1111,
}

impl fmt::Display for Dialect {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.pad(match self {
            Dialect::Official => "official",
            Dialect::Diffusers => "diffusers",
            Dialect::Peft => "peft",
            Dialect::Ldm => "ldm",
            Dialect::Kohya => "kohya",
            Dialect::A1111 => "a1111",
        })
    }
}

/// What, in whose names, and the table between them and ours.
#[derive(Clone, Debug)]
pub struct Format {
    /// What it holds.
    pub content: Content,
    /// Whose names.
    pub dialect: Dialect,
    /// Their names and ours.
    pub table: Table,
}

impl Format {
    /// Whether `coverage` makes a file one of this format at all: some of its keys must be the format's own.
    fn claims(coverage: Coverage) -> bool {
        coverage.own > 0
    }
}

/// Every pair of content and dialect there is a table for, in the order in which a tie is decided.
const ALL: [(Content, Dialect); 15] = [
    (Content::UNet, Dialect::Diffusers),
    (Content::Vae, Dialect::Diffusers),
    (Content::Vae, Dialect::Ldm),
    (Content::TextEncoder, Dialect::Diffusers),
    (Content::Checkpoint, Dialect::Ldm),
    (Content::MotionModule, Dialect::Official),
    (Content::MotionModule, Dialect::Diffusers),
    (Content::LowRank, Dialect::Official),
    (Content::LowRank, Dialect::Diffusers),
    (Content::LowRank, Dialect::Kohya),
    (Content::ControlNet, Dialect::Diffusers),
    (Content::ControlNet, Dialect::Ldm),
    (Content::SparseCtrl, Dialect::Official),
    (Content::SparseCtrl, Dialect::Diffusers),
    (Content::LowRank, Dialect::Peft),
];

/// The format of `content` in the names of `dialect`, if there is one.
pub fn format(content: Content, dialect: Dialect, topology: &Topology) -> Option<Format> {
    let table = match (content, dialect) {
        (Content::UNet, Dialect::Diffusers) => image::unet(),
        (Content::Vae, Dialect::Diffusers) => image::vae(),
        (Content::Vae, Dialect::Ldm) => ldm::vae(topology),
        (Content::TextEncoder, Dialect::Diffusers) => image::clip_text(),
        (Content::Checkpoint, Dialect::Ldm) => ldm::checkpoint(topology),
        (Content::MotionModule, Dialect::Official) => motion::official(topology.attentions),
        (Content::MotionModule, Dialect::Diffusers) => motion::diffusers(topology.attentions),
        (Content::LowRank, Dialect::Official) => low_rank::official(topology),
        (Content::LowRank, Dialect::Diffusers) => low_rank::diffusers(topology),
        (Content::LowRank, Dialect::Peft) => low_rank::peft(topology),
        (Content::LowRank, Dialect::Kohya) => low_rank::kohya(topology),
        (Content::ControlNet, Dialect::Diffusers) => control::controlnet(),
        (Content::ControlNet, Dialect::Ldm) => ldm::controlnet(topology),
        (Content::SparseCtrl, Dialect::Official) => control::sparse_official(topology),
        (Content::SparseCtrl, Dialect::Diffusers) => control::sparse_diffusers(topology),
        _ => return None,
    };
    Some(Format { content, dialect, table })
}

/// The format whose table knows most of `names`; the earlier one where two know as many.
pub fn closest<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Option<Format> {
    let (topology, total) = (Topology::of(names.clone()), names.clone().count());
    let mut best: Option<(usize, Format)> = None;
    for (content, dialect) in ALL {
        let format = format(content, dialect, &topology).expect("every pair of the list has a table");
        let coverage = format.table.coverage(names.clone());
        let known = coverage.own + coverage.left_out;
        if Format::claims(coverage) && best.as_ref().is_none_or(|(most, _)| known > *most) {
            best = Some((known, format));
        }
        if best.as_ref().is_some_and(|(most, _)| *most == total) {
            break; // no other can know more, and the earlier one is taken
        }
    }
    best.map(|(_, format)| format)
}
