//! How many of each block a file's networks have, where names depend on it: LDM numbers blocks through all levels.

/// The counts that a table needs. [`Topology::default`] is Stable Diffusion 1.x with a motion module of two attentions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers: usize,
    /// For each level of the UNet, highest resolution first, whether it has spatial transformers.
    pub attention: Vec<bool>,
    /// Levels of the VAE.
    pub vae_levels: usize,
    /// Attentions in a motion module's transformer block.
    pub attentions: usize,
}

impl Default for Topology {
    fn default() -> Topology {
        Topology { layers: 2, attention: vec![true, true, true, false], vae_levels: 4, attentions: 2 }
    }
}

impl Topology {
    /// What the names of a file show; Stable Diffusion 1.x's counts where they show nothing.
    pub fn of<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Topology {
        let default = Topology::default();
        let highest = |part: &str| names.clone().filter_map(|name| number_after(name, part)).max();
        let attentions = highest("attention_blocks.").map(|index| index + 1);
        let counted = highest(".attn").filter(|_| names.clone().any(|name| name.contains("motion_modules.")));
        let vae_levels = [".down.", ".down_blocks."]
            .iter()
            .filter_map(|part| {
                names.clone().filter(|name| name.contains("encoder.")).filter_map(|n| number_after(n, part)).max()
            })
            .max();
        let (layers, attention) = ldm_levels(names.clone()).unwrap_or((default.layers, default.attention));
        Topology {
            layers,
            attention,
            vae_levels: vae_levels.map_or(default.vae_levels, |index| (index + 1).min(MOST)),
            attentions: attentions.or(counted).unwrap_or(default.attentions).clamp(1, MOST),
        }
    }
}

/// No network has more levels, or attentions in a block; names that say so are of none.
const MOST: usize = 16;

/// From LDM's names: where the downsamplers are, and which levels have transformers.
fn ldm_levels<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Option<(usize, Vec<bool>)> {
    const PART: &str = "input_blocks.";
    let after = |rest: &'static str| {
        let numbers = names.clone().filter(move |name| name.contains(rest)).filter_map(|name| number_after(name, PART));
        numbers.collect::<Vec<usize>>()
    };
    let blocks = names.clone().filter_map(|name| number_after(name, PART)).max()?;
    let layers = after(".0.op.").into_iter().min().unwrap_or(blocks + 1).checked_sub(1)?;
    if layers == 0 || layers > MOST || blocks / (layers + 1) >= MOST {
        return None;
    }
    let with_attention = after(".1.proj_in.");
    let levels = blocks / (layers + 1) + 1;
    let attention = (0..levels).map(|level| with_attention.contains(&(level * (layers + 1) + 1)));
    Some((layers, attention.collect()))
}

/// The number that follows `part` in `name`.
fn number_after(name: &str, part: &str) -> Option<usize> {
    let rest = &name[name.find(part)? + part.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}
