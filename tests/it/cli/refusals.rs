//! Bad input gets a clear error with the right exit code, and nothing is lost.

use std::{fs, path::Path};

use tch::{Device, Kind, Tensor};

use super::support::{Desk, shared};
use crate::support::{copy_of_base, golden_path, tensors_of, write};

const SAMPLE: &str = "animatediff sample --base $GOLD --prompt x --steps 1 -W 64 -H 64 -L 2 --seed 1";

#[test]
fn weights_that_are_missing_or_damaged() {
    let desk = Desk::new();
    let module = fs::read(golden_path("motion_v2.safetensors")).unwrap();
    desk.write("short.safetensors", &module[..module.len() - 100]);
    desk.write("header.safetensors", &module[..100]);
    desk.write("page.safetensors", "<html>not found</html>");
    let nan = |(name, tensor): (String, Tensor)| match name.ends_with("proj_in.weight") {
        true => (name, tensor * f64::NAN),
        false => (name, tensor),
    };
    write(&desk.path("nan.safetensors"), tensors_of(&golden_path("motion_v2.safetensors")).into_iter().map(nan));
    for (file, words) in [
        ("none.safetensors", "none.safetensors: cannot be opened: No such file"),
        ("short.safetensors", "short.safetensors: truncated: the header describes"),
        ("header.safetensors", "header.safetensors: truncated: the header describes"),
        ("page.safetensors", "page.safetensors: not a safetensors file: it is a web page; download the file itself"),
        ("nan.safetensors", "nan.safetensors: the weights do not make the UNet: "),
        ("nan.safetensors", "hold NaN or infinite values, first `"),
        ("$ADAPTER", "this is a domain adapter, and a motion module is expected; give it with --adapter"),
    ] {
        desk.refused(&format!("{SAMPLE} --motion {file} -o x.gif"), &[words]);
    }
    for line in [
        &format!("{SAMPLE} -o x.gif --adapter"),
        &format!("{SAMPLE} -o x.gif --motion $V2 --motion-lora"),
        &format!("{SAMPLE} -o x.gif --latents"),
        "animatediff inspect",
        "animatediff train motion -c $TINY --motion",
        "animatediff train motion -c $TINY --adapter",
    ] {
        desk.refused(&format!("{line} short.safetensors"), &["short.safetensors: truncated"]);
    }
    for line in ["adapter -c $TINY --set init_lora", "image -c $TINY --set unet_checkpoint_path"] {
        desk.refused(&format!("animatediff train {line}=page.safetensors"), &["it is a web page"]);
    }
    assert!(desk.files().iter().all(|name| name.ends_with(".safetensors")), "{:?}", desk.files());
}

#[test]
fn parts_that_do_not_go_together() {
    let desk = Desk::new();
    let words = ["motion_lora.safetensors: ", "made for a v2 motion module fits no v1 or v3 module"];
    for module in ["$V1", "$V3"] {
        desk.refused(&format!("{SAMPLE} --motion {module} --motion-lora $LORA -o x.gif"), &words);
        let line =
            format!("animatediff train motionlora -c $TINY --base $GOLD --motion {module} --set init_lora=$LORA");
        desk.refused(&line, &words);
    }
    desk.refused(
        &format!("{SAMPLE} --motion-lora $LORA -o x.gif"),
        &["a MotionLoRA needs a motion module", "--motion"],
    );
    desk.refused(&format!("{SAMPLE} --adapter-scale 1 -o x.gif"), &["without an adapter", "--adapter"]);
    desk.refused(&format!("{SAMPLE} --motion-norm clip -o x.gif"), &["--motion"]);
    let words = ["motion_v2.safetensors: ", "`motion_module_mid_block` is false"];
    desk.refused(
        &format!("{SAMPLE} --motion $V2 --inference-config $CONFIGS/inference/inference-v3.yaml -o x.gif"),
        &words,
    );
    // The tiny base is twice as wide as the golden one, for which these were made.
    let other = SAMPLE.replace("$GOLD", "$BASE");
    desk.refused(
        &format!("{other} --motion $V3 -o x.gif"),
        &["v3.safetensors: the weights do not make the UNet", "inspect"],
    );
    desk.refused(
        &format!("{other} --adapter $ADAPTER -o x.gif"),
        &["adapter.safetensors: ", "a model of another size"],
    );
    assert!(desk.files().is_empty());
}

#[test]
fn bases_of_other_families_and_broken_ones() {
    let desk = Desk::new();
    let set = |file: &str, key: &str, value: serde_json::Value| {
        let base = copy_of_base();
        let path = base.path().join(file);
        let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        base
    };
    let xl = set("unet/config.json", "addition_embed_type", "text_time".into());
    let two = set("unet/config.json", "cross_attention_dim", 1024.into());
    let long = set("tokenizer/tokenizer_config.json", "model_max_length", 78.into());
    let cut = copy_of_base();
    let file = cut.path().join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let nan = copy_of_base();
    let file = nan.path().join("unet/diffusion_pytorch_model.safetensors");
    let tensors = tensors_of(&file).into_iter().map(|(name, tensor)| match name == "conv_in.weight" {
        true => (name, tensor * f64::INFINITY),
        false => (name, tensor),
    });
    write(&file, tensors.collect::<Vec<_>>());
    let no_words = copy_of_base();
    fs::remove_dir_all(no_words.path().join("tokenizer")).unwrap();
    for (base, words) in [
        (&xl, "this is a Stable Diffusion XL model; AnimateDiff's modules are for Stable Diffusion 1.x"),
        (&two, "this is a Stable Diffusion 2 model"),
        (&cut, "vae/diffusion_pytorch_model.safetensors: truncated"),
        (&nan, "the weights do not make the UNet: 1 tensor holds NaN or infinite values, first `conv_in.weight`"),
        (&no_words, "tokenizer"),
        (&long, "text_encoder/config.json: `max_position_embeddings: 77`: the tokenizer makes prompts of 78 tokens"),
    ] {
        let base = base.path().display();
        desk.refused(&format!("animatediff sample --base {base} --prompt x -o x.png"), &[words]);
    }
    let line = format!("animatediff train motion -c $TINY --base {}", two.path().display());
    desk.refused(&line, &["this is a Stable Diffusion 2 model"]);
    let words = ["nowhere: not a base model: there is no such folder or file; `animatediff init --preset tiny DIR`"];
    desk.refused("animatediff sample --base nowhere --prompt x -o x.png", &words);
    desk.refused("animatediff train image -c $TINY --base nowhere", &words);
    desk.refused("animatediff sample --prompt x -o x.png", &["no base model is given; add --base DIR"]);
    desk.refused("animatediff sample --base $GOLD -o x.png", &["no prompt is given; add --prompt"]);
    assert!(desk.files().is_empty());
}

#[test]
fn training_data_that_cannot_be_used() {
    let desk = Desk::new();
    desk.write("columns.csv", "id,text\n1,a dog\n");
    desk.write("rows.csv", "videoid,name\n");
    desk.write("clips.csv", "video,caption\nnone.mp4,a dog\n");
    fs::create_dir(desk.path("empty")).unwrap();
    let table = |name: &str| format!("--set train_data.csv_path={name} --set train_data.video_folder=.");
    let folder = |name: &str| format!("--videos {name} --caption x");
    let cases = [
        (table("columns.csv"), "columns.csv: columns `id,text` found; needed are `videoid,name` (WebVid)"),
        (table("rows.csv"), "rows.csv: has a first line and no clips after it"),
        (table("none.csv"), "none.csv: cannot be read"),
        (table("clips.csv"), "none.mp4: no such file"),
        (folder("empty"), "empty: holds no clips; put videos or folders of frames there, or correct `videos`"),
        (folder("none"), "none: no such folder; correct `videos`"),
        (folder("columns.csv"), "columns.csv: cannot be listed"),
        (
            "--set train_data.sample_size=60".into(),
            "train_data.sample_size is 60x60; both sides must be divisible by 8",
        ),
        ("--set train_data.sample_n_frames=100".into(), "12 frames, and one item takes 199; lower `sample_stride`"),
        ("--set train_data.sample_n_frames=0".into(), "`sample_n_frames` is 0; give at least 1"),
        ("--device cuda:99".into(), "--device cpu"),
    ];
    for (flags, words) in cases {
        desk.refused(&format!("animatediff train motion -c $TINY {flags} --dry-run"), &[words]);
    }
    assert!(!desk.path("runs").exists());
    for line in [
        "data augment none.mp4 --motion zoom-in --caption x -o out",
        "data augment empty --motion zoom-in --caption x -o out",
    ] {
        desk.refused(&format!("animatediff {line}"), &[line.split(' ').nth(2).unwrap()]);
    }
}

#[cfg(feature = "ffmpeg")]
#[test]
fn files_that_are_no_videos() {
    let desk = Desk::new();
    fs::create_dir(desk.path("clips")).unwrap();
    let train = "animatediff train motion -c $TINY --videos clips --caption x";
    desk.write("clips/a.mp4", "a page that says: not found");
    desk.refused(
        train,
        &["none of the 1 clips can be read", "not a video: 1", "clips/a.mp4: not a video that FFmpeg can read"],
    );
    desk.write("clips/a.mp4", "");
    desk.refused(train, &["clips/a.mp4", "not a video: 1"]);
    desk.write("clips/a.mp4", movie_without_frames());
    desk.refused(train, &["clips/a.mp4", "no frames: 1"]);
    let augment = "animatediff data augment clips/a.mp4 --motion zoom-in --caption x -o out";
    desk.refused(augment, &["clips/a.mp4: holds a video track without frames; remove it, or record it again"]);
}

/// An MP4 with a video track of no frames: a movie whose samples are in fragments, of which there are none.
#[cfg(feature = "ffmpeg")]
fn movie_without_frames() -> Vec<u8> {
    fn atom(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
        let body = parts.concat();
        [&(8 + body.len() as u32).to_be_bytes()[..], kind, &body].concat()
    }
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let matrix = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000];
    let table = |kind: &[u8; 4], words: usize| atom(kind, &[numbers(&vec![0; words])]);
    let picture = [
        numbers(&[0, 1, 0, 0, 0, 0]),
        [0, 64, 0, 64].to_vec(),
        numbers(&[0x480000, 0x480000, 0]),
        vec![0, 1],
        vec![0; 32],
        vec![0, 24, 255, 255],
    ];
    let samples = atom(
        b"stbl",
        &[
            atom(b"stsd", &[numbers(&[0, 1]), atom(b"mp4v", &picture)]),
            table(b"stts", 2),
            table(b"stsc", 2),
            table(b"stsz", 3),
            table(b"stco", 2),
        ],
    );
    let media = [
        atom(b"mdhd", &[numbers(&[0, 0, 0, 1000, 0, 0x55c4_0000])]),
        atom(b"hdlr", &[numbers(&[0, 0]), b"vide".to_vec(), vec![0; 13]]),
        atom(b"minf", &[atom(b"vmhd", &[numbers(&[1, 0, 0])]), samples]),
    ];
    let head = [numbers(&[7, 0, 0, 1, 0, 0, 0, 0, 0, 0]), numbers(&matrix), numbers(&[64 << 16, 64 << 16])];
    let track = atom(b"trak", &[atom(b"tkhd", &head), atom(b"mdia", &media)]);
    let movie =
        [numbers(&[0, 0, 0, 1000, 0, 0x10000, 0x0100_0000, 0, 0]), numbers(&matrix), numbers(&[0, 0, 0, 0, 0, 0, 2])];
    let kind = atom(b"ftyp", &[b"isom".to_vec(), numbers(&[512]), b"isommp41".to_vec()]);
    [kind, atom(b"moov", &[atom(b"mvhd", &movie), track]), atom(b"mdat", &[])].concat()
}

#[test]
fn sizes_counts_and_numbers() {
    let desk = Desk::new();
    let sample = "animatediff sample --base $GOLD --prompt x --steps 1 -o x.gif";
    for (flags, words) in [
        ("-W 60", "-W 60: sizes must be divisible by 8; 64 is the nearest"),
        ("-L 0", "-L 0: at least 1 frame is expected"),
        ("--seed 1.5", "--seed 1.5: a whole number of 64 bits is expected"),
        ("--seed 1 --seed 2", "2 values of `seed` for 1 prompts; give one, or one for each"),
        ("--motion $V2 --motion-lora $LORA:nan", "FILE or FILE:SCALE is expected"),
        ("--inference-config none.yaml", "none.yaml: cannot be read"),
    ] {
        desk.refused(&format!("{sample} {flags}"), &[words]);
    }
    let line = "animatediff sample --base $GOLD --prompt x -o x.gif --steps=1001";
    desk.refused(line, &["--steps 1001: between 1 and 1000 is expected"]);
    // Once an index out of bounds: the first timestep of the official spacing lies one beyond the last.
    let line = "animatediff sample --base $GOLD --prompt x -o x.gif --steps=1000";
    desk.refused(line, &["--steps 1000: ", "`steps_offset: 1`", "timestep 1000", "take fewer steps"]);
    desk.write("job.yaml", "- {prompt: x, pretrained_model_path: base, controlnet_path: a.safetensors}");
    desk.refused("animatediff sample -c job.yaml", &["`controlnet_path: a.safetensors`", "remove the key"]);
    desk.write("job.yaml", "- {prompt: x, guidence_scale: 3}");
    desk.refused("animatediff sample -c job.yaml", &["job.yaml:1: ", "`0.guidence_scale`", "`0.guidance_scale`"]);
    desk.write("job.yaml", "[]");
    desk.refused("animatediff sample -c job.yaml", &["job.yaml: no jobs in it"]);
    write(&desk.path("noise"), [("noise".to_owned(), Tensor::zeros([1, 4, 1, 8, 8], (Kind::Float, Device::Cpu)))]);
    desk.refused(&format!("{sample} --latents noise"), &["noise: it has no tensor `latents`"]);
    write(&desk.path("noise"), [("latents".to_owned(), Tensor::from_slice(&[f32::NAN]).view([1, 1, 1, 1, 1]))]);
    desk.refused(&format!("{sample} --latents noise"), &["noise: `latents` holds NaN or infinite values"]);
    assert_eq!(desk.files(), ["job.yaml", "noise"]);
    for (line, words) in
        [("data shapes s --clips 0", "--clips 0 makes nothing"), ("data shapes file.txt/x", "file.txt")]
    {
        desk.write("file.txt", "");
        desk.refused(&format!("animatediff {line}"), &[words]);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_found_out_first() {
    let desk = Desk::new();
    desk.write("file.txt", "mine");
    let sample = "animatediff sample --base nowhere --prompt x --prompt y";
    // The base is not there either, so whoever looks at the output first says so.
    for output in ["file.txt/x.gif", "file.txt/clips", "file.txt/x.png", "file.txt/x.mp4"] {
        desk.refused(&format!("{sample} -o {output}"), &["file.txt"]);
    }
    desk.refused(&format!("{sample} -o clips --save-latents file.txt/latents"), &["file.txt"]);
    for line in [
        "animatediff train motion -c $TINY --base nowhere -o file.txt/runs",
        "animatediff train motion -c $TINY --base nowhere -o file.txt",
        "animatediff init file.txt/base",
        "animatediff data shapes file.txt/shapes",
        "animatediff data augment $SHAPES/videos --motion zoom-in --caption x -o file.txt/zoom",
    ] {
        desk.refused(line, &["file.txt"]);
    }
    let words = ["`a/b` cannot be the name of a run"];
    desk.refused("animatediff train motion -c $TINY --base nowhere --name a/b", &words);
    assert_eq!(desk.bytes("file.txt"), b"mine");
}

#[test]
fn what_is_there_is_kept() {
    let desk = Desk::new();
    let line = format!("{SAMPLE} -o clip.gif --save-latents latents");
    desk.ok(&line);
    let before = desk.bytes("clip.gif");
    let other = line.replace("--seed 1", "--seed 2");
    desk.refused(&other, &["clip.gif: exists already; choose another name, or add --overwrite"]);
    fs::remove_file(desk.path("clip.gif")).unwrap();
    desk.refused(&other, &["clip.gif.yaml: exists already"]);
    fs::remove_file(desk.path("clip.gif.yaml")).unwrap();
    desk.refused(&other, &["latents: exists already"]);
    desk.ok(&format!("{other} --overwrite"));
    assert_ne!(desk.bytes("clip.gif"), before);
    fs::create_dir(desk.path("mine")).unwrap();
    desk.write("mine/letter.txt", "dear");
    for flag in ["", "--overwrite"] {
        desk.refused(&format!("{SAMPLE} -o mine {flag}"), &["mine: "]);
    }
    desk.ok("animatediff init base");
    let weights = desk.bytes("base/unet/diffusion_pytorch_model.safetensors");
    desk.refused(
        "animatediff init base --seed 1",
        &["base: exists already; choose another folder, or add --overwrite"],
    );
    assert_eq!(desk.bytes("base/unet/diffusion_pytorch_model.safetensors"), weights);
    desk.ok("animatediff init base --seed 1 --overwrite");
    assert_ne!(desk.bytes("base/unet/diffusion_pytorch_model.safetensors"), weights);
    desk.refused("animatediff data shapes mine", &["mine is there and not empty; add --overwrite"]);
    desk.refused("animatediff data shapes mine --overwrite", &["mine/letter.txt is not of this command's making"]);
    desk.refused("animatediff init mine/letter.txt/base", &["letter.txt"]);
    assert_eq!(desk.bytes("mine/letter.txt"), b"dear");
}

/// The line under a limit for the size of files, past which a write fails as on a full disk.
fn limited(kib: usize, line: &str) -> String {
    // In blocks of 512 bytes; the signal that goes with it would end the program before it can speak.
    format!("trap '' XFSZ; ulimit -f {}; {line}", 2 * kib)
}

#[test]
fn a_full_disk_during_a_save_leaves_what_was_saved() {
    let desk = Desk::new();
    let whole = desk.train("motion -c $TINY --name whole --max-steps 4");
    let run = desk.train("motion -c $TINY --name part --set checkpointing_steps=1 --max-steps 2");
    let folder = run.folder.display();
    let resume = format!("animatediff train motion --resume {folder} --max-steps 4");
    let checkpoints = run.names("checkpoints");
    let export = fs::read(&run.export).unwrap();
    let words = ["the checkpoint of step 3 was not saved", "optimizer.safetensors: cannot write"];
    let message = desk.fails(&limited(400, &resume), 1, &words[..1]);
    assert!(message.contains(".safetensors: cannot write"), "{message}");
    assert_eq!(run.names("checkpoints"), checkpoints);
    assert_eq!(fs::read(&run.export).unwrap(), export);
    assert!(checkpoints.contains(&"step-00000002".to_owned()));
    let resumed = desk.train(&format!("motion --resume {folder} --max-steps 4"));
    assert_eq!(resumed.losses(), whole.losses(), "and the run goes on from there");
    assert_eq!(fs::read(&resumed.export).unwrap(), fs::read(&whole.export).unwrap());
}

#[test]
fn a_full_disk_while_sampling_leaves_no_half_of_a_clip() {
    let desk = Desk::new();
    desk.ok(&format!("{SAMPLE} -o old.gif --save-latents old"));
    let (clip, latents) = (desk.bytes("old.gif"), desk.bytes("old"));
    let large = "animatediff sample --base $GOLD --prompt x --steps 1 -W 128 -H 128 -L 4 --seed 2";
    let mut outputs = vec!["-o old.gif --overwrite", "-o new.png -L 1", "-o frames"];
    if cfg!(feature = "ffmpeg") {
        outputs.extend(["-o new.mp4", "-o new.webp"]);
    }
    for output in outputs {
        let line = match output.contains("-L 1") {
            true => large.replace("-L 4 ", ""),
            false => large.to_owned(),
        };
        desk.fails(&limited(4, &format!("{line} {output}")), 1, &[output.split(' ').nth(1).unwrap()]);
        assert_eq!(desk.files(), ["old", "old.gif", "old.gif.yaml"], "{output}");
    }
    assert_eq!((desk.bytes("old.gif"), desk.bytes("old")), (clip, latents));
}

#[test]
fn a_full_disk_during_init_leaves_nothing() {
    let desk = Desk::new();
    desk.fails(&limited(100, "animatediff init base"), 1, &["cannot"]);
    assert!(desk.files().is_empty() && !desk.path("base").exists(), "{:?}", desk.files());
    assert!(Path::new(&shared()["BASE"]).exists());
}

/// `init --overwrite` once removed whatever folder it was given.
#[test]
fn a_folder_that_is_no_random_base_is_never_replaced() {
    let desk = Desk::new();
    desk.write("thesis.txt", "years of work");
    desk.refused("animatediff init --overwrite .", &["is not replaced", "thesis.txt"]);
    assert!(desk.path("thesis.txt").exists());
}

/// Such tensors were once trained, and then missing from the export.
#[test]
fn only_what_is_exported_can_be_trained() {
    let desk = Desk::new();
    let line = "animatediff train motion -c $TINY --set 'trainable_modules=[motion_modules., conv_in]' --max-steps 1";
    desk.refused(line, &["trainable_modules: `unet.conv_in.bias`", "motion modules only"]);
}
