"""`python -m nni_aiop`: the command line."""

from nni_aiop.cli import main

if __name__ == "__main__":
    main()
