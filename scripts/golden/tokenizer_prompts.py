"""Prompts for the tokenizer test: ordinary captions and every awkward input that is worth a check."""

import random

from captions import sentence

AWKWARD = [
    "", " ", "   ", "\t", "\n", "\r\n", " \t\n ", "\u00a0", "\u00a0\u00a0", "\u3000", "\u200b", "\ufeff", "\u2028", "\u0085",
    "a", "A", "z", "0", "1234567890", "3.14159", "1,000,000", "16x16", "8k", "4K UHD", "(masterpiece:1.3)", "((best quality))",
    "[blurry]", "{a|b}", "a\\(b\\)", "<lora:film:0.8>", "#hashtag @user", "C++ & C#", "50% off!", "a/b\\c", "snake_case_name",
    "hello world", "Hello World", "HELLO WORLD", "hELLO wORLD", "CamelCaseWord",
    "hello,world", "hello , world", "hello... world", "wait!!! what??? no?!", "--- *** ===", "a-b-c", "a--b", "e-mail", "~`^",
    "it's", "don't", "we're", "I'm", "they've", "she'll", "he'd", "IT'S", "DON'T", "WE'RE", "I'M", "the cat's toy", "cats' toys",
    "rock'n'roll", "'tis", "''", "'", "o'clock", "it\u2019s", "don\u2019t", "\u201cquoted\u201d text", "\"quoted\" text", "'s", "'S", "x'sy", "x'rey",
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "CAFE\u0301", "na\u00efve", "nai\u0308ve", "r\u00e9sum\u00e9", "\u00fcber", "U\u0308BER", "stra\u00dfe", "STRASSE",
    "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212bngstrom", "\u0130stanbul", "\u0131", "\u01c5", "\u1e9e", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u039f\u0394\u039f\u03a3",
    "ﬁne ﬂow", "\u2460\u2461", "\u00bd cup", "x\u00b2 + y\u00b3", "\u2167", "\u0661\u0662\u0663", "\u096a\u096b",
    "\u4f60\u597d\u4e16\u754c", "\u4f60\u597d, \u4e16\u754c!", "\u3053\u3093\u306b\u3061\u306f", "\u30ab\u30bf\u30ab\u30ca", "\uff76\uff9e", "\u30ac", "\u30ab\u3099", "\uc548\ub155", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "a\u732bb", "\u732b cat \u72ac dog", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442", "\u0419\u043e\u0433\u0443\u0440\u0442", "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600", "\U0001f600\U0001f600", "a \U0001f600 b", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "\U0001f3f3\ufe0f\u200d\U0001f308 flag", "\u2603 snowman\u2603",
    "\u2014 dash \u2013 dash", "\u2026", "\u2022 item", "5\u00b0C", "\u20ac100 \u00a320 $3", "\u00a9\u00ae\u2122", "\u00bfqu\u00e9?", "\u00a1hola!", "\u00ab bonjour \u00bb",
    "tab\tseparated\twords", "line\nbreak", "line\r\nbreak", "a  b   c", "  leading", "trailing  ", "nbsp\u00a0between", "thin\u2009space", "wide\u3000space", "zero\u200bwidth", "a\u2028b", "a\u0085b", "a\x0bb\x0cc",
    "nul\x00byte", "bell\x07here", "esc\x1b[0m", "del\x7fchar", "a\x01b", "soft\u00adhyphen", "\ufffd", "a\ufffdb", "\ue000private", "\U0010ffff",
    "<|endoftext|>", "<|startoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|startoftext|>a cat<|endoftext|>", "<|ENDOFTEXT|>", "<|endoftext|", "< |endoftext|>", "<|endoftext|><|endoftext|>", "hello<|startoftext|>world", "a  <|endoftext|>  b",
    "</w>", "a</w>", "\u0120", "\u0120the", "\u0100", "&amp; &lt;b&gt;", "<b>bold</b>", "http://example.com/a?b=c&d=e", "user@example.com", "C:\\path\\file.txt",
    "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "zzzzqqqqxxxx", "qwertyuiop asdfghjkl", "e\u0301\u0301\u0301", "\u0301", " \u0301a", "a\u0323\u0307", "a\u0307\u0323", "s\u0323\u0307", "\u1e69",
    "no'sir 'swell 'twas 'llama 'd'd", "1st 2nd 3rd 4th", "v1.5-pruned", "a1b2c3", "a\u00b2b", "x\u0308\u0308", "\u0e33", "\u1f80", "\u0958", "\u2126", "\u00b5",
]

LONG = [
    " ".join(["cat"] * 74), " ".join(["cat"] * 75), " ".join(["cat"] * 76), " ".join(["cat"] * 77), " ".join(["cat"] * 200),
    "x" * 300, "!" * 300, "1" * 75, "1" * 76, "\u732b" * 40, "\U0001f600 " * 30, ", ".join(["best quality"] * 40),
    " ".join(["cat"] * 75) + " <|endoftext|> dog", "<|endoftext|>" * 80,
]


def prompts():
    rng = random.Random(77)
    ordinary = [sentence(rng) for _ in range(60)]
    ordinary += [text.upper() for text in ordinary[:5]] + [text.title() for text in ordinary[5:10]]
    return list(dict.fromkeys(ordinary + AWKWARD + LONG))
