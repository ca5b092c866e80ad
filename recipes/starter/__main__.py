"""`python -m recipes.starter train|benchmark|corpus|echoes`: write starter data; equal arguments give equal bytes."""

import argparse
import sys
from pathlib import Path

from common.errors import EXIT_USER_ERROR, UserError, from_os_error
from recipes.starter.output import corpus, echoes, rows, write_benchmark, write_rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m recipes.starter", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    train = kinds.add_parser("train", help="prompt and response rows for fine-tuning")
    train.add_argument("--rows", type=int, default=3000)
    documents = kinds.add_parser("corpus", help="Verilog source files for pre-training")
    documents.add_argument("--documents", type=int, default=10000)
    words = kinds.add_parser("echoes", help="words answered with the same words, for pre-training")
    words.add_argument("--rows", type=int, default=6000)
    benchmark = kinds.add_parser("benchmark", help="the held-out problems in VerilogEval v2's layout")
    for command in (train, documents, words):
        command.add_argument("--seed", type=int, default=0)
    for command in (train, documents, words, benchmark):
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.kind == "train":
            write_rows(options.out, rows(options.rows, options.seed))
        elif options.kind == "corpus":
            write_rows(options.out, [{"text": text} for text in corpus(options.documents, options.seed)])
        elif options.kind == "echoes":
            write_rows(options.out, echoes(options.rows, options.seed))
        else:
            write_benchmark(options.out)
    except (UserError, OSError) as error:
        print(error if isinstance(error, UserError) else from_os_error(error), file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
