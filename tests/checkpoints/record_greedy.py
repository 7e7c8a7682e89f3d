"""Records what transformers generates greedily with the models of make_models.py.

    pip install torch transformers
    python tests/checkpoints/record_greedy.py

Writes tests/fixtures/checkpoints/NAME/greedy.json: prompts, the new tokens of each, and the smallest
distance between the two largest logits, which says how far rounding is from changing a token.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "checkpoints"
NEW_TOKENS = 20
# GPT-2's fixture has 32 positions.
LENGTHS = [1, 2, 3, 5, 8, 12]


def greedy(model, prompt):
    """New tokens of one prompt and the smallest margin by which they were chosen."""
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
        eos_token_id=None, pad_token_id=0, use_cache=True, output_logits=True,
        return_dict_in_generate=True,
    )
    margins = [logits[0].topk(2).values.diff().abs().item() for logits in made.logits]
    return made.sequences[0, len(prompt):].tolist(), min(margins)


def main():
    for config in sorted(FOLDER.glob("*/config.json")):
        model = AutoModelForCausalLM.from_pretrained(config.parent, dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(9)
        prompts = [torch.randint(0, 61, (length,), generator=generator).tolist() for length in LENGTHS]
        made = [greedy(model, prompt) for prompt in prompts]
        record = {"prompts": prompts, "new_tokens": [tokens for tokens, _ in made],
                  "smallest_margin": min(margin for _, margin in made)}
        (config.parent / "greedy.json").write_text(json.dumps(record))
        print(config.parent.name, record["smallest_margin"], len(set(sum(record["new_tokens"], []))))


if __name__ == "__main__":
    main()
