//! What all experiments found, as `report.json` for programs, `report.md` for the README, and `report.html` to look at.

mod document;
mod html;
mod markdown;
mod plot;

use std::{collections::BTreeMap, io::Write, path::Path};

use anyhow::Result;

pub use document::{ClaimRow, Document, Row};
pub use html::data_uri;

use super::{Claim, Finding, Lab};
use crate::files;

/// All findings so far, one of each claim and seed.
#[derive(Debug)]
pub struct Report {
    base_digest: String,
    /// In the order in which the claims were first examined.
    claims: Vec<(Claim, Vec<Finding>)>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(lab: &Lab) -> Result<Report> {
        Ok(Report { base_digest: super::digest::of_path(&lab.settings.base)?, claims: Vec::new() })
    }

    /// Adds what `claim` found for the next seed. Animations are kept of the first seed only.
    pub fn add(&mut self, claim: Claim, mut finding: Finding) {
        match self.claims.iter_mut().find(|(known, _)| *known == claim) {
            Some((_, findings)) => {
                finding.shows.clear();
                findings.push(finding);
            }
            None => self.claims.push((claim, vec![finding])),
        }
    }

    /// The numbers, with what they were made by.
    pub fn document(&self, lab: &Lab) -> Document {
        Document::new(lab, &self.base_digest, &self.claims)
    }

    /// The table of claims in Markdown.
    pub fn markdown(&self, lab: &Lab) -> String {
        markdown::table(&self.document(lab))
    }

    /// Writes the three files into the output folder.
    pub fn write(&self, lab: &Lab) -> Result<()> {
        let document = self.document(lab);
        let json = serde_json::to_string_pretty(&document)?;
        let page = html::page(&document, &self.claims)?;
        let texts = BTreeMap::from([
            ("report.json", json + "\n"),
            ("report.md", markdown::table(&document)),
            ("report.html", page),
        ]);
        texts.iter().try_for_each(|(name, text)| write(&lab.settings.out.join(name), text))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    files::write_atomic(path, |out| Ok(out.write_all(text.as_bytes())?))
}
