"""TRL's preparation of the same conversations, for `benchmarks/data.py --trl PYTHON`: a peer in a process of its own.

Usage: PYTHON benchmarks/peers/trl_prep.py TOKENIZER ROWS MAX_LENGTH TEMPLATE. What is timed is `SFTTrainer`'s own
preparation (template, tokens, assistant mask, truncation) with `assistant_only_loss` and two workers; the rows are
read before.
"""

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]


def conversation(row: dict[str, str]) -> dict[str, Any]:
    answer = row["response"].partition("<answer>\n")[2].removesuffix("\n</answer>")
    return {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": answer}]}


class Timed(SFTTrainer):
    seconds = 0.0

    def _prepare_dataset(self, *given: Any, **named: Any) -> Any:
        start = time.monotonic()
        found = super()._prepare_dataset(*given, **named)
        self.seconds = time.monotonic() - start
        return found


def main() -> None:
    folder, rows, max_length, template = sys.argv[1:]
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    with open(rows) as f:
        dataset = Dataset.from_list([conversation(json.loads(line)) for line in f])
    tiny: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    tiny |= {"vocab_size": len(tokenizer), "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(**tiny))
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            assistant_only_loss=True,
            max_length=int(max_length),
            dataset_num_proc=2,
            use_cpu=True,
            report_to=[],
            max_steps=1,
        )
        trainer = Timed(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
        tokens = sum(len(ids) for part in trainer.train_dataset.iter(1000) for ids in part["input_ids"])
    usage = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": trainer.seconds, "tokens": tokens, "peak": max(usage)}))


if __name__ == "__main__":
    main()
