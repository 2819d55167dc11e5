//! Reading weight files by what they hold: safetensors, PyTorch's archives, and the folders and shards of diffusers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::{Dtype, SafeTensors};

use super::{
    error::WeightsError,
    named::{NamedTensors, Stored},
    pickle::{self, PickleError, PickledTensor},
    write::kind_of,
};
use crate::{hub, native::MappedFile};

/// A weight file: its tensors, still on disk, and its metadata.
#[derive(Debug)]
pub struct WeightFile {
    /// By the names of the file.
    pub tensors: NamedTensors,
    /// `__metadata__` of a safetensors header; numbers and words beside the tensors of a pickle.
    pub metadata: BTreeMap<String, String>,
    /// How the file keeps them.
    pub container: Container,
}

/// How tensors are kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// safetensors.
    Safetensors,
    /// PyTorch's zip archive.
    Pickle,
}

/// PEFT's configuration, which lies beside its weights; it goes into the metadata under this name.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Names of the weights in folders that hold one component, without endings; earlier ones are preferred.
const STEMS: [&str; 5] = ["diffusion_pytorch_model", "model", "pytorch_model", "adapter_model", "pytorch_lora_weights"];
/// Endings, likewise.
const ENDINGS: [&str; 2] = ["safetensors", "bin"];

/// Opens a file or a folder of weights, here or on the Hub (`hf:owner/repo/path`). The whole header is checked; no tensor is
/// read yet.
pub fn read(path: &Path) -> Result<WeightFile, WeightsError> {
    let local = hub::local(path)?;
    let found = match local.is_dir() {
        true => in_folder(&local)?,
        false => local.into_owned(),
    };
    if found.to_string_lossy().ends_with(".json") && found.to_string_lossy().contains(".index.") {
        return read_shards(&found);
    }
    let mut file = read_file(&found)?;
    let of_peft = found.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("adapter_model"));
    if of_peft && let Ok(text) = std::fs::read_to_string(found.with_file_name(ADAPTER_CONFIG)) {
        file.metadata.insert(ADAPTER_CONFIG.into(), text);
    }
    Ok(file)
}

fn read_file(path: &Path) -> Result<WeightFile, WeightsError> {
    let open = |cause| WeightsError::Open { path: path.to_owned(), cause };
    let length = std::fs::metadata(path).map_err(open)?.len();
    if length < 8 {
        return Err(WeightsError::Truncated { path: path.to_owned(), expected: 8, found: length });
    }
    let file = Arc::new(MappedFile::open(path).map_err(open)?);
    let opened = match pickle::looks_like(&file) {
        Some(_) => read_pickle(path, &file)?,
        None => read_safetensors(path, &file)?,
    };
    if opened.tensors.is_empty() {
        return Err(WeightsError::Empty { path: path.to_owned() });
    }
    Ok(opened)
}

fn read_safetensors(path: &Path, file: &Arc<MappedFile>) -> Result<WeightFile, WeightsError> {
    let (header, metadata) =
        SafeTensors::read_metadata(file).map_err(|error| explain(path, file, &error.to_string()))?;
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
                found: file.len() as u64,
            });
        }
        let stored = stored(path, file, &name, (info.dtype, &info.shape, None), range)?;
        tensors.insert_stored(name, stored, Arc::clone(&origin));
    }
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(WeightFile { tensors, metadata, container: Container::Safetensors })
}

fn read_pickle(path: &Path, file: &Arc<MappedFile>) -> Result<WeightFile, WeightsError> {
    let fail = |cause: PickleError| WeightsError::Pickle { path: path.to_owned(), cause };
    let pickled = pickle::read(file).map_err(fail)?;
    let origin = Arc::new(path.to_owned());
    let mut tensors = NamedTensors::new();
    for (name, PickledTensor { dtype, shape, stride, range }) in pickled.tensors {
        let stride = (!is_contiguous(&shape, &stride)).then_some(&stride[..]);
        let stored = stored(path, file, &name, (dtype, &shape, stride), range)?;
        tensors.insert_stored(name, stored, Arc::clone(&origin));
    }
    Ok(WeightFile { tensors, metadata: pickled.values, container: Container::Pickle })
}

fn stored(
    path: &Path,
    file: &Arc<MappedFile>,
    name: &str,
    (dtype, shape, stride): (Dtype, &[usize], Option<&[usize]>),
    range: std::ops::Range<usize>,
) -> Result<Stored, WeightsError> {
    let unread = || WeightsError::Dtype { path: path.to_owned(), name: name.into(), dtype: format!("{dtype:?}") };
    let kind = kind_of(dtype).ok_or_else(unread)?;
    if !is_countable(shape, kind.elt_size_in_bytes()) {
        return Err(WeightsError::Shape { path: path.to_owned(), name: name.into() });
    }
    let signed = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
    Ok(Stored { file: Arc::clone(file), kind, shape: signed(shape), stride: stride.map(signed), range })
}

/// Whether libtorch can count the elements, their bytes and the steps between them; a size of 0 makes none of the others
/// harmless.
fn is_countable(shape: &[usize], element: usize) -> bool {
    let bytes = shape.iter().try_fold(element, |product, &size| product.checked_mul(size.max(1)));
    bytes.is_some_and(|bytes| i64::try_from(bytes).is_ok())
}

/// Whether the elements lie one after the other; where an axis has one entry its stride says nothing.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(stride).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size.max(1));
        fits
    })
}

/// The weights in the folder of one component: `<stem>[.fp16].safetensors`, or the index of its shards, or a `.bin`.
pub fn in_folder(dir: &Path) -> Result<PathBuf, WeightsError> {
    for ending in ENDINGS {
        for stem in STEMS {
            for variant in ["", ".fp16", ".non_ema"] {
                let names = [
                    format!("{stem}{variant}.{ending}"),
                    format!("{stem}.{ending}.index{variant}.json"),
                    format!("{stem}{variant}.{ending}.index.json"),
                ];
                if let Some(found) = names.map(|name| dir.join(name)).into_iter().find(|path| path.is_file()) {
                    return Ok(found);
                }
            }
        }
    }
    let expected = STEMS.map(|stem| format!("{stem}.safetensors")).join(", ");
    let hint = match () {
        () if dir.join("unet").is_dir() => "; it is a base model's folder: give one of its parts, like its unet",
        () if dir.is_dir() => "; give the file itself, or a folder that diffusers wrote",
        () => "; the folder does not exist",
    };
    Err(WeightsError::NoWeights { path: dir.to_owned(), expected, hint: hint.into() })
}

fn read_shards(index: &Path) -> Result<WeightFile, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |reason: String| WeightsError::Index { path: index.to_owned(), reason };
    let text = std::fs::read_to_string(index).map_err(|cause| WeightsError::Open { path: index.to_owned(), cause })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut shards: Vec<&String> = parsed.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    let mut all =
        WeightFile { tensors: NamedTensors::new(), metadata: BTreeMap::new(), container: Container::Safetensors };
    for shard in shards {
        if Path::new(shard).components().count() != 1 || Path::new(shard).file_name().is_none() {
            return Err(wrong(format!("its shard `{shard}` is not in the same folder")));
        }
        let file = read_file(&index.with_file_name(shard))?;
        all.tensors.extend(file.tensors);
        all.metadata.extend(file.metadata);
        all.container = file.container;
    }
    match parsed.weight_map.keys().find(|name| !all.tensors.contains(name)) {
        Some(name) => Err(wrong(format!("`{name}` is in none of the shards"))),
        None => Ok(all),
    }
}

/// Says what a file that is not safetensors looks like.
fn explain(path: &Path, bytes: &[u8], error: &str) -> WeightsError {
    let not = |reason: String| WeightsError::NotSafetensors { path: path.to_owned(), reason };
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
        let expected = header.unwrap_or(0).saturating_add(8).saturating_add(described_bytes(bytes).unwrap_or(0));
        let found = bytes.len() as u64;
        return if found < expected {
            WeightsError::Truncated { path: path.to_owned(), expected, found }
        } else {
            not(format!("it has {found} bytes and its header describes {expected}; copy or download it again"))
        };
    }
    not(format!("{error}; copy or download it again"))
}

/// The end of the last tensor by the header, whatever the file's length.
fn described_bytes(bytes: &[u8]) -> Option<u64> {
    let header = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let text = bytes.get(8..8usize.checked_add(usize::try_from(header).ok()?)?)?;
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    json.values().filter_map(|info| info.get("data_offsets")?.get(1)?.as_u64()).max()
}
