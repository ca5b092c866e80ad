"""`python -m pipeline` is `tapeout`."""

from tapeout import main

if __name__ == "__main__":
    main()
