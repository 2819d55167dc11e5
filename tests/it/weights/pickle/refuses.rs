//! What is refused, and with which words.

use animatediff::weights::pickle::{Container, PickleError, looks_like, read};

use super::{fixture, zip};

fn message(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

#[test]
fn containers_by_content() {
    let legacy = fixture("legacy.pt");
    assert_eq!(looks_like(&legacy), Some(Container::LegacyPickle));
    assert!(message(&legacy).contains("torch.save(torch.load(path, weights_only=True), new)"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert_eq!(looks_like(&tar), Some(Container::Tar));
    assert!(message(&tar).contains("tar archive"));
    for header in [*b"PK\x03\x04", [0x80, 2, 0, 0], [0x80, 2, b'(', 0], [0x80, 3, b'}', 0], [0x80, 4, 0x95, 0]] {
        let safetensors = [&header[..], b"\0\0\0\0{\"__metadata__\""].concat();
        assert_eq!(looks_like(&safetensors), None);
    }
    assert_eq!(looks_like(&fixture("views.safetensors")), None);
    assert_eq!(looks_like(b""), None);
    assert!(matches!(read(b"plain text"), Err(PickleError::NotPyTorch)));
}

#[test]
fn torchscript() {
    assert!(matches!(read(&fixture("script.pt")), Err(PickleError::TorchScript { .. })));
}

#[test]
fn functions_outside_the_list() {
    let expected = "the pickle asks for `posix.system`, which no weight file needs; nothing was run. \
                    Get the model from another source, as safetensors";
    assert_eq!(message(&fixture("evil.pt")), expected);
    assert_eq!(message(&fixture("evil4.pt")), expected);
    assert!(message(&fixture("getattr.pt")).contains("getattr"));
    assert!(message(&fixture("whole_module.pt")).contains("`torch.nn.modules.linear.Linear`"));
    let forbidden = [
        "os\nsystem",
        "builtins\neval",
        "__builtin__\nexec",
        "builtins\ngetattr",
        "torch.storage\n_load_from_bytes",
        "torch\nload",
        "torch.hub\nload",
        "numpy\nload",
        "omegaconf\nos.system",
        "omegaconf.os\nsystem",
        "pytorch_lightningx\nA",
        "typing\nget_type_hints",
        "lightning.pytorch.cli\nLightningCLI.main",
        "functools\npartial",
        "operator\nattrgetter",
        "\n",
        "collections\n",
    ];
    for name in forbidden {
        let pickle = format!("c{name}\n.");
        assert!(matches!(read(&zip::wrap(pickle.as_bytes())), Err(PickleError::Forbidden { .. })), "{name}");
    }
}

#[test]
fn instructions_that_torch_never_writes() {
    for (code, name) in [
        (&b"Pid\n."[..], "PERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(o.", "OBJ"),
        (b"\x82\x01.", "EXT"),
        (b"\x97.", "NEXT_BUFFER"),
    ] {
        assert!(message(&zip::wrap(code)).contains(name));
    }
}

#[test]
fn archives() {
    assert!(message(&fixture("deflated.pt")).contains("compressed or encrypted entry"));
    assert!(message(&fixture("big_endian.pt")).contains("\"big\""));
    assert_eq!(
        message(&fixture("missing.pt")),
        "tensor `w` needs the archive entry `data/0`, which is missing; save the file again"
    );
    let whole = fixture("views.pt");
    assert!(message(&whole[..whole.len() - 30]).contains("cut short"));
    for (entries, expected) in [
        (&[("data.pkl", &b"N."[..])][..], "no `NAME/data.pkl`"),
        (&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")], "more than one"),
        (&[("a/data.pkl", b"N."), ("a/data.pkl", b"N.")], "is there twice"),
        (&[("a/data.pkl", b"N."), ("a/../../x", b"")], "leaves its folder"),
        (&[("a/data.pkl", b"N."), ("/etc/x", b"")], "absolute path"),
        (&[("a/data.pkl", b"N."), ("a\\x", b"")], "backslash"),
    ] {
        let found = message(&zip::archive(entries));
        assert!(found.contains(expected), "{found}");
    }
}

/// A pickle of `{"w": tensor}` with a float storage of `len` elements in the file's 16 bytes.
fn tensor(len: u8, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let tuple =
        |items: &[u8]| [&b"("[..], &items.iter().flat_map(|&item| [b'K', item]).collect::<Vec<_>>(), b"t"].concat();
    let storage =
        [b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK".as_slice(), &[len], b"tQK", &[offset]].concat();
    let args = [&b"("[..], &storage, &tuple(shape), &tuple(stride), b"\x89Nt"].concat();
    zip::wrap(&[&b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n"[..], &args, b"Rs."].concat())
}

#[test]
fn tensors_outside_of_their_storage() {
    let range = |file: &[u8]| read(file).map(|found| found.tensors[0].1.range.len()).map_err(|e| e.to_string());
    assert_eq!(range(&tensor(4, 0, &[2, 2], &[2, 1])), Ok(16));
    assert_eq!(range(&tensor(4, 3, &[], &[])), Ok(4));
    assert_eq!(range(&tensor(4, 1, &[100, 100], &[0, 0])), Ok(4));
    assert_eq!(range(&tensor(4, 0, &[0, 255], &[9, 9])), Ok(0));
    for (file, expected) in [
        (tensor(5, 0, &[2], &[1]), "tensor `w` needs 5 elements of 4 bytes, but its storage `data/0` has 16 bytes"),
        (tensor(4, 1, &[2, 2], &[2, 1]), "tensor `w` of shape [2, 2] reaches outside of its storage"),
        (tensor(3, 0, &[2, 2], &[2, 1]), "reaches outside"),
        (tensor(4, 4, &[], &[]), "reaches outside"),
        (tensor(4, 0, &[255; 64], &[255; 64]), "reaches outside"),
        (tensor(4, 0, &[200, 200, 200], &[0, 0, 0]), "repeats a storage"),
        (tensor(4, 0, &[1; 65], &[1; 65]), "no valid shape"),
        (tensor(4, 0, &[1], &[1, 1]), "1 dimensions but 2 strides"),
    ] {
        let found = range(&file).unwrap_err();
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn names_that_clash() {
    let one = tensor(4, 0, &[1], &[1]);
    let pickle = zip::pickle_of(&one);
    let twice = [&pickle[..pickle.len() - 2], b"q\x00sK\x01h\x00sU\x011h\x00s."].concat();
    assert!(message(&zip::wrap(&twice)).contains("tensor `1` shares its name"));
}
