"""`python -m yeondong` is the command `yeondong`."""

from yeondong.cli import main

if __name__ == "__main__":
    main()
