"""Turns of chat records by who speaks: OpenAI, ShareGPT, parts, reasoning and tool calls."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

USER, ASSISTANT, SYSTEM, TOOL = "user", "assistant", "system", "tool"
_ROLES = {
    name: role
    for role, names in {
        USER: "user human prompter",
        ASSISTANT: "assistant gpt model bot ai chatgpt bing bard function_call",
        SYSTEM: "system developer",
        TOOL: "tool function observation",
    }.items()
    for name in names.split()
}


def are_turns(value: Any) -> bool:
    """Whether a value is a list of records that each name who speaks."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(turn, dict) and _speaker(turn) is not None for turn in value)
    )


def parsed(text: str) -> Any:
    """The turns that a text holds as JSON, as Python writes a list, or between a template's marks.

    >>> parsed("<|im_start|>user\\nask<|im_end|>")
    [{'role': 'user', 'content': 'ask'}]
    """
    if _LIST.match(text):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(text)  # literals alone: nothing is executed
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    for mark, end in _TEMPLATES:
        if mark.match(text):
            _, *found = mark.split(text)
            said = [part.split(end)[0].strip() for part in found[1::2]]
            return [
                {"role": role.lower(), "content": content}
                for role, content in zip(found[::2], said, strict=True)
                if content
            ]
    return None


def is_unreadable(text: str) -> bool:
    """Whether a text begins as a list of turns and is none."""
    return _TURNS.match(text) is not None and not are_turns(parsed(text))


# Marks of a role, and what ends its turn: ChatML, Llama 3, and Anthropic's plain dialogues.
_TEMPLATES = (
    (re.compile(r"\s*<\|im_start\|>(\w+)\n"), "<|im_end|>"),
    (
        re.compile(r"(?:\s*<\|begin_of_text\|>)?\s*<\|start_header_id\|>(\w+)<\|end_header_id\|>"),
        "<|eot_id|>",
    ),
    (re.compile(r"\n\n(Human|Assistant):"), "\n\nHuman:"),
)
_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_LIST = re.compile(r"\s*\[\s*\{")
_TURNS = re.compile(r"""\s*\[\s*\{\s*['"](role|from|content|value)['"]\s*:""")


def conversation(turns: list[dict[str, Any]]) -> str:
    """What the user and the model say, one below the other; system turns set the stage alone.

    >>> conversation([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    'u'
    """
    return "\n".join(_said([turn for turn in turns if role(turn) != SYSTEM]))


def by_role(turns: list[dict[str, Any]], name: str) -> str:
    """The turns of one role, in order."""
    return "\n".join(_said([turn for turn in turns if role(turn) == _ROLES[name]]))


def is_role(name: str) -> bool:
    """Whether it is the name of a role in one of the formats."""
    return name in _ROLES


def role(turn: dict[str, Any]) -> str:
    """Who speaks in a turn."""
    speaker = str(_speaker(turn)).lower()
    return _ROLES.get(speaker, speaker)


def text_of(turn: dict[str, Any]) -> str:
    """What is said in a turn: its text or parts, and the tools called; not the reasoning."""
    content = next(
        (turn[key] for key in ("content", "value", "text", "parts") if turn.get(key)), ""
    )
    said = [_THOUGHT.sub("", _text(content))]
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function", call) if isinstance(call, dict) else {}
        if isinstance(function, dict):
            arguments = function.get("arguments", "")
            given = arguments if isinstance(arguments, str) else json.dumps(arguments)
            said.append(f"{function.get('name', '')} {given}".strip())
    return "\n".join(part for part in said if part)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for part in content if (text := _text(part)))
    if isinstance(content, dict) and content.get("type") not in ("thinking", "reasoning"):
        return _text(content.get("text") or content.get("content") or "")
    return ""


def _said(turns: list[dict[str, Any]]) -> list[str]:
    return [text for turn in turns if (text := text_of(turn))]


def _speaker(turn: dict[str, Any]) -> Any:
    kind = turn.get("type")  # LangChain's; of parts of a turn it says what they hold
    said = turn.get("role") or turn.get("from") or turn.get("speaker")
    return said or (kind if kind in ("human", "ai", "system") else None)
