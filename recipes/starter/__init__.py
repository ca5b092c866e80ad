"""Generator of small Verilog design tasks: fine-tuning rows, a held-out benchmark, pre-training documents."""

from recipes.starter.output import corpus, echoes, rows, write_benchmark
from recipes.starter.problem import Problem
from recipes.starter.split import held_out, train_problems

__all__ = ["Problem", "corpus", "echoes", "held_out", "rows", "train_problems", "write_benchmark"]
