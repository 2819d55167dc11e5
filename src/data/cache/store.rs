//! Rows of equal shape in mapped files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::{Dtype, SafeTensors};

use super::super::faults::{DataError, Failure};
use super::{Shard, Stored};
use crate::native::MappedFile;

/// The rows of all shards of one kind.
pub(super) struct Store {
    folder: PathBuf,
    /// The tensor in each shard.
    name: &'static str,
    shards: Vec<Shard>,
    rows_per_shard: u64,
    shape: Vec<i64>,
    half: bool,
    /// Shards that were read from, or what is wrong with them.
    open: Vec<OnceLock<Result<Part, String>>>,
}

/// A shard that was found to be whole.
struct Part {
    file: MappedFile,
    /// Where its rows begin.
    start: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} shards of {} in {}", self.shards.len(), self.name, self.folder.display())
    }
}

impl Store {
    /// Looks whether all files are there and of their size.
    pub fn open(
        folder: &Path,
        name: &'static str,
        shards: &[Shard],
        rows_per_shard: u64,
        shape: &[i64],
        half: bool,
    ) -> Result<Store, DataError> {
        for shard in shards {
            let path = folder.join(&shard.file);
            let found = std::fs::metadata(&path).map(|metadata| metadata.len());
            if found.as_ref().ok() != Some(&shard.bytes) {
                let found = found.map_or_else(|error| error.to_string(), |bytes| format!("{bytes} bytes"));
                return Err(DataError::Cache {
                    path,
                    reason: format!("{found}, and {} bytes are expected; {AGAIN}", shard.bytes),
                });
            }
        }
        let open = shards.iter().map(|_| OnceLock::new()).collect();
        let (folder, shape) = (folder.to_path_buf(), shape.to_vec());
        Ok(Store { folder, name, shards: shards.to_vec(), rows_per_shard, shape, half, open })
    }

    /// Row number `row`; `Ok(Err(why))` where it was left out when the cache was made.
    pub fn row(&self, row: u64) -> Result<Result<Stored, String>, Failure> {
        let number = (row / self.rows_per_shard) as usize;
        let shard = &self.shards[number];
        if let Some(why) = shard.missing.get(&row) {
            return Ok(Err(why.clone()));
        }
        let bad = |reason: &str| Failure::Cache { path: self.folder.join(&shard.file), reason: reason.to_owned() };
        let part = self.open[number].get_or_init(|| self.part(shard)).as_ref().map_err(|reason| bad(reason))?;
        let first = number as u64 * self.rows_per_shard;
        let place = (row - first) as usize - shard.missing.range(first..row).count();
        let start = part.start + place * self.row_bytes();
        let bytes =
            part.file.get(start..start + self.row_bytes()).ok_or_else(|| bad(&format!("too short; {AGAIN}")))?;
        Ok(Ok(Stored { bytes: bytes.into(), shape: self.shape.clone(), half: self.half }))
    }

    fn row_bytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize * if self.half { 2 } else { 4 }
    }

    /// Maps a shard, and sees that it is the one that was written.
    fn part(&self, shard: &Shard) -> Result<Part, String> {
        let file = MappedFile::open(&self.folder.join(&shard.file)).map_err(|error| format!("{error}; {AGAIN}"))?;
        if blake3::hash(&file).to_hex().as_str() != shard.blake3 {
            return Err(format!("not what was written (its hash differs); {AGAIN}"));
        }
        file.release(0..file.len());
        let unlike = |reason: String| format!("{reason}; {AGAIN}");
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|error| unlike(error.to_string()))?;
        let info = metadata.info(self.name).ok_or_else(|| unlike(format!("no `{}` in it", self.name)))?;
        let (rows, row) = info.shape.split_first().ok_or_else(|| unlike("no rows in it".into()))?;
        let fits = row.iter().zip(&self.shape).all(|(a, b)| *a as i64 == *b) && row.len() == self.shape.len();
        let dtype = if self.half { Dtype::F16 } else { Dtype::F32 };
        if !fits || info.dtype != dtype || (*rows as u64 + shard.missing.len() as u64) > self.rows_per_shard {
            return Err(unlike(format!("`{}` is {:?} of {:?}", self.name, info.dtype, info.shape)));
        }
        Ok(Part { start: 8 + header + info.data_offsets.0, file })
    }
}

/// What mends a shard.
const AGAIN: &str = "run the same `animatediff data cache` again, which makes anew what is damaged";
