//! What is trained: rules on parameter names, set before a model is built.

use std::fmt;

/// Matches a name that contains the pattern's pieces in order; `*` stands for anything between two pieces.
///
/// Without a star this is the official `trainable_modules` rule: the name contains the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text, e.g. `motion_modules.*.to_q`.
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern(text.into())
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut rest = name;
        self.0.split('*').all(|piece| match rest.find(piece) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Low-rank pairs on every linear layer whose path matches one of `targets`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPlan {
    /// Layer paths, e.g. `.attentions.*.to_q`.
    pub targets: Vec<Pattern>,
    /// Rank of the pairs.
    pub rank: i64,
    /// Multiplies `up · down`.
    pub scale: f64,
}

/// A model's plan: which parameters are trained, which get a low-rank pair, which may be missing from the source.
///
/// A trained or LoRA pattern that matches nothing is reported as a problem of the build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Trained in full, in float32.
    pub trained: Vec<Pattern>,
    /// Trained low-rank pairs.
    pub lora: Option<LoraPlan>,
    /// Initialised, as the layer says, when the source has no such tensor. Others are then missing, an error.
    pub fresh: Vec<Pattern>,
    /// Whether the network is only used: no gradient goes through it, and nothing but its own layers reads its weights, which
    /// they may then keep in the order that the processor multiplies them in.
    pub only_used: bool,
}

impl Plan {
    /// Everything frozen, everything in the source.
    pub fn frozen() -> Plan {
        Plan::default()
    }

    /// Everything frozen, everything in the source, and only used: what sampling builds.
    pub fn only_used() -> Plan {
        Plan { only_used: true, ..Plan::default() }
    }

    /// Everything initialised and frozen: a random model.
    pub fn random() -> Plan {
        Plan { fresh: vec![Pattern::new("")], ..Plan::default() }
    }

    /// Trains what matches, initialising it where the source lacks it.
    pub fn train(patterns: impl IntoIterator<Item = Pattern>) -> Plan {
        let trained: Vec<Pattern> = patterns.into_iter().collect();
        Plan { fresh: trained.clone(), trained, ..Plan::default() }
    }
}
