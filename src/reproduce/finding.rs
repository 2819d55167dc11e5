//! What an experiment finds: numbers with targets, and what is worth looking at.

use serde::Serialize;

use crate::clip::Clip;

/// All that one experiment of one seed found.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// The numbers, in the order in which they are told.
    pub numbers: Vec<Number>,
    /// Animations.
    pub shows: Vec<Show>,
    /// Curves through numbers.
    pub plots: Vec<Plot>,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// What it is, unique in its claim.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// In what it is measured.
    pub unit: Unit,
    /// What it should be.
    pub target: Option<Target>,
}

/// In what a number is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A share, 0 to 1.
    Share,
    /// So many times.
    Times,
    /// Nothing else.
    Plain,
    /// Bytes.
    Bytes,
    /// A count.
    Count,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
    /// Between these.
    Between(f64, f64),
}

/// Rows of animations of the same prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    /// What is compared.
    pub title: String,
    /// What each column shows.
    pub prompts: Vec<String>,
    /// What each row was made by, and its clips.
    pub rows: Vec<(String, Vec<Clip>)>,
}

impl Show {
    /// Of all `rows` and `prompts` the first `count`.
    pub fn of_first(
        count: usize,
        title: impl Into<String>,
        prompts: Vec<String>,
        rows: Vec<(String, Vec<Clip>)>,
    ) -> Show {
        let mut show = Show { title: title.into(), prompts, rows };
        show.prompts.truncate(count);
        show.rows.iter_mut().for_each(|(_, clips)| clips.truncate(count));
        show
    }
}

/// Curves through numbers of the same claim; over several seeds, through their means.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// What is shown.
    pub title: String,
    /// What the places along the axis are.
    pub axis: String,
    /// The places, evenly spaced.
    pub places: Vec<String>,
    /// Name of each curve, and the name of its number at each place.
    pub curves: Vec<(String, Vec<String>)>,
}

impl Finding {
    /// Adds a number without a target.
    pub fn note(&mut self, name: impl Into<String>, unit: Unit, value: f64) {
        self.number(name, unit, value, None);
    }

    /// Adds a number with its target.
    pub fn claim(&mut self, name: impl Into<String>, unit: Unit, value: f64, target: Target) {
        self.number(name, unit, value, Some(target));
    }

    /// Adds a number, which may have a target.
    pub fn number(&mut self, name: impl Into<String>, unit: Unit, value: f64, target: Option<Target>) {
        self.numbers.push(Number { name: name.into(), value, unit, target });
    }
}

impl Target {
    /// Whether `value` is what it should be. NaN never is.
    pub fn met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(limit) => value >= limit,
            Target::AtMost(limit) => value <= limit,
            Target::Between(low, high) => (low..=high).contains(&value),
        }
    }

    /// In words, such as "≥ 0.95".
    pub fn text(self, unit: Unit) -> String {
        match self {
            Target::AtLeast(limit) => format!("≥ {}", unit.text(limit)),
            Target::AtMost(limit) => format!("≤ {}", unit.text(limit)),
            Target::Between(low, high) => format!("{} to {}", unit.text(low), unit.text(high)),
        }
    }
}

impl Unit {
    /// A value in this unit, as people read it.
    pub fn text(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => "not measurable".into(),
            Unit::Share => format!("{:.1} %", 100.0 * value),
            Unit::Times | Unit::Plain => format!("{value:.3}"),
            Unit::Bytes if value >= 1e6 => format!("{:.2} MB", value / 1e6),
            Unit::Bytes => format!("{:.1} kB", value / 1e3),
            Unit::Count => format!("{value:.0}"),
        }
    }
}
