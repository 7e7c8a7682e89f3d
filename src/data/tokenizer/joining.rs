//! How the decoders of the `tokenizers` crate join tokens to a text.

use serde_json::Value;
use tokenizers::DecoderWrapper;

/// What a token's part of a text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// The token, the one before it, and whether it begins the text.
    Tokens,
    /// The same, but byte tokens (`<0x0A>`) in a row are taken together: where they are not UTF-8,
    /// none of them is a character.
    RunsOfBytes,
    /// Not known here.
    Unknown,
}

impl Joining {
    /// That of a tokenizer's decoder; without one, tokens are joined by spaces.
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Joining {
        match decoder.map(serde_json::to_value) {
            None => Joining::Tokens,
            Some(Ok(decoder)) => {
                let (mut is_joined, mut runs) = (false, false);
                if is_known(&decoder, &mut is_joined, &mut runs) {
                    if runs { Joining::RunsOfBytes } else { Joining::Tokens }
                } else {
                    Joining::Unknown
                }
            }
            Some(Err(_)) => Joining::Unknown,
        }
    }
}

/// Whether a step of a decoder works on each token by itself or joins them; of a text that is joined
/// already it may change the beginning only.
fn is_known(step: &Value, is_joined: &mut bool, runs: &mut bool) -> bool {
    let was_joined = *is_joined;
    match step["type"].as_str() {
        Some("Sequence") => {
            let steps = step["decoders"].as_array();
            steps.is_some_and(|steps| steps.iter().all(|step| is_known(step, is_joined, runs)))
        }
        Some("ByteLevel" | "Fuse") => {
            *is_joined = true;
            !was_joined
        }
        Some("ByteFallback") => {
            *runs = true;
            !was_joined
        }
        Some("Strip") => !was_joined || step["stop"] == 0,
        Some("Replace" | "Metaspace" | "WordPiece") => !was_joined,
        _ => false,
    }
}
