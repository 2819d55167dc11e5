//! The tokenizers of random bases: CLIP's construction, with a vocabulary that ships with the program, or one that has a
//! token for every word of a small world.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::model::clip;

const MERGES: &str = include_str!("../../data/tokenizer/merges.txt");
const VOCABULARY: &str = include_str!("../../data/tokenizer/vocab.json");

/// Every byte, alone and at the end of a word.
const BYTES: usize = 512;

/// Tokens with their ids, without the two special ones, and the merges that make them.
pub struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// 2,012 tokens, of words of everyday captions.
    pub fn bundled() -> Vocabulary {
        let ids: Map<String, Value> = serde_json::from_str(VOCABULARY).expect("the bundled vocabulary is JSON");
        let mut tokens: Vec<(u64, String)> =
            ids.into_iter().map(|(token, id)| (id.as_u64().expect("ids are numbers"), token)).collect();
        tokens.sort();
        let tokens = tokens.into_iter().map(|(_, token)| token).filter(|token| !token.starts_with("<|")).collect();
        let pair = |line: &str| line.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
        Vocabulary { tokens, merges: MERGES.lines().skip(1).filter_map(pair).collect() }
    }

    /// One token for each of `words`, of small Latin letters; every other text is spelled out.
    pub fn of_words(words: &BTreeSet<String>) -> Vocabulary {
        let mut tokens = Vocabulary::bundled().tokens;
        tokens.truncate(BYTES);
        let mut vocabulary = Vocabulary { tokens, merges: Vec::new() };
        words.iter().for_each(|word| vocabulary.learn(word));
        vocabulary
    }

    /// Tokens, the two special ones included.
    pub fn size(&self) -> i64 {
        self.tokens.len() as i64 + 2
    }

    /// `vocab.json` for a text encoder of `size` tokens: the special ones are the last two, where CLIP has them.
    fn json(&self, size: i64) -> Value {
        let mut ids: Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        ids.insert("<|startoftext|>".into(), json!(size - 2));
        ids.insert("<|endoftext|>".into(), json!(size - 1));
        ids.into()
    }

    /// `merges.txt`.
    fn merges(&self) -> String {
        let lines = self.merges.iter().map(|(left, right)| format!("{left} {right}\n"));
        std::iter::once("#version: 0.2\n".to_owned()).chain(lines).collect()
    }

    /// Writes the files of a `tokenizer` folder for the text encoder of `config`: the two special tokens take the last two ids,
    /// where CLIP has them.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, dir: &Path, config: &clip::Config) -> Result<()> {
        let &clip::Config { vocab_size: size, max_position_embeddings: length, .. } = config;
        let special = |content: &str| json!({"content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false});
        let (start, end) = (special("<|startoftext|>"), special("<|endoftext|>"));
        let specials = json!({"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": "<|endoftext|>"});
        let config = json!({
            "add_prefix_space": false,
            "bos_token": start,
            "eos_token": end,
            "unk_token": end,
            "pad_token": "<|endoftext|>",
            "do_lower_case": true,
            "errors": "replace",
            "model_max_length": length,
            "tokenizer_class": "CLIPTokenizer",
        });
        let files = [
            ("merges.txt", self.merges()),
            ("vocab.json", serde_json::to_string(&self.json(size))?),
            ("special_tokens_map.json", format!("{specials:#}\n")),
            ("tokenizer_config.json", format!("{config:#}\n")),
        ];
        files.iter().try_for_each(|(name, text)| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
        })
    }

    /// Adds the merges that make one token of what is left of `word` after all merges so far. Those go first in every word, so
    /// that new ones change nothing of words that are one token already.
    fn learn(&mut self, word: &str) {
        let mut pieces = self.pieces(word);
        while pieces.len() > 1 {
            let (left, right) = (pieces.remove(0), pieces.remove(0));
            let whole = format!("{left}{right}");
            pieces.insert(0, whole.clone());
            self.merges.push((left, right));
            if !self.tokens.contains(&whole) {
                self.tokens.push(whole);
            }
        }
    }

    /// What byte-pair encoding makes of a word: the earliest merge that fits anywhere, until none does.
    fn pieces(&self, word: &str) -> Vec<String> {
        let ranks: HashMap<(&str, &str), usize> = self
            .merges
            .iter()
            .enumerate()
            .map(|(rank, (left, right))| ((left.as_str(), right.as_str()), rank))
            .collect();
        let mut pieces: Vec<String> = word.chars().map(String::from).collect();
        if let Some(last) = pieces.last_mut() {
            last.push_str("</w>");
        }
        let rank = |pair: &[String]| ranks.get(&(pair[0].as_str(), pair[1].as_str())).copied();
        while let Some((_, at)) = pieces.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min() {
            let right = pieces.remove(at + 1);
            pieces[at].push_str(&right);
        }
        pieces
    }
}
