//! A folder of samples with a page that shows them, and what was thought of each.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result};
use minijinja::{Environment, value::Serde};
use serde_json::{Value, json};

use super::exam::Answer;
use crate::files;

const TEMPLATE: &str = include_str!("gallery.html");

/// Writes each sample (a GIF, or a PNG of one frame) and `index.html` into `folder`, which is made.
pub fn write(folder: &Path, title: &str, summary: &[String], answers: &[Answer]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let items = answers.iter().enumerate().map(|(index, answer)| item(folder, index, answer));
    let items = items.collect::<Result<Vec<Value>>>()?;
    let mut environment = Environment::new();
    environment.add_template("index.html", TEMPLATE).context("the page's template")?;
    let template = environment.get_template("index.html").context("the page's template")?;
    let values = json!({"title": title, "summary": summary, "items": items});
    let page = template.render(minijinja::Value::from(Serde(values))).context("the page cannot be made")?;
    files::write_atomic(&folder.join("index.html"), |out| Ok(out.write_all(page.as_bytes())?))
}

fn item(folder: &Path, index: usize, answer: &Answer) -> Result<Value> {
    let Answer { prompt, clip, verdict, right } = answer;
    let file = match clip.frames.as_slice() {
        [picture] => {
            let file = format!("{index:03}.png");
            picture.save_png(&folder.join(&file))?;
            file
        }
        _ => {
            let file = format!("{index:03}.gif");
            clip.save(&folder.join(&file))?;
            file
        }
    };
    Ok(json!({"file": file, "prompt": prompt, "verdict": verdict, "right": right}))
}
