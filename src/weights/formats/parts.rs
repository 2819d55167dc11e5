//! The layers that the networks of Stable Diffusion 1.x and its motion modules are made of, as patterns of our names.
//!
//! Lists, from which the tables of all formats are put together: what a row says of one layer holds for each of its kind.

/// Where a UNet has blocks.
pub const PLACES: [&str; 3] = ["down_blocks.{}", "mid_block", "up_blocks.{}"];

/// What a layer with parameters may have.
pub const LEAVES: [&str; 2] = ["weight", "bias"];

/// Linear layers and convolutions of a spatial transformer, below `attentions.{}`.
pub const TRANSFORMER: [&str; 12] = [
    "proj_in",
    "proj_out",
    "transformer_blocks.{}.attn1.to_q",
    "transformer_blocks.{}.attn1.to_k",
    "transformer_blocks.{}.attn1.to_v",
    "transformer_blocks.{}.attn1.to_out.0",
    "transformer_blocks.{}.attn2.to_q",
    "transformer_blocks.{}.attn2.to_k",
    "transformer_blocks.{}.attn2.to_v",
    "transformer_blocks.{}.attn2.to_out.0",
    "transformer_blocks.{}.ff.net.0.proj",
    "transformer_blocks.{}.ff.net.2",
];

/// Its norms.
pub const TRANSFORMER_NORMS: [&str; 4] =
    ["norm", "transformer_blocks.{}.norm1", "transformer_blocks.{}.norm2", "transformer_blocks.{}.norm3"];

/// Convolutions and the time projection of a residual block, below `resnets.{}`: in LDM's names and in ours.
pub const RESNET: [(&str, &str); 4] = [
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// Its norms.
pub const RESNET_NORMS: [(&str, &str); 2] = [("in_layers.0", "norm1"), ("out_layers.0", "norm2")];

/// Convolutions between levels.
pub const SAMPLERS: [&str; 2] = ["down_blocks.{}.downsamplers.{}.conv", "up_blocks.{}.upsamplers.{}.conv"];

/// Layers outside the blocks, in LDM's names and in ours.
pub const TOP: [(&str, &str); 4] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.2", "conv_out"),
];

/// The norm before the last convolution, likewise.
pub const TOP_NORM: (&str, &str) = ("out.0", "conv_norm_out");

/// Linear layers of CLIP's text encoder.
pub const TEXT: [&str; 6] = [
    "text_model.encoder.layers.{}.self_attn.q_proj",
    "text_model.encoder.layers.{}.self_attn.k_proj",
    "text_model.encoder.layers.{}.self_attn.v_proj",
    "text_model.encoder.layers.{}.self_attn.out_proj",
    "text_model.encoder.layers.{}.mlp.fc1",
    "text_model.encoder.layers.{}.mlp.fc2",
];

/// Its norms.
pub const TEXT_NORMS: [&str; 3] = [
    "text_model.encoder.layers.{}.layer_norm1",
    "text_model.encoder.layers.{}.layer_norm2",
    "text_model.final_layer_norm",
];

/// Linear layers of the image UNet that a low-rank pair may be for.
pub fn image_layers() -> Vec<String> {
    let mut layers: Vec<String> = TOP.iter().map(|(_, ours)| (*ours).to_owned()).collect();
    for place in PLACES {
        layers.extend(TRANSFORMER.iter().map(|part| format!("{place}.attentions.{{}}.{part}")));
        layers.extend(RESNET.iter().map(|(_, part)| format!("{place}.resnets.{{}}.{part}")));
    }
    layers.extend(SAMPLERS.map(String::from));
    layers
}

/// Layers of the image UNet that have parameters, norms included.
pub fn image_parameters() -> Vec<String> {
    let mut layers = image_layers();
    for place in PLACES {
        layers.extend(TRANSFORMER_NORMS.iter().map(|part| format!("{place}.attentions.{{}}.{part}")));
        layers.extend(RESNET_NORMS.iter().map(|(_, part)| format!("{place}.resnets.{{}}.{part}")));
    }
    layers.push(TOP_NORM.1.to_owned());
    layers
}

/// A layer of a motion module in the official names and in ours.
pub struct MotionLayer {
    /// Official.
    pub official: String,
    /// Ours, which are diffusers'.
    pub ours: String,
}

/// Linear layers of motion modules whose blocks have `attentions` attentions.
pub fn motion_layers(attentions: usize) -> Vec<MotionLayer> {
    let mut within = vec![("proj_in".to_owned(), "proj_in".to_owned()), ("proj_out".into(), "proj_out".into())];
    for index in 0..attentions {
        within.extend(["to_q", "to_k", "to_v", "to_out.0"].map(|projection| {
            (
                format!("transformer_blocks.{{}}.attention_blocks.{index}.{projection}"),
                format!("transformer_blocks.{{}}.attn{}.{projection}", index + 1),
            )
        }));
    }
    within.extend(["ff.net.0.proj", "ff.net.2"].map(|part| {
        let path = format!("transformer_blocks.{{}}.{part}");
        (path.clone(), path)
    }));
    everywhere(&within)
}

/// The other layers with parameters: norms, and the convolutions that may stand in the attentions' place.
/// `feed_forward_norm` is the number of the feed-forward's norm in our names.
pub fn motion_norms(attentions: usize, feed_forward_norm: usize) -> Vec<MotionLayer> {
    let mut within = vec![("norm".to_owned(), "norm".to_owned())];
    for index in 0..attentions {
        let (theirs, ours) = (format!("transformer_blocks.{{}}.norms.{index}"), index + 1);
        within.push((theirs, format!("transformer_blocks.{{}}.norm{ours}")));
        within.push((
            format!("transformer_blocks.{{}}.attention_blocks.{index}.conv"),
            format!("transformer_blocks.{{}}.attn{ours}.conv"),
        ));
    }
    within.push(("transformer_blocks.{}.ff_norm".into(), format!("transformer_blocks.{{}}.norm{feed_forward_norm}")));
    everywhere(&within)
}

fn everywhere(within: &[(String, String)]) -> Vec<MotionLayer> {
    let at = |place: &str| {
        let place = place.to_owned();
        within.iter().map(move |(theirs, ours)| MotionLayer {
            official: format!("{place}.motion_modules.{{}}.temporal_transformer.{theirs}"),
            ours: format!("{place}.motion_modules.{{}}.{ours}"),
        })
    };
    PLACES.iter().flat_map(|place| at(place)).collect()
}
