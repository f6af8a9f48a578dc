"""Turns of chat records by who speaks: OpenAI, ShareGPT, parts, reasoning and tool calls."""

from __future__ import annotations

import json
from typing import Any

USER, ASSISTANT, SYSTEM, TOOL = "user", "assistant", "system", "tool"
_ROLES = {
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "bard": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
    "tool": TOOL,
    "function": TOOL,
    "function_call": ASSISTANT,
    "observation": TOOL,
}


def are_turns(value: Any) -> bool:
    """Whether a value is a list of records that each name who speaks."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(turn, dict) and _speaker(turn) is not None for turn in value)
    )


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
    said = [_text(content)]
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
    return turn.get("role") or turn.get("from") or turn.get("speaker")
