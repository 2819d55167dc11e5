//! `report.json`. Numbers that could not be measured are null.

use serde::Serialize;

use super::super::{
    Budget, Claim, Finding, Lab,
    finding::{Target, Unit},
    lab::Record,
};
use crate::machine::Machine;

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Of this program.
    pub version: &'static str,
    /// When it was written, local time.
    pub date: String,
    /// What it was made on.
    pub machine: Machine,
    /// The base model's folder.
    pub base: String,
    /// BLAKE3 hash of its files.
    pub base_digest: String,
    /// The seeds that were run, or are being run.
    pub seeds: Vec<u64>,
    /// Sizes of sets, samples and grids.
    pub budget: Budget,
    /// Whether the budget is smaller than what the claims are made with: the numbers then mean nothing.
    pub reduced: bool,
    /// One entry per claim.
    pub claims: Vec<ClaimRow>,
    /// Every step in the order in which it was needed.
    pub steps: Vec<Record>,
    /// What all steps took together, those included that an earlier call made, each in the call that finished it.
    pub seconds: f64,
}

/// A claim and its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct ClaimRow {
    /// Its name, as `--only` takes it.
    pub claim: String,
    /// The claim in words.
    pub title: &'static str,
    /// The experiment in words.
    pub experiment: &'static str,
    /// Whether all targets are met; null where there are none.
    pub met: Option<bool>,
    /// Its numbers.
    pub numbers: Vec<Row>,
}

/// A number over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// `share` (0 to 1), `times`, `plain`, `bytes` or `count`.
    pub unit: Unit,
    /// One value per seed.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of a sample); null for one seed.
    pub spread: Option<f64>,
    /// `{"at_least": x}`, `{"at_most": x}`, `{"between": [x, y]}` or null.
    pub target: Option<Target>,
    /// Whether the mean is what it should be.
    pub met: Option<bool>,
}

impl Document {
    pub(super) fn new(lab: &Lab, base_digest: &str, claims: &[(Claim, Vec<Finding>)]) -> Document {
        let steps = lab.records().to_vec();
        Document {
            version: env!("CARGO_PKG_VERSION"),
            date: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M").to_string(),
            machine: Machine::this(lab.device),
            base: lab.settings.base.display().to_string(),
            base_digest: base_digest.to_owned(),
            seeds: (0..lab.settings.seeds).collect(),
            budget: lab.budget().clone(),
            reduced: *lab.budget() != Budget::full(),
            claims: claims.iter().map(|(claim, findings)| ClaimRow::new(*claim, findings)).collect(),
            seconds: steps.iter().map(|step| step.seconds).sum(),
            steps,
        }
    }
}

impl ClaimRow {
    fn new(claim: Claim, findings: &[Finding]) -> ClaimRow {
        let numbers: Vec<Row> = findings[0].numbers.iter().map(|number| Row::new(&number.name, findings)).collect();
        let met: Vec<bool> = numbers.iter().filter_map(|row| row.met).collect();
        ClaimRow {
            claim: claim.name(),
            title: claim.title(),
            experiment: claim.experiment(),
            met: (!met.is_empty()).then(|| met.iter().all(|met| *met)),
            numbers,
        }
    }

    /// The mean of the number `name`.
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|row| row.name == name).map(|row| row.mean)
    }
}

impl Row {
    fn new(name: &str, findings: &[Finding]) -> Row {
        let all = findings.iter().flat_map(|finding| &finding.numbers).filter(|number| number.name == name);
        let numbers: Vec<_> = all.collect();
        let values: Vec<f64> = numbers.iter().map(|number| number.value).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let spread = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
        let target = numbers[0].target;
        Row {
            name: name.to_owned(),
            unit: numbers[0].unit,
            values,
            mean,
            spread,
            target,
            met: target.map(|target| target.met(mean)),
        }
    }

    /// The mean, and how far the seeds are apart, as people read it.
    pub fn text(&self) -> String {
        let mean = self.unit.text(self.mean);
        match self.spread {
            Some(spread) => format!("{mean} ± {}", self.unit.text(spread)),
            None => mean,
        }
    }

    /// The target as people read it.
    pub fn target_text(&self) -> String {
        self.target.map_or(String::new(), |target| target.text(self.unit))
    }

    /// `met`, `missed`, or nothing.
    pub fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }
}
