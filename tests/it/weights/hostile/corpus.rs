//! What the corpus consists of: valid files of every kind, and files made to do harm.

use std::fs;
use std::path::{Path, PathBuf};

use super::targets::zip::{archive, pickle_of};
use crate::support::golden_path;
use crate::weights::pickle::{bombs::bombs, fixture};

/// Set to anything, it has the test below write the corpus. Files that it does not make are left alone: what a fuzzer found
/// stays there as a regression test.
const WRITE: &str = "ANIMATEDIFF_WRITE_CORPUS";

/// Path below the corpus, and bytes.
type File = (String, Vec<u8>);

/// Where the corpus is.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

#[test]
fn the_corpus_is_what_is_made_here() {
    for (name, bytes) in [safetensors(), pickles(), archives(), indexes()].concat() {
        let path = folder().join(name);
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(kept == bytes, "{} differs; set {WRITE}=1 and run this test again", path.display());
    }
}

fn named(folder: &str, ending: &str, files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Vec<File> {
    files.into_iter().map(|(name, bytes)| (format!("{folder}/{}.{ending}", name.replace(' ', "_")), bytes)).collect()
}

/// A safetensors file with the length of `header` before it.
fn with_header(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let data: Vec<u8> = (0..data).map(|n| n as u8).collect();
    [&(header.len() as u64).to_le_bytes()[..], header, &data].concat()
}

fn tensor(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// A file of one tensor `w`.
fn one(dtype: &str, shape: &str, (start, end): (u64, u64), data: usize) -> Vec<u8> {
    with_header(format!("{{{}}}", tensor("w", dtype, shape, start, end)), data)
}

/// A file of one tensor for each of `dtypes`, of six elements.
fn of_dtypes(dtypes: &[(&str, u64)], metadata: &str) -> Vec<u8> {
    let mut start = 0;
    let entries = dtypes.iter().map(|(dtype, size)| {
        let end = start + 6 * size;
        let entry = tensor(&format!("block.{dtype}.weight"), dtype, "[2,3]", start, end);
        start = end;
        entry
    });
    let entries = entries.collect::<Vec<_>>().join(",");
    with_header(format!("{{{metadata}{entries}}}"), start as usize)
}

fn safetensors() -> Vec<File> {
    let read = [
        ("F64", 8),
        ("I64", 8),
        ("C64", 8),
        ("F32", 4),
        ("I32", 4),
        ("F16", 2),
        ("BF16", 2),
        ("I16", 2),
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
        ("F8_E4M3FNUZ", 1),
        ("F8_E5M2FNUZ", 1),
        ("U8", 1),
        ("I8", 1),
        ("BOOL", 1),
    ];
    let unread = [("U64", 8), ("U32", 4), ("U16", 2), ("F8_E8M0", 1)];
    let metadata = r#""__metadata__":{"format":"pt","modelspec.title":"ünïcode \u00e9 \ud83d\ude00","empty":""},"#;
    let many: Vec<String> =
        (0..150).map(|n| tensor(&format!("layers.{n}.bias"), "F32", "[2]", 8 * n, 8 * n + 8)).collect();
    let whole = one("F32", "[2,2]", (0, 16), 16);
    let cut = |length: usize| whole[..length].to_vec();
    let claim = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let two = |first: String, second: String, data| with_header(format!("{{{first},{second}}}"), data);
    let extreme = format!("[{0},{0}]", u64::MAX);
    let ones = format!("[{}1]", "1,".repeat(1500));
    named(
        "safetensors",
        "safetensors",
        [
            ("every type", of_dtypes(&read, metadata)),
            ("types not read", of_dtypes(&unread, "")),
            ("half a byte", one("F4", "[2,2]", (0, 2), 2)),
            ("odd halves of a byte", one("F4", "[3]", (0, 2), 2)),
            ("unknown type", one("F128", "[1]", (0, 16), 16)),
            ("many", with_header(format!("{{{}}}", many.join(",")), 1200)),
            ("scalar", one("F32", "[]", (0, 4), 4)),
            ("no elements", one("F32", "[0,3]", (0, 0), 0)),
            ("one more byte", one("F32", "[2,2]", (0, 16), 17)),
            ("one byte less", one("F32", "[2,2]", (0, 16), 15)),
            ("padded", with_header(format!("{{{}}}   ", tensor("w", "F32", "[1]", 0, 4)), 4)),
            ("no tensors", with_header("{}", 0)),
            ("only metadata", with_header(r#"{"__metadata__":{"format":"pt"}}"#, 0)),
            ("nothing", Vec::new()),
            ("seven bytes", cut(7)),
            ("cut in the header", cut(30)),
            ("cut in the data", cut(whole.len() - 3)),
            ("header of no bytes", claim(0)),
            ("header of 18 exabytes", claim(u64::MAX)),
            ("header that wraps around", claim(u64::MAX - 7)),
            ("header of 100 megabytes", claim(99_999_999)),
            ("header that ends one byte late", claim(whole.len() as u64 - 7)),
            ("overlapping", two(tensor("a", "F32", "[2]", 0, 8), tensor("b", "F32", "[2]", 4, 12), 12)),
            ("the same bytes", two(tensor("a", "F32", "[2]", 0, 8), tensor("b", "F32", "[2]", 0, 8), 8)),
            ("a hole", two(tensor("a", "F32", "[1]", 0, 4), tensor("b", "F32", "[1]", 8, 12), 12)),
            ("backwards", one("F32", "[1]", (4, 0), 4)),
            ("after the end", one("F32", "[1]", (1 << 40, (1 << 40) + 4), 4)),
            ("offsets that overflow", one("U8", "[1]", (u64::MAX - 1, u64::MAX), 1)),
            ("shape that overflows", one("F32", &extreme, (0, 16), 16)),
            ("shape that overflows to zero", one("F32", "[4294967296,4294967296]", (0, 0), 0)),
            ("shape that overflows in bits", one("F64", "[288230376151711744]", (0, 0), 0)),
            ("shape of nothing and everything", one("F32", "[0,18446744073709551615,18446744073709551615]", (0, 0), 0)),
            ("shape above i64", one("F32", "[0,9223372036854775808]", (0, 0), 0)),
            ("shape of many ones", one("F32", &ones, (0, 4), 4)),
            ("shape below zero", one("F32", "[-1]", (0, 4), 4)),
            ("shape of a fraction", one("F32", "[1.0]", (0, 4), 4)),
            ("a name twice", two(tensor("w", "F32", "[1]", 0, 4), tensor("w", "F32", "[2]", 0, 8), 8)),
            ("metadata twice", with_header(format!("{{{metadata}{metadata}{}}}", tensor("w", "F32", "[1]", 0, 4)), 4)),
            ("metadata that is no text", with_header(r#"{"__metadata__":{"a":{"b":1}}}"#, 0)),
            ("a tensor called metadata", with_header(format!("{{{}}}", tensor("__metadata__", "F32", "[1]", 0, 4)), 4)),
            ("odd names", two(tensor("", "U8", "[1]", 0, 1), tensor(r"a\u0000\u001b[2J/../\n", "U8", "[1]", 1, 2), 2)),
            ("a long name", with_header(format!("{{{}}}", tensor(&"n".repeat(5000), "F32", "[1]", 0, 4)), 4)),
            ("deep lists", with_header("[".repeat(3000), 0)),
            ("deep objects", with_header(r#"{"a":"#.repeat(1000), 0)),
            ("a deep shape", one("F32", &format!("{}{}", "[".repeat(1000), "]".repeat(1000)), (0, 4), 4)),
            ("no json", with_header("not JSON at all", 4)),
            ("no text", with_header([0xff; 32], 4)),
            ("half a surrogate", with_header(r#"{"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1)),
            ("a pointer of git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec()),
            ("a web page", b"<!DOCTYPE html><html><title>Not found</title></html>".to_vec()),
        ],
    )
}

/// The pickles in PyTorch's files, and bombs.
fn pickles() -> Vec<File> {
    let whole = [
        "dtypes",
        "evil",
        "evil4",
        "getattr",
        "inversion",
        "lightning",
        "module2",
        "module4",
        "numpy",
        "numpy3",
        "parameters",
        "views",
        "whole_module",
    ];
    let pickle = |name| (name, pickle_of(&fixture(&format!("{name}.pt"))).to_vec());
    let bombs = bombs(1000).into_iter();
    let forbidden = [
        ("eval", &b"\x80\x02c__builtin__\neval\n(U\x011tR."[..]),
        ("eval by stack", b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
        ("getattr of a module", b"\x80\x02c__builtin__\ngetattr\n(ctorch\nload\nU\x04loadtR."),
        ("instance", b"(ios\nsystem\n."),
        ("object", b"(cos\nsystem\nU\x02lso."),
        ("persistent id in words", b"Pid\n."),
        ("extension", b"\x82\x01."),
        ("out of band", b"\x80\x05\x97\x98."),
        ("build", b"\x80\x02ccollections\nOrderedDict\n)R}U\x09__class__cos\nsystem\nsb."),
    ];
    let forbidden = forbidden.map(|(name, code)| (name, code.to_vec()));
    let sized = [
        (
            "shape that overflows",
            tensor_of(b"K\0\x8a\x05\0\0\0\0\x01\x8a\x05\0\0\0\0\x01", b"K\0\x8a\x05\0\0\0\0\x01K\x01"),
        ),
        ("shape above i64", tensor_of(b"K\0\x8a\x09\0\0\0\0\0\0\0\x80\0", b"K\x01K\x01")),
        ("expanded to the limit", tensor_of(b"J\0\0\x10\0K\x01", b"K\0K\x01")),
    ];
    named("pickle", "pkl", whole.map(pickle).into_iter().chain(bombs).chain(forbidden).chain(sized))
}

/// A pickle of one tensor in the storage `0` of 4 elements; `shape` and `stride` are instructions that push integers.
fn tensor_of(shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQK\0(";
    [&start[..], shape, b"t(", stride, b"t\x89NtRs."].concat()
}

/// A zip after a change to the 22 bytes at its end, which start at the second argument.
fn with_end(change: impl Fn(&mut [u8], u32)) -> Vec<u8> {
    let mut file = fixture("module2.pt");
    let start = file.len() - 22;
    change(&mut file[start..], start as u32);
    file
}

/// Every fixture, and archives with odd entries and directories.
fn archives() -> Vec<File> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(golden_path("pickle")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "pt"));
    let fixtures = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    let mut files: Vec<File> = fixtures.map(|name| (format!("archive/{name}"), fixture(name))).collect();
    let pickle = b"\x80\x02}U\x01aK\x05s.";
    let beside = |name: &str| archive(&[("a/data.pkl", pickle), (name, b"x")]);
    let many: Vec<String> = (0..300).map(|n| format!("a/data/{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    files.extend(named(
        "archive",
        "zip",
        [
            ("up", beside("a/../../x")),
            ("absolute", beside("/etc/passwd")),
            ("backslash", beside("a\\x")),
            ("drive", beside("C:x")),
            ("zero in a name", beside("a/\0")),
            ("escape in a name", beside("a/\x1b[2J")),
            ("no name", beside("")),
            ("a long name", beside(&"n".repeat(3000))),
            ("two roots", beside("b/data.pkl")),
            ("an entry twice", beside("a/data.pkl")),
            ("no root", archive(&[("data.pkl", pickle)])),
            ("empty", archive(&[])),
            ("empty pickle", archive(&[("a/data.pkl", b"")])),
            ("many entries", archive(&[&[("a/data.pkl", &pickle[..])], &many[..]].concat())),
            ("a zip in a zip", archive(&[("a/data.pkl", pickle), ("a/data/0", &archive(&[("a/data.pkl", pickle)]))])),
            ("65535 records", with_end(|end, _| end[8..12].fill(0xff))),
            ("directory at the end of the world", with_end(|end, _| end[16..20].fill(0xff))),
            ("directory at the start", with_end(|end, _| end[16..20].fill(0))),
            ("directory in the end record", with_end(|end, start| end[16..20].copy_from_slice(&start.to_le_bytes()))),
            ("a comment that is not there", with_end(|end, _| end[20..22].fill(0xff))),
            ("everything in zip64", with_end(|end, _| end[8..20].fill(0xff))),
        ],
    ));
    files
}

fn indexes() -> Vec<File> {
    let map = |entries: &str| format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{entries}}}}}"#).into_bytes();
    let shard = |file: &str| map(&format!(r#""a":"{file}""#));
    let many: Vec<String> = (0..150).map(|n| format!(r#""layers.{n}":"a.safetensors""#)).collect();
    named(
        "index",
        "json",
        [
            ("both", map(r#""a":"a.safetensors","b":"b.safetensors""#)),
            ("one", shard("a.safetensors")),
            ("pretty", b"{\n  \"weight_map\": {\n    \"b\": \"b.safetensors\"\n  }\n}\n".to_vec()),
            ("more keys", br#"{"x":[1,{"y":null}],"weight_map":{"a":"a.safetensors"},"z":1e5}"#.to_vec()),
            ("in none", map(r#""c":"a.safetensors""#)),
            ("in the other", map(r#""a":"b.safetensors""#)),
            ("many in none", map(&many.join(","))),
            ("a name twice", map(r#""a":"b.safetensors","a":"a.safetensors""#)),
            ("map twice", br#"{"weight_map":{"b":"b.safetensors"},"weight_map":{"a":"a.safetensors"}}"#.to_vec()),
            ("no shards", map("")),
            ("up", shard("../a.safetensors")),
            ("down and up", shard("x/../a.safetensors")),
            ("absolute", shard("/etc/passwd")),
            ("absolute device", shard("/dev/zero")),
            ("the folder", shard(".")),
            ("the folder above", shard("..")),
            ("no file", shard("")),
            ("not there", shard("c.safetensors")),
            ("itself", shard("model.safetensors.index.json")),
            ("on the hub", shard("hf:o/r/a.safetensors")),
            ("zero in a name", shard("a\\u0000.safetensors")),
            ("slash at the end", shard("a.safetensors/")),
            ("a long name", shard(&"n".repeat(5000))),
            ("no map", br#"{"metadata":{}}"#.to_vec()),
            ("a map of numbers", br#"{"weight_map":{"a":1}}"#.to_vec()),
            ("a list", br#"{"weight_map":["a.safetensors"]}"#.to_vec()),
            ("deep lists", "[".repeat(3000).into_bytes()),
            ("deep objects", br#"{"weight_map":"#.repeat(300)),
            ("deep beside the map", format!(r#"{{"x":{}"#, r#"{"x":"#.repeat(600)).into_bytes()),
            ("a mark before it", [b"\xef\xbb\xbf", &shard("a.safetensors")[..]].concat()),
            ("no text", vec![0xfe; 64]),
            ("nothing", Vec::new()),
        ],
    )
}
