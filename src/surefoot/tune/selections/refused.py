"""Methods of `peft` that cannot be selections here, each with what to use in its place."""

from __future__ import annotations

from surefoot.registry import refuse

_LENGTH = (
    "it puts tokens of its own before the text, which would change the length that pooling, caches and masks count on"
)
REFUSED = {
    "prompt_tuning": f"{_LENGTH}: choose `prefix_tuning`, which lets every layer look at learned keys and values instead",
    "p_tuning": f"{_LENGTH}: choose `prefix_tuning` with a `width`, whose keys and values a small net makes as P-tuning's encoder makes prompts",
    "p_tuning_v2": "it is prefix tuning under another name: choose `prefix_tuning`, with width: null",
    "multitask_prompt_tuning": f"{_LENGTH}, and it trains on several tasks at once: choose `prefix_tuning` for each task",
    "poly": "it mixes low-rank additions of several tasks by the task's number, and a training has one task: choose `lora`",
}
for _name, _why in REFUSED.items():
    refuse(_name, kind="selection", why=_why)
