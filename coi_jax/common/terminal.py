"""Tables on a terminal, or in a pipe."""

from rich.console import Console

WIDTH_OF_A_FILE = 140  # columns, where no terminal says how many there are


class _PipeConsole(Console):
    """A console that leaves a reader who has gone, as `head` does, to `cli.run`."""

    def on_broken_pipe(self) -> None:
        """Go on raising the BrokenPipeError that is being handled, where rich would exit without a word."""
        raise BrokenPipeError


def console() -> Console:
    """Return a console as wide as the terminal, which shows texts as they are, without colours of its own."""
    return _PipeConsole(width=None if Console().is_terminal else WIDTH_OF_A_FILE, highlight=False)
