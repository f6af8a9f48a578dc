"""Log-probabilities of pairs of an output and a prompt, as servers answer: a line for each request.

A line of generation is a prompt and what the model answered: each choice is an output of it, with
the log-probabilities of its tokens. A line of scoring has an output under a prompt, its own or
another: both went in as the prompt, and the log-probabilities of the output's tokens are the last
ones. It says which by the fields

    output          name of the output; a generated one is PROMPT/INDEX
    prompt          name of the prompt it was scored under; null for no prompt
    own             name of its own prompt, or whether `prompt` is that
    prompt_tokens   tokens before the output, or output_tokens, how many are the output's

beside the answer, or inside it as `custom_id`, a JSON object of these as text. The answer is the
record itself, or in `response`, with or without `body`: `choices` with `logprobs` (`content`, or
`token_logprobs` of an echo) or `prompt_logprobs`; `outputs` with `logprobs` and
`cumulative_logprob`, as vLLM has them in Python; or a plain `log_prob` and `tokens`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rbpp.data.table import Table

# What some servers write for a token whose log-probability they do not give.
_NOT_GIVEN = -9999.0


class _LineError(ValueError):
    """What is wrong with a line, whose place `read_pairs` adds."""


@dataclass(frozen=True)
class Pair:
    """An output under a prompt.

    Attributes:
        output, prompt: names; the prompt is None without one.
        own: name of the output's own prompt; None if the line does not say.
        log_prob: nats.
        tokens: of the output; None if the line does not say.
        place: file and line.
        kept: whether a filter kept the output; None if the line does not say.
    """

    output: str
    prompt: str | None
    own: str | None
    log_prob: float
    tokens: int | None
    place: str = ""
    kept: bool | None = None


def read_pairs(table: Table) -> Iterator[Pair]:
    """The pairs of every line.

    Raises:
        ValueError: naming the line that is none, and what it lacks.
    """
    names = list(table.columns)
    for index in range(len(table)):
        record = {name: table.columns[name][index] for name in names}
        place = table.place(index)
        said = {name: value for name, value in record.items() if value is not None}
        said = _custom(said.get("custom_id")) | said
        kept = truth(said.get("kept"), place)
        try:
            found = list(_pairs_of(record, said))
        except _LineError as error:
            raise ValueError(f"{place}: {error}") from error
        except Exception as error:  # an answer of another form ends in whatever Python raises
            raise ValueError(
                f"{place}: Expected an output under a prompt, as a server answers; got another "
                f"form ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
            ) from error
        yield from (replace(pair, place=place, kept=kept) for pair in found)


def columns_of(pairs: Iterable[Pair]) -> dict[str, Any]:
    """What `log_probabilities` takes, by name: of every output its own prompt and M others.

    Raises:
        ValueError: naming the file and the output whose own prompt is not known or not scored, that
            is there twice under a prompt, whose tokens differ, or that has another number of
            prompts than the first one.
    """
    outputs: dict[str, list[Pair]] = {}
    prompts: dict[str, int] = {}
    for pair in pairs:
        outputs.setdefault(pair.output, []).append(pair)
        if pair.prompt is not None:
            prompts.setdefault(pair.prompt, len(prompts))
    width = len({pair.prompt for pair in next(iter(outputs.values()))} - {None})
    own, others, values = [], [], []
    columns: dict[str, list[Any]] = {"tokens": [], "log_prob_unprompted": [], "kept": []}
    for name, group in outputs.items():
        place = group[0].place
        under = _under(group)
        of_group = _agreed(group, "own", "own prompt")
        if of_group not in under or of_group is None:
            lacks = "no own prompt named" if of_group is None else "none under its own prompt"
            raise ValueError(
                f"{place}: Expected the log-probability of output {name!r} under its own prompt; "
                f"got {lacks}"
            )
        columns["log_prob_unprompted"].append(under.pop(None, None))
        columns["tokens"].append(_agreed(group, "tokens", "number of tokens"))
        columns["kept"].append(_agreed(group, "kept", "value of kept"))
        if len(under) != width:
            raise ValueError(
                f"{place}: Expected output {name!r} under {width} prompts, as the first output is; "
                f"got {len(under)}"
            )
        own.append(prompts[of_group])
        values.append([under.pop(of_group), *under.values()])
        others.append([prompts[str(prompt)] for prompt in under])
    scored = np.asarray(values)
    given: dict[str, Any] = {
        "log_prob": scored if width > 1 else scored[:, 0],
        "prompt": np.asarray(own),
        "prompt_names": tuple(prompts),
        "output_names": tuple(outputs),
    }
    if width > 1:
        given["others"] = np.asarray(others)
    for field, column in columns.items():
        lacking = [name for name, value in zip(outputs, column, strict=True) if value is None]
        if not lacking:
            given[field] = np.asarray(column, dtype=float)
        elif len(lacking) < len(column):
            raise ValueError(
                f"{outputs[lacking[0]][0].place}: Expected {field} of every output or of none; got "
                f"none of {lacking[0]!r}"
            )
    return given


def _under(group: Sequence[Pair]) -> dict[str | None, float]:
    """Log-probability of an output by prompt; None is without one."""
    found: dict[str | None, float] = {}
    for pair in group:
        if pair.prompt in found:
            raise ValueError(
                f"{pair.place}: Expected output {pair.output!r} once under prompt "
                f"{pair.prompt!r}; got it again"
            )
        found[pair.prompt] = pair.log_prob
    return found


def _agreed(group: Sequence[Pair], field: str, what: str) -> Any:
    """What all pairs of an output say that say anything; None if none does."""
    found = None
    for pair in group:
        value = getattr(pair, field)
        if value is not None and found not in (None, value):
            cut = ": it is cut into other tokens there" if field == "tokens" else ""
            raise ValueError(
                f"{pair.place}: Expected one {what} of output {pair.output!r}; got {value!r} after "
                f"{found!r}{cut}"
            )
        found = value if found is None else found
    return found


def _pairs_of(record: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Pair]:
    answer = _answer(record)
    if "output" in said:
        yield _scored(said, "prompt" in record or "prompt" in said, answer)
        return
    prompt = said.get("prompt_id", said.get("prompt", said.get("custom_id")))
    if prompt is None:
        raise _LineError(
            "Expected the name of the prompt (prompt, prompt_id or custom_id), or of an "
            f"output that was scored (output); got {', '.join(said)}"
        )
    name = _name(prompt)
    generated = list(_generated(answer))
    if not generated:
        raise _LineError(
            f"Expected log-probabilities of what was generated (choices or outputs, with "
            f"logprobs); got {', '.join(answer)}"
        )
    for index, values in generated:
        yield Pair(f"{name}/{index}", name, name, log_prob=_sum(values), tokens=len(values) or None)


def _scored(said: Mapping[str, Any], names_prompt: bool, answer: Any) -> Pair:
    if not names_prompt:
        raise _LineError(
            f"Expected `prompt`, the name of the prompt that output {said['output']!r} "
            "was scored under, or null; got none"
        )
    output = _name(said["output"])
    prompt = None if said.get("prompt") is None else _name(said["prompt"])
    own = said.get("own")
    if isinstance(own, bool):
        own = prompt if own else None
    values: list[float | None]
    if "log_prob" in said:
        tokens = said.get("tokens")
        values = [_number(said["log_prob"])]
        count = None if tokens is None else int(_number(tokens))
    else:
        values = _tail(_prompt_values(answer), said)
        count = len(values)
    own = None if own is None else _name(own)
    return Pair(output, prompt, own, log_prob=_sum(values), tokens=count)


def _tail(values: list[float | None], said: Mapping[str, Any]) -> list[float | None]:
    """The values of the output's tokens, which are the last ones."""
    before, count = said.get("prompt_tokens"), said.get("output_tokens")
    if before is None and count is None:
        raise _LineError(
            f"Expected prompt_tokens or output_tokens, which say where the output begins "
            f"among {len(values)} tokens; got neither"
        )
    start = int(before) if before is not None else len(values) - int(count or 0)
    if not 0 <= start < len(values) or (count is not None and len(values) - start != int(count)):
        raise _LineError(
            f"Expected an output behind {start} tokens of the prompt"
            f"{'' if count is None else f', of {count} tokens'}; got {len(values)} tokens in all"
        )
    return values[start:]


def _answer(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of the answer: inside `response` and `body` of a batch, or the record itself."""
    found: Any = record
    for name in ("response", "body"):
        inner = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(inner, Mapping):
            found = inner
    error = record.get("error") or found.get("error")
    status = (record.get("response") or {}) if isinstance(record.get("response"), Mapping) else {}
    if error or int(status.get("status_code") or 200) != 200:
        raise _LineError(f"Expected an answer; got the error {str(error or status)[:80]}")
    return found


def _generated(answer: Mapping[str, Any]) -> Iterator[tuple[int, list[float | None]]]:
    """Index and log-probabilities of every output that was generated."""
    for position, choice in enumerate(_list(answer.get("choices"))):
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, Mapping):
            raise _LineError(
                "Expected `logprobs` in every choice; got none: ask the server for them"
            )
        yield int(choice.get("index", position)), _of_choice(logprobs)
    for position, one in enumerate(_list(answer.get("outputs"))):
        steps, index = one.get("logprobs"), int(one.get("index", position))
        if steps is not None and len(steps):
            yield index, _of_steps(steps, one.get("token_ids"))
        elif one.get("cumulative_logprob") is not None:
            yield index, [one["cumulative_logprob"]]
        else:
            raise _LineError(
                "Expected logprobs or cumulative_logprob of every output; got none: ask "
                "for them (SamplingParams(logprobs=0))"
            )


def _of_choice(logprobs: Mapping[str, Any]) -> list[float | None]:
    content = logprobs.get("content")
    if content is not None:
        return [step.get("logprob") for step in content]
    return list(_list(logprobs.get("token_logprobs")))


def _prompt_values(answer: Mapping[str, Any]) -> list[float | None]:
    """Log-probabilities of the tokens that went in; the first one has none."""
    choices = _list(answer.get("choices"))
    inside = choices[0] if choices else {}
    for holder in (inside, answer):
        steps = holder.get("prompt_logprobs")
        if steps is not None and len(steps):
            ids = holder.get("prompt_token_ids", answer.get("prompt_token_ids"))
            return _of_steps(steps, ids)
    logprobs = inside.get("logprobs")
    if not isinstance(logprobs, Mapping) or not len(_list(logprobs.get("token_logprobs"))):
        raise _LineError(
            f"Expected prompt_logprobs, or logprobs of an echo (echo=True); got {', '.join(answer)}"
        )
    values = _of_choice(logprobs)
    generated = int((answer.get("usage") or {}).get("completion_tokens") or 0)
    if values[0] is not None:
        raise _LineError(
            "Expected an echo of the prompt, whose first token has no log-probability; "
            "got those of generated tokens (echo=True asks for the prompt's)"
        )
    return values[: len(values) - generated]


def _of_steps(steps: Any, ids: Any) -> list[float | None]:
    """Of vLLM's steps, each {token: {"logprob": …}, …}, the value of the token that is there."""
    found: list[float | None] = []
    for position, step in enumerate(steps):
        if step is None:
            found.append(None)
            continue
        known = {key: one for key, one in step.items() if one is not None}
        if ids is not None and str(ids[position]) in known:
            one = known[str(ids[position])]
        elif len(known) == 1:
            (one,) = known.values()
        else:
            raise _LineError(
                f"Expected one token at position {position}, or token ids that say which; "
                f"got {len(known)} tokens: ask for logprobs=0 (prompt_logprobs=0)"
            )
        found.append(one.get("logprob") if isinstance(one, Mapping) else one)
    return found


def _sum(values: Sequence[float | None]) -> float:
    if not len(values):
        raise _LineError("Expected tokens of an output; got none")
    total = 0.0
    for position, value in enumerate(values):
        if value is None or value == _NOT_GIVEN:
            raise _LineError(
                f"Expected the log-probability of every token of the output; got "
                f"{'none' if value is None else f'{value:g}, which stands for none,'} of token "
                f"{position}"
            )
        number = _number(value)
        if math.isnan(number) or number > 1e-4:
            raise _LineError(
                f"Expected log-probabilities of at most 0; got {number:g} of token {position}"
            )
        total += number
    return total


def _custom(text: Any) -> dict[str, Any]:
    """The fields of a `custom_id` that is a JSON object; none of another."""
    if isinstance(text, str) and text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    return {}


def truth(value: Any, place: str) -> bool | None:
    """Of the field `kept`; None of a row without it.

    Raises:
        ValueError: naming the place of a value that is none.
    """
    if value is not None and not isinstance(value, bool | np.bool_) and value not in (0, 1):
        raise ValueError(f"{place}, field 'kept': Expected true or false; got {str(value)[:40]!r}")
    return None if value is None else bool(value)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise _LineError(f"Expected a number; got {str(value)[:40]!r}")
    return float(value)


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value)
