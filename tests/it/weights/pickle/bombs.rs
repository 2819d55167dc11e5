//! Small programs that ask for much work or memory.

/// Hand-built bombs, with names. The large ones have `bytes` bytes.
pub fn bombs(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let repeat = |code: &[u8]| code.repeat(bytes / code.len());
    vec![
        ("memo doubling", doubling(b"]q\x00", b"]q\x01(h\x00h\x00e")),
        ("tuple doubling", [b"N".as_slice(), &b"2\x86".repeat(60), b"."].concat()),
        ("dict doubling", [b"}".as_slice(), &b"q\x00}(U\x01ah\x00U\x01bh\x00u".repeat(60), b"."].concat()),
        ("list in itself", b"]q\x00h\x00a.".to_vec()),
        ("dict in itself", b"}q\x00U\x01ah\x00s.".to_vec()),
        ("nested lists", [vec![b']'; bytes / 2], vec![b'a'; bytes / 2 - 1], vec![b'.']].concat()),
        ("marks", repeat(b"(")),
        ("lists", repeat(b"]")),
        ("lists of one", repeat(b"]Na")),
        ("discarded tuples of one", repeat(b"N\x850")),
        ("discarded tuples", repeat(b"(t0")),
        ("duplicates", [b"N", repeat(b"2").as_slice()].concat()),
        ("memo reads", [b"Nq\x00", repeat(b"h\x00").as_slice()].concat()),
        ("memo writes", [b"N", repeat(b"\x94").as_slice()].concat()),
        (
            "wide memo",
            (0..bytes as u32 / 5)
                .flat_map(|key| [b'r'].into_iter().chain(key.to_le_bytes()))
                .fold(b"N".to_vec(), pushed),
        ),
        ("appends", [b"]q\x00", repeat(b"h\x00a").as_slice()].concat()),
        ("latin text", [b"V", vec![0xe9; bytes].as_slice(), b"\n."].concat()),
        ("long key, many times", long_key(bytes)),
        ("one list, many times", wide(bytes)),
        ("huge long", b"\x8b\xff\xff\xff\x7f.".to_vec()),
        ("huge text", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.".to_vec()),
        ("huge bytes", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.".to_vec()),
        ("digits", [b"I", vec![b'9'; bytes].as_slice(), b"\n."].concat()),
        ("lines without end", repeat(b"c")),
        ("dicts from one list", [b"](N]e0".as_slice(), &repeat(b"]q\x00(h\x00h\x00ee"), b"."].concat()),
    ]
}

fn pushed(mut code: Vec<u8>, byte: u8) -> Vec<u8> {
    code.push(byte);
    code
}

/// A list that holds the one before twice, sixty times over.
fn doubling(start: &[u8], step: &[u8]) -> Vec<u8> {
    let steps = (0..60_u8).flat_map(|level| {
        let mut step = step.to_vec();
        (step[2], step[5], step[7]) = (level + 1, level, level);
        step
    });
    [start, &steps.collect::<Vec<_>>(), b"."].concat()
}

/// One dictionary of a key as long as half the file, met again and again.
fn long_key(bytes: usize) -> Vec<u8> {
    let len = (bytes / 2) as u32;
    let key = [b"}X".as_slice(), &len.to_le_bytes(), &vec![b'k'; bytes / 2], b"q\x01Nsq\x00"].concat();
    [&key[..], b"](", &b"h\x00".repeat(bytes / 4), b"e."].concat()
}

/// A list of half a million numbers, met half a million times.
fn wide(bytes: usize) -> Vec<u8> {
    let count = (bytes / 4).min(500_000);
    [b"](".as_slice(), &b"K\x01".repeat(count), b"eq\x00](", &b"h\x00".repeat(count), b"e."].concat()
}
