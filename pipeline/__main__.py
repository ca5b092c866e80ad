"""`python -m pipeline` is `tapeout`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
