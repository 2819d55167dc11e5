//! Reads back the tensors of a checkpoint: our own safetensors files, verified before, one tensor in memory beside the result.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use safetensors::tensor::{Metadata, TensorInfo};
use tch::Tensor;

use crate::files::failed;
use crate::weights::write::kind_of;

pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    stream(path).map_err(|e| failed(path, "read the tensors", e))
}

fn stream(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut input = BufReader::with_capacity(1 << 20, file);
    let header = header(&mut input, length)?;
    let mut tensors = BTreeMap::new();
    let mut buffer = Vec::new();
    for name in header.offset_keys() {
        let info = header.info(&name).ok_or_else(|| anyhow!("tensor `{name}` has no entry"))?;
        let tensor = tensor(&mut input, info, &mut buffer).with_context(|| format!("tensor `{name}`"))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Parses the header, which must account for every byte of the file.
fn header(input: &mut impl Read, length: u64) -> Result<Metadata> {
    let mut prefix = [0; 8];
    input.read_exact(&mut prefix)?;
    let size = u64::from_le_bytes(prefix);
    ensure!(size <= length - 8, "the header claims {size} of {length} bytes");
    let mut text = vec![0; size as usize];
    input.read_exact(&mut text)?;
    let header: Metadata = serde_json::from_slice(&text)?;
    ensure!(8 + size + header.data_len() as u64 == length, "the header does not account for all {length} bytes");
    Ok(header)
}

fn tensor(input: &mut impl Read, info: &TensorInfo, buffer: &mut Vec<u8>) -> Result<Tensor> {
    let kind = kind_of(info.dtype).ok_or_else(|| anyhow!("{} is not a tensor type here", info.dtype))?;
    let shape = info.shape.iter().map(|&n| i64::try_from(n)).collect::<Result<Vec<_>, _>>()?;
    buffer.resize(info.data_offsets.1 - info.data_offsets.0, 0);
    input.read_exact(buffer)?;
    Ok(Tensor::f_from_data_size(buffer, &shape, kind)?)
}
