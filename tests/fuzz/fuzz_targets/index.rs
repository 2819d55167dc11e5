#![no_main]

use harness::{FOLDER, targets};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::index(&FOLDER, bytes);
});
