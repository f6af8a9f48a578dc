"""`python -m rbpp …` is `rbpp …`."""

from rbpp import signals


def start() -> None:
    """The process of `rbpp`: what is slow to import is imported where a signal is heard."""

    def run() -> int:
        from rbpp.command import main

        return main()

    signals.run_process(run)


if __name__ == "__main__":
    start()
