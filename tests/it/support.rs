//! What the tests share: golden files, comparisons, the tiny base model, and the lock on libtorch's own generator.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use animatediff::{
    assemble::{Base, Motion},
    model::unet::motion,
    nn::NormScope,
    weights::{
        Content, Dialect, NamedTensors, Table,
        formats::{Topology, format},
        read,
        write::write_safetensors,
    },
};
use tch::{Kind, Tensor};

/// Outputs of networks: of the largest magnitude of what is expected.
pub const OUTPUT: f64 = 1e-4;
/// Gradients, of the largest magnitude of each.
pub const GRADIENT: f64 = 1e-3;

/// A file of `tests/golden`.
pub fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Libtorch on one thread: the tests themselves run side by side, and the golden values were made with one.
pub fn one_thread() {
    tch::set_num_threads(1);
}

/// Held by a test that seeds or draws from libtorch's global generator, for as long as it needs the numbers to be its own.
pub fn global_generator() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tensors and the metadata of one golden file.
pub struct Golden {
    name: String,
    tensors: NamedTensors,
    metadata: BTreeMap<String, String>,
}

impl Golden {
    /// `tests/golden/<name>.safetensors`.
    pub fn load(name: &str) -> Golden {
        one_thread();
        let file = read(&golden_path(&format!("{name}.safetensors"))).unwrap();
        Golden { name: name.into(), tensors: file.tensors, metadata: file.metadata }
    }

    /// The tensor `key`.
    pub fn get(&self, key: &str) -> Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}.safetensors has no `{key}`", self.name))
    }

    /// All tensors whose name starts with `prefix`, without it.
    pub fn below(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let names = self.tensors.names().filter_map(|name| Some((name, name.strip_prefix(prefix)?)));
        names.map(|(name, rest)| (rest.to_owned(), self.get(name))).collect()
    }

    /// The metadata entry `key`, which is JSON.
    pub fn json(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }
}

/// The largest magnitude.
pub fn largest(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).abs().max().double_value(&[])
}

/// The largest difference, relative to the largest magnitude of `want`.
pub fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    largest(&(got.detach().to_kind(Kind::Double) - want)) / largest(want)
}

/// Panics unless `got` has the shape of `want` and differs by at most `tolerance` of its largest magnitude. `--nocapture`
/// shows the errors.
#[track_caller]
pub fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{name}: shape");
    let error = relative_error(got, want);
    println!("{name}: error {error:.1e} of {tolerance:.0e}");
    assert!(error <= tolerance, "{name}: off by {error:.3e} of the largest magnitude, {tolerance:.0e} is allowed");
}

/// The table of a format whose motion modules have two attentions in a block.
pub fn table(content: Content, dialect: Dialect) -> Table {
    table_of(content, dialect, &Topology::default())
}

/// The table of a format.
pub fn table_of(content: Content, dialect: Dialect, topology: &Topology) -> Table {
    format(content, dialect, topology).unwrap_or_else(|| panic!("{content:?} has no {dialect} form")).table
}

/// Names and shapes.
pub type Keys = BTreeMap<String, Vec<i64>>;

/// Names and shapes of a published file.
pub fn keys(file: &str) -> Keys {
    let text = fs::read_to_string(golden_path("keys").join(file)).unwrap();
    let parse = |line: &str| {
        let (name, shape) = line.split_once(' ').unwrap();
        (name.to_owned(), serde_json::from_str(shape).unwrap())
    };
    text.lines().map(parse).collect()
}

/// A v2 motion module's file, and that of v1 and v3: the same without the middle block.
pub fn motion_keys(mid: bool) -> Keys {
    let mut keys = keys("motion_v2.txt");
    keys.retain(|name, _| mid || !name.starts_with("mid_block."));
    keys
}

/// The tables of positions that older files hold too.
pub fn position_keys(module: &Keys, frames: i64) -> Keys {
    let table = |(name, shape): (&String, &Vec<i64>)| {
        let attention = name.strip_suffix(".to_q.weight")?;
        Some((format!("{attention}.pos_encoder.pe"), vec![1, frames, shape[0]]))
    };
    module.iter().filter_map(table).collect()
}

/// Official names and shapes of low-rank pairs on every attention projection in `keys`.
pub fn pair_keys(keys: &Keys, rank: i64) -> Keys {
    let mut pairs = BTreeMap::new();
    for (name, shape) in keys {
        let Some((attention, projection)) = name.rsplit_once(".to_") else { continue };
        let Some(projection) = projection.strip_suffix(".weight") else { continue };
        let path = format!("{attention}.processor.to_{}_lora", projection.trim_end_matches(".0"));
        pairs.insert(format!("{path}.down.weight"), vec![rank, shape[1]]);
        pairs.insert(format!("{path}.up.weight"), vec![shape[0], rank]);
    }
    pairs
}

/// Tensors of those names and shapes that share one zero each.
pub fn hollow(keys: Keys) -> NamedTensors {
    let zero = |shape: Vec<i64>| Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)).expand(shape, false);
    keys.into_iter().map(|(name, shape)| (name, zero(shape))).collect()
}

/// The tiny random base model.
pub fn base() -> Base {
    one_thread();
    Base::open(&golden_path("base")).unwrap()
}

/// The golden motion module as version `v1`, `v2` or `v3`: the same tensors, of which only v2 has the middle block.
pub fn motion(version: &str, motion_norm: NormScope) -> Motion {
    let config = match version {
        "v1" => motion::Config::v1(),
        "v2" => motion::Config::v2(),
        "v3" => motion::Config::v3(),
        other => panic!("there is no module version {other}"),
    };
    let mid = config.motion_module_mid_block;
    let config = motion::Config { motion_norm, ..config };
    let mut motion = Motion::read(&golden_path("motion_v2.safetensors"), None).unwrap();
    motion.tensors.retain(|name| mid || !name.starts_with("mid_block."));
    Motion { config, ..motion }
}

/// A copy of the tiny base model, to be damaged.
pub fn copy_of_base() -> tempfile::TempDir {
    one_thread();
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&golden_path("base"), dir.path());
    dir
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// All tensors of a safetensors file.
pub fn tensors_of(path: &Path) -> BTreeMap<String, Tensor> {
    let file = read(path).unwrap().tensors;
    file.names().map(|name| (name.to_owned(), file.get(name).unwrap())).collect()
}

/// Writes a safetensors file without metadata.
pub fn write(path: &Path, tensors: impl IntoIterator<Item = (String, Tensor)>) {
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    write_safetensors(path, tensors.iter().map(|(name, tensor)| (name, tensor)), &BTreeMap::new()).unwrap();
}

/// Writes `tensors` alternately to two shards in `dir`, with their index called `index`.
pub fn write_shards(dir: &Path, index: &str, tensors: &BTreeMap<String, Tensor>) {
    let shard = |number: usize| format!("model-{:05}-of-00002.safetensors", number % 2 + 1);
    for number in 0..2 {
        let part = tensors.iter().skip(number).step_by(2);
        write(&dir.join(shard(number)), part.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
    }
    let map: BTreeMap<&String, String> =
        tensors.keys().enumerate().map(|(number, name)| (name, shard(number))).collect();
    fs::write(dir.join(index), serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
}
