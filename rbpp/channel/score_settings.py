"""What is scored, and how the outputs were drawn: settings that need neither torch nor a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rbpp import validate

Chat = Literal["auto", "yes", "no"]
DType = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True)
class Sampler:
    """How outputs were drawn.

    Attributes:
        temperature: logits are divided by it.
        top_p: the smallest set of most likely tokens of at least this probability is kept.
        top_k: as many most likely tokens are kept; None keeps all.

    Raises:
        ValueError: if `temperature` is not above 0, `top_p` not in (0, 1] or `top_k` below 1.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        validate.number("temperature", self.temperature, above=0)
        if validate.number("top_p", self.top_p, above=0) > 1:
            raise ValueError(f"Expected top_p to be a number of at most 1; got {self.top_p}")
        if self.top_k is not None:
            validate.count("top_k", self.top_k)

    @property
    def uncut(self) -> Sampler:
        """The same temperature over the whole vocabulary."""
        return Sampler(self.temperature)

    @property
    def whole(self) -> bool:
        """Whether every token is possible."""
        return self.top_p == 1 and self.top_k is None


@dataclass(frozen=True)
class ScoreSettings:
    """What is scored, and of which distribution.

    Attributes:
        text_field: of the prompt; the first of prompt, messages, instruction, question and text.
        output_field: of the output's text; the first of output, response, completion, answer and
            text.
        own_field: of outputs, with the number of its own prompt from 0, or its text; without it
            `prompt`, where there is one, else the order.
        others: other prompts for every output.
        temperature, top_p, top_k: how the outputs were drawn.
        end: whether an output ends with the model's end token.
        chat: whether prompts go through the model's chat template.
        dtype: of the model's weights.
        batch_tokens: tokens of a batch at most.
    """

    text_field: str | None = field(
        default=None, metadata={"help": "of prompts (prompt, messages, …)", "metavar": "F"}
    )
    output_field: str | None = field(
        default=None, metadata={"help": "of outputs (output, response, …)", "metavar": "F"}
    )
    own_field: str | None = field(
        default=None,
        metadata={"help": "of outputs: text or number of the own prompt (prompt)", "metavar": "F"},
    )
    others: int = field(
        default=16,
        metadata={
            "help": "other prompts of every output, at random; no less than there are: all",
            "least": 0,
        },
    )
    temperature: float = field(
        default=1.0, metadata={"help": "that the outputs were drawn with", "above": 0}
    )
    top_p: float = field(
        default=1.0, metadata={"help": "nucleus that they were drawn from", "above": 0}
    )
    top_k: int | None = field(
        default=None, metadata={"help": "most likely tokens that they were drawn from; absent: all"}
    )
    end: bool = field(
        default=True, metadata={"help": "count the end token of outputs that were not cut"}
    )
    chat: Chat = field(
        default="auto", metadata={"help": "prompts through the model's chat template"}
    )
    dtype: DType = field(default="float32", metadata={"help": "of the model's weights"})
    batch_tokens: int = field(default=4096, metadata={"help": "tokens of a batch at most"})

    def __post_init__(self) -> None:
        validate.count("others", self.others, 0)
        validate.count("batch_tokens", self.batch_tokens)
        Sampler(self.temperature, self.top_p, self.top_k)

    @property
    def sampler(self) -> Sampler:
        """How the outputs were drawn."""
        return Sampler(self.temperature, self.top_p, self.top_k)
