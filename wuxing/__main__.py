"""`python -m wuxing` is the command `wuxing`."""

from wuxing.commands.main import main

main()
