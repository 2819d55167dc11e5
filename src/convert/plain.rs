//! Files whose names stay: any file as safetensors, and embeddings.

use std::path::Path;

use anyhow::Result;

use super::{Order, Outcome, carried};
use crate::weights::{Content, Dialect, Embedding, NamedTensors, embedding, identify, publish::Card, read};

/// Any file, of whatever it is, as safetensors: its own names, without what it was wrapped in.
pub fn convert(order: &Order) -> Result<Outcome> {
    order.must_be_file("a conversion to safetensors")?;
    let file = read(&order.input)?;
    let before = file.tensors.len();
    let (tensors, wrapped) = identify::unwrap(file.tensors);
    let count = tensors.len();
    let mut metadata = file.metadata;
    metadata.insert("format".into(), "pt".into());
    order.write(tensors, &metadata)?;
    let mut notes: Vec<String> = wrapped.iter().map(|part| format!("names lost the prefix `{part}`")).collect();
    if count < before {
        notes.push(format!("{} tensors beside the weights were left out", before - count));
    }
    Ok(Outcome { what: format!("{count} tensors in their own names"), notes })
}

/// Embeddings, in A1111's form (one) or diffusers' (any number).
pub fn convert_embedding(order: &Order, path: &Path) -> Result<Outcome> {
    order.must_not_merge("an embedding")?;
    order.must_be_file("an embedding")?;
    let dialect = order.dialect("an embedding", Dialect::Diffusers, &[Dialect::Diffusers, Dialect::A1111])?;
    let before = read(path)?.metadata;
    let embeddings = Embedding::read(path)?;
    if dialect == Dialect::A1111 && embeddings.len() > 1 {
        return Err(super::refused(format!(
            "{}: A1111's form holds one embedding, and this file {}",
            path.display(),
            embeddings.len()
        )));
    }
    let title = order.title();
    let card = Card { content: Content::Embedding, dialect, purpose: None, title: &title, rank: None, alpha: None };
    let tokens: Vec<&str> = embeddings.iter().map(|embedding| embedding.token.as_str()).collect();
    let what = format!("embedding of {}", tokens.join(", "));
    let name =
        |token: &str| if dialect == Dialect::A1111 { embedding::A1111_NAME.to_owned() } else { token.to_owned() };
    let tensors: NamedTensors =
        embeddings.iter().map(|embedding| (name(&embedding.token), embedding.vectors.shallow_clone())).collect();
    let mut metadata = carried(&before, card.metadata());
    let mut notes = Vec::new();
    if dialect == Dialect::A1111 {
        metadata.insert("name".into(), title.clone());
        notes.push(format!("A1111's form goes by the file's name: prompts call it `{title}` now"));
    }
    order.write(tensors, &metadata)?;
    Ok(Outcome { what, notes })
}
