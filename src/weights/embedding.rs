//! Textual-inversion embeddings: vectors that stand for a word of a prompt.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{
    error::WeightsError,
    formats::{Content, Dialect, Format},
    identify::Identified,
    map::{Row, Table},
    named::NamedTensors,
};

/// A word that prompts may use, and what the text encoder sees in its place.
#[derive(Debug)]
pub struct Embedding {
    /// As it is written in prompts.
    pub token: String,
    /// `[n, width]`: as many places of the prompt as it has rows.
    pub vectors: Tensor,
}

/// The one tensor of A1111's safetensors.
pub const A1111_NAME: &str = "emb_params";

/// More tensors than anybody puts into such a file.
const MOST: usize = 64;

/// Whose form this is: A1111's has `string_to_param` or `emb_params`, diffusers' the tokens themselves as names.
pub(super) fn dialect(tensors: &NamedTensors) -> Option<Dialect> {
    let vectors = |name: &str| tensors.shape(name).is_some_and(|shape| matches!(shape[..], [_] | [_, _]));
    if tensors.names().any(|name| name.starts_with("string_to_param.") || name == A1111_NAME) {
        return Some(Dialect::A1111);
    }
    let plain = tensors.len() <= MOST && tensors.names().all(|name| vectors(name) && !name.contains('.'));
    plain.then_some(Dialect::Diffusers)
}

/// The table of either form; in ours the tokens are the names.
pub fn format(dialect: Dialect) -> Format {
    let rows = match dialect {
        Dialect::A1111 => {
            vec![Row::copy("string_to_param.{*}", "{*}"), Row::copy(A1111_NAME, "*"), Row::drop("string_to_token.{*}")]
        }
        _ => vec![Row::copy("{*}", "{*}")],
    };
    Format { content: Content::Embedding, dialect, table: Table::new("textual-inversion embedding", rows) }
}

impl Embedding {
    /// Reads all embeddings of a file. A1111 calls an embedding as its file is called, without the ending.
    pub fn read(path: &Path) -> Result<Vec<Embedding>, WeightsError> {
        let file = Identified::read(path)?;
        let own_name = file.metadata.get("name").cloned();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let dialect = file.format.dialect;
        let tensors = file.import(Content::Embedding)?;
        let names: Vec<String> = tensors.names().map(String::from).collect();
        let embedding = |name: String| {
            let token = match dialect {
                Dialect::A1111 => stem.clone().or_else(|| own_name.clone()).unwrap_or_else(|| name.clone()),
                _ => name.clone(),
            };
            let vectors = tensors.get(&name).expect("it is listed").to_kind(Kind::Float);
            let wrong = |reason: String| WeightsError::Embedding { path: path.to_owned(), name: name.clone(), reason };
            let vectors = match vectors.size()[..] {
                [width] => vectors.view([1, width]),
                [rows, _] if rows > 0 => vectors,
                ref shape => return Err(wrong(format!("it is {shape:?}; [width] or [places, width] is expected"))),
            };
            if vectors.isfinite().all().int64_value(&[]) == 0 {
                return Err(wrong("it holds NaN or infinite values".into()));
            }
            Ok(Embedding { token, vectors })
        };
        names.into_iter().map(embedding).collect()
    }
}
