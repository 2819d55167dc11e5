//! The allow-list: every Python function and class that a pickle may name, and what it stands for here.
//!
//! Nothing in the list is ever called. Most of it is [`Global::Opaque`]: real checkpoints name it beside their weights,
//! so it must not stop the reading, and what it would make is left out.

use safetensors::Dtype;

/// What a named function or class stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// A dictionary with an order or a default.
    Dict,
    /// A function that makes a tensor.
    Rebuild(Rebuild),
    /// `torch.Size`: its one argument is the value.
    Size,
    /// The class of a storage: its element type, or `None` for bytes.
    Storage(Option<Dtype>),
    /// An element type.
    Dtype(Dtype),
    /// Something that weights do not need.
    Opaque,
}

/// How a tensor is made from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// `(storage, offset, size, stride, ...)`; the element type is the storage's.
    Typed,
    /// `(storage, offset, size, stride, requires_grad, hooks, dtype, ...)`.
    WithDtype,
    /// `(tensor, ...)`.
    Parameter,
}

const DTYPES: [(&str, Dtype); 27] = [
    ("float32", Dtype::F32),
    ("float", Dtype::F32),
    ("float64", Dtype::F64),
    ("double", Dtype::F64),
    ("float16", Dtype::F16),
    ("half", Dtype::F16),
    ("bfloat16", Dtype::BF16),
    ("int64", Dtype::I64),
    ("long", Dtype::I64),
    ("int32", Dtype::I32),
    ("int", Dtype::I32),
    ("int16", Dtype::I16),
    ("short", Dtype::I16),
    ("int8", Dtype::I8),
    ("uint8", Dtype::U8),
    ("uint16", Dtype::U16),
    ("uint32", Dtype::U32),
    ("uint64", Dtype::U64),
    ("bool", Dtype::BOOL),
    ("complex64", Dtype::C64),
    ("cfloat", Dtype::C64),
    ("float8_e4m3fn", Dtype::F8_E4M3),
    ("float8_e5m2", Dtype::F8_E5M2),
    ("float8_e4m3fnuz", Dtype::F8_E4M3FNUZ),
    ("float8_e5m2fnuz", Dtype::F8_E5M2FNUZ),
    ("float8_e8m0fnu", Dtype::F8_E8M0),
    ("byte", Dtype::U8),
];

const STORAGES: [(&str, Option<Dtype>); 11] = [
    ("FloatStorage", Some(Dtype::F32)),
    ("HalfStorage", Some(Dtype::F16)),
    ("BFloat16Storage", Some(Dtype::BF16)),
    ("DoubleStorage", Some(Dtype::F64)),
    ("LongStorage", Some(Dtype::I64)),
    ("IntStorage", Some(Dtype::I32)),
    ("ShortStorage", Some(Dtype::I16)),
    ("CharStorage", Some(Dtype::I8)),
    ("ByteStorage", Some(Dtype::U8)),
    ("BoolStorage", Some(Dtype::BOOL)),
    ("UntypedStorage", None),
];

/// Types of Python itself, as values; the functions beside them (`eval`, `getattr`) are not here.
const BUILTINS: [&str; 15] = [
    "set",
    "frozenset",
    "list",
    "dict",
    "tuple",
    "int",
    "float",
    "complex",
    "bool",
    "str",
    "bytes",
    "bytearray",
    "slice",
    "range",
    "object",
];

const TYPING: [&str; 6] = ["Any", "Dict", "List", "Optional", "Tuple", "Union"];

/// Packages whose classes checkpoints of Lightning and LDM carry beside the weights.
const OPAQUE_PACKAGES: [&str; 4] = ["pytorch_lightning", "lightning", "lightning_fabric", "omegaconf"];

/// What `module.name` stands for, or `None` if a pickle may not name it.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    let opaque = |known: bool| known.then_some(Global::Opaque);
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => Some(Global::Dict),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::Rebuild(Rebuild::Typed)),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::Rebuild(Rebuild::WithDtype)),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch.nn.parameter", "Parameter") => Some(Global::Rebuild(Rebuild::Parameter)),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device" | "complex32" | "complex128") | ("torch.storage", "TypedStorage") => Some(Global::Opaque),
        ("torch", _) => storage(name).or_else(|| dtype(name)),
        ("torch.cuda" | "torch.storage", _) => storage(name),
        ("numpy.core.multiarray" | "numpy._core.multiarray", _) => opaque(matches!(name, "scalar" | "_reconstruct")),
        ("numpy", _) => opaque(matches!(name, "dtype" | "ndarray")),
        ("_codecs", "encode") | ("argparse", "Namespace") => Some(Global::Opaque),
        ("builtins" | "__builtin__", _) => opaque(BUILTINS.contains(&name)),
        ("typing", _) => opaque(TYPING.contains(&name)),
        _ => opaque(is_package_class(module, name)),
    }
}

fn storage(name: &str) -> Option<Global> {
    STORAGES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| Global::Storage(*dtype))
}

fn dtype(name: &str) -> Option<Global> {
    DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| Global::Dtype(*dtype))
}

/// A class by its spelling (a capital, no dots): what these packages import, such as `os.system`, does not pass for
/// theirs.
fn is_package_class(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_class = name.trim_start_matches('_').starts_with(|first: char| first.is_ascii_uppercase());
    OPAQUE_PACKAGES.contains(&package) && module.split('.').all(is_word) && is_word(name) && is_class
}
