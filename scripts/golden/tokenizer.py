"""Trains the small CLIP-style tokenizer and writes tokenizer_cases.json."""

import json
import re
import shutil
from collections import Counter

import common
from captions import corpus
from tokenizer_prompts import prompts

MERGES = 1500
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
# ASCII form of CLIP's pre-tokenization; the training text is ASCII only.
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_symbols():
    """Byte -> printable character; printable bytes first, as in CLIP's vocabulary order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return table


def count_words(lines):
    """Words as tuples of symbols (the last one marked </w>) with their frequency."""
    table = byte_symbols()
    counts = Counter(word for line in lines for word in WORD.findall(line.lower()))
    words = {}
    for word, count in counts.items():
        symbols = [table[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        words[tuple(symbols)] = count
    return words


def merge_pair(symbols, pair):
    """Join every left-to-right occurrence of `pair`."""
    joined, index = [], 0
    while index < len(symbols):
        if tuple(symbols[index:index + 2]) == pair:
            joined.append(pair[0] + pair[1])
            index += 2
        else:
            joined.append(symbols[index])
            index += 1
    return tuple(joined)


def best_pair(words):
    """Most frequent neighbouring pair; ties are broken alphabetically."""
    counts = Counter()
    for symbols, count in words.items():
        for pair in zip(symbols, symbols[1:]):
            counts[pair] += count
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None


def train(lines):
    """Byte-pair merges in order of training. A merge whose text already exists as a token is skipped."""
    words, merges, tokens = count_words(lines), [], set()
    while len(merges) < MERGES:
        pair = best_pair(words)
        if pair is None:
            break
        words = {merge_pair(symbols, pair): count for symbols, count in words.items()}
        if pair[0] + pair[1] not in tokens:
            tokens.add(pair[0] + pair[1])
            merges.append(pair)
    return merges


def vocabulary(merges):
    symbols = list(byte_symbols().values())
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += [left + right for left, right in merges] + [BOS, EOS]
    assert len(set(tokens)) == len(tokens)
    return {token: index for index, token in enumerate(tokens)}


def write_files(folder, merges):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2"] + [f"{left} {right}" for left, right in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_tokenizer(folder):
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"),
        unk_token=EOS, bos_token=BOS, eos_token=EOS, pad_token=EOS, model_max_length=LENGTH)


def write_base_copy(merges):
    """The tokenizer folder of the base model, with the file set of a published SD1.5 folder."""
    folder = common.BASE / "tokenizer"
    write_files(folder, merges)
    tokenizer = load_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    write_files(folder, merges)
    special = {name: {"content": text, "lstrip": False, "normalized": name != "pad_token", "rstrip": False, "single_word": False}
               for name, text in [("bos_token", BOS), ("eos_token", EOS), ("unk_token", EOS)]}
    special["pad_token"] = EOS
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    print(sorted(path.name for path in folder.iterdir()), type(tokenizer).__mro__[:2])
    return tokenizer


def write_cases(tokenizer):
    cases = []
    for text in prompts():
        ids = tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
        assert len(ids) == LENGTH
        cases.append({"text": text, "ids": ids})
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    (common.GOLDEN / "tokenizer_cases.json").write_text(f"[\n{lines}\n]\n")
    print(f"tokenizer_cases.json: {len(cases)} prompts")


def main():
    common.setup()
    merges = train(corpus())
    print(f"{len(merges)} merges")
    write_files(common.TOKENIZER_DATA, merges)
    write_cases(write_base_copy(merges))


if __name__ == "__main__":
    main()
