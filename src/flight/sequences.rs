//! Random sequences for the model tests: many, from seeds that can be named, cut down to what matters on failure.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Fails with both sides of what should be equal.
macro_rules! same {
    ($left:expr, $right:expr) => {{
        let (left, right) = ($left, $right);
        if left != right {
            return Err(format!(
                "{}:{} {} is {left:?}, the model says {right:?}",
                file!(),
                line!(),
                stringify!($left)
            ));
        }
        left
    }};
}
pub(crate) use same;

/// Sequences of one model test: half of `COMFY_SEQUENCES`, because there are two.
pub(crate) fn count() -> u64 {
    let all = match std::env::var("COMFY_SEQUENCES") {
        Ok(text) => text.parse().expect("COMFY_SEQUENCES is a number"),
        Err(_) => 100_000,
    };
    u64::div_ceil(all, 2)
}

/// Plays `count()` sequences of 1 to 60 words, one for each seed from 0, and panics with the shortest one that fails.
///
/// `play` makes an event of each word and compares the policy with its model; `event` says what a word means.
pub(crate) fn check<E: Debug>(event: impl Fn(u64) -> E, play: impl Fn(&[u64]) -> Result<(), String>) {
    let play = |words: &[u64]| {
        catch_unwind(AssertUnwindSafe(|| play(words))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!(
                "panic: {}",
                text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
            ))
        })
    };
    let mut words = Vec::new();
    for seed in 0..count() {
        write_words(seed, &mut words);
        if play(&words).is_err() {
            while let Some(index) = (0..words.len()).find(|index| play(&without(&words, *index)).is_err()) {
                words.remove(index);
            }
            let events: Vec<E> = words.iter().map(|word| event(*word)).collect();
            panic!(
                "seed {seed}: {}\nwords {words:?}\nevents {events:#?}",
                play(&words).unwrap_err()
            );
        }
    }
}

/// Picks one of a few values with some bits of a word.
pub(crate) fn pick<V: Copy>(word: u64, shift: u32, values: &[V]) -> V {
    values[(word >> shift & 0xff) as usize % values.len()]
}

fn write_words(seed: u64, words: &mut Vec<u64>) {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut random = || {
        // SplitMix64: one addition and a good hash of it.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    words.clear();
    words.extend((0..random() % 60 + 1).map(|_| random()));
}

fn without(words: &[u64], index: usize) -> Vec<u64> {
    let mut words = words.to_vec();
    words.remove(index);
    words
}
