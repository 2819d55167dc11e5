//! CLIP's tokenizer: a prompt to a fixed number of token ids, 77 in Stable Diffusion.

mod vocabulary;

pub use vocabulary::Vocabulary;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer as Engine,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

/// Contractions, runs of letters, single digits, runs of anything else that is not white space.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Ids per prompt, where the folder does not say.
const LENGTH: usize = 77;
/// transformers writes 10³⁰ where there is no limit.
const NO_LIMIT: f64 = 1e6;

/// A tokenizer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Neither form is there.
    #[error("{path}: no tokenizer here: expected vocab.json with merges.txt, or tokenizer.json", path = .0.display())]
    Missing(PathBuf),
    /// A file that is no tokenizer.
    #[error("{path}: not a CLIP tokenizer: {reason}", path = .path.display())]
    Invalid {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Byte-level BPE with CLIP's normalisation: NFC, white space to single spaces, lower case.
#[derive(Debug)]
pub struct Tokenizer {
    engine: Engine,
    length: usize,
    start: i64,
    end: i64,
    /// Longest first: the name of one may be the start of another's.
    words: Vec<Word>,
}

/// A word with ids of its own, which the vocabulary does not have.
#[derive(Debug)]
struct Word {
    /// In lower case, as prompts are compared.
    text: String,
    ids: Range<i64>,
}

impl Tokenizer {
    /// Reads the `tokenizer` folder of a diffusers model. Prompts have as many ids as `model_max_length` of its
    /// `tokenizer_config.json` says, or 77.
    pub fn open(dir: &Path) -> Result<Tokenizer, TokenizerError> {
        let (vocab, merges, json) = (dir.join("vocab.json"), dir.join("merges.txt"), dir.join("tokenizer.json"));
        let invalid = |path: &Path, reason: String| TokenizerError::Invalid { path: path.to_owned(), reason };
        let (path, engine) = if vocab.exists() && merges.exists() {
            let engine = from_vocabulary(&vocab, &merges).map_err(|error| invalid(&vocab, error.to_string()))?;
            (vocab, engine)
        } else if json.exists() {
            let mut engine = Engine::from_file(&json).map_err(|error| invalid(&json, error.to_string()))?;
            engine.with_padding(None);
            engine.with_truncation(None).map_err(|error| invalid(&json, error.to_string()))?;
            (json, engine)
        } else {
            return Err(TokenizerError::Missing(dir.to_owned()));
        };
        let special = |token: &str| {
            let id = engine.token_to_id(token).ok_or_else(|| invalid(&path, format!("it has no `{token}`")))?;
            Ok(i64::from(id))
        };
        let (start, end) = (special(START)?, special(END)?);
        let length = read_length(&dir.join("tokenizer_config.json"))?;
        Ok(Tokenizer { engine, length, start, end, words: Vec::new() })
    }

    /// Has `text`, wherever it stands as a word in a prompt, in whatever case, mean `ids`: a textual-inversion embedding.
    ///
    /// # Errors
    /// When the name is empty, or taken already.
    pub fn add_word(&mut self, text: &str, ids: Range<i64>) -> Result<(), String> {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return Err("an embedding has an empty name: rename its file".into());
        }
        if self.words.iter().any(|word| word.text == text) {
            return Err(format!("two embeddings are called `{text}`: rename one of the files"));
        }
        self.words.push(Word { text, ids });
        self.words.sort_by_key(|word| std::cmp::Reverse(word.text.len()));
        Ok(())
    }

    /// Exactly [`Tokenizer::length`] ids: start, the prompt's tokens as far as they fit, end, padded with end.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let tokens = self.tokens(prompt).into_iter().take(self.length - 2);
        let mut ids: Vec<i64> = std::iter::once(self.start).chain(tokens).chain([self.end]).collect();
        ids.resize(self.length, self.end);
        ids
    }

    /// Whether `prompt` is longer than what [`Tokenizer::encode`] keeps, and by how many tokens.
    pub fn dropped_tokens(&self, prompt: &str) -> usize {
        self.tokens(prompt).len().saturating_sub(self.length - 2)
    }

    /// The ids of `prompt`, however many.
    fn tokens(&self, prompt: &str) -> Vec<i64> {
        let mut ids = Vec::new();
        let mut rest = prompt;
        while let Some((start, end, word)) = self.next_word(rest) {
            ids.extend(self.plain_tokens(&rest[..start]));
            ids.extend(word.ids.clone());
            rest = &rest[end..];
        }
        ids.extend(self.plain_tokens(rest));
        ids
    }

    fn plain_tokens(&self, text: &str) -> Vec<i64> {
        let encoding = self.engine.encode_fast(text, false).expect("byte-level BPE has a token for every byte");
        encoding.get_ids().iter().map(|&id| i64::from(id)).collect()
    }

    /// Where the first of our own words is in `text`: it must not be a part of a longer one.
    fn next_word(&self, text: &str) -> Option<(usize, usize, &Word)> {
        if self.words.is_empty() {
            return None;
        }
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        text.char_indices().find_map(|(start, _)| {
            self.words.iter().find_map(|word| {
                let end = start + matching_prefix(&text[start..], &word.text)?;
                let (first, last) = (word.text.chars().next(), word.text.chars().next_back());
                let before = joins(first) && joins(text[..start].chars().next_back());
                let after = joins(last) && joins(text[end..].chars().next());
                (!before && !after).then_some((start, end, word))
            })
        })
    }

    /// Ids per prompt.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// How many bytes of `text` are `lower` but for their case, if it begins with that.
fn matching_prefix(text: &str, lower: &str) -> Option<usize> {
    let mut wanted = lower.chars();
    let mut end = 0;
    for c in text.chars() {
        if wanted.as_str().is_empty() {
            break;
        }
        for c in c.to_lowercase() {
            (wanted.next()? == c).then_some(())?;
        }
        end += c.len_utf8();
    }
    wanted.as_str().is_empty().then_some(end)
}

/// `model_max_length` of a configuration that may be missing, as may the key.
fn read_length(path: &Path) -> Result<usize, TokenizerError> {
    let invalid = |reason: String| TokenizerError::Invalid { path: path.to_owned(), reason };
    if !path.exists() {
        return Ok(LENGTH);
    }
    let text = fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    match json.get("model_max_length").map(|value| (value, value.as_f64())) {
        None => Ok(LENGTH),
        Some((_, Some(length))) if length > NO_LIMIT => Ok(LENGTH),
        Some((_, Some(length))) if length >= 3.0 && length.fract() == 0.0 => Ok(length as usize),
        Some((value, _)) => {
            Err(invalid(format!("`model_max_length: {value}`: a whole number of 3 or more is expected")))
        }
    }
}

fn from_vocabulary(vocab: &Path, merges: &Path) -> tokenizers::Result<Engine> {
    let text = |path: &Path| path.to_str().map(String::from).ok_or("the path is not valid UTF-8");
    let model = BPE::from_file(&text(vocab)?, &text(merges)?)
        .unk_token(END.into())
        .end_of_word_suffix("</w>".into())
        .continuing_subword_prefix(String::new())
        .build()?;
    let mut engine = Engine::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    engine.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    engine.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    engine.add_special_tokens([START, END].map(|token| AddedToken::from(token, true)))?;
    Ok(engine)
}
