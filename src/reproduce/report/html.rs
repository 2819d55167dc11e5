//! `report.html`: one page with everything in it.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use minijinja::Environment;
use serde_json::{Value, json};

use super::{
    super::{
        Claim, Finding,
        finding::{Plot, Show},
    },
    document::{ClaimRow, Document},
    plot,
};
use crate::clip::Clip;

const TEMPLATE: &str = include_str!("../report.html");

pub(super) fn page(document: &Document, claims: &[(Claim, Vec<Finding>)]) -> Result<String> {
    let sections = document.claims.iter().zip(claims).map(|(row, (_, findings))| section(row, &findings[0]));
    let sections = sections.collect::<Result<Vec<Value>>>()?;
    let mut environment = Environment::new();
    environment.add_template("report.html", TEMPLATE).context("the page's template")?;
    let page = environment.get_template("report.html").context("the page's template")?;
    let minutes = (document.seconds / 60.0).round();
    let values = json!({"document": document, "sections": sections, "minutes": minutes});
    page.render(minijinja::Value::from(minijinja::value::Serde(values))).context("the page cannot be made")
}

fn section(row: &ClaimRow, finding: &Finding) -> Result<Value> {
    let numbers: Vec<Value> = row
        .numbers
        .iter()
        .map(|number| {
            json!({
                "name": number.name, "text": number.text(), "target": number.target_text(), "verdict": number.verdict(),
                "values": number.values.iter().map(|value| number.unit.text(*value)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let plots: Vec<Value> = finding.plots.iter().map(|one| drawn(one, row)).collect();
    let shows = finding.shows.iter().map(shown).collect::<Result<Vec<Value>>>()?;
    Ok(json!({
        "claim": row.claim, "title": row.title, "experiment": row.experiment, "met": row.met,
        "numbers": numbers, "plots": plots, "shows": shows,
    }))
}

fn drawn(one: &Plot, row: &ClaimRow) -> Value {
    let names: Vec<&String> = one.curves.iter().map(|(name, _)| name).collect();
    json!({"title": one.title, "svg": plot::svg(one, row), "curves": names})
}

fn shown(show: &Show) -> Result<Value> {
    let row = |(name, clips): &(String, Vec<Clip>)| -> Result<Value> {
        let clips = clips.iter().map(data_uri).collect::<Result<Vec<String>>>()?;
        Ok(json!({"name": name, "clips": clips}))
    };
    let rows = show.rows.iter().map(row).collect::<Result<Vec<Value>>>()?;
    Ok(json!({"title": show.title, "prompts": show.prompts, "rows": rows}))
}

/// The clip as a GIF that stands in the page itself.
pub fn data_uri(clip: &Clip) -> Result<String> {
    Ok(format!("data:image/gif;base64,{}", BASE64_STANDARD.encode(clip.gif()?)))
}
