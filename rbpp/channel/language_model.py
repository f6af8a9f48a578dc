"""A local causal language model of `transformers`: its tokens and its logits."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbpp.channel.score_settings import Chat, DType
from rbpp.data.embedding_model import fingerprint


@dataclass(frozen=True)
class LanguageModel:
    """Tokens of texts, and logits of next tokens.

    Attributes:
        logits: token ids (b, t), mask (b, t) of those that count, and positions (k,), to logits
            (b, k, V): at a position those of the token after it.
        encode_prompt: a prompt's text, or a list of chat messages, to the tokens before an output.
        encode: text of an output to its tokens.
        decode: back to text.
        vocabulary: V.
        end: the token that ends an output; None if there is none.
        start: tokens before an output without a prompt; empty if there are none.
        context: the most tokens that it reads; None if any number.
        chat: whether prompts go through a chat template.
        device: where ids are to be.
        fingerprint: what changes where the model does; scores that were kept are of one model.
    """

    logits: Callable[[Tensor, Tensor, Tensor], Tensor]
    encode_prompt: Callable[[Any], list[int]]
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    vocabulary: int
    end: int | None
    start: tuple[int, ...]
    context: int | None = None
    chat: bool = False
    device: str = "cpu"
    fingerprint: str = ""


def load_language_model(
    model: Path | str, *, chat: Chat = "auto", dtype: DType = "float32", device: str = "cpu"
) -> LanguageModel:
    """Load a model and its tokenizer from this machine; nothing is downloaded or unpickled,
    and no code of the folder runs.

    Args:
        model: a folder as `save_pretrained` writes it, with safetensors; a `.gguf` file; or the
            name of a model that the cache of the hub has.
        chat: prompts through the tokenizer's chat template; `"auto"` where it has one.
        dtype: of the weights.
        device: where the model is.

    Raises:
        ImportError: naming the packages to install.
        ValueError: if there is no such model, or a chat template is asked for and there is none.
    """
    try:
        import transformers
    except ImportError:
        raise ImportError(
            f"The language model {model} needs: pip install transformers accelerate gguf"
        ) from None
    place, options = _where(Path(model))
    try:
        with _quietly(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False, **options
            )
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                local_files_only=True,
                trust_remote_code=False,  # left open, it asks whether to run the folder's code
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                **options,
                **({} if options else {"use_safetensors": True}),
            )
    except ImportError as error:
        raise ImportError(
            f"The language model {model} needs: pip install transformers accelerate gguf"
        ) from error
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"Expected a causal language model of transformers on this machine (folder, .gguf file "
            f"or cached name); got {model}: {(lines or [type(error).__name__])[0][:160]}"
        ) from error
    moved: Any = loaded
    found = of_transformers(moved.to(device), tokenizer, chat=chat)
    return replace(found, fingerprint=f"{dtype} {_fingerprint_of(model)}")


def _fingerprint_of(model: Path | str) -> str:
    """Its name, and sizes and times of the files of its folder."""
    path = Path(model)
    return f"{path.name} {fingerprint(str(path.parent if path.is_file() else path))}"


def of_transformers(model: Any, tokenizer: Any, *, chat: Chat = "auto") -> LanguageModel:
    """A loaded model and tokenizer of transformers.

    Raises:
        ValueError: if a chat template is asked for and there is none.
    """
    model.eval()
    templated = getattr(tokenizer, "chat_template", None) is not None
    if chat == "yes" and not templated:
        raise ValueError("Expected a tokenizer with a chat template for chat='yes'; got none")
    use_chat = templated and chat != "no"
    config = model.config.get_text_config()
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    end = tokenizer.eos_token_id
    start = next(
        ([token] for token in (tokenizer.bos_token_id, end) if token is not None),
        list[int](),
    )

    def logits(ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        given = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        with torch.inference_mode():
            if keeps:
                return model(**given, logits_to_keep=positions).logits
            return model(**given).logits[:, positions]

    def encode(text: str, special: bool = False) -> list[int]:
        found = tokenizer(text, add_special_tokens=special, verbose=False)
        return list(found["input_ids"])

    def encode_prompt(prompt: Any) -> list[int]:
        if isinstance(prompt, str) and not use_chat:
            return encode(prompt, True)
        if not use_chat:
            raise ValueError("Expected texts, as there is no chat template; got chat messages")
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return encode(text)

    def decode(tokens: Sequence[int]) -> str:
        return str(
            tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    return LanguageModel(
        logits=logits,
        encode_prompt=encode_prompt,
        encode=encode,
        decode=decode,
        vocabulary=int(config.vocab_size),
        end=end,
        start=tuple(encode_prompt("")) if use_chat else tuple(start),
        context=getattr(config, "max_position_embeddings", None),
        chat=use_chat,
        device=str(model.device),
    )


def _where(path: Path) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` is to be given for a folder, a GGUF file or a name."""
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return str(path), {"gguf_file": files[0].name}
    return str(path), {}


@contextlib.contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without the library's bars and warnings, which are restored after; what fails is raised."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # GGUF has a bar of its own
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
