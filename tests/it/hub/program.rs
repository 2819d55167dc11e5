//! Names on the hub where the program takes files.

use std::fs;

use super::Bench;
use crate::{cli::support::Desk, support::golden_path};

/// A desk whose program asks the bench's server.
fn line(bench: &Bench, line: &str) -> String {
    format!("HF_ENDPOINT={} HF_HUB_CACHE={} {line}", bench.server.endpoint(), bench.cache.path().display())
}

#[test]
fn files_and_folders_are_given_by_their_names_there() {
    let (bench, desk) = (Bench::new(), Desk::new());
    let module = fs::read(golden_path("motion_v2.safetensors")).unwrap();
    bench.server.put("mm.safetensors", &module, true);
    for name in ["unet", "vae", "text_encoder"] {
        for entry in fs::read_dir(golden_path("base").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let large = path.extension().is_some_and(|ending| ending == "safetensors");
            let name = format!("base/{name}/{}", path.file_name().unwrap().to_string_lossy());
            bench.server.put(&name, &fs::read(path).unwrap(), large);
        }
    }
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        bench.server.put(
            &format!("base/tokenizer/{name}"),
            &fs::read(golden_path("base/tokenizer").join(name)).unwrap(),
            false,
        );
    }
    let told = desk.ok(&line(&bench, "animatediff inspect hf:someone/motion/mm.safetensors"));
    assert!(told.contains("version     v2"), "{told}");
    let sample = "animatediff sample --base hf:someone/motion/base --motion hf:someone/motion/mm.safetensors --prompt x \
                  --seed 1 --steps 1 -W 64 -H 64 -L 2 --save-latents there -o there.gif";
    desk.ok(&line(&bench, sample));
    let here = "animatediff sample --base $GOLD --motion $V2 --prompt x --seed 1 --steps 1 -W 64 -H 64 -L 2 --save-latents here -o here.gif";
    desk.ok(here);
    assert_eq!(desk.bytes("there"), desk.bytes("here"));
    let settings = String::from_utf8(desk.bytes("there.gif.yaml")).unwrap();
    assert!(settings.contains("hf:someone/motion/mm.safetensors"), "{settings}");
    // From now on nothing is asked for.
    desk.ok(&format!("HF_HUB_OFFLINE=1 {}", line(&bench, "animatediff sample -c there.gif.yaml -o again.gif")));
    assert_eq!(desk.bytes("there.gif"), desk.bytes("again.gif"));
    let words = ["`other.safetensors` is not in the cache", "HF_HUB_OFFLINE"];
    desk.refused(
        &format!("HF_HUB_OFFLINE=1 {}", line(&bench, "animatediff inspect hf:someone/motion/other.safetensors")),
        &words,
    );
    desk.refused(&line(&bench, "animatediff inspect hf:nobody"), &["expected hf:owner/repo[@revision][/path]"]);
}
