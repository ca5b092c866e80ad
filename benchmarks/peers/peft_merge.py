"""The peer of benchmarks/merge.py, a process of its own: PEFT's merge_and_unload and save_pretrained.

python benchmarks/peers/peft_merge.py BASE ADAPTER OUT
"""

import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main(base: str, adapter: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter, torch_device="cpu").merge_and_unload()
    merged.save_pretrained(out)
    for name in os.listdir(out):
        fd = os.open(os.path.join(out, name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:4])
