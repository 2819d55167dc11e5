//! `report.md`.

use super::document::{ClaimRow, Document};

/// The table of claims, and under it what else was measured.
pub(super) fn table(document: &Document) -> String {
    let mut text = String::new();
    if document.reduced {
        text += "**A reduced budget: these numbers mean nothing.**\n\n";
    }
    text += "| claim | number | measured | target | |\n|---|---|---|---|---|\n";
    for claim in &document.claims {
        text += &rows(claim, true);
    }
    text += "\n<details><summary>Measured beside them</summary>\n\n| claim | number | measured |\n|---|---|---|\n";
    for claim in &document.claims {
        text += &rows(claim, false);
    }
    text + "\n</details>\n\n" + &made_by(document)
}

fn rows(claim: &ClaimRow, with_target: bool) -> String {
    let rows = claim.numbers.iter().filter(|row| row.target.is_some() == with_target);
    let line = |(index, row): (usize, &super::Row)| {
        let title = if index == 0 { claim.title } else { "" };
        let (name, value) = (&row.name, row.text());
        match with_target {
            true => format!("| {title} | {name} | {value} | {} | {} |\n", row.target_text(), row.verdict()),
            false => format!("| {title} | {name} | {value} |\n"),
        }
    };
    rows.enumerate().map(line).collect()
}

fn made_by(document: &Document) -> String {
    let Document { date, machine, seeds, version, seconds, .. } = document;
    let seeds = if seeds.len() == 1 { "one seed".into() } else { format!("{} seeds", seeds.len()) };
    format!(
        "{date}, animatediff {version}, {seeds}, {:.0} minutes of work on {}, {} cores ({})\n",
        seconds / 60.0,
        machine.processor,
        machine.cores,
        machine.device
    )
}
