"""Prompts and outputs of the user as tokens of the model, each of them checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbpp.channel.language_model import LanguageModel
from rbpp.channel.pairs import truth
from rbpp.channel.score_settings import ScoreSettings
from rbpp.data import chat, fields
from rbpp.data.read import read_tables
from rbpp.data.table import Table

_PROMPT_FIELDS = ("prompt", "messages", "instruction", "question", "text")
_OUTPUT_FIELDS = ("output", "response", "completion", "answer", "text")


@dataclass(frozen=True)
class ScoreInputs:
    """Tokens, and which output belongs to which prompt.

    Attributes:
        prompts: tokens before an output, of every distinct prompt.
        outputs: tokens of every output, its end token last where it has one.
        prompt: (n,) index of the own prompt of every output.
        kept: (n,) whether a filter kept it; None where the file does not say.
        notes: what was decided, in words.
        places: where every output stands, and where every prompt does.
    """

    prompts: list[list[int]]
    outputs: list[list[int]]
    prompt: np.ndarray
    kept: np.ndarray | None
    notes: tuple[str, ...]
    places: tuple[list[str], list[str]]


def score_inputs(
    model: LanguageModel, prompts: Any, outputs: Any, settings: ScoreSettings
) -> ScoreInputs:
    """Read prompts and outputs, and cut them into the model's tokens.

    Args:
        model: whose tokens they are to be.
        prompts, outputs: as for `rbpp.score_rows`.
        settings: names of the fields, and whether outputs end with the model's end token.

    Raises:
        ValueError: naming the row of a prompt or output that is none, does not come back from the
            tokenizer as it was, has other tokens than the model, or is too long for it.
    """
    prompt_table, output_table = _table(prompts, "prompts"), _table(outputs, "outputs")
    given = _prompts(prompt_table, settings.text_field)
    texts = _texts(output_table, settings.output_field)
    own = _own(output_table, settings.own_field, given, prompt_table.origin)
    keys = list(map(str, given))
    first: dict[str, int] = {}  # row of every distinct prompt
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    prompt_places = [prompt_table.place(index) for index in first.values()]
    prompt_tokens = [
        _encoded_prompt(model, given[index], place)
        for index, place in zip(first.values(), prompt_places, strict=True)
    ]
    output_tokens, cut = _output_tokens(model, output_table, texts, settings.end)
    notes = [
        "prompts go through the model's chat template"
        if model.chat
        else "prompts are plain text, without a chat template"
    ]
    if not settings.end or model.end is None:
        notes.append("outputs have no end token: how long they are is not counted")
    elif cut:
        notes.append(f"{cut} outputs were cut and have no end token")
    if len(first) < len(given):
        notes.append(f"{len(given) - len(first)} prompts are there twice and count as one")
    number = {key: index for index, key in enumerate(first)}
    prompt = np.array([number[keys[index]] for index in own])
    places = [output_table.place(index) for index in range(len(output_table))], prompt_places
    _check_lengths(model, prompt_tokens, output_tokens, places)
    kept = None
    if "kept" in output_table.columns:
        given_kept = zip(output_table.columns["kept"], places[0], strict=True)
        kept = np.asarray([truth("nothing" if v is None else v, place) for v, place in given_kept])
    return ScoreInputs(
        prompt_tokens, output_tokens, prompt, kept, notes=tuple(notes), places=places
    )


def _table(data: Any, what: str) -> Table:
    (table, *more) = read_tables(data if isinstance(data, str | Path) else list(data))
    if more:
        raise ValueError(f"{data}: Expected one file of {what}; got {1 + len(more)}")
    if not len(table):
        raise ValueError(f"{table.origin}: Expected {what}; got no rows")
    return table


def _field(table: Table, name: str | None, usual: Sequence[str], argument: str) -> Sequence[Any]:
    if name is not None:
        return list(fields.column(table, name)[1])
    for choice in usual:
        if choice in table.columns:
            return list(table.columns[choice])
    raise ValueError(
        f"{table.origin}: Expected one of the fields {', '.join(usual)}, or the name of another "
        f"({argument}); got {', '.join(table.columns)}"
    )


def _prompts(table: Table, name: str | None) -> list[Any]:
    values = _field(table, name, _PROMPT_FIELDS, "text_field=…")
    fine = [isinstance(value, str) or chat.are_turns(value) for value in values]
    _refuse_others(table, values, fine, "a prompt, text or chat messages")
    return [
        value
        if isinstance(value, str)
        else [{"role": chat.role(turn), "content": chat.text_of(turn)} for turn in value]
        for value in values
    ]


def _refuse_others(table: Table, values: Sequence[Any], fine: Sequence[bool], what: str) -> None:
    if not all(fine):
        index = fine.index(False)
        found = "nothing" if values[index] is None else type(values[index]).__name__
        raise ValueError(f"{table.place(index)}: Expected {what}; got {found}")


def _texts(table: Table, name: str | None) -> list[str | None]:
    """The text of every output; None where only its tokens are there."""
    if (
        name is None
        and not set(_OUTPUT_FIELDS) & set(table.columns)
        and "token_ids" in table.columns
    ):
        return [None] * len(table)
    values = list(_field(table, name, _OUTPUT_FIELDS, "output_field=…"))
    fine = [isinstance(value, str) for value in values]
    _refuse_others(table, values, fine, "the text of an output")
    return values


def _own(table: Table, name: str | None, prompts: list[Any], origin: str) -> list[int]:
    """The row of every output's own prompt."""
    count = len(prompts)
    if name is None and "prompt" not in table.columns:
        if len(table) != count:
            raise ValueError(
                f"{table.origin}: Expected an output of every prompt, in order, or the name of the "
                f"field with the prompt of each (own_field=…); got {len(table)} outputs of "
                f"{count} prompts"
            )
        return list(range(count))
    values = fields.column(table, name or "prompt")[1]
    rows = {prompt: index for index, prompt in reversed(list(enumerate(map(str, prompts))))}
    found = []
    for index, value in enumerate(values):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        row = int(value) if whole else rows.get(str(value), -1)
        if not 0 <= row < count:
            raise ValueError(
                f"{table.place(index)}: Expected the own prompt of the output, its text or its "
                f"number from 0 to {count - 1} in {origin}; got {str(value)[:60]!r}"
            )
        found.append(row)
    return found


def _encoded_prompt(model: LanguageModel, prompt: Any, place: str) -> list[int]:
    try:
        tokens = model.encode_prompt(prompt) or list(model.start)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except Exception as error:  # a template raises what it likes
        raise ValueError(
            f"{place}: Expected a prompt that the chat template takes; got {error}"
        ) from error
    if not tokens:
        raise ValueError(f"{place}: Expected a prompt of at least one token; got none")
    _check_vocabulary(model, tokens, place)
    return tokens


def _output_tokens(
    model: LanguageModel, table: Table, texts: Sequence[str | None], end: bool
) -> tuple[list[list[int]], int]:
    """Tokens of every output with its end token, and how many outputs were cut before it."""
    given = table.columns.get("token_ids")
    reasons = table.columns.get("finish_reason")
    found, cut = [], 0
    for index, text in enumerate(texts):
        place = table.place(index)
        if given is not None and given[index] is not None:
            tokens = _whole(given[index], place)
            ended = bool(tokens) and tokens[-1] == model.end
            _check_vocabulary(model, tokens, place)
            back = model.decode(tokens[:-1] if ended else tokens)
            if text is not None and back != text:
                raise ValueError(
                    f"{place}: Expected token_ids of the output's text in this model's tokens; got "
                    f"those of {back[:40]!r} for {text[:40]!r}: they are of another tokenizer"
                )
        else:
            assert text is not None
            tokens, ended = model.encode(text), False
            _check_vocabulary(model, tokens, place)
            back = model.decode(tokens)
            # Some tokenizers write a space before the first word, or lose the one that was there.
            if back != text and back.removeprefix(" ") != text.removeprefix(" "):
                raise ValueError(
                    f"{place}: Expected an output that the tokenizer gives back as it was; got "
                    f"{_apart(text, back)}: give token_ids as they were generated"
                )
        was_cut = reasons is not None and reasons[index] == "length"
        cut += was_cut
        if end and model.end is not None and not ended and not was_cut:
            tokens = [*tokens, model.end]
        if not tokens:
            raise ValueError(f"{place}: Expected an output of at least one token; got none")
        found.append(tokens)
    return found, cut


def _whole(values: Any, place: str) -> list[int]:
    for value in values if isinstance(values, Sequence | np.ndarray) else [values]:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{place}: Expected token_ids, whole numbers; got {str(value)[:40]!r}")
    return [int(value) for value in values]


def _apart(text: str, back: str) -> str:
    """Both texts from where they first differ."""
    pairs = enumerate(zip(text, back, strict=False))
    start = next((index for index, (a, b) in pairs if a != b), min(len(text), len(back)))
    start = max(0, start - 8)
    return f"{back[start : start + 30]!r} for {text[start : start + 30]!r}"


def _check_vocabulary(model: LanguageModel, tokens: Sequence[int], place: str) -> None:
    wrong = [token for token in tokens if not 0 <= token < model.vocabulary]
    if wrong:
        raise ValueError(
            f"{place}: Expected tokens below the model's {model.vocabulary}; got {wrong[0]}: the "
            "tokens are of another model"
        )


def _check_lengths(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
    places: tuple[list[str], list[str]],
) -> None:
    """Whether the longest prompt and the longest output fit into the context together."""
    if model.context is None:
        return
    longest = int(np.argmax([len(tokens) for tokens in outputs]))
    for index, tokens in enumerate(prompts):
        if len(tokens) + len(outputs[longest]) > model.context:
            raise ValueError(
                f"{places[1][index]}: Expected a prompt that leaves room in the model's context of "
                f"{model.context} tokens for every output, the longest of {len(outputs[longest])} "
                f"({places[0][longest]}); got a prompt of {len(tokens)} tokens"
            )
