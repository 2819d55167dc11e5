//! Writes named tensors as a safetensors file.
//!
//! One tensor at a time passes through a buffer, so the extra memory is the largest tensor and never a second model. The bytes are a
//! function of the tensors and the metadata alone: equal content gives equal files. Values are not looked at; whoever must not
//! write NaN checks before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Kind, Tensor};

/// The element types that both sides know.
const DTYPES: [(Kind, Dtype); 15] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::ComplexFloat, Dtype::C64),
    (Kind::Float8e5m2, Dtype::F8_E5M2),
    (Kind::Float8e4m3fn, Dtype::F8_E4M3),
    (Kind::Float8e5m2fnuz, Dtype::F8_E5M2FNUZ),
    (Kind::Float8e4m3fnuz, Dtype::F8_E4M3FNUZ),
];

/// The safetensors type of a tensor's elements; `None` where the format has no word for it.
pub fn dtype_of(kind: Kind) -> Option<Dtype> {
    DTYPES.iter().find(|row| row.0 == kind).map(|row| row.1)
}

/// The tensor type of safetensors' elements; `None` where libtorch as bound here has none (unsigned above 8 bits, 4 and 6 bits).
pub fn kind_of(dtype: Dtype) -> Option<Kind> {
    DTYPES.iter().find(|row| row.1 == dtype).map(|row| row.0)
}

/// Writes `tensors` and `metadata` to `path`, atomically and synced. Tensors may be on any device and strided.
///
/// # Errors
/// Names the path, and the tensor if one is at fault: a name given twice, an element type that the format lacks, a sparse layout.
pub fn write_safetensors<'a, S: AsRef<str>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (S, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    crate::files::write_atomic(path, |out| stream_safetensors(out, tensors, metadata))
}

/// As [`write_safetensors`], to any writer.
///
/// # Errors
/// Names the tensor at fault, or is the writer's own error.
pub fn stream_safetensors<'a, S: AsRef<str>>(
    out: &mut impl Write,
    tensors: impl IntoIterator<Item = (S, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors: Vec<(String, &Tensor)> =
        tensors.into_iter().map(|(name, tensor)| (name.as_ref().to_owned(), tensor)).collect();
    let shaped = tensors.iter().map(|(name, tensor)| shaped(name, tensor)).collect::<Result<Vec<_>>>()?;
    let entries = in_file_order(shaped)?;
    let tensors: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let header = header(&entries, metadata)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut buffer = Vec::new();
    for entry in &entries {
        encode(tensors[entry.name.as_str()], entry, &mut buffer)?;
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// A tensor as the header describes it.
pub(super) struct Shaped {
    pub(super) name: String,
    pub(super) kind: Kind,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

impl Shaped {
    pub(super) fn new(name: &str, kind: Kind, shape: &[i64]) -> Result<Shaped> {
        if name == "__metadata__" {
            bail!("`__metadata__` cannot be the name of a tensor in a safetensors file");
        }
        let Some(dtype) = dtype_of(kind) else {
            bail!("tensor `{name}` is {kind:?}, which a safetensors file cannot hold")
        };
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        let bytes = shape.iter().product::<usize>() * kind.elt_size_in_bytes();
        Ok(Shaped { name: name.to_owned(), kind, dtype, shape, bytes })
    }
}

fn shaped(name: &str, tensor: &Tensor) -> Result<Shaped> {
    if !tensor.defined() || tensor.is_sparse() {
        bail!("tensor `{name}` is undefined or sparse, which a safetensors file cannot hold");
    }
    Shaped::new(name, tensor.kind(), &tensor.size())
}

/// The bytes of `tensor`, which `entry` describes, into `buffer`.
pub(super) fn encode(tensor: &Tensor, entry: &Shaped, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.resize(entry.bytes, 0);
    let dense = tensor.detach();
    dense.f_copy_data_u8(buffer, dense.numel()).with_context(|| format!("cannot read tensor `{}`", entry.name))
}

/// In the order of the format's own writer: widest elements first, which keeps every tensor aligned, then by name.
pub(super) fn in_file_order(mut entries: Vec<Shaped>) -> Result<Vec<Shaped>> {
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(&entry.name)) {
        Some(twice) => bail!("tensor `{}` is given twice", twice.name),
        None => Ok(entries),
    }
}

/// The JSON header, padded with spaces so that the data starts at a multiple of 8 bytes.
pub(super) fn header(entries: &[Shaped], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut table = serde_json::Map::new();
    if !metadata.is_empty() {
        table.insert("__metadata__".into(), serde_json::to_value(metadata)?);
    }
    let mut start = 0;
    for entry in entries {
        let info =
            TensorInfo { dtype: entry.dtype, shape: entry.shape.clone(), data_offsets: (start, start + entry.bytes) };
        table.insert(entry.name.clone(), serde_json::to_value(info)?);
        start += entry.bytes;
    }
    let mut bytes = serde_json::to_vec(&table)?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}
