//! LyCORIS' forms and textual inversions, against what LyCORIS, diffusers and transformers compute of the same files.

use animatediff::{
    assemble::TextExtras,
    nn::Plan,
    weights::{Embedding, LoraFile},
};
use tch::{Device, Kind, Tensor};

use crate::support::{Golden, OUTPUT, assert_close, base, golden_path, tensors_of};

fn path(name: &str) -> std::path::PathBuf {
    golden_path("weights").join(name)
}

#[test]
fn loha_lokr_and_tucker_cores_are_lycoris() {
    let lora = LoraFile::read(&path("lycoris.safetensors")).unwrap();
    let expected = tensors_of(&path("lycoris_expected.safetensors"));
    assert_eq!(lora.unet.len(), expected.len());
    let mut forms = std::collections::BTreeSet::new();
    for (layer, delta) in lora.unet.deltas() {
        forms.insert(delta.form().name());
        let want = &expected[&format!("expected.{layer}")];
        let got = (delta.product() * delta.scale()).view_as(want);
        assert_close(&format!("{layer} ({})", delta.form().name()), &got, want, OUTPUT);
    }
    assert!(
        forms.contains("LoHa") && forms.contains("LoKr") && forms.contains("LoCon with a Tucker core"),
        "{forms:?}"
    );
    let mut unet = base().unet_tensors().unwrap();
    let before = base().unet_tensors().unwrap();
    lora.unet.merge_into(&mut unet, 0.5).unwrap();
    for (name, want) in &expected {
        let name = format!("{}.weight", name.strip_prefix("expected.").unwrap());
        let change = unet.get(&name).unwrap() - before.get(&name).unwrap();
        assert_close(&name, &change, &(want * 0.5), 1e-3);
    }
}

#[test]
fn embeddings_are_transformers() {
    let golden = Golden::load("weights/expected");
    let prompts = golden.json("embedding_prompts");
    for file in ["embedding_a1111.pt", "embedding_a1111.safetensors", "embedding_diffusers.safetensors"] {
        let embeddings = Embedding::read(&path(file)).unwrap();
        let base = base();
        let prompt = prompts[file].as_str().unwrap();
        let ids = base.tokenizer_with(&embeddings).unwrap().encode(prompt);
        let ids = Tensor::from_slice(&ids).view([1, -1]);
        assert_eq!(ids, golden.get(&format!("embedding.{file}.ids")), "{file}: {prompt}");
        let extras = TextExtras { embeddings, ..TextExtras::default() };
        let (encoder, _) = base.text_encoder_with(&extras, Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
        assert_close(file, &encoder.forward(&ids), &golden.get(&format!("embedding.{file}.hidden")), OUTPUT);
    }
}
