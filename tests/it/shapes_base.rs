//! The bundled base of the world of shapes, and how it hears its prompts.

use std::path::{Path, PathBuf};

use animatediff::{
    data::shapes::{Scene, Split, words},
    tokenizer::Tokenizer,
};

use crate::cli::support::Desk;

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/shapes-base")
}

#[test]
fn every_word_of_the_world_is_one_token_and_every_caption_fits() {
    let desk = Desk::new();
    desk.ok("animatediff init --preset shapes base");
    for folder in [desk.path("base"), bundled()] {
        let tokenizer = Tokenizer::open(&folder.join("tokenizer")).unwrap();
        let tokens = |text: &str| {
            let ids = tokenizer.encode(text);
            let end = ids[ids.len() - 1];
            assert_eq!(tokenizer.dropped_tokens(text), 0, "{text} is cut");
            ids[1..].iter().take_while(|id| **id != end).copied().collect::<Vec<_>>()
        };
        let mut seen = Vec::new();
        for word in words() {
            let ids = tokens(&word);
            assert_eq!(ids.len(), 1, "{word}: {ids:?}");
            assert!(!seen.contains(&ids), "{word} is another word's token");
            seen.push(ids);
        }
        assert_eq!(tokenizer.length(), 16);
        for index in 0..200 {
            let scene = Scene::draw(1, index, Split::All);
            assert_eq!(tokens(&scene.caption()).len(), scene.caption().split(' ').count());
            tokens(&scene.still_caption());
        }
        // What is not of this world is spelled, not lost.
        assert!(tokens("moving left").len() == 2 && tokens("a xylophone").len() > 5);
    }
}
