//! Which tensors a file should have: those of the network that its own shapes describe.

use std::collections::BTreeMap;

use super::{ARCHITECTURE_KEY, as_tensors, infer, outline, released};
use crate::{
    model::{
        clip::{self, TextEncoder},
        unet::{
            self, UNet,
            motion::{self, AttentionType},
        },
        vae::Vae,
    },
    weights::{Content, Lora, LoraFile, NamedTensors, WeightsError, formats::Topology},
};

/// Names and shapes.
type Outline = BTreeMap<String, Vec<i64>>;

/// How a file differs from what it should be.
#[derive(Debug, Default)]
pub struct Found {
    /// Names that it lacks.
    pub missing: Vec<String>,
    /// Tensors of another shape than the others make them.
    pub misshapen: Vec<String>,
    /// The base that it fits, in words.
    pub fits: Option<String>,
    /// Whether that base is of a family that is not used here.
    pub foreign: bool,
    /// What else a user should know.
    pub notes: Vec<String>,
}

impl Found {
    /// What is wrong, in a line; `None` when nothing is.
    pub fn problem(&self) -> Option<String> {
        let first =
            |what: &str, names: &[String]| names.first().map(|name| format!("{} {what}, first {name}", names.len()));
        let parts: Vec<String> = first("tensors do not fit the others", &self.misshapen)
            .into_iter()
            .chain(first("tensors are missing", &self.missing))
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Holds `tensors`, in our names, against their network.
pub fn compare(content: Content, tensors: &NamedTensors, metadata: &BTreeMap<String, String>) -> Found {
    let mut found = Found::default();
    match content {
        Content::Checkpoint => {
            for (part, content) in
                [("unet.", Content::UNet), ("vae.", Content::Vae), ("text_encoder.", Content::TextEncoder)]
            {
                let own = tensors.shapes_below(part);
                if own.is_empty() {
                    found.notes.push(format!(
                        "it has no {}: that of the base is used",
                        part.trim_end_matches('.').replace('_', " ")
                    ));
                } else {
                    found.hold(&own, &wanted(content, &own, metadata), part);
                }
            }
            let (fits, foreign) = base_of(&tensors.shapes_below("unet."));
            (found.fits, found.foreign) = (Some(fits), foreign);
        }
        Content::Embedding => {
            let width = tensors.names().next().and_then(|name| tensors.shape(name)?.last().copied());
            found.fits = width.map(|width| match width {
                768 => "Stable Diffusion 1.x".into(),
                other => format!("text encoders of width {other}"),
            });
        }
        Content::LowRank => {}
        _ => {
            found.hold(tensors, &wanted(content, tensors, metadata), "");
            match content {
                Content::MotionModule => found.fits = Some(level_fit(tensors)),
                Content::Vae | Content::TextEncoder => {}
                _ => {
                    let (fits, foreign) = base_of(tensors);
                    (found.fits, found.foreign) = (Some(fits), foreign);
                }
            }
        }
    }
    found
}

impl Found {
    fn hold(&mut self, tensors: &NamedTensors, wanted: &Outline, prefix: &str) {
        for (name, shape) in wanted {
            match tensors.shape(name) {
                None => self.missing.push(format!("{prefix}{name}")),
                Some(own) if own != *shape => {
                    self.misshapen.push(format!("{prefix}{name} is {own:?}, and {shape:?} is expected"));
                }
                Some(_) => {}
            }
        }
        // A network is told by some of its tensors: where one of those is missing, others have no place.
        let lost = tensors.names().filter(|name| !wanted.contains_key(*name));
        self.misshapen
            .extend(lost.map(|name| format!("{prefix}{name} has no place in the network that the others make")));
    }
}

/// What the network of these shapes has.
fn wanted(content: Content, tensors: &NamedTensors, metadata: &BTreeMap<String, String>) -> Outline {
    let unet = || -> Option<unet::Config> { serde_json::from_value(infer::unet(tensors)).ok() };
    match content {
        Content::UNet => unet().map(|config| of_unet(&config, None)).unwrap_or_default(),
        Content::Vae => {
            let config = infer::vae(tensors);
            let whole = !config.block_out_channels.is_empty() && config.layers_per_block > 0;
            if whole { outline(|params| Vae::new(params, &config)) } else { Outline::new() }
        }
        Content::TextEncoder => {
            let config = infer::text(tensors);
            outline(|params| TextEncoder::new(params, &config))
        }
        Content::MotionModule => motion_module(tensors, metadata),
        Content::ControlNet | Content::SparseCtrl => control(tensors, content == Content::SparseCtrl),
        Content::Checkpoint | Content::LowRank | Content::Embedding => Outline::new(),
    }
}

fn of_unet(config: &unet::Config, motion: Option<&motion::Config>) -> Outline {
    if config.block_out_channels.is_empty() || config.layers_per_block < 1 {
        return Outline::new();
    }
    outline(|params| UNet::new(params, config, motion))
}

/// The UNet that a motion module of these widths is for.
fn host(tensors: &NamedTensors) -> unet::Config {
    let widths = infer::motion_widths(tensors);
    let names = |name: &str| vec![name.to_owned(); widths.len()];
    unet::Config {
        down_block_types: names("DownBlock2D"),
        up_block_types: names("UpBlock2D"),
        layers_per_block: infer::motion_layers(tensors),
        block_out_channels: widths,
        norm_num_groups: 1,
        attention_head_dim: unet::Heads::All(1),
        ..unet::Config::default()
    }
}

fn motion_module(tensors: &NamedTensors, metadata: &BTreeMap<String, String>) -> Outline {
    let told = metadata.get(ARCHITECTURE_KEY).and_then(|json| serde_json::from_str(json).ok());
    let mid = tensors.names().any(|name| name.starts_with("mid_block."));
    let config: motion::Config = told.unwrap_or_else(|| {
        let mut config = released(mid, None);
        let attentions = Topology::of(tensors.names().collect::<Vec<_>>().into_iter()).attentions;
        config.motion_module_kwargs.attention_block_types = vec![AttentionType::SelfAttention; attentions];
        config
    });
    let mut outline = of_unet(&host(tensors), Some(&config));
    outline.retain(|name, _| name.contains("motion_modules."));
    outline
}

/// The UNet's way down, with a convolution at every exit and an encoder of the condition.
fn control(tensors: &NamedTensors, sparse: bool) -> Outline {
    let Ok(config) = serde_json::from_value::<unet::Config>(infer::unet(tensors)) else { return Outline::new() };
    let mut motion = motion::Config::v3();
    motion.motion_module_kwargs.attention_block_types.truncate(1);
    let mirrored = unet::Config {
        up_block_types: config.down_block_types.iter().rev().map(|name| name.replace("Down", "Up")).collect(),
        ..config.clone()
    };
    let mut outline = of_unet(&mirrored, sparse.then_some(&motion));
    outline.retain(|name, _| {
        !name.starts_with("up_blocks.") && !name.starts_with("conv_out") && !name.starts_with("conv_norm_out")
    });
    let mut layer = |name: String, weight: Vec<i64>| {
        outline.insert(format!("{name}.bias"), vec![weight[0]]);
        outline.insert(format!("{name}.weight"), weight);
    };
    let (widths, layers) = (&config.block_out_channels, config.layers_per_block);
    let (Some(&first), Some(&last)) = (widths.first(), widths.last()) else { return Outline::new() };
    let mut exits = vec![first];
    for (level, &width) in widths.iter().enumerate() {
        let count = layers + i64::from(level + 1 < widths.len());
        exits.extend((0..count).map(|_| width));
    }
    for (index, width) in exits.into_iter().enumerate() {
        layer(format!("controlnet_down_blocks.{index}"), vec![width, width, 1, 1]);
    }
    layer("controlnet_mid_block".into(), vec![last, last, 1, 1]);
    let inputs = |name: &str| tensors.shape(name).and_then(|shape| shape.get(1).copied());
    let embedding = "controlnet_cond_embedding";
    if let Some(channels) = inputs(&format!("{embedding}.weight")) {
        layer(embedding.into(), vec![first, channels, 3, 3]);
        return outline;
    }
    let channels = inputs(&format!("{embedding}.conv_in.weight")).unwrap_or(3);
    layer(format!("{embedding}.conv_in"), vec![16, channels, 3, 3]);
    for (index, [input, output]) in
        [[16, 16], [16, 32], [32, 32], [32, 96], [96, 96], [96, 256]].into_iter().enumerate()
    {
        layer(format!("{embedding}.blocks.{index}"), vec![output, input, 3, 3]);
    }
    layer(format!("{embedding}.conv_out"), vec![first, 256, 3, 3]);
    outline
}

/// Which base a UNet of these shapes is of, and whether it is one of another family.
fn base_of(unet: &NamedTensors) -> (String, bool) {
    let config = infer::unet(unet);
    let (widths, context, inputs) =
        (&config["block_out_channels"], &config["cross_attention_dim"], &config["in_channels"]);
    match (widths.to_string().as_str(), context.as_i64(), inputs.as_i64()) {
        (_, Some(1024), _) => ("Stable Diffusion 2.x, which is not supported".into(), true),
        (_, _, Some(9)) => ("inpainting with Stable Diffusion 1.x, which is not supported".into(), true),
        ("[320,640,1280,1280]", Some(768), Some(4)) => ("Stable Diffusion 1.x".into(), false),
        _ => (format!("models of widths {widths}, text {context}, {inputs} latent channels"), false),
    }
}

fn level_fit(tensors: &NamedTensors) -> String {
    let widths = host(tensors).block_out_channels;
    if widths == [320, 640, 1280, 1280] {
        "Stable Diffusion 1.x".into()
    } else {
        format!("models of widths {widths:?}")
    }
}

/// Which base low-rank pairs fit; what does not fit a base that most do is told.
pub fn fits_low_rank(lora: &LoraFile, misshapen: &mut Vec<String>) -> Option<String> {
    let unet = as_tensors(of_unet(&unet::Config::default(), Some(&motion::Config::v2())));
    let text = as_tensors(outline(|params| TextEncoder::new(params, &clip::Config::default())));
    let check = |part: &Lora, of: &NamedTensors| part.check_fit(of);
    match (check(&lora.unet, &unet), check(&lora.text_encoder, &text)) {
        (Ok(()), Ok(())) => Some("Stable Diffusion 1.x".into()),
        (Err(error @ WeightsError::NoTarget { .. }), _) | (_, Err(error @ WeightsError::NoTarget { .. })) => {
            misshapen.push(error.to_string());
            None
        }
        _ => Some("models of other sizes than Stable Diffusion 1.x".into()),
    }
}

/// Holds the tensors of a UNet against a configuration that it comes with.
pub fn compare_unet(config: &unet::Config, tensors: &NamedTensors) -> Found {
    let mut found = Found::default();
    found.hold(tensors, &of_unet(config, None), "unet.");
    found
}
