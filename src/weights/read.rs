//! Reading safetensors files, single or as the shards of a diffusers folder.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use safetensors::{Dtype, SafeTensors};
use tch::Kind;

use super::{
    error::WeightsError,
    named::{NamedTensors, Stored},
};
use crate::native::MappedFile;

/// A weight file: its tensors, still on disk, and its metadata.
pub struct WeightFile {
    /// By the names of the file.
    pub tensors: NamedTensors,
    /// `__metadata__` of the header.
    pub metadata: BTreeMap<String, String>,
}

/// Opens one safetensors file. The whole header is checked; no tensor is read yet.
pub fn read(path: &Path) -> Result<WeightFile, WeightsError> {
    let open = |source| WeightsError::Open { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(open)?;
    if about.is_dir() {
        let reason = "it is a folder; give the file in it".into();
        return Err(WeightsError::NotSafetensors { path: path.to_owned(), reason });
    }
    let length = about.len();
    if length < 8 {
        return Err(WeightsError::Truncated { path: path.to_owned(), expected: 8, found: length });
    }
    let file = Arc::new(MappedFile::open(path).map_err(open)?);
    let (header, metadata) =
        SafeTensors::read_metadata(&file).map_err(|error| explain(path, &file, &error.to_string()))?;
    let start = 8 + header;
    let origin = Arc::new(path.to_owned());
    let mut tensors = NamedTensors::new();
    for (name, info) in metadata.tensors() {
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        if range.end > file.len() {
            let expected = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
            return Err(WeightsError::Truncated {
                path: path.to_owned(),
                expected: (start + expected) as u64,
                found: length,
            });
        }
        let kind = kind_of(info.dtype).ok_or_else(|| WeightsError::Dtype {
            path: path.to_owned(),
            name: name.clone(),
            dtype: format!("{:?}", info.dtype),
        })?;
        let shape = info.shape.iter().map(|&size| size as i64).collect();
        let stored = Stored { file: Arc::clone(&file), kind, shape, range };
        tensors.insert_stored(name, stored, Arc::clone(&origin));
    }
    if tensors.is_empty() {
        return Err(WeightsError::Empty { path: path.to_owned() });
    }
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(WeightFile { tensors, metadata })
}

/// Opens the weights of one component of a diffusers folder, `<dir>/<stem>[.fp16].safetensors` or its shards.
pub fn read_component(dir: &Path, stems: &[&str]) -> Result<NamedTensors, WeightsError> {
    for stem in stems {
        for variant in ["", ".fp16", ".non_ema"] {
            let single = dir.join(format!("{stem}{variant}.safetensors"));
            if single.exists() {
                return Ok(read(&single)?.tensors);
            }
            for index in
                [format!("{stem}.safetensors.index{variant}.json"), format!("{stem}{variant}.safetensors.index.json")]
            {
                if dir.join(&index).exists() {
                    return read_shards(&dir.join(index));
                }
            }
        }
    }
    Err(no_weights(dir, stems))
}

fn no_weights(dir: &Path, stems: &[&str]) -> WeightsError {
    let expected: Vec<String> = stems.iter().map(|stem| format!("{stem}.safetensors")).collect();
    let pickles = ["diffusion_pytorch_model.bin", "pytorch_model.bin"];
    let hint = match pickles.iter().find(|name| dir.join(name).exists()) {
        Some(name) => format!("; {name} is a pickle, which is not read: save the model with safe_serialization=True"),
        None if dir.is_dir() => "; is this a diffusers folder?".into(),
        None => "; the folder does not exist".into(),
    };
    WeightsError::NoWeights { path: dir.to_owned(), expected: expected.join(" or "), hint }
}

fn read_shards(index: &Path) -> Result<NamedTensors, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text =
        std::fs::read_to_string(index).map_err(|source| WeightsError::Open { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_str(&text)
        .map_err(|error| WeightsError::Index { path: index.to_owned(), reason: error.to_string() })?;
    let mut shards: Vec<&String> = parsed.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    let mut tensors = NamedTensors::new();
    for shard in shards {
        tensors.extend(read(&index.with_file_name(shard))?.tensors);
    }
    match parsed.weight_map.keys().find(|name| !tensors.contains(name)) {
        Some(name) => {
            Err(WeightsError::Index { path: index.to_owned(), reason: format!("`{name}` is in none of the shards") })
        }
        None => Ok(tensors),
    }
}

/// Says what a file that is not safetensors looks like.
fn explain(path: &Path, bytes: &[u8], error: &str) -> WeightsError {
    let not = |reason: String| WeightsError::NotSafetensors { path: path.to_owned(), reason };
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return not("it is a PyTorch pickle, which is not read; convert it to safetensors first".into());
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return not("it is a Git LFS pointer; run `git lfs pull` to get the file itself".into());
    }
    if bytes.starts_with(b"<") {
        return not("it is a web page; download the file itself (on the Hub, its /resolve/ address)".into());
    }
    let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    if let Some(header) = header
        && bytes.get(8) == Some(&b'{')
        && (bytes.len() as u64) < header.saturating_add(8)
    {
        return WeightsError::Truncated {
            path: path.to_owned(),
            expected: header.saturating_add(8),
            found: bytes.len() as u64,
        };
    }
    // The crate compares the last tensor's end with the file's length while it reads the header.
    if error.contains("MetadataIncompleteBuffer") || error.contains("incomplete metadata") {
        let expected = header.map_or(0, |header| header + 8) + described_bytes(bytes).unwrap_or(0);
        let found = bytes.len() as u64;
        return if found < expected {
            WeightsError::Truncated { path: path.to_owned(), expected, found }
        } else {
            not(format!("it has {found} bytes and its header describes {expected}; copy or download it again"))
        };
    }
    not(format!("{error}; copy or download it again, or convert it to safetensors first"))
}

/// The end of the last tensor by the header, whatever the file's length.
fn described_bytes(bytes: &[u8]) -> Option<u64> {
    let header = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let text = bytes.get(8..8usize.checked_add(usize::try_from(header).ok()?)?)?;
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    json.values().filter_map(|info| info.get("data_offsets")?.get(1)?.as_u64()).max()
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        _ => return None,
    })
}
